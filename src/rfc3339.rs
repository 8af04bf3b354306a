//! Instants as RFC 3339 text in UTC, for notices and logs. Decides the civil date by days since the epoch; refuses nothing.

use liveqos_core::time::Timestamp;

/// `2026-11-23T09:30:05.250Z`.
#[must_use]
pub fn text(at: Timestamp) -> String {
    let millis = at.millis();
    let (days, of_day) = (millis / DAY_MILLIS, millis % DAY_MILLIS);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1_000)
}

/// Year, month and day of a day number since 1970-01-01 (proleptic Gregorian): whole eras of 400 years from 0000-03-01, so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_march = days + DAYS_TO_EPOCH;
    let (era, of_era) = (from_march / ERA_DAYS, from_march % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

const DAY_MILLIS: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: u64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, text_of) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_404_439, "2026-11-23T03:27:19.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(text(Timestamp::from_secs(seconds)), text_of);
        }
    }
}
