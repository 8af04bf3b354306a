//! Publishers and players. Decides what a class is here: 720p at 25 fps, 1.5 Mbit/s constant, a key frame every 2 s,
//! AAC.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex};

use liveqos::platform::clock;
use liveqos_testkit::program::{Program, command};

/// A publisher, and what it reports to have written.
pub(crate) struct Publisher {
    pub(crate) program: Program,
    written: Arc<Mutex<Vec<(f64, u64)>>>,
}

impl Publisher {
    pub(crate) fn start(folder: &Path, url: &str) -> Self {
        let mut command = command("ffmpeg");
        command.args([
            "-hide_banner",
            "-nostats",
            "-loglevel",
            "warning",
            "-stats_period",
            "0.25",
            "-progress",
            "pipe:1",
        ]);
        command.args(["-re", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25"]);
        command.args(["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]);
        command.args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]);
        command.args(["-b:v", "1500k", "-minrate", "1500k", "-maxrate", "1500k", "-bufsize", "1500k"]);
        command.args(["-x264-params", "nal-hrd=cbr", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]);
        command.args(["-c:a", "aac", "-b:a", "96k", "-f", "flv", url]);
        let mut program = Program::start("publisher", &mut command, folder, true);
        let out = program.child.stdout.take().unwrap();
        let written: Arc<Mutex<Vec<(f64, u64)>>> = Arc::default();
        let notes = Arc::clone(&written);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(size) = line.strip_prefix("total_size=").and_then(|size| size.parse().ok()) {
                    notes.lock().unwrap().push((clock::now().seconds(), size));
                }
            }
        });
        Self { program, written }
    }

    /// FLV bytes written from one instant (seconds since the epoch) to another, interpolated between its reports.
    pub(crate) fn written(&self, from: f64, to: f64) -> Option<f64> {
        let notes = self.written.lock().unwrap();
        let at = |when: f64| {
            let after = notes.partition_point(|(time, _)| *time <= when);
            let ((t0, b0), (t1, b1)) = (notes.get(after.checked_sub(1)?)?, notes.get(after)?);
            Some(*b0 as f64 + (*b1 - *b0) as f64 * (when - t0) / (t1 - t0))
        };
        Some(at(to)? - at(from)?)
    }
}

/// A player that takes everything and shows nothing.
pub(crate) fn player(folder: &Path, name: &str, url: &str) -> Program {
    let mut command = command("ffmpeg");
    command.args(["-hide_banner", "-nostats", "-loglevel", "warning", "-i", url, "-c", "copy", "-f", "null", "-"]);
    Program::start(name, &mut command, folder, false)
}

/// FLV bytes around the payload that nginx counts: a tag's header of 11 and the 4 that repeat its size.
pub(crate) const FLV_TAG_BYTES: f64 = 15.0;
/// Tags a second: 25 of video, and one an AAC frame of 1,024 samples.
pub(crate) const FLV_TAGS_PER_SECOND: f64 = 25.0 + 44_100.0 / 1_024.0;
