//! The reference: one pass over the bytes by hand for this one form of line and this one question. It knows the order
//! of the keys, looks for the few things it needs by vector instructions, and keeps a flat table of viewers. It takes
//! the same lines for dirty and finds no stall.

use memchr::memchr;
use memchr::memmem::Finder;

use crate::{Answer, Row};

pub(crate) struct Scan {
    sid: Finder<'static>,
    starved: Finder<'static>,
    viewers: Vec<Viewer>,
    classes: Vec<Class>,
    window: u64,
    answer: Answer,
}

#[derive(Clone, Copy)]
struct Viewer {
    name: [u8; 40],
    length: usize,
    class: u32,
    seen: u64,
    starved: u64,
}

#[derive(Clone, Default)]
struct Class {
    name: Vec<u8>,
    /// Whether it served media yet.
    is_there: bool,
    row: Row,
}

impl Scan {
    pub(crate) fn new() -> Self {
        let empty = Viewer { name: [0; 40], length: 0, class: 0, seen: 0, starved: 0 };
        Self {
            sid: Finder::new("%2Csid%3D%22"),
            starved: Finder::new("%2Cbs%2C"),
            viewers: vec![empty; SLOTS],
            classes: vec![Class::default(); CLASS_SLOTS],
            window: 0,
            answer: Answer::new(),
        }
    }

    /// Folds a line; one that is not of this log's form, or of a newer version, is left out.
    pub(crate) fn line(&mut self, line: &[u8]) -> Option<()> {
        let rest = line.strip_prefix(b"{\"t\":")?;
        if rest.last() != Some(&b'}') || line.len() > 65_536 {
            return None;
        }
        let Head { at, seen, status, bytes, rest } = head(rest)?;
        if at >= self.window {
            self.close(at / 5_000 * 5_000 + 5_000);
        }
        let rest = rest.strip_prefix(b",\"u\":\"/hls/")?;
        let slash = memchr(b'/', rest)?;
        let (class, rest) = (&rest[..slash], &rest[slash + 1..]);
        let quote = memchr(b'"', rest)?;
        let (file, rest) = (&rest[..quote], &rest[quote..]);
        let is_media = file.ends_with(b".ts");
        if !is_media && !file.ends_with(b".m3u8") {
            return None;
        }
        let rest = rest.strip_prefix(b"\",\"q\":\"")?;
        let quote = memchr(b'"', rest)?;
        let (query, rest) = (&rest[..quote], &rest[quote..]);
        if query.len() > 9 && query[query.len() - 8..].starts_with(b"%2Cv%3D") && query[query.len() - 1] > b'2' {
            return None;
        }
        let named = self.sid.find(query).and_then(|at| {
            let rest = &query[at + 12..];
            let end = memchr(b'%', rest)?;
            rest[end..].starts_with(b"%22").then(|| &rest[..end])
        });
        let class = self.class(class);
        let there = &mut self.classes[class as usize].is_there;
        *there |= is_media && status / 100 == 2;
        if !*there {
            return Some(());
        }
        let viewer = match named {
            Some(sid) => self.viewer(sid, class),
            None if is_media => {
                let name = unnamed(rest)?;
                self.viewer(&name, class)
            }
            None => return Some(()),
        };
        let window = self.window;
        let starved = is_media && self.starved.find(query).is_some();
        let viewer = &mut self.viewers[viewer];
        viewer.seen = viewer.seen.max(seen);
        let row = &mut self.classes[class as usize].row;
        row.starved += u32::from(starved && viewer.starved != window);
        if starved {
            viewer.starved = window;
        }
        if is_media {
            row.requests += 1;
            row.bytes += if status / 100 == 2 { bytes } else { 0 };
        }
        Some(())
    }

    /// Ends the window, begins the one that ends at `next`.
    pub(crate) fn close(&mut self, next: u64) {
        for viewer in self.viewers.iter().filter(|viewer| viewer.length > 0) {
            if self.window.saturating_sub(viewer.seen) <= 12_000 {
                self.classes[viewer.class as usize].row.viewers += 1;
            }
        }
        for class in &mut self.classes {
            let row = std::mem::take(&mut class.row);
            if row.requests > 0 {
                let name = String::from_utf8_lossy(&class.name);
                self.answer.insert((format!("hls/{name}"), self.window), row);
            }
        }
        self.window = next;
    }

    pub(crate) fn end(mut self) -> Answer {
        self.close(u64::MAX);
        self.answer
    }

    fn class(&mut self, name: &[u8]) -> u32 {
        let mut slot = hash(name) as usize % CLASS_SLOTS;
        loop {
            let class = &mut self.classes[slot];
            if class.name == name {
                return slot as u32;
            }
            if class.name.is_empty() {
                class.name = name.to_vec();
                return slot as u32;
            }
            slot = (slot + 1) % CLASS_SLOTS;
        }
    }

    fn viewer(&mut self, name: &[u8], class: u32) -> usize {
        let mut slot = hash(name) as usize % SLOTS;
        loop {
            let viewer = &mut self.viewers[slot];
            if viewer.length == name.len() && viewer.name[..viewer.length] == *name {
                return slot;
            }
            if viewer.length == 0 {
                viewer.name[..name.len()].copy_from_slice(name);
                (viewer.length, viewer.class) = (name.len(), class);
                return slot;
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// The values before the path.
struct Head<'a> {
    at: u64,
    seen: u64,
    status: u64,
    bytes: u64,
    rest: &'a [u8],
}

#[inline]
fn head(line: &[u8]) -> Option<Head<'_>> {
    let (seconds, rest) = number(line)?;
    let (millis, rest) = number(rest.strip_prefix(b".")?)?;
    let (whole, rest) = number(rest.strip_prefix(b",\"rt\":")?)?;
    let (part, rest) = number(rest.strip_prefix(b".")?)?;
    let (status, rest) = number(rest.strip_prefix(b",\"st\":")?)?;
    let (bytes, rest) = number(rest.strip_prefix(b",\"b\":")?)?;
    let at = seconds * 1_000 + millis;
    Some(Head { at, seen: at - whole * 1_000 - part, status, bytes, rest })
}

/// Who has no name goes by address and agent; a print of the agent is enough.
fn unnamed(rest: &[u8]) -> Option<[u8; 24]> {
    let rest = rest.strip_prefix(b"\",\"s\":\"\",\"r\":\"\",\"o\":\"\",\"a\":\"\",\"ip\":\"")?;
    let quote = memchr(b'"', rest)?;
    let agent = rest[quote..].strip_prefix(b"\",\"ua\":\"")?;
    let mut name = [0; 24];
    let length = quote.min(16);
    name[..length].copy_from_slice(&rest[..length]);
    name[16..].copy_from_slice(&hash(agent).to_ne_bytes());
    Some(name)
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    let mut at = 0;
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value * 10 + u64::from(digit);
        at += 1;
    }
    (at > 0).then(|| (value, &text[at..]))
}

/// Quick and unkeyed: eight bytes at a step.
fn hash(text: &[u8]) -> u64 {
    let mut hash = text.len() as u64;
    let (words, rest) = text.as_chunks::<8>();
    let mut mix = |word: u64| {
        let wide = u128::from(hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        hash = (wide >> 64) as u64 ^ wide as u64;
    };
    for word in words {
        mix(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(u64::from_le_bytes(last));
    hash
}

const SLOTS: usize = 1 << 15;
const CLASS_SLOTS: usize = 1 << 9;
