//! What outlives the daemon, wired: the folder, its lock, journal and spool, and the one thread that writes both.
//! Decides that state and spans are kept together, within a second, and what happens when the disk does not take them:
//! the daemon goes on from memory, says so, and comes back to the disk by itself. Refuses a folder that another daemon
//! uses.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use liveqos_core::model::Entry;
use serde::Serialize;

use super::disk::Disk;
use super::journal::{Changes, Lasting};
use super::spool::{Places, Spool};
use super::writer::{FolderAccess, StateWriter, TargetFolder};
use crate::otlp::sampling::Change;

/// How it stands with what must outlive the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The folder, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Whether what waits would outlive the daemon now.
    pub kept: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The running keeper of state and spool.
#[derive(Debug)]
pub struct State {
    spools: Vec<(String, Arc<Spool>)>,
    desk: Arc<WriterQueue>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Where the engine leaves work for the thread.
#[derive(Debug, Default)]
pub(super) struct WriterQueue {
    pub(super) work: Mutex<Work>,
    pub(super) came: Condvar,
    pub(super) health: Mutex<Health>,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) changes: Changes,
    /// Places that the changes go with.
    pub(super) places: Option<Places>,
    /// Whether something is to be done.
    pub(super) stirred: bool,
    /// Whether it is to be done now, and then no more.
    pub(super) stop: bool,
    /// Since when the disk is at work.
    pub(super) busy: Option<Instant>,
    /// What was found in a folder that could not be read at the start.
    pub(super) found: Option<Box<Lasting>>,
}

impl Work {
    /// Adds changes; gives how many that waited were given up for want of room.
    pub(super) fn add(&mut self, changes: Changes) -> u64 {
        let mut lost = 0;
        if self.changes.weight() + changes.weight() > MAX_ENTRIES {
            lost = (self.changes.entries.len() + self.changes.sampled.len()) as u64;
            // Later changes of classes whose beginning is not known are left out where this is read.
            self.changes = Changes { entries: vec![Entry::Forgotten], sampled: vec![Change::Forgotten] };
            tracing::error!(lost, "the disk takes nothing: classes that live now are not gone on with after a crash");
        }
        self.changes.extend(changes);
        lost
    }
}

impl State {
    /// Begins to keep in these folders, going on with what is found there.
    ///
    /// # Errors
    /// When the folders cannot be read, or the thread not be started.
    pub(crate) fn start(
        folders: Vec<TargetFolder>,
        journal: Arc<dyn Disk>,
        ground: FolderAccess,
        health: Health,
    ) -> io::Result<(Self, Lasting)> {
        let (mut scribe, found) = StateWriter::assemble(folders, journal, ground, health)?;
        let (spools, desk) = (scribe.spools(), Arc::clone(&scribe.desk));
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || scribe.run())?;
        Ok((Self { spools, desk, thread: Mutex::new(Some(thread)) }, found))
    }

    /// The outbox on disk of the target of this name.
    #[must_use]
    pub fn export_queue(&self, target: &str) -> Option<Arc<Spool>> {
        self.spools.iter().find(|(name, _)| name == target).map(|(_, spool)| Arc::clone(spool))
    }

    /// Takes what a tick must leave behind, together with what it appended to the outbox before. Never waits for the
    /// disk. Gives how many changes were given up because [`MAX_ENTRIES`] wait: the classes of then are not gone on
    /// with after a crash.
    pub fn keep(&self, entries: Vec<Entry>, sampled: Vec<Change>) -> u64 {
        if self.desk.work().busy.is_some_and(|since| since.elapsed() > HANGS) {
            self.desk.trouble(self.spools.iter().map(|(_, spool)| spool), "the disk does not answer");
        }
        let changes = Changes { entries, sampled };
        // Places are taken and left as one: a folder that is found late moves them.
        let mut work = self.desk.work();
        let (mut places, mut wants) = (Places::new(), false);
        for (name, spool) in &self.spools {
            let (marks, more) = spool.seal();
            places.insert(name.clone(), marks);
            wants |= more;
        }
        if changes.is_empty() && !wants {
            return 0;
        }
        let lost = work.add(changes);
        work.places = Some(places);
        work.stirred = true;
        drop(work);
        self.desk.came.notify_one();
        lost
    }

    /// What was found in a folder that could not be read at the start, once: whoever told changes goes on with it.
    #[must_use]
    pub fn found(&self) -> Option<Box<Lasting>> {
        self.desk.work().found.take()
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> Health {
        self.desk.health().clone()
    }

    /// Keeps what is left and ends the thread; waits at most `within`.
    pub fn stop(&self, within: Duration) {
        self.desk.work().stop = true;
        self.desk.came.notify_one();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let until = Instant::now() + within;
        while !thread.is_finished() {
            if Instant::now() > until {
                return tracing::error!("the disk does not answer; what it has not taken is lost");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.join().is_err() {
            tracing::error!("the thread that writes the state ended badly");
        }
    }

    /// Waits until all that was kept so far is on disk, at most `within`. Gives whether it is.
    #[must_use]
    pub fn settled(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            {
                let work = self.desk.work();
                if !work.stirred && work.busy.is_none() && work.changes.is_empty() {
                    return self.health().kept;
                }
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop(STOP_WITHIN);
    }
}

impl WriterQueue {
    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from memory; said once.
    pub(super) fn trouble<'a>(&self, mut spools: impl Iterator<Item = &'a Arc<Spool>>, why: &str) {
        let mut health = self.health();
        if health.kept {
            let dir = health.dir.as_deref().unwrap_or_default();
            tracing::error!(dir, why, "state and spool are in memory only until the disk takes them again");
        }
        (health.kept, health.why) = (false, Some(why.to_owned()));
        drop(health);
        spools.by_ref().for_each(|spool| spool.float(true));
    }

    pub(super) fn over<'a>(&self, spools: impl Iterator<Item = &'a Arc<Spool>>) {
        let mut health = self.health();
        tracing::info!(dir = health.dir.as_deref().unwrap_or_default(), "state and spool are on disk again");
        (health.kept, health.why) = (true, None);
        drop(health);
        spools.for_each(|spool| spool.float(false));
    }
}

/// Most changes that wait for the disk: eight minutes of 500 classes.
pub(super) const MAX_ENTRIES: usize = 50_000;

/// A disk that takes longer than this is in trouble.
const HANGS: Duration = Duration::from_secs(5);
/// How long the last write may take when nobody says otherwise.
const STOP_WITHIN: Duration = Duration::from_secs(1);
