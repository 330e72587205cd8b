//! A body for text on its way to a terminal: the input is a peer's.

use umbel_client::display::{self, PeerText};
use umbel_relay::shell::is_seen;

/// Bytes of output for one of input, at most: a control is one byte, and its mark has six.
const GROWTH_MAX: usize = 6;

/// Characters that matter here: random bytes are rarely any of them.
const ALPHABET: &str = "ab1#*.-_ \n\t\r\u{1b}\u{9b}\u{7f}\u{200b}\u{200c}\u{200d}\u{200d}\u{200d}\u{202e}\u{2066}\u{2028}\u{feff}\
    \u{fe0e}\u{fe0f}\u{fe0f}\u{20e3}\u{301}\u{301}\u{302}\u{5b0}\u{e0041}\u{3164}❤👩💻🏽\u{430}\u{430}\u{435}ж\u{456}ο\u{3bf}ωａ日シー한\
    م\u{6cc}\u{64b}क\u{94d}\u{94d}ष’—éß\u{131}\u{661}\\{}";

/// What comes out holds nothing that acts on a terminal, is the same if it is shown again, and is
/// bounded; a name is one line.
pub(super) fn shown(input: &[u8]) {
    check(input);
    let alphabet: Vec<char> = ALPHABET.chars().collect();
    let spelled = input
        .iter()
        .filter_map(|byte| alphabet.get(usize::from(*byte) % alphabet.len()));
    check(spelled.collect::<String>().as_bytes());
}

fn check(input: &[u8]) {
    let text = PeerText::new(input.to_vec()).shown();
    assert!(text.len() <= GROWTH_MAX * input.len());
    assert!(!text.chars().any(acts));
    assert_eq!(display::text(&text), text, "shown again");
    let name = display::name(&String::from_utf8_lossy(input));
    assert!(name.len() <= (GROWTH_MAX * 3) * input.len());
    assert!(!name.contains(['\n', '\t']) && !name.chars().any(acts));
    assert_eq!(display::name(&name), name, "shown again");
    let json = display::json(&text.replace(['\n', '\t'], " "));
    assert!(json.chars().all(is_seen));
}

/// Controls, but for line ends and tabs; separators, signs of direction and their isolates; spaces of
/// no width; tags; selectors that no picture takes.
fn acts(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{61c}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' | '\u{180e}' => true,
        '\u{fe00}'..='\u{fe0d}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => character.is_control(),
    }
}
