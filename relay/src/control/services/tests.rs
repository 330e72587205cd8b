//! Who is answered and when, and what those who ask may make a service keep.

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::crypto::hpke::SealSecret;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::receipts::{
    Probe, ProbeId, Receipt, ReceiptRefusal, ReceiptReply, ReceiptRequest, RequestContext,
};
use umbel_proto::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, RelayDescriptor, Roles,
};
use umbel_proto::handshake::OnionSecret;
use umbel_proto::ids::{BlindedKey, NetworkId, QueueNonce, RelayId};
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::inbox::holder::{HolderDone, Outcome};
use umbel_proto::inbox::mailbox::{MailboxContext, MailboxReply, QueueKind, Verb};
use umbel_proto::limits::{
    PUSH_INTERVAL, PUSHED_AT_ONCE, STRANGER_PUSH_INTERVAL, STRANGER_PUSHED_AT_ONCE,
};
use umbel_proto::network::{AddressGroups, Params};
use umbel_proto::time::{Duration, WallTime};

use super::super::context::Signal;
use super::super::io::StoreOp;
use super::super::testing::{Bench, descriptor, other};
use super::*;

const BINDING: Binding = Binding([3; 32]);
const ALICE: CircuitKey = CircuitKey(7);
const BOB: CircuitKey = CircuitKey(8);

/// Where relays of the bench are linked from, and a port.
const HERE: &str = "127.0.0.1:9000";
/// The link of all circuits.
const LINK: LinkId = LinkId(1);

/// The services of a relay that keeps nothing yet.
struct Served {
    bench: Bench,
    services: Services,
}

impl Served {
    /// The same, where addresses near each other are of one group.
    fn with_groups_by_prefix() -> Self {
        let mut served = Self::new();
        let network = &mut served.bench.shared.config.network;
        network.params.danger_address_groups = AddressGroups::Prefix;
        served
    }

    fn new() -> Self {
        let mut bench = Bench::new(0);
        let mailbox = Mailbox::restore(&bench.context(), Vec::new());
        let services = Services::new(Directory::restore(Vec::new()), mailbox);
        Self { bench, services }
    }

    fn ask(
        &mut self,
        (circuit, stream): (CircuitKey, u16),
        service: Service,
        frame: &[u8],
        fin: bool,
    ) -> Result<(), Violation> {
        let request = Request {
            circuit,
            stream: StreamId(stream),
            link: LINK,
            service,
            frame,
            fin,
            binding: &BINDING,
        };
        let mut cx = self.bench.context();
        self.services.handle_request(&mut cx, &request)?;
        self.services.run(&mut cx);
        Ok(())
    }

    /// Asks for a queue to be made.
    fn create(&mut self, place: (CircuitKey, u16), queue: u8, fin: bool) {
        let owner = SigningKey::from_seed(&[queue; 32]);
        let verb = Verb::Create {
            nonce: QueueNonce([queue; QueueNonce::LEN]),
            owner: owner.public(),
            sender: owner.public(),
            kind: QueueKind::Contact,
        };
        let context = MailboxContext {
            network: &self.bench.shared.config.network.id,
            holder: &self.bench.shared.relay,
            binding: &BINDING,
        };
        let frame = verb.signed(&owner, &context).encode();
        self.ask(place, Service::Mailbox, &frame, fin).unwrap();
    }

    fn directory(&mut self, place: (CircuitKey, u16), request: &DirectoryRequest) {
        let frame = request.encode();
        self.ask(place, Service::Directory, &frame, true).unwrap();
    }

    /// The store does what it was asked, or fails in all of it.
    fn commit(&mut self, is_stored: bool) {
        let ops: Vec<StoreOp> = self.bench.shared.out.store.drain(..).collect();
        for op in ops {
            let done = match op {
                StoreOp::Mailbox(op) => StoreDone::Mailbox(HolderDone {
                    op: op.id(),
                    outcome: if is_stored {
                        Outcome::Done
                    } else {
                        Outcome::Failed
                    },
                }),
                StoreOp::PutInboxDescriptor { ticket, .. } => {
                    StoreDone::InboxDescriptor { ticket, is_stored }
                }
                _ => continue,
            };
            self.services.handle_stored(&mut self.bench.context(), done);
        }
    }

    /// Who was answered, with what, and whether that was all.
    fn replies(&mut self) -> Vec<((CircuitKey, u16), Vec<u8>, bool)> {
        let replies = std::iter::from_fn(|| self.services.poll_reply());
        replies
            .map(|reply| ((reply.circuit, reply.stream.0), reply.frame, reply.fin))
            .collect()
    }

    fn directory_replies(&mut self) -> Vec<DirectoryReply> {
        let replies = self.replies().into_iter();
        replies
            .map(|(_, frame, _)| DirectoryReply::decode(&frame).unwrap())
            .collect()
    }

    /// Checks what is kept, while both circuits are there.
    fn waiting(&self) -> usize {
        assert_eq!(
            self.services.check(|key| key == ALICE || key == BOB),
            Ok(())
        );
        self.services.asked.len()
    }
}

fn created(place: (CircuitKey, u16)) -> ((CircuitKey, u16), Vec<u8>, bool) {
    (place, MailboxReply::Created.encode(), true)
}

fn lookup() -> DirectoryRequest {
    DirectoryRequest::LookupInbox {
        blinded: BlindedKey([1; 32]),
        epoch: umbel_proto::time::Epoch(2900),
    }
}

#[test]
fn a_request_id_names_circuit_and_stream() {
    for circuit in [0, 1, (1 << 48) - 1] {
        for stream in [0, 1, u16::MAX] {
            let place = (CircuitKey(circuit), StreamId(stream));
            assert_eq!(RequestId::new(place.0, place.1).place(), place);
        }
    }
}

#[test] // §10.1
fn an_answer_waits_until_what_it_says_is_durable() {
    let mut served = Served::new();
    served.create((ALICE, 1), 1, true);
    assert!(served.replies().is_empty());
    assert_eq!(served.waiting(), 1);
    served.commit(true);
    assert_eq!(served.replies(), [created((ALICE, 1))]);
    assert_eq!(served.waiting(), 0);
}

#[test]
fn those_who_are_gone_are_not_answered_and_others_are() {
    let mut served = Served::new();
    for (number, place) in [(ALICE, 1), (BOB, 1), (BOB, 2), (BOB, 3)]
        .into_iter()
        .enumerate()
    {
        served.create(place, u8::try_from(number).unwrap(), true);
    }
    served.services.forget_circuit(ALICE);
    assert!(served.services.handle_stream_ended(BOB, StreamId(1), true));
    served.services.forget_stream(BOB, StreamId(2));
    assert_eq!(served.waiting(), 1);
    served.commit(true);
    assert_eq!(served.replies(), [created((BOB, 3))]);
    assert_eq!(served.waiting(), 0);
}

#[test] // §7.2(7)
fn an_answered_stream_is_known_until_its_origin_has_said_all() {
    let mut served = Served::new();
    let frame = lookup().encode();
    for (stream, fin) in [(1, true), (2, false)] {
        let place = (ALICE, stream);
        served.ask(place, Service::Directory, &frame, fin).unwrap();
    }
    served.create((ALICE, 3), 1, false);
    served.commit(true);
    assert!(served.replies().iter().all(|(_, _, fin)| *fin));
    assert_eq!(served.waiting(), 2);
    for stream in [2, 3].map(StreamId) {
        assert!(served.services.handle_stream_ended(ALICE, stream, false));
        assert!(!served.services.handle_stream_ended(ALICE, stream, false));
    }
    assert_eq!(served.waiting(), 0);
}

#[test] // §7.2(7)
fn a_request_that_was_answered_in_full_is_not_answered_again() {
    let mut served = Served::new();
    let place = (ALICE, 1);
    served.create(place, 1, false);
    served.commit(true);
    assert_eq!(served.replies(), [created(place)]);
    let request = RequestId::new(ALICE, StreamId(1));
    let again = MailboxReply::Created.encode();
    served.services.answer(LateAnswer {
        request,
        frame: again,
        fin: true,
    });
    assert_eq!(served.replies(), [], "the stream has ended");
    assert_eq!(served.waiting(), 1);
}

#[test] // §7.2(7)
fn a_frame_that_is_no_request_breaks_a_rule_and_leaves_nothing() {
    let mut served = Served::new();
    for service in [Service::Directory, Service::Mailbox] {
        assert!(served.ask((ALICE, 1), service, &[255; 40], false).is_err());
    }
    assert!(served.replies().is_empty() && served.bench.shared.out.store.is_empty());
    assert_eq!(served.waiting(), 0);
}

/// Asks for the inbox descriptor with this number to be published.
fn publish(served: &mut Served, number: u8) -> DirectoryRequest {
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(number));
    let identity = InboxIdentity::generate(&mut rng);
    let descriptor = InboxDescriptor {
        revision: 1,
        seal_key: SealSecret::generate(&mut rng).public(),
        mailboxes: Vec::new(),
        puzzle_effort: 0,
    };
    let (network, epoch) = (
        served.bench.shared.config.network.id,
        served.bench.moment.wall.epoch(),
    );
    let sealed = descriptor.seal(&identity, &network, epoch);
    let place = (ALICE, u16::from(number));
    served.directory(place, &DirectoryRequest::PublishInbox(sealed.into()));
    DirectoryRequest::LookupInbox {
        blinded: identity.address().blinded_key(&network, epoch),
        epoch,
    }
}

#[test] // §8.4(6)
fn whoever_asks_gets_the_networks_file() {
    let mut served = Served::new();
    served.directory((ALICE, 1), &DirectoryRequest::NetworkFile);
    let replies = served.directory_replies();
    let [DirectoryReply::NetworkFile(file)] = &replies[..] else {
        panic!("{replies:?}")
    };
    let network = &served.bench.shared.config.network;
    assert_eq!(file.as_slice(), network.to_shared_toml().as_bytes());
}

#[test] // §8.4(3)
fn an_inbox_descriptor_is_found_once_it_is_durable_and_not_before() {
    for is_stored in [false, true] {
        let mut served = Served::new();
        let lookup = publish(&mut served, 1);
        served.directory((BOB, 1), &lookup);
        assert_eq!(served.directory_replies(), [DirectoryReply::Inbox(None)]);
        served.commit(is_stored);
        served.directory((BOB, 2), &lookup);
        let replies = served.directory_replies();
        let refused = DirectoryReply::Refused(DirectoryRefusal::Store);
        if is_stored {
            assert!(matches!(
                replies[..],
                [DirectoryReply::Published, DirectoryReply::Inbox(Some(_))]
            ));
        } else {
            assert_eq!(replies, [refused, DirectoryReply::Inbox(None)]);
        }
    }
}

/// Another relay, linked over [`LINK`], asks for a receipt of this address, signing with this key.
fn ask_for_receipt(served: &mut Served, key: &SigningKey, address: &str) -> Result<(), Violation> {
    let context = RequestContext {
        network: &served.bench.shared.config.network.id,
        issuer: &served.bench.shared.relay,
        binding: &BINDING,
    };
    let frame = ReceiptRequest::sign(key, &context, address.parse().unwrap()).encode();
    served.ask((ALICE, 1), Service::Receipts, &frame, true)
}

#[test] // §8.7(1)
fn receipts_are_for_linked_relays_that_sign_for_themselves() {
    let [asker, other] = [1, 2].map(|seed| SigningKey::from_seed(&[seed; 32]));
    let mut served = Served::new();
    served.bench.link(LINK.0);
    assert!(
        ask_for_receipt(&mut served, &asker, HERE).is_err(),
        "a client"
    );
    let mut served = Served::new();
    served.bench.link_to(LINK.0, asker.public().into());
    assert!(ask_for_receipt(&mut served, &other, HERE).is_err());
    assert!(served.bench.shared.out.probes.is_empty());
    ask_for_receipt(&mut served, &asker, HERE).unwrap();
    assert_eq!(served.bench.shared.out.probes.len(), 1);
}

#[test] // §8.7(4)
fn a_receipt_is_issued_once_the_relay_answered_and_not_before() {
    let asker = SigningKey::from_seed(&[1; 32]);
    for is_there in [true, false] {
        let mut served = Served::new();
        served.bench.link_to(LINK.0, asker.public().into());
        ask_for_receipt(&mut served, &asker, HERE).unwrap();
        assert!(served.replies().is_empty());
        let (probe, Probe { relay, address }) = served.bench.shared.out.probes.pop_front().unwrap();
        assert_eq!(
            (relay, address.to_string()),
            (asker.public().into(), HERE.to_owned())
        );
        let mut cx = served.bench.context();
        let ProbeId::Receipt(number) = probe else {
            panic!("it is for the asker")
        };
        served
            .services
            .handle_probed(&mut cx, number, is_there.into());
        let [(_, frame, true)] = &served.replies()[..] else {
            panic!("one answer")
        };
        let network = &served.bench.shared.config.network.id;
        match ReceiptReply::decode(frame).unwrap() {
            ReceiptReply::Issued(receipt) => {
                assert!(is_there && receipt.is_signed(network, &relay));
                assert_eq!(receipt.issuer, served.bench.shared.relay);
            }
            ReceiptReply::Refused(refusal) => {
                assert_eq!((is_there, refusal), (false, ReceiptRefusal::Unreachable));
            }
        }
        assert_eq!(served.waiting(), 0);
    }
}

#[test] // §8.7(2)
fn an_address_from_which_no_link_came_is_not_dialled() {
    let asker = SigningKey::from_seed(&[1; 32]);
    let mut served = Served::new();
    served.bench.link_to(LINK.0, asker.public().into());
    ask_for_receipt(&mut served, &asker, "127.0.0.9:9000").unwrap();
    assert!(served.bench.shared.out.probes.is_empty());
    let [(_, frame, true)] = &served.replies()[..] else {
        panic!("one answer")
    };
    let from = "127.0.0.1:50000".parse().unwrap();
    let refused = ReceiptReply::Refused(ReceiptRefusal::Elsewhere { from });
    assert_eq!(ReceiptReply::decode(frame), Ok(refused));
}

#[test] // §8.4(4)
fn inbox_descriptors_that_are_being_stored_take_room() {
    let mut served = Served::new();
    let most = u8::try_from(served.bench.shared.config.inbox_descriptors_max).unwrap();
    for number in 0..=most {
        publish(&mut served, number);
    }
    let full = DirectoryReply::Refused(DirectoryRefusal::Full);
    assert_eq!(served.directory_replies(), [full]);
    assert_eq!(served.waiting(), usize::from(most));
    served.services.forget_circuit(ALICE);
    publish(&mut served, most);
    let full = DirectoryReply::Refused(DirectoryRefusal::Full);
    assert_eq!(served.directory_replies(), [full], "they are being stored");
    served.commit(false);
    publish(&mut served, most);
    assert!(served.directory_replies().is_empty(), "it is being stored");
}

#[test] // §8.4(2)
fn of_what_is_pushed_only_news_counts_and_our_own_is_never_taken() {
    let mut served = Served::new();
    let wall = served.bench.moment.wall;
    let onion = OnionSecret::from_seed(&[8; 32]);
    let of = |seed: u8| {
        let identity = SigningKey::from_seed(&[seed; 32]);
        descriptor(&identity, &onion, 9001, wall).bytes().to_vec()
    };
    let mut forged = of(2);
    *forged.last_mut().unwrap() ^= 1;
    let pushed = [of(1), of(1), forged, vec![1; 9], of(99)].map(ByteBuf::from);
    served.bench.link_to(LINK.0, other(1));
    served.directory((ALICE, 1), &DirectoryRequest::Push(pushed.into()));
    let accepted = DirectoryReply::Pushed { accepted: 1 };
    assert_eq!(served.directory_replies(), [accepted]);
    assert!(matches!(
        &served.bench.signals()[..],
        [Signal::Learned(news), Signal::Taken(_), Signal::OwnSeen(_)] if *news == of(1)
    ));
}

#[test] // §8.4(2)
fn only_linked_relays_push() {
    let mut served = Served::new();
    served.bench.link(LINK.0);
    let push = DirectoryRequest::Push(Vec::new()).encode();
    let asked = served.ask((ALICE, 1), Service::Directory, &push, true);
    assert_eq!(asked, Err(Violation::Unexpected));
}

/// The descriptor of another relay, to be pushed.
fn pushable(served: &Served, seed: u8) -> ByteBuf {
    pushable_at(served, seed, 9001)
}

fn pushable_at(served: &Served, seed: u8, port: u16) -> ByteBuf {
    let identity = SigningKey::from_seed(&[seed; 32]);
    let onion = OnionSecret::from_seed(&[8; 32]);
    let wall = served.bench.moment.wall;
    ByteBuf::from(descriptor(&identity, &onion, port, wall).bytes().to_vec())
}

/// So many copies of one with a wrong signature.
fn forged(served: &Served, count: u32) -> Vec<ByteBuf> {
    let mut forged = pushable(served, 1);
    *forged.last_mut().unwrap() ^= 1;
    vec![forged; usize::try_from(count).unwrap()]
}

/// How many of these are news, by a push of this relay over a link from there.
fn accepted(served: &mut Served, (peer, from): (RelayId, &str), pushed: Vec<ByteBuf>) -> u32 {
    let from = from.parse().unwrap();
    served.bench.link_at(LINK.0, peer, from);
    served.directory((ALICE, 1), &DirectoryRequest::Push(pushed));
    match served.directory_replies()[..] {
        [DirectoryReply::Pushed { accepted }] => accepted,
        _ => panic!("a push is answered"),
    }
}

#[test] // §8.4(2)
fn each_relay_has_so_much_checked_and_more_later() {
    let mut served = Served::new();
    let [one, another] = [11, 12].map(|seed| (served.bench.learn(seed, &[HERE]), HERE));
    let of = |served: &Served, seeds: &[u8]| -> Vec<ByteBuf> {
        seeds.iter().map(|&it| pushable(served, it)).collect()
    };
    for _ in 0..PUSHED_AT_ONCE / 128 {
        let forged = forged(&served, 128);
        assert_eq!(accepted(&mut served, one, forged), 0);
    }
    let [second, third, known_and_more] = [&[2][..], &[3], &[2, 4, 5]].map(|it| of(&served, it));
    assert_eq!(
        accepted(&mut served, one, second),
        1,
        "one more than at once"
    );
    assert_eq!(accepted(&mut served, one, third.clone()), 0);
    assert_eq!(accepted(&mut served, another, third), 1, "it has its own");
    served.bench.pass(PUSH_INTERVAL);
    assert_eq!(
        accepted(&mut served, one, known_and_more),
        1,
        "what is known is free"
    );
}

/// An invented relay that three others vouch for, which are invented as well.
fn invented(number: u8, network: &NetworkId, wall: WallTime) -> ByteBuf {
    let key = |number: u8| SigningKey::from_seed(&[number; 32]);
    let relay = RelayId::from(key(number).public());
    let address = format!("{}.7.1.1:9000", 20 + number).parse().unwrap();
    let issuers = (0..3).map(|next| key(1 + (number + next) % 60));
    let descriptor = RelayDescriptor {
        network: *network,
        relay,
        onion_keys: vec![OnionSecret::from_seed(&[number; 32]).public()],
        addresses: vec![address],
        roles: Roles::HOLDER | Roles::DIRECTORY,
        version: "0.1.0".to_owned(),
        issued_at: wall,
        receipts: issuers
            .map(|issuer| Receipt::sign(&issuer, network, &relay, address, wall))
            .collect(),
        puzzle: 0,
    };
    ByteBuf::from(descriptor.sign(&key(number)))
}

#[test] // §8.2(3)
fn one_host_under_many_names_makes_no_relay_old_enough_to_be_drawn() {
    let mut served = Served::new();
    let network = &mut served.bench.shared.config.network;
    network.params = Params::DEFAULT;
    let (id, wall) = (network.id, served.bench.moment.wall);
    let all: Vec<ByteBuf> = (1..=60).map(|it| invented(it, &id, wall)).collect();
    for source in [1, 2, 3] {
        // One host, with an identity of its own making each time.
        let relay = RelayId::from(SigningKey::from_seed(&[source; 32]).public());
        served.bench.link_to(LINK.0, relay);
        for _ in 0..2 {
            for half in all.chunks(30) {
                served.directory((ALICE, 1), &DirectoryRequest::Push(half.to_vec()));
            }
        }
    }
    served.bench.pass(Duration::from_secs(60));
    let wall = served.bench.moment.wall;
    let cx = served.bench.context();
    assert_eq!(cx.view().len(), 60, "in setup they are taken");
    assert_eq!(cx.view().selectable(&cx.config.network, wall).count(), 0);
}

#[test] // §8.2(3)
fn a_relay_that_is_reached_elsewhere_than_it_says_is_no_source() {
    let mut served = Served::new();
    let source = served.bench.learn(11, &["20.1.1.1:9000"]);
    for (number, ip, is_there) in [(1, "20.9.9.9", false), (2, "20.1.1.1", true)] {
        let remote = format!("{ip}:9000").parse().unwrap();
        served.bench.dialled_at(number, source, remote);
        assert_eq!(served.bench.context().source(&source).is_some(), is_there);
    }
}

#[test] // §8.4(2)
fn a_new_id_for_each_push_gains_nothing() {
    let mut served = Served::with_groups_by_prefix();
    let stranger = |number: u16| (other(number), "203.0.113.7:1");
    let neighbour = (other(900), "203.0.99.1:2");
    let more = forged(&served, STRANGER_PUSHED_AT_ONCE / 16);
    for number in 0..16 {
        accepted(&mut served, stranger(number), more.clone());
    }
    let [second, third, fourth, fifth] = [2, 3, 4, 5].map(|it| vec![pushable(&served, it)]);
    assert_eq!(accepted(&mut served, stranger(16), second), 1);
    assert_eq!(accepted(&mut served, stranger(17), third.clone()), 0);
    assert_eq!(accepted(&mut served, neighbour, third.clone()), 0);
    let elsewhere = (other(901), "198.51.100.1:1");
    assert_eq!(accepted(&mut served, elsewhere, third), 1);
    served.bench.pass(STRANGER_PUSH_INTERVAL);
    assert_eq!(accepted(&mut served, stranger(18), fourth), 1);
    let known = (served.bench.learn(11, &[HERE]), stranger(0).1);
    assert_eq!(accepted(&mut served, known, fifth), 1, "it is of the view");
}

#[test] // §8.4(2), §8.2(10)
fn forgeries_at_an_address_that_is_held_are_counted() {
    let mut served = Served::with_groups_by_prefix();
    let address = "127.0.0.1:9001";
    let held = served.bench.learn(11, &[address]);
    let stranger = (other(1), "203.0.113.7:1");
    let forged = forged(&served, STRANGER_PUSHED_AT_ONCE + 1);
    accepted(&mut served, stranger, forged);
    let news = vec![pushable_at(&served, 2, 9002)];
    assert_eq!(accepted(&mut served, stranger, news.clone()), 0);
    assert_eq!(accepted(&mut served, (held, address), news), 1);
}

#[test] // §8.4(2)
fn strangers_of_many_groups_have_no_more_than_one_known_relay() {
    let mut served = Served::with_groups_by_prefix();
    let one_group = forged(&served, STRANGER_PUSHED_AT_ONCE + 1);
    for group in 0..=PUSHED_AT_ONCE / STRANGER_PUSHED_AT_ONCE {
        let from = format!("203.{group}.1.1:1");
        accepted(&mut served, (other(1), &from), one_group.clone());
    }
    let second = vec![pushable(&served, 2)];
    let elsewhere = (other(2), "198.51.100.1:1");
    assert_eq!(accepted(&mut served, elsewhere, second.clone()), 0);
    let known = (served.bench.learn(11, &[HERE]), HERE);
    assert_eq!(accepted(&mut served, known, second), 1);
}
