//! One node's end of a path without the rest of the daemon, and the certificates it needs.

#![expect(clippy::unwrap_used, reason = "what a test sets up must work; a panic names the line")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use liveqos::demo::Impairment;
use liveqos::intake::SourceTable;
use liveqos::peers::{NodeTlsSettings, PathSettings, PathStatus, PathTable, PeerSettings, Peers};
use liveqos::platform::{SelfMetrics, clock};
use liveqos_testkit::node_certificates::write_certificates;
use liveqos_testkit::wait::{PATIENCE, until};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The certificate files of a node.
pub(crate) fn tls(folder: &Path, node: &str) -> NodeTlsSettings {
    let file = |name: String| folder.join(name);
    NodeTlsSettings {
        cert: file(format!("{node}.pem")),
        key: file(format!("{node}.key")),
        ca: file("ca.pem".to_owned()),
    }
}

/// A folder with certificates of an origin and an edge.
pub(crate) fn nodes() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path(), &["origin", "edge"]);
    folder
}

/// The settings of an edge that pings what is at `address` as `origin-1`, as often as it may.
pub(crate) fn edge(folder: &Path, address: SocketAddr) -> PathSettings {
    let peer = PeerSettings { name: "origin-1".to_owned(), ..PeerSettings::at(&address.to_string()) };
    let interval = Duration::from_millis(20);
    PathSettings { tls: tls(folder, "edge"), peers: vec![peer], interval, ..PathSettings::default() }
}

/// The paths of one node.
pub(crate) struct Node {
    pub(crate) peers: Peers,
    pub(crate) table: PathTable,
    pub(crate) meters: SelfMetrics,
    pub(crate) tasks: JoinSet<()>,
}

impl Node {
    pub(crate) fn start(settings: &PathSettings) -> Self {
        let table = PathTable::new(settings);
        let sources = settings
            .peers
            .iter()
            .fold(SourceTable::new(&[], None), |table, peer| table.with_peer(&peer.name, &peer.address));
        let meters = SelfMetrics::new(&prometheus::Registry::new()).unwrap();
        let mut tasks = JoinSet::new();
        let peers = Peers::start(settings, &table, &sources, &meters, &mut tasks).unwrap().unwrap();
        Self { peers, table, meters, tasks }
    }

    pub(crate) fn origin(folder: &Path) -> Self {
        Self::start(&PathSettings {
            listen: "127.0.0.1:0".to_owned(),
            tls: tls(folder, "origin"),
            ..PathSettings::default()
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.peers.address().unwrap()
    }

    pub(crate) fn path(&self) -> PathStatus {
        self.table.status(clock::now()).remove(0)
    }

    /// The status of its one path as soon as it `is` so.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&PathStatus) -> bool) -> PathStatus {
        until(what, PATIENCE, async || Some(self.path()).filter(&is)).await
    }
}

/// A link that loses and delays.
pub(crate) fn lossy(loss_ratio: f64, delay: Duration) -> Impairment {
    Impairment { loss_ratio, delay, ..Impairment::default() }
}
