//! The answering side of a reconciliation (docs/protocol.md §8.3(4)): it keeps no state.

use serde_bytes::ByteBuf;

use super::items::{IdPrefix, Page, PageReply, SyncReply, SyncRequest, Version, with_prefix};
use crate::directory::view::NetView;
use crate::limits::SYNC_BYTES_MAX;

/// Answers an asker: sends the descriptors that the asker lacks, and names those that it is to
/// push.
pub fn answer(view: &NetView, request: &SyncRequest) -> SyncReply {
    match request {
        SyncRequest::Digest(digest) if *digest == view.digest() => SyncReply::Same,
        SyncRequest::Digest(_) => SyncReply::Differs,
        SyncRequest::Page(page) => SyncReply::Page(answer_page(view, page)),
    }
}

fn answer_page(view: &NetView, page: &Page) -> PageReply {
    let theirs = page.newest();
    let mut covered = page.until;
    let mut sent: Vec<(IdPrefix, &[u8])> = Vec::new();
    let mut sent_bytes = 0;
    for descriptor in view.iter_from(page.from.first_id()) {
        let prefix = IdPrefix::of(&descriptor.relay);
        if prefix > page.until {
            break;
        }
        if theirs
            .get(&prefix)
            .is_some_and(|their_version| *their_version >= Version::of(descriptor))
        {
            continue;
        }
        sent_bytes += descriptor.bytes().len();
        if sent_bytes > SYNC_BYTES_MAX {
            covered = prefix.previous().max(page.from);
            sent.retain(|(sent_prefix, _)| *sent_prefix <= covered);
            break;
        }
        sent.push((prefix, descriptor.bytes()));
    }
    let is_wanted = |prefix: IdPrefix, version: Version| {
        prefix <= covered && newest_of(view, prefix).is_none_or(|our_version| our_version < version)
    };
    let wanted: Vec<u8> = theirs
        .iter()
        .filter(|&(&prefix, &version)| is_wanted(prefix, version))
        .flat_map(|(prefix, _)| prefix.0)
        .collect();
    let descriptors = sent
        .into_iter()
        .map(|(_, bytes)| ByteBuf::from(bytes))
        .collect();
    PageReply {
        covered,
        descriptors,
        wanted: ByteBuf::from(wanted),
    }
}

fn newest_of(view: &NetView, prefix: IdPrefix) -> Option<Version> {
    with_prefix(view, prefix).map(Version::of).max()
}
