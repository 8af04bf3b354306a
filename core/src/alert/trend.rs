//! Where a level is going: a robust slope over the last minutes and how sure it is. Decides whether and when a limit
//! will be passed; refuses to tell from few points or from noise.

use std::collections::VecDeque;

use crate::model::Forecast;

/// Points of one level, one a step of [`STEP_SECONDS`]; at most [`POINTS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    points: VecDeque<f32>,
}

/// A point each so many seconds.
pub(super) const STEP_SECONDS: f64 = 5.0;

/// Most points kept: four minutes.
pub(super) const POINTS: usize = 48;

/// Fewer points tell nothing.
pub(super) const LEAST_POINTS: usize = 24;

/// What was watched for a minute is extrapolated over two.
pub(super) const REACH: f64 = 2.0;

impl Trend {
    /// Adds the level of the newest step. A step without a level breaks the line: what was before it is forgotten.
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

    /// Whether [`Self::reaches`] may give a forecast that is likelier than not; never wrong where it says no, and far
    /// cheaper. Half of all pairs of points must rise as steeply as it takes to the limit from the highest point, and
    /// within the span of their levels only near ones can.
    #[must_use]
    pub(crate) fn may_reach(&self, limit: f64, horizon: f64) -> bool {
        let points = self.points.iter().map(|point| f64::from(*point));
        let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
        for point in points {
            (lowest, highest) = (lowest.min(point), highest.max(point));
        }
        // Over fewer points than all, the reach is no longer and the levels span no more.
        Self::spans(self.points.len()).any(|span| {
            let steps = (horizon / STEP_SECONDS).min(span as f64 * REACH);
            let least = (limit - highest) / ((span - 1) as f64 + steps);
            let farthest = ((highest - lowest) / least).floor().clamp(0.0, (span - 1) as f64) as usize;
            let near = farthest * span - farthest * (farthest + 1) / 2;
            least <= 0.0 || near * 2 >= span * (span - 1) / 2
        })
    }

    /// When the level passes `limit` by its trend, and how sure it is that it does within `horizon` seconds. `None`
    /// when it has passed it already, when too little is known, when it does not go there, and beyond [`REACH`] times
    /// what was watched.
    #[must_use]
    pub(super) fn reaches(&self, limit: f64, horizon: f64) -> Option<Forecast> {
        let points: Vec<f64> = self.points.iter().map(|point| f64::from(*point)).collect();
        if points.last().is_none_or(|last| *last >= limit) {
            return None;
        }
        // The past that most surely rises and goes straight on into the present: an old plateau must not flatten a
        // rise, nor an old rise outlive its end.
        let lines =
            Self::spans(points.len()).filter_map(|span| Some((span, Line::through(&points[points.len() - span..])?)));
        let going = lines.filter(|(_, line)| line.goes_on);
        let (span, line) = going.max_by(|a, b| a.1.least().total_cmp(&b.1.least()))?;
        let left = limit - line.now;
        if line.slope <= line.error * CLEAR_SLOPE || left <= 0.0 {
            return None;
        }
        let steps = (horizon / STEP_SECONDS).min(span as f64 * REACH);
        // Noise of a later point, and of the slope over the way there.
        let spread = (line.noise.powi(2) + (line.error * steps).powi(2)).sqrt().max(limit.abs() * 1e-3);
        let confidence = normal_share((line.slope * steps - left) / spread);
        let steepest = line.slope + DECILE * line.error;
        Some(Forecast {
            seconds: left / line.slope * STEP_SECONDS,
            soonest: (left - DECILE * line.noise).max(0.0) / steepest * STEP_SECONDS,
            confidence,
        })
    }

    /// The pasts that are looked at, in points.
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

/// A line through points a step apart.
struct Line {
    /// Per step.
    slope: f64,
    /// Level at the newest point.
    now: f64,
    /// Standard deviation of points around it.
    noise: f64,
    /// Standard error of the slope.
    error: f64,
    /// Whether the newest points still lie along it.
    goes_on: bool,
}

impl Line {
    /// The slope that there is beyond doubt.
    fn least(&self) -> f64 {
        self.slope - 2.0 * self.error
    }

    /// Theil-Sen: the median of the slopes of all pairs, which a third of wild points does not move; the noise by the
    /// median deviation.
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
        // The noise between neighbours, in which a bend of the line has no part.
        let mut steps: Vec<f64> = points.windows(2).map(|two| (two[1] - two[0] - slope).abs()).collect();
        let restless = NORMAL_MAD / std::f64::consts::SQRT_2 * median(&mut steps)?;
        let newest = median(&mut off[count.saturating_sub(NEWEST)..].to_vec())?.abs();
        let goes_on = newest <= restless * 1.5 + centre.abs() * 2e-3;
        let width = points.iter().enumerate().map(|(at, _)| (at as f64 - middle).powi(2)).sum::<f64>().sqrt();
        // Neighbouring points are alike: they are worth fewer than they are.
        Some(Self { slope, now: centre + slope * (count - 1) as f64, noise, error: ALIKE * noise / width, goes_on })
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

/// Standard deviation over median absolute deviation of a normal.
const NORMAL_MAD: f64 = 1.4826;
/// The error of a slope through points that depend on their neighbours, over that of independent ones.
const ALIKE: f64 = 2.0;
/// A slope is one when it is so many of its errors.
const CLEAR_SLOPE: f64 = 4.5;
/// Points that show whether the line goes on.
const NEWEST: usize = 5;
/// Standard deviations that one in ten passes.
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
    fn a_steady_rise_tells_when() {
        let forecast = of((0..30).map(|at| 0.5 + 0.01 * f64::from(at))).reaches(0.95, 600.0).expect("it rises");
        assert!((forecast.seconds - 80.0).abs() < 1.0, "{forecast}");
        assert!(forecast.confidence > 0.99 && forecast.soonest <= forecast.seconds);
    }

    #[test]
    fn wild_points_do_not_move_it() {
        let rise = |at: i32| if at % 5 == 0 { 0.1 } else { 0.5 + 0.01 * f64::from(at) };
        let forecast = of((0..40).map(rise)).reaches(1.1, 900.0).expect("it rises");
        assert!((forecast.seconds - 105.0).abs() < 20.0, "{forecast}");
    }

    #[test]
    fn noise_falls_and_the_past_tell_nothing() {
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
        fn what_may_not_reach_is_unlikely(
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
