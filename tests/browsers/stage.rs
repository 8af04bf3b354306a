//! All that a run needs: a class, an edge that logs, a daemon that follows the log, and pages that play. Decides that
//! each player is a class of its own, with a link of its own, so that the figures of a class are those of that player.

use std::path::{Path, PathBuf};
use std::time::Duration;

use liveqos_testkit::daemon::{Daemon, write_config};
use liveqos_testkit::program::Program;
use liveqos_testkit::wait;

use super::browser::Browser;
use super::nginx::Nginx;
use super::page_server::PageServer;
use super::relay::{Link, Relay};
use super::{class, packages};

/// The class, the edge, the daemon and the host of the pages.
pub(crate) struct Stage {
    /// The edge.
    pub(crate) nginx: Nginx,
    /// The host of the pages.
    pub(crate) pages: PageServer,
    /// The daemon that follows the edge's log.
    pub(crate) daemon: Daemon,
    /// Its configuration.
    pub(crate) config: PathBuf,
    folder: PathBuf,
    _publisher: Program,
}

/// How a player is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Name of the run and of its class.
    pub(crate) name: &'static str,
    /// `hls`, `dash` or `shaka`.
    pub(crate) player: &'static str,
    /// Version of CMCD.
    pub(crate) version: u8,
    /// Whether it also posts events.
    pub(crate) events: bool,
    /// `query` or `header`.
    pub(crate) mode: &'static str,
}

/// A page that plays, and its link.
pub(crate) struct Watcher {
    /// How it is set up.
    pub(crate) setup: Setup,
    /// Its class, as liveqos names it.
    pub(crate) class: String,
    relay: Relay,
}

impl Stage {
    /// Starts all but the pages; files go below `folder`.
    pub(crate) async fn set(folder: &Path) -> Self {
        let packages = packages::installed();
        let media = folder.join("media");
        let publisher = class::publish(folder, &media);
        let nginx = Nginx::start(folder, &media).await;
        let pages = PageServer::start(packages::folder().join("pages"), packages).await;
        let logs = format!("discover = false\n[[logs]]\npath = \"{}\"\n", nginx.log.display());
        let daemon = Daemon::start_in(folder, &logs).await;
        let config = write_config(folder, &logs);
        Self { nginx, pages, daemon, config, folder: folder.to_owned(), _publisher: publisher }
    }

    /// Opens a page with a frame for each and waits until all of them play. All play while the browser lives.
    pub(crate) async fn watch(&self, setups: &[Setup]) -> (Browser, Vec<Watcher>) {
        let mut watchers = Vec::new();
        let mut frames = Vec::new();
        for (number, setup) in setups.iter().enumerate() {
            let watcher = Watcher::new(*setup, self.nginx.port).await;
            frames.push(("frame", format!("{}/{}", self.pages.origin(number), watcher.page())));
            watchers.push(watcher);
        }
        let wall = format!("http://127.0.0.1:{}/wall.html", self.pages.port);
        let wall = reqwest::Url::parse_with_params(&wall, frames).unwrap();
        let browser = Browser::open(&self.folder, "chromium", wall.as_str());
        for watcher in &watchers {
            let name = watcher.setup.name;
            wait::until(&format!("the first picture of {name}"), START, async || {
                let record = self.pages.record(name);
                assert!(record.errors().is_empty(), "{name}: {:?}", record.errors());
                record.first("playing")
            })
            .await;
        }
        (browser, watchers)
    }
}

impl Watcher {
    async fn new(setup: Setup, edge: u16) -> Self {
        let kind = if setup.player == "hls" { "hls" } else { "dash" };
        Self { setup, class: format!("{kind}/{}", setup.name), relay: Relay::start(edge).await }
    }

    /// Its page, with what it is to play.
    fn page(&self) -> String {
        let Setup { name, player, version, events, mode } = self.setup;
        let edge = format!("http://127.0.0.1:{}", self.relay.port);
        let file = if player == "hls" { "index.m3u8" } else { "index.mpd" };
        let events = if events { format!("{edge}/cmcd") } else { String::new() };
        format!(
            "player.html?name={name}&player={player}&v={version}&mode={mode}&cid={name}&sid={name}-0000-4000-8000-000000000000\
             &src={edge}/{}/{file}&events={events}",
            self.class
        )
    }

    /// Sets what its link is like from now on.
    pub(crate) fn link(&self, link: Link) {
        self.relay.set(link);
    }
}

const START: Duration = Duration::from_mins(1);
