//! What outlives the daemon, wired: the folder, its lock, journal and spool, and the one thread that writes both. Decides that state and
//! spans are kept together, within a second, and what happens when the disk does not take them: the daemon goes on from memory, says so,
//! and comes back to the disk by itself. Refuses a folder that another daemon uses.

mod open;
pub mod settings;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use liveqos_core::checkpoint::{Checkpoint, Entry};
use serde::Serialize;

pub use self::open::{OpenError, Opened, Watch};
use crate::disk::Disk;
use crate::journal::{Found, Journal};
use crate::otlp::record::Signal;
use crate::spool::{Keeper, Places, Spool, Wake, recover};

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
    desk: Arc<Desk>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Where the heart leaves work for the thread.
#[derive(Debug, Default)]
struct Desk {
    work: Mutex<Work>,
    came: Condvar,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Work {
    entries: Vec<Entry>,
    /// Places that the entries go with.
    places: Option<Places>,
    /// Whether something is to be done.
    stirred: bool,
    /// Whether it is to be done now, and then no more.
    stop: bool,
    /// Since when the disk is at work.
    busy: Option<Instant>,
}

impl Work {
    /// Adds changes; gives how many that waited were given up for want of room.
    fn add(&mut self, entries: Vec<Entry>) -> u64 {
        let mut lost = 0;
        if self.entries.len() + entries.len() > MAX_ENTRIES {
            lost = self.entries.len() as u64;
            // Later changes of classes whose beginning is not known are left out where this is read.
            self.entries = vec![Entry::Forgotten];
            tracing::error!(lost, "the disk takes nothing: classes that live now are not gone on with after a crash");
        }
        self.entries.extend(entries);
        lost
    }
}

impl State {
    /// Begins to keep in these folders, going on with what is found there.
    ///
    /// # Errors
    /// When the folders cannot be read, or the thread not be started.
    pub fn start(folders: Vec<Place>, journal: Arc<dyn Disk>, health: Health) -> io::Result<(Self, Checkpoint)> {
        let (mut scribe, checkpoint) = Scribe::assemble(folders, journal, health)?;
        let (spools, desk) = (scribe.spools(), Arc::clone(&scribe.desk));
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || scribe.run())?;
        Ok((Self { spools, desk, thread: Mutex::new(Some(thread)) }, checkpoint))
    }

    /// The outbox on disk of the target of this name.
    #[must_use]
    pub fn outbox(&self, target: &str) -> Option<Arc<Spool>> {
        self.spools.iter().find(|(name, _)| name == target).map(|(_, spool)| Arc::clone(spool))
    }

    /// Takes what a beat must leave behind, together with what it appended to the outbox before. Never waits for the disk. Gives how many
    /// changes were given up because [`MAX_ENTRIES`] wait: the classes of then are not gone on with after a crash.
    pub fn keep(&self, entries: Vec<Entry>) -> u64 {
        let (mut places, mut wants) = (Places::new(), false);
        for (name, spool) in &self.spools {
            let (marks, more) = spool.seal();
            places.insert(name.clone(), marks);
            wants |= more;
        }
        let mut work = self.desk.work();
        if work.busy.is_some_and(|since| since.elapsed() > HANGS) {
            drop(work);
            self.desk.trouble(self.spools.iter().map(|(_, spool)| spool), "the disk does not answer");
            work = self.desk.work();
        }
        if entries.is_empty() && !wants {
            return 0;
        }
        let lost = work.add(entries);
        work.places = Some(places);
        work.stirred = true;
        drop(work);
        self.desk.came.notify_one();
        lost
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
                if !work.stirred && work.busy.is_none() && work.entries.is_empty() {
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

impl Desk {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from memory; said once.
    fn trouble<'a>(&self, mut spools: impl Iterator<Item = &'a Arc<Spool>>, why: &str) {
        let mut health = self.health();
        if health.kept {
            let dir = health.dir.as_deref().unwrap_or_default();
            tracing::error!(dir, why, "state and spool are in memory only until the disk takes them again");
        }
        (health.kept, health.why) = (false, Some(why.to_owned()));
        drop(health);
        spools.by_ref().for_each(|spool| spool.float(true));
    }

    fn over<'a>(&self, spools: impl Iterator<Item = &'a Arc<Spool>>) {
        let mut health = self.health();
        tracing::info!(dir = health.dir.as_deref().unwrap_or_default(), "state and spool are on disk again");
        (health.kept, health.why) = (true, None);
        drop(health);
        spools.for_each(|spool| spool.float(false));
    }
}

/// Wakes the thread for what nobody seals.
#[derive(Debug)]
struct Stir(Arc<Desk>);

impl Wake for Stir {
    fn wake(&self) {
        self.0.work().stirred = true;
        self.0.came.notify_one();
    }
}

/// Where what waits for a target is kept.
#[derive(Debug)]
pub struct Place {
    /// The target.
    pub name: String,
    /// Its folder.
    pub disk: Arc<dyn Disk>,
    /// Most bytes of each signal in it.
    pub caps: [u64; 3],
}

/// One target's queues and who writes them.
struct Shelf {
    name: String,
    spool: Arc<Spool>,
    keeper: Keeper,
}

/// The thread's own.
struct Scribe {
    desk: Arc<Desk>,
    shelves: Vec<Shelf>,
    journal: Journal,
    reached: Places,
    trouble: bool,
    cursors_kept: Option<Instant>,
}

impl Scribe {
    /// Everything but the thread, going on with what is found in the folders.
    fn assemble(folders: Vec<Place>, journal: Arc<dyn Disk>, health: Health) -> io::Result<(Self, Checkpoint)> {
        let found = Found::read(&*journal)?;
        let checkpoint = found.state.clone();
        let desk = Arc::new(Desk { health: Mutex::new(health), ..Desk::default() });
        // A target that nothing is sent to now keeps its place: it may come back.
        let (mut reached, mut shelves) = (found.places.clone(), Vec::new());
        for Place { name, disk, caps } in folders {
            let queues = recover(&*disk, found.places.get(&name).copied())?;
            let keeper = Keeper::new(Arc::clone(&disk), caps);
            let spool = Arc::new(Spool::new(disk, queues, Box::new(Stir(Arc::clone(&desk)))));
            reached.insert(name.clone(), spool.sealed());
            shelves.push(Shelf { name, spool, keeper });
        }
        let journal = Journal::new(journal, found);
        let mut scribe = Self { desk, shelves, journal, reached, trouble: false, cursors_kept: None };
        scribe.begin();
        Ok((scribe, checkpoint))
    }

    fn spools(&self) -> Vec<(String, Arc<Spool>)> {
        self.shelves.iter().map(|shelf| (shelf.name.clone(), Arc::clone(&shelf.spool))).collect()
    }

    /// A journal stands before the first record of the spool: what the spool holds without one was told of by nobody.
    fn begin(&mut self) {
        if let Err(error) = self.journal.keep(&self.reached) {
            self.stumble(&error);
        }
    }

    fn stumble(&mut self, error: &io::Error) {
        self.trouble = true;
        self.journal.close();
        self.desk.trouble(self.shelves.iter().map(|shelf| &shelf.spool), &error.to_string());
    }

    fn run(&mut self) {
        loop {
            let (entries, places, stop) = self.wait();
            self.step(entries, places, stop);
            if stop {
                return;
            }
        }
    }

    /// Keeps a group, or goes on from memory.
    fn step(&mut self, entries: Vec<Entry>, places: Option<Places>, last: bool) {
        self.journal.note(entries);
        self.reached.extend(places.into_iter().flatten());
        let kept = self.commit(last);
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
    fn wait(&self) -> (Vec<Entry>, Option<Places>, bool) {
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
        (std::mem::take(&mut work.entries), work.places.take(), work.stop)
    }

    /// Spool first, then the journal with the places reached, then both count.
    fn commit(&mut self, last: bool) -> io::Result<()> {
        let (mut until, mut written) = (self.reached.clone(), Vec::new());
        for Shelf { name, spool, keeper } in &mut self.shelves {
            let marks = until.entry(name.clone()).or_default();
            marks[Signal::Metrics.index()] = spool.sealed()[Signal::Metrics.index()];
            written.push(keeper.write(spool, marks)?);
        }
        if self.journal.wants() || written.iter().flatten().any(Option::is_some) {
            self.journal.keep(&until)?;
        }
        for (shelf, written) in self.shelves.iter().zip(&written) {
            Keeper::publish(&shelf.spool, written);
        }
        for Shelf { spool, keeper, .. } in &mut self.shelves {
            keeper.tidy(spool)?;
        }
        if last || self.cursors_kept.is_none_or(|at| at.elapsed() >= CURSORS_EVERY) {
            for Shelf { spool, keeper, .. } in &mut self.shelves {
                keeper.keep_cursors(spool)?;
            }
            self.cursors_kept = Some(Instant::now());
        }
        Ok(())
    }
}

/// Most changes that wait for the disk: eight minutes of 500 classes.
pub const MAX_ENTRIES: usize = 50_000;

/// So long a group waits for companions: short beside the second within which a sample is kept, long beside a sync.
const GROUP: Duration = Duration::from_millis(100);
/// How often it is kept how far the collector took things: what it took since is sent twice after a crash.
const CURSORS_EVERY: Duration = Duration::from_secs(1);
/// How often a disk in trouble is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// A disk that takes longer than this is in trouble.
const HANGS: Duration = Duration::from_secs(5);
/// How long the last write may take when nobody says otherwise.
const STOP_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
