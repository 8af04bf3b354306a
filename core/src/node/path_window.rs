//! The course of one path over the last minute: round trips and loss as they were measured. Decides what the judge is
//! told of it and when it counts as silent; refuses a figure where nothing was heard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::path_loss::Ways;
use crate::model::{PathReport, Share, Timestamp};

/// What readers see of a path now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PathFigures {
    /// Median round trip of the last [`RECENT`], in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_seconds: Option<f64>,
    /// Shortest round trip of the last [`RECENT`], in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_rtt_seconds: Option<f64>,
    /// Pings of the last [`MINUTE`] lost on the way to the other node, of those sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_loss_ratio: Option<f64>,
    /// Pings of the last [`MINUTE`] lost on the way back, of those that came there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_loss_ratio: Option<f64>,
}

impl PathFigures {
    /// The worse of both ways' losses.
    #[must_use]
    pub fn loss_ratio(&self) -> Option<f64> {
        [self.out_loss_ratio, self.back_loss_ratio].into_iter().flatten().reduce(f64::max)
    }
}

/// What was measured of one path. Bounded: [`MOST_TRIPS`] round trips, a minute in pieces of [`PIECE`].
#[derive(Clone, Debug, Default)]
pub struct PathWindow {
    trips: VecDeque<(Timestamp, Duration)>,
    minute: VecDeque<(Timestamp, Ways)>,
    fresh_trips: Vec<Duration>,
    fresh: Ways,
    all: Ways,
    heard: Option<Timestamp>,
    parted: bool,
}

impl PathWindow {
    /// An echo came back after `rtt`, and these pings were decided by it.
    pub fn hear(&mut self, now: Timestamp, rtt: Duration, ways: Ways) {
        self.trim(now);
        if self.trips.len() == MOST_TRIPS {
            self.trips.pop_front();
        }
        self.trips.push_back((now, rtt));
        if self.fresh_trips.len() < MOST_TRIPS {
            self.fresh_trips.push(rtt);
        }
        match self.minute.back_mut() {
            Some((since, sum)) if now.since(*since) < PIECE => sum.add(ways),
            _ => self.minute.push_back((now, ways)),
        }
        self.fresh.add(ways);
        self.all.add(ways);
        (self.heard, self.parted) = (Some(now), false);
    }

    /// The other node took leave: its silence says nothing of the path.
    pub const fn part(&mut self) {
        self.parted = true;
    }

    /// What became of all pings so far.
    #[must_use]
    pub const fn sums(&self) -> Ways {
        self.all
    }

    /// When something was last heard.
    #[must_use]
    pub const fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Since when nothing comes back from a node that was heard before and did not take leave.
    #[must_use]
    pub fn silent(&self, now: Timestamp) -> Option<Timestamp> {
        self.heard.filter(|heard| !self.parted && now.since(*heard) >= SILENT)
    }

    /// The news since the last call, for the judge; `None` where nothing was ever heard.
    pub fn word(&mut self, peer: &Arc<str>, now: Timestamp) -> Option<PathReport> {
        let silent = self.silent(now);
        let rtt = median(&mut std::mem::take(&mut self.fresh_trips));
        let Ways { out, back } = std::mem::take(&mut self.fresh);
        let told = |share: Share| Some(share).filter(|share| share.whole > 0.0);
        let (out, back) = (told(out), told(back));
        Some(PathReport { peer: Arc::clone(peer), at: self.heard?, rtt, out, back, silent })
    }

    /// What readers see; nothing once it is silent.
    #[must_use]
    pub fn figures(&self, now: Timestamp) -> PathFigures {
        if self.heard.is_none_or(|heard| now.since(heard) >= SILENT) {
            return PathFigures::default();
        }
        let recent = self.trips.iter().filter(|(at, _)| now.since(*at) < RECENT).map(|(_, rtt)| *rtt);
        let mut recent: Vec<_> = recent.collect();
        let mut sum = Ways::default();
        self.minute.iter().filter(|(since, _)| now.since(*since) < MINUTE).for_each(|(_, ways)| sum.add(*ways));
        let ratio = |share: Share| (share.whole > 0.0).then(|| share.ratio());
        PathFigures {
            least_rtt_seconds: recent.iter().min().map(Duration::as_secs_f64),
            rtt_seconds: median(&mut recent).map(|rtt| rtt.as_secs_f64()),
            out_loss_ratio: ratio(sum.out),
            back_loss_ratio: ratio(sum.back),
        }
    }

    fn trim(&mut self, now: Timestamp) {
        while self.trips.pop_front_if(|(at, _)| now.since(*at) >= RECENT).is_some() {}
        while self.minute.pop_front_if(|(since, _)| now.since(*since) >= MINUTE).is_some() {}
    }
}

/// The median, of an even number the higher of the middle two.
fn median(trips: &mut [Duration]) -> Option<Duration> {
    let middle = trips.len() / 2;
    (!trips.is_empty()).then(|| *trips.select_nth_unstable(middle).1)
}

/// Round trips that are shown are of so long.
pub(super) const RECENT: Duration = Duration::from_secs(10);
/// Losses that are shown are of so long.
pub(super) const MINUTE: Duration = Duration::from_mins(1);
/// A minute is kept in pieces of this length.
pub(super) const PIECE: Duration = Duration::from_secs(5);
/// Round trips kept.
pub(super) const MOST_TRIPS: usize = 512;
/// A path from which nothing came for so long is silent: what it is like now is unknown.
pub(super) const SILENT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Ways = Ways { out: Share { part: 1.0, whole: 10.0 }, back: Share { part: 0.0, whole: 9.0 } };

    fn peer() -> Arc<str> {
        "origin-1".into()
    }

    #[test]
    fn news_are_told_once_and_figures_stay() {
        let mut course = PathWindow::default();
        let at = Timestamp::from_secs(100);
        assert_eq!(course.word(&peer(), at), None, "nothing was heard");
        assert_eq!(course.figures(at), PathFigures::default());
        for millis in [30, 10, 20] {
            course.hear(at, Duration::from_millis(millis), LOST);
        }
        let word = course.word(&peer(), at).expect("news");
        assert_eq!((word.rtt, word.silent), (Some(Duration::from_millis(20)), None));
        assert_eq!((word.out, word.back), (Share::of(3.0, 30.0), Share::of(0.0, 27.0)));
        let word = course.word(&peer(), at).expect("the same instant again");
        assert_eq!((word.at, word.rtt, word.out), (at, None, None));
        let figures = course.figures(at);
        assert_eq!((figures.rtt_seconds, figures.least_rtt_seconds), (Some(0.02), Some(0.01)));
        assert_eq!((figures.loss_ratio(), figures.back_loss_ratio), (Some(0.1), Some(0.0)));
    }

    #[test]
    fn silence_has_no_figures_and_leave_is_no_silence() {
        let mut course = PathWindow::default();
        let at = Timestamp::from_secs(100);
        course.hear(at, Duration::from_millis(9), LOST);
        let later = at + SILENT;
        assert_eq!(course.figures(later), PathFigures::default());
        assert_eq!(course.word(&peer(), later).expect("a word").silent, Some(at));
        course.part();
        assert_eq!(course.silent(later), None);
        course.hear(later, Duration::from_millis(9), Ways::default());
        assert_eq!(course.silent(later + SILENT), Some(later), "it came back and went without leave");
    }

    #[test]
    fn it_keeps_a_minute_and_no_more() {
        let mut course = PathWindow::default();
        for tick in 0..24_000_u64 {
            course.hear(Timestamp::from_millis(tick * 10), Duration::from_millis(5), LOST);
        }
        assert_eq!(course.trips.len(), MOST_TRIPS);
        assert!(course.minute.len() <= 13, "{}", course.minute.len());
        assert_eq!(course.fresh_trips.len(), MOST_TRIPS);
    }
}
