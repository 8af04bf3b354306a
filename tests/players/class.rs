//! The class: ffmpeg writes HLS and DASH as live packagers do. Decides its measure: 320x180 at 25 fps, 600 kbit/s constant and 64 kbit/s
//! of AAC, a key frame and a segment every 2 s; small pictures, since several browsers decode it on one machine.

use std::path::Path;

use super::program::{Program, command};

/// Media bytes a second of the class, containers not counted.
pub(crate) const BYTES_PER_SECOND: u32 = (600_000 + 64_000) / 8;

/// Starts writing below `media`.
pub(crate) fn publish(folder: &Path, media: &Path) -> Program {
    std::fs::create_dir_all(media.join("hls")).unwrap();
    std::fs::create_dir_all(media.join("dash")).unwrap();
    let mut command = command("ffmpeg");
    command.args(["-hide_banner", "-nostats", "-loglevel", "warning"]);
    command.args(["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"]);
    command.args(["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
    let encoding = [
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-b:v",
        "600k",
        "-minrate",
        "600k",
        "-maxrate",
        "600k",
        "-bufsize",
        "600k",
        "-x264-params",
        "nal-hrd=cbr",
        "-g",
        "50",
        "-keyint_min",
        "50",
        "-sc_threshold",
        "0",
        "-c:a",
        "aac",
        "-b:a",
        "64k",
    ];
    command.args(encoding).args([
        "-f",
        "hls",
        "-hls_time",
        "2",
        "-hls_list_size",
        "10",
        "-hls_flags",
        "delete_segments+temp_file",
    ]);
    command.arg("-hls_segment_filename").arg(media.join("hls/%d.ts")).arg(media.join("hls/index.m3u8"));
    command.args(encoding).args(["-f", "dash", "-seg_duration", "2", "-window_size", "15", "-extra_window_size", "10"]);
    command.args(["-use_template", "1", "-use_timeline", "1"]).arg(media.join("dash/index.mpd"));
    Program::start("publisher", &mut command, folder, false)
}
