//! Whose connections the kernel intake looks for: the live classes, what their servers list and how fast their media
//! flows. Decides nothing; made by the engine each second, read by the kernel's thread.

use liveqos_core::model::{Client, Protocol, SourceName, StreamKey, Timestamp};
use liveqos_core::session::Registry;

/// The live classes with their connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionWatchlist {
    /// One entry a stream and source.
    pub entries: Vec<Entry>,
}

/// One stream as one source lists it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Who lists it.
    pub source: SourceName,
    /// The stream.
    pub stream: StreamKey,
    /// Its connections.
    pub clients: Vec<Client>,
    /// When they were listed.
    pub listed_at: Timestamp,
    /// Media bytes a second that each viewer should get.
    pub media_rate: Option<f64>,
}

impl Entry {
    /// The protocol of its viewers: the one most of them use.
    #[must_use]
    pub(crate) fn protocol(&self) -> Protocol {
        let viewers = || self.clients.iter().filter(|client| !client.publisher);
        let count = |protocol| viewers().filter(|client| client.protocol == protocol).count();
        viewers().map(|client| client.protocol).max_by_key(|protocol| count(*protocol)).unwrap_or(Protocol::Mixed)
    }
}

impl ConnectionWatchlist {
    /// The roster at `now`; only streams that list connections are in it.
    #[must_use]
    pub(crate) fn of(registry: &Registry, now: Timestamp) -> Self {
        let mut entries = Vec::new();
        for live in registry.sessions() {
            let media_rate = live.media_rate(now);
            for (stream, source, server) in live.servers() {
                let clients = server.clients();
                if !clients.is_empty() {
                    let (source, stream, listed_at) = (source.clone(), stream.clone(), server.at());
                    entries.push(Entry { source, stream, clients: clients.to_vec(), listed_at, media_rate });
                }
            }
        }
        Self { entries }
    }
}
