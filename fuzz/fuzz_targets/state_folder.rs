//! A state folder of any bytes: journals, cursors and segments, torn, damaged, or good records that say anything. A start never panics,
//! what waits is given out or counted as damaged, and it can be started from again.
#![no_main]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use liveqos::disk::{Appender, Disk, frame};
use liveqos::journal;
use liveqos::otlp::outbox::{Limits, Outbox as _};
use liveqos::otlp::record::{Record, Signal};
use liveqos::spool;
use liveqos::spool::segment::{self, Mark};
use liveqos::state::{Health, Place, State};

/// A folder in memory.
#[derive(Clone, Debug, Default)]
struct Held(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Held {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().expect("nobody panicked")
    }
}

impl Disk for Held {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files().iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        self.files().insert(name.to_owned(), Vec::new());
        Ok(Box::new(Growing(self.clone(), name.to_owned())))
    }
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let files = self.files();
        let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let from = bytes.len().min(offset as usize);
        Ok(Bytes::copy_from_slice(&bytes[from..bytes.len().min(from.saturating_add(len))]))
    }
    fn cut(&self, name: &str, len: u64) -> io::Result<()> {
        self.files().get_mut(name).ok_or(io::ErrorKind::NotFound)?.truncate(len as usize);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Growing(Held, String);

impl Appender for Growing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.files().get_mut(&self.1).ok_or(io::ErrorKind::NotFound)?.extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
                let tag = if self.records == 0 { journal::BASE } else { 0 };
                frame::write(journal, journal::SALT, (tag, self.records), piece);
                self.records += 1;
            }
            2 => self.cursor.extend_from_slice(piece),
            3 => frame::write(&mut self.cursor, spool::CURSOR_SALT, (0, 0), piece),
            4 => segment.extend_from_slice(piece),
            5 => *first = Mark { position: number, item: number.saturating_mul(piece.len() as u64) },
            6 => segment.extend(segment::header(signal)),
            _ => {
                let (items, urgent) = (u32::from(piece.first().copied().unwrap_or(1)), piece.len() % 2 == 0);
                let record = Record { signal, bytes: piece.to_vec().into(), items, urgent };
                segment::write(segment, signal, first.position.saturating_add(number % 16), &record);
            }
        }
    }

    fn disks(&self) -> (Held, Held) {
        let (queues, journal) = (Held::default(), Held::default());
        for (number, bytes) in self.journals.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            journal.replace(&format!("journal-{number:020}.log"), bytes).expect("room");
        }
        queues.replace("cursor", &self.cursor).expect("room");
        for (signal, (first, bytes)) in Signal::ALL.into_iter().zip(&self.segments) {
            for step in 0..2 {
                let first = Mark { position: first.position + step * 8, item: first.item + step };
                queues.replace(&segment::name(signal, first), bytes).expect("room");
            }
        }
        (queues, journal)
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut folder, mut rest) = (Folder::default(), data);
    while let Some(([how, number, len], more)) = rest.split_first_chunk() {
        let (piece, more) = more.split_at(more.len().min(usize::from(*len)));
        folder.take(*how, *number, piece);
        rest = more;
    }
    let (queues, journal) = folder.disks();
    for _ in 0..2 {
        let place = Place { name: "main".to_owned(), disk: Arc::new(queues.clone()), caps: [1 << 20; 3] };
        let started = State::start(vec![place], Arc::new(journal.clone()), Health::default());
        let (state, _) = started.expect("a folder that can be read and written");
        let spool = state.outbox("main").expect("opened for it");
        for signal in Signal::ALL {
            let (waits, mut given) = (spool.backlog(signal).records, 0);
            loop {
                let batch = spool.peek(signal, Limits { items: 4, bytes: 1 << 10 });
                if batch.messages.is_empty() {
                    break;
                }
                given += batch.messages.len() as u64;
                spool.acknowledge(signal, batch.until);
            }
            assert_eq!(waits, given + spool.damaged(signal), "given out or counted");
        }
    }
});
