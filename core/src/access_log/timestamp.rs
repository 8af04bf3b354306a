//! Reads timestamps of access logs without allocation, in nginx's three forms: Unix seconds, ISO 8601 and the common
//! log format.

use std::time::Duration;

use crate::base::swar::{digit_values, non_digits, parse_eight_digits};

/// Unix seconds with up to nine digits of fraction: `1795404980.817`.
#[must_use]
pub(crate) fn seconds(text: &[u8]) -> Option<Duration> {
    let (mut whole, mut at) = (0_u64, 0);
    if let Some(chunk) = text.first_chunk::<8>().filter(|chunk| non_digits(digit_values(**chunk)) == 0) {
        (whole, at) = (parse_eight_digits(digit_values(*chunk)), 8);
    }
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        whole = whole * 10 + u64::from(digit);
        at += 1;
        if whole >= MAX_SECONDS {
            return None;
        }
    }
    let fraction = match &text[at..] {
        [] => &[],
        [b'.', fraction @ ..] => fraction,
        _ => return None,
    };
    let (mut nanos, mut unit) = (0, 100_000_000);
    for byte in fraction {
        let digit = byte.wrapping_sub(b'0');
        nanos += unit * u32::from((digit < 10).then_some(digit)?);
        unit /= 10;
    }
    (at > 0).then(|| Duration::new(whole, nanos))
}

/// `2026-11-23T13:20:20+01:00`, or with `Z`.
#[must_use]
pub(crate) fn iso(text: &[u8]) -> Option<Duration> {
    let form = |at: usize, byte: u8| text.get(at) == Some(&byte);
    if !(form(4, b'-') && form(7, b'-') && form(10, b'T')) {
        return None;
    }
    let days = days(digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?)?;
    of_day(days, text.get(11..)?)
}

/// `23/Nov/2026:13:20:20 +0000`.
#[must_use]
pub(crate) fn common(text: &[u8]) -> Option<Duration> {
    let month = text.get(3..6)?;
    let month = MONTHS.iter().position(|name| name.as_bytes() == month)? as u64 + 1;
    let days = days(digits(text.get(7..11)?)?, month, digits(&text[..2])?)?;
    (text.get(11) == Some(&b':')).then_some(())?;
    of_day(days, &text[12..])
}

/// Hours, minutes and seconds, then the offset from UTC.
fn of_day(days: u64, text: &[u8]) -> Option<Duration> {
    let clock = |from: usize| digits(text.get(from..from + 2)?);
    let (hours, minutes, seconds) = (clock(0)?, clock(3)?, clock(6)?);
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let local = days * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    let zone = text[8..].trim_ascii();
    let (sign, zone) = zone.split_first()?;
    if *sign == b'Z' {
        return Some(Duration::from_secs(local));
    }
    let offset = digits(zone.get(..2)?)? * 3_600 + digits(&zone[zone.len() - 2..])? * 60;
    let utc = match sign {
        b'+' => local.checked_sub(offset)?,
        b'-' => local + offset,
        _ => return None,
    };
    Some(Duration::from_secs(utc))
}

/// Days since 1970-01-01 by the Gregorian calendar; years 1970 to 9999.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1_970..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1).checked_sub(719_468)
}

/// A whole number of up to 18 digits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Beyond any log, and well within what 64-bit nanoseconds hold.
const MAX_SECONDS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::duration_suboptimal_units, reason = "instants are in seconds")]
    fn the_three_forms_agree() {
        let at = Some(Duration::from_secs(1_795_440_020));
        assert_eq!(seconds(b"1795440020"), at);
        assert_eq!(iso(b"2026-11-23T13:20:20+00:00"), at);
        assert_eq!(iso(b"2026-11-23T13:20:20Z"), at);
        assert_eq!(common(b"23/Nov/2026:14:20:20 +0100"), at);
        assert_eq!(common(b"29/Feb/2024:00:00:00 +0000"), Some(Duration::from_secs(1_709_164_800)));
        assert_eq!(seconds(b"0.25"), Some(Duration::from_millis(250)));
        for bad in [
            &b""[..],
            b"-",
            b"1.x",
            b"x",
            b"23/Nox/2026:14:20:20 +0100",
            b"2026-11-23T",
            b"23/Nov/2026:14:20:20 ",
            b"23/Nov/2026:14:20:20 +",
            b"2026-11-23T13:20:20+0",
        ] {
            assert_eq!((seconds(bad), iso(bad), common(bad)), (None, None, None), "{bad:?}");
        }
    }
}
