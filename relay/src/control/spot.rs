//! Tries some of the receipts that others issued (docs/protocol.md §8.8).
//!
//! [`SpotChecks`] decides which, and how their issuers stand. Here are its dials, and its effect on
//! the book: issuers that are barred vouch for nobody.

use umbel_proto::directory::receipts::{Facts, ProbeId, Probed, SpotChecks};
use umbel_proto::directory::{Book, RelayDescriptor};
use umbel_proto::ids::RelayId;
use umbel_proto::time::{ClockGuard, Instant, WallTime};

use super::ControlConfig;
use super::context::Context;
use super::io::StoreOp;

/// The checks of this relay.
pub(super) struct Spot(SpotChecks);

impl Spot {
    /// Takes up how issuers stood.
    pub(super) fn restore(cx: &mut Context<'_>, stored: Option<&[u8]>) -> Self {
        let checks = SpotChecks::restore(cx.relay, stored, cx.now);
        let network = &cx.config.network;
        cx.book.bar(network, cx.wall, checks.barred().collect());
        Self(checks)
    }

    /// The machine that decides.
    pub(super) const fn checks(&self) -> &SpotChecks {
        &self.0
    }

    /// This relay's descriptor was taken into the view.
    pub(super) fn handle_taken(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        let facts = facts(cx.config, cx.book, cx.wall, cx.clock);
        if let Some(descriptor) = facts.view.get(&relay) {
            self.0.handle_taken(cx.now, facts, descriptor, cx.rng);
        }
    }

    /// This descriptor was turned away, since another relay is at one of its addresses.
    pub(super) fn handle_turned_away(&mut self, cx: &mut Context<'_>, away: &RelayDescriptor) {
        let facts = facts(cx.config, cx.book, cx.wall, cx.clock);
        self.0.handle_turned_away(cx.now, facts, away, cx.rng);
    }

    /// A dial is over.
    pub(super) fn handle_probed(&mut self, cx: &mut Context<'_>, number: u64, probed: Probed) {
        self.0.handle_probed(
            cx.now,
            facts(cx.config, cx.book, cx.wall, cx.clock),
            number,
            probed,
        );
        self.finish(cx);
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let is_online = |family, except, since| cx.links.is_online(family, except, since);
        self.0.handle_timeout(
            cx.now,
            facts(cx.config, cx.book, cx.wall, cx.clock),
            is_online,
        );
        self.finish(cx);
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        self.0.expire(cx.clock.confirmed());
        self.finish(cx);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        while let Some((number, dial)) = self.0.poll_dial() {
            cx.out.probes.push_back((ProbeId::SpotCheck(number), dial));
        }
        if let Some((records, barred)) = self.0.take_changes() {
            cx.book.bar(&cx.config.network, cx.wall, barred);
            cx.store(StoreOp::PutSpotChecks(records));
        }
    }
}

/// The facts that checks are decided by.
fn facts<'a>(
    config: &'a ControlConfig,
    book: &'a Book,
    wall: WallTime,
    clock: &ClockGuard,
) -> Facts<'a> {
    Facts {
        network: &config.network,
        view: book.view(),
        wall,
        confirmed: clock.confirmed(),
    }
}
