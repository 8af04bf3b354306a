//! A node of some classes of real media, observed as the daemon observes it: views of the node each second, reports of
//! players as to `/v1/beacon`, a tick every 250 ms. All events are recorded.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use liveqos::demo::{Class, ClassOptions, ViewerTotals, viewer_report};
use liveqos::intake::access_log::Requester;
use liveqos::platform::clock;
use liveqos::players::{Beacons, Key};
use liveqos_core::model::{
    Cause, Environment, Fact, NodeLoad, Notice, Objectives, Observation, StreamKey, TICK, Timestamp,
};
use liveqos_core::recording::{Event, Head, Playback, Settings, line};
use liveqos_core::session::SessionTimeouts;
use liveqos_testkit::named_cause::named_cause;
use serde_json::json;

/// Classes of a node.
pub(crate) const CLASSES: usize = 3;
/// Viewers of a class.
pub(crate) const VIEWERS: u32 = 6;

pub(crate) struct Node {
    rooms: Vec<Room>,
    /// Whether threads take its processor.
    pub(crate) busy: Arc<AtomicBool>,
    beacons: Beacons,
    rules: Playback,
    tape: GzEncoder<File>,
    path: PathBuf,
    notices: Vec<Notice>,
    load: Load,
    ticks: u64,
    next: Timestamp,
}

/// A class and the last reports of its viewers.
struct Room {
    class: Class,
    name: String,
    token: String,
    reported: Vec<ViewerTotals>,
}

impl Node {
    pub(crate) async fn start(seed: u64, path: &Path) -> Self {
        let key = Key::new(&[7; 32]).unwrap();
        let mut rooms = Vec::new();
        for number in 0..CLASSES {
            let options = ClassOptions { viewers: VIEWERS, seed: seed * 100 + number as u64, clock: clock::now };
            let (class, name) = (Class::start(options).await.unwrap(), format!("class{number}"));
            let token = key.sign(&name, clock::now() + Duration::from_hours(1));
            let reported = vec![ViewerTotals::default(); VIEWERS as usize];
            rooms.push(Room { class, name, token, reported });
        }
        let settings =
            Settings { objectives: Objectives::default(), timeouts: SessionTimeouts::default(), max_sessions: 100 };
        let head = Head::new(format!("node{seed}"), clock::now(), settings);
        let mut tape = GzEncoder::new(File::create(path).unwrap(), Compression::best());
        tape.write_all(&line(&head).unwrap()).unwrap();
        Self {
            rooms,
            busy: Arc::default(),
            beacons: Beacons::new(Some(key), [1, 2], Arc::default()),
            rules: Playback::new(&head, None),
            tape,
            path: path.to_owned(),
            notices: Vec::new(),
            load: Load::default(),
            ticks: 0,
            next: clock::now().floor(TICK) + TICK,
        }
    }

    pub(crate) fn class(&self, number: usize) -> &Class {
        &self.rooms[number].class
    }

    pub(crate) fn each(&self, with: impl Fn(&Class)) {
        self.rooms.iter().for_each(|room| with(&room.class));
    }

    /// Goes on for some seconds.
    pub(crate) async fn play(&mut self, seconds: u64) {
        let until = clock::now() + Duration::from_secs(seconds);
        while clock::now() < until {
            tokio::time::sleep(self.next.since(clock::now())).await;
            self.tick();
            self.next = clock::now().floor(TICK) + TICK;
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        let second = self.ticks.is_multiple_of(4);
        let mut events = Vec::new();
        for room in &mut self.rooms {
            if second {
                let fact = Fact::Server(Box::new(room.class.view()));
                let stream = StreamKey::parse(&room.name).unwrap();
                events.push(Event::observed(&Observation { source: "demo".into(), stream, at: now, fact }));
            }
            room.report(&self.beacons, now, self.ticks);
        }
        events.extend(self.beacons.drain(now).iter().map(Event::observed));
        if let Some(cpu_ratio) = self.load.ratio(now) {
            let node = NodeLoad { cpu_ratio: Some(cpu_ratio), ..NodeLoad::default() };
            let sources = vec![("demo".into(), None)];
            events.push(Event::Environment(Box::new(Environment { node, sources, paths: Vec::new() })));
        }
        events.push(Event::Tick(now));
        for event in events {
            self.play_event(event);
        }
        self.ticks += 1;
    }

    fn play_event(&mut self, event: Event) {
        self.tape.write_all(&line(&event).unwrap()).unwrap();
        if let Some(tick) = self.rules.play(event) {
            self.notices.extend(tick.notices);
        }
    }

    /// The cause named last by most alerts of a class that began after `onset`, with their evidence.
    pub(crate) fn named_cause(&self, class: usize, onset: Timestamp) -> Option<(Cause, String)> {
        named_cause(&self.notices, &self.rooms[class].name, onset)
    }

    /// Ends everything; the labels stand beside the recording.
    pub(crate) async fn stop(mut self, hurt: &[(usize, Cause)], onset: Timestamp) {
        self.busy.store(false, Ordering::Relaxed);
        self.play_event(Event::End { full: false });
        self.tape.finish().unwrap();
        let labels = hurt.iter().map(|(class, cause)| json!({ "session_id": self.rooms[*class].name, "cause": cause }));
        let labels = json!({ "onset": onset, "labels": labels.collect::<Vec<_>>() });
        std::fs::write(self.path.with_extension("").with_extension("labels.json"), labels.to_string()).unwrap();
        for room in self.rooms {
            room.class.stop().await;
        }
    }
}

impl Room {
    /// Each viewer reports once a second, spread over the second as players are.
    fn report(&mut self, beacons: &Beacons, now: Timestamp, ticks: u64) {
        for totals in self.class.viewers(now) {
            if u64::from(totals.viewer) % 4 != ticks % 4 {
                continue;
            }
            let was = std::mem::replace(&mut self.reported[totals.viewer as usize], totals);
            let body = viewer_report(&self.name, ticks / 4, &was, &totals).to_string();
            beacons.report(body.as_bytes(), Some(&self.token), &Requester::default(), now).unwrap();
        }
    }
}

/// The processor that this process uses, of all there is: it is the node, whatever else the machine does.
#[derive(Default)]
struct Load {
    before: Option<(Timestamp, u64)>,
}

impl Load {
    /// Over the last second or longer; `None` before it is over.
    fn ratio(&mut self, now: Timestamp) -> Option<f64> {
        if self.before.is_some_and(|(at, _)| now.since(at) < Duration::from_secs(1)) {
            return None;
        }
        let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
        let ticks = stat.utime + stat.stime;
        let (at, was) = self.before.replace((now, ticks))?;
        let cores = std::thread::available_parallelism().ok()?.get() as f64;
        let seconds = (ticks - was) as f64 / procfs::ticks_per_second() as f64;
        Some((seconds / now.since(at).as_secs_f64().max(0.01) / cores).min(1.0))
    }
}
