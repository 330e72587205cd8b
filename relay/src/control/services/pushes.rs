//! How many descriptors that peers push are checked (docs/protocol.md §8.4(2)).
//!
//! Relay ids are free, so only a relay of the view has a budget of its own. Strangers share one for
//! each address group that their links come from, and all of them together have no more than one
//! relay of the view.

use std::collections::BTreeMap;

use umbel_proto::ids::RelayId;
use umbel_proto::limits::{
    PUSH_INTERVAL, PUSH_SOURCES_MAX, PUSHED_AT_ONCE, STRANGER_PUSH_INTERVAL,
    STRANGER_PUSHED_AT_ONCE,
};
use umbel_proto::network::Group;
use umbel_proto::time::{Instant, Rate};

/// Whose budget a push takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A relay of the view.
    Relay(RelayId),
    /// Relays outside it, whose links come from this group.
    Strangers(Group),
}

impl Source {
    const fn rate(self, now: Instant) -> Rate {
        match self {
            Self::Relay(_) => Rate::new(PUSH_INTERVAL, PUSHED_AT_ONCE, now),
            Self::Strangers(_) => Rate::new(STRANGER_PUSH_INTERVAL, STRANGER_PUSHED_AT_ONCE, now),
        }
    }
}

/// The budgets, which outlive links.
#[derive(Debug)]
pub(super) struct PushBudgets {
    sources: BTreeMap<Source, Rate>,
    strangers: Rate,
}

impl PushBudgets {
    pub(super) const fn new() -> Self {
        Self {
            sources: BTreeMap::new(),
            strangers: Rate::new(PUSH_INTERVAL, PUSHED_AT_ONCE, Instant::from_micros(0)),
        }
    }

    /// Whether one more descriptor of this source may be checked now.
    pub(super) fn may_check(&mut self, source: Source, now: Instant) -> bool {
        let is_left = match source {
            Source::Relay(_) => true,
            Source::Strangers(_) => self.strangers.next_at() <= now,
        };
        is_left && self.rate_of(source, now).next_at() <= now
    }

    /// One was checked.
    pub(super) fn take(&mut self, source: Source, now: Instant) {
        if let Source::Strangers(_) = source {
            self.strangers.take(now);
        }
        self.rate_of(source, now).take(now);
    }

    /// This source's budget. Where too many sources are counted, one begins anew.
    fn rate_of(&mut self, source: Source, now: Instant) -> &mut Rate {
        let is_known = self.sources.contains_key(&source);
        if !is_known && self.sources.len() >= PUSH_SOURCES_MAX {
            self.sources.retain(|_, rate| !rate.is_whole(now));
            if self.sources.len() >= PUSH_SOURCES_MAX {
                self.sources.pop_first();
            }
        }
        let new = source.rate(now);
        self.sources.entry(source).or_insert(new)
    }
}
