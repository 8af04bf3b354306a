//! A disk for tests that keeps only what was synced: at a power cut each file falls back to its synced content, plus
//! any part of what was appended since, and files whose names were not synced exist or not. It can also be full or
//! read-only.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::folder::{Appender, Disk};

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forgetful(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    failure: Option<ErrorKind>,
    /// Operations until the power fails; later ones have no effect.
    fuse: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    kept: Vec<u8>,
    /// Whether its name was synced.
    named: bool,
}

impl Forgetful {
    /// Makes every change fail with this error from now on.
    pub(crate) fn fail(&self, kind: Option<ErrorKind>) {
        self.state().failure = kind;
    }

    /// Makes the power fail after so many more changes and syncs.
    pub(crate) fn fuse(&self, operations: u32) {
        self.state().fuse = Some(operations);
    }

    /// The power fails and returns: `luck` decides how much of what was not synced survives.
    pub(crate) fn power_cut(&self, mut luck: impl FnMut() -> u8) {
        let mut state = self.state();
        state.fuse = None;
        state.files.retain(|_, file| file.named || luck() > 127);
        for file in state.files.values_mut() {
            let unsynced = file.now.len().saturating_sub(file.kept.len());
            let surviving = unsynced * usize::from(luck()) / 255;
            let whole = file.now.get(..file.kept.len() + surviving).filter(|now| now.starts_with(&file.kept));
            let whole = whole.map_or_else(|| file.kept.clone(), <[u8]>::to_vec);
            *file = File { now: whole.clone(), kept: whole, named: true };
        }
    }

    /// Changes the bytes of a file, to damage it.
    ///
    /// # Panics
    /// When there is no such file.
    pub(crate) fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.files.get_mut(name).expect("the file is there");
        change(&mut file.now);
        file.kept = file.now.clone();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        if let Some(left) = &mut state.fuse {
            *left = left.checked_sub(1).ok_or(ErrorKind::Other)?;
        }
        match state.failure {
            Some(kind) => Err(kind.into()),
            None => change(&mut state),
        }
    }
}

impl Disk for Forgetful {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.state().files.iter().map(|(name, file)| (name.clone(), file.now.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        self.change(|state| {
            state.files.entry(name.to_owned()).or_default().now.clear();
            Ok(())
        })?;
        Ok(Box::new(Growing(self.clone(), name.to_owned())))
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let state = self.state();
        let file = state.files.get(name).ok_or(ErrorKind::NotFound)?;
        let from = file.now.len().min(usize::try_from(offset).expect("small"));
        let to = file.now.len().min(from.saturating_add(len));
        Ok(Bytes::copy_from_slice(&file.now[from..to]))
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        self.change(|state| {
            let file = state.files.get_mut(name).ok_or(ErrorKind::NotFound)?;
            file.now.truncate(usize::try_from(len).expect("small"));
            file.kept = file.now.clone();
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.files.remove(name);
            Ok(())
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| {
            let file = File { now: bytes.to_vec(), kept: bytes.to_vec(), named: true };
            state.files.insert(name.to_owned(), file);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|state| {
            state.files.values_mut().for_each(|file| file.named = true);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Growing(Forgetful, String);

impl Appender for Growing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.change(|state| {
            state.files.get_mut(&self.1).ok_or(ErrorKind::NotFound)?.now.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.change(|state| {
            let file = state.files.get_mut(&self.1).ok_or(ErrorKind::NotFound)?;
            file.kept = file.now.clone();
            Ok(())
        })
    }
}
