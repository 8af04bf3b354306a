//! A state folder of any bytes: journals, cursors and segments, torn, damaged, or good records that say anything. A
//! start never panics, what waits can be given out, and it can be started from again.
#![no_main]

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use libfuzzer_sys::fuzz_target;
use liveqos::storage::disk::frame;
use liveqos::storage::{Opened, StateSettings, journal, spool};
use liveqos::otlp::{Limits, Record, Signal};
use liveqos::storage::spool::{Mark, segment};

/// The files in the making, fed with pieces of the input.
#[derive(Default)]
struct Folder {
    journals: [Vec<u8>; 2],
    records: u64,
    cursor: Vec<u8>,
    segments: [(Mark, Vec<u8>); 3],
}

impl Folder {
    fn take(&mut self, how: u8, number: u8, piece: &[u8]) {
        let journal = &mut self.journals[usize::from(how >> 7)];
        let (signal, number) = (Signal::ALL[usize::from(how >> 4) % 3], u64::from(number));
        let (first, segment) = &mut self.segments[usize::from(how >> 6) % 3];
        match how % 8 {
            0 => journal.extend_from_slice(piece),
            1 => {
                let tag = [journal::BASE, 0, journal::PIECE][usize::from(self.records > 0) * (number % 3) as usize];
                frame::write(journal, journal::SALT, (tag, self.records), piece);
                self.records += 1;
            }
            2 => self.cursor.extend_from_slice(piece),
            3 => frame::write(&mut self.cursor, spool::CURSOR_SALT, (0, 0), piece),
            4 => segment.extend_from_slice(piece),
            5 => {
                let position = if number > 250 { u64::MAX - (number - 250) } else { number };
                *first = Mark { position, item: position.saturating_mul(piece.len() as u64) };
            }
            6 => segment.extend(segment::header(signal)),
            _ => {
                let (items, urgent) = (u32::from(piece.first().copied().unwrap_or(1)), piece.len() % 2 == 0);
                let record = Record { signal, bytes: piece.to_vec().into(), items, urgent };
                segment::write(segment, signal, first.position.saturating_add(number % 16), &record);
            }
        }
    }

    /// Puts the files where a daemon looks for them.
    fn lay(&self, dir: &Path) -> io::Result<()> {
        let (journal, spool) = (dir.join("journal"), dir.join("spool").join("main"));
        fs::create_dir_all(&journal)?;
        fs::create_dir_all(&spool)?;
        for (number, bytes) in self.journals.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            fs::write(journal.join(format!("journal-{number:020}.log")), bytes)?;
        }
        fs::write(spool.join("cursor"), &self.cursor)?;
        for (signal, (first, bytes)) in Signal::ALL.into_iter().zip(&self.segments) {
            for step in 0..2 {
                let first =
                    Mark { position: first.position.saturating_add(step * 8), item: first.item.saturating_add(step) };
                fs::write(spool.join(segment::name(signal, first)), bytes)?;
            }
        }
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut folder, mut rest) = (Folder::default(), data);
    while let Some(([how, number, len], more)) = rest.split_first_chunk() {
        let (piece, more) = more.split_at(more.len().min(usize::from(*len)));
        folder.take(*how, *number, piece);
        rest = more;
    }
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    folder.lay(dir.path()).expect("room");
    let settings = StateSettings { dir: Some(dir.path().to_owned()), ..StateSettings::default() };
    for _ in 0..2 {
        let opened = Opened::open(&settings, &[("main".to_owned(), [true; 3])]).expect("nobody else has it");
        let spool = opened.export_queue("main").expect("opened for it");
        for signal in Signal::ALL {
            loop {
                let batch = spool.peek(signal, Limits { items: 4, bytes: 1 << 10 });
                if batch.messages.is_empty() {
                    break;
                }
                spool.acknowledge(signal, batch.until);
            }
        }
        let state = opened.state.expect("a folder that can be read and written");
        state.stop(Duration::from_secs(5));
    }
});
