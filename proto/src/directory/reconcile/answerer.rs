//! The answering side of a reconciliation (docs/protocol.md §8.3(2), §8.3(3),
//! §8.3(4)): it keeps no state.

use serde_bytes::ByteBuf;

use super::messages::{
    Item, Outcome, PageReply, RangeFingerprint, RangeItems, SyncReply, SyncRequest,
};
use crate::directory::range::{IdRange, previous};
use crate::directory::view::NetView;
use crate::ids::RelayId;
use crate::limits::{SYNC_BYTES_MAX, SYNC_DESCRIPTORS_MAX, SYNC_FRAME_MAX};
use crate::wire;

/// What is not outcomes in a reply that holds them: variants and their count, bytes.
const REPLY_HEAD_LEN: usize = 4;

/// Answers an asker: tells ranges that are the same from those that differ, sends the descriptors
/// that the asker lacks, and names those that it is to push.
pub fn answer(view: &NetView, request: &SyncRequest) -> SyncReply {
    match request {
        SyncRequest::Compare(ranges) => SyncReply::Compared(compare(view, ranges)),
        SyncRequest::Page(page) => SyncReply::Page(answer_page(view, page)),
    }
}

/// Whether the answer is at hand, or bounded by the size of the request (§8.4(7)).
pub fn is_free(request: &SyncRequest) -> bool {
    match request {
        SyncRequest::Compare(ranges) => ranges.iter().all(|asked| asked.range == IdRange::ALL),
        SyncRequest::Page(_) => true,
    }
}

/// How many relays of the view are looked through for an answer that is not free.
pub fn cost(view: &NetView, request: &SyncRequest) -> usize {
    match request {
        SyncRequest::Compare(ranges) => {
            let held = |asked: &RangeFingerprint| view.in_range(asked.range).count();
            ranges.iter().map(held).sum()
        }
        SyncRequest::Page(_) => 0,
    }
}

/// An outcome for each range, from the first one on, as many as fit into a reply.
fn compare(view: &NetView, ranges: &[RangeFingerprint]) -> Vec<Outcome> {
    let mut room = SYNC_FRAME_MAX - REPLY_HEAD_LEN;
    let mut outcomes = Vec::new();
    for asked in ranges {
        let outcome = outcome(view, asked);
        let Some(left) = room.checked_sub(wire::encode(&outcome).len()) else {
            break;
        };
        room = left;
        outcomes.push(outcome);
    }
    outcomes
}

fn outcome(view: &NetView, asked: &RangeFingerprint) -> Outcome {
    if view.fingerprint(asked.range) == asked.fingerprint {
        return Outcome::Same;
    }
    let parts = if asked.range == IdRange::ALL {
        view.parts().map(<[_]>::to_vec)
    } else {
        RangeFingerprint::of_parts(view, asked.range)
    };
    parts.map_or(Outcome::Few, Outcome::Split)
}

fn answer_page(view: &NetView, page: &[RangeItems]) -> PageReply {
    let last = page.last().map_or(IdRange::ALL, |listed| listed.range);
    let mut covered = last.until();
    let mut descriptors: Vec<ByteBuf> = Vec::new();
    let mut sent_bytes = 0;
    let held = page.iter().flat_map(|listed| {
        let held = view.in_range(listed.range);
        held.map(move |descriptor| (listed, descriptor))
    });
    for (listed, descriptor) in held {
        let theirs = listed.find(&descriptor.relay);
        if theirs.is_some_and(|item| item.version >= descriptor.version()) {
            continue;
        }
        sent_bytes += descriptor.bytes().len();
        if sent_bytes > SYNC_BYTES_MAX || descriptors.len() == SYNC_DESCRIPTORS_MAX {
            covered = previous(descriptor.relay).unwrap_or(covered);
            break;
        }
        descriptors.push(ByteBuf::from(descriptor.bytes()));
    }
    PageReply {
        covered,
        descriptors,
        wanted: positions(page, covered, |it| is_wanted(view, it)),
        refused: positions(page, covered, |it| view.has_refused(&it.relay, it.version)),
    }
}

/// Whether the view lacks it or has it older, and did not turn it away.
fn is_wanted(view: &NetView, item: &Item) -> bool {
    let ours = view.heard_of(&item.relay);
    ours.is_none_or(|ours| ours < item.version)
}

/// The positions of such items up to `covered`.
fn positions(page: &[RangeItems], covered: RelayId, is_it: impl Fn(&Item) -> bool) -> Vec<u16> {
    let items = page.iter().flat_map(|listed| &listed.items);
    (0..)
        .zip(items)
        .filter(|(_, item)| item.relay <= covered && is_it(item))
        .map(|(position, _)| position)
        .collect()
}
