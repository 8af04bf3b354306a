//! The folder at start. Decides that one daemon has it at a time, by a lock that the kernel takes back when the daemon
//! dies; refuses to start beside another, but not for a folder that cannot be used: then what can be read of it is gone
//! on with, nothing is kept, that is said, and it is tried again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::disk::{Disk, Folder};
use super::journal::Lasting;
use super::settings::StateSettings;
use super::state::{Health, State};
use super::writer::{FolderAccess, FolderRepair, TargetFolder};
use crate::otlp::{ExportQueue, MemoryQueue};

/// Why the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has the folder.
    #[error("{} is {holder}; stop it, or set state.dir to another folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Who has it, in words.
        holder: String,
    },
}

/// What was opened.
#[derive(Debug)]
pub struct Opened {
    /// The keeper; `None` where nothing is kept.
    pub state: Option<Arc<State>>,
    /// What lived when the daemon went down.
    pub found: Lasting,
    /// How it stands at start.
    pub health: Health,
}

impl Opened {
    /// Opens the folder of `settings`, or memory where there is none to use. `targets` are the places that are sent to,
    /// each with the signals that it gets: each has a spool of its own, and all of a signal share its bound.
    ///
    /// # Errors
    /// [`OpenError`] where another daemon uses it.
    pub fn open(settings: &StateSettings, targets: &[(String, [bool; 3])]) -> Result<Self, OpenError> {
        let Some(dir) = settings.folder() else {
            tracing::warn!(
                "state.dir is empty or not there; a restart loses the open minute of each class and what waits"
            );
            return Ok(Self::memory(None, "no folder is configured"));
        };
        let site = Site { dir, targets: targets.iter().map(|(name, _)| name.clone()).collect() };
        let places = || {
            let place = |(name, gets): &(String, [bool; 3])| TargetFolder {
                name: name.clone(),
                disk: Arc::new(Folder::at(&site.spool(name))),
                caps: shares(settings.caps(), *gets, targets),
            };
            targets.iter().map(place).collect::<Vec<_>>()
        };
        let shown = site.dir.display().to_string();
        let mut health = Health { dir: Some(shown.clone()), kept: true, why: None };
        let ground = match site.ground() {
            Ok((ground, why)) => {
                (health.kept, health.why) = (why.is_none(), why);
                ground
            }
            Err(holder) => return Err(OpenError::InUse { dir: site.dir, holder }),
        };
        let journal = || -> Arc<dyn Disk> { Arc::new(Folder::at(&site.journal())) };
        let started = State::start(places(), journal(), ground, health.clone()).or_else(|error| {
            (health.kept, health.why) = (false, Some(error.to_string()));
            State::start(places(), journal(), site.unknown(), health.clone())
        });
        if let Some(why) = &health.why {
            tracing::error!(
                dir = shown,
                why,
                "the state folder cannot be used; nothing outlives the daemon until it can"
            );
        }
        warn_of_others(&site);
        match started {
            Ok((state, found)) => Ok(Self { state: Some(Arc::new(state)), found, health }),
            Err(error) => {
                tracing::error!(dir = shown, %error, "the thread of the state does not start; nothing outlives the daemon");
                Ok(Self::memory(Some(shown), &error.to_string()))
            }
        }
    }

    /// Where telemetry for the target of this name waits.
    ///
    /// # Errors
    /// Where the state was not opened for it.
    pub fn export_queue(&self, target: &str) -> Result<Arc<dyn ExportQueue>, String> {
        match &self.state {
            None => Ok(Arc::<MemoryQueue>::default()),
            Some(state) => match state.export_queue(target) {
                Some(spool) => Ok(spool),
                None => Err("the state folder was not opened for it".to_owned()),
            },
        }
    }

    /// How it stands, to be asked at any time.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { state: self.state.as_ref().map(Arc::downgrade), health: self.health.clone() }
    }

    fn memory(dir: Option<String>, why: &str) -> Self {
        let health = Health { dir, kept: false, why: Some(why.to_owned()) };
        Self { state: None, found: Lasting::default(), health }
    }
}

/// How it stands with the state, for readers.
#[derive(Clone, Debug)]
pub struct Watch {
    state: Option<Weak<State>>,
    health: Health,
}

impl Watch {
    /// How it stands now.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.state.as_ref().and_then(Weak::upgrade);
        state.map_or_else(|| self.health.clone(), |state| state.health())
    }
}

/// Where the folder is and what belongs into it.
#[derive(Clone, Debug)]
struct Site {
    dir: PathBuf,
    /// Names of the targets.
    targets: Vec<String>,
}

impl Site {
    fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    fn spool(&self, target: &str) -> PathBuf {
        self.dir.join("spool").join(target)
    }

    /// How it stands with the folder, and what is wrong with it; who has it, where that is somebody else.
    fn ground(&self) -> Result<(FolderAccess, Option<String>), String> {
        let mut lock = None;
        let Err(error) = self.open(&mut lock) else {
            return Ok((FolderAccess { lock, opener: None, readable: true }, None));
        };
        // What cannot be written may still be read, or be somebody else's.
        let held = match error.kind() {
            HELD => Err(error.to_string()),
            _ => match File::open(self.dir.join(LOCK)).and_then(self::lock) {
                Err(held) if held.kind() == HELD => Err(held.to_string()),
                lock => Ok(lock.ok()),
            },
        };
        let ground =
            held.map(|lock| FolderAccess { readable: lock.is_some(), lock, opener: Some(Box::new(self.clone())) });
        Ok((ground?, Some(error.to_string())))
    }

    /// Nothing of it is known.
    fn unknown(&self) -> FolderAccess {
        FolderAccess { lock: None, opener: Some(Box::new(self.clone())), readable: false }
    }
}

impl FolderRepair for Site {
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
        // A full disk takes no process id; the lock holds without it.
        write(&mut file).unwrap_or_default();
        *held = Some(file);
        Ok(())
    }
}

/// What of the bounds falls to a target that gets these signals: as much as to any other.
fn shares(caps: [u64; 3], gets: [bool; 3], targets: &[(String, [bool; 3])]) -> [u64; 3] {
    std::array::from_fn(|signal| {
        let sharing = targets.iter().filter(|(_, gets)| gets[signal]).count() as u64;
        if gets[signal] { caps[signal] / sharing.max(1) } else { 0 }
    })
}

/// What waits for a target that nothing is sent to any more takes room that nobody bounds.
fn warn_of_others(site: &Site) {
    for entry in std::fs::read_dir(site.dir.join("spool")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if entry.path().is_dir() && site.targets.iter().all(|target| **target != *name) {
            let dir = entry.path().display().to_string();
            tracing::warn!(
                dir,
                "what waits here is for a target that is not configured; remove the folder if it stays so"
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
            // Only for the message.
            file.read_to_string(&mut holder).unwrap_or_default();
            Err(io::Error::new(HELD, format!("in use by another liveqos (process {})", holder.trim())))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file that is locked.
const LOCK: &str = "lock";
/// How a lock says that another has it.
const HELD: io::ErrorKind = io::ErrorKind::WouldBlock;
