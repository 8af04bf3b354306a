//! The thread that writes: state and spans, a group at a time, in one order. Decides when a group is kept, and how a
//! folder that could not be used at the start is taken up later; refuses to let a sender see what is not kept, unless
//! the disk is in trouble.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::journal::{Changes, Found, Journal, Lasting};
use super::spool::recovery::recover;
use super::spool::{Places, Repair, Spool, SpoolWriter, Wake};
use super::state::{Health, WriterQueue};
use crate::otlp::Signal;

/// Wakes the thread for what nobody seals.
#[derive(Debug)]
struct WakeWriter(Arc<WriterQueue>);

impl Wake for WakeWriter {
    fn wake(&self) {
        self.0.work().stirred = true;
        self.0.came.notify_one();
    }
}

/// Where what waits for a target is kept.
#[derive(Debug)]
pub(crate) struct TargetFolder {
    /// The target.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) disk: Arc<dyn Disk>,
    /// Most bytes of each signal in it.
    pub(crate) caps: [u64; 3],
}

/// How it stands with the folder at the start.
pub(crate) struct FolderAccess {
    /// Held as long as anything may be written.
    pub(crate) lock: Option<File>,
    /// What must be done before anything is written.
    pub(crate) opener: Option<Box<dyn FolderRepair>>,
    /// Whether what is there can be read.
    pub(crate) readable: bool,
}

/// Makes a folder ready to be written once it can be.
pub(crate) trait FolderRepair: Send {
    /// Makes what is missing there, and takes the lock where it is not held.
    ///
    /// # Errors
    /// What is still in the way.
    fn open(&self, lock: &mut Option<File>) -> io::Result<()>;
}

/// One target's queues and who writes them.
pub(crate) struct TargetSpool {
    pub(crate) name: String,
    pub(crate) spool: Arc<Spool>,
    pub(crate) keeper: SpoolWriter,
    disk: Arc<dyn Disk>,
}

/// The thread's own.
pub(crate) struct StateWriter {
    pub(crate) desk: Arc<WriterQueue>,
    pub(crate) shelves: Vec<TargetSpool>,
    journal: Journal,
    journal_disk: Arc<dyn Disk>,
    reached: Places,
    pub(crate) trouble: bool,
    cursors_kept: Option<Instant>,
    ground: FolderAccess,
    repairs: VecDeque<(Arc<dyn Disk>, Repair)>,
}

impl StateWriter {
    /// Everything but the thread, going on with what is found in the folders.
    pub(crate) fn assemble(
        folders: Vec<TargetFolder>,
        journal: Arc<dyn Disk>,
        ground: FolderAccess,
        health: Health,
    ) -> io::Result<(Self, Lasting)> {
        let found = if ground.readable { Found::read(&*journal)? } else { Found::default() };
        let lasting = found.state.clone();
        let desk = Arc::new(WriterQueue { health: Mutex::new(health), ..WriterQueue::default() });
        // A target that nothing is sent to now keeps its place: it may come back.
        let (mut reached, mut shelves, mut repairs) = (found.places.clone(), Vec::new(), VecDeque::new());
        for TargetFolder { name, disk, caps } in folders {
            let wake = Box::new(WakeWriter(Arc::clone(&desk)));
            let spool = if ground.readable {
                let recovered = recover(&*disk, found.places.get(&name).copied())?;
                repairs.extend(recovered.repairs.into_iter().map(|repair| (Arc::clone(&disk), repair)));
                Spool::new(Arc::clone(&disk), recovered.queues, wake)
            } else {
                Spool::unread(Arc::clone(&disk), wake)
            };
            let spool = Arc::new(spool);
            reached.insert(name.clone(), spool.sealed());
            shelves.push(TargetSpool { name, spool, keeper: SpoolWriter::new(Arc::clone(&disk), caps), disk });
        }
        let mut scribe = Self {
            desk,
            shelves,
            journal: Journal::new(Arc::clone(&journal), found),
            journal_disk: journal,
            reached,
            trouble: false,
            cursors_kept: None,
            ground,
            repairs,
        };
        scribe.begin();
        Ok((scribe, lasting))
    }

    pub(crate) fn spools(&self) -> Vec<(String, Arc<Spool>)> {
        self.shelves.iter().map(|shelf| (shelf.name.clone(), Arc::clone(&shelf.spool))).collect()
    }

    /// A journal stands before the first record of the spool: what the spool holds without one was told of by nobody.
    fn begin(&mut self) {
        if let Err(error) = self.enter().and_then(|()| self.journal.keep(&self.reached)) {
            self.stumble(&error);
        }
    }

    /// Makes the folder ready to be written, once for all; what is found there late goes before what came since.
    fn enter(&mut self) -> io::Result<()> {
        let FolderAccess { lock, opener, readable } = &mut self.ground;
        if let Some(opener) = opener {
            opener.open(lock)?;
        }
        *opener = None;
        if !std::mem::replace(readable, true)
            && let Err(error) = self.join()
        {
            self.ground.readable = false;
            return Err(error);
        }
        // In their order: what is cut may be removed after.
        while let Some((disk, repair)) = self.repairs.front() {
            repair.make(&**disk)?;
            self.repairs.pop_front();
        }
        Ok(())
    }

    /// Takes over what is in a folder that could not be read at the start.
    fn join(&mut self) -> io::Result<()> {
        let found = Found::read(&*self.journal_disk)?;
        let recovered = self.shelves.iter().map(|shelf| recover(&*shelf.disk, found.places.get(&shelf.name).copied()));
        let recovered = recovered.collect::<io::Result<Vec<_>>>()?;
        for (name, marks) in &found.places {
            self.reached.entry(name.clone()).or_insert(*marks);
        }
        let desk = Arc::clone(&self.desk);
        let mut work = desk.work();
        for (TargetSpool { name, spool, disk, .. }, recovered) in self.shelves.iter().zip(recovered) {
            self.repairs.extend(recovered.repairs.into_iter().map(|repair| (Arc::clone(disk), repair)));
            let moves = spool.join(recovered.queues);
            let waiting = work.places.iter_mut().filter_map(|places| places.get_mut(name));
            for marks in waiting.chain(self.reached.get_mut(name)) {
                *marks = std::array::from_fn(|signal| moves[signal].moved(marks[signal]));
            }
        }
        let found = self.journal.follow(found);
        tracing::info!(
            classes = found.checkpoint.classes.len(),
            announced = found.checkpoint.announced.len(),
            "the state folder can be read now"
        );
        work.found = Some(Box::new(found));
        Ok(())
    }

    fn stumble(&mut self, error: &io::Error) {
        self.trouble = true;
        self.journal.close();
        self.desk.trouble(self.shelves.iter().map(|shelf| &shelf.spool), &error.to_string());
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

    /// Keeps a group, or goes on from memory.
    pub(crate) fn step(&mut self, changes: Changes, places: Option<Places>, last: bool) {
        self.journal.note(changes);
        self.reached.extend(places.into_iter().flatten());
        let kept = self.enter().and_then(|()| self.commit(last));
        self.desk.work().busy = None;
        match kept {
            Ok(()) if self.trouble || !self.desk.health().kept => {
                self.trouble = false;
                self.desk.over(self.shelves.iter().map(|shelf| &shelf.spool));
            }
            Ok(()) => {}
            Err(error) => self.stumble(&error),
        }
    }

    /// Waits for work and a moment longer, so that what belongs together is written together.
    fn wait(&self) -> (Changes, Option<Places>, bool) {
        let mut work = self.desk.work();
        let mut longest = if self.trouble { RETRY } else { CURSORS_EVERY };
        let began = Instant::now();
        while !work.stop && began.elapsed() < longest {
            if work.stirred && !self.trouble {
                longest = longest.min(began.elapsed() + GROUP);
                // From here on it only waits for companions.
                work.stirred = false;
                work.busy = Some(Instant::now());
                let rest = longest.saturating_sub(began.elapsed());
                work = self
                    .desk
                    .came
                    .wait_timeout_while(work, rest, |work| !work.stop)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                break;
            }
            let rest = longest.saturating_sub(began.elapsed());
            work = self.desk.came.wait_timeout(work, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        work.stirred = false;
        work.busy = Some(Instant::now());
        (std::mem::take(&mut work.changes), work.places.take(), work.stop)
    }

    /// Spool first, then the journal with the places reached, then both count.
    fn commit(&mut self, last: bool) -> io::Result<()> {
        let (mut until, mut written) = (self.reached.clone(), Vec::new());
        for TargetSpool { name, spool, keeper, .. } in &mut self.shelves {
            let marks = until.entry(name.clone()).or_default();
            marks[Signal::Metrics.index()] = spool.sealed()[Signal::Metrics.index()];
            written.push(keeper.write(spool, marks)?);
        }
        if self.journal.wants() || written.iter().flatten().any(Option::is_some) {
            self.journal.keep(&until)?;
        }
        for (shelf, written) in self.shelves.iter().zip(&written) {
            SpoolWriter::publish(&shelf.spool, written);
        }
        for TargetSpool { spool, keeper, .. } in &mut self.shelves {
            keeper.tidy(spool)?;
        }
        if last || self.cursors_kept.is_none_or(|at| at.elapsed() >= CURSORS_EVERY) {
            for TargetSpool { spool, keeper, .. } in &mut self.shelves {
                keeper.keep_cursors(spool)?;
            }
            self.cursors_kept = Some(Instant::now());
        }
        Ok(())
    }
}

/// So long a group waits for companions: short beside the second within which a sample is kept, long beside a sync.
const GROUP: Duration = Duration::from_millis(100);
/// How often it is kept how far the collector took things: what it took since is sent twice after a crash.
const CURSORS_EVERY: Duration = Duration::from_secs(1);
/// How often a disk in trouble is tried again.
const RETRY: Duration = Duration::from_secs(5);
