//! The edge's log: a thread that writes what its audience makes, at the pace of the clock, and rotates the file once a
//! minute.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::audience::Audience;
use super::fault::Faults;
use super::usage;

/// A log being written.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) rotations: u32,
    /// Processor time of the thread.
    pub(crate) cpu: Duration,
    /// The longest time between two writes: the machine's, not the daemon's, lateness.
    pub(crate) longest_pause: Duration,
    pub(crate) took: Duration,
}

impl Writer {
    pub(crate) fn start(path: &Path, sizes: Vec<u16>, faults: Arc<Faults>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, path) = (Arc::clone(&stop), path.to_owned());
        let thread = std::thread::spawn(move || write(&path, &sizes, &faults, &stopping));
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn write(path: &PathBuf, sizes: &[u16], faults: &Arc<Faults>, stop: &AtomicBool) -> Written {
    let began = now();
    let mut audience = Audience::new(sizes, began, Arc::clone(faults));
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    let mut out = Vec::with_capacity(1 << 20);
    let (mut bytes, mut rotations, mut longest, mut last) = (0, 0, 0, began);
    while !stop.load(Ordering::Relaxed) {
        let at = now();
        longest = longest.max(at - last);
        last = at;
        audience.write(at, &mut out);
        file.write_all(&out).unwrap();
        faults.wrote(now());
        bytes += out.len() as u64;
        out.clear();
        if (at - began) / ROTATE > u64::from(rotations) {
            rotations += 1;
            let beside = path.with_extension("1");
            std::fs::rename(path, beside).unwrap();
            file = File::options().append(true).create(true).open(path).unwrap();
        }
        std::thread::sleep(TICK);
    }
    let took = Duration::from_millis(now() - began);
    let longest_pause = Duration::from_millis(longest);
    Written { lines: audience.lines, bytes, rotations, cpu: usage::own_thread(), longest_pause, took }
}

/// The wall clock, Unix ms.
pub(crate) fn now() -> u64 {
    liveqos::platform::clock::now().millis()
}

const TICK: Duration = Duration::from_millis(20);
const ROTATE: u64 = 60_000;
