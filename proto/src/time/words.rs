//! Times as people write them: lengths of time, and the calendar.

use super::{Duration, WallTime};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A length of time in its largest unit, to the nearest: `20 seconds`, `3 minutes`, `1 day`.
pub fn in_words(length: Duration) -> String {
    let seconds = length.as_secs();
    let nearest = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    let (count, unit) = if seconds < 2 * MINUTE && seconds != MINUTE {
        (seconds, "second")
    } else if nearest(MINUTE) < 120 && nearest(MINUTE) != 60 {
        (nearest(MINUTE), "minute")
    } else if nearest(HOUR) < 48 && nearest(HOUR) != 24 {
        (nearest(HOUR), "hour")
    } else {
        (nearest(DAY), "day")
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A calendar time as RFC 3339 has it, in UTC.
pub fn rfc3339(time: WallTime) -> String {
    let (days, seconds) = (time.as_secs() / DAY, time.as_secs() % DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / HOUR, seconds / MINUTE % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970: counted in eras
/// of 400 years that begin on 1 March, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_written_in_the_unit_that_people_would_use() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (90, "90 seconds"),
            (150, "3 minutes"),
            (3600, "1 hour"),
            (5400, "90 minutes"),
            (86_400, "1 day"),
            (90_000, "25 hours"),
            (172_800, "2 days"),
            (1_209_600, "14 days"),
            (29 * 86_400 + 7, "29 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_334_916, "2026-11-22T08:08:36Z"),
        ] {
            assert_eq!(rfc3339(WallTime(seconds)), text);
        }
    }
}
