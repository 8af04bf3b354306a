//! A folder of files as storage sees it: a few operations, so that a test can replace the disk by one that forgets what
//! was not synced. Files have mode 0600, folders 0700.

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
    /// Those of the operating system.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Creates an empty file to append to, replacing one of this name.
    ///
    /// # Errors
    /// Those of the operating system.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// Reads up to `len` bytes from `offset`, fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of the operating system.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Truncates a file to `len` bytes; on disk when this returns.
    ///
    /// # Errors
    /// Those of the operating system.
    fn cut(&self, name: &str, len: u64) -> io::Result<()>;

    /// Removes a file; a missing file is no error.
    ///
    /// # Errors
    /// Those of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Replaces the content of a file by `bytes`: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// Those of the operating system.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes the names of new files to disk.
    ///
    /// # Errors
    /// Those of the operating system.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is appended to.
pub trait Appender: std::fmt::Debug + Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// Those of the operating system; part of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Writes what was appended to disk.
    ///
    /// # Errors
    /// Those of the operating system; nothing is known then of what was appended since the last successful sync.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, created with mode 0700 where it does not exist.
    ///
    /// # Errors
    /// When it neither exists nor can be created.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self::at(path))
    }

    /// The folder at `path`, which need not exist: a missing one is empty and cannot be changed.
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

/// Suffix of a file that will replace another.
pub(crate) const NEW: &str = ".new";
