//! The digits that two people compare to know that nobody sits between them, and the names of
//! strangers (docs/protocol.md §11.7).

use core::fmt;

use crate::crypto::dh::DhPublic;
use crate::crypto::kdf::{hkdf_expand, hkdf_extract, sha256};
use crate::ids::NetworkId;
use crate::inbox::address::InboxAddress;

const LABEL: &[u8] = b"umbel verification 1";
const WORDS_LABEL: &[u8] = b"umbel pseudonym words 1";
/// The English word list of BIP-39 (bitcoin/bips, MIT licence): 2048 words, no two of which begin
/// with the same four letters.
const WORDS: &str = include_str!("../../data/words-en.txt");
const WORD_BITS: u32 = 11;
const GROUPS: usize = 12;
const GROUP_BYTES: usize = 5;
const GROUP_MODULUS: u64 = 100_000;

/// Who one side of a conversation is, to the other.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "linkable keys")]
pub enum Party<'a> {
    /// The owner of an inbox.
    Inbox(&'a InboxAddress),
    /// A stranger, under the pseudonym of this conversation.
    Pseudonym(&'a DhPublic),
}

/// Sixty digits that both sides of a conversation see, in twelve groups of five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyNumber([u32; GROUPS]);

impl Party<'_> {
    fn bytes(self) -> [u8; 33] {
        let (kind, key) = match self {
            Self::Inbox(address) => (0, address.key()),
            Self::Pseudonym(key) => (1, &key.0),
        };
        let mut bytes = [kind; 33];
        bytes[1..].copy_from_slice(key);
        bytes
    }
}

impl SafetyNumber {
    /// The number of these two, in whichever order (§11.7(1)). Two other pairs that share one cost
    /// 2^99 tries (§11.7(2)).
    pub fn new(network: &NetworkId, one: Party<'_>, other: Party<'_>) -> Self {
        let mut parties = [one.bytes(), other.bytes()];
        parties.sort_unstable();
        let [first, second] = &parties;
        let prk = hkdf_extract(LABEL, &[network.as_bytes(), first, second]);
        let mut bytes = [0; GROUPS * GROUP_BYTES];
        hkdf_expand(&prk, &[LABEL], &mut bytes);
        let (groups, _) = bytes.as_chunks::<GROUP_BYTES>();
        let mut number = Self([0; GROUPS]);
        for (digits, group) in number.0.iter_mut().zip(groups) {
            let value = group.iter().fold(0, |sum, &it| (sum << 8) | u64::from(it));
            *digits = u32::try_from(value % GROUP_MODULUS).unwrap_or_default();
        }
        number
    }

    /// The groups, each below 100,000.
    pub const fn groups(&self) -> &[u32; GROUPS] {
        &self.0
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, group) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{group:05}")?;
        }
        Ok(())
    }
}

/// The name of a stranger: three words, always the same for one pseudonym, and for one in 2^33 others
/// (§11.7(3)).
pub fn pseudonym_words(pseudonym: &DhPublic) -> String {
    let hash = sha256(&[WORDS_LABEL, &pseudonym.0]);
    let bits = hash[..5]
        .iter()
        .fold(0, |sum, &it| (sum << 8) | u64::from(it));
    let words: Vec<&str> = WORDS.lines().collect();
    let word = |place: u32| {
        let index = (bits >> (40 - WORD_BITS * (place + 1))) & ((1 << WORD_BITS) - 1);
        usize::try_from(index)
            .ok()
            .and_then(|index| words.get(index))
    };
    let name: Vec<&str> = (0..3).filter_map(word).copied().collect();
    name.join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::inbox::address::InboxIdentity;

    const NETWORK: NetworkId = NetworkId([1; 32]);

    fn address(seed: u8) -> InboxAddress {
        *InboxIdentity::from_seed(&[seed; 32]).address()
    }

    #[test] // §11.7(1)
    fn both_sides_see_the_same_digits_and_others_see_others() {
        let (bob, alice) = (address(1), DhPublic([2; 32]));
        let (bob, alice) = (Party::Inbox(&bob), Party::Pseudonym(&alice));
        let number = SafetyNumber::new(&NETWORK, bob, alice);
        assert!(number == SafetyNumber::new(&NETWORK, alice, bob));
        assert!(number != SafetyNumber::new(&NetworkId([2; 32]), alice, bob));
        let (carol, same) = (address(3), *address(1).key());
        assert!(number != SafetyNumber::new(&NETWORK, Party::Inbox(&carol), alice));
        let as_pseudonym = DhPublic(same);
        assert!(number != SafetyNumber::new(&NETWORK, Party::Pseudonym(&as_pseudonym), alice));
        let text = number.to_string();
        let groups: Vec<&str> = text.split(' ').collect();
        assert_eq!((groups.len(), text.len()), (12, 12 * 5 + 11));
        assert!(
            groups
                .iter()
                .all(|it| it.bytes().all(|it| it.is_ascii_digit()))
        );
    }

    #[test] // §11.7(2): all of sixty digits count
    fn each_group_of_digits_takes_each_value_as_often_as_any() {
        const COUNT: u32 = 4000;
        let bob = address(1);
        let mut sums = [0_u64; GROUPS];
        let mut seen: [BTreeSet<u32>; GROUPS] = Default::default();
        for number in 0..COUNT {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let alice = DhPublic(key);
            let digits = SafetyNumber::new(&NETWORK, Party::Inbox(&bob), Party::Pseudonym(&alice));
            for (place, &group) in digits.groups().iter().enumerate() {
                sums[place] += u64::from(group);
                seen[place].insert(group);
            }
        }
        for (sum, seen) in sums.iter().zip(&seen) {
            assert!((48_000..52_000).contains(&(sum / u64::from(COUNT))));
            assert!(
                seen.len() > 3800,
                "of 4,000 some 80 come twice: {}",
                seen.len()
            );
        }
    }

    #[test] // §11.7(3)
    fn a_stranger_has_three_words_of_the_list() {
        assert_eq!(WORDS.lines().count(), 1 << WORD_BITS);
        let starts: BTreeSet<&str> = WORDS.lines().map(|it| &it[..it.len().min(4)]).collect();
        assert_eq!(starts.len(), 1 << WORD_BITS);
        let name = |byte| pseudonym_words(&DhPublic([byte; 32]));
        assert_eq!(name(1).split('-').count(), 3);
        assert_eq!(name(1), name(1));
        let names: BTreeSet<String> = (0..=255).map(name).collect();
        assert_eq!(names.len(), 256);
    }
}
