//! Lengths of time as people say them.

use super::Duration;

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
}
