//! Timestamps as RFC 3339 text in UTC with milliseconds, for alerts and logs.

use liveqos_core::model::Timestamp;

/// `at` as text, such as `2026-11-23T09:30:05.250Z`.
#[must_use]
pub(crate) fn text(at: Timestamp) -> String {
    let millis = i64::try_from(at.millis()).unwrap_or(i64::MAX);
    let instant = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{instant:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_404_439, "2026-11-23T03:27:19.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(text(Timestamp::from_secs(seconds)), expected);
        }
    }
}
