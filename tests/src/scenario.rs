//! The beginning of most tests: Alice, who sends, and Bob, who has an inbox called "help"; and
//! their networks.

use std::collections::BTreeSet;

use umbel_client::core::{Core, Notice, Wish};
use umbel_proto::ids::{MessageId, RelayId};
use umbel_proto::network::{AddressGroups, Network, Params};
use umbel_proto::time::Duration;

use crate::{ClientName, RelayName, World};

/// Sends to Bob: the first client of a world.
pub const ALICE: ClientName = ClientName(0);
/// Owns the inbox "help": the second client of a world.
pub const BOB: ClientName = ClientName(1);

/// The parameters that people have, but for addresses on one machine.
pub fn strangers() -> Network {
    Network {
        params: Params {
            danger_allow_private_addresses: true,
            ..Params::DEFAULT
        },
        ..Network::local()
    }
}

/// The parameters that people have. Only receipts and public addresses are not asked for.
pub fn by_default() -> Network {
    let mut network = strangers();
    network.params.receipts_min = 0;
    network
}

/// The same where senders don't wait: every port is an address group, relays are chosen as soon as
/// they are known, second deposits come at once, and there are no puzzles. What fails rests as long
/// as by default.
pub fn patient() -> Network {
    let mut network = by_default();
    network.params.danger_address_groups = AddressGroups::Port;
    network.params.second_deposit_delay = Duration::ZERO;
    network.params.selectable_age = Duration::ZERO;
    network.params.puzzle_effort = 0;
    network
}

/// Bob fetches what has come, and follows his inbox from then on.
pub fn listen(world: &mut World, is_interactive: bool) {
    world.wish(
        BOB,
        Wish::Listen {
            name: "help".into(),
            is_interactive,
        },
    );
}

/// Whether a notice told Alice that as many holders as wanted have her message.
pub fn is_held(world: &World, sent: MessageId) -> bool {
    let is_it = |notice: &Notice| matches!(notice, Notice::Held { id, holders, wanted } if *id == sent && holders >= wanted);
    world.has_notice(ALICE, is_it)
}

/// Whether a notice told Alice that at least this many holders have her message.
pub fn is_held_by(world: &World, sent: MessageId, holders_min: usize) -> bool {
    let is_it = |notice: &Notice| matches!(notice, Notice::Held { id, holders, .. } if *id == sent && *holders >= holders_min);
    world.has_notice(ALICE, is_it)
}

/// Whether Bob has a message.
pub fn has_come(world: &World, sent: MessageId) -> bool {
    received(world).contains(&sent)
}

/// The messages that Bob has.
pub fn received(world: &World) -> BTreeSet<MessageId> {
    let messages = world.client(BOB).disk.messages.iter();
    messages.map(|(_, id, _)| *id).collect()
}

/// How many mailboxes the descriptor of a client's first inbox names, and how many of them are out of
/// reach; none while the client is down.
pub fn mailboxes_of(world: &World, name: ClientName) -> (usize, usize) {
    let status = world.client(name).core().map(Core::status);
    let first = status.and_then(|status| status.inboxes.into_iter().next());
    first.map_or((0, 0), |inbox| (inbox.mailboxes, inbox.out_of_reach))
}

/// The guard that a client uses now.
pub fn guard_of(world: &World, name: ClientName) -> Option<RelayId> {
    let core = world.client(name).core();
    core.and_then(|core| core.status().guard)
}

/// The relays that were this hop of a circuit that a client began, from 1.
pub fn relays_at(world: &World, name: ClientName, wanted: usize) -> BTreeSet<RelayId> {
    let notices = world.client(name).notices.iter();
    let built = notices.filter_map(|(_, notice)| match notice {
        Notice::HopBuilt { hop, relay, .. } if *hop == wanted => Some(*relay),
        _ => None,
    });
    built.collect()
}

/// How many circuits of a client got as far as this hop.
pub fn built_count(world: &World, name: ClientName, wanted: usize) -> usize {
    let is_it = |notice: &Notice| matches!(notice, Notice::HopBuilt { hop, .. } if *hop == wanted);
    count_of(world, name, is_it)
}

/// How often a client has told its user something like this.
pub fn count_of(world: &World, name: ClientName, is_it: impl Fn(&Notice) -> bool) -> usize {
    let notices = world.client(name).notices.iter();
    notices.filter(|(_, notice)| is_it(notice)).count()
}

/// A client's guards and L2 relays, in the order in which they are stored: these are all the relays
/// that the state of its paths names.
pub fn chosen_by(world: &World, name: ClientName) -> Vec<RelayName> {
    let state = world.client(name).disk.paths().unwrap_or_default();
    let relay_at = |at: &[u8]| {
        let mut relays = world.all_relays().iter();
        relays.position(|relay| relay.id.0 == at).map(RelayName)
    };
    state.windows(RelayId::LEN).filter_map(relay_at).collect()
}

/// The relay with this id.
///
/// # Panics
/// It is not of this world.
pub fn name_of(world: &World, relay: RelayId) -> RelayName {
    world
        .relay_named(relay)
        .unwrap_or_else(|| unreachable!("a relay of this world"))
}

/// Bytes that no two messages share.
pub fn body(number: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 131) ^ (number * 29) ^ (at >> 8)).to_le_bytes()[0])
        .collect()
}
