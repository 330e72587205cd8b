//! Text of others, made safe to show: no character of it acts on the terminal, and none hides.
//!
//! Marked, as `\u{200b}`, is every character that moves the cursor, sets colours, changes the
//! direction of writing, or leaves no trace on a screen: all that Unicode calls default-ignorable,
//! controls, private use, and what no font has. Two kinds of invisible characters stay where they
//! do what they are for, since marks there would make ordinary text unreadable: joiners and style
//! selectors within an emoji, and joiners between two letters of Arabic or Indic scripts.
//!
//! Accents and other characters that combine with the one before are marked where nothing stands
//! before them, and from the fifth on: a pile of them covers the lines above and below.

use unicode_normalization::char::is_combining_mark;

/// Unicode's Default_Ignorable_Code_Point: renderers that do not know them show nothing.
const IGNORABLE: &[(u32, u32)] = &[
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x061c, 0x061c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfff8),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

/// Others that show nothing, or not the same everywhere: separators of lines and paragraphs,
/// annotations and replacements, the blank of Braille, format controls of hieroglyphs, private use,
/// noncharacters, and planes with no character in them.
const UNSEEN: &[(u32, u32)] = &[
    (0x2028, 0x2029),
    (0x2800, 0x2800),
    (0xe000, 0xf8ff),
    (0xfdd0, 0xfdef),
    (0xfff9, 0xfffc),
    (0x13430, 0x1343f),
    (0x40000, 0x10ffff),
];

/// Symbols and pictures that a style selector or a joiner may follow.
const PICTURES: &[(u32, u32)] = &[
    (0x00a9, 0x00a9),
    (0x00ae, 0x00ae),
    (0x203c, 0x203c),
    (0x2049, 0x2049),
    (0x2122, 0x2122),
    (0x2139, 0x2139),
    (0x2190, 0x21ff),
    (0x2300, 0x23ff),
    (0x24c2, 0x24c2),
    (0x25a0, 0x27bf),
    (0x2934, 0x2935),
    (0x2b00, 0x2bff),
    (0x3030, 0x3030),
    (0x303d, 0x303d),
    (0x3297, 0x3299),
    (0x1f000, 0x1faff),
];

/// Scripts whose spelling needs joiners: Arabic and its extensions, and those of India.
const JOINED: &[(u32, u32)] = &[
    (0x0620, 0x06d3),
    (0x06fa, 0x06ff),
    (0x0750, 0x077f),
    (0x08a0, 0x08c9),
    (0x0900, 0x0dff),
];

const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';
const TEXT_STYLE: char = '\u{fe0e}';
const EMOJI_STYLE: char = '\u{fe0f}';
const KEYCAP: char = '\u{20e3}';

/// How many characters may combine with one; UTS 39, §5.4, takes more for an attack.
const COMBINING_MAX: usize = 4;

/// Text that can't act on a terminal, nor hide anything from who reads it. Line ends and tabs stay.
#[must_use]
pub fn printable(text: &str) -> String {
    printable_without(text, |_, _| false)
}

/// As [`printable`], and marks the characters that are not wanted, each given with the offset of its
/// first byte, too.
#[must_use]
pub fn printable_without(text: &str, is_unwanted: impl Fn(usize, char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut before = Before::default();
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        let after = rest
            .peek()
            .filter(|(at, after)| !is_unwanted(*at, *after) && before.has_room_for(*after))
            .map(|(_, after)| *after);
        let is_shown = is_seen(character) || is_in_place(before.character, character, after);
        if is_shown && before.bears(character) && !is_unwanted(at, character) {
            safe.push(character);
            before.push(character);
        } else {
            safe.extend(character.escape_default());
            before = Before::default();
        }
    }
    safe
}

/// Whether a character leaves a trace on a screen, wherever it stands, and does nothing else there.
#[must_use]
pub fn is_seen(character: char) -> bool {
    let is_nonplane = u32::from(character) & 0xfffe == 0xfffe;
    let is_hidden = is_nonplane || is_in(IGNORABLE, character) || is_in(UNSEEN, character);
    matches!(character, '\n' | '\t') || !(character.is_control() || is_hidden)
}

/// The characters shown before another, since the last mark.
#[derive(Default)]
struct Before {
    /// The last of them.
    character: Option<char>,
    /// How many of the last ones combine with one that does not.
    combining: usize,
}

impl Before {
    fn push(&mut self, character: char) {
        self.character = Some(character);
        match character {
            _ if is_combining_mark(character) => self.combining += 1,
            // They join what stands around them to one.
            JOINER | NON_JOINER => {}
            _ => self.combining = 0,
        }
    }

    fn has_room_for(&self, character: char) -> bool {
        self.combining < COMBINING_MAX || !is_combining_mark(character)
    }

    /// Whether a character that combines would do so with one that it may.
    fn bears(&self, character: char) -> bool {
        let has_base = !matches!(self.character, None | Some('\n' | '\t'));
        self.has_room_for(character) && (has_base || !is_combining_mark(character))
    }
}

/// Whether an invisible character stands where it has a use. `before` is none where a mark stands.
fn is_in_place(before: Option<char>, character: char, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    let is_before = |ranges| is_in(ranges, before);
    let is_after = |ranges| after.is_some_and(|after| is_in(ranges, after));
    match character {
        EMOJI_STYLE if after == Some(KEYCAP) => matches!(before, '0'..='9' | '#' | '*'),
        TEXT_STYLE | EMOJI_STYLE => is_before(PICTURES),
        JOINER if is_before(PICTURES) || before == EMOJI_STYLE => is_after(PICTURES),
        JOINER | NON_JOINER => is_before(JOINED) && is_after(JOINED),
        _ => false,
    }
}

fn is_in(ranges: &[(u32, u32)], character: char) -> bool {
    ranges
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&u32::from(character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_can_not_drive_the_terminal() {
        assert_eq!(
            printable("plain, ümlaut, 日本\n\ttab"),
            "plain, ümlaut, 日本\n\ttab"
        );
        assert_eq!(printable("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(printable("a\rb\u{7f}\u{9b}"), "a\\rb\\u{7f}\\u{9b}");
        assert_eq!(printable("\u{202e}live"), "\\u{202e}live");
    }

    #[test]
    fn each_character_that_leaves_no_trace_is_marked_wherever_it_stands() {
        for number in 0..=0x0010_ffff {
            let Some(character) = char::from_u32(number) else {
                continue;
            };
            let is_hidden = [IGNORABLE, UNSEEN]
                .iter()
                .any(|ranges| is_in(ranges, character));
            let is_kept = printable(&format!("a{character}b")) == format!("a{character}b");
            let is_expected = !is_hidden && !character.is_control() && number & 0xfffe != 0xfffe;
            assert_eq!(
                is_kept,
                is_expected || matches!(character, '\n' | '\t'),
                "{number:x}"
            );
        }
    }

    #[test]
    fn the_characters_that_people_hide_things_in_are_marked() {
        let hidden = "\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}\u{34f}\u{115f}\u{1160}\u{3164}\u{2800}\u{ffa0}\u{17b4}\u{180e}\
                      \u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{e0001}\u{e0041}\u{e007f}\u{e000}\u{f8ff}\u{f0000}\u{10fffd}\
                      \u{fdd0}\u{ffff}\u{fff9}\u{50000}\u{200e}\u{61c}\u{2066}\u{2069}\u{2028}\u{85}\u{1d173}\u{13430}";
        for character in hidden.chars() {
            let text = format!("pay{character}pal");
            assert_eq!(
                printable(&text),
                format!("pay{}pal", character.escape_default())
            );
        }
    }

    #[test]
    fn emoji_and_joined_scripts_stay_readable() {
        for text in [
            "👩\u{200d}💻",
            "👨\u{200d}👩\u{200d}👧\u{200d}👦",
            "❤\u{fe0f}",
            "🏳\u{fe0f}\u{200d}🌈",
            "1\u{fe0f}\u{20e3}",
            "👍🏽",
            "می\u{200c}خواهم",
            "क\u{94d}\u{200d}ष",
        ] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn accents_do_not_pile_up_and_stand_on_something() {
        let piled = format!("e{}", "\u{301}".repeat(6));
        let shown = format!("e{}\\u{{301}}\\u{{301}}", "\u{301}".repeat(4));
        assert_eq!(printable(&piled), shown);
        assert_eq!(printable("\u{301}a\n\u{301}"), "\\u{301}a\n\\u{301}");
        assert_eq!(
            printable("\u{200b}\u{301}"),
            "\\u{200b}\\u{301}",
            "nor on a mark"
        );
        let joined = format!("क{}", "\u{94d}\u{200d}".repeat(6));
        assert_eq!(printable(&joined).matches("\\u{94d}").count(), 2);
        for text in ["Tiếng Việt", "Vie\u{302}\u{323}t", "שָׁלוֹם", "မြန်မာ", "རྒྱལ"]
        {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_emoji_need_hides_nothing_elsewhere() {
        assert_eq!(printable("❤\u{fe0f}\u{fe0f}"), "❤\u{fe0f}\\u{fe0f}");
        assert_eq!(printable("👩\u{200d}\u{200d}💻"), "👩\\u{200d}\\u{200d}💻");
        assert_eq!(printable("👩\u{200d}"), "👩\\u{200d}");
        assert_eq!(printable("👩\u{200d}x"), "👩\\u{200d}x");
        assert_eq!(printable("\u{fe0f}"), "\\u{fe0f}");
        // Flags of regions are spelled in tags, in which any text can hide.
        assert_eq!(printable("🏴\u{e0067}\u{e007f}"), "🏴\\u{e0067}\\u{e007f}");
        assert_eq!(printable("م\u{200c}x"), "م\\u{200c}x");
    }
}
