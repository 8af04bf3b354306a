//! The class: it is encoded once, and ffmpeg packs it as HLS and DASH in real time as live packagers do. Decides its
//! measure: 160x90 at 10 fps, 250 kbit/s constant and 48 kbit/s of AAC, a key frame and a segment every 2 s; small
//! pictures, since several browsers decode it on one machine, and no encoder beside them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use liveqos_testkit::program::{Program, command, run};

/// Media bytes a second of the class, containers not counted.
pub(crate) const BYTES_PER_SECOND: u32 = (250_000 + 48_000) / 8;

/// Starts writing below `media`.
pub(crate) fn publish(folder: &Path, media: &Path) -> Program {
    std::fs::create_dir_all(media.join("hls")).unwrap();
    std::fs::create_dir_all(media.join("dash")).unwrap();
    let mut command = command("ffmpeg");
    command.args(["-hide_banner", "-nostats", "-loglevel", "warning", "-re", "-i"]).arg(recording());
    command.args(["-map", "0", "-c", "copy", "-f", "hls", "-hls_time", "2", "-hls_list_size", "30"]);
    command.args(["-hls_flags", "delete_segments+temp_file", "-hls_segment_filename"]);
    command.arg(media.join("hls/%d.ts")).arg(media.join("hls/index.m3u8"));
    command.args(["-map", "0", "-c", "copy", "-f", "dash", "-seg_duration", "2", "-window_size", "30"]);
    command.args(["-extra_window_size", "10", "-use_template", "1", "-use_timeline", "1"]);
    command.arg(media.join("dash/index.mpd"));
    Program::start("publisher", &mut command, folder, false)
}

/// The whole class as one file, `class.mp4`, with `class.flv` beside it.
pub(crate) fn recording() -> &'static Path {
    static RECORDING: OnceLock<PathBuf> = OnceLock::new();
    RECORDING.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("players");
        std::fs::create_dir_all(&folder).unwrap();
        let (mp4, flv) = (folder.join("class.mp4"), folder.join("class.flv"));
        let mut encode = ffmpeg();
        encode.args(["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10"]);
        encode.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", SECONDS]);
        encode.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-x264-params", "nal-hrd=cbr"]);
        encode.args(["-b:v", "250k", "-minrate", "250k", "-maxrate", "250k", "-bufsize", "250k"]);
        encode.args(["-g", "20", "-keyint_min", "20", "-sc_threshold", "0", "-c:a", "aac", "-b:a", "48k"]);
        finish(encode.args(["-movflags", "+faststart"]).arg(&mp4));
        finish(ffmpeg().arg("-i").arg(&mp4).args(["-c", "copy"]).arg(flv));
        mp4
    })
}

fn ffmpeg() -> std::process::Command {
    let mut ffmpeg = command("ffmpeg");
    ffmpeg.args(["-hide_banner", "-nostats", "-loglevel", "error", "-y"]);
    ffmpeg
}

fn finish(ffmpeg: &mut std::process::Command) {
    let (code, output) = run(ffmpeg);
    assert_eq!(code, Some(0), "{output}");
}

/// Longer than any run.
const SECONDS: &str = "240";
