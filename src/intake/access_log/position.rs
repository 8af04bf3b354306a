//! The position up to which an access log was read, kept in a file over restarts.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::storage::disk::{Step, frame};

/// A position in a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) inode: u64,
    pub(super) offset: u64,
    /// Grows with each write: the higher one is newer.
    #[serde(default)]
    pub(super) number: u64,
}

/// A position file with invalid content.
#[derive(Debug)]
pub(super) struct Invalid;

impl Position {
    pub(super) fn read(path: &Path) -> io::Result<Option<Result<Self, Invalid>>> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => Ok(Some(Self::decode(&bytes?.into()).ok_or(Invalid))),
        }
    }

    /// Decodes a whole file. The frame's checksum rejects a changed digit, which would be another position.
    fn decode(bytes: &Bytes) -> Option<Self> {
        match frame::read(bytes, 0, SALT) {
            Step::Good(found, end) if end == bytes.len() => serde_json::from_slice(&found.payload).ok(),
            _ => None,
        }
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, SALT, (0, self.number), &serde_json::to_vec(self)?);
        Ok(bytes)
    }

    /// Replaces the file atomically: after a kill it contains the old or the new position, with `sync` also after a
    /// power failure.
    pub(super) fn write(&self, path: &Path, sync: bool) -> io::Result<()> {
        let new = beside(path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&self.encode()?)?;
        if sync {
            file.sync_all()?;
        }
        std::fs::rename(new, path)?;
        if sync && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// `path` with `ending` added to its name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Distinguishes a position from the records of other files.
const SALT: u32 = 0x4c51_5001;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After any change of bytes or length, a position is either unchanged or invalid.
        #[test]
        fn a_damaged_position_is_invalid(
            numbers in any::<[u64; 3]>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in 0_usize..120,
        ) {
            let [inode, offset, number] = numbers;
            let whole = Position { inode, offset, number };
            let good = whole.encode().expect("small");
            let mut bytes = good.clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            prop_assert_eq!(Position::decode(&bytes.clone().into()), (bytes == good).then_some(whole));
            bytes.resize(length, b' ');
            prop_assert_eq!(Position::decode(&bytes.clone().into()), (bytes == good).then_some(whole));
        }
    }
}
