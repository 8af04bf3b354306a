//! A segment of any bytes: nothing may panic, reading ends, and what is read stands in the file as it was read.
#![no_main]

use std::io;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use liveqos::storage::disk::{Appender, Disk, frame};
use liveqos::otlp::{Limits, Signal};
use liveqos::storage::spool::{HEADER, Mark, Part, Segment, segment};

#[derive(Debug)]
struct Held(Bytes);

impl Disk for Held {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn Appender>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn read(&self, _: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let from = self.0.len().min(offset as usize);
        Ok(self.0.slice(from..self.0.len().min(from.saturating_add(len))))
    }
    fn cut(&self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let (good, _) = frame::read_all(&bytes, 0, 7);
    for (found, end) in good {
        assert_eq!(&data[end - found.payload.len()..end], &found.payload[..]);
    }
    let (end, length, _) = segment::end_of(&bytes, Signal::Traces, Mark::default(), u64::MAX);
    assert!(length <= data.len() as u64);
    let disk = Held(bytes);
    let segment = Segment { first: Mark::default(), end, bytes: length };
    let mut part = Part { segment, from: Mark::default(), offset: 0 };
    let limits = Limits { items: 8, bytes: 64 << 10 };
    while part.from < end {
        let taken = segment::take(&disk, Signal::Traces, &part, limits).expect("memory can be read");
        assert!(taken.until > part.from && taken.offset >= HEADER, "reading goes on");
        assert!(taken.messages.len() as u64 + taken.damaged <= taken.until.position - part.from.position);
        (part.from, part.offset) = (taken.until, taken.offset);
    }
});
