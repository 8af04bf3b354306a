//! The folder at start. Decides that one daemon has it at a time, by a lock that the kernel takes back when the daemon dies; refuses to
//! start beside another, but not for a folder that cannot be used: then nothing is kept, and that is said.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use liveqos_core::checkpoint::Checkpoint;

use super::settings::StateSettings;
use super::{Health, Place, State};
use crate::disk::{Disk, Folder};
use crate::otlp::outbox::{MemoryOutbox, Outbox};

/// Why the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has the folder.
    #[error("{} is in use by another liveqos (process {holder}); stop it, or set state.dir to another folder", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Its process id as it wrote it.
        holder: String,
    },
}

/// What was opened.
#[derive(Debug)]
pub struct Opened {
    /// The keeper; `None` where nothing is kept.
    pub state: Option<Arc<State>>,
    /// What lived when the daemon went down.
    pub checkpoint: Checkpoint,
    /// How it stands at start.
    pub health: Health,
    /// Held as long as the daemon lives.
    pub lock: Option<File>,
}

impl Opened {
    /// Opens the folder of `settings`, or memory where there is none to use. `targets` are the places that are sent to, each with the
    /// signals that it gets: each has a spool of its own, and all of a signal share its bound.
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
        match begin(&dir, settings.caps(), targets) {
            Ok(opened) => Ok(opened),
            Err(Refused::InUse(holder)) => Err(OpenError::InUse { dir, holder }),
            Err(Refused::Io(error)) => {
                let shown = dir.display().to_string();
                tracing::error!(dir = shown, %error, "the state folder cannot be used; until a restart nothing outlives the daemon");
                Ok(Self::memory(Some(shown), &error.to_string()))
            }
        }
    }

    /// Where telemetry for the target of this name waits.
    ///
    /// # Errors
    /// Where the state was not opened for it.
    pub fn outbox(&self, target: &str) -> Result<Arc<dyn Outbox>, String> {
        match &self.state {
            None => Ok(Arc::<MemoryOutbox>::default()),
            Some(state) => match state.outbox(target) {
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
        Self { state: None, checkpoint: Checkpoint::default(), health, lock: None }
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

enum Refused {
    InUse(String),
    Io(io::Error),
}

fn begin(dir: &Path, caps: [u64; 3], targets: &[(String, [bool; 3])]) -> Result<Opened, Refused> {
    let folder =
        |dir: &Path| -> Result<Arc<dyn Disk>, Refused> { Ok(Arc::new(Folder::open(dir).map_err(Refused::Io)?)) };
    let (spool, journal) = (dir.join("spool"), folder(&dir.join("journal"))?);
    let lock = lock(&dir.join("lock"))?;
    let health = Health { dir: Some(dir.display().to_string()), kept: true, why: None };
    let mut places = Vec::new();
    for (name, gets) in targets {
        places.push(Place { name: name.clone(), disk: folder(&spool.join(name))?, caps: shares(caps, *gets, targets) });
    }
    warn_of_others(&spool, targets);
    let (state, checkpoint) = State::start(places, journal, health.clone()).map_err(Refused::Io)?;
    Ok(Opened { state: Some(Arc::new(state)), checkpoint, health, lock: Some(lock) })
}

/// What of the bounds falls to a target that gets these signals: as much as to any other.
fn shares(caps: [u64; 3], gets: [bool; 3], targets: &[(String, [bool; 3])]) -> [u64; 3] {
    std::array::from_fn(|signal| {
        let sharing = targets.iter().filter(|(_, gets)| gets[signal]).count() as u64;
        if gets[signal] { caps[signal] / sharing.max(1) } else { 0 }
    })
}

/// What waits for a target that nothing is sent to any more takes room that nobody bounds.
fn warn_of_others(spool: &Path, targets: &[(String, [bool; 3])]) {
    for entry in std::fs::read_dir(spool).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if entry.path().is_dir() && targets.iter().all(|(target, _)| **target != *name) {
            let dir = entry.path().display().to_string();
            tracing::warn!(
                dir,
                "what waits here is for a target that is not configured; remove the folder if it stays so"
            );
        }
    }
}

fn lock(path: &Path) -> Result<File, Refused> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(Refused::Io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message.
            file.read_to_string(&mut holder).unwrap_or_default();
            return Err(Refused::InUse(holder.trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(Refused::Io(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    // A full disk takes no process id; the lock holds without it.
    write(&mut file).unwrap_or_default();
    Ok(file)
}
