//! Reads a growing file line by line. Decides where to begin and when the file was rotated or truncated. One call reads
//! at most [`MAX_READ`], and a line longer than [`MAX_LINE`] is not kept.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use liveqos_core::access_log::MAX_LINE;
use memchr::memchr;
use tokio::time::Instant;

use super::position::{Invalid, Position, beside};

/// A file being followed.
#[derive(Debug)]
pub(super) struct LogTail {
    path: PathBuf,
    position_file: Option<PathBuf>,
    open: Option<Open>,
    /// Where to begin at the next opening: the saved position at first.
    begin: Begin,
    partial: Vec<u8>,
    /// Inside a line that is too long.
    in_long_line: bool,
    saved: Option<Position>,
    synced: Option<(Instant, Position)>,
    positions_lost: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    offset: u64,
    /// The path leads to another file: this one is read once more, as its writer may still have it open.
    replaced: bool,
}

#[derive(Clone, Copy, Debug)]
enum Begin {
    Saved(Position),
    End,
    Start,
}

/// What a read passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A complete line, without its end.
    Line(&'a [u8]),
    /// A line longer than [`MAX_LINE`], which was dropped.
    Long,
}

impl LogTail {
    /// Follows `path` from its end, or from the position in `position_file`.
    ///
    /// # Errors
    /// When the position file exists and cannot be read. One with invalid content is ignored and counted.
    pub(super) fn new(path: &Path, position_file: Option<&Path>) -> io::Result<Self> {
        let recent = position_file.map(|path| beside(path, RECENT));
        let read = |path: Option<&Path>| path.map_or(Ok(None), Position::read);
        let read = [read(position_file)?, read(recent.as_deref())?];
        let positions_lost = read.iter().filter(|read| matches!(read, Some(Err(Invalid)))).count() as u64;
        let saved = read.into_iter().flatten().flatten().max_by_key(|position| position.number);
        if positions_lost > 0 {
            tracing::warn!(log = %path.display(), "a position file of the log has invalid content; reading continues from the other one, or from the log's end");
        }
        Ok(Self {
            path: path.to_owned(),
            position_file: position_file.map(Path::to_owned),
            open: None,
            begin: saved.map_or(Begin::End, Begin::Saved),
            partial: Vec::new(),
            in_long_line: false,
            saved,
            synced: None,
            positions_lost,
            buffer: vec![0; BUFFER],
        })
    }

    /// Reads what was written since the last call, at most [`MAX_READ`] bytes. Returns whether there is more.
    ///
    /// # Errors
    /// When the file cannot be opened or read; the next call tries again.
    pub(super) fn read(&mut self, mut take: impl FnMut(Piece<'_>)) -> io::Result<bool> {
        let mut room = MAX_READ;
        while room > 0 {
            if self.open.is_none() {
                self.open = Some(self.reopen()?);
            }
            let Some(open) = &mut self.open else {
                return Ok(false);
            };
            let most = self.buffer.len().min(room);
            let count = open.file.read(&mut self.buffer[..most])?;
            if count == 0 {
                if !self.was_replaced()? {
                    return Ok(false);
                }
                continue;
            }
            open.offset += count as u64;
            room -= count;
            let buffer = std::mem::take(&mut self.buffer);
            self.split_lines(&buffer[..count], &mut take);
            self.buffer = buffer;
        }
        Ok(true)
    }

    /// Saves the position if it changed: the start of the first incomplete line. Each time it writes a file beside the
    /// position file, which survives a kill; every few seconds it writes and syncs the position file, which survives a
    /// power failure.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let (Some(path), Some(open)) = (&self.position_file, &self.open) else {
            return Ok(());
        };
        let (inode, offset) = (open.inode, open.offset - self.partial.len() as u64);
        let has_moved = self.saved.is_none_or(|saved| (saved.inode, saved.offset) != (inode, offset));
        let number = self.saved.map_or(0, |saved| saved.number) + u64::from(has_moved);
        let position = Position { inode, offset, number };
        let is_due = self.synced.is_none_or(|(at, synced)| at.elapsed() >= SYNC_EVERY && synced != position);
        if is_due {
            position.write(path, true)?;
            self.synced = Some((Instant::now(), position));
        } else if has_moved {
            position.write(&beside(path, RECENT), false)?;
        }
        self.saved = Some(position);
        Ok(())
    }

    /// Number of position files with invalid content.
    #[must_use]
    pub(super) const fn positions_lost(&self) -> u64 {
        self.positions_lost
    }

    fn reopen(&mut self) -> io::Result<Open> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A file that appears later is read from its first line.
                self.begin = if matches!(self.begin, Begin::End) { Begin::Start } else { self.begin };
                return Err(error);
            }
            file => file?,
        };
        let metadata = file.metadata()?;
        let offset = match self.begin {
            Begin::Saved(was) if was.inode == metadata.ino() && was.offset <= metadata.len() => was.offset,
            // The file was rotated or truncated since the position was saved: all of it is new.
            Begin::Saved(_) | Begin::Start => 0,
            Begin::End => metadata.len(),
        };
        file.seek(SeekFrom::Start(offset))?;
        self.begin = Begin::Start;
        self.partial.clear();
        self.in_long_line = false;
        Ok(Open { file, inode: metadata.ino(), offset, replaced: false })
    }

    /// At the end of the file: whether the path leads to another file, or the file was truncated.
    fn was_replaced(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            return Ok(true);
        };
        let metadata = match std::fs::metadata(&self.path) {
            // Between rename and create there is no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata?,
        };
        let was_cut = metadata.ino() == open.inode && metadata.len() < open.offset;
        let again = std::mem::replace(&mut open.replaced, metadata.ino() != open.inode);
        let replaced = was_cut || (again && open.replaced);
        if replaced {
            self.open = None;
        }
        Ok(replaced)
    }

    fn split_lines(&mut self, bytes: &[u8], take: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (text, ends) = (&rest[..end.unwrap_or(rest.len())], end.is_some());
            rest = end.map_or(&[], |end| &rest[end + 1..]);
            if !self.in_long_line {
                if self.partial.len() + text.len() > MAX_LINE {
                    self.in_long_line = true;
                    self.partial.clear();
                    take(Piece::Long);
                } else if ends && self.partial.is_empty() {
                    take(Piece::Line(text));
                } else {
                    self.partial.extend_from_slice(text);
                    if ends {
                        take(Piece::Line(&self.partial));
                        self.partial.clear();
                    }
                }
            }
            self.in_long_line &= !ends;
        }
    }
}

/// Most bytes read per wake: 32 MB a second at four wakes.
pub(super) const MAX_READ: usize = 8 << 20;
const BUFFER: usize = 1 << 16;
/// How often the position is synced to the disk.
const SYNC_EVERY: Duration = Duration::from_secs(5);
const RECENT: &str = ".recent";

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Log {
        folder: tempfile::TempDir,
    }

    impl Log {
        fn new(text: &str) -> Self {
            let log = Self { folder: tempfile::tempdir().expect("a folder") };
            log.write(text);
            log
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, text: &str) {
            let mut options = File::options();
            let mut file = options.append(true).create(true).open(self.path("log")).expect("a log");
            file.write_all(text.as_bytes()).expect("room");
        }

        fn tail(&self) -> LogTail {
            LogTail::new(&self.path("log"), Some(&self.path("position"))).expect("a tail")
        }
    }

    fn lines(tail: &mut LogTail) -> Vec<String> {
        let mut out = Vec::new();
        tail.read(|piece| {
            out.push(match piece {
                Piece::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Piece::Long => "(long)".to_owned(),
            });
        })
        .expect("readable");
        out
    }

    #[test]
    fn reading_starts_at_the_end_and_joins_partial_lines() {
        let log = Log::new("old\n");
        let mut tail = log.tail();
        assert!(lines(&mut tail).is_empty());
        log.write("a\nb");
        assert_eq!(lines(&mut tail), ["a"]);
        log.write("c\n\n");
        assert_eq!(lines(&mut tail), ["bc", ""]);
    }

    #[test]
    fn rotation_loses_nothing() {
        let log = Log::new("");
        let mut tail = log.tail();
        assert!(lines(&mut tail).is_empty());
        log.write("a\n");
        std::fs::rename(log.path("log"), log.path("log.1")).expect("renamed");
        assert_eq!(lines(&mut tail), ["a"]);
        let mut old = File::options().append(true).open(log.path("log.1")).expect("the old one");
        old.write_all(b"late\n").expect("room");
        log.write("new\n");
        assert_eq!(lines(&mut tail), ["late"], "its writer may still have it open");
        old.write_all(b"last\n").expect("room");
        assert_eq!(lines(&mut tail), ["last", "new"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_its_start() {
        let log = Log::new("");
        let mut tail = log.tail();
        lines(&mut tail);
        log.write("one\ntwo\n");
        assert_eq!(lines(&mut tail).len(), 2);
        File::create(log.path("log")).expect("cut");
        assert!(lines(&mut tail).is_empty());
        log.write("three\n");
        assert_eq!(lines(&mut tail), ["three"]);
    }

    #[test]
    fn a_restart_neither_repeats_nor_loses_lines() {
        let log = Log::new("old\n");
        let mut tail = log.tail();
        lines(&mut tail);
        log.write("a\nhal");
        assert_eq!(lines(&mut tail), ["a"]);
        tail.save().expect("saved");
        drop(tail);
        log.write("f\nb\n");
        let mut tail = log.tail();
        assert_eq!(lines(&mut tail), ["half", "b"]);
        tail.save().expect("saved");
        std::fs::remove_file(log.path("log")).expect("gone");
        log.write("other file\n");
        // The same inode may be reused; whether the position lies within the file or not, the log was rotated.
        drop(tail);
        std::fs::remove_file(log.path("position.recent")).unwrap_or_default();
        Position { inode: 1, offset: 99, number: 9 }.write(&log.path("position"), false).expect("written");
        assert_eq!(lines(&mut log.tail()), ["other file"]);
    }

    #[test]
    fn the_newer_of_two_positions_counts_and_invalid_ones_are_counted() {
        let log = Log::new("");
        let mut tail = log.tail();
        lines(&mut tail);
        tail.save().expect("saved to the disk");
        for line in ["a\n", "b\n"] {
            log.write(line);
            lines(&mut tail);
            tail.save().expect("saved beside it");
        }
        log.write("c\n");
        assert_eq!(lines(&mut log.tail()), ["c"], "as after a kill");
        std::fs::write(log.path("position.recent"), "").expect("cut by a power failure");
        let mut tail = log.tail();
        assert_eq!((lines(&mut tail), tail.positions_lost()), (vec!["a".into(), "b".into(), "c".into()], 1));
        std::fs::write(log.path("position"), "{").expect("written");
        let mut tail = log.tail();
        assert_eq!((lines(&mut tail).len(), tail.positions_lost()), (0, 2), "both invalid: from the end");
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_counted_once() {
        let log = Log::new("");
        let mut tail = log.tail();
        lines(&mut tail);
        log.write(&"x".repeat(MAX_LINE * 3));
        log.write("\nshort\n");
        assert_eq!(lines(&mut tail), ["(long)", "short"]);
        assert!(tail.partial.is_empty());
    }

    #[test]
    fn a_file_that_appears_later_is_read_from_its_start() {
        let log = Log::new("");
        std::fs::remove_file(log.path("log")).expect("gone");
        let mut tail = log.tail();
        assert!(tail.read(|_| {}).is_err());
        log.write("first\n");
        assert_eq!(lines(&mut tail), ["first"]);
    }
}
