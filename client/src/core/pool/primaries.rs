//! Primary guards come first (docs/protocol.md §6.4(6)): guards beyond them are used only once the
//! primaries had their time.
//!
//! A slow network, or one that is not there yet, must not show this client's address to guard after
//! guard. Whoever blocks primaries on purpose can also wait: against that, few new guards a day are
//! tried (§6.4(8)).

use std::collections::BTreeSet;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{GUARD_STAGGER, PRIMARIES_FIRST};
use umbel_proto::time::Instant;

use super::super::links::{Links, Reach};

/// How the primary guards fail.
#[derive(Default)]
pub(super) struct Primaries {
    /// Since when none could be used for a while.
    failing_since: Option<Instant>,
    /// Those that refused their last dial at once.
    refusing: BTreeSet<RelayId>,
}

impl Primaries {
    /// Whether other guards may be used beside these, of which some are suspected.
    pub(super) fn have_failed(
        &mut self,
        primary: &[RelayId],
        suspected: &BTreeSet<RelayId>,
        links: &Links,
        now: Instant,
    ) -> bool {
        self.refusing.retain(|relay| primary.contains(relay));
        let usable = primary.iter().filter(|relay| !suspected.contains(relay));
        let mut up = usable.filter_map(|&relay| links.link_to(relay)).peekable();
        if up.peek().is_none() {
            self.failing_since.get_or_insert(now);
        } else if up.any(|link| links.has_lasted(link, now)) {
            self.failing_since = None;
        }
        let is_online = !links.ids().is_empty();
        self.until().is_some_and(|until| until <= now)
            || (is_online && self.refusing.len() == primary.len())
    }

    /// Until when they are tried alone.
    pub(super) fn until(&self) -> Option<Instant> {
        self.failing_since.map(|since| since + PRIMARIES_FIRST)
    }

    /// The network is there again: what failed before says nothing of these. A window that is not
    /// over yet goes on, so that a link that comes and goes does not keep others out for ever.
    pub(super) fn handle_back_online(&mut self, now: Instant) {
        if let Some(since) = self
            .failing_since
            .as_mut()
            .filter(|since| **since + PRIMARIES_FIRST <= now)
        {
            *since = now;
        }
    }

    /// A dial has failed. Without a network all fail at once, which says nothing of a guard. Call it
    /// before `links` is told.
    pub(super) fn handle_dial_failed(&mut self, links: &Links, relay: RelayId, now: Instant) {
        let is_refused = matches!(
            links.reach(relay, now),
            Reach::Dialling(began_at) if now < began_at + GUARD_STAGGER
        );
        if is_refused && !links.ids().is_empty() {
            self.refusing.insert(relay);
        } else {
            self.refusing.remove(&relay);
        }
    }

    /// A relay has a link.
    pub(super) fn handle_link_up(&mut self, relay: RelayId) {
        self.refusing.remove(&relay);
    }
}
