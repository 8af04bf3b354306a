//! One path over the last minute: round trips and losses as they were measured. Decides what a path report contains and
//! when a path counts as silent. Gives no figures where nothing was received.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::path_loss::DirectionLoss;
use crate::model::{PathReport, Share, Timestamp};

/// The figures of a path now, as the API and the page show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PathFigures {
    /// Median round trip of the last 10 s, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_seconds: Option<f64>,
    /// Shortest round trip of the last 10 s, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_rtt_seconds: Option<f64>,
    /// Pings of the last minute lost on the way to the other node, over those sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_loss_ratio: Option<f64>,
    /// Pings of the last minute lost on the way back, over those the other node received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_loss_ratio: Option<f64>,
}

impl PathFigures {
    /// The worse loss of both directions.
    #[must_use]
    pub fn loss_ratio(&self) -> Option<f64> {
        [self.out_loss_ratio, self.back_loss_ratio].into_iter().flatten().reduce(f64::max)
    }
}

/// What was measured of one path. Bounded: at most `MAX_ROUND_TRIPS` round trips, and a minute in pieces of
/// `PIECE`.
#[derive(Clone, Debug, Default)]
pub struct PathWindow {
    round_trips: VecDeque<(Timestamp, Duration)>,
    minute: VecDeque<(Timestamp, DirectionLoss)>,
    unreported_rtts: Vec<Duration>,
    unreported: DirectionLoss,
    all: DirectionLoss,
    last_echo: Option<Timestamp>,
    departed: bool,
}

impl PathWindow {
    /// Records an echo that returned after `rtt`, and the losses it decided.
    pub fn record(&mut self, now: Timestamp, rtt: Duration, losses: DirectionLoss) {
        self.trim(now);
        if self.round_trips.len() == MAX_ROUND_TRIPS {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back((now, rtt));
        if self.unreported_rtts.len() < MAX_ROUND_TRIPS {
            self.unreported_rtts.push(rtt);
        }
        match self.minute.back_mut() {
            Some((since, sum)) if now.since(*since) < PIECE => sum.add(losses),
            _ => self.minute.push_back((now, losses)),
        }
        self.unreported.add(losses);
        self.all.add(losses);
        (self.last_echo, self.departed) = (Some(now), false);
    }

    /// The other node announced its shutdown: its silence says nothing about the path.
    pub const fn mark_departed(&mut self) {
        self.departed = true;
    }

    /// The losses of all pings so far.
    #[must_use]
    pub const fn sums(&self) -> DirectionLoss {
        self.all
    }

    /// When the last echo returned.
    #[must_use]
    pub const fn last_echo(&self) -> Option<Timestamp> {
        self.last_echo
    }

    /// Since when no echo returned from a node that answered before and did not announce its shutdown.
    #[must_use]
    pub fn silent_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.last_echo.filter(|last_echo| !self.departed && now.since(*last_echo) >= SILENT)
    }

    /// The report since the last call, for the alerts; `None` where no echo ever returned.
    pub fn report(&mut self, peer: &Arc<str>, now: Timestamp) -> Option<PathReport> {
        let silent = self.silent_since(now);
        let rtt = median(&mut std::mem::take(&mut self.unreported_rtts));
        let DirectionLoss { out, back } = std::mem::take(&mut self.unreported);
        let known = |share: Share| Some(share).filter(|share| share.whole > 0.0);
        let (out, back) = (known(out), known(back));
        Some(PathReport { peer: Arc::clone(peer), at: self.last_echo?, rtt, out, back, silent })
    }

    /// The present figures; none once it is silent.
    #[must_use]
    pub fn figures(&self, now: Timestamp) -> PathFigures {
        if self.last_echo.is_none_or(|last_echo| now.since(last_echo) >= SILENT) {
            return PathFigures::default();
        }
        let recent = self.round_trips.iter().filter(|(at, _)| now.since(*at) < RECENT).map(|(_, rtt)| *rtt);
        let mut recent: Vec<_> = recent.collect();
        let mut sum = DirectionLoss::default();
        self.minute.iter().filter(|(since, _)| now.since(*since) < MINUTE).for_each(|(_, losses)| sum.add(*losses));
        let ratio = |share: Share| (share.whole > 0.0).then(|| share.ratio());
        PathFigures {
            least_rtt_seconds: recent.iter().min().map(Duration::as_secs_f64),
            rtt_seconds: median(&mut recent).map(|rtt| rtt.as_secs_f64()),
            out_loss_ratio: ratio(sum.out),
            back_loss_ratio: ratio(sum.back),
        }
    }

    fn trim(&mut self, now: Timestamp) {
        while self.round_trips.pop_front_if(|(at, _)| now.since(*at) >= RECENT).is_some() {}
        while self.minute.pop_front_if(|(since, _)| now.since(*since) >= MINUTE).is_some() {}
    }
}

/// The median; of an even number the higher of the middle two.
fn median(round_trips: &mut [Duration]) -> Option<Duration> {
    let middle = round_trips.len() / 2;
    (!round_trips.is_empty()).then(|| *round_trips.select_nth_unstable(middle).1)
}

/// Round trips shown are of the last seconds.
pub(super) const RECENT: Duration = Duration::from_secs(10);
/// Losses shown are of the last minute.
pub(super) const MINUTE: Duration = Duration::from_mins(1);
/// The minute is kept in pieces of this length.
pub(super) const PIECE: Duration = Duration::from_secs(5);
/// Most round trips kept.
pub(super) const MAX_ROUND_TRIPS: usize = 512;
/// A path without an echo for this long is silent: its state is unknown.
pub(super) const SILENT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: DirectionLoss =
        DirectionLoss { out: Share { part: 1.0, whole: 10.0 }, back: Share { part: 0.0, whole: 9.0 } };

    fn peer() -> Arc<str> {
        "origin-1".into()
    }

    #[test]
    fn reports_are_given_once_and_figures_stay() {
        let mut window = PathWindow::default();
        let at = Timestamp::from_secs(100);
        assert_eq!(window.report(&peer(), at), None, "no echo returned");
        assert_eq!(window.figures(at), PathFigures::default());
        for millis in [30, 10, 20] {
            window.record(at, Duration::from_millis(millis), LOST);
        }
        let report = window.report(&peer(), at).expect("a new report");
        assert_eq!((report.rtt, report.silent), (Some(Duration::from_millis(20)), None));
        assert_eq!((report.out, report.back), (Share::of(3.0, 30.0), Share::of(0.0, 27.0)));
        let report = window.report(&peer(), at).expect("the same instant again");
        assert_eq!((report.at, report.rtt, report.out), (at, None, None));
        let figures = window.figures(at);
        assert_eq!((figures.rtt_seconds, figures.least_rtt_seconds), (Some(0.02), Some(0.01)));
        assert_eq!((figures.loss_ratio(), figures.back_loss_ratio), (Some(0.1), Some(0.0)));
    }

    #[test]
    fn a_silent_path_has_no_figures_and_an_announced_shutdown_is_no_silence() {
        let mut window = PathWindow::default();
        let at = Timestamp::from_secs(100);
        window.record(at, Duration::from_millis(9), LOST);
        let later = at + SILENT;
        assert_eq!(window.figures(later), PathFigures::default());
        assert_eq!(window.report(&peer(), later).expect("a report").silent, Some(at));
        window.mark_departed();
        assert_eq!(window.silent_since(later), None);
        window.record(later, Duration::from_millis(9), DirectionLoss::default());
        assert_eq!(window.silent_since(later + SILENT), Some(later), "it returned and left without notice");
    }

    #[test]
    fn at_most_a_minute_is_kept() {
        let mut window = PathWindow::default();
        for tick in 0..24_000_u64 {
            window.record(Timestamp::from_millis(tick * 10), Duration::from_millis(5), LOST);
        }
        assert_eq!(window.round_trips.len(), MAX_ROUND_TRIPS);
        assert!(window.minute.len() <= 13, "{}", window.minute.len());
        assert_eq!(window.unreported_rtts.len(), MAX_ROUND_TRIPS);
    }
}
