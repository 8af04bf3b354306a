//! All input of the rules as lines of JSON, so that it can be replayed. Decides the format of a recording and how it is
//! replayed. Addresses of viewers and teachers' ids are not recorded; formats of a later version are refused.
//!
//! The first line is a [`Head`], each further one an [`Event`], in the order in which the rules received them. A replay
//! gives the same batches, notices and spans, however fast it runs.

use serde::{Deserialize, Serialize};

use crate::model::{
    Checkpoint, Descriptor, Entry, Environment, Fact, Name, Objectives, Observation, StreamKey, Timestamp,
};
use crate::pipeline::{Pipeline, Tick};
use crate::session::SessionTimeouts;

/// The format that is written, and the newest that is read.
pub const VERSION: u32 = 1;

/// Longest line that is written or read, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// How the first line of every recording begins.
pub const MARK: &[u8] = b"{\"liveqos_recording\":";

/// Why a line is refused.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is not a valid line of a recording.
    #[error("not a line of a recording: {0}")]
    Form(#[from] serde_json::Error),
    /// It was written by a later version.
    #[error("written in format {0}; this version reads up to format {VERSION}: use a newer liveqos")]
    Newer(u32),
    /// It is longer than [`MAX_LINE`].
    #[error("longer than {MAX_LINE} bytes")]
    Long,
}

/// The first line: the node, and the settings at the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the format.
    pub liveqos_recording: u32,
    /// The node's name.
    pub node: String,
    /// When it was started.
    pub at: Timestamp,
    /// The settings at its start.
    pub settings: Settings,
}

/// The settings of the rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The objectives.
    pub objectives: Objectives,
    /// How long the registry waits before it decides; `patience` in the file.
    #[serde(rename = "patience")]
    pub timeouts: SessionTimeouts,
    /// Most live classes.
    pub max_sessions: usize,
}

/// A further line: one input of the rules, or a note about the recording itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A part of the state from before a restart.
    Kept(Box<Entry>),
    /// The rules resumed from that state.
    Resumed(Timestamp),
    /// The rules resumed from that state later, when it became readable.
    Joined(Timestamp),
    /// A source reported something.
    Observed(Box<Observation>),
    /// The environment changed.
    #[serde(rename = "around")]
    Environment(Box<Environment>),
    /// A tick.
    #[serde(rename = "beat")]
    Tick(Timestamp),
    /// The platform announced a class.
    Announced(Name, Option<StreamKey>, Box<Descriptor>, Timestamp),
    /// The platform ended a class.
    Ended(Name, Timestamp),
    /// New settings hold.
    Set(Box<Settings>),
    /// The clock was set back.
    Forgotten,
    /// Number of events that were not recorded because the disk was too slow.
    Lost(u64),
    /// The end of the recording.
    End {
        /// Whether it ended because it reached its size limit.
        full: bool,
    },
}

impl Head {
    /// A head in the current format.
    #[must_use]
    pub const fn new(node: String, at: Timestamp, settings: Settings) -> Self {
        Self { liveqos_recording: VERSION, node, at, settings }
    }

    /// Reads the first line.
    ///
    /// # Errors
    /// [`RecordingError`].
    pub fn read(line: &[u8]) -> Result<Self, RecordingError> {
        #[derive(Deserialize)]
        struct Form {
            liveqos_recording: u32,
        }
        let form: Form = parse_line(line)?;
        if form.liveqos_recording > VERSION {
            return Err(RecordingError::Newer(form.liveqos_recording));
        }
        parse_line(line)
    }
}

impl Event {
    /// The recorded form of an observation: without addresses of clients, which only serve to find the kernel's
    /// connections, and without the teacher's id.
    #[must_use]
    pub fn observed(observation: &Observation) -> Self {
        let mut kept = observation.clone();
        match &mut kept.fact {
            Fact::Server(view) => view.clients.clear(),
            Fact::Described(descriptor) => descriptor.teacher_id = None,
            Fact::Path(_) | Fact::Players(_) | Fact::Gone => {}
        }
        Self::Observed(Box::new(kept))
    }

    /// The recorded form of an announcement.
    #[must_use]
    pub fn announced(id: &Name, stream: Option<&StreamKey>, descriptor: &Descriptor, at: Timestamp) -> Self {
        let descriptor = Descriptor { teacher_id: None, ..descriptor.clone() };
        Self::Announced(id.clone(), stream.cloned(), Box::new(descriptor), at)
    }

    /// The recorded form of the state that the rules resume from.
    pub fn resumed(checkpoint: &Checkpoint, now: Timestamp) -> impl Iterator<Item = Self> {
        Self::kept(checkpoint).chain([Self::Resumed(now)])
    }

    /// The same where it became readable later.
    pub fn joined(checkpoint: &Checkpoint, now: Timestamp) -> impl Iterator<Item = Self> {
        Self::kept(checkpoint).chain([Self::Joined(now)])
    }

    fn kept(checkpoint: &Checkpoint) -> impl Iterator<Item = Self> {
        checkpoint.entries().map(|mut entry| {
            match &mut entry {
                Entry::Announced(_, _, descriptor) => descriptor.teacher_id = None,
                Entry::Known(_, known) => known.descriptor.teacher_id = None,
                _ => {}
            }
            Self::Kept(Box::new(entry))
        })
    }

    /// Reads a further line.
    ///
    /// # Errors
    /// [`RecordingError`]; the lines after it may be good.
    pub fn read(line: &[u8]) -> Result<Self, RecordingError> {
        parse_line(line)
    }
}

/// A head or event as a line, with its line end.
///
/// # Errors
/// [`RecordingError::Long`]; every value can be written as JSON.
pub fn line(value: &impl Serialize) -> Result<Vec<u8>, RecordingError> {
    let mut line = serde_json::to_vec(value)?;
    if line.len() > MAX_LINE {
        return Err(RecordingError::Long);
    }
    line.push(b'\n');
    Ok(line)
}

fn parse_line<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, RecordingError> {
    if line.len() > MAX_LINE {
        return Err(RecordingError::Long);
    }
    Ok(serde_json::from_slice(line)?)
}

/// The rules replaying a recording.
#[derive(Clone, Debug)]
pub struct Playback {
    pipeline: Pipeline,
    environment: Environment,
    kept: Checkpoint,
    fixed: bool,
    lost: u64,
    end: Option<bool>,
}

impl Playback {
    /// Replays with `settings` throughout, or with those of the recording where there are none.
    #[must_use]
    pub fn new(head: &Head, settings: Option<Settings>) -> Self {
        let fixed = settings.is_some();
        let Settings { objectives, timeouts, max_sessions } = settings.unwrap_or_else(|| head.settings.clone());
        let pipeline = Pipeline::new(&head.node, objectives, timeouts, max_sessions);
        Self { pipeline, environment: Environment::default(), kept: Checkpoint::default(), fixed, lost: 0, end: None }
    }

    /// Applies an event; gives the result of a tick.
    pub fn play(&mut self, event: Event) -> Option<Tick> {
        match event {
            Event::Kept(entry) => self.kept.apply(*entry),
            Event::Resumed(now) => self.pipeline.resume(&std::mem::take(&mut self.kept), now),
            Event::Joined(now) => drop(self.pipeline.join(std::mem::take(&mut self.kept), now)),
            Event::Observed(observation) => self.pipeline.observe(*observation),
            Event::Environment(environment) => self.environment = *environment,
            Event::Tick(now) => return Some(self.pipeline.tick(now, &self.environment)),
            Event::Announced(id, stream, descriptor, at) => {
                self.pipeline.registry_mut().register(&id, stream, *descriptor, at);
            }
            Event::Ended(id, at) => {
                self.pipeline.registry_mut().end(&id, at);
            }
            Event::Set(settings) if !self.fixed => {
                self.pipeline.set(settings.objectives, settings.timeouts, settings.max_sessions);
            }
            Event::Set(_) => {}
            Event::Forgotten => return Some(self.pipeline.forget()),
            Event::Lost(events) => self.lost = self.lost.saturating_add(events),
            Event::End { full } => self.end = Some(full),
        }
        None
    }

    /// The pipeline in its present state.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Number of events that the recording is missing, as it states itself.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the recording reached its end, and whether it ended because it was full.
    #[must_use]
    pub const fn end(&self) -> Option<bool> {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::{LatencyHistogram, ViewerSketch};
    use crate::model::{
        Client, Group, GroupKind, GroupView, NodeLoad, PathReport, PathView, PlayerView, Protocol, Rtt, ServerView,
        Share, Total,
    };

    fn head() -> Head {
        let settings =
            Settings { objectives: Objectives::default(), timeouts: SessionTimeouts::default(), max_sessions: 4 };
        Head::new("edge-7".to_owned(), Timestamp::from_secs(1_000_000), settings)
    }

    fn instant() -> impl Strategy<Value = Timestamp> {
        any::<u64>().prop_map(Timestamp::from_nanos)
    }

    fn duration() -> impl Strategy<Value = Duration> {
        any::<u64>().prop_map(Duration::from_nanos)
    }

    fn total() -> impl Strategy<Value = Option<Total>> {
        prop::option::of((any::<u64>(), any::<u64>()).prop_map(|(base, value)| Total { base, value }))
    }

    fn latencies() -> impl Strategy<Value = LatencyHistogram> {
        prop::collection::vec(0_u64..200_000, 0..400).prop_map(|all| {
            let mut latencies = LatencyHistogram::default();
            for millis in all {
                latencies.record(Duration::from_millis(millis));
            }
            latencies
        })
    }

    fn described() -> impl Strategy<Value = Fact> {
        ("[a-z]{1,9}", prop::option::of("[^\\p{C} ]{1,9}"), any::<u32>()).prop_map(|(id, teacher, students)| {
            let (session_id, teacher_id) = (Name::new(&id).ok(), teacher.and_then(|name| Name::new(&name).ok()));
            let student_count = Some(students);
            Fact::Described(Box::new(Descriptor { session_id, teacher_id, student_count, ..Descriptor::default() }))
        })
    }

    fn server() -> impl Strategy<Value = Fact> {
        let viewers = prop::option::of(prop::collection::vec((Just(Protocol::HttpFlv), any::<u32>()), 0..3));
        let fps = prop::option::of(-1e300_f64..1e300);
        (total(), total(), duration(), fps, viewers, any::<(Option<bool>, bool)>()).prop_map(
            |(ingest_bytes, ingest_frames, bytes_step, declared_fps, viewers, (publishing, partial))| {
                let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
                let protocol = Protocol::HttpFlv;
                let clients = vec![Client { address, started: None, publisher: false, protocol }];
                let view = ServerView {
                    publishing,
                    ingest_bytes,
                    ingest_frames,
                    bytes_step,
                    declared_fps,
                    viewers,
                    clients,
                    partial,
                    ..ServerView::default()
                };
                Fact::Server(Box::new(view))
            },
        )
    }

    fn path() -> impl Strategy<Value = Fact> {
        let rtt = prop::option::of((duration(), duration()).prop_map(|(p50, p95)| Rtt { p50, p95 }));
        (latencies(), rtt, any::<(u32, Option<u64>, Option<u64>, u64)>()).prop_map(
            |(latencies, rtt, (viewers, segments_sent, segments_lost, backlog_bytes))| {
                let (protocol, publisher_rtt) = (Protocol::Rtmp, None);
                Fact::Path(Box::new(PathView {
                    protocol,
                    viewers,
                    latencies,
                    segments_sent,
                    segments_lost,
                    rtt,
                    backlog_bytes,
                    publisher_rtt,
                }))
            },
        )
    }

    fn group() -> impl Strategy<Value = GroupView> {
        let kinds = prop_oneof![
            any::<u64>().prop_map(Group::Network),
            "\\PC{1,9}".prop_map(|name| Group::Region(name.into())),
            "\\PC{1,9}".prop_map(|name| Group::Player(name.into())),
            Just(Group::Others(GroupKind::Region)),
        ];
        (kinds, any::<u32>(), duration(), duration(), any::<u32>()).prop_map(
            |(group, groups, exposure, stalled, stall_starts)| GroupView {
                group,
                groups,
                exposure,
                stalled,
                stall_starts,
            },
        )
    }

    fn players() -> impl Strategy<Value = Fact> {
        let present = prop::option::of(prop::collection::vec(any::<u64>(), 0..600).prop_map(|hashes| {
            let mut sketch = ViewerSketch::default();
            for hash in hashes {
                sketch.insert(hash);
            }
            Arc::new(sketch)
        }));
        let groups = prop::collection::vec(group(), 0..4);
        let firsts = prop::collection::vec(duration(), 0..4);
        (present, groups, firsts, prop::option::of(latencies()), duration(), duration(), any::<(u32, Option<u64>)>())
            .prop_map(|(present, groups, first_frames, latencies, exposure, stalled, (viewers, packets_expected))| {
                Fact::Players(Box::new(PlayerView {
                    protocol: Some(Protocol::Webrtc),
                    viewers,
                    exposure,
                    stalled,
                    present,
                    packets_expected,
                    packets_lost: Some(3),
                    latencies,
                    first_frames,
                    groups,
                    ..PlayerView::default()
                }))
            })
    }

    fn observed() -> impl Strategy<Value = Event> {
        let facts = prop_oneof![described(), server(), path(), players(), Just(Fact::Gone)];
        (facts, "[a-z]{1,4}/[a-z]{1,2}", "[a-z]{1,3}", instant()).prop_map(|(fact, stream, source, at)| {
            let stream = StreamKey::parse(&stream).expect("a good key");
            Event::observed(&Observation { source: source.as_str().into(), stream, at, fact })
        })
    }

    fn environment() -> impl Strategy<Value = Event> {
        let ratio = || prop::option::of(0.0..1.0_f64);
        let path = ("[a-z]{1,4}", instant(), prop::option::of(duration()), 0.0..100.0_f64).prop_map(
            |(peer, at, rtt, lost)| PathReport {
                peer: peer.into(),
                at,
                rtt,
                out: Share::of(lost, 100.0),
                back: None,
                silent: Some(at),
            },
        );
        let sources = prop::collection::vec(("[a-z]{1,4}", prop::option::of(instant())), 0..3);
        (ratio(), ratio(), ratio(), sources, prop::collection::vec(path, 0..3)).prop_map(
            |(cpu_ratio, memory_ratio, nic_ratio, sources, paths)| {
                let sources = sources.into_iter().map(|(name, since)| (name.into(), since)).collect();
                let node = NodeLoad { cpu_ratio, memory_ratio, nic_ratio };
                Event::Environment(Box::new(Environment { node, sources, paths }))
            },
        )
    }

    fn event() -> impl Strategy<Value = Event> {
        let name = || "[a-z]{1,2}".prop_map(|name| Name::new(&name).expect("a good name"));
        prop_oneof![
            6 => observed(),
            1 => environment(),
            4 => instant().prop_map(Event::Tick),
            1 => (name(), instant())
                .prop_map(|(id, at)| Event::announced(&id, None, &Descriptor::default(), at)),
            1 => (name(), instant()).prop_map(|(id, at)| Event::Ended(id, at)),
            1 => Just(Event::Set(Box::new(head().settings))),
            1 => Just(Event::Forgotten),
            1 => any::<u64>().prop_map(Event::Lost),
            1 => any::<bool>().prop_map(|full| Event::End { full }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn written_events_are_read_back_and_identify_nobody(events in prop::collection::vec(event(), 1..12)) {
            for event in events {
                let line = line(&event).expect("short");
                let text = String::from_utf8_lossy(&line).into_owned();
                prop_assert!(!text.contains("203.0.113") && !text.contains("\"teacher_id\":\""), "{}", text);
                prop_assert_eq!(Event::read(&line).expect("a good line"), event);
            }
        }

        #[test]
        fn any_recording_can_be_replayed(events in prop::collection::vec(event(), 1..40)) {
            let mut playback = Playback::new(&head(), None);
            for event in events {
                if let Some(tick) = playback.play(event) {
                    prop_assert!(tick.batch.samples.len() <= 4);
                }
            }
        }

        #[test]
        fn any_line_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..300) {
            prop_assert!(Head::read(&bytes).is_err() && Event::read(&bytes).is_err());
            let whole = line(&head()).expect("short");
            let cut = cut.min(whole.len() - 2);
            prop_assert!(Head::read(&whole[..cut]).is_err(), "a truncated line is refused");
        }
    }

    #[test]
    fn the_first_line_identifies_the_format() {
        let first = line(&head()).expect("short");
        assert!(first.starts_with(MARK));
        assert_eq!(Head::read(&first).expect("a good head"), head());
        let newer = Head::read(b"{\"liveqos_recording\":2,\"what\":[]}").expect_err("of a later format");
        assert!(newer.to_string().contains("use a newer liveqos"), "{newer}");
        assert!(matches!(Event::read(&vec![b' '; MAX_LINE + 1]), Err(RecordingError::Long)));
    }

    #[test]
    fn given_settings_take_precedence_over_recorded_ones() {
        let strict = Objectives { latency_seconds: 0.01, ..Objectives::default() };
        let mut playback = Playback::new(&head(), Some(Settings { objectives: strict, ..head().settings }));
        playback.play(Event::Set(Box::new(head().settings)));
        let mut latencies = LatencyHistogram::default();
        (0..9).for_each(|_| latencies.record(Duration::from_millis(60)));
        let mut notices = 0;
        for tick in 0..60_u64 {
            let at = Timestamp::from_millis(1_000_000_000 + tick * 250);
            let view = PlayerView {
                protocol: Some(Protocol::Webrtc),
                viewers: 9,
                exposure: Duration::from_secs(2),
                latencies: Some(latencies.clone()),
                ..PlayerView::default()
            };
            let stream = StreamKey::parse("live/c1").expect("a good key");
            let fact = Fact::Players(Box::new(view));
            playback.play(Event::observed(&Observation { source: "players".into(), stream, at, fact }));
            notices += playback.play(Event::Tick(at)).map_or(0, |tick| tick.notices.len());
        }
        assert_eq!(notices, 1);
        playback.play(Event::Lost(3));
        playback.play(Event::End { full: true });
        assert_eq!((playback.lost(), playback.end()), (3, Some(true)));
    }
}
