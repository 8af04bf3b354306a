//! How far an access log was read, kept in a file.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::storage::disk::{Step, frame};

/// How far a file was read: kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) inode: u64,
    pub(super) offset: u64,
    /// Grows with every writing: the higher is the newer.
    #[serde(default)]
    pub(super) number: u64,
}

/// A position file that cannot be understood.
#[derive(Debug)]
pub(super) struct Nonsense;

impl Position {
    pub(super) fn read(path: &Path) -> io::Result<Option<Result<Self, Nonsense>>> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => Ok(Some(Self::decode(&bytes?.into()).ok_or(Nonsense))),
        }
    }

    /// The whole of a file: a digit that is another one must not pass for a place in the log.
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

    /// Puts it in place at once: a killed daemon leaves the old one or the new one, and with `sync` so does a machine
    /// without power.
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

/// A file beside another, of the same name with an ending more.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What tells a position from the records of other files.
const SALT: u32 = 0x4c51_5001;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any bytes of it are others, or it is shorter or longer: it is what was written, or nonsense.
        #[test]
        fn a_damaged_position_is_no_position(
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
