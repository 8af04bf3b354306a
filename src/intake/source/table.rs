//! The status of all sources, for the API, the metrics and the alert rules.

use std::sync::Arc;

use liveqos_core::model::Timestamp;

use super::checked::Source;
use super::entry::SourceEntry;
use super::status::SourceStatus;

/// The entries of all sources, access logs and peers.
#[derive(Clone, Debug)]
pub struct SourceTable {
    entries: Vec<Arc<SourceEntry>>,
}

impl SourceTable {
    /// A table of `sources`. After a reload, sources that `before` has with the same name, kind and URL keep their
    /// record, so that their counters do not start again.
    #[must_use]
    pub fn new(sources: &[Arc<Source>], before: Option<&Self>) -> Self {
        let entry = |source: &Arc<Source>| {
            let old = before.and_then(|before| before.entry(&source.name)).filter(|old| old.is_of(source));
            old.unwrap_or_else(|| Arc::new(SourceEntry::new(source)))
        };
        Self { entries: sources.iter().map(entry).collect() }
    }

    /// Adds an access log.
    #[must_use]
    pub fn with_log(mut self, name: &str, (kind, url): (&'static str, String)) -> Self {
        self.entries.push(Arc::new(SourceEntry::of_input(name.into(), kind, url)));
        self
    }

    /// Adds a peer node: its name, and the host and port at which it answers.
    #[must_use]
    pub fn with_peer(mut self, name: &str, address: &str) -> Self {
        self.entries.push(Arc::new(SourceEntry::of_input(name.into(), PEER, address.to_owned())));
        self
    }

    /// Adds the access logs and peers of `before`, which a reload does not change.
    #[must_use]
    pub fn with_inputs_of(mut self, before: &Self) -> Self {
        self.entries.extend(before.entries.iter().filter(|entry| !entry.is_configured_source()).cloned());
        self
    }

    /// The status of every source at `now`, in the order of the configuration.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Vec<SourceStatus> {
        self.entries.iter().map(|entry| entry.status(now)).collect()
    }

    /// The entry of the source with this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<SourceEntry>> {
        self.entries.iter().find(|entry| &**entry.name() == name).cloned()
    }
}

/// Kind of a peer node that is pinged over QUIC.
const PEER: &str = "quic-path";
