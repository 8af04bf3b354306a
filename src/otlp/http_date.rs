//! `Retry-After`, which is a number of seconds or a date. Decides the delay of a date by the answer's own `Date`, so that a
//! wrong clock on either side does no harm; refuses a date without one.

use std::time::Duration;

/// The delay that `Retry-After` asks for (RFC 9110, section 10.2.3); `date` is the answer's `Date`. A date in the past is no
/// delay; `None` where it cannot be read.
#[must_use]
pub fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (then, now) = (unix_seconds(value)?, unix_seconds(date?)?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// Seconds since the Unix epoch of an HTTP-date in one of its three forms (RFC 9110, section 5.6.7):
/// `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`.
fn unix_seconds(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let ([_, day, month, year, time, "GMT"] | [_, month, day, time, year]) = words[..] else {
        return None;
    };
    let day: u64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year = match (year.len(), year.parse::<u64>().ok()?) {
        (4, year) => year,
        // Two digits are of this century: the form was obsolete before it began, and only delays matter here.
        (2, year) => 2_000 + year,
        _ => return None,
    };
    let mut clock = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let good = year >= 1970 && hour < 24 && minute < 60 && second <= 60 && clock.next().is_none();
    good.then(|| days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_TO_EPOCH
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Days from 1 March of year 0 to 1 January 1970.
const DAYS_TO_EPOCH: u64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_forms_of_one_instant() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(unix_seconds(text), Some(784_111_777), "{text}");
        }
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Monday, 23-Nov-26 00:00:00 GMT", 1_795_392_000),
            ("Sun, 01 Mar 2026 00:00:00 GMT", 1_772_323_200),
        ] {
            assert_eq!(unix_seconds(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn delays() {
        let date = Some("Mon, 23 Nov 2026 10:00:00 GMT");
        assert_eq!(retry_after(" 7 ", None), Some(Duration::from_secs(7)));
        let later = "Mon, 23 Nov 2026 10:02:05 GMT";
        assert_eq!(retry_after(later, date), Some(Duration::from_secs(125)));
        assert_eq!(retry_after(later, None), None);
        assert_eq!(retry_after("Sun, 22 Nov 2026 10:00:00 GMT", date), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "Mon, 32 Nov 2026 10:00:00 GMT", "Mon, 23 Nov 1926 10:00:00 GMT"] {
            assert_eq!(retry_after(bad, date), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A-Za-z0-9 ,:-]{0,40}") {
            prop_assert!(retry_after(&text, Some(&text)).is_none_or(|delay| delay.subsec_nanos() == 0));
        }
    }
}
