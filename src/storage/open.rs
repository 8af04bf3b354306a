//! Opens the state folder at the start and locks it for one daemon; the kernel releases the lock when the daemon dies.
//! A folder that cannot be used does not stop the start: what can be read of it is continued, nothing is kept, and the
//! folder is tried again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::disk::{Disk, Folder};
use super::journal::PersistentState;
use super::settings::StateSettings;
use super::state::State;
use super::writer::{FolderAccess, FolderRepair, TargetFolder};
use super::writer_queue::Health;
use crate::otlp::{ExportQueue, MemoryQueue};

/// Why the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon uses the folder.
    #[error("{} is {holder}; stop it, or set state.dir to another folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who uses it, as text.
        holder: String,
    },
}

/// The opened storage.
#[derive(Debug)]
pub struct Opened {
    /// The running storage; `None` where nothing is kept.
    pub state: Option<Arc<State>>,
    /// The state when the daemon ended.
    pub found: PersistentState,
    /// The health at the start.
    pub health: Health,
}

impl Opened {
    /// Opens the folder of `settings`, or memory where there is none. `targets` are the names of OTLP targets, each
    /// with the signals sent to it: each has a spool of its own, and the targets of a signal share its bound.
    ///
    /// # Errors
    /// [`OpenError`] where another daemon uses the folder.
    pub fn open(settings: &StateSettings, targets: &[(String, [bool; 3])]) -> Result<Self, OpenError> {
        let Some(dir) = settings.folder() else {
            tracing::warn!(
                "state.dir is empty or does not exist; a restart loses the open minute of each class and queued telemetry"
            );
            return Ok(Self::memory(None, "no folder is configured"));
        };
        let folder = StateFolder { dir, targets: targets.iter().map(|(name, _)| name.clone()).collect() };
        let places = || {
            let place = |(name, gets): &(String, [bool; 3])| TargetFolder {
                name: name.clone(),
                disk: Arc::new(Folder::at(&folder.spool(name))),
                caps: divide_bounds(settings.caps(), *gets, targets),
            };
            targets.iter().map(place).collect::<Vec<_>>()
        };
        let shown = folder.dir.display().to_string();
        let mut health = Health { dir: Some(shown.clone()), kept: true, why: None };
        let access = match folder.access() {
            Ok((access, why)) => {
                (health.kept, health.why) = (why.is_none(), why);
                access
            }
            Err(holder) => return Err(OpenError::InUse { dir: folder.dir, holder }),
        };
        let journal = || -> Arc<dyn Disk> { Arc::new(Folder::at(&folder.journal())) };
        let started = State::start(places(), journal(), access, health.clone()).or_else(|error| {
            (health.kept, health.why) = (false, Some(error.to_string()));
            State::start(places(), journal(), folder.unreadable(), health.clone())
        });
        if let Some(why) = &health.why {
            tracing::error!(
                dir = shown,
                why,
                "the state folder cannot be used; nothing is kept over a restart until it can"
            );
        }
        warn_of_unused_spools(&folder);
        match started {
            Ok((state, found)) => Ok(Self { state: Some(Arc::new(state)), found, health }),
            Err(error) => {
                tracing::error!(dir = shown, %error, "the state thread does not start; nothing is kept over a restart");
                Ok(Self::memory(Some(shown), &error.to_string()))
            }
        }
    }

    /// The export queue of a target.
    ///
    /// # Errors
    /// When the storage was not opened for it.
    pub fn export_queue(&self, target: &str) -> Result<Arc<dyn ExportQueue>, String> {
        match &self.state {
            None => Ok(Arc::<MemoryQueue>::default()),
            Some(state) => match state.export_queue(target) {
                Some(spool) => Ok(spool),
                None => Err("the state folder was not opened for this target".to_owned()),
            },
        }
    }

    /// A handle to read the health at any time.
    #[must_use]
    pub fn health_reader(&self) -> HealthReader {
        HealthReader { state: self.state.as_ref().map(Arc::downgrade), health: self.health.clone() }
    }

    fn memory(dir: Option<String>, why: &str) -> Self {
        let health = Health { dir, kept: false, why: Some(why.to_owned()) };
        Self { state: None, found: PersistentState::default(), health }
    }
}

/// Reads the health of the storage, also after it has ended.
#[derive(Clone, Debug)]
pub struct HealthReader {
    state: Option<Weak<State>>,
    health: Health,
}

impl HealthReader {
    /// The current health.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.state.as_ref().and_then(Weak::upgrade);
        state.map_or_else(|| self.health.clone(), |state| state.health())
    }
}

/// The state folder and the sub-folders that it needs.
#[derive(Clone, Debug)]
struct StateFolder {
    dir: PathBuf,
    /// The names of the targets.
    targets: Vec<String>,
}

impl StateFolder {
    fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    fn spool(&self, target: &str) -> PathBuf {
        self.dir.join("spool").join(target)
    }

    /// The access to the folder, and what is wrong with it.
    ///
    /// # Errors
    /// Who uses it, where that is another daemon.
    fn access(&self) -> Result<(FolderAccess, Option<String>), String> {
        let mut lock = None;
        let Err(error) = self.open(&mut lock) else {
            return Ok((FolderAccess { lock, repair: None, readable: true }, None));
        };
        // A folder that cannot be written may still be readable, or in use by another daemon.
        let held = match error.kind() {
            HELD => Err(error.to_string()),
            _ => match File::open(self.dir.join(LOCK)).and_then(self::lock) {
                Err(held) if held.kind() == HELD => Err(held.to_string()),
                lock => Ok(lock.ok()),
            },
        };
        let access =
            held.map(|lock| FolderAccess { readable: lock.is_some(), lock, repair: Some(Box::new(self.clone())) });
        Ok((access?, Some(error.to_string())))
    }

    /// The access to a folder of which nothing can be read.
    fn unreadable(&self) -> FolderAccess {
        FolderAccess { lock: None, repair: Some(Box::new(self.clone())), readable: false }
    }
}

impl FolderRepair for StateFolder {
    fn open(&self, held: &mut Option<File>) -> io::Result<()> {
        Folder::open(&self.journal())?;
        self.targets.iter().try_for_each(|target| Folder::open(&self.spool(target)).map(drop))?;
        if held.is_some() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = lock(options.open(self.dir.join(LOCK))?)?;
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        // Fails on a full disk; the lock holds without the process id.
        write(&mut file).unwrap_or_default();
        *held = Some(file);
        Ok(())
    }
}

/// The bounds of a target that gets these signals: those of all targets of a signal are equal.
fn divide_bounds(caps: [u64; 3], gets: [bool; 3], targets: &[(String, [bool; 3])]) -> [u64; 3] {
    std::array::from_fn(|signal| {
        let sharing = targets.iter().filter(|(_, gets)| gets[signal]).count() as u64;
        if gets[signal] { caps[signal] / sharing.max(1) } else { 0 }
    })
}

/// Warns of spools of targets that are no longer configured: nothing bounds the space they take.
fn warn_of_unused_spools(folder: &StateFolder) {
    for entry in std::fs::read_dir(folder.dir.join("spool")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if entry.path().is_dir() && folder.targets.iter().all(|target| **target != *name) {
            let dir = entry.path().display().to_string();
            tracing::warn!(
                dir,
                "this spool belongs to a target that is not configured; remove the folder if that is permanent"
            );
        }
    }
}

/// Locks the file; [`HELD`] where another daemon has it.
fn lock(mut file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; empty where it cannot be read.
            file.read_to_string(&mut holder).unwrap_or_default();
            Err(io::Error::new(HELD, format!("in use by another liveqos (process {})", holder.trim())))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The name of the lock file.
const LOCK: &str = "lock";
/// The error kind of a lock that another daemon holds.
const HELD: io::ErrorKind = io::ErrorKind::WouldBlock;
