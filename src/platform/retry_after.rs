//! The `Retry-After` header of HTTP answers (RFC 9110, section 10.2.3).

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The delay that an answer asks for; `None` where it asks for none, or in a form that cannot be parsed.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    parse(text(RETRY_AFTER)?, text(DATE))
}

/// The delay that `value`, a number of seconds or a date, asks for. A date is compared with the answer's own `Date`, so
/// that a wrong clock on either side does no harm; a date in the past is no delay.
#[must_use]
pub fn parse(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let instant = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let (then, now) = (instant(value)?, instant(date?)?);
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = Some("Mon, 23 Nov 2026 10:00:00 GMT");
        assert_eq!(parse(" 7 ", None), Some(Duration::from_secs(7)));
        let later = ["Mon, 23 Nov 2026 10:02:05 GMT", "Monday, 23-Nov-26 10:02:05 GMT", "Mon Nov 23 10:02:05 2026"];
        for later in later {
            assert_eq!(parse(later, date), Some(Duration::from_secs(125)), "{later}");
        }
        assert_eq!(parse(later[0], None), None);
        assert_eq!(parse("Sun, 22 Nov 2026 10:00:00 GMT", date), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "Mon, 32 Nov 2026 10:00:00 GMT", "2026-11-23T10:00:00Z"] {
            assert_eq!(parse(bad, date), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_delay_or_none(text in "[A-Za-z0-9 ,:-]{0,40}") {
            prop_assert!(parse(&text, Some(&text)).is_none_or(|delay| delay.subsec_nanos() == 0));
        }
    }
}
