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
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::limits::{
    OVERTAKE_EVERY, OWN_LOOKUP_MAX, OWN_LOOKUP_MIN, REPLACED_HOLDERS_MIN, REPLACED_WITHIN,
};
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant};

use super::super::chance::between;
use super::super::context::Context;
use super::super::lookup::{Found, Lookups};
use super::super::requests::Requests;

/// Least time between two look-ups of our own descriptor because a position refused our revision.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Signs of other copies of one inbox.
#[derive(Default)]
pub(super) struct Rival {
    looks_at: Option<Instant>,
    looked_at: Option<Instant>,
    overtook_at: Option<Instant>,
    is_told: bool,
    /// Holders that ended a subscription for another's sake, and when each last did.
    replaced: BTreeMap<RelayId, Instant>,
}

impl Rival {
    /// A position refused our revision: looks its descriptor up.
    pub(super) fn on_refused(&mut self, now: Instant) {
        let rested_at = self.looked_at.map_or(now, |at| (at + LOOK_AGAIN).max(now));
        self.looks_at = Some(self.looks_at.map_or(rested_at, |at| at.min(rested_at)));
    }

    /// A holder reports that another subscription replaced ours: looks our own descriptor up.
    /// Returns whether enough holders report it.
    pub(super) fn on_replaced(&mut self, now: Instant, params: &Params, holder: RelayId) -> bool {
        self.on_refused(now);
        self.replaced.retain(|_, at| *at + REPLACED_WITHIN > now);
        self.replaced.insert(holder, now);
        self.replaced.len() >= REPLACED_HOLDERS_MIN.min(params.mailboxes)
    }

    /// Looks our own descriptor up when that is due. The revision that is found, once it is.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        lookups: &mut Lookups,
        requests: &mut Requests,
        address: &InboxAddress,
    ) -> Option<u64> {
        let since = match self.looks_at {
            Some(looks_at) if looks_at <= cx.now => looks_at,
            Some(_) => return None,
            None => {
                self.looks_at = Some(cx.now + between(OWN_LOOKUP_MIN, OWN_LOOKUP_MAX, cx.rng));
                return None;
            }
        };
        let found = lookups.find(cx, requests, address, since, true);
        if matches!(found, Found::Pending) {
            return None;
        }
        self.looked_at = Some(cx.now);
        self.looks_at = Some(cx.now + between(OWN_LOOKUP_MIN, OWN_LOOKUP_MAX, cx.rng));
        match found {
            Found::Known(descriptor) => Some(descriptor.revision),
            Found::Pending | Found::Failed(_) => None,
        }
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

    pub(super) const fn timeout(&self) -> Option<Instant> {
        self.looks_at
    }
}

/// The revision that the next one has to be above: ours, the one that was found, and the time. By a
/// clock that is ahead it would be above all that honest clocks give, for good.
pub(super) fn revision_to_pass(cx: &Context<'_>, own: u64, found: u64) -> u64 {
    own.max(found).max(cx.confirmed.to_hour().as_secs())
}

#[cfg(test)]
mod tests {
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use super::super::super::testing::When;
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
        assert!(rival.looks_at.is_some(), "the descriptor is looked up");
    }

    #[test] // §9.3(6)
    fn a_clock_that_is_ahead_does_not_raise_the_revision() {
        let now = WallTime(1_790_000_000);
        let ahead = When {
            wall: now + Duration::from_secs(365 * 86_400),
            ..When::at(now)
        };
        let pass = |own, found| ahead.act(|cx| revision_to_pass(cx, own, found)).0;
        assert_eq!(pass(3, 5), now.to_hour().as_secs());
        assert_eq!(
            pass(3, now.0 + 9),
            now.0 + 9,
            "the other copy's clock may have been ahead"
        );
        assert_eq!(pass(now.0 + 8, 5), now.0 + 8);
    }
}
