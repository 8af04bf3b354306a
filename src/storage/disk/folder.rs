//! The folder that outlives the daemon, as the code that stores sees it: a few operations, so that a test can stand in
//! for the disk and forget what was never synced. Decides modes (0600, 0700) and how a file is replaced whole; refuses
//! to say that something is kept before the kernel has said so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A folder of files.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// The files and their lengths.
    ///
    /// # Errors
    /// What the system says; so of all operations.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// An empty file to append to, in place of one of this name.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// Up to `len` bytes from `offset`, fewer only at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Cuts a file to `len` bytes, on disk when this returns.
    ///
    /// # Errors
    /// What the system says.
    fn cut(&self, name: &str, len: u64) -> io::Result<()>;

    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Puts `bytes` in place of the file: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// What the system says.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes the names of new files last.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
}

/// A file that grows.
pub trait Appender: std::fmt::Debug + Send {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// What the system says; then part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was added last.
    ///
    /// # Errors
    /// What the system says; then nothing is known of what was added since the last good one.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made where it is not there yet, for nobody else to read.
    ///
    /// # Errors
    /// When it can neither be found nor made.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self::at(path))
    }

    /// The folder at `path`, which need not be there yet: what is not there is empty, and cannot be changed.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn options(&self, name: &str, set: impl FnOnce(&mut OpenOptions) -> &mut OpenOptions) -> io::Result<File> {
        set(OpenOptions::new().mode(0o600)).open(self.0.join(name))
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let about = entry.metadata()?;
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                out.push((name, about.len()));
            }
        }
        Ok(out)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        Ok(Box::new(self.options(name, |options| options.create(true).write(true).truncate(true))?))
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = self.options(name, |options| options.read(true))?;
        let there = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(there).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        let file = self.options(name, |options| options.write(true))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}{NEW}");
        let mut file = self.options(&new, |options| options.create(true).write(true).truncate(true))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(self.0.join(&new), self.0.join(name))?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl Appender for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Ending of a file that is to replace another.
pub(crate) const NEW: &str = ".new";
