//! The thread that writes state and spans, a group at a time and in order. Decides when a group is kept, and how a
//! folder that could not be used at the start is added later. A sender sees only what is kept, unless the disk has
//! failed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::journal::{Changes, Found, Journal, PersistentState};
use super::spool::recovery::recover;
use super::spool::{Repair, Spool, SpoolWriter, TargetMarks, Wake};
use super::writer_queue::{Health, WriterQueue};
use crate::otlp::Signal;

/// Wakes the thread for records that no tick seals.
#[derive(Debug)]
struct WakeWriter(Arc<WriterQueue>);

impl Wake for WakeWriter {
    fn wake(&self) {
        self.0.work().woken = true;
        self.0.wake.notify_one();
    }
}

/// The folder of a target's spool.
#[derive(Debug)]
pub(crate) struct TargetFolder {
    /// The target's name.
    pub(crate) name: String,
    /// The folder.
    pub(crate) disk: Arc<dyn Disk>,
    /// Most bytes of each signal in it.
    pub(crate) caps: [u64; 3],
}

/// The access to the state folder.
pub(crate) struct FolderAccess {
    /// The lock, held for as long as anything may be written.
    pub(crate) lock: Option<File>,
    /// What must succeed before anything is written.
    pub(crate) repair: Option<Box<dyn FolderRepair>>,
    /// Whether its content can be read.
    pub(crate) readable: bool,
}

/// Prepares a folder for writing once that is possible.
pub(crate) trait FolderRepair: Send {
    /// Creates what is missing, and takes the lock where it is not held.
    ///
    /// # Errors
    /// What still prevents it.
    fn open(&self, lock: &mut Option<File>) -> io::Result<()>;
}

/// The queues of a target and their writer.
pub(crate) struct TargetSpool {
    pub(crate) name: String,
    pub(crate) spool: Arc<Spool>,
    pub(crate) writer: SpoolWriter,
    disk: Arc<dyn Disk>,
}

/// What the thread owns.
pub(crate) struct StateWriter {
    pub(crate) queue: Arc<WriterQueue>,
    pub(crate) targets: Vec<TargetSpool>,
    journal: Journal,
    journal_disk: Arc<dyn Disk>,
    reached: TargetMarks,
    pub(crate) failing: bool,
    cursors_written_at: Option<Instant>,
    access: FolderAccess,
    repairs: VecDeque<(Arc<dyn Disk>, Repair)>,
}

impl StateWriter {
    /// Everything but the thread, continuing with what is found in the folders.
    pub(crate) fn assemble(
        folders: Vec<TargetFolder>,
        journal: Arc<dyn Disk>,
        access: FolderAccess,
        health: Health,
    ) -> io::Result<(Self, PersistentState)> {
        let found = if access.readable { Found::read(&*journal)? } else { Found::default() };
        let lasting = found.state.clone();
        let queue = Arc::new(WriterQueue { health: Mutex::new(health), ..WriterQueue::default() });
        // A target that is not configured now keeps its positions: it may come back.
        let (mut reached, mut targets, mut repairs) = (found.places.clone(), Vec::new(), VecDeque::new());
        for TargetFolder { name, disk, caps } in folders {
            let wake = Box::new(WakeWriter(Arc::clone(&queue)));
            let spool = if access.readable {
                let recovered = recover(&*disk, found.places.get(&name).copied())?;
                repairs.extend(recovered.repairs.into_iter().map(|repair| (Arc::clone(&disk), repair)));
                Spool::new(Arc::clone(&disk), recovered.queues, wake)
            } else {
                Spool::unread(Arc::clone(&disk), wake)
            };
            let spool = Arc::new(spool);
            reached.insert(name.clone(), spool.sealed());
            targets.push(TargetSpool { name, spool, writer: SpoolWriter::new(Arc::clone(&disk), caps), disk });
        }
        let mut writer = Self {
            queue,
            targets,
            journal: Journal::new(Arc::clone(&journal), found),
            journal_disk: journal,
            reached,
            failing: false,
            cursors_written_at: None,
            access,
            repairs,
        };
        writer.begin();
        Ok((writer, lasting))
    }

    pub(crate) fn spools(&self) -> Vec<(String, Arc<Spool>)> {
        self.targets.iter().map(|target| (target.name.clone(), Arc::clone(&target.spool))).collect()
    }

    /// Writes a journal before the first record of a spool: spool records without a journal are cut at the next start.
    fn begin(&mut self) {
        if let Err(error) = self.prepare().and_then(|()| self.journal.keep(&self.reached)) {
            self.fail(&error);
        }
    }

    /// Prepares the folder for writing, once; what is found there late is placed before what was queued since.
    fn prepare(&mut self) -> io::Result<()> {
        let FolderAccess { lock, repair, readable } = &mut self.access;
        if let Some(repair) = repair {
            repair.open(lock)?;
        }
        *repair = None;
        if !std::mem::replace(readable, true)
            && let Err(error) = self.join()
        {
            self.access.readable = false;
            return Err(error);
        }
        // In order: a file that is cut may be removed later.
        while let Some((disk, repair)) = self.repairs.front() {
            repair.make(&**disk)?;
            self.repairs.pop_front();
        }
        Ok(())
    }

    /// Adds the content of a folder that could not be read at the start.
    fn join(&mut self) -> io::Result<()> {
        let found = Found::read(&*self.journal_disk)?;
        let recovered =
            self.targets.iter().map(|target| recover(&*target.disk, found.places.get(&target.name).copied()));
        let recovered = recovered.collect::<io::Result<Vec<_>>>()?;
        for (name, marks) in &found.places {
            self.reached.entry(name.clone()).or_insert(*marks);
        }
        let queue = Arc::clone(&self.queue);
        let mut work = queue.work();
        for (TargetSpool { name, spool, disk, .. }, recovered) in self.targets.iter().zip(recovered) {
            self.repairs.extend(recovered.repairs.into_iter().map(|repair| (Arc::clone(disk), repair)));
            let shift = spool.join(recovered.queues);
            let waiting = work.places.iter_mut().filter_map(|places| places.get_mut(name));
            for marks in waiting.chain(self.reached.get_mut(name)) {
                *marks = std::array::from_fn(|signal| shift[signal].apply(marks[signal]));
            }
        }
        let found = self.journal.continue_after(found);
        tracing::info!(
            classes = found.checkpoint.classes.len(),
            announced = found.checkpoint.announced.len(),
            "the state folder is readable now"
        );
        work.found = Some(Box::new(found));
        Ok(())
    }

    /// Continues from memory after an error of the disk.
    fn fail(&mut self, error: &io::Error) {
        self.failing = true;
        self.journal.close();
        self.queue.report_failure(self.targets.iter().map(|target| &target.spool), &error.to_string());
    }

    pub(crate) fn run(&mut self) {
        loop {
            let (changes, places, stop) = self.wait();
            self.step(changes, places, stop);
            if stop {
                return;
            }
        }
    }

    /// Writes a group, or continues from memory.
    pub(crate) fn step(&mut self, changes: Changes, places: Option<TargetMarks>, last: bool) {
        self.journal.apply(changes);
        self.reached.extend(places.into_iter().flatten());
        let kept = self.prepare().and_then(|()| self.commit(last));
        self.queue.work().busy = None;
        match kept {
            Ok(()) if self.failing || !self.queue.health().kept => {
                self.failing = false;
                self.queue.report_recovery(self.targets.iter().map(|target| &target.spool));
            }
            Ok(()) => {}
            Err(error) => self.fail(&error),
        }
    }

    /// Waits for work and a little longer, so that more is written at once.
    fn wait(&self) -> (Changes, Option<TargetMarks>, bool) {
        let mut work = self.queue.work();
        let mut longest = if self.failing { RETRY_INTERVAL } else { CURSOR_INTERVAL };
        let start = Instant::now();
        while !work.stop && start.elapsed() < longest {
            if work.woken && !self.failing {
                longest = longest.min(start.elapsed() + GROUP_DELAY);
                // From here on it only waits for more work to write with it.
                work.woken = false;
                work.busy = Some(Instant::now());
                let rest = longest.saturating_sub(start.elapsed());
                work = self
                    .queue
                    .wake
                    .wait_timeout_while(work, rest, |work| !work.stop)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                break;
            }
            let rest = longest.saturating_sub(start.elapsed());
            work = self.queue.wake.wait_timeout(work, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        work.woken = false;
        work.busy = Some(Instant::now());
        (std::mem::take(&mut work.changes), work.places.take(), work.stop)
    }

    /// Writes the spools, then the journal with the positions reached, then makes the records visible.
    fn commit(&mut self, last: bool) -> io::Result<()> {
        let (mut until, mut written) = (self.reached.clone(), Vec::new());
        for TargetSpool { name, spool, writer, .. } in &mut self.targets {
            let marks = until.entry(name.clone()).or_default();
            marks[Signal::Metrics.index()] = spool.sealed()[Signal::Metrics.index()];
            written.push(writer.write(spool, marks)?);
        }
        if self.journal.has_pending() || written.iter().flatten().any(Option::is_some) {
            self.journal.keep(&until)?;
        }
        for (target, written) in self.targets.iter().zip(&written) {
            SpoolWriter::publish(&target.spool, written);
        }
        for TargetSpool { spool, writer, .. } in &mut self.targets {
            writer.remove_segments(spool)?;
        }
        if last || self.cursors_written_at.is_none_or(|at| at.elapsed() >= CURSOR_INTERVAL) {
            for TargetSpool { spool, writer, .. } in &mut self.targets {
                writer.write_cursors(spool)?;
            }
            self.cursors_written_at = Some(Instant::now());
        }
        Ok(())
    }
}

/// How long a group waits for more work: short against the second within which a sample is kept, long against a sync.
const GROUP_DELAY: Duration = Duration::from_millis(100);
/// How often the cursors are written: what a collector accepted since is sent twice after a crash.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// How often a failed disk is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
