//! How one publisher normally sends, and whether it does now. Decides what is intended (slides, a slower camera in a
//! dark room) and what is a fault; a publisher is never called slow by its declared frame rate alone.

use crate::model::{Timestamp, Total};
use crate::session::Live;

/// The state of one publisher; all rates are per second, smoothed.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublisherRules {
    seen: Option<(Timestamp, Option<Total>, Option<Total>)>,
    /// Seconds learned from, and seconds that the present intended change has lasted.
    learned: f32,
    intended_seconds: f32,
    bits: Level,
    frames: Level,
    bitrate_raised: bool,
    /// Seconds for which the last fault still counts: a publisher that sends in bursts is not healthy in between.
    impaired_seconds: f32,
}

/// One rate: now, its baseline, and the variation of both.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    now: f32,
    baseline: f32,
    variation: f32,
    baseline_variation: f32,
}

/// Frames per second as they are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FrameRate {
    pub(crate) now: f64,
    /// What this publisher normally sends; where it is unsteady and declares more, what it declares.
    pub(crate) baseline: f64,
    /// Whether a lower rate is intended.
    pub(crate) intended: bool,
}

impl PublisherRules {
    /// Takes in the newest view of the publisher. While its class is `faulty` the baseline does not learn.
    pub(crate) fn evaluate(&mut self, now: Timestamp, live: &Live, faulty: bool) {
        let Some((at, view)) = live.publishing(now) else {
            return;
        };
        let totals = (view.ingest_bytes, view.ingest_frames);
        let Some((before, bytes, frames)) = self.seen.replace((at, totals.0, totals.1)) else {
            return;
        };
        let elapsed = at.since(before).as_secs_f32();
        if elapsed <= 0.0 {
            self.seen = Some((before, bytes, frames));
            return;
        }
        let learns = !faulty || self.learned < LEARN_SECONDS;
        if let Some(bytes) = rate(bytes, totals.0, elapsed) {
            let stepless = view.bytes_step.is_zero();
            let smooth = || live.media_rate(now).map(|rate| rate as f32);
            if let Some(bytes) = if stepless { Some(bytes) } else { smooth() } {
                self.bits.take(bytes * 8.0, elapsed, learns);
            }
        }
        if view.frames_step.is_zero()
            && let Some(frames) = rate(frames, totals.1, elapsed)
        {
            let similar = frames > self.frames.baseline * SIMILAR;
            self.frames.take(frames, elapsed, learns && similar);
        }
        self.learned = (self.learned + elapsed).min(1e6);
        self.adopt_intended(elapsed);
        self.bitrate_raised = self.knows() && self.bits.now > self.bits.baseline * RAISED;
        self.impaired_seconds = if self.fault().is_some() { FADE_SECONDS } else { self.impaired_seconds - elapsed };
    }

    /// The frame rate, once enough is known about this publisher.
    pub(crate) fn frame_rate(&self, declared: Option<f64>) -> Option<FrameRate> {
        if !self.knows() || self.frames.baseline <= 0.0 {
            return None;
        }
        let baseline = f64::from(self.frames.baseline);
        let steady = self.frames.variation < STEADY;
        let baseline = declared.filter(|_| !steady).map_or(baseline, |declared| declared.max(baseline));
        Some(FrameRate { now: f64::from(self.frames.now), baseline, intended: self.is_intended() })
    }

    /// What is wrong with the publisher, as text; `None` where it sends normally or too little is known.
    pub(crate) fn fault(&self) -> Option<String> {
        if !self.knows() {
            return None;
        }
        let (bits, frames) = (&self.bits, &self.frames);
        let megabits = |bits: f32| bits / 1e6;
        if frames.baseline > 0.0 && frames.now < frames.baseline * LOW_FPS && !self.is_intended() {
            return Some(format!("the publisher sends {:.1} frames/s, usually {:.1}", frames.now, frames.baseline));
        }
        if bits.baseline > 0.0 && bits.now < bits.baseline * LOW_BITRATE && !self.is_intended() {
            let (now, baseline) = (megabits(bits.now), megabits(bits.baseline));
            return Some(format!("the publisher sends {now:.2} Mbit/s, usually {baseline:.2}"));
        }
        if bits.variation > UNEVEN && bits.variation > bits.baseline_variation * 2.5 {
            let (now, baseline) = (bits.variation * 100.0, bits.baseline_variation * 100.0);
            return Some(format!(
                "the publisher sends in bursts: {now:.0} % from second to second, usually {baseline:.0} %"
            ));
        }
        self.bitrate_raised.then(|| {
            let (now, baseline) = (megabits(bits.now), megabits(bits.baseline));
            format!("the encoder changed: {now:.2} Mbit/s, usually {baseline:.2}")
        })
    }

    /// Whether [`Self::fault`] found anything recently.
    pub(crate) fn is_impaired(&self) -> bool {
        self.impaired_seconds > 0.0
    }

    /// That the publisher sends normally, as text; `None` where that is not known.
    pub(crate) fn healthy(&self) -> Option<String> {
        (self.knows() && self.bits.baseline > 0.0 && self.fault().is_none()).then(|| {
            let (now, baseline) = (self.bits.now / 1e6, self.bits.baseline / 1e6);
            format!("the publisher sends as usual: {now:.2} Mbit/s, usually {baseline:.2}")
        })
    }

    fn knows(&self) -> bool {
        self.learned >= LEARN_SECONDS
    }

    /// Whether a lower rate is intended: steady, and slides, or a whole fraction of the baseline, or as many bits as
    /// before. Frames that stop or come in bursts are not intended.
    fn is_intended(&self) -> bool {
        let (frames, bits) = (&self.frames, &self.bits);
        if frames.baseline <= 0.0 || frames.now >= frames.baseline * LOW_FPS || frames.now < SLOWEST {
            return false;
        }
        if frames.now <= SLIDES {
            return true;
        }
        let part = frames.baseline / frames.now;
        let even = part < 4.5 && (part - part.round()).abs() < EVEN;
        frames.variation < STEADY && (even || bits.now >= bits.baseline * 0.75)
    }

    /// An intended rate becomes the baseline after a while.
    fn adopt_intended(&mut self, elapsed: f32) {
        if !self.is_intended() {
            self.intended_seconds = 0.0;
            return;
        }
        self.intended_seconds += elapsed;
        if self.intended_seconds >= ADOPT_SECONDS {
            self.intended_seconds = 0.0;
            self.frames.baseline = self.frames.now;
            self.bits.baseline = self.bits.now;
        }
    }
}

impl Level {
    fn take(&mut self, rate: f32, elapsed: f32, learns: bool) {
        let share = |seconds: f32| 1.0 - (-elapsed / seconds).exp();
        if self.baseline <= 0.0 {
            (self.now, self.baseline) = (rate, rate);
            return;
        }
        let off = (rate - self.now).abs() / self.now.max(self.baseline * 0.05);
        self.variation += (off.min(2.0) - self.variation) * share(FADE_SECONDS);
        self.now += (rate - self.now) * share(PRESENT_SECONDS);
        if learns {
            self.baseline += (rate - self.baseline) * share(BASELINE_SECONDS);
            self.baseline_variation += (off.min(2.0) - self.baseline_variation) * share(BASELINE_SECONDS);
        }
    }
}

fn rate(before: Option<Total>, now: Option<Total>, elapsed: f32) -> Option<f32> {
    let (before, now) = before.zip(now)?;
    let more = now.value.checked_sub(before.value).filter(|_| before.base == now.base)?;
    Some(more as f32 / elapsed)
}

/// A publisher is not judged before it was observed for this long.
const LEARN_SECONDS: f32 = 20.0;
/// An intended rate becomes the baseline after this long.
const ADOPT_SECONDS: f32 = 30.0;
/// Time constants of the present rate, its variation and the baseline.
const PRESENT_SECONDS: f32 = 2.0;
const FADE_SECONDS: f32 = 5.0;
const BASELINE_SECONDS: f32 = 60.0;
/// Under this share of its baseline the frame rate is low.
const LOW_FPS: f32 = 0.6;
/// A second under this share of the baseline does not change it.
const SIMILAR: f32 = 0.75;
/// Under the first share of its baseline the bitrate is low, over the second it was raised.
const LOW_BITRATE: f32 = 0.65;
const RAISED: f32 = 1.6;
/// Mean variation from second to second that is still steady, and that is uneven.
const STEADY: f32 = 0.15;
const UNEVEN: f32 = 0.4;
/// How near to a whole number the fraction of the baseline must be.
const EVEN: f32 = 0.06;
/// Frames per second of slides, and the fewest that are intended.
const SLIDES: f32 = 5.0;
const SLOWEST: f32 = 0.2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Fact, Observation, ServerView, StreamKey};

    /// A publisher that sends (bits, frames) in each second, and its state at the end.
    fn watched(seconds: impl IntoIterator<Item = (u64, u64)>) -> PublisherRules {
        let stream = StreamKey::parse("live/c1").expect("a good key");
        let mut live = Live::new(stream.clone(), crate::model::Descriptor::default(), Timestamp::from_secs(100));
        let (mut watch, mut now, mut totals) = (PublisherRules::default(), Timestamp::from_secs(100), (0, 0));
        for (bits, frames) in seconds {
            totals = (totals.0 + bits / 8, totals.1 + frames);
            let total = |value| Some(Total { base: 1, value });
            let view = ServerView {
                publishing: Some(true),
                ingest_bytes: total(totals.0),
                ingest_frames: total(totals.1),
                ..ServerView::default()
            };
            let fact = Fact::Server(Box::new(view));
            live.observe(Observation { source: "s".into(), stream: stream.clone(), at: now, fact });
            watch.evaluate(now, &live, false);
            now = now + Duration::from_secs(1);
        }
        watch
    }

    fn after(baseline: (u64, u64), then: impl Iterator<Item = (u64, u64)>) -> PublisherRules {
        watched(std::iter::repeat_n(baseline, 60).chain(then))
    }

    #[test]
    fn intended_changes_are_no_fault() {
        let camera = (2_000_000, 30);
        for (change, bits, frames) in
            [("slides", 60_000, 1), ("a dark room", 1_000_000, 15), ("a slow camera", 1_900_000, 13)]
        {
            let watch = after(camera, std::iter::repeat_n((bits, frames), 12));
            assert_eq!(watch.fault(), None, "{change}");
            assert!(watch.frame_rate(Some(30.0)).is_some_and(|rate| rate.intended), "{change}");
        }
        let adopted = after(camera, std::iter::repeat_n((1_000_000, 15), 60));
        assert!(adopted.frame_rate(None).is_some_and(|rate| (rate.baseline - 15.0).abs() < 1.0));
    }

    #[test]
    fn faults_are_described() {
        let camera = (2_000_000, 25);
        let slow = after(camera, std::iter::repeat_n((700_000, 8), 8)).fault().expect("slow");
        assert!(slow.contains("frames/s, usually 25"), "{slow}");
        let stagger = after(camera, (0..10).map(|second| (600_000, if second % 2 == 0 { 3 } else { 16 })));
        assert!(stagger.fault().is_some() && stagger.frame_rate(None).is_some_and(|rate| !rate.intended));
        let fat = after(camera, std::iter::repeat_n((4_500_000, 25), 8)).fault().expect("fat");
        assert!(fat.contains("encoder changed"), "{fat}");
        let bursts = after(camera, (0..10).map(|second| (if second % 3 == 0 { 5_200_000 } else { 300_000 }, 25)));
        assert!(bursts.fault().is_some_and(|text| text.contains("bursts") || text.contains("Mbit/s")));
        assert_eq!(after(camera, std::iter::empty()).fault(), None);
        assert_eq!(watched([camera; 10]).healthy(), None, "too little is known");
    }
}
