//! Lines of several log files, plain or gzip, merged by their timestamps. A line longer than the limit counts as one
//! line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use liveqos_core::access_log::{LogFold, MAX_LINE};
use liveqos_core::model::Timestamp;

use crate::engine::is_compressed;

/// The files, read line by line in the order of their timestamps.
pub(super) struct Inputs {
    inputs: Vec<Input>,
    last: Option<usize>,
}

struct Input {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    at: Timestamp,
    full: bool,
}

impl Inputs {
    pub(super) fn open(files: &[PathBuf]) -> Result<Self> {
        let inputs = files.iter().map(|path| Input::open(path).with_context(|| format!("opening {}", path.display())));
        Ok(Self { inputs: inputs.collect::<Result<_>>()?, last: None })
    }

    pub(super) fn next(&mut self, fold: &LogFold) -> Result<Option<&[u8]>> {
        let joins = self.inputs.len() > 1;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            if input.full && self.last == Some(index) {
                input.full = false;
            }
            if !input.full {
                input.full = read_line(&mut input.reader, &mut input.line, MAX_LINE)?;
                if joins && input.full {
                    // A line without a timestamp keeps its place after the line before it.
                    input.at = fold.time_of(&input.line).unwrap_or(input.at);
                }
            }
        }
        let full = self.inputs.iter().enumerate().filter(|(_, input)| input.full);
        self.last = full.min_by_key(|(_, input)| input.at).map(|(index, _)| index);
        Ok(self.last.map(|index| self.inputs[index].line.as_slice()))
    }
}

impl Input {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { reader: open(path)?, line: Vec::new(), at: Timestamp::default(), full: false })
    }
}

/// Opens a file, decompressing it if its name shows that it is compressed.
///
/// # Errors
/// The system's error.
pub(super) fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    Ok(if is_compressed(path) {
        Box::new(BufReader::with_capacity(BUFFER, flate2::bufread::MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, file))
    })
}

/// Reads one line into `line`, which keeps at most one byte more than `most` of a longer one. False at the end.
///
/// # Errors
/// The system's or the decompression's error; `line` contains what was read before it.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> std::io::Result<bool> {
    line.clear();
    reader.by_ref().take(most as u64 + 2).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > most {
        reader.skip_until(b'\n')?;
    } else {
        return Ok(!line.is_empty());
    }
    Ok(true)
}

const BUFFER: usize = 1 << 18;
