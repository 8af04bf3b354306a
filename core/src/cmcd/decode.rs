//! Decodes a CMCD payload into a [`Cmcd`]: which key takes which type of value. A malformed pair is counted and
//! skipped.

use super::report::{Cmcd, Event, List, MAX_CID, MAX_SID, ObjectType, State};
use super::structured_field::{Code, Cursor, NotPlain, Read, code};

/// The keys that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Sid,
    Cid,
    Bl,
    Br,
    Bs,
    Bsa,
    Bsd,
    Bsda,
    D,
    Dl,
    Mtp,
    Ot,
    Pr,
    Rtp,
    Sf,
    St,
    Su,
    Tb,
    V,
    Sta,
    Ts,
    E,
    Sn,
    Ltc,
    Msd,
    Pt,
    Bg,
    Dfa,
    Ec,
    Nr,
    /// Any other.
    Other,
}

impl<'a> Cmcd<'a> {
    /// Reads all pairs of a dictionary.
    pub(crate) fn read<const ENCODED: bool>(&mut self, mut at: Cursor<'a, ENCODED>) -> Result<(), NotPlain> {
        loop {
            at = at.without_blanks();
            if at.is_at_end() {
                return Ok(());
            }
            let Some((code, after)) = at.key() else {
                at = self.skip_malformed(at);
                continue;
            };
            let key = Key::of(code);
            at = if let Some(value) = after.after(b'=') {
                match self.take(key, value)?.and_then(Cursor::after_separator) {
                    Some(next) => next,
                    None => self.skip_value(value, after),
                }
            } else if let Some(next) = after.after_separator() {
                self.set_flag(key);
                next
            } else {
                self.skip_malformed(after)
            };
        }
    }

    /// Skips a value that was not taken and counts it as malformed.
    fn skip_value<const ENCODED: bool>(
        &mut self,
        value: Cursor<'a, ENCODED>,
        key: Cursor<'a, ENCODED>,
    ) -> Cursor<'a, ENCODED> {
        let Some(next) = value.after_value().and_then(Cursor::after_separator) else {
            return self.skip_malformed(key);
        };
        self.malformed = self.malformed.saturating_add(1);
        next
    }

    fn skip_malformed<const ENCODED: bool>(&mut self, at: Cursor<'a, ENCODED>) -> Cursor<'a, ENCODED> {
        self.malformed = self.malformed.saturating_add(1);
        at.after_comma()
    }

    /// Reads one value and returns the position after it; `None` when it is malformed.
    #[inline]
    fn take<const ENCODED: bool>(
        &mut self,
        key: Key,
        value: Cursor<'a, ENCODED>,
    ) -> Result<Option<Cursor<'a, ENCODED>>, NotPlain> {
        Ok(match key {
            Key::Sid => keep(&mut self.sid, value.text(MAX_SID)?),
            Key::Cid => keep(&mut self.cid, value.text(MAX_CID)?),
            Key::Bl => keep_list(&mut self.bl, value, false),
            Key::Br => keep_list(&mut self.br, value, false),
            Key::Bs => flag(value, |flag| self.bs = flag),
            Key::Bsa => keep_list(&mut self.bsa, value, false),
            Key::Bsd => keep_list(&mut self.bsd, value, true),
            Key::Bsda => keep_list(&mut self.bsda, value, false),
            Key::D => keep(&mut self.d, value.number()),
            Key::Dl => keep(&mut self.dl, value.number()),
            Key::Mtp => keep_list(&mut self.mtp, value, false),
            Key::Ot => keep(&mut self.ot, token(value, |code, _| object_type(code))),
            Key::Pr => keep(&mut self.pr_thousandths, value.thousandths()),
            Key::Rtp => keep(&mut self.rtp, value.number()),
            Key::Sf => keep(&mut self.sf, token(value, |_, first| Some(first))),
            Key::St => keep(&mut self.live, token(value, |_, first| Some(first == b'l'))),
            Key::Su => flag(value, |flag| self.su = flag),
            Key::Tb => keep_list(&mut self.tb, value, false),
            Key::V => keep(&mut self.v, value.number()),
            Key::Sta => keep(&mut self.sta, token(value, |code, _| state(code))),
            Key::Ts => keep(&mut self.ts, value.long()),
            Key::E => keep(&mut self.e, token(value, |code, _| Some(event(code)))),
            Key::Sn => keep(&mut self.sn, value.number()),
            Key::Ltc => keep(&mut self.ltc, value.number()),
            Key::Msd => keep(&mut self.msd, value.number()),
            Key::Pt => keep(&mut self.pt, value.long()),
            Key::Bg => flag(value, |flag| self.bg = Some(flag)),
            Key::Dfa => keep(&mut self.dfa, value.number()),
            Key::Ec => {
                self.ec = true;
                value.after_value()
            }
            Key::Nr => flag(value, |flag| self.nr = flag),
            Key::Other => value.after_value(),
        })
    }

    /// A key without a value is a flag that is set; where the key takes another type of value it is malformed.
    fn set_flag(&mut self, key: Key) {
        match key {
            Key::Bs => self.bs = true,
            Key::Su => self.su = true,
            Key::Bg => self.bg = Some(true),
            Key::Ec => self.ec = true,
            Key::Nr => self.nr = true,
            Key::Other => {}
            _ => self.malformed = self.malformed.saturating_add(1),
        }
    }
}

impl Key {
    /// One lookup in a perfect hash table: no two keys share a slot.
    #[inline]
    fn of(code: Code) -> Self {
        let (wanted, key) = SLOTS[slot(code, MULTIPLIER)];
        if wanted == code { key } else { Self::Other }
    }
}

#[inline]
const fn slot(code: Code, multiplier: u64) -> usize {
    (code.wrapping_mul(multiplier) >> 57) as usize
}

/// The first odd factor that gives each key a slot of its own.
const MULTIPLIER: u64 = {
    let mut multiplier = 0x9e37_79b9_7f4a_7c15_u64;
    while !is_perfect(multiplier) {
        multiplier = multiplier.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    }
    multiplier
};

const fn is_perfect(multiplier: u64) -> bool {
    let (mut seen, mut at) = (0_u128, 0);
    while at < KEYS.len() {
        let bit = 1 << slot(KEYS[at].0, multiplier);
        if seen & bit != 0 {
            return false;
        }
        (seen, at) = (seen | bit, at + 1);
    }
    true
}

const SLOTS: [(Code, Key); 128] = {
    let (mut places, mut at) = ([(0, Key::Other); 128], 0);
    while at < KEYS.len() {
        places[slot(KEYS[at].0, MULTIPLIER)] = KEYS[at];
        at += 1;
    }
    places
};

const KEYS: [(Code, Key); 30] = [
    (code(b"sid"), Key::Sid),
    (code(b"cid"), Key::Cid),
    (code(b"bl"), Key::Bl),
    (code(b"br"), Key::Br),
    (code(b"bs"), Key::Bs),
    (code(b"bsa"), Key::Bsa),
    (code(b"bsd"), Key::Bsd),
    (code(b"bsda"), Key::Bsda),
    (code(b"d"), Key::D),
    (code(b"dl"), Key::Dl),
    (code(b"mtp"), Key::Mtp),
    (code(b"ot"), Key::Ot),
    (code(b"pr"), Key::Pr),
    (code(b"rtp"), Key::Rtp),
    (code(b"sf"), Key::Sf),
    (code(b"st"), Key::St),
    (code(b"su"), Key::Su),
    (code(b"tb"), Key::Tb),
    (code(b"v"), Key::V),
    (code(b"sta"), Key::Sta),
    (code(b"ts"), Key::Ts),
    (code(b"e"), Key::E),
    (code(b"sn"), Key::Sn),
    (code(b"ltc"), Key::Ltc),
    (code(b"msd"), Key::Msd),
    (code(b"pt"), Key::Pt),
    (code(b"bg"), Key::Bg),
    (code(b"dfa"), Key::Dfa),
    (code(b"ec"), Key::Ec),
    (code(b"nr"), Key::Nr),
];

#[inline]
fn keep<'a, T, const ENCODED: bool>(slot: &mut Option<T>, read: Read<'a, T, ENCODED>) -> Option<Cursor<'a, ENCODED>> {
    let (value, after) = read?;
    *slot = Some(value);
    Some(after)
}

#[inline]
fn flag<const ENCODED: bool>(value: Cursor<'_, ENCODED>, put: impl FnOnce(bool)) -> Option<Cursor<'_, ENCODED>> {
    let (flag, after) = value.boolean()?;
    put(flag);
    Some(after)
}

/// The meaning of a token, by its code or its first letter.
#[inline]
fn token<T, const ENCODED: bool>(
    value: Cursor<'_, ENCODED>,
    meaning: impl FnOnce(Code, u8) -> Option<T>,
) -> Read<'_, T, ENCODED> {
    let ((code, first), after) = value.token()?;
    meaning(code, first).map(|value| (value, after))
}

#[inline]
fn keep_list<'a, const ENCODED: bool>(
    slot: &mut List,
    value: Cursor<'a, ENCODED>,
    sums: bool,
) -> Option<Cursor<'a, ENCODED>> {
    let (list, after) = match value.after(b'(') {
        Some(inside) => list(inside, sums)?,
        None => value.number().map(|(plain, after)| (List { plain: Some(plain), ..List::default() }, after))?,
    };
    *slot = list;
    Some(after)
}

fn list<const ENCODED: bool>(mut at: Cursor<'_, ENCODED>, sums: bool) -> Read<'_, List, ENCODED> {
    let mut out = List::default();
    loop {
        at = at.without_blanks();
        if let Some(after) = at.after(b')') {
            return Some((out, after));
        }
        let ((value, kind), after) = at.item()?;
        at = after;
        let slot = match kind {
            None | Some(AV) => &mut out.plain,
            Some(VIDEO) => &mut out.video,
            Some(AUDIO) => &mut out.audio,
            Some(_) => continue,
        };
        let more = value?;
        *slot = Some(if sums { slot.unwrap_or(0).saturating_add(more) } else { more });
    }
}

fn object_type(token: Code) -> Option<ObjectType> {
    const MANIFEST: Code = code(b"m");
    const INIT: Code = code(b"i");
    const OTHERS: [Code; 4] = [code(b"c"), code(b"tt"), code(b"k"), code(b"o")];
    Some(match token {
        MANIFEST => ObjectType::Manifest,
        AUDIO => ObjectType::Audio,
        VIDEO => ObjectType::Video,
        AV => ObjectType::Muxed,
        INIT => ObjectType::Init,
        other if OTHERS.contains(&other) => ObjectType::Other,
        _ => return None,
    })
}

fn state(token: Code) -> Option<State> {
    Some(match u8::try_from(token).ok()? {
        b's' => State::Starting,
        b'p' => State::Playing,
        b'k' => State::Seeking,
        b'r' => State::Rebuffering,
        b'a' => State::Paused,
        b'e' | b'f' | b'q' => State::Over,
        b'd' | b'w' => State::Preloading,
        _ => return None,
    })
}

fn event(token: Code) -> Event {
    const PLAY_STATE: Code = code(b"ps");
    const INTERVAL: Code = code(b"t");
    const RESPONSE: Code = code(b"rr");
    const BACKGROUND: Code = code(b"b");
    match token {
        PLAY_STATE => Event::PlayState,
        INTERVAL => Event::Interval,
        RESPONSE => Event::Response,
        BACKGROUND => Event::Background,
        _ => Event::Other,
    }
}

const AUDIO: Code = code(b"a");
const VIDEO: Code = code(b"v");
const AV: Code = code(b"av");
