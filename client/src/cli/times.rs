//! Times and amounts as people write them, and as they type them.

pub(super) use umbel_proto::time::in_words as length;
use umbel_proto::time::{Duration, WallTime};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// A calendar time as RFC 3339 has it, in UTC.
pub(super) fn rfc3339(time: WallTime) -> String {
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

/// How many of a thing: `1 message`, `2 messages`.
pub(super) fn count(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        number if thing.ends_with('x') => format!("{number} {thing}es"),
        number => format!("{number} {thing}s"),
    }
}

/// A length of time as typed: a number and a unit, such as `90s`, `5m`, `12h`, `30d`, `2w` or
/// `1 day`. A number alone is seconds.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    parse(text, Some(1))
}

/// The same, but a number alone says too little: only `0` needs no unit.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    parse(text, None)
}

fn parse(text: &str, default_unit: Option<u64>) -> Result<Duration, String> {
    let text = text.trim();
    let digits_len = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_len);
    let wrong = || "write a number and a unit: 90s, 5m, 12h, 30d or 2w".to_owned();
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" if number == 0 => 1,
        "" => default_unit.ok_or_else(|| format!("{number} of what? {}", wrong()))?,
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => MINUTE,
        "h" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "week" | "weeks" => WEEK,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn one_of_a_thing_has_no_plural() {
        assert_eq!(
            [
                count(0u64, "message"),
                count(1u64, "message"),
                count(2u64, "message")
            ],
            ["0 messages", "1 message", "2 messages"]
        );
        assert_eq!(count(3usize, "mailbox"), "3 mailboxes");
    }

    #[test]
    fn lengths_of_time_are_understood_with_their_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("12 hours", 43_200),
            ("1 day", 86_400),
            ("30d", 2_592_000),
            ("2W", 1_209_600),
            ("0", 0),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_seconds("30"), Ok(Duration::from_secs(30)));
        for text in [
            "30",
            "",
            "d",
            "-1d",
            "1.5h",
            "1 fortnight",
            "99999999999999999999s",
            "999999999999999999w",
        ] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
