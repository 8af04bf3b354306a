//! The `tracestate` of the platform's trace context. Decides whether one is valid (W3C Trace Context, level 1, section
//! 3.3); one malformed member refuses the whole list, as the recommendation demands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A valid, non-empty `tracestate`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceState(Arc<str>);

/// A `tracestate` that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tracestate is not a list of at most {MAX_MEMBERS} key=value members in {MAX_BYTES} bytes")]
pub struct TraceStateError;

impl TraceState {
    /// Reads the header's text; empty members are left out.
    ///
    /// ```
    /// use liveqos_core::model::TraceState;
    /// assert_eq!(TraceState::parse(" vendor=1 , ,ot=th:c").unwrap().as_str(), "vendor=1,ot=th:c");
    /// assert!(TraceState::parse("Vendor=1").is_err());
    /// ```
    ///
    /// # Errors
    /// [`TraceStateError`], also where nothing is in it.
    pub fn parse(text: &str) -> Result<Self, TraceStateError> {
        if text.len() > MAX_BYTES {
            return Err(TraceStateError);
        }
        let members: Vec<&str> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
        let mut keys: Vec<&str> = members.iter().filter_map(|member| key(member)).collect();
        keys.sort_unstable();
        let twice = keys.windows(2).any(|pair| pair[0] == pair[1]);
        if members.is_empty() || members.len() > MAX_MEMBERS || keys.len() < members.len() || twice {
            return Err(TraceStateError);
        }
        Ok(Self(members.join(",").into()))
    }

    /// The list, without blanks between its members.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of a valid member.
fn key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let (tenant, system) = key.split_once('@').map_or((None, key), |(tenant, system)| (Some(tenant), system));
    let valid = |text: &str, most: usize, digit_first: bool| {
        let first = |c: u8| c.is_ascii_lowercase() || (digit_first && c.is_ascii_digit());
        let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/".contains(&c);
        text.len() <= most && text.bytes().next().is_some_and(first) && text.bytes().all(rest)
    };
    let good = match tenant {
        Some(tenant) => valid(tenant, 241, true) && valid(system, 14, false),
        None => valid(system, 256, false),
    };
    let printable = |c: u8| (0x20..0x7f).contains(&c) && c != b'=' && c != b',';
    let valued = (1..=256).contains(&value.len()) && value.bytes().all(printable);
    (good && valued).then_some(key)
}

impl fmt::Debug for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceState({})", self.0)
    }
}

impl Serialize for TraceState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TraceState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Longest list kept: what the recommendation asks vendors to propagate at least.
pub(super) const MAX_BYTES: usize = 512;
/// Most members of a list.
pub(super) const MAX_MEMBERS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_and_bad_lists() {
        for good in ["a=1", "ot=th:c;rv:0123456789abcd", "1t@sys=x y", "a-b_c*/=~!"] {
            assert_eq!(TraceState::parse(good).expect(good).as_str(), good);
        }
        let many = vec!["a=1"; 33].join(",");
        let long = format!("a={}", "x".repeat(257));
        for bad in ["", " , ", "a", "A=1", "a=", "a=1=2", "1a=1", "a=1,a=2", "a=\u{7f}", "a@1=1", &many, &long] {
            assert!(TraceState::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9=,@ _;:\\-\\PC]{0,60}") {
            if let Ok(state) = TraceState::parse(&text) {
                prop_assert_eq!(TraceState::parse(state.as_str()), Ok(state));
            }
        }
    }
}
