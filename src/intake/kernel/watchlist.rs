//! The connections that the kernel intake looks for: the live classes, the clients that their servers list, and the
//! media rate. The engine makes a new list each second; the kernel's thread reads it.

use liveqos_core::model::{Client, Protocol, SourceName, StreamKey, Timestamp};
use liveqos_core::session::Registry;

/// The live classes with their connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionWatchlist {
    /// One entry per stream and source.
    pub entries: Vec<Entry>,
}

/// One stream as one source lists it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The source.
    pub source: SourceName,
    /// The stream.
    pub stream: StreamKey,
    /// The clients in its list.
    pub clients: Vec<Client>,
    /// When the list was read.
    pub listed_at: Timestamp,
    /// Media bytes per second that each viewer should receive.
    pub media_rate: Option<f64>,
}

impl Entry {
    /// The protocol that most of its viewers use.
    #[must_use]
    pub(crate) fn protocol(&self) -> Protocol {
        let viewers = || self.clients.iter().filter(|client| !client.publisher);
        let count = |protocol| viewers().filter(|client| client.protocol == protocol).count();
        viewers().map(|client| client.protocol).max_by_key(|protocol| count(*protocol)).unwrap_or(Protocol::Mixed)
    }
}

impl ConnectionWatchlist {
    /// The watch list at `now`, with the streams whose source lists clients.
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
