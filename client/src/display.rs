//! Text of others, on its way to a terminal: the one way there.
//!
//! A peer's text is a [`PeerText`], which has neither `Display` nor `Debug`: it is shown by
//! [`PeerText::shown`], and by nothing else by mistake. In what comes out, no character moves the
//! cursor, changes colours or titles, turns the direction of writing, or leaves no trace on a screen.
//! Each that would is written as Rust writes it, `\u{200b}`: in ASCII, so that every terminal shows
//! it; with its number, so that people can look it up; unchanged if it is shown again. A peer can
//! write such a mark itself, which hides nothing. Names are on one line, and show letters that pass
//! for others ([`name`]).
//!
//! The text says nothing of where it stands: the caller indents each line of a body, since line
//! ends stay, and breaks those that a terminal would.

use umbel_relay::shell::{is_seen, printable, printable_without};
use unicode_normalization::char::is_combining_mark;
use unicode_security::restriction_level::RestrictionLevel;
use unicode_security::{
    MixedScript, RestrictionLevelDetection, is_potential_mixed_script_confusable_char, skeleton,
};
use zeroize::Zeroizing;

/// Bytes that a peer wrote, or that may be a peer's; wiped when dropped.
///
/// They can't be printed:
///
/// ```compile_fail
/// println!("{}", umbel_client::display::PeerText::new(b"\x1b[2J".to_vec()));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a message")]
pub struct PeerText(Zeroizing<Vec<u8>>);

impl PeerText {
    /// Takes them as they came.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes as they came: for files, pipes and encodings, and never for a terminal.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes as they came.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        core::mem::take(&mut *self.0)
    }

    /// How many bytes they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text as it came, if it is text: to search in, or to encode, and never for a terminal.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        str::from_utf8(&self.0)
            .ok()
            .filter(|text| !text.contains('\0'))
    }

    /// Whether it is text.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.exact().is_some()
    }

    /// What a terminal may be given. Bytes that are no text are written as `\xff`; line ends and
    /// tabs stay.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut whole = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            whole.push_str(chunk.valid());
            let escaped = chunk.invalid().iter().map(|byte| byte.escape_ascii());
            whole.extend(escaped.flatten().map(char::from));
        }
        text(&whole)
    }
}

/// Text of several lines, safe to show. Line ends and tabs stay.
#[must_use]
pub fn text(text: &str) -> String {
    printable(text)
}

/// A name, safe to show: on one line, and with each letter marked that passes for another.
///
/// Such are letters that look like those of another script, in a word that mixes scripts (`p\u{430}ypal`),
/// and all that are not ASCII in a name that looks as if it were ASCII throughout. So a name that
/// looks like an ASCII one either is one or shows marks. ASCII's own likenesses (`l`, `I`, `1`) are
/// not marked, nor words of one script each.
#[must_use]
pub fn name(name: &str) -> String {
    let line = printable_without(name, |_, character| matches!(character, '\n' | '\t'));
    let doubles = doubles(&line);
    let line = printable_without(&line, |at, _| doubles.binary_search(&at).is_ok());
    if skeleton(&line).all(|character| character.is_ascii()) {
        return printable_without(&line, |_, letter| {
            !letter.is_ascii() && letter.is_alphanumeric()
        });
    }
    line
}

/// A line of JSON whose strings hold text of others: the same to who parses it, safe to show.
#[must_use]
pub fn json(line: &str) -> String {
    let mut safe = String::with_capacity(line.len());
    for character in line.chars() {
        if is_seen(character) {
            safe.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            safe.push_str(&format!("\\u{unit:04x}"));
        }
    }
    safe
}

/// Where letters stand that look like those of another script, in words that mix scripts; in order.
fn doubles(name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut begin = 0;
    for word in name.split_inclusive(|character| !is_of_word(character)) {
        if is_mixed(word) {
            let letters = word.char_indices();
            let doubles = letters.filter(|(_, letter)| is_double(*letter));
            found.extend(doubles.map(|(at, _)| begin + at));
        }
        begin += word.len();
    }
    found
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || is_combining_mark(character)
}

/// Whether it mixes scripts otherwise than Japanese, Korean and Chinese do.
fn is_mixed(word: &str) -> bool {
    !word.is_ascii()
        && !word.is_single_script()
        && !word.check_restriction_level(RestrictionLevel::HighlyRestrictive)
}

fn is_double(letter: char) -> bool {
    !letter.is_ascii()
        && letter.is_alphanumeric()
        && is_potential_mixed_script_confusable_char(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        PeerText::new(bytes.to_vec()).shown()
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(shown(b"a\xff\xc3b"), "a\\xff\\xc3b");
        assert_eq!(shown("é\n\tx".as_bytes()), "é\n\tx");
        assert_eq!(shown(b"\x1b]0;title\x07"), "\\u{1b}]0;title\\u{7}");
        assert!(!PeerText::new(vec![0]).is_text());
    }

    #[test]
    fn a_name_is_one_line() {
        assert_eq!(name("a\nalice\tb\u{2028}"), "a\\nalice\\tb\\u{2028}");
        assert_eq!(name("photo\u{202e}gpj.exe"), "photo\\u{202e}gpj.exe");
    }

    #[test]
    fn a_name_that_passes_for_another_shows_it() {
        assert_eq!(name("p\u{430}ypal"), "p\\u{430}ypal");
        assert_eq!(name("\u{440}\u{430}\u{443}"), "\\u{440}\\u{430}\\u{443}");
        assert_eq!(name("ａｂ"), "\\u{ff41}\\u{ff42}");
        assert_eq!(
            name("\u{440}\u{430}\u{443} me"),
            "\\u{440}\\u{430}\\u{443} me"
        );
    }

    #[test]
    fn names_of_one_script_and_of_several_words_stay() {
        for plain in [
            "alice",
            "Müller",
            "Łukasz",
            "Анна",
            "Анна Smith",
            "Роса Новак",
            "Ελένη",
            "日本語",
            "Tシャツ",
            "한국어",
            "می‌خواهم",
            "a_b-c.txt",
            "Anna’s",
        ] {
            assert_eq!(name(plain), plain);
        }
    }

    #[test]
    fn json_stays_what_it_was_and_drives_no_terminal() {
        let line = "{\"text\":\"\u{9b}2J \u{202e}x\u{e0041} é\u{7f}\"}";
        let safe = "{\"text\":\"\\u009b2J \\u202ex\\udb40\\udc41 é\\u007f\"}";
        assert_eq!(json(line), safe);
        let parse = |text| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(parse(line), parse(safe));
    }
}
