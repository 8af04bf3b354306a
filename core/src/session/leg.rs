//! One leg to the viewers, folded from reports of players and of the kernel. Decides how they add up within a window
//! and for the alerts. Never mixes them: stutter, loss and latency are the players' where they report them, else the
//! kernel's.

use std::sync::Arc;
use std::time::Duration;

use super::group_tally::Groups;
use crate::base::{LatencyHistogram, ViewerSketch};
use crate::model::{
    LatencyReading, Leg, LegSample, MAX_FIRST_FRAMES, Measured, PathView, PlayerView, Provenance, Rtt, Share, Timestamp,
};

/// An older report of viewers says nothing about the present.
pub(super) const FRESH: Duration = Duration::from_secs(12);

/// Sums that only grow while the session is live; the alerts evaluate their differences.
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
    /// Whether players reported the packets; two sums may be subtracted only while this stays the same.
    pub by_players: bool,
}

/// One leg of a live session.
#[derive(Clone, Debug, Default)]
pub struct LiveLeg {
    players: Option<Box<SourceSums>>,
    path: Option<Box<SourceSums>>,
    first_frames: Vec<Duration>,
    frames: Option<u64>,
    bytes: Option<u64>,
    requests: Option<u64>,
    starved_viewers: Option<u64>,
    stutter_viewers: Option<(u32, u32)>,
    present: Option<Arc<ViewerSketch>>,
    messages: Option<Box<LatencyHistogram>>,
    groups: Option<Box<Groups>>,
    backlog_bytes: u64,
}

/// The sums of one kind of source.
#[derive(Clone, Debug, Default)]
struct SourceSums {
    last_report: Option<Timestamp>,
    viewers: u32,
    most_viewers: u32,
    totals: LegTotals,
    at_cut: LegTotals,
    window: LatencyHistogram,
    rtt: Option<Rtt>,
    last_window_second: Option<u64>,
    latency_totals: (u64, f64),
    latest: LatencyHistogram,
}

impl LiveLeg {
    /// Folds the kernel's report of one tick.
    pub fn path(&mut self, at: Timestamp, view: PathView) {
        let sums = self.path.get_or_insert_default();
        sums.touch(at, view.viewers);
        self.backlog_bytes = view.backlog_bytes;
        sums.totals.count(view.segments_sent.zip(view.segments_lost));
        sums.rtt = view.rtt.or(sums.rtt);
        sums.record_latencies(at, view.latencies);
    }

    /// Folds what players reported since the last fold.
    pub fn players(&mut self, at: Timestamp, view: PlayerView) {
        let sums = self.players.get_or_insert_default();
        sums.touch(at, view.viewers);
        sums.totals.exposure_seconds += view.exposure.as_secs_f64();
        sums.totals.stalled_seconds += view.stalled.min(view.exposure).as_secs_f64();
        sums.totals.stall_starts = sums.totals.stall_starts.saturating_add(u64::from(view.stall_starts));
        sums.totals.by_players |= view.packets_expected.is_some() && view.packets_lost.is_some();
        sums.totals.count(view.packets_expected.zip(view.packets_lost));
        if let Some(latencies) = view.latencies {
            sums.record_latencies(at, latencies);
        }
        add(&mut self.frames, view.frames);
        add(&mut self.bytes, view.bytes);
        add(&mut self.requests, view.requests);
        add(&mut self.starved_viewers, view.starved_viewers.map(u64::from));
        self.stutter_viewers = view.stutter_viewers.or(self.stutter_viewers);
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

    /// The growing sums: the players' where they report, else the kernel's.
    #[must_use]
    pub fn totals(&self) -> LegTotals {
        let of = |sums: &Option<Box<SourceSums>>| sums.as_ref().map(|sums| sums.totals).unwrap_or_default();
        let players = of(&self.players);
        if players.by_players {
            return players;
        }
        let path = of(&self.path);
        LegTotals { expected: path.expected, lost: path.lost, ..players }
    }

    /// The newest latencies of viewers, where reported recently.
    #[must_use]
    pub fn latest(&self, now: Timestamp) -> Option<(&LatencyHistogram, Provenance)> {
        let reported = fresh(self.players.as_deref(), now).map(|sums| (&sums.latest, Provenance::Player));
        reported.filter(|(latest, _)| !latest.is_empty()).or_else(|| {
            let seen = fresh(self.path.as_deref(), now).map(|sums| (&sums.latest, Provenance::Estimated));
            seen.filter(|(latest, _)| !latest.is_empty())
        })
    }

    /// Exposure and stalls by group of viewers, where players report them.
    #[must_use]
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_deref()
    }

    /// Bytes queued in the node's kernel for these viewers, where reported recently.
    #[must_use]
    pub fn backlog_bytes(&self, now: Timestamp) -> Option<u64> {
        fresh(self.path.as_deref(), now).map(|_| self.backlog_bytes)
    }

    /// Viewers that report for themselves or whose connections are seen.
    #[must_use]
    pub fn measured_viewers(&self, now: Timestamp) -> u32 {
        let both = [&self.players, &self.path].into_iter().filter_map(|sums| fresh(sums.as_deref(), now));
        both.map(|sums| sums.viewers).max().unwrap_or(0)
    }

    /// Players that reported recently, where any did.
    #[must_use]
    pub fn reporting_players(&self, now: Timestamp) -> Option<u32> {
        fresh(self.players.as_deref(), now).map(|sums| sums.viewers)
    }

    /// When anything was last reported.
    #[must_use]
    pub fn last_heard(&self) -> Option<Timestamp> {
        let last_report = |sums: &Option<Box<SourceSums>>| sums.as_ref().and_then(|sums| sums.last_report);
        last_report(&self.players).max(last_report(&self.path))
    }

    /// Takes over what another leg folded since its last cut, when two classes turn out to be one.
    pub fn absorb(&mut self, other: Self) {
        for (sums, other) in [(&mut self.players, other.players), (&mut self.path, other.path)] {
            if let Some(other) = other {
                sums.get_or_insert_default().absorb(*other);
            }
        }
        add(&mut self.frames, other.frames);
        add(&mut self.bytes, other.bytes);
        add(&mut self.requests, other.requests);
        add(&mut self.starved_viewers, other.starved_viewers);
        self.stutter_viewers = self.stutter_viewers.or(other.stutter_viewers);
        join(&mut self.present, other.present);
        if let Some(messages) = other.messages {
            self.messages.get_or_insert_default().add(&messages);
        }
        let room = MAX_FIRST_FRAMES.saturating_sub(self.first_frames.len());
        self.first_frames.extend(other.first_frames.into_iter().take(room));
    }

    /// Cuts the window: what was folded since the last cut, without the server's own figures. Frames and bits per
    /// second are means over exposure, so a viewer that joined late or stalled counts for its time only.
    pub fn cut(&mut self, leg: Leg) -> LegSample {
        let mut sample = LegSample::empty(leg);
        let both = [self.players.as_ref(), self.path.as_ref()].into_iter().flatten();
        sample.measured_viewers = both.map(|sums| sums.most_viewers).max().unwrap_or(0);
        let cut = |sums: &mut Option<Box<SourceSums>>| {
            sums.as_mut().map(|sums| (sums.cut(), sums.latency_totals)).unwrap_or_default()
        };
        let (players, player_totals) = cut(&mut self.players);
        let (path, path_totals) = cut(&mut self.path);
        sample.stutter = measured(Share::of(players.0.stalled_seconds, players.0.exposure_seconds), Provenance::Player);
        sample.stall_starts = sample.stutter.map(|_| u32::try_from(players.0.stall_starts).unwrap_or(u32::MAX));
        sample.loss = measured(share(players.0), Provenance::Player).or(measured(share(path.0), Provenance::Server));
        sample.latency = reading(players.1, player_totals, Provenance::Player).or(reading(
            path.1,
            path_totals,
            Provenance::Estimated,
        ));
        sample.rtt = measured(self.path.as_mut().and_then(|path| path.rtt.take()), Provenance::Server);
        sample.frames = self.frames.take();
        sample.bytes = self.bytes.take();
        sample.requests = self.requests.take();
        sample.starved_viewers =
            self.starved_viewers.take().map(|starved_viewers| u32::try_from(starved_viewers).unwrap_or(u32::MAX));
        let stutter_viewers = self.stutter_viewers.take();
        let share = stutter_viewers.and_then(|(part, whole)| Share::of(f64::from(part), f64::from(whole)));
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
    /// Adds packets expected and lost; sums of external counters saturate instead of wrapping.
    fn count(&mut self, packets: Option<(u64, u64)>) {
        if let Some((expected, lost)) = packets {
            self.expected = self.expected.saturating_add(expected);
            self.lost = self.lost.saturating_add(lost.min(expected));
        }
    }
}

impl SourceSums {
    fn touch(&mut self, at: Timestamp, viewers: u32) {
        self.last_report = Some(at);
        self.viewers = viewers;
        self.most_viewers = self.most_viewers.max(viewers);
    }

    /// Keeps the newest latencies for the alerts, and one set per second for the window: more of them add nothing.
    fn record_latencies(&mut self, at: Timestamp, latencies: LatencyHistogram) {
        let second = at.nanos() / 1_000_000_000;
        if self.last_window_second != Some(second) {
            self.last_window_second = Some(second);
            latencies.each(|millis, count| {
                self.latency_totals.0 += count;
                self.latency_totals.1 += millis as f64 / 1e3 * count as f64;
            });
            self.window.add(&latencies);
        }
        self.latest.renew(latencies);
    }

    fn absorb(&mut self, mut other: Self) {
        let (last_report, viewers) = (other.last_report, other.most_viewers);
        let (more, window) = other.cut();
        self.totals.exposure_seconds += more.exposure_seconds;
        self.totals.stalled_seconds += more.stalled_seconds;
        self.totals.stall_starts = self.totals.stall_starts.saturating_add(more.stall_starts);
        self.totals.by_players |= more.by_players;
        self.totals.count((more.expected > 0).then_some((more.expected, more.lost)));
        self.window.add(&window);
        self.rtt = self.rtt.or(other.rtt);
        self.last_report = self.last_report.max(last_report);
        self.most_viewers = self.most_viewers.max(viewers);
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.last_report.is_some_and(|last_report| now.since(last_report) <= FRESH)
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

/// The sums, where they were updated recently.
fn fresh(sums: Option<&SourceSums>, now: Timestamp) -> Option<&SourceSums> {
    sums.filter(|sums| sums.is_fresh(now))
}

fn share(totals: LegTotals) -> Option<Share> {
    Share::of(totals.lost as f64, totals.expected as f64)
}

fn measured<T>(value: Option<T>, source: Provenance) -> Option<Measured<T>> {
    value.map(|value| Measured { value, source })
}

fn reading(
    latencies: LatencyHistogram,
    latency_totals: (u64, f64),
    source: Provenance,
) -> Option<Measured<LatencyReading>> {
    let (total_count, total_seconds) = latency_totals;
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

/// Merges sketches of present viewers; a shared one is copied once.
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
    fn windows_add_up_to_what_was_reported() {
        let mut leg = LiveLeg::default();
        let mut stalled = 0.0;
        for tick in 0..40_u64 {
            leg.players(Timestamp::from_millis(tick * 250), players(2_500, tick % 3 * 100));
            if tick % 20 == 19 {
                let cut = leg.cut(LEG);
                let stutter = cut.stutter.expect("players reported").value;
                assert!((stutter.whole - 50.0).abs() < 1e-9);
                assert!((cut.fps.expect("frames were reported").value - 25.0).abs() < 0.5);
                stalled += stutter.part;
            }
        }
        assert!((stalled - leg.totals().stalled_seconds).abs() < 1e-9);
        assert_eq!(leg.cut(LEG).stutter, None, "an empty window has no stutter");
    }

    #[test]
    fn stutter_is_the_players_and_latency_and_loss_the_kernels() {
        let mut leg = LiveLeg::default();
        let at = Timestamp::from_secs(10);
        let view = PlayerView { packets_expected: None, packets_lost: None, ..players(5_000, 500) };
        leg.players(at, view);
        let rtt = Rtt { p50: Duration::from_millis(20), p95: Duration::from_millis(80) };
        leg.path(at, PathView { viewers: 4, rtt: Some(rtt), ..path(300) });
        let cut = leg.cut(LEG);
        let sources = (cut.stutter.map(|it| it.source), cut.latency.map(|it| it.source), cut.loss.map(|it| it.source));
        assert_eq!(sources, (Some(Provenance::Player), Some(Provenance::Estimated), Some(Provenance::Server)));
        assert_eq!(cut.rtt.map(|rtt| (rtt.value, rtt.source)), Some((rtt, Provenance::Server)));
        assert_eq!(cut.measured_viewers, 10, "the same viewers are not counted twice");
        assert_eq!(leg.cut(LEG).rtt, None, "a window without a report has none");
    }

    #[test]
    fn players_take_precedence_over_the_kernel() {
        let mut leg = LiveLeg::default();
        let at = Timestamp::from_secs(10);
        leg.path(at, path(900));
        assert_eq!(leg.totals().lost, 1);
        assert_eq!(leg.latest(at).map(|(latest, source)| (latest.len(), source)), Some((1, Provenance::Estimated)));
        leg.players(at, players(2_500, 0));
        assert_eq!(leg.totals().lost, 3);
        let cut = leg.cut(LEG);
        assert_eq!(cut.loss.map(|loss| (loss.value.part as u64, loss.source)), Some((3, Provenance::Player)));
        assert_eq!(
            cut.latency.map(|latency| latency.source),
            Some(Provenance::Estimated),
            "no player reported a latency"
        );
        assert_eq!(leg.latest(at + FRESH + FRESH), None, "old reports say nothing about the present");
    }
}
