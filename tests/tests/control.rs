//! The control plane against peers that do the unexpected: nothing panics, nothing leaks, nobody
//! else suffers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::circuit::{OriginCircuit, OriginEvent};
use umbel_proto::crypto::hpke::SealSecret;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, RelayDescriptor, Unverified,
};
use umbel_proto::handshake::{HopTarget, Onionskin, respond};
use umbel_proto::ids::{BlindedKey, CircId, RelayId};
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::link::{LinkId, LinkOp};
use umbel_proto::message::{ExtendRefusal, Service};
use umbel_proto::network::{AddressGroups, Network};
use umbel_proto::time::{ClockJump, Duration, Epoch, WallTime};

use umbel_relay::control::io::{Effect, News};
use umbel_relay::forward::LinkEvent;
use umbel_tests::shells::lone::{CIRCUITS_MAX, FRAMES_BYTES_MAX, LoneRelay, Neighbour};

/// The client's link.
const CLIENT: LinkId = LinkId(1);
/// A neighbour's link.
const NEXT: LinkId = LinkId(2);

/// A client with one circuit over its link to the relay.
struct Client {
    circuit: OriginCircuit,
    circ: CircId,
    rng: ChaCha20Rng,
    /// Whether it was destroyed, which must happen only once.
    is_destroyed: bool,
}

impl Client {
    fn begin(relay: &mut LoneRelay, number: u32) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(number));
        let circuit = OriginCircuit::create(&relay.network.id, &relay.target().unwrap(), &mut rng);
        let circ = CircId::new(0x8000_0000 | number).unwrap();
        Self {
            circuit,
            circ,
            rng,
            is_destroyed: false,
        }
    }

    fn connected(relay: &mut LoneRelay, number: u32) -> Self {
        let mut client = Self::begin(relay, number);
        client.exchange(relay);
        assert!(matches!(
            client.events()[..],
            [OriginEvent::Extended { hops: 1 }]
        ));
        client
    }

    /// Cells pass both ways until nobody has any.
    fn exchange(&mut self, relay: &mut LoneRelay) {
        while let Some(mut cell) = self.circuit.poll_cell(&mut self.rng) {
            cell.set_circ_id(self.circ);
            relay.cell(CLIENT, cell);
        }
        relay.answer_works();
        relay.control.check().unwrap();
        let mut others = Vec::new();
        for (link, mut cell) in std::mem::take(&mut relay.sent) {
            match cell.header().unwrap() {
                (Some(circ), command) if link == CLIENT && circ == self.circ => {
                    assert!(!self.is_destroyed, "nothing follows a destroy");
                    if command == Command::Destroy {
                        self.is_destroyed = true;
                    } else {
                        self.circuit.handle_cell(command, &mut cell).unwrap();
                    }
                }
                _ => others.push((link, cell)),
            }
        }
        relay.sent = others;
    }

    fn events(&mut self) -> Vec<OriginEvent> {
        std::iter::from_fn(|| self.circuit.poll_event()).collect()
    }

    fn extend(&mut self, relay: &mut LoneRelay, target: &HopTarget) {
        self.circuit.extend(target, &mut self.rng);
        self.exchange(relay);
    }

    fn refusal(&mut self) -> Option<ExtendRefusal> {
        match self.events()[..] {
            [OriginEvent::ExtendRefused(refusal)] => Some(refusal),
            _ => None,
        }
    }
}

fn with_client(neighbours: u8) -> LoneRelay {
    with_peer(neighbours, None)
}

/// A relay that a client is linked to, or a relay that asks as one does.
fn with_peer(neighbours: u8, peer: Option<RelayId>) -> LoneRelay {
    let mut relay = LoneRelay::new(neighbours);
    relay.link_up(CLIENT, peer, false);
    relay
}

fn lookup() -> Vec<u8> {
    DirectoryRequest::LookupInbox {
        blinded: BlindedKey([1; 32]),
        epoch: Epoch(2900),
    }
    .encode()
}

fn commands(relay: &mut LoneRelay, link: LinkId) -> Vec<Command> {
    let of_link = std::mem::take(&mut relay.sent)
        .into_iter()
        .filter(|(to, _)| *to == link);
    of_link.map(|(_, cell)| cell.header().unwrap().1).collect()
}

#[test] // §7.2(7)
fn a_second_request_on_a_stream_ends_the_circuit_and_not_the_relay() {
    let mut relay = with_client(0);
    let mut client = Client::connected(&mut relay, 1);
    let stream = client
        .circuit
        .open_stream(Service::Directory, &lookup(), false)
        .unwrap();
    client.circuit.send(stream, &lookup(), false).unwrap();
    client.exchange(&mut relay);
    assert!(client.is_destroyed);
    assert_eq!((relay.control.end_count(), relay.table_len()), (0, 0));
}

#[test] // §7.2(7), §4.1(2)
fn a_request_whose_end_comes_later_is_answered_once() {
    let mut relay = with_client(0);
    let mut client = Client::connected(&mut relay, 1);
    let stream = client
        .circuit
        .open_stream(Service::Directory, &lookup(), false)
        .unwrap();
    client.exchange(&mut relay);
    client.circuit.finish(stream);
    client.exchange(&mut relay);
    let frames: Vec<_> = client
        .events()
        .into_iter()
        .filter_map(|event| match event {
            OriginEvent::Frame { frame, .. } => DirectoryReply::decode(&frame).ok(),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [DirectoryReply::Inbox(None)]);
    assert_eq!(
        client.circuit.stream_count(),
        0,
        "both ends know that the stream is over"
    );
}

#[test] // §2.6(4)
fn a_relay_that_stops_says_destroy_once_to_each_end_and_nothing_after() {
    let mut relay = with_client(1);
    let target = relay.neighbours[0].target();
    relay.link_up(NEXT, Some(target.relay), true);
    let mut extending = Client::connected(&mut relay, 1);
    extending.extend(&mut relay, &target);
    assert_eq!(commands(&mut relay, NEXT), [Command::Create]);
    let _open = Client::connected(&mut relay, 2);
    relay.stop();
    let sent = std::mem::take(&mut relay.sent);
    let is_destroy =
        |(_, cell): &(LinkId, Cell)| matches!(cell.header(), Ok((_, Command::Destroy)));
    assert!(sent.iter().all(is_destroy), "{sent:?}");
    assert_eq!(sent.len(), 3, "two ends toward clients, one away");
    assert_eq!((relay.control.end_count(), relay.table_len()), (0, 0));
    relay.control.check().unwrap();
}

#[test] // §2.2
fn a_link_that_is_to_be_closed_makes_no_more_circuits() {
    let mut relay = with_client(0);
    let mut client = Client::begin(&mut relay, 1);
    client.circ = CircId::new(1).unwrap(); // not the dialler's to choose
    client.exchange(&mut relay);
    client.exchange(&mut relay);
    let mut other = Client::begin(&mut relay, 2);
    other.exchange(&mut relay);
    assert!(
        matches!(relay.link_ops[..], [LinkOp::Close(CLIENT)]),
        "{:?}",
        relay.link_ops
    );
    assert_eq!(relay.control.stats().circuits, 0);
}

#[test] // §4.2(3), §6.3
fn a_link_that_breaks_while_extending_makes_the_next_relay_unreachable() {
    let mut relay = with_client(1);
    let target = relay.neighbours[0].target();
    relay.link_up(NEXT, Some(target.relay), true);
    let mut client = Client::connected(&mut relay, 1);
    client.extend(&mut relay, &target);
    relay.link_down(NEXT);
    client.exchange(&mut relay);
    assert_eq!(client.refusal(), Some(ExtendRefusal::Unreachable));
    assert!(client.circuit.can_extend());
}

#[test] // §6.2(4), §6.3
fn an_extend_to_an_unknown_relay_is_refused_and_dials_nobody() {
    let mut relay = with_client(1);
    let unknown = Neighbour::new(relay.network.id, 9).target();
    let mut client = Client::connected(&mut relay, 1);
    relay.link_ops.clear();
    client.extend(&mut relay, &unknown);
    assert_eq!(client.refusal(), Some(ExtendRefusal::UnknownRelay));
    assert!(relay.link_ops.is_empty(), "{:?}", relay.link_ops);
}

#[test] // §6.3
fn a_dial_that_comes_too_late_carries_no_onionskin_to_the_wrong_relay() {
    let mut relay = with_client(2);
    let (first, second) = (relay.neighbours[0].target(), relay.neighbours[1].target());
    let mut client = Client::connected(&mut relay, 1);
    client.extend(&mut relay, &first);
    relay.pass(relay.network.params.dial_timeout);
    client.exchange(&mut relay);
    assert_eq!(client.refusal(), Some(ExtendRefusal::Unreachable));
    client.extend(&mut relay, &second);
    relay.link_up(NEXT, Some(first.relay), true);
    relay.control.check().unwrap();
    let onion = &relay.neighbours[0].onion;
    for (link, cell) in &relay.sent {
        if *link == NEXT && matches!(cell.header(), Ok((_, Command::Create))) {
            let onionskin = Onionskin::from_create_body(cell.body()).unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let answer = respond(
                &relay.network.id,
                &first.relay,
                std::slice::from_ref(onion),
                &onionskin,
                &mut rng,
            );
            assert!(answer.is_ok(), "an onionskin for somebody else");
        }
    }
}

/// Links to other relays that the relay has asked for so far.
fn dial_count(relay: &LoneRelay) -> usize {
    let is_dial = |op: &&LinkOp| matches!(op, LinkOp::Dial { .. });
    relay.link_ops.iter().filter(is_dial).count()
}

#[test] // §6.3
fn a_dial_is_in_flight_until_it_reports_though_its_relay_links_by_itself() {
    let mut relay = with_client(1);
    let target = relay.neighbours[0].target();
    let mut first = Client::connected(&mut relay, 1);
    let mut second = Client::connected(&mut relay, 2);
    first.extend(&mut relay, &target);
    relay.link_up(NEXT, Some(target.relay), false);
    assert!(commands(&mut relay, NEXT).contains(&Command::Create));
    relay.link_down(NEXT);
    first.exchange(&mut relay);
    assert_eq!(first.refusal(), Some(ExtendRefusal::Unreachable));
    second.extend(&mut relay, &target);
    assert_eq!(dial_count(&relay), 1, "the first is in flight");
    relay.dial_failed(target.relay);
    second.exchange(&mut relay);
    assert_eq!(second.refusal(), Some(ExtendRefusal::Unreachable));
    second.extend(&mut relay, &target);
    assert_eq!(dial_count(&relay), 2);
    relay.link_up(NEXT, Some(target.relay), true);
    relay.link_down(NEXT);
    second.exchange(&mut relay);
    assert_eq!(second.refusal(), Some(ExtendRefusal::Unreachable));
    second.extend(&mut relay, &target);
    assert_eq!(dial_count(&relay), 3, "a dial that made its link is over");
}

#[test] // §6.3, §4.2(1)
fn a_circuit_destroyed_while_its_next_relay_is_dialled_waits_no_longer() {
    let mut relay = with_client(1);
    let target = relay.neighbours[0].target();
    let mut client = Client::connected(&mut relay, 1);
    client.extend(&mut relay, &target);
    relay.link_down(CLIENT);
    relay.control.check().unwrap();
    relay.link_up(NEXT, Some(target.relay), true);
    assert!(!commands(&mut relay, NEXT).contains(&Command::Create));
    assert_eq!(relay.control.stats().circuits, 0);
}

#[test] // §5.4(1)
fn creates_that_are_destroyed_at_once_leave_no_more_work_than_circuits() {
    let mut relay = with_client(0);
    for number in (1..).take(4 * CIRCUITS_MAX) {
        let mut client = Client::begin(&mut relay, number);
        let mut create = client.circuit.poll_cell(&mut client.rng).unwrap();
        create.set_circ_id(client.circ);
        relay.cell(CLIENT, create);
        relay.cell(
            CLIENT,
            Cell::destroy(client.circ, umbel_proto::cell::DestroyReason::Finished),
        );
        relay.control.check().unwrap();
    }
    assert_eq!(relay.works.len(), CIRCUITS_MAX);
    relay.answer_works();
    relay.pass(Duration::from_secs(10));
    relay.sent.clear();
    Client::connected(&mut relay, 1);
}

#[test] // §4.4(5)
fn half_said_requests_take_no_more_memory_than_all_frames_may() {
    const SAID: usize = 60 * 1900;
    let mut relay = with_client(0);
    let mut clients: Vec<_> = (1..=20)
        .map(|number| Client::connected(&mut relay, number))
        .collect();
    for client in &mut clients {
        client
            .circuit
            .open_stream(Service::Mailbox, &[0; 190_000], true)
            .unwrap();
        for _ in 0..60 {
            let mut cell = client.circuit.poll_cell(&mut client.rng).unwrap();
            cell.set_circ_id(client.circ);
            relay.cell(CLIENT, cell);
            relay.control.check().unwrap();
        }
    }
    let left = relay.control.stats().circuits;
    assert!(
        left > 0 && left * SAID <= FRAMES_BYTES_MAX,
        "{left} circuits are left"
    );
    let destroyed = commands(&mut relay, CLIENT)
        .into_iter()
        .filter(|&command| command == Command::Destroy);
    assert_eq!(destroyed.count() + left, clients.len());
    let mut modest = Client::connected(&mut relay, 21);
    modest
        .circuit
        .open_stream(Service::Directory, &lookup(), true)
        .unwrap();
    modest.exchange(&mut relay);
    assert!(
        modest
            .events()
            .iter()
            .any(|event| matches!(event, OriginEvent::Frame { .. }))
    );
}

/// The kind of an effect, by its place in the order.
fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::Table(..) => "table",
        Effect::Cell(..) => "cell",
        Effect::Link(_) => "link",
        Effect::Work(_) => "work",
        Effect::Probe(..) => "probe",
        Effect::News(_) => "news",
        Effect::Store(_) => "store",
    }
}

#[test]
fn what_a_relay_wants_done_comes_in_one_order_however_it_came_about() {
    let mut relay = with_client(1);
    let client = Client::connected(&mut relay, 1);
    let mut second = Client::begin(&mut relay, 2);
    let mut create = second.circuit.poll_cell(&mut second.rng).unwrap();
    create.set_circ_id(second.circ);
    let mut misnamed = create.clone();
    misnamed.set_circ_id(CircId::new(3).unwrap());
    let mut moment = relay.moment();
    moment.now = moment.now + Duration::from_secs(7200);
    let (control, rng) = (&mut relay.control, &mut relay.rng);
    // Of each kind at least one, the last kinds first.
    control.handle_timeout(moment, rng);
    for event in [
        LinkEvent::Cell(create),
        LinkEvent::Broken(client.circ, Violation::Window),
        LinkEvent::Cell(misnamed),
    ] {
        control.handle_event(moment, CLIENT, event, rng);
    }
    let mut kinds: Vec<_> =
        std::iter::from_fn(|| control.poll_effect().as_ref().map(kind)).collect();
    kinds.dedup();
    assert_eq!(kinds, ["table", "cell", "link", "work", "news", "store"]);
}

/// A directory relay's reply to this descriptor, once the store has committed if `commits`.
fn publish(
    relay: &mut LoneRelay,
    client: &mut Client,
    descriptor: &[u8],
    commits: bool,
) -> Option<DirectoryReply> {
    ask_directory(
        client,
        relay,
        &DirectoryRequest::PublishInbox(descriptor.to_vec().into()),
        commits,
    )
}

fn ask_directory(
    client: &mut Client,
    relay: &mut LoneRelay,
    request: &DirectoryRequest,
    commits: bool,
) -> Option<DirectoryReply> {
    client
        .circuit
        .open_stream(Service::Directory, &request.encode(), true)
        .unwrap();
    client.exchange(relay);
    if commits {
        relay.commit();
        client.exchange(relay);
    }
    client.events().into_iter().find_map(|event| match event {
        OriginEvent::Frame { frame, .. } => Some(DirectoryReply::decode(&frame).unwrap()),
        _ => None,
    })
}

/// A descriptor of the relay of the bench that another process with its identity issued.
fn issued_elsewhere(
    own: &RelayDescriptor,
    addresses: &[SocketAddr],
    issued_at: WallTime,
) -> ByteBuf {
    let descriptor = RelayDescriptor {
        network: own.network,
        relay: own.relay,
        onion_keys: own.onion_keys.clone(),
        addresses: addresses.to_vec(),
        roles: own.roles,
        version: own.version.clone(),
        issued_at,
        receipts: Vec::new(),
        puzzle: 0,
    };
    ByteBuf::from(descriptor.sign(&SigningKey::from_seed(&[99; 32])))
}

#[test] // §8.2
fn a_descriptor_of_its_own_that_another_issued_is_outdone_and_never_taken() {
    let mut relay = with_peer(0, Some(RelayId([5; 32])));
    let mut client = Client::connected(&mut relay, 1);
    let issued_at = relay.wall() + Duration::from_secs(30);
    let own = Unverified::decode(relay.control.descriptor()).unwrap();
    let own = own.verify(&relay.network, relay.wall()).unwrap();
    let issue = |addresses: &[SocketAddr], issued_at| issued_elsewhere(&own, addresses, issued_at);
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 9999));
    let stale = issue(&[elsewhere], WallTime(own.issued_at.as_secs() - 1));
    let (newer, restarted) = (
        issue(&[elsewhere], issued_at),
        issue(&own.addresses, issued_at),
    );
    for (descriptor, twins) in [(stale, 0), (restarted, 0), (newer.clone(), 1), (newer, 2)] {
        let reply = ask_directory(
            &mut client,
            &mut relay,
            &DirectoryRequest::Push(vec![descriptor]),
            false,
        );
        assert_eq!(reply, Some(DirectoryReply::Pushed { accepted: 0 }));
        assert_eq!(relay.control.stats().twins, twins);
        assert_eq!(
            relay.control.view().get(&own.relay).unwrap().addresses,
            own.addresses
        );
    }
    relay.pass(Duration::from_secs(120));
    let outdone = Unverified::decode(relay.control.descriptor()).unwrap();
    assert!(outdone.issued_at() > issued_at);
    assert_eq!(
        relay.control.view().get(&own.relay).unwrap().bytes(),
        outdone.bytes()
    );
}

#[test] // §8.2
fn a_descriptor_outdone_by_a_fast_clock_is_outdone_again_later() {
    let mut relay = LoneRelay::new(0);
    for (number, ahead) in [(1, 30 * 24 * 3600), (2, 0)] {
        relay.set_clock(ahead);
        relay.pass(Duration::from_secs(2 * 3600));
        let own = Unverified::decode(relay.control.descriptor()).unwrap();
        let own = own.verify(&relay.network, relay.wall()).unwrap();
        let issued_at = relay.wall() + Duration::from_secs(30);
        let twin = issued_elsewhere(&own, &own.addresses, issued_at);
        relay.link_up(CLIENT, Some(RelayId([5; 32])), false); // the one before was not used for long
        let mut client = Client::connected(&mut relay, number);
        ask_directory(
            &mut client,
            &mut relay,
            &DirectoryRequest::Push(vec![twin]),
            false,
        );
        relay.pass(Duration::from_secs(120));
        assert!(
            Unverified::decode(relay.control.descriptor())
                .unwrap()
                .issued_at()
                > issued_at,
            "{ahead}"
        );
    }
}

#[test] // §1.6
fn the_operator_hears_once_that_a_clock_differs_and_when_it_agrees() {
    let mut relay = LoneRelay::new(1);
    let neighbour = relay.neighbours[0].id;
    relay.link_up(NEXT, Some(neighbour), false);
    let mut news = Vec::new();
    for ahead in [0, 3 * 3600, 3 * 3600, 0] {
        relay.set_clock(ahead);
        relay.pass(Duration::from_secs(90));
        news.append(&mut relay.news);
    }
    assert!(
        matches!(
            news[..],
            [
                News::ClockJumped(ClockJump::Ahead(_)),
                News::ClockDiffers {
                    ahead: -10_800,
                    relays: 1,
                    is_sure: false
                },
                News::ClockJumped(ClockJump::Back(_)),
                News::ClockAgrees { relays: 1 },
            ]
        ),
        "{news:?}"
    );
}

#[test] // §1.6
fn strangers_that_link_to_a_relay_do_not_accuse_its_clock() {
    let mut relay = LoneRelay::new(3);
    let neighbours = relay.neighbour_ids();
    for (number, &neighbour) in (1..).zip(&neighbours) {
        relay.link_up(LinkId(100 + number), Some(neighbour), false);
    }
    for number in 100..140 {
        let link = LinkId(1000 + u64::from(number));
        relay.link_up_with_clock(link, Some(RelayId([number; 32])), false, 3 * 3600);
    }
    relay.pass(Duration::from_secs(3600));
    assert!(relay.control.clock_off_by().is_none());
    assert!(relay.news.is_empty());
}

#[test] // §2.4(7)
fn relays_of_one_address_group_have_one_voice_about_a_clock() {
    let mut network = Network::local();
    for (groups, voices) in [(AddressGroups::Port, 4), (AddressGroups::Prefix, 1)] {
        network.params.danger_address_groups = groups;
        let mut relay = LoneRelay::in_network(network.clone(), 4);
        let neighbours = relay.neighbour_ids();
        for (number, &neighbour) in (1..).zip(&neighbours) {
            relay.link_up(LinkId(number), Some(neighbour), false);
        }
        relay.set_clock(-3 * 3600);
        relay.pass(Duration::from_secs(90));
        let news = std::mem::take(&mut relay.news);
        let is_it = |news: &News| matches!(news, News::ClockDiffers { relays, is_sure, .. } if *relays == voices && *is_sure == (voices > 2));
        assert!(news.iter().any(is_it), "{news:?}");
    }
}

#[test] // §2.4(7)
fn strangers_clocks_count_where_there_is_nobody_else() {
    let mut relay = LoneRelay::new(0);
    for number in 1..6 {
        relay.link_up_with_clock(
            LinkId(u64::from(number)),
            Some(RelayId([number; 32])),
            false,
            3 * 3600,
        );
    }
    let news = std::mem::take(&mut relay.news);
    assert!(
        matches!(
            news[..],
            [News::ClockDiffers {
                ahead: 10_800,
                relays: 1,
                is_sure: false
            }]
        ),
        "{news:?}"
    );
}

#[test] // §1.6
fn a_verdict_about_the_clock_has_to_hold() {
    let mut relay = LoneRelay::new(3);
    let neighbours = relay.neighbour_ids();
    relay.link_up(LinkId(100), Some(neighbours[0]), false);
    let swing = |relay: &mut LoneRelay, minutes: u64| {
        for (link, &neighbour) in (101..).zip(&neighbours[1..]) {
            relay.link_up_with_clock(LinkId(link), Some(neighbour), false, 3 * 3600);
        }
        for _ in 0..minutes {
            relay.pass(Duration::from_secs(61));
        }
        let news = std::mem::take(&mut relay.news);
        [101, 102]
            .into_iter()
            .for_each(|link| relay.link_down(LinkId(link)));
        relay.pass(Duration::from_secs(61));
        news.len()
    };
    assert_eq!((0..20).map(|_| swing(&mut relay, 5)).sum::<usize>(), 0);
    assert_eq!(swing(&mut relay, 15), 1);
}

/// Somebody's inbox descriptor for this epoch, on a circuit of its own.
fn publish_another(relay: &mut LoneRelay, number: u8, epoch: Epoch) -> Option<DirectoryReply> {
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(number));
    let (identity, seal_key) = (
        InboxIdentity::generate(&mut rng),
        SealSecret::generate(&mut rng).public(),
    );
    let descriptor = InboxDescriptor {
        revision: 1,
        seal_key,
        mailboxes: Vec::new(),
        puzzle_effort: 0,
    };
    let sealed = descriptor.seal(&identity, &relay.network.id, epoch);
    let mut client = Client::connected(relay, u32::from(number));
    publish(relay, &mut client, &sealed, true)
}

#[test] // §8.4
fn a_full_table_of_inbox_descriptors_drops_what_is_over_first() {
    let mut relay = with_client(0);
    let published = Some(DirectoryReply::Published);
    relay.pass(Duration::from_secs(25 * 3600));
    let (epoch, week) = (relay.wall().epoch(), 7 * 86_400);
    for number in 1..5 {
        assert_eq!(publish_another(&mut relay, number, epoch), published);
    }
    let full = Some(DirectoryReply::Refused(DirectoryRefusal::Full));
    assert_eq!(publish_another(&mut relay, 5, epoch), full);
    relay.pass(Duration::from_secs(
        week - relay.wall().as_secs() % week + 2 * 3600,
    ));
    let next = relay.wall().epoch();
    assert!(next > epoch);
    assert_eq!(publish_another(&mut relay, 6, next), published);
}

#[test] // §8.4
fn a_table_filled_by_a_fast_clock_has_room_when_it_is_right() {
    let mut relay = with_client(0);
    let published = Some(DirectoryReply::Published);
    relay.pass(Duration::from_secs(25 * 3600));
    relay.set_clock(60 * 86_400);
    relay.pass(Duration::from_secs(90));
    let ahead = relay.wall().epoch();
    for number in 1..5 {
        assert_eq!(publish_another(&mut relay, number, ahead), published);
    }
    relay.set_clock(0);
    relay.pass(Duration::from_secs(90));
    let epoch = relay.wall().epoch();
    assert!(ahead > epoch);
    assert_eq!(publish_another(&mut relay, 5, epoch), published);
}

#[test] // §8.1
fn a_relay_that_moved_publishes_at_once_what_others_will_believe() {
    let mut relay = with_client(0);
    let (moment, before) = (relay.moment(), relay.control.descriptor().to_vec());
    let elsewhere: Vec<SocketAddr> = vec![
        "127.0.0.1:9999".parse().unwrap(),
        "[::1]:9999".parse().unwrap(),
    ];
    assert!(
        relay
            .control
            .handle_addresses(
                moment,
                vec!["255.255.255.255:1".parse().unwrap()],
                &mut relay.rng
            )
            .is_err()
    );
    assert_eq!(relay.control.descriptor(), before);
    relay
        .control
        .handle_addresses(moment, elsewhere.clone(), &mut relay.rng)
        .unwrap();
    let known = relay.control.view().get(&relay.control.relay_id()).unwrap();
    assert_eq!(known.addresses, elsewhere);
    assert!(
        known.issued_at > Unverified::decode(&before).unwrap().issued_at(),
        "newer, though of the same second"
    );
}

#[test] // §8.4
fn a_revision_of_an_inbox_descriptor_has_one_form_and_the_newest_stays() {
    let mut relay = with_client(0);
    let mut client = Client::connected(&mut relay, 1);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let identity = InboxIdentity::generate(&mut rng);
    let seal_key = SealSecret::generate(&mut rng).public();
    let (network, epoch) = (relay.network.id, relay.wall().epoch());
    let sealed = |revision, puzzle_effort| {
        let descriptor = InboxDescriptor {
            revision,
            seal_key: seal_key.clone(),
            mailboxes: Vec::new(),
            puzzle_effort,
        };
        descriptor.seal(&identity, &network, epoch)
    };
    let (second, other_second) = (sealed(2, 0), sealed(2, 1));
    let (third, fourth) = (sealed(3, 0), sealed(4, 0));
    let refused = |refusal| Some(DirectoryReply::Refused(refusal));
    assert_eq!(
        publish(&mut relay, &mut client, &second, true),
        Some(DirectoryReply::Published)
    );
    assert_eq!(
        publish(&mut relay, &mut client, &second, true),
        Some(DirectoryReply::Published)
    );
    assert_eq!(
        publish(&mut relay, &mut client, &other_second, true),
        refused(DirectoryRefusal::Stale)
    );
    assert_eq!(publish(&mut relay, &mut client, &fourth, false), None);
    assert_eq!(
        publish(&mut relay, &mut client, &third, false),
        refused(DirectoryRefusal::Busy)
    );
    relay.commit();
    client.exchange(&mut relay);
    assert!(
        client
            .events()
            .iter()
            .any(|event| matches!(event, OriginEvent::Frame { .. })),
        "the fourth is published"
    );
    assert_eq!(
        publish(&mut relay, &mut client, &third, true),
        refused(DirectoryRefusal::Stale)
    );
    assert_eq!(
        publish(&mut relay, &mut client, &fourth, true),
        Some(DirectoryReply::Published)
    );
}
