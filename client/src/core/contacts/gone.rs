//! Contacts that were removed: what they wrote before may come again from a holder, for as long as a
//! seal key opens it, and must not begin the conversation anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use umbel_proto::crypto::dh::DhPublic;
use umbel_proto::crypto::kdf::sha256;
use umbel_proto::limits::{EPOCH_LEN, SEAL_KEY_KEPT_AFTER};
use umbel_proto::time::{Duration, WallTime};
use umbel_proto::wire;

use super::super::context::Context;
use super::super::io::StoreOp;

const VERSION: u8 = 1;
/// Most that are remembered; beyond it the one that was removed first is forgotten.
const GONE_MAX: usize = 4096;

/// A hash of a pseudonym, so that a profile does not name those who are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Mark([u8; 16]);

/// Who was removed, and when.
#[derive(Default)]
pub(super) struct Gone(BTreeMap<Mark, WallTime>);

impl Gone {
    pub(super) fn restore(state: &[u8]) -> Option<Self> {
        let (version, all): (u8, Vec<(Mark, WallTime)>) = wire::decode(state).ok()?;
        (version == VERSION).then(|| Self(all.into_iter().collect()))
    }

    pub(super) fn has(&self, pseudonym: &DhPublic) -> bool {
        self.0.contains_key(&Mark::of(pseudonym))
    }

    /// This contact was removed now.
    pub(super) fn add(&mut self, cx: &mut Context<'_>, pseudonym: &DhPublic) {
        let life = life(cx.network.params.record_life);
        self.0.retain(|_, at| *at + life > cx.confirmed);
        self.0.insert(Mark::of(pseudonym), cx.wall);
        while self.0.len() > GONE_MAX {
            let first = self.0.iter().min_by_key(|&(_, at)| *at);
            let Some(first) = first.map(|(&mark, _)| mark) else {
                break;
            };
            self.0.remove(&first);
        }
        let all: Vec<(Mark, WallTime)> = self.0.iter().map(|(&mark, &at)| (mark, at)).collect();
        cx.store(StoreOp::PutGone(wire::encode(&(VERSION, all))));
    }
}

impl Mark {
    fn of(pseudonym: &DhPublic) -> Self {
        let hash = sha256(&[&pseudonym.0]);
        let mut mark = [0; 16];
        mark.copy_from_slice(&hash[..16]);
        Self(mark)
    }
}

/// How long a record can still be opened after it was written (docs/protocol.md §10.3(6)).
fn life(record_life: Duration) -> Duration {
    EPOCH_LEN.saturating_mul(2) + record_life + SEAL_KEY_KEPT_AFTER
}
