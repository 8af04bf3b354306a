//! Chromium without a window, in a process group of its own. Decides its arguments; nothing drives it: pages act by
//! themselves and on what the answers to their records ask for.

use std::path::Path;

use liveqos_testkit::program::{Program, command, run};

/// A running browser with one page.
pub(crate) struct Browser {
    /// The process; ended with its whole group when dropped.
    _program: Program,
}

impl Browser {
    /// Opens `url`; everything the browser writes goes below `folder`, under `name`.
    pub(crate) fn open(folder: &Path, name: &str, url: &str) -> Self {
        let home = folder.join(format!("{name}.browser"));
        std::fs::create_dir_all(&home).unwrap();
        let mut command = command(CHROMIUM);
        command.args(ARGUMENTS).arg(format!("--user-data-dir={}", home.display())).arg(url).env("HOME", &home);
        Self { _program: Program::start(name, &mut command, folder, false) }
    }
}

/// Its version.
pub(crate) fn version() -> String {
    let (_, output) = run(command(CHROMIUM).arg("--version"));
    output.lines().find(|line| line.starts_with("Chromium")).unwrap_or_default().trim().to_owned()
}

const CHROMIUM: &str = "chromium";
const ARGUMENTS: [&str; 14] = [
    "--headless=new",
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-popup-blocking",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=760,420",
];
