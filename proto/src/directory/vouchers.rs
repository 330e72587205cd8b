//! Who vouches for an address (docs/protocol.md §8.2(4)).

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::descriptor::{RelayDescriptor, VerifiedDescriptor};
use super::receipts::Receipt;
use super::view::NetView;
use crate::ids::RelayId;
use crate::network::{Group, Network};
use crate::time::WallTime;

/// Counts the relays that vouch for one address (§8.2(4)): each known for long enough, or a seed
/// while those vouch, and no two with an address group or an AS in common. None shares one with the
/// address either: a network can't vouch for itself.
#[derive(Debug)]
pub struct Vouchers<'a> {
    view: &'a NetView,
    network: &'a Network,
    wall: WallTime,
    groups: BTreeSet<Group>,
    others: Option<&'a Issuers<'a>>,
}

/// Relays that vouch although they are not in the view.
pub(super) type Issuers<'a> = BTreeMap<RelayId, &'a VerifiedDescriptor>;

impl<'a> Vouchers<'a> {
    /// Nobody has vouched for this address yet.
    pub(super) fn new(
        view: &'a NetView,
        network: &'a Network,
        address: SocketAddr,
        wall: WallTime,
    ) -> Self {
        Self {
            view,
            network,
            wall,
            groups: network.groups_of(address).collect(),
            others: None,
        }
    }

    /// The receipts of this address of a descriptor that count, in their order.
    pub(super) fn receipts(
        mut self,
        descriptor: &'a RelayDescriptor,
        address: SocketAddr,
    ) -> impl Iterator<Item = &'a Receipt> {
        let of_address = move |it: &&Receipt| it.address == address;
        let receipts = descriptor.receipts.iter().filter(of_address);
        receipts.filter(move |it| self.count(&it.issuer))
    }

    /// These issuers count as well, which are not in the view.
    pub(super) fn with(self, others: Option<&'a Issuers<'a>>) -> Self {
        Self { others, ..self }
    }

    /// Whether this issuer would count.
    pub fn would_count(&self, issuer: &RelayId) -> bool {
        self.groups_counted(issuer).is_some()
    }

    /// The groups of an issuer that counts.
    fn groups_counted(&self, issuer: &RelayId) -> Option<BTreeSet<Group>> {
        let Self {
            view,
            network,
            wall,
            groups,
            others,
        } = self;
        let age = network.params.receipt_issuer_age;
        let is_barred = view.is_barred(issuer);
        let may_count = || {
            let known = view.age(issuer);
            let is_old = known.is_some_and(|it| it.is_at_least(age, *wall) && view.may_vouch(it));
            (is_old && !is_barred) || view.seed_vouches(network, issuer, *wall)
        };
        let descriptor = match view.get(issuer) {
            Some(descriptor) => may_count().then_some(descriptor)?,
            None => others
                .filter(|_| !is_barred)
                .and_then(|others| others.get(issuer).copied())?,
        };
        let of_issuer = descriptor.groups(network);
        of_issuer.is_disjoint(groups).then_some(of_issuer)
    }

    /// Counts this issuer, if it does.
    pub fn count(&mut self, issuer: &RelayId) -> bool {
        let groups = self.groups_counted(issuer);
        let counts = groups.is_some();
        self.groups.extend(groups.into_iter().flatten());
        counts
    }
}
