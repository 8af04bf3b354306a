//! What waits for the thread that writes state and spools, and the health of their disk.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use liveqos_core::model::Entry;
use serde::Serialize;

use super::journal::{Changes, PersistentState};
use super::spool::{Spool, TargetMarks};
use crate::otlp::sampling::Change;

/// Whether state and telemetry are kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The folder, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Whether everything queued would survive a restart now.
    pub kept: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The work that the engine leaves for the thread, and its health.
#[derive(Debug, Default)]
pub(super) struct WriterQueue {
    pub(super) work: Mutex<Work>,
    pub(super) wake: Condvar,
    pub(super) health: Mutex<Health>,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) changes: Changes,
    /// Positions of the spools that belong to the changes.
    pub(super) places: Option<TargetMarks>,
    /// Whether there is work.
    pub(super) woken: bool,
    /// Whether the thread should do it now and end.
    pub(super) stop: bool,
    /// Since when the thread waits for the disk.
    pub(super) busy: Option<Instant>,
    /// The state found in a folder that could not be read at the start.
    pub(super) found: Option<Box<PersistentState>>,
}

impl Work {
    /// Adds changes; returns how many waiting ones were given up because there was no room.
    pub(super) fn add(&mut self, changes: Changes) -> u64 {
        let mut lost = 0;
        if self.changes.weight() + changes.weight() > MAX_ENTRIES {
            lost = (self.changes.entries.len() + self.changes.sampled.len()) as u64;
            // Changes of classes whose beginning is missing are ignored when this is read.
            self.changes = Changes { entries: vec![Entry::Forgotten], sampled: vec![Change::Forgotten] };
            tracing::error!(lost, "the disk accepts no writes; the current classes will not be resumed after a crash");
        }
        self.changes.extend(changes);
        lost
    }
}

impl WriterQueue {
    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Continues from memory; logged once.
    pub(super) fn report_failure<'a>(&self, mut spools: impl Iterator<Item = &'a Arc<Spool>>, why: &str) {
        let mut health = self.health();
        if health.kept {
            let dir = health.dir.as_deref().unwrap_or_default();
            tracing::error!(dir, why, "state and spool are in memory only until the disk works again");
        }
        (health.kept, health.why) = (false, Some(why.to_owned()));
        drop(health);
        spools.by_ref().for_each(|spool| spool.set_memory_only(true));
    }

    /// Returns to the disk.
    pub(super) fn report_recovery<'a>(&self, spools: impl Iterator<Item = &'a Arc<Spool>>) {
        let mut health = self.health();
        tracing::info!(dir = health.dir.as_deref().unwrap_or_default(), "state and spool are on disk again");
        (health.kept, health.why) = (true, None);
        drop(health);
        spools.for_each(|spool| spool.set_memory_only(false));
    }
}

/// Most changes that wait for the disk: those of 500 classes in eight minutes.
pub(super) const MAX_ENTRIES: usize = 50_000;
