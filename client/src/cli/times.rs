//! Times and amounts as people write them, and as they type them.

use umbel_proto::time::Duration;
pub(super) use umbel_proto::time::{in_words as length, rfc3339};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

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
