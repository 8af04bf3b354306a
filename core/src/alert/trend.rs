//! Where a level is heading: a robust slope over the last minutes, and its confidence. Decides whether and when a limit
//! will be passed; gives no forecast from few points or from noise.

use std::collections::VecDeque;

use crate::model::Forecast;

/// The points of one level, one per step of [`STEP_SECONDS`]; at most [`POINTS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    points: VecDeque<f32>,
}

/// Seconds between points.
pub(super) const STEP_SECONDS: f64 = 5.0;

/// Most points kept: four minutes.
pub(super) const POINTS: usize = 48;

/// With fewer points there is no forecast.
pub(super) const LEAST_POINTS: usize = 24;

/// Extrapolation reaches this many times as far as the observation.
pub(super) const REACH: f64 = 2.0;

impl Trend {
    /// Adds the level of the newest step. A step without a level breaks the line: earlier points are dropped.
    pub(super) fn add(&mut self, level: Option<f64>) {
        let Some(level) = level else {
            self.points.clear();
            return;
        };
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(POINTS / 4);
        }
        self.points.push_back(level as f32);
    }

    /// Whether [`Self::reaches`] may give a forecast that is likelier than not. Far cheaper, and a `false` is always
    /// right: half of all pairs of points must rise as steeply as the way from the highest point to the limit, and
    /// within the range of levels only near pairs can.
    #[must_use]
    pub(crate) fn may_reach(&self, limit: f64, horizon: f64) -> bool {
        let points = self.points.iter().map(|point| f64::from(*point));
        let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
        for point in points {
            (lowest, highest) = (lowest.min(point), highest.max(point));
        }
        // Over fewer points the reach is no longer and the range of levels no wider.
        Self::spans(self.points.len()).any(|span| {
            let steps = (horizon / STEP_SECONDS).min(span as f64 * REACH);
            let certain_slope = (limit - highest) / ((span - 1) as f64 + steps);
            let farthest = ((highest - lowest) / certain_slope).floor().clamp(0.0, (span - 1) as f64) as usize;
            let near = farthest * span - farthest * (farthest + 1) / 2;
            certain_slope <= 0.0 || near * 2 >= span * (span - 1) / 2
        })
    }

    /// When the level passes `limit` by its trend, and the confidence that it does within `horizon` seconds. `None`
    /// when it has passed it already, when too little is known, when it does not head there, and beyond [`REACH`] times
    /// the observed time.
    #[must_use]
    pub(super) fn reaches(&self, limit: f64, horizon: f64) -> Option<Forecast> {
        let points: Vec<f64> = self.points.iter().map(|point| f64::from(*point)).collect();
        if points.last().is_none_or(|last| *last >= limit) {
            return None;
        }
        // The span that rises most certainly and continues to the present: an old plateau must not flatten a rise, nor
        // an old rise outlive its end.
        let lines =
            Self::spans(points.len()).filter_map(|span| Some((span, Line::through(&points[points.len() - span..])?)));
        let going = lines.filter(|(_, line)| line.continues);
        let (span, line) = going.max_by(|a, b| a.1.certain_slope().total_cmp(&b.1.certain_slope()))?;
        let left = limit - line.now;
        if line.slope <= line.error * CLEAR_SLOPE || left <= 0.0 {
            return None;
        }
        let steps = (horizon / STEP_SECONDS).min(span as f64 * REACH);
        // Noise of a later point, and of the slope over the distance.
        let spread = (line.noise.powi(2) + (line.error * steps).powi(2)).sqrt().max(limit.abs() * 1e-3);
        let confidence = normal_share((line.slope * steps - left) / spread);
        let steepest = line.slope + DECILE * line.error;
        Some(Forecast {
            seconds: left / line.slope * STEP_SECONDS,
            soonest: (left - DECILE * line.noise).max(0.0) / steepest * STEP_SECONDS,
            confidence,
        })
    }

    /// The spans that are tried, in points.
    fn spans(count: usize) -> impl Iterator<Item = usize> {
        let spans = [count, count * 2 / 3, count / 2, LEAST_POINTS];
        spans.into_iter().filter(move |span| (LEAST_POINTS..=count).contains(span))
    }

    /// The newest level.
    #[must_use]
    pub(super) fn newest(&self) -> Option<f64> {
        self.points.back().map(|point| f64::from(*point))
    }
}

/// A line through equidistant points.
struct Line {
    /// Per step.
    slope: f64,
    /// Level at the newest point.
    now: f64,
    /// Standard deviation of points around it.
    noise: f64,
    /// Standard error of the slope.
    error: f64,
    /// Whether the newest points still lie on it.
    continues: bool,
}

impl Line {
    /// Lower bound of the slope: two standard errors below it.
    fn certain_slope(&self) -> f64 {
        self.slope - 2.0 * self.error
    }

    /// Theil-Sen estimator: the median of the slopes of all pairs, which a third of outliers does not move; the noise
    /// by the median absolute deviation.
    fn through(points: &[f64]) -> Option<Self> {
        let count = points.len();
        let mut slopes = Vec::with_capacity(count * (count - 1) / 2);
        for (from, a) in points.iter().enumerate() {
            slopes.extend(points.iter().enumerate().skip(from + 1).map(|(to, b)| (b - a) / (to - from) as f64));
        }
        let slope = median(&mut slopes)?;
        let middle = (count - 1) as f64 / 2.0;
        let centre = median(&mut points.iter().enumerate().map(|(at, y)| y - slope * at as f64).collect::<Vec<_>>())?;
        let off: Vec<f64> = points.iter().enumerate().map(|(at, y)| y - centre - slope * at as f64).collect();
        let noise = NORMAL_MAD * median(&mut off.iter().map(|off| off.abs()).collect::<Vec<_>>())?;
        // The noise between neighbours, to which a bend of the line adds nothing.
        let mut steps: Vec<f64> = points.windows(2).map(|two| (two[1] - two[0] - slope).abs()).collect();
        let neighbour_noise = NORMAL_MAD / std::f64::consts::SQRT_2 * median(&mut steps)?;
        let newest = median(&mut off[count.saturating_sub(NEWEST)..].to_vec())?.abs();
        let continues = newest <= neighbour_noise * 1.5 + centre.abs() * 2e-3;
        let width = points.iter().enumerate().map(|(at, _)| (at as f64 - middle).powi(2)).sum::<f64>().sqrt();
        // Neighbouring points are correlated, so they are worth fewer than their number.
        Some(Self {
            slope,
            now: centre + slope * (count - 1) as f64,
            noise,
            error: CORRELATED * noise / width,
            continues,
        })
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// The share of a standard normal below `z` (Abramowitz and Stegun 26.2.17, error under 1e-7).
fn normal_share(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let tail =
        poly.iter().fold(0.0, |sum, factor| (sum + factor) * t) * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if z > 0.0 { 1.0 - tail } else { tail }
}

/// Standard deviation over median absolute deviation of a normal distribution.
const NORMAL_MAD: f64 = 1.4826;
/// Error of a slope through correlated points over that through independent ones.
const CORRELATED: f64 = 2.0;
/// A slope counts from this many times its standard error.
const CLEAR_SLOPE: f64 = 4.5;
/// Newest points that show whether the line continues.
const NEWEST: usize = 5;
/// Standard deviations exceeded once in ten times.
const DECILE: f64 = 1.2816;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(points: impl IntoIterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        points.into_iter().for_each(|point| trend.add(Some(point)));
        trend
    }

    #[test]
    fn a_steady_rise_gives_the_time() {
        let forecast = of((0..30).map(|at| 0.5 + 0.01 * f64::from(at))).reaches(0.95, 600.0).expect("it rises");
        assert!((forecast.seconds - 80.0).abs() < 1.0, "{forecast}");
        assert!(forecast.confidence > 0.99 && forecast.soonest <= forecast.seconds);
    }

    #[test]
    fn outliers_do_not_move_it() {
        let rise = |at: i32| if at % 5 == 0 { 0.1 } else { 0.5 + 0.01 * f64::from(at) };
        let forecast = of((0..40).map(rise)).reaches(1.1, 900.0).expect("it rises");
        assert!((forecast.seconds - 105.0).abs() < 20.0, "{forecast}");
    }

    #[test]
    fn noise_falling_levels_and_breached_limits_give_no_forecast() {
        let noise = of((0..48_u64).map(|at| 0.5 + 0.05 * ((at * 7_919 % 101) as f64 / 101.0 - 0.5)));
        assert!(noise.reaches(0.95, 600.0).is_none_or(|forecast| forecast.confidence < 0.5));
        assert_eq!(of((0..30).map(|at| 0.9 - 0.01 * f64::from(at))).reaches(0.95, 600.0), None);
        assert_eq!(of([0.96; 30]).reaches(0.95, 600.0), None, "passed already");
        let mut broken = of((0..30).map(|at| 0.5 + 0.01 * f64::from(at)));
        broken.add(None);
        assert_eq!(broken.reaches(0.95, 600.0), None);
    }

    proptest! {
        #[test]
        fn the_cheap_check_never_misses_a_likely_breach(
            (level, slope, noise) in (0.0..1.0_f64, -0.01..0.03_f64, 0.0..0.2_f64),
            wild in prop::collection::vec(-1.0..1.0_f64, 0..60),
        ) {
            let trend = of((0..).zip(&wild).map(|(at, wild)| level + slope * f64::from(at) + noise * wild.powi(3)));
            for limit in [0.5, 1.0, 2.0] {
                let forecast = trend.reaches(limit, 180.0).filter(|forecast| forecast.confidence >= 0.5);
                prop_assert!(forecast.is_none() || trend.may_reach(limit, 180.0));
            }
        }
    }

    #[test]
    fn shares_of_a_normal() {
        for (z, share) in [(0.0, 0.5), (1.2816, 0.9), (-1.96, 0.025), (4.0, 0.999_97)] {
            assert!((normal_share(z) - share).abs() < 1e-4, "{z}");
        }
    }
}
