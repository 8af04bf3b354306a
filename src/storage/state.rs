//! The running storage: folder, lock, journal and spools, and the one thread that writes them. State and spans are kept
//! together within a second. Where the disk fails, the daemon continues from memory, reports it, and returns to the
//! disk by itself.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use liveqos_core::model::Entry;

use super::disk::Disk;
use super::journal::{Changes, PersistentState};
use super::spool::{Spool, TargetMarks};
use super::writer::{FolderAccess, StateWriter, TargetFolder};
use super::writer_queue::{Health, WriterQueue};
use crate::otlp::sampling::Change;

/// The running storage.
#[derive(Debug)]
pub struct State {
    spools: Vec<(String, Arc<Spool>)>,
    queue: Arc<WriterQueue>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl State {
    /// Starts on these folders and continues with what is found there.
    ///
    /// # Errors
    /// When the folders cannot be read, or the thread cannot be started.
    pub(crate) fn start(
        folders: Vec<TargetFolder>,
        journal: Arc<dyn Disk>,
        access: FolderAccess,
        health: Health,
    ) -> io::Result<(Self, PersistentState)> {
        let (mut writer, found) = StateWriter::assemble(folders, journal, access, health)?;
        let (spools, queue) = (writer.spools(), Arc::clone(&writer.queue));
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || writer.run())?;
        Ok((Self { spools, queue, thread: Mutex::new(Some(thread)) }, found))
    }

    /// The queue on disk of a target.
    #[must_use]
    pub fn export_queue(&self, target: &str) -> Option<Arc<Spool>> {
        self.spools.iter().find(|(name, _)| name == target).map(|(_, spool)| Arc::clone(spool))
    }

    /// Keeps the changes of a tick together with the records queued before. Never waits for the disk. Returns how many
    /// changes were given up because [`MAX_ENTRIES`](super::writer_queue::MAX_ENTRIES) are waiting: their classes are
    /// not continued after a crash.
    pub fn keep(&self, entries: Vec<Entry>, sampled: Vec<Change>) -> u64 {
        if self.queue.work().busy.is_some_and(|since| since.elapsed() > DISK_TIMEOUT) {
            self.queue.report_failure(self.spools.iter().map(|(_, spool)| spool), "the disk does not respond");
        }
        let changes = Changes { entries, sampled };
        // Under one lock: a folder that becomes readable late shifts the positions.
        let mut work = self.queue.work();
        let (mut places, mut unwritten) = (TargetMarks::new(), false);
        for (name, spool) in &self.spools {
            let (marks, more) = spool.seal();
            places.insert(name.clone(), marks);
            unwritten |= more;
        }
        if changes.is_empty() && !unwritten {
            return 0;
        }
        let lost = work.add(changes);
        work.places = Some(places);
        work.woken = true;
        drop(work);
        self.queue.wake.notify_one();
        lost
    }

    /// The state found in a folder that could not be read at the start; returned once, for its owners to continue.
    #[must_use]
    pub fn found(&self) -> Option<Box<PersistentState>> {
        self.queue.work().found.take()
    }

    /// The current health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.queue.health().clone()
    }

    /// Writes what is left and ends the thread; waits at most `within`.
    pub fn stop(&self, within: Duration) {
        self.queue.work().stop = true;
        self.queue.wake.notify_one();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let until = Instant::now() + within;
        while !thread.is_finished() {
            if Instant::now() > until {
                return tracing::error!("the disk does not respond; what is not written is lost");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.join().is_err() {
            tracing::error!("the state thread panicked");
        }
    }

    /// Waits at most `within` until everything passed to [`State::keep`] so far is on disk; returns whether it is.
    #[must_use]
    pub fn settled(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            {
                let work = self.queue.work();
                if !work.woken && work.busy.is_none() && work.changes.is_empty() {
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

/// A disk that needs longer than this counts as failed.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a dropped [`State`] waits for its last write.
const STOP_WITHIN: Duration = Duration::from_secs(1);
