//! Viewers of many classes as their edge logs them: LL-HLS in parts of 500 ms, a playlist with each, half of the
//! players with CMCD v1, half with v2 and event posts. Each keeps a buffer by conservation; a stall is an answer that
//! comes later than the buffer lasts.

use std::io::Write as _;
use std::sync::Arc;

use liveqos_testkit::seed::random;

use super::fault::Faults;

/// All viewers.
pub(crate) struct Audience {
    viewers: Vec<Viewer>,
    /// Who acts when, in steps of [`STEP`].
    wheel: Vec<Vec<u32>>,
    done: u64,
    faults: Arc<Faults>,
    random: fastrand::Rng,
    /// Lines made so far.
    pub(crate) lines: u64,
}

struct Viewer {
    class: u16,
    events: bool,
    act: Act,
    due: u64,
    /// The request that is on its way: when it was made, with how much in the buffer, and when it is answered.
    asked: u64,
    buffer: u64,
    answered: u64,
    /// When the buffer runs dry.
    dry: u64,
    part: u64,
    /// When its last stall began, and whether that was since its last request.
    ran_dry: u64,
    starved: bool,
    report: u32,
    next_interval: u64,
    stalled: u64,
    /// Which fault of its class the stall belongs to.
    fault: u32,
    /// What is the same in all its lines, after the numbers.
    tail: String,
    name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Playlist,
    Dry,
    Answer,
}

impl Audience {
    /// `sizes[class]` viewers of each class from `now` (Unix ms) on.
    pub(crate) fn new(sizes: &[u16], now: u64, faults: Arc<Faults>) -> Self {
        let mut audience = Self {
            viewers: Vec::new(),
            wheel: vec![Vec::new(); SLOTS],
            done: now / STEP,
            faults,
            random: random("audience"),
            lines: 0,
        };
        for (class, size) in (0_u16..).zip(sizes) {
            for number in 0..*size {
                let first = now + 100 + audience.random.u64(..PART);
                let viewer = Viewer::new(class, number, first);
                audience.put(viewer);
            }
        }
        audience
    }

    fn put(&mut self, viewer: Viewer) {
        let slot = (viewer.due / STEP) as usize % SLOTS;
        self.wheel[slot].push(self.viewers.len() as u32);
        self.viewers.push(viewer);
    }

    /// Writes what is logged until `now`, at most a wheel's turn after the last call.
    pub(crate) fn write(&mut self, now: u64, out: &mut Vec<u8>) {
        while self.done < now / STEP {
            let slot = self.done as usize % SLOTS;
            let mut due = std::mem::take(&mut self.wheel[slot]);
            for index in due.drain(..) {
                self.act(index, out);
            }
            self.wheel[slot] = due;
            self.done += 1;
        }
    }

    fn act(&mut self, index: u32, out: &mut Vec<u8>) {
        let viewer = &mut self.viewers[index as usize];
        let at = viewer.due;
        match viewer.act {
            Act::Playlist => {
                viewer.playlist(out);
                self.lines += 1;
                let stalls = viewer.answered > viewer.dry;
                (viewer.act, viewer.due) = if stalls { (Act::Dry, viewer.dry) } else { (Act::Answer, viewer.answered) };
            }
            Act::Dry => {
                if viewer.events {
                    viewer.event("ps", 'r', at, out);
                    self.lines += 1;
                    self.faults.evidence(viewer.class, viewer.fault, viewer.dry);
                }
                (viewer.act, viewer.due) = (Act::Answer, viewer.answered);
            }
            Act::Answer => self.lines += viewer.answer(&self.faults, &mut self.random, out),
        }
        // What is due in the past is due in the next step.
        let slot = (viewer.due / STEP).max(self.done + 1) as usize % SLOTS;
        self.wheel[slot].push(index);
    }
}

impl Viewer {
    fn new(class: u16, number: u16, first: u64) -> Self {
        let events = number % 2 == 1;
        let id = u32::from(class) << 16 | u32::from(number);
        let name = format!("{id:08x}-0000-4000-8000-{:012x}", u64::from(id) * 7_919);
        let version = if events { "%2Csta%3Dp%2Cv%3D2" } else { "" };
        let tail = format!(
            "cid%3D%22class{class}%22%2Cd%3D500%2Cmtp%3D37500%2Csf%3Dh%2Csid%3D%22{name}%22%2Cst%3Dl{version}\",\"s\":\"\",\"r\":\"\",\"o\":\"\",\"a\":\"\",\"ip\":\"10.{}.{}.{}\",\"ua\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\"}}\n",
            class % 250,
            number / 250,
            number % 250,
        );
        Self {
            class,
            events,
            act: Act::Playlist,
            due: first,
            asked: first,
            buffer: BUFFER,
            answered: first + ANSWER,
            dry: first + BUFFER,
            part: first / PART,
            ran_dry: first,
            starved: false,
            report: 0,
            next_interval: first + PART,
            stalled: 0,
            fault: 0,
            tail,
            name,
        }
    }

    /// A part arrived: it is logged, and the next is asked for. Returns the number of lines.
    fn answer(&mut self, faults: &Faults, random: &mut fastrand::Rng, out: &mut Vec<u8>) -> u64 {
        let at = self.answered;
        self.media(out);
        let mut lines = 1;
        if self.starved {
            // The request just logged contained it.
            self.starved = false;
            if !self.events {
                faults.evidence(self.class, self.fault, self.ran_dry);
            }
        }
        if at > self.dry {
            self.stalled += at - self.dry;
            (self.starved, self.ran_dry, self.dry) = (true, self.dry, at);
            if self.events {
                self.event("ps", 'p', at, out);
                lines += 1;
            }
        } else if self.events && at >= self.next_interval {
            let first = self.report == 0;
            self.event(if first { "ps" } else { "t" }, 'p', at, out);
            self.next_interval = at + INTERVAL;
            lines += 1;
        }
        self.dry += PART;
        self.part += 1;
        // The next part is there when the live edge has passed it; the edge is known by the viewer's own phase.
        let edge = self.part * PART + self.phase();
        self.asked = at.max(edge);
        self.buffer = self.dry.saturating_sub(self.asked);
        if self.buffer > MOST_BUFFER {
            // Far behind after stalls: it jumps to the live edge.
            self.dry = self.asked + BUFFER;
            self.buffer = BUFFER;
        }
        self.answered = self.asked + ANSWER;
        let (stall, fault) = faults.draw(self.class, random);
        if stall > 0 {
            (self.answered, self.fault) = (self.dry + stall, fault);
        }
        let playlist = at + PART / 2;
        if self.asked > at + PART / 2 {
            (self.act, self.due) = (Act::Playlist, playlist);
        } else if self.answered > self.dry {
            (self.act, self.due) = (Act::Dry, self.dry);
        } else {
            (self.act, self.due) = (Act::Answer, self.answered);
        }
        lines
    }

    fn phase(&self) -> u64 {
        u64::from(self.name.as_bytes()[7] & 15) * 30
    }

    fn media(&self, out: &mut Vec<u8>) {
        head(self.answered, self.answered - self.asked, 90_000 + self.part % 977, out);
        out.extend_from_slice(b"/hls/class");
        digits(u64::from(self.class), out);
        out.extend_from_slice(b"/seg");
        digits(self.part, out);
        let bl = (self.buffer + 50) / 100 * 100;
        if self.events {
            out.extend_from_slice(b".m4s\",\"q\":\"bl%3D(");
            digits(bl, out);
            out.extend_from_slice(b")%2Cbr%3D(1500)%2C");
        } else {
            out.extend_from_slice(b".m4s\",\"q\":\"bl%3D");
            digits(bl, out);
            out.extend_from_slice(b"%2Cbr%3D1500%2C");
        }
        if self.starved {
            out.extend_from_slice(b"bs%2C");
        }
        out.extend_from_slice(self.tail.as_bytes());
    }

    fn playlist(&self, out: &mut Vec<u8>) {
        head(self.due, 240, 2_400, out);
        out.extend_from_slice(b"/hls/class");
        digits(u64::from(self.class), out);
        out.extend_from_slice(b"/index.m3u8\",\"q\":\"");
        out.extend_from_slice(self.tail.as_bytes());
    }

    fn event(&mut self, kind: &str, state: char, at: u64, out: &mut Vec<u8>) {
        let logged = at + 5;
        out.extend_from_slice(b"{\"t\":");
        seconds(logged, out);
        let (name, report, stalled, class) = (&self.name, self.report, self.stalled, self.class);
        writeln!(
            out,
            ",\"u\":\"/cmcd\",\"e\":\"bsda=({stalled}),cid=\\\"class{class}\\\",e={kind},sf=h,sid=\\\"{name}\\\",sn={report},st=l,sta={state},ts={at},v=2\\n\"}}"
        )
        .expect("a Vec takes all");
        self.report += 1;
    }
}

fn head(logged: u64, took: u64, bytes: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"t\":");
    seconds(logged, out);
    out.extend_from_slice(b",\"rt\":");
    seconds(took, out);
    out.extend_from_slice(b",\"st\":200,\"b\":");
    digits(bytes, out);
    out.extend_from_slice(b",\"u\":\"");
}

fn seconds(millis: u64, out: &mut Vec<u8>) {
    digits(millis / 1_000, out);
    out.push(b'.');
    for place in [100, 10, 1] {
        out.push(b'0' + (millis / place % 10) as u8);
    }
}

fn digits(value: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut at = text.len();
    let mut rest = value;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Play time of a part, ms.
pub(crate) const PART: u64 = 500;
const STEP: u64 = 10;
const SLOTS: usize = 2_048;
const BUFFER: u64 = 1_500;
const MOST_BUFFER: u64 = 6_000;
const ANSWER: u64 = 30;
const INTERVAL: u64 = 10_000;
