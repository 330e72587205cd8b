//! What it takes to be all positions of an inbox's descriptor, or all holders of its mailboxes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::directory::choice::Candidates;
use umbel_proto::directory::{Book, ring};
use umbel_proto::ids::{BlindedKey, RelayId};
use umbel_proto::limits::RING_POSITIONS;
use umbel_proto::network::{AsMap, AsNumber, Params};
use umbel_proto::time::Epoch;

use super::super::addresses::{Announced, announced};
use super::super::choices::{Choices, KnownRelays};
use super::super::relays::{Relay, WALL, honest, ids, network, share_of};

/// /16s of one AS in which machines can be rented.
pub(super) const PREFIXES: usize = 16;
/// Weeks for which an inbox is followed.
pub(super) const WEEKS: u64 = 4;

pub(super) struct Plan {
    pub(super) relays: usize,
    pub(super) ases: usize,
    /// In how many ASes machines can be rented.
    pub(super) hosters: &'static [usize],
    /// Inboxes whose positions are worked out.
    pub(super) inboxes: usize,
    /// Owners whose holders are drawn.
    pub(super) owners: usize,
}

/// What can be had where machines can be rented in so many ASes.
pub(super) struct Bought {
    pub(super) hosters: usize,
    /// /16s in them, with a machine in each.
    pub(super) prefixes: usize,
    /// Of each inbox and week, how many positions can be had.
    pub(super) positions: Vec<usize>,
    /// Of each inbox all of whose positions can be had in all weeks, how many machines that takes.
    pub(super) machines: Vec<usize>,
    /// The share of all draws that a machine in each /16 has.
    pub(super) draws: f64,
    /// Of each owner, how many holders are theirs then.
    pub(super) holders: Vec<usize>,
}

impl Bought {
    /// How often they have at least so many positions.
    pub(super) fn has_positions(&self, least: usize) -> f64 {
        share(&self.positions, least)
    }

    /// How often one position is theirs.
    pub(super) fn one_position(&self) -> f64 {
        let all: usize = self.positions.iter().sum();
        all as f64 / (self.positions.len() * RING_POSITIONS).max(1) as f64
    }

    /// The share of inboxes all of whose positions can be had in all weeks.
    pub(super) fn has_all_weeks(&self) -> f64 {
        let inboxes = self.positions.len() as f64 / WEEKS as f64;
        self.machines.len() as f64 / inboxes
    }

    /// How often all holders are theirs.
    pub(super) fn has_holders(&self) -> f64 {
        share(&self.holders, Params::DEFAULT.mailboxes)
    }
}

fn share(counts: &[usize], least: usize) -> f64 {
    let enough = counts.iter().filter(|&&count| count >= least).count();
    enough as f64 / counts.len().max(1) as f64
}

/// For each number of ASes, what can be had there.
pub(super) fn bought(plan: &Plan, seed: u64) -> Vec<Bought> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut announced: Vec<(AsNumber, Announced)> = announced().into_iter().collect();
    announced.shuffle(&mut rng);
    let honest = honest((plan.relays, plan.ases), &announced, &mut rng);
    // Whoever rents for this looks for hosters with many prefixes.
    announced.sort_by_key(|(_, of_as)| std::cmp::Reverse(of_as.len()));
    let mut of = |&hosters: &usize| {
        let hosters = hosters.min(announced.len());
        bought_in(plan, &honest, &announced[..hosters], &mut rng)
    };
    plan.hosters.iter().map(&mut of).collect()
}

fn bought_in(
    plan: &Plan,
    honest: &[Relay],
    hosters: &[(AsNumber, Announced)],
    rng: &mut ChaCha20Rng,
) -> Bought {
    let places = hosters
        .iter()
        .flat_map(|(_, of_as)| of_as.values().take(PREFIXES));
    let places: Vec<Ipv4Addr> = places.filter_map(|of| of.first().copied()).collect();
    let machine = |place: Ipv4Addr, rng: &mut ChaCha20Rng| {
        let [a, b, c, _] = place.octets();
        Relay::at(Ipv4Addr::new(a, b, c, 77), rng)
    };
    let theirs: Vec<Relay> = places.into_iter().map(|it| machine(it, rng)).collect();
    let mut bought = Bought {
        hosters: hosters.len(),
        prefixes: theirs.len(),
        positions: Vec::new(),
        machines: Vec::new(),
        draws: 0.0,
        holders: Vec::new(),
    };
    bought.take_positions(plan, honest, &theirs, rng);
    bought.draw_holders(plan, honest, &theirs, rng);
    bought
}

impl Bought {
    /// Works the positions out as if all these machines were rented: those that have positions then
    /// are the only ones that must be.
    fn take_positions(
        &mut self,
        plan: &Plan,
        honest: &[Relay],
        theirs: &[Relay],
        rng: &mut ChaCha20Rng,
    ) {
        let network = network(AsMap::NEWEST);
        let group = |relay: &Relay| network.group_of(relay.descriptor.addresses[0]);
        let groups: BTreeSet<_> = theirs.iter().map(group).collect();
        // In a /16 where they have a machine, they grind an id that comes before the honest ones.
        let others = honest
            .iter()
            .filter(|relay| !groups.contains(&group(relay)));
        let rows = others.chain(theirs).map(Relay::row);
        let (book, theirs) = (Book::restore(&network, rows, WALL), ids(theirs));
        for _ in 0..plan.inboxes {
            let mut machines = BTreeSet::new();
            let mut has_all = true;
            for week in 1..=WEEKS {
                let (key, epoch) = (BlindedKey(rng.random()), Epoch(WALL.epoch().0 + week));
                let positions = ring::positions(book.view(), &network, WALL, &key, epoch);
                let first = positions.first.iter().copied();
                let taken: Vec<RelayId> = first.filter(|relay| theirs.contains(relay)).collect();
                self.positions.push(taken.len());
                has_all &= taken.len() == RING_POSITIONS;
                machines.extend(taken);
            }
            self.machines.extend(has_all.then_some(machines.len()));
        }
    }

    /// Draws the holders of as many inboxes, all these machines being rented.
    fn draw_holders(
        &mut self,
        plan: &Plan,
        honest: &[Relay],
        theirs: &[Relay],
        rng: &mut ChaCha20Rng,
    ) {
        let network = network(AsMap::NEWEST);
        let all = honest.iter().chain(theirs);
        let candidates = Candidates::new(all.clone().map(|relay| &relay.descriptor), &network);
        let known = KnownRelays::new(network, all.map(Relay::row).collect(), WALL);
        let theirs = ids(theirs);
        self.draws = share_of(&theirs, &candidates);
        for _ in 0..plan.owners {
            let mut owner = Choices::new();
            owner.refresh(&known, WALL, rng);
            let holders = owner.holders(&known, WALL, rng).iter();
            let taken = holders.filter(|relay| theirs.contains(*relay)).count();
            self.holders.push(taken);
        }
    }
}
