//! Words on standard output and standard error: nothing that another wrote reaches the terminal as it is.

use std::io::{self, Write};

use serde::Serialize;
use umbel_proto::ids::RelayId;
use umbel_proto::time::WallTime;

use super::failure::Failure;

/// Writes a line to standard output, and sees it through.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        Failure::failed(format!("could not write to standard output: {error}"), "see where the output goes")
    })
}

#[derive(Serialize)]
struct Complaint<'a> {
    error: &'a str,
    hint: &'a str,
}

#[derive(Serialize)]
struct Caution<'a> {
    warning: &'a str,
}

/// Says what is wrong and what to do.
pub(super) fn complain(failure: &Failure, is_json: bool) {
    let Failure { error, hint, .. } = failure;
    if is_json {
        to_stderr(&serde_json::to_string(&Complaint { error, hint }).unwrap_or_default());
    } else {
        to_stderr(&format!("error: {error}\n  hint: {hint}"));
    }
}

/// Says what the user should know.
pub(super) fn warn(text: &str, is_json: bool) {
    if is_json {
        to_stderr(&serde_json::to_string(&Caution { warning: text }).unwrap_or_default());
    } else {
        to_stderr(&format!("warning: {text}"));
    }
}

/// When standard error is closed, there is nobody left to tell.
fn to_stderr(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Enough of a relay's id to tell it from the others on a screen.
pub(super) fn short_relay(relay: &RelayId) -> String {
    relay.to_string().chars().take(8).collect()
}

/// Text that can't move the cursor, change colours, or write from right to left over what stands before it. Line ends
/// and tabs stay.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) {
            safe.push(character);
        } else {
            safe.extend(character.escape_default());
        }
    }
    safe
}

fn is_harmless(character: char) -> bool {
    match character {
        '\n' | '\t' => true,
        // Marks, embeddings, overrides and isolates of writing direction; line and paragraph separators.
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        _ => !character.is_control(),
    }
}

/// A calendar time as RFC 3339 has it, in UTC.
pub(super) fn rfc3339(time: WallTime) -> String {
    let (days, seconds) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970: counted in eras of 400 years that begin
/// on 1 March, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
    fn text_of_others_can_not_drive_the_terminal() {
        assert_eq!(printable("plain, ümlaut, 日本\n\ttab"), "plain, ümlaut, 日本\n\ttab");
        assert_eq!(printable("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(printable("a\rb\u{7f}\u{9b}"), "a\\rb\\u{7f}\\u{9b}");
        assert_eq!(printable("\u{202e}live"), "\\u{202e}live");
    }
}
