//! How either side splits a range whose fingerprints differ (docs/protocol.md §8.3(8)).
//!
//! By count, never by bits of ids: ids that someone ground to begin alike make no range deeper.

use crate::directory::range::IdRange;
use crate::directory::view::NetView;
use crate::ids::RelayId;
use crate::limits::{SYNC_FEW_MAX, SYNC_PART_MIN, SYNC_PARTS_MAX};

/// The parts of this range, each with about as many relays of the view. `None` if it has so few
/// that they had better be listed.
pub(super) fn split(view: &NetView, range: IdRange) -> Option<Vec<IdRange>> {
    let relays: Vec<RelayId> = view.in_range(range).map(|it| it.relay).collect();
    if relays.len() <= SYNC_FEW_MAX {
        return None;
    }
    let part_count = relays.len().div_ceil(SYNC_PART_MIN).min(SYNC_PARTS_MAX);
    let part_len = relays.len().div_ceil(part_count);
    let mut parts = Vec::with_capacity(part_count);
    let mut rest = range;
    let mut chunks = relays.chunks(part_len).peekable();
    while let (Some([.., last]), Some([first, ..])) = (chunks.next(), chunks.peek()) {
        let (Some(part), Some(behind)) = rest.cut(*last, *first) else {
            break; // never: both are in the rest
        };
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    Some(parts)
}
