//! What is heard of one leg to the viewers, folded as it comes. Decides how the kernel's and the players' words add up
//! within a window and for the judge; refuses to mix them: where players told, their stutter, loss and latency stand,
//! else the kernel's.

use std::sync::Arc;
use std::time::Duration;

use super::group_tally::Groups;
use crate::base::{LatencyHistogram, ViewerSketch};
use crate::model::{
    LatencyReading, Leg, LegSample, MAX_FIRST_FRAMES, Measured, PathView, PlayerView, Provenance, Rtt, Share, Timestamp,
};

/// A viewer-side word older than this no longer speaks for the present.
pub(super) const FRESH: Duration = Duration::from_secs(12);

/// Sums that only grow while the session lives: what the judge differences from tick to tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LegTotals {
    /// Viewer-seconds in playing or stalled state.
    pub exposure_seconds: f64,
    /// Of them stalled.
    pub stalled_seconds: f64,
    /// Stalls that began.
    pub stall_starts: u64,
    /// Packets (or TCP segments) expected.
    pub expected: u64,
    /// Of them lost, before repair.
    pub lost: u64,
    /// Whether players told the packets; two sums may be differenced only while this stays the same.
    pub by_players: bool,
}

/// One leg of a live session.
#[derive(Clone, Debug, Default)]
pub struct LiveLeg {
    players: Option<Box<Fold>>,
    path: Option<Box<Fold>>,
    first_frames: Vec<Duration>,
    frames: Option<u64>,
    bytes: Option<u64>,
    requests: Option<u64>,
    starved: Option<u64>,
    stuttering: Option<(u32, u32)>,
    present: Option<Arc<ViewerSketch>>,
    messages: Option<Box<LatencyHistogram>>,
    groups: Option<Box<Groups>>,
    backlog_bytes: u64,
}

/// One kind of source's sums.
#[derive(Clone, Debug, Default)]
struct Fold {
    heard: Option<Timestamp>,
    viewers: u32,
    most_viewers: u32,
    totals: LegTotals,
    at_cut: LegTotals,
    window: LatencyHistogram,
    rtt: Option<Rtt>,
    window_look: Option<u64>,
    looks: (u64, f64),
    latest: LatencyHistogram,
}

impl LiveLeg {
    /// Folds the kernel's word of one tick.
    pub fn path(&mut self, at: Timestamp, view: PathView) {
        let fold = self.path.get_or_insert_default();
        fold.hear(at, view.viewers);
        self.backlog_bytes = view.backlog_bytes;
        fold.totals.count(view.segments_sent.zip(view.segments_lost));
        fold.rtt = view.rtt.or(fold.rtt);
        fold.look(at, view.latencies);
    }

    /// Folds what players told since their last word.
    pub fn players(&mut self, at: Timestamp, view: PlayerView) {
        let fold = self.players.get_or_insert_default();
        fold.hear(at, view.viewers);
        fold.totals.exposure_seconds += view.exposure.as_secs_f64();
        fold.totals.stalled_seconds += view.stalled.min(view.exposure).as_secs_f64();
        fold.totals.stall_starts = fold.totals.stall_starts.saturating_add(u64::from(view.stall_starts));
        fold.totals.by_players |= view.packets_expected.is_some() && view.packets_lost.is_some();
        fold.totals.count(view.packets_expected.zip(view.packets_lost));
        if let Some(latencies) = view.latencies {
            fold.look(at, latencies);
        }
        add(&mut self.frames, view.frames);
        add(&mut self.bytes, view.bytes);
        add(&mut self.requests, view.requests);
        add(&mut self.starved, view.starved_viewers.map(u64::from));
        self.stuttering = view.stutter_viewers.or(self.stuttering);
        join(&mut self.present, view.present);
        if let Some(messages) = view.messages {
            self.messages.get_or_insert_default().add(&messages);
        }
        if !view.groups.is_empty() {
            self.groups.get_or_insert_default().take(at, view.groups);
        }
        let room = MAX_FIRST_FRAMES.saturating_sub(self.first_frames.len());
        self.first_frames.extend(view.first_frames.into_iter().take(room));
    }

    /// The growing sums: the players' where they told, else the kernel's.
    #[must_use]
    pub fn totals(&self) -> LegTotals {
        let of = |fold: &Option<Box<Fold>>| fold.as_ref().map(|fold| fold.totals).unwrap_or_default();
        let players = of(&self.players);
        if players.by_players {
            return players;
        }
        let path = of(&self.path);
        LegTotals { expected: path.expected, lost: path.lost, ..players }
    }

    /// The newest latencies of viewers, where heard of lately.
    #[must_use]
    pub fn latest(&self, now: Timestamp) -> Option<(&LatencyHistogram, Provenance)> {
        let told = fresh(self.players.as_deref(), now).map(|fold| (&fold.latest, Provenance::Player));
        told.filter(|(latest, _)| !latest.is_empty()).or_else(|| {
            let seen = fresh(self.path.as_deref(), now).map(|fold| (&fold.latest, Provenance::Estimated));
            seen.filter(|(latest, _)| !latest.is_empty())
        })
    }

    /// Which groups of viewers suffer, where players tell.
    #[must_use]
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_deref()
    }

    /// Bytes that waited in the node's kernel for these viewers, where it was heard of lately.
    #[must_use]
    pub fn backlog_bytes(&self, now: Timestamp) -> Option<u64> {
        fresh(self.path.as_deref(), now).map(|_| self.backlog_bytes)
    }

    /// Viewers that speak for themselves or whose connections are seen.
    #[must_use]
    pub fn heard_viewers(&self, now: Timestamp) -> u32 {
        let folds = [&self.players, &self.path].into_iter().filter_map(|fold| fresh(fold.as_deref(), now));
        folds.map(|fold| fold.viewers).max().unwrap_or(0)
    }

    /// Players lately heard of, where any were.
    #[must_use]
    pub fn players_heard(&self, now: Timestamp) -> Option<u32> {
        fresh(self.players.as_deref(), now).map(|fold| fold.viewers)
    }

    /// When it last said anything.
    #[must_use]
    pub fn last_heard(&self) -> Option<Timestamp> {
        let heard = |fold: &Option<Box<Fold>>| fold.as_ref().and_then(|fold| fold.heard);
        heard(&self.players).max(heard(&self.path))
    }

    /// Takes over what another leg heard since its last cut, when two classes turn out to be one.
    pub fn absorb(&mut self, other: Self) {
        for (fold, other) in [(&mut self.players, other.players), (&mut self.path, other.path)] {
            if let Some(other) = other {
                fold.get_or_insert_default().absorb(*other);
            }
        }
        add(&mut self.frames, other.frames);
        add(&mut self.bytes, other.bytes);
        add(&mut self.requests, other.requests);
        add(&mut self.starved, other.starved);
        self.stuttering = self.stuttering.or(other.stuttering);
        join(&mut self.present, other.present);
        if let Some(messages) = other.messages {
            self.messages.get_or_insert_default().add(&messages);
        }
        let room = MAX_FIRST_FRAMES.saturating_sub(self.first_frames.len());
        self.first_frames.extend(other.first_frames.into_iter().take(room));
    }

    /// Cuts the window: what was heard since the last cut, as the leg's sample without the server's own figures. Frames
    /// and bits per second are means over exposure, so a viewer that joined late or stalled counts for its time only.
    pub fn cut(&mut self, leg: Leg) -> LegSample {
        let mut sample = LegSample::empty(leg);
        let folds = [self.players.as_ref(), self.path.as_ref()].into_iter().flatten();
        sample.heard_viewers = folds.map(|fold| fold.most_viewers).max().unwrap_or(0);
        let cut = |fold: &mut Option<Box<Fold>>| fold.as_mut().map(|fold| (fold.cut(), fold.looks)).unwrap_or_default();
        let (players, player_looks) = cut(&mut self.players);
        let (path, path_looks) = cut(&mut self.path);
        sample.stutter = measured(Share::of(players.0.stalled_seconds, players.0.exposure_seconds), Provenance::Player);
        sample.stall_starts = sample.stutter.map(|_| u32::try_from(players.0.stall_starts).unwrap_or(u32::MAX));
        sample.loss = measured(share(players.0), Provenance::Player).or(measured(share(path.0), Provenance::Server));
        sample.latency =
            reading(players.1, player_looks, Provenance::Player).or(reading(path.1, path_looks, Provenance::Estimated));
        sample.rtt = measured(self.path.as_mut().and_then(|path| path.rtt.take()), Provenance::Server);
        sample.frames = self.frames.take();
        sample.bytes = self.bytes.take();
        sample.requests = self.requests.take();
        sample.starved_viewers = self.starved.take().map(|starved| u32::try_from(starved).unwrap_or(u32::MAX));
        let stuttering = self.stuttering.take();
        let share = stuttering.and_then(|(part, whole)| Share::of(f64::from(part), f64::from(whole)));
        sample.stutter_viewers = measured(share, Provenance::Player);
        sample.present = self.present.take();
        let per_second =
            |count: Option<u64>| Share::of(count? as f64, players.0.exposure_seconds).map(|s| s.part / s.whole);
        sample.fps = measured(per_second(sample.frames), Provenance::Player);
        sample.bitrate = measured(per_second(sample.bytes).map(|bytes| bytes * 8.0), Provenance::Player);
        sample.first_frames = std::mem::take(&mut self.first_frames);
        sample.messages = self.messages.take().map(|messages| *messages);
        sample
    }
}

impl LegTotals {
    /// Adds packets expected and lost; sums of counters from outside stop at their ends instead of wrapping.
    fn count(&mut self, packets: Option<(u64, u64)>) {
        if let Some((expected, lost)) = packets {
            self.expected = self.expected.saturating_add(expected);
            self.lost = self.lost.saturating_add(lost.min(expected));
        }
    }
}

impl Fold {
    fn hear(&mut self, at: Timestamp, viewers: u32) {
        self.heard = Some(at);
        self.viewers = viewers;
        self.most_viewers = self.most_viewers.max(viewers);
    }

    /// Keeps the newest latencies for the judge, and of every second one look for the window: looks more often say
    /// nothing new.
    fn look(&mut self, at: Timestamp, latencies: LatencyHistogram) {
        let second = at.nanos() / 1_000_000_000;
        if self.window_look != Some(second) {
            self.window_look = Some(second);
            latencies.each(|millis, count| {
                self.looks.0 += count;
                self.looks.1 += millis as f64 / 1e3 * count as f64;
            });
            self.window.add(&latencies);
        }
        self.latest.renew(latencies);
    }

    fn absorb(&mut self, mut other: Self) {
        let (heard, viewers) = (other.heard, other.most_viewers);
        let (more, window) = other.cut();
        self.totals.exposure_seconds += more.exposure_seconds;
        self.totals.stalled_seconds += more.stalled_seconds;
        self.totals.stall_starts = self.totals.stall_starts.saturating_add(more.stall_starts);
        self.totals.by_players |= more.by_players;
        self.totals.count((more.expected > 0).then_some((more.expected, more.lost)));
        self.window.add(&window);
        self.rtt = self.rtt.or(other.rtt);
        self.heard = self.heard.max(heard);
        self.most_viewers = self.most_viewers.max(viewers);
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.heard.is_some_and(|heard| now.since(heard) <= FRESH)
    }

    fn cut(&mut self) -> (LegTotals, LatencyHistogram) {
        let (now, was) = (self.totals, self.at_cut);
        self.at_cut = now;
        self.most_viewers = 0;
        let delta = LegTotals {
            exposure_seconds: now.exposure_seconds - was.exposure_seconds,
            stalled_seconds: now.stalled_seconds - was.stalled_seconds,
            stall_starts: now.stall_starts - was.stall_starts,
            expected: now.expected - was.expected,
            lost: now.lost - was.lost,
            by_players: now.by_players,
        };
        (delta, std::mem::take(&mut self.window))
    }
}

/// The fold, where it was heard of lately.
fn fresh(fold: Option<&Fold>, now: Timestamp) -> Option<&Fold> {
    fold.filter(|fold| fold.is_fresh(now))
}

fn share(totals: LegTotals) -> Option<Share> {
    Share::of(totals.lost as f64, totals.expected as f64)
}

fn measured<T>(value: Option<T>, source: Provenance) -> Option<Measured<T>> {
    value.map(|value| Measured { value, source })
}

fn reading(latencies: LatencyHistogram, looks: (u64, f64), source: Provenance) -> Option<Measured<LatencyReading>> {
    let (total_count, total_seconds) = looks;
    let value = || LatencyReading { latencies: Arc::new(latencies), total_count, total_seconds };
    (total_count > 0)
        .then(value)
        .filter(|reading| !reading.latencies.is_empty())
        .map(|value| Measured { value, source })
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

/// Joins who was present; what is shared is copied once.
fn join(all: &mut Option<Arc<ViewerSketch>>, more: Option<Arc<ViewerSketch>>) {
    match (all.as_mut(), more) {
        (Some(all), Some(more)) => Arc::make_mut(all).merge(&more),
        (None, more) => *all = more,
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    const LEG: Leg = Leg::Egress(Protocol::Webrtc);

    fn players(exposure: u64, stalled: u64) -> PlayerView {
        PlayerView {
            viewers: 10,
            exposure: Duration::from_millis(exposure),
            stalled: Duration::from_millis(stalled),
            frames: Some(exposure / 40),
            packets_expected: Some(100),
            packets_lost: Some(3),
            ..PlayerView::default()
        }
    }

    fn path(millis: u64) -> PathView {
        let mut latencies = LatencyHistogram::default();
        latencies.record(Duration::from_millis(millis));
        PathView {
            protocol: Protocol::Rtmp,
            viewers: 1,
            latencies,
            segments_sent: Some(50),
            segments_lost: Some(1),
            rtt: None,
            backlog_bytes: 0,
            publisher_rtt: None,
        }
    }

    #[test]
    fn windows_sum_to_what_was_told() {
        let mut leg = LiveLeg::default();
        let mut stalled = 0.0;
        for tick in 0..40_u64 {
            leg.players(Timestamp::from_millis(tick * 250), players(2_500, tick % 3 * 100));
            if tick % 20 == 19 {
                let cut = leg.cut(LEG);
                let stutter = cut.stutter.expect("players told").value;
                assert!((stutter.whole - 50.0).abs() < 1e-9);
                assert!((cut.fps.expect("frames were told").value - 25.0).abs() < 0.5);
                stalled += stutter.part;
            }
        }
        assert!((stalled - leg.totals().stalled_seconds).abs() < 1e-9);
        assert_eq!(leg.cut(LEG).stutter, None, "an empty window says nothing");
    }

    #[test]
    fn players_tell_of_stutter_and_the_kernel_of_latency_and_loss() {
        let mut leg = LiveLeg::default();
        let at = Timestamp::from_secs(10);
        let told = PlayerView { packets_expected: None, packets_lost: None, ..players(5_000, 500) };
        leg.players(at, told);
        let rtt = Rtt { p50: Duration::from_millis(20), p95: Duration::from_millis(80) };
        leg.path(at, PathView { viewers: 4, rtt: Some(rtt), ..path(300) });
        let cut = leg.cut(LEG);
        let sources = (cut.stutter.map(|it| it.source), cut.latency.map(|it| it.source), cut.loss.map(|it| it.source));
        assert_eq!(sources, (Some(Provenance::Player), Some(Provenance::Estimated), Some(Provenance::Server)));
        assert_eq!(cut.rtt.map(|rtt| (rtt.value, rtt.source)), Some((rtt, Provenance::Server)));
        assert_eq!(cut.heard_viewers, 10, "the same viewers are not counted twice");
        assert_eq!(leg.cut(LEG).rtt, None, "a window without a look tells none");
    }

    #[test]
    fn players_stand_before_the_kernel() {
        let mut leg = LiveLeg::default();
        let at = Timestamp::from_secs(10);
        leg.path(at, path(900));
        assert_eq!(leg.totals().lost, 1);
        assert_eq!(leg.latest(at).map(|(latest, source)| (latest.len(), source)), Some((1, Provenance::Estimated)));
        leg.players(at, players(2_500, 0));
        assert_eq!(leg.totals().lost, 3);
        let cut = leg.cut(LEG);
        assert_eq!(cut.loss.map(|loss| (loss.value.part as u64, loss.source)), Some((3, Provenance::Player)));
        assert_eq!(cut.latency.map(|latency| latency.source), Some(Provenance::Estimated), "no player told a latency");
        assert_eq!(leg.latest(at + FRESH + FRESH), None, "old words do not speak for the present");
    }
}
