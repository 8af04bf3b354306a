//! Records in a file, each with a marker, its length and a checksum, so that reading continues after damage and never
//! returns bytes that were not written.
//!
//! ```text
//! marker 4 | length 4 | checksum 4 | tag 4 | number 8 | payload          (little-endian)
//! ```
//!
//! The marker is not part of any UTF-8 text, so that nobody can write a record inside a name. The checksum is CRC-32
//! (IEEE 802.3) over salt, length, tag, number and payload; the salt depends on the kind of file, so that a block of
//! another file is never taken for one of this file.

use bytes::Bytes;

/// Bytes of a record without its payload.
pub const HEAD: usize = 24;

/// Longest payload in bytes: a longer one is not written, and counts as damage when read.
pub const MAX_PAYLOAD: usize = 16 << 20;

/// An undamaged record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// A value of its writer.
    pub tag: u32,
    /// Its place in the order of records.
    pub number: u64,
    /// Its content.
    pub payload: Bytes,
}

/// What is found at an offset of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An undamaged record, and where it ends.
    Good(Frame, usize),
    /// Damage up to this offset.
    Damaged(usize),
    /// So many bytes are needed from this offset on to decide, if the file has them.
    Needs(usize),
    /// The end of the bytes.
    End,
}

/// Appends a record to `out`.
pub fn write(out: &mut Vec<u8>, salt: u32, frame: (u32, u64), payload: &[u8]) {
    let (tag, number) = frame;
    // Lengths are bounded by MAX_PAYLOAD where records are accepted.
    let len = (payload.len() as u32).to_le_bytes();
    let rest = [tag.to_le_bytes().as_slice(), &number.to_le_bytes()].concat();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(salt, &len, &rest, payload).to_le_bytes());
    out.extend_from_slice(&rest);
    out.extend_from_slice(payload);
}

/// Reads at offset `at` of `bytes`, a part of a file with this `salt`.
#[must_use]
pub fn read(bytes: &Bytes, at: usize, salt: u32) -> Step {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Step::End;
    }
    if !rest.starts_with(&MARKER) {
        return if MARKER.starts_with(rest) { Step::Needs(HEAD) } else { Step::Damaged(next_marker(bytes, at + 1)) };
    }
    let Some(head) = rest.first_chunk::<HEAD>() else {
        return Step::Needs(HEAD);
    };
    let (len, sum) = (word(head, 4), word(head, 8));
    let end = HEAD + len as usize;
    if len as usize > MAX_PAYLOAD {
        return Step::Damaged(next_marker(bytes, at + 1));
    }
    let Some(payload) = rest.get(HEAD..end) else {
        return Step::Needs(end);
    };
    if checksum(salt, &head[4..8], &head[12..HEAD], payload) != sum {
        return Step::Damaged(next_marker(bytes, at + 1));
    }
    let number = u64::from(word(head, 16)) | u64::from(word(head, 20)) << 32;
    let payload = bytes.slice(at + HEAD..at + end);
    Step::Good(Frame { tag: word(head, 12), number, payload }, at + end)
}

/// All undamaged records of a whole file, each with its end, and the damaged ranges between them.
#[must_use]
pub fn read_all(bytes: &Bytes, from: usize, salt: u32) -> (Vec<(Frame, usize)>, Vec<std::ops::Range<usize>>) {
    let (mut good, mut damaged) = (Vec::new(), Vec::<std::ops::Range<usize>>::new());
    let mut at = from;
    loop {
        at = match read(bytes, at, salt) {
            Step::Good(frame, end) => {
                good.push((frame, end));
                end
            }
            Step::End => return (good, damaged),
            // The file has no more: a record that was not finished, or a damaged length.
            step @ (Step::Damaged(_) | Step::Needs(_)) => {
                let to = if let Step::Damaged(to) = step { to } else { next_marker(bytes, at + 1) };
                match damaged.last_mut() {
                    Some(last) if last.end == at => last.end = to,
                    _ => damaged.push(at..to),
                }
                to
            }
        };
    }
}

/// The next offset from `from` on where a record may begin; the end where there is none.
fn next_marker(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.windows(MARKER.len()).position(|window| window == MARKER);
    // The last bytes may be the beginning of a marker.
    let cut = || (1..MARKER.len()).rev().find(|len| rest.ends_with(&MARKER[..*len])).map(|len| rest.len() - len);
    from + found.or_else(cut).unwrap_or(rest.len())
}

fn checksum(salt: u32, len: &[u8], rest: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [&salt.to_le_bytes(), len, rest, payload] {
        hasher.update(part);
    }
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

const MARKER: [u8; 4] = [0xf5, 0xc1, 0xff, 0xfe];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, payload) in payloads.iter().enumerate() {
            write(&mut out, 7, (1, number as u64), payload);
        }
        out
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12)
    }

    proptest! {
        #[test]
        fn written_records_are_read(payloads in payloads()) {
            let (good, damaged) = read_all(&file(&payloads).into(), 0, 7);
            let read: Vec<_> = good.into_iter().map(|(frame, _)| frame.payload.to_vec()).collect();
            prop_assert_eq!(read, payloads);
            prop_assert!(damaged.is_empty());
        }

        /// Bytes are changed and the end is cut anywhere: no wrong record is read, and all untouched ones are.
        #[test]
        fn damage_loses_only_the_records_it_touched(
            payloads in payloads(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            keep in any::<prop::sample::Index>(),
        ) {
            let whole = file(&payloads);
            let mut bytes = whole.clone();
            for (at, value) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
            }
            bytes.truncate(keep.index(whole.len() + 1));
            let (good, _) = read_all(&bytes.clone().into(), 0, 7);
            let read: Vec<u64> = good.iter().map(|(frame, _)| frame.number).collect();
            for (frame, _) in &good {
                prop_assert_eq!(&payloads[frame.number as usize], &frame.payload);
            }
            let mut at = 0;
            for (number, payload) in payloads.iter().enumerate() {
                let span = at..at + HEAD + payload.len();
                at = span.end;
                if bytes.get(span.clone()) == Some(&whole[span]) {
                    prop_assert!(read.contains(&(number as u64)), "record {} is whole", number);
                }
            }
        }

        #[test]
        fn a_file_read_in_parts_is_the_whole_file(payloads in payloads(), part in 1_usize..90) {
            let whole = Bytes::from(file(&payloads));
            let (mut at, mut want, mut read) = (0, part, Vec::new());
            while at < whole.len() {
                let bytes = whole.slice(at..whole.len().min(at + want));
                match super::read(&bytes, 0, 7) {
                    Step::Good(frame, end) => {
                        read.push(frame.payload.to_vec());
                        (at, want) = (at + end, part);
                    }
                    Step::Needs(bytes) => want = bytes,
                    step => panic!("{step:?}"),
                }
            }
            prop_assert_eq!(read, payloads);
        }

        #[test]
        fn the_salt_distinguishes_files(payloads in payloads()) {
            prop_assert!(read_all(&file(&payloads).into(), 0, 8).0.is_empty());
        }
    }
}
