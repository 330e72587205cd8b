//! Another copy of one's own inbox: the same profile in use on a second machine, or an old backup
//! of it that was restored.
//!
//! A revision is durable here before it is published, so a higher one on the ring is another
//! copy's. A position that refuses our revision proves nothing; the descriptor in its place does,
//! since its signer has the inbox's key. One holder's report that our subscription was replaced
//! proves nothing either. Two reports within minutes are believed, since a copy that has published
//! nothing shows itself nowhere else. Two copies must not overtake one another for ever, so each
//! does it rarely.

use std::collections::BTreeMap;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{OVERTAKE_EVERY, REPLACED_HOLDERS_MIN, REPLACED_WITHIN};
use umbel_proto::network::Params;
use umbel_proto::time::Instant;

/// Signs of other copies of one inbox.
#[derive(Default)]
pub(super) struct Rival {
    overtook_at: Option<Instant>,
    is_told: bool,
    /// Holders that ended a subscription for another's sake, and when each last did.
    replaced: BTreeMap<RelayId, Instant>,
}

impl Rival {
    /// A holder reports that another subscription replaced ours. Whether enough holders report it.
    pub(super) fn on_replaced(&mut self, now: Instant, params: &Params, holder: RelayId) -> bool {
        self.replaced.retain(|_, at| *at + REPLACED_WITHIN > now);
        self.replaced.insert(holder, now);
        self.replaced.len() >= REPLACED_HOLDERS_MIN.min(params.mailboxes)
    }

    /// Whether the other copy may be overtaken now.
    pub(super) fn may_overtake(&mut self, now: Instant) -> bool {
        let may = self.overtook_at.is_none_or(|at| at + OVERTAKE_EVERY <= now);
        if may {
            self.overtook_at = Some(now);
        }
        may
    }

    /// Whether to warn the user, which happens once.
    pub(super) fn is_news(&mut self) -> bool {
        !core::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Network;

    use super::*;

    #[test] // §10.2(6c)
    fn one_holder_alone_is_not_believed_that_there_is_another_copy() {
        let params = Network::local().params;
        let mut rival = Rival::default();
        let mut says = |number: u8, minute: u64| {
            let now = Instant::from_micros(minute * 60_000_000);
            rival.on_replaced(now, &params, RelayId([number; RelayId::LEN]))
        };
        assert!(!says(1, 0) && !says(1, 1) && !says(1, 9));
        assert!(!says(2, 20), "that of the first is too old");
        assert!(says(3, 22));
    }
}
