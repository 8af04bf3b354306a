//! Durations as text in the configuration: `5s`, `250ms`, `1m30s`. A number without a unit is an error, so that nobody
//! has to guess the unit.
//!
//! For serde: `#[serde(with = "duration")]`, for an `Option` `#[serde(default, with = "duration::option")]`, both with
//! `#[schemars(schema_with = "duration::schema")]`.

use std::time::Duration;

use serde::{Deserializer, Serializer};

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// The text is empty.
    #[error("a duration is empty; write it like \"5s\" or \"250ms\"")]
    Empty,
    /// A number without a unit.
    #[error("duration \"{0}\" has no unit; write it like \"{0}s\" or \"{0}ms\"")]
    NoUnit(String),
    /// A unit that does not follow a whole number.
    #[error("duration \"{0}\" is not a whole number and a unit; write it like \"5s\" or \"250ms\"")]
    NoNumber(String),
    /// An unknown unit.
    #[error("duration \"{text}\" has the unknown unit \"{unit}\"; known are ns, us, ms, s, m, h, d")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The unit.
        unit: String,
    },
    /// More than a [`Duration`] can hold.
    #[error("duration \"{0}\" is too large")]
    TooLong(String),
}

/// Parses `text`: one or more whole numbers, each with a unit (`ns`, `us`, `ms`, `s`, `m`, `h`, `d`), added up.
///
/// # Errors
/// [`DurationError`], which quotes the text and shows the right form.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let whole = || shortened(text);
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        match (number.is_empty(), unit.is_empty()) {
            (false, true) if after.is_empty() => return Err(DurationError::NoUnit(whole())),
            (true, _) | (_, true) => return Err(DurationError::NoNumber(whole())),
            (false, false) => {}
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let unit = shortened(unit);
            return Err(DurationError::UnknownUnit { text: whole(), unit });
        };
        let part = number.parse::<u128>().ok().and_then(|number| number.checked_mul(*factor));
        nanos = part.and_then(|part| nanos.checked_add(part)).ok_or_else(|| DurationError::TooLong(whole()))?;
        rest = after.trim_start();
    }
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).map_err(|_| DurationError::TooLong(whole()))?;
    // The remainder is below 10^9, so it fits.
    Ok(Duration::new(seconds, (nanos % NANOS_PER_SECOND) as u32))
}

/// `duration` in the largest unit in which it is a whole number; [`parse`] reverses it.
#[must_use]
pub(crate) fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (name, factor) = UNITS.iter().rev().find(|(_, factor)| nanos.is_multiple_of(*factor)).unwrap_or(&UNITS[0]);
    format!("{}{name}", nanos / factor)
}

/// Serializes as text.
///
/// # Errors
/// Those of the serializer.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// Deserializes from text.
///
/// # Errors
/// Those of the deserializer, and the text of a [`DurationError`].
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl serde::de::Visitor<'_> for Text {
        type Value = Duration;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration as text, such as \"5s\" or \"250ms\"")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text)
}

/// The JSON Schema: text of whole numbers with units.
#[must_use]
pub(crate) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "description": "A duration: whole numbers with a unit each, such as \"5s\", \"250ms\" or \"1m30s\".",
        "pattern": r"^\s*([0-9]+(ns|us|ms|s|m|h|d)\s*)+$",
    })
}

/// `#[serde(with)]` for an `Option<Duration>`.
pub(crate) mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Text(#[serde(with = "super")] Duration);

    /// Serializes as text; `None` as none.
    ///
    /// # Errors
    /// Those of the serializer.
    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(Text).serialize(serializer)
    }

    /// Deserializes from text; absent is `None`.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// The text as an error may quote it: short and without control characters.
fn shortened(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARS).collect()
}

/// Units by name, in nanoseconds, ascending.
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
];
const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// Most characters of a text that an error quotes.
const MAX_QUOTED_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_forms_are_parsed() {
        for (text, millis) in
            [("5s", 5_000), ("250ms", 250), ("1m30s", 90_000), (" 2h 5m ", 7_500_000), ("1d", 86_400_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1500us"), Ok(Duration::from_micros(1_500)));
    }

    #[test]
    fn errors_show_the_right_form() {
        for (text, expected) in [
            ("", "a duration is empty; write it like \"5s\" or \"250ms\""),
            ("5", "duration \"5\" has no unit; write it like \"5s\" or \"5ms\""),
            ("1m5", "duration \"1m5\" has no unit; write it like \"1m5s\" or \"1m5ms\""),
            ("s", "duration \"s\" is not a whole number and a unit; write it like \"5s\" or \"250ms\""),
            ("1.5s", "duration \"1.5s\" is not a whole number and a unit; write it like \"5s\" or \"250ms\""),
            ("-5s", "duration \"-5s\" is not a whole number and a unit; write it like \"5s\" or \"250ms\""),
            ("5sec", "duration \"5sec\" has the unknown unit \"sec\"; known are ns, us, ms, s, m, h, d"),
            ("99999999999999999999999s", "duration \"99999999999999999999999s\" is too large"),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
        }
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize, PartialEq)]
    struct Both {
        #[serde(with = "super")]
        one: Duration,
        #[serde(default, with = "super::option", skip_serializing_if = "Option::is_none")]
        other: Option<Duration>,
    }

    #[test]
    fn toml_round_trip() {
        let both: Both = toml::from_str("one = '5s'\nother = '250ms'").expect("reads");
        assert_eq!((both.one, both.other), (Duration::from_secs(5), Some(Duration::from_millis(250))));
        assert_eq!(toml::to_string(&both).expect("writes"), "one = \"5s\"\nother = \"250ms\"\n");
        assert_eq!(toml::from_str::<Both>("one = '5s'").expect("reads").other, None);
        let error = toml::from_str::<Both>("one = 5").expect_err("a bare number").to_string();
        assert!(error.contains("a duration as text, such as \"5s\""), "{error}");
    }

    proptest! {
        #[test]
        fn every_duration_round_trips(seconds: u64, nanos in 0_u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn whole_units_round_trip(count in 0_u64..100_000, unit in 0_usize..7) {
            let (name, factor) = UNITS[unit];
            let duration = parse(&format!("{count}{name}")).expect("a good text");
            prop_assert_eq!(duration.as_nanos(), u128::from(count) * factor);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&format(duration)), Ok(duration));
            }
        }
    }
}
