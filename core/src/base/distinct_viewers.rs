//! A sketch of distinct viewers that merges across nodes: exact keyed hashes up to 256, beyond that a `HyperLogLog` of
//! 4,096 registers. The count is Ertl's estimator (arXiv 1702.01284), which needs no correction table.

use serde::{Deserialize, Serialize};

use super::hex;

/// Viewers of one class at one time. Merges only with sketches under the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ViewerSketch {
    /// Up to [`MAX_EXACT`] hashes, sorted.
    Exact(Vec<u64>),
    /// For each prefix of a hash the highest rank seen: one more than the number of zeros that follow.
    Registers(Box<[u8; REGISTERS]>),
}

/// Why bytes are not a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading a sketch of viewers: {0}")]
pub struct SketchError(&'static str);

/// As text: the bytes of [`ViewerSketch::to_bytes`] in hexadecimal.
impl From<ViewerSketch> for String {
    fn from(sketch: ViewerSketch) -> Self {
        hex::encode(&sketch.to_bytes())
    }
}

impl TryFrom<String> for ViewerSketch {
    type Error = SketchError;
    fn try_from(text: String) -> Result<Self, SketchError> {
        let bytes = hex::decode(text.as_bytes()).ok_or(SketchError("it is not pairs of hexadecimal digits"))?;
        Self::from_bytes(&bytes)
    }
}

impl Default for ViewerSketch {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl ViewerSketch {
    /// Adds a viewer by its keyed hash.
    pub fn insert(&mut self, hash: u64) {
        match self {
            Self::Registers(registers) => raise_register(registers, hash),
            Self::Exact(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else {
                    return;
                };
                if hashes.len() < MAX_EXACT {
                    hashes.insert(at, hash);
                    return;
                }
                let mut registers = Box::new([0; REGISTERS]);
                for hash in hashes.iter().chain([&hash]) {
                    raise_register(&mut registers, *hash);
                }
                *self = Self::Registers(registers);
            }
        }
    }

    /// Adds the viewers of another sketch; a viewer in both counts once.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Exact(hashes)) => hashes.iter().for_each(|hash| self.insert(*hash)),
            (Self::Registers(registers), Self::Registers(others)) => {
                for (register, other) in registers.iter_mut().zip(others.iter()) {
                    *register = (*register).max(*other);
                }
            }
            (Self::Exact(_), Self::Registers(_)) => {
                let exact = std::mem::replace(self, other.clone());
                self.merge(&exact);
            }
        }
    }

    /// Number of viewers: exact up to 256, else with a standard error of 1.6 %.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Exact(hashes) => hashes.len() as u64,
            Self::Registers(registers) => estimate(registers).round() as u64,
        }
    }

    /// The form sent to other nodes: one byte for the form, then either hashes of eight bytes, little-endian and
    /// ascending (form 1), or 4,096 registers of six bits, lowest bits first, in 3,072 bytes (form 2).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Exact(hashes) => {
                std::iter::once(1).chain(hashes.iter().flat_map(|hash| hash.to_le_bytes())).collect()
            }
            Self::Registers(registers) => {
                let (fours, _) = registers.as_chunks::<4>();
                let packed = fours.iter().flat_map(|[a, b, c, d]| [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2]);
                std::iter::once(2).chain(packed).collect()
            }
        }
    }

    /// Reads the bytes of [`ViewerSketch::to_bytes`].
    ///
    /// # Errors
    /// [`SketchError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        match bytes.split_first() {
            Some((1, hashes)) => {
                let (hashes, []) = hashes.as_chunks::<8>() else {
                    return Err(SketchError("a hash is cut short"));
                };
                let hashes: Vec<_> = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
                let is_good = hashes.len() <= MAX_EXACT && hashes.is_sorted_by(|a, b| a < b);
                is_good.then_some(Self::Exact(hashes)).ok_or(SketchError("hashes are too many or not in order"))
            }
            Some((2, packed)) if packed.len() == REGISTERS / 4 * 3 => {
                let (threes, _) = packed.as_chunks::<3>();
                let mut registers = Box::new([0; REGISTERS]);
                let (fours, _) = registers.as_chunks_mut::<4>();
                for (four, [a, b, c]) in fours.iter_mut().zip(threes) {
                    *four = [a & 63, (a >> 6 | b << 2) & 63, (b >> 4 | c << 4) & 63, c >> 2];
                }
                let is_good = registers.iter().all(|rank| *rank <= MAX_RANK);
                is_good.then_some(Self::Registers(registers)).ok_or(SketchError("a register is too high"))
            }
            Some((2, _)) => Err(SketchError("there are not 4,096 registers")),
            _ => Err(SketchError("its form is unknown")),
        }
    }
}

fn raise_register(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = &mut registers[(hash >> (64 - PRECISION)) as usize];
    let rank = (hash << PRECISION | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
    *register = (*register).max(rank);
}

fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let mut counts = [0_u32; MAX_RANK as usize + 1];
    for rank in registers {
        counts[usize::from(*rank)] += 1;
    }
    let whole = REGISTERS as f64;
    let [zeros, ranks @ .., highest] = &counts;
    let mut sum = whole * tau(1.0 - f64::from(*highest) / whole);
    for count in ranks.iter().rev() {
        sum = 0.5 * (sum + f64::from(*count));
    }
    sum += whole * sigma(f64::from(*zeros) / whole);
    whole * whole / (2.0 * std::f64::consts::LN_2 * sum)
}

/// Contribution of the registers that are still zero (Ertl's σ).
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let previous = z;
        z += x * y;
        y += y;
        if z <= previous {
            return z;
        }
    }
}

/// Contribution of the registers at the highest rank (Ertl's τ).
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let previous = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= previous {
            return z / 3.0;
        }
    }
}

/// Most viewers kept exactly.
pub(super) const MAX_EXACT: usize = 256;
const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
const MAX_RANK: u8 = (64 - PRECISION) as u8 + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::keyed_hash::sip_hash;

    fn of(viewers: std::ops::Range<u64>) -> ViewerSketch {
        let mut sketch = ViewerSketch::default();
        viewers.for_each(|viewer| sketch.insert(sip_hash([1, 2], &[&viewer.to_le_bytes()])));
        sketch
    }

    #[test]
    fn few_are_exact_and_many_are_estimated() {
        assert_eq!((of(0..0).count(), of(0..200).count(), of(0..256).count()), (0, 200, 256));
        for many in [257, 1_000, 5_000, 10_000, 20_000, 100_000, 1_000_000] {
            let error = of(0..many).count() as f64 / many as f64 - 1.0;
            assert!(error.abs() < 0.05, "{many}: {error}");
        }
    }

    #[test]
    fn the_standard_error_is_as_expected_and_without_bias() {
        for many in [300_u64, 2_000, 20_000] {
            let runs = 60;
            let error = |run: u64| of(run << 32..(run << 32) + many).count() as f64 / many as f64 - 1.0;
            let errors: Vec<_> = (0..runs).map(error).collect();
            let mean = errors.iter().sum::<f64>() / runs as f64;
            let deviation = (errors.iter().map(|error| error * error).sum::<f64>() / runs as f64).sqrt();
            assert!(deviation < 0.0225, "{many} viewers: {deviation}, 1.04 / 64 is 0.01625");
            assert!(mean.abs() < 0.0075, "{many} viewers: bias {mean}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_merge_is_the_sketch_of_all(a in 0_u64..2_000, b in 0_u64..2_000, length in 0_u64..1_000) {
            let (one, other) = (of(a..a + length), of(b..b + length / 2));
            let mut both = one.clone();
            both.merge(&other);
            let mut turned = other;
            turned.merge(&one);
            prop_assert_eq!(&both, &turned);
            let mut all = one;
            (b..b + length / 2).for_each(|viewer| all.insert(sip_hash([1, 2], &[&viewer.to_le_bytes()])));
            prop_assert_eq!(&both, &all);
            prop_assert_eq!(ViewerSketch::from_bytes(&both.to_bytes()), Ok(both));
        }

        #[test]
        fn any_bytes_are_a_sketch_or_refused(form in 0_u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..100), repeated in 0..40_usize) {
            let all: Vec<_> = std::iter::once(form).chain(bytes.repeat(repeated)).collect();
            if let Ok(sketch) = ViewerSketch::from_bytes(&all) {
                prop_assert_eq!(sketch.to_bytes(), all);
                prop_assert!(sketch.count() < u64::MAX);
            }
        }
    }
}
