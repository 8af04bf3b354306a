//! The platform's W3C trace context of a class. Decides whether a `traceparent` is valid (W3C Trace Context, level 1,
//! section 3.2); zero ids and unknown forms are refused, so that no span has a broken parent.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::hex::{self, Hex};

/// A valid `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace's id, never all zero.
    pub trace_id: [u8; 16],
    /// The id of the platform's span that is the class's parent, never all zero.
    pub parent_id: [u8; 8],
    /// Trace flags; bit 0 is *sampled*.
    pub flags: u8,
}

/// Why a `traceparent` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceParentError {
    /// Not `version-traceid-parentid-flags` in lower-case hexadecimal.
    #[error("traceparent is not of the form 00-<32 hex>-<16 hex>-<2 hex>")]
    Form,
    /// Version 255 is forbidden.
    #[error("traceparent has the forbidden version ff")]
    Version,
    /// The trace id or the parent id is all zero.
    #[error("traceparent has an all-zero id")]
    Zero,
}

impl TraceParent {
    /// Reads the header's text.
    ///
    /// ```
    /// use liveqos_core::model::TraceParent;
    /// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
    /// ```
    ///
    /// # Errors
    /// [`TraceParentError`]; later versions are read by their first four fields, as the recommendation asks.
    pub fn parse(text: &str) -> Result<Self, TraceParentError> {
        let bytes = text.trim().as_bytes();
        let dashes = bytes.len() >= 55 && bytes[2] == b'-' && bytes[35] == b'-' && bytes[52] == b'-';
        if !dashes {
            return Err(TraceParentError::Form);
        }
        let version = lower_hex::<1>(&bytes[0..2])?[0];
        match version {
            0xff => return Err(TraceParentError::Version),
            0 if bytes.len() != 55 => return Err(TraceParentError::Form),
            _ if bytes.len() > 55 && bytes[55] != b'-' => return Err(TraceParentError::Form),
            _ => {}
        }
        let parent = Self {
            trace_id: lower_hex(&bytes[3..35])?,
            parent_id: lower_hex(&bytes[36..52])?,
            flags: lower_hex::<1>(&bytes[53..55])?[0],
        };
        if parent.trace_id == [0; 16] || parent.parent_id == [0; 8] {
            return Err(TraceParentError::Zero);
        }
        Ok(parent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", Hex(&self.trace_id), Hex(&self.parent_id), Hex(&[self.flags]))
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

impl Serialize for TraceParent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The `N` bytes of lower-case `digits`.
fn lower_hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], TraceParentError> {
    let is_lower = !digits.iter().any(u8::is_ascii_uppercase);
    hex::decode_array(digits).filter(|_| is_lower).ok_or(TraceParentError::Form)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn invalid_forms_are_named() {
        let cases = [
            ("", TraceParentError::Form),
            (&GOOD[..54], TraceParentError::Form),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", TraceParentError::Form),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceParentError::Version),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", TraceParentError::Zero),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", TraceParentError::Zero),
        ];
        for (text, error) in cases {
            assert_eq!(TraceParent::parse(text), Err(error), "{text}");
        }
        assert!(TraceParent::parse(&format!("{GOOD}-more")).is_err(), "version 00 has exactly four fields");
        assert!(TraceParent::parse(&format!("01{}-more", &GOOD[2..])).is_ok(), "later versions may have more");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            if let Ok(parent) = TraceParent::parse(&text) {
                prop_assert_eq!(TraceParent::parse(&parent.to_string()), Ok(parent));
            }
        }
    }
}
