//! The known name that was probably meant by an unknown one.

/// No known name is nearly as long: longer ones are not compared.
const NAME_LEN_MAX: usize = 64;

/// The name with the fewest edits from `unknown`, if that is at most a third of its letters.
pub(super) fn nearest(
    unknown: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if unknown.len() > NAME_LEN_MAX {
        return None;
    }
    known
        .map(|name| (edits(unknown.as_bytes(), name.as_bytes()), name))
        .min()
        .filter(|&(edits, name)| edits * 3 <= name.len())
        .map(|(_, name)| name)
}

/// The fewest letters to insert, remove or replace that make `from` into `to`.
fn edits(from: &[u8], to: &[u8]) -> usize {
    // For the letters of `from` seen so far: the edits to each prefix of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.iter().enumerate() {
        let mut left = index + 1;
        let mut next = vec![left];
        for (pair, wanted) in row.windows(2).zip(to) {
            let replaced = pair[0] + usize::from(letter != wanted);
            left = replaced.min(pair[1] + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = || ["receipts_min", "receipt_life", "mailboxes"].into_iter();
        assert_eq!(nearest("receipt_min", known()), Some("receipts_min"));
        assert_eq!(nearest("receipts_life", known()), Some("receipt_life"));
        assert_eq!(nearest("mailbox", known()), Some("mailboxes"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
        assert_eq!(nearest(&"mailboxes".repeat(1000), known()), None);
    }

    #[test]
    fn edits_are_counted() {
        let count = |from: &str, to: &str| edits(from.as_bytes(), to.as_bytes());
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("kitten", "sitting"), 3);
        assert_eq!(count("same", "same"), 0);
    }
}
