//! How one publisher usually sends, and whether it does now. Decides what is its own choice (slides, a dark room's
//! slower camera) and what is trouble; refuses to call a publisher slow by its claim alone.

use crate::model::{Timestamp, Total};
use crate::session::Live;

/// The memory of one publisher; everything is per second, fading.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublisherRules {
    seen: Option<(Timestamp, Option<Total>, Option<Total>)>,
    /// Seconds learned from, and seconds that the present choice lasts.
    learned: f32,
    chosen: f32,
    bits: Level,
    frames: Level,
    fatter: bool,
    /// Seconds for which trouble that was seen still counts: what staggers is not well in between.
    troubled: f32,
}

/// One rate: now, usually, and how unsteady it is.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    now: f32,
    usual: f32,
    wobble: f32,
    usual_wobble: f32,
}

/// Frames per second as they are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) now: f64,
    /// What this publisher usually sends; what it declares, where it is unsteady and declares more.
    pub(crate) usual: f64,
    /// Whether being slower is its choice.
    pub(crate) chosen: bool,
}

impl PublisherRules {
    /// Takes in the newest word on the publisher. What comes while its class is `faulty` teaches nothing.
    pub(crate) fn look(&mut self, now: Timestamp, live: &Live, faulty: bool) {
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
            let alike = frames > self.frames.usual * ALIKE;
            self.frames.take(frames, elapsed, learns && alike);
        }
        self.learned = (self.learned + elapsed).min(1e6);
        self.choose(elapsed);
        self.fatter = self.knows() && self.bits.now > self.bits.usual * FAT;
        self.troubled = if self.trouble().is_some() { FADE_SECONDS } else { self.troubled - elapsed };
    }

    /// The frames per second, once enough is known of this publisher.
    pub(crate) fn pace(&self, declared: Option<f64>) -> Option<Pace> {
        if !self.knows() || self.frames.usual <= 0.0 {
            return None;
        }
        let usual = f64::from(self.frames.usual);
        let steady = self.frames.wobble < STEADY;
        let usual = declared.filter(|_| !steady).map_or(usual, |declared| declared.max(usual));
        Some(Pace { now: f64::from(self.frames.now), usual, chosen: self.is_chosen() })
    }

    /// What is wrong with the publisher, in words; `None` where it sends as usual or too little is known.
    pub(crate) fn trouble(&self) -> Option<String> {
        if !self.knows() {
            return None;
        }
        let (bits, frames) = (&self.bits, &self.frames);
        let megabits = |bits: f32| bits / 1e6;
        if frames.usual > 0.0 && frames.now < frames.usual * LOW && !self.is_chosen() {
            return Some(format!("the publisher sends {:.1} frames/s, usually {:.1}", frames.now, frames.usual));
        }
        if bits.usual > 0.0 && bits.now < bits.usual * THIN && !self.is_chosen() {
            let (now, usual) = (megabits(bits.now), megabits(bits.usual));
            return Some(format!("the publisher sends {now:.2} Mbit/s, usually {usual:.2}"));
        }
        if bits.wobble > UNEVEN && bits.wobble > bits.usual_wobble * 2.5 {
            let (now, usual) = (bits.wobble * 100.0, bits.usual_wobble * 100.0);
            return Some(format!(
                "the publisher sends in bursts: {now:.0} % from second to second, usually {usual:.0} %"
            ));
        }
        self.fatter.then(|| {
            let (now, usual) = (megabits(bits.now), megabits(bits.usual));
            format!("the encoder changed: {now:.2} Mbit/s, usually {usual:.2}")
        })
    }

    /// Whether [`Self::trouble`] had words lately.
    pub(crate) fn is_troubled(&self) -> bool {
        self.troubled > 0.0
    }

    /// That the publisher sends as usual, in words; `None` where that is not known.
    pub(crate) fn health(&self) -> Option<String> {
        (self.knows() && self.bits.usual > 0.0 && self.trouble().is_none()).then(|| {
            let (now, usual) = (self.bits.now / 1e6, self.bits.usual / 1e6);
            format!("the publisher sends as usual: {now:.2} Mbit/s, usually {usual:.2}")
        })
    }

    fn knows(&self) -> bool {
        self.learned >= LEARN_SECONDS
    }

    /// Slower by choice: steady, and slides, or an even part of the usual rate, or as many bits as ever. Frames that
    /// come to a stop or stagger are no choice.
    fn is_chosen(&self) -> bool {
        let (frames, bits) = (&self.frames, &self.bits);
        if frames.usual <= 0.0 || frames.now >= frames.usual * LOW || frames.now < SLOWEST {
            return false;
        }
        if frames.now <= SLIDES {
            return true;
        }
        let part = frames.usual / frames.now;
        let even = part < 4.5 && (part - part.round()).abs() < EVEN;
        frames.wobble < STEADY && (even || bits.now >= bits.usual * 0.75)
    }

    /// What is chosen for long is usual.
    fn choose(&mut self, elapsed: f32) {
        if !self.is_chosen() {
            self.chosen = 0.0;
            return;
        }
        self.chosen += elapsed;
        if self.chosen >= ADOPT_SECONDS {
            self.chosen = 0.0;
            self.frames.usual = self.frames.now;
            self.bits.usual = self.bits.now;
        }
    }
}

impl Level {
    fn take(&mut self, rate: f32, elapsed: f32, learns: bool) {
        let share = |seconds: f32| 1.0 - (-elapsed / seconds).exp();
        if self.usual <= 0.0 {
            (self.now, self.usual) = (rate, rate);
            return;
        }
        let off = (rate - self.now).abs() / self.now.max(self.usual * 0.05);
        self.wobble += (off.min(2.0) - self.wobble) * share(FADE_SECONDS);
        self.now += (rate - self.now) * share(PRESENT_SECONDS);
        if learns {
            self.usual += (rate - self.usual) * share(USUAL_SECONDS);
            self.usual_wobble += (off.min(2.0) - self.usual_wobble) * share(USUAL_SECONDS);
        }
    }
}

fn rate(before: Option<Total>, now: Option<Total>, elapsed: f32) -> Option<f32> {
    let (before, now) = before.zip(now)?;
    let more = now.value.checked_sub(before.value).filter(|_| before.base == now.base)?;
    Some(more as f32 / elapsed)
}

/// Nothing is said of a publisher before it was seen for so long.
const LEARN_SECONDS: f32 = 20.0;
/// What a publisher chose is its usual course after so long.
const ADOPT_SECONDS: f32 = 30.0;
/// Time constants of what is called present, fading and usual.
const PRESENT_SECONDS: f32 = 2.0;
const FADE_SECONDS: f32 = 5.0;
const USUAL_SECONDS: f32 = 60.0;
/// Under this share of its usual frames a publisher is slow.
const LOW: f32 = 0.6;
/// Under this share of them a second teaches nothing of the usual frames.
const ALIKE: f32 = 0.75;
/// Under this share of its usual bits it is thin, over that one fat.
const THIN: f32 = 0.65;
const FAT: f32 = 1.6;
/// Mean change from second to second that is still steady, and that is uneven.
const STEADY: f32 = 0.15;
const UNEVEN: f32 = 0.4;
/// How near a whole number an even part of the usual rate is.
const EVEN: f32 = 0.06;
/// Frames per second of slides, and of a still picture that is none.
const SLIDES: f32 = 5.0;
const SLOWEST: f32 = 0.2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Fact, Observation, ServerView, StreamKey};

    /// A publisher that sends (bits, frames) in each second; what is known of it at the end.
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
            watch.look(now, &live, false);
            now = now + Duration::from_secs(1);
        }
        watch
    }

    fn after(usual: (u64, u64), then: impl Iterator<Item = (u64, u64)>) -> PublisherRules {
        watched(std::iter::repeat_n(usual, 60).chain(then))
    }

    #[test]
    fn choices_of_the_publisher_are_no_trouble() {
        let camera = (2_000_000, 30);
        for (choice, bits, frames) in
            [("slides", 60_000, 1), ("a dark room", 1_000_000, 15), ("a slow camera", 1_900_000, 13)]
        {
            let watch = after(camera, std::iter::repeat_n((bits, frames), 12));
            assert_eq!(watch.trouble(), None, "{choice}");
            assert!(watch.pace(Some(30.0)).is_some_and(|pace| pace.chosen), "{choice}");
        }
        let adopted = after(camera, std::iter::repeat_n((1_000_000, 15), 60));
        assert!(adopted.pace(None).is_some_and(|pace| (pace.usual - 15.0).abs() < 1.0));
    }

    #[test]
    fn trouble_is_told_in_words() {
        let camera = (2_000_000, 25);
        let slow = after(camera, std::iter::repeat_n((700_000, 8), 8)).trouble().expect("slow");
        assert!(slow.contains("frames/s, usually 25"), "{slow}");
        let stagger = after(camera, (0..10).map(|second| (600_000, if second % 2 == 0 { 3 } else { 16 })));
        assert!(stagger.trouble().is_some() && stagger.pace(None).is_some_and(|pace| !pace.chosen));
        let fat = after(camera, std::iter::repeat_n((4_500_000, 25), 8)).trouble().expect("fat");
        assert!(fat.contains("encoder changed"), "{fat}");
        let bursts = after(camera, (0..10).map(|second| (if second % 3 == 0 { 5_200_000 } else { 300_000 }, 25)));
        assert!(bursts.trouble().is_some_and(|words| words.contains("bursts") || words.contains("Mbit/s")));
        assert_eq!(after(camera, std::iter::empty()).trouble(), None);
        assert_eq!(watched([camera; 10]).health(), None, "too little is known");
    }
}
