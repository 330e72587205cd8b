//! The seeds of the corpus: small inputs, valid or nearly so, the same on every machine.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bech32::Bech32m;
use bech32::primitives::decode::CheckedHrpstring;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde_bytes::ByteBuf;
use umbel_proto::cell::{Cell, Command, DestroyReason};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::range::IdRange;
use umbel_proto::directory::receipts::{
    ReceiptRefusal, ReceiptReply, ReceiptRequest, RequestContext,
};
use umbel_proto::directory::reconcile::{
    Outcome, PageReply, RangeFingerprint, SyncReply, SyncRequest, Syncer,
};
use umbel_proto::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, NetView, Receipt, RelayDescriptor, Roles,
};
use umbel_proto::handshake::{Binding, Initiator, respond};
use umbel_proto::ids::{
    BlindedKey, CircId, MessageId, NetworkId, Peer, QueueId, QueueNonce, RecordId, RelayId,
};
use umbel_proto::inbox::descriptor::{InboxDescriptor, Mailbox};
use umbel_proto::inbox::mailbox::{MailboxContext, MailboxReply, QueueKind, Refusal, Verb};
use umbel_proto::inbox::record::{Message, seal_record};
use umbel_proto::limits::{BODY_LEN, MAILBOXES_MAX};
use umbel_proto::link::{Hello, LINK_VERSION};
use umbel_proto::message::{Credit, Data, DataFlags, Extend, ExtendRefusal, RelayMsg, StreamId};
use umbel_proto::network::{Invite, Network};
use umbel_proto::time::{Duration, WallTime};
use umbel_proto::wire;

use super::decoders::{WALL, identity, seal_secret};
use crate::shells::lone::Neighbour;

/// One file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The body it is for.
    pub body: &'static str,
    /// The file's name.
    pub name: &'static str,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (body, files) in [
        ("hello", hello()),
        ("cell_header", cells()),
        ("relay_message", messages()),
        ("relay_descriptor", descriptors()),
        ("directory_request", requests()),
        ("directory_reply", replies()),
        ("receipt_request", receipt_requests()),
        ("receipt_reply", receipt_replies()),
        ("mailbox_request", mailbox_requests()),
        ("mailbox_reply", mailbox_replies()),
        ("inbox_descriptor", inbox_descriptors()),
        ("record", records()),
        (
            "inbox_address",
            vec![("valid", identity().address().to_text().into_bytes())],
        ),
        ("peer", peers()),
        ("invite", invites()),
        (
            "network",
            vec![("local", Network::local().to_toml().into_bytes())],
        ),
        ("answerer", requests()),
        ("syncer", syncer()),
        ("terminal", terminal()),
        ("origin", origin()),
        ("holder", holder()),
        ("holder_completions", holder_completions()),
        ("outbox_completions", outbox_completions()),
        ("shown", texts()),
        ("link_table", link_table()),
        ("control", control()),
        ("conversation", conversation()),
    ] {
        seeds.extend(
            files
                .into_iter()
                .map(|(name, bytes)| Seed { body, name, bytes }),
        );
    }
    let [create, created] = handshake();
    seeds.push(Seed {
        body: "create_body",
        name: "valid",
        bytes: create.to_vec(),
    });
    seeds.push(Seed {
        body: "created_body",
        name: "valid",
        bytes: created.to_vec(),
    });
    seeds
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(20)
}

fn neighbour() -> Neighbour {
    Neighbour::new(Network::local().id, 1)
}

fn hello() -> Files {
    let hello = |descriptor| Hello {
        versions: vec![LINK_VERSION, 2],
        network: Network::local().id,
        clock: WALL,
        parameters: core::num::NonZeroU32::new(7),
        features: 1,
        descriptor,
    };
    let trimmed = |hello: Hello| {
        let cell = hello.encode();
        let len = cell
            .body()
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        cell.body().get(..len).unwrap_or_default().to_vec()
    };
    vec![
        ("client", trimmed(hello(None))),
        ("relay", trimmed(hello(Some(neighbour().descriptor)))),
    ]
}

fn cells() -> Files {
    let circ = CircId::new(0x8000_0001);
    let head = |cell: Cell| cell.as_bytes().iter().take(8).copied().collect();
    vec![
        ("relay", head(Cell::new(circ, Command::Relay))),
        ("padding", head(Cell::new(None, Command::Padding))),
        (
            "destroy",
            circ.map_or_else(Vec::new, |circ| {
                head(Cell::destroy(circ, DestroyReason::Busy))
            }),
        ),
        ("no_circuit", vec![0, 0, 0, 0, 4]),
    ]
}

fn handshake() -> [[u8; BODY_LEN]; 2] {
    let (neighbour, network) = (neighbour(), Network::local().id);
    let mut rng = rng();
    let (mut create, mut created) = ([0; BODY_LEN], [0; BODY_LEN]);
    let (_, onionskin) = Initiator::start(&network, &neighbour.target(), &mut rng);
    onionskin.write_create_body(&mut create);
    if let Ok((_, reply)) = respond(
        &network,
        &neighbour.id,
        &[neighbour.onion],
        &onionskin,
        &mut rng,
    ) {
        reply.write_created_body(&mut created);
    }
    [create, created]
}

fn encoded(message: &RelayMsg<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn data(stream: u16, (open, fin, reset): (bool, bool, bool), bytes: &[u8]) -> Vec<u8> {
    encoded(&RelayMsg::Data(Data {
        stream: StreamId(stream),
        flags: DataFlags { open, fin, reset },
        bytes,
    }))
}

/// A stream's opening message: service, and one whole frame.
fn opening(stream: u16, service: u8, frame: &[u8], fin: bool) -> Vec<u8> {
    let len = u32::try_from(frame.len()).unwrap_or_default();
    data(
        stream,
        (true, fin, false),
        &[&[service], len.to_be_bytes().as_slice(), frame].concat(),
    )
}

fn extend() -> Vec<u8> {
    let neighbour = neighbour();
    let (_, onionskin) = Initiator::start(&Network::local().id, &neighbour.target(), &mut rng());
    let extend = Extend {
        relay: neighbour.id,
        onion_key: neighbour.target().onion_key.id(),
        onionskin,
    };
    encoded(&RelayMsg::Extend(Box::new(extend)))
}

fn messages() -> Files {
    vec![
        ("padding", encoded(&RelayMsg::Padding)),
        ("extend", extend()),
        (
            "refused",
            encoded(&RelayMsg::ExtendRefused(ExtendRefusal::Unreachable)),
        ),
        ("open", opening(1, 1, b"frame", true)),
        ("reset", data(7, (false, false, true), b"")),
        (
            "credit",
            encoded(&RelayMsg::Credit(Credit {
                tag: [3; 16],
                cells: 16,
            })),
        ),
    ]
}

/// A receipt for who asks for receipts: by this witness, of this network, at this time.
fn receipt(witness: u8, network: &NetworkId, at: WallTime) -> Receipt {
    let (key, address) = asker();
    let witness = SigningKey::from_seed(&[witness; 32]);
    Receipt::sign(&witness, network, &key.public().into(), address, at)
}

/// Receipts that say what nobody may believe, each by its name.
fn crafted_receipts() -> [(&'static str, Receipt); 3] {
    let network = Network::local().id;
    let next_year = WALL + Duration::from_secs(365 * 86_400);
    [
        ("of_another_network", receipt(22, &NetworkId([9; 32]), WALL)),
        ("from_the_future", receipt(22, &network, next_year)),
        ("by_itself", receipt(21, &network, WALL)),
    ]
}

/// A descriptor of who asks for receipts, with these.
fn with_receipts(receipts: Vec<Receipt>) -> Vec<u8> {
    let (key, address) = asker();
    let descriptor = RelayDescriptor {
        network: Network::local().id,
        relay: key.public().into(),
        onion_keys: vec![neighbour().target().onion_key],
        addresses: vec![address],
        roles: Roles::DIRECTORY,
        version: "0.1.0".to_owned(),
        issued_at: WALL,
        receipts,
        puzzle: 9,
    };
    descriptor.sign(&key)
}

fn descriptors() -> Files {
    let good = receipt(22, &Network::local().id, WALL);
    let mut elsewhere = good.clone();
    elsewhere.address.set_port(9022);
    let mut files = vec![
        ("plain", neighbour().descriptor),
        ("vouched", with_receipts(vec![good.clone()])),
        ("same_receipt_twice", with_receipts(vec![good; 2])),
        ("receipt_of_elsewhere", with_receipts(vec![elsewhere])),
        ("giant_count_of_receipts", with_giant_count()),
    ];
    let crafted = crafted_receipts().map(|(name, receipt)| (name, with_receipts(vec![receipt])));
    files.extend(crafted);
    files
}

/// A descriptor that claims 2^32 - 1 receipts, and has none: only the count differs.
fn with_giant_count() -> Vec<u8> {
    let none = with_receipts(Vec::new());
    // Count and puzzle, a byte each, and the signature are its end.
    let (body, end) = none.split_at(none.len() - 66);
    [body, &[0xff, 0xff, 0xff, 0xff, 0x0f], &end[1..]].concat()
}

fn requests() -> Files {
    let push = DirectoryRequest::Push(vec![ByteBuf::from(neighbour().descriptor)]);
    vec![
        ("digest", compare(&[IdRange::ALL])),
        ("halves", compare(&halves())),
        ("inverted_range", vec![0, 0, 1, 1, 8, 1, 7]),
        ("same_range_twice", compare(&[IdRange::ALL; 2])),
        (
            "disordered_ranges",
            compare(&{
                let [low, high] = halves();
                [high, low]
            }),
        ),
        ("giant_count", [&[0, 0][..], &[0xff; 4], &[0x0f]].concat()),
        ("page", page_request(&[ground(1), ground(2)])),
        ("item_twice", page_request(&[ground(1), ground(1)])),
        (
            "giant_items",
            [&[0, 1, 1, 0, 0][..], &[0xff; 4], &[0x0f]].concat(),
        ),
        ("push", push.encode()),
        ("network_file", DirectoryRequest::NetworkFile.encode()),
        (
            "lookup",
            DirectoryRequest::LookupInbox {
                blinded: BlindedKey([3; 32]),
                epoch: WALL.epoch(),
            }
            .encode(),
        ),
    ]
}

/// The ids that begin with a zero bit, and the others.
fn halves() -> [IdRange; 2] {
    let [mut low, mut high] = [[0xff; 32], [0; 32]];
    (low[0], high[0]) = (0x7f, 0x80);
    let (low, high) = (RelayId(low), RelayId(high));
    let all = IdRange::ALL;
    [(all.from(), low), (high, all.until())]
        .map(|(from, until)| IdRange::new(from, until).unwrap_or(all))
}

fn marked(range: IdRange) -> RangeFingerprint {
    RangeFingerprint {
        range,
        fingerprint: [7; 32],
    }
}

fn compare(ranges: &[IdRange]) -> Vec<u8> {
    let ranges = ranges.iter().copied().map(marked).collect();
    DirectoryRequest::Sync(SyncRequest::Compare(ranges)).encode()
}

/// An item of a relay whose id someone ground to begin as others do.
fn ground(number: u8) -> [u8; 72] {
    let mut item = [7; 72];
    item[31] = number;
    item
}

/// A page of everything, with these items.
fn page_request(items: &[[u8; 72]]) -> Vec<u8> {
    let items = ByteBuf::from(items.concat());
    [&[0, 1, 1, 0, 0][..], &wire::encode(&items)].concat()
}

fn page_of(network: NetworkId) -> DirectoryReply {
    let descriptors = vec![ByteBuf::from(Neighbour::new(network, 99).descriptor)];
    DirectoryReply::Sync(SyncReply::Page(PageReply {
        covered: IdRange::ALL.until(),
        descriptors,
        wanted: Vec::new(),
        refused: Vec::new(),
    }))
}

fn page() -> DirectoryReply {
    page_of(Network::local().id)
}

/// A page whose answerer wants the first item and has turned away the third.
fn picky_page() -> Vec<u8> {
    let page = PageReply {
        covered: IdRange::ALL.until(),
        descriptors: Vec::new(),
        wanted: vec![0],
        refused: vec![2],
    };
    DirectoryReply::Sync(SyncReply::Page(page)).encode()
}

fn replies() -> Files {
    vec![
        ("page", page().encode()),
        ("picky_page", picky_page()),
        ("same", compared(vec![Outcome::Same])),
        ("split", compared(vec![split(), Outcome::Few])),
        ("giant_count", [&[0, 0][..], &[0xff; 4], &[0x0f]].concat()),
        ("pushed", DirectoryReply::Pushed { accepted: 3 }.encode()),
        (
            "refused",
            DirectoryReply::Refused(DirectoryRefusal::Full).encode(),
        ),
        ("no_inbox", DirectoryReply::Inbox(None).encode()),
        (
            "network_file",
            DirectoryReply::NetworkFile(ByteBuf::from(*b"id")).encode(),
        ),
    ]
}

/// Who asks for receipts, and where from.
fn asker() -> (SigningKey, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9021));
    (SigningKey::from_seed(&[21; 32]), address)
}

fn receipt_requests() -> Files {
    let ((key, v4), network) = (asker(), Network::local().id);
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 9021));
    let context = RequestContext {
        network: &network,
        issuer: &neighbour().id,
        binding: &Binding([4; 32]),
    };
    let ask = |address| ReceiptRequest::sign(&key, &context, address).encode();
    vec![("v4", ask(v4)), ("v6", ask(v6))]
}

fn receipt_replies() -> Files {
    let (_, from) = asker();
    let good = receipt(22, &Network::local().id, WALL);
    let refused = |refusal| ReceiptReply::Refused(refusal).encode();
    let crafted = crafted_receipts().map(|(name, it)| (name, ReceiptReply::Issued(it).encode()));
    let mut files = vec![
        ("issued", ReceiptReply::Issued(good).encode()),
        ("elsewhere", refused(ReceiptRefusal::Elsewhere { from })),
        ("limit", refused(ReceiptRefusal::Limit)),
        ("taken", refused(ReceiptRefusal::Taken)),
    ];
    files.extend(crafted);
    files
}

fn mailbox_requests() -> Files {
    let (network, holder, binding) = (Network::local().id, neighbour().id, Binding([4; 32]));
    let context = MailboxContext {
        network: &network,
        holder: &holder,
        binding: &binding,
    };
    let (owner, sender) = (
        SigningKey::from_seed(&[1; 32]),
        SigningKey::from_seed(&[2; 32]),
    );
    let queue = QueueId([5; 32]);
    let create = Verb::Create {
        nonce: QueueNonce([5; 32]),
        owner: owner.public(),
        sender: sender.public(),
        kind: QueueKind::Public,
    };
    let deposit = Verb::Deposit {
        queue,
        record: ByteBuf::from(vec![6; 40]),
        puzzle: 7,
    };
    let fetch = Verb::Fetch {
        queue,
        remove: vec![RecordId([8; 32])],
        bytes_max: 4096,
    };
    vec![
        ("create", create.signed(&owner, &context).encode()),
        ("deposit", deposit.signed(&sender, &context).encode()),
        ("fetch", fetch.signed(&owner, &context).encode()),
        (
            "subscribe",
            Verb::Subscribe {
                queue,
                push_delay_ms: 2000,
            }
            .signed(&owner, &context)
            .encode(),
        ),
    ]
}

fn mailbox_replies() -> Files {
    let records = vec![ByteBuf::from(vec![1; 20]), ByteBuf::from(vec![2; 30])];
    vec![
        (
            "fetched",
            MailboxReply::Fetched {
                records,
                more: true,
            }
            .encode(),
        ),
        ("refused", MailboxReply::Refused(Refusal::Puzzle).encode()),
    ]
}

fn inbox_descriptors() -> Files {
    let mailbox = Mailbox {
        relay: neighbour().id,
        queue: QueueId([5; 32]),
        sender_seed: [6; 32],
    };
    let sealed = |mailboxes: usize| {
        let descriptor = InboxDescriptor {
            revision: 4,
            seal_key: seal_secret().public(),
            mailboxes: vec![mailbox.clone(); mailboxes],
            puzzle_effort: 100,
        };
        descriptor.seal(&identity(), &Network::local().id, WALL.epoch())
    };
    vec![("valid", sealed(1)), ("full", sealed(MAILBOXES_MAX))]
}

fn records() -> Files {
    let message = Message {
        id: MessageId([1; 16]),
        body: b"hello".to_vec(),
    };
    let sealed = seal_record(&seal_secret().public(), &message, &mut rng());
    vec![("short", sealed.unwrap_or_default())]
}

fn peers() -> Files {
    let peer = |host_port: &str| {
        Peer {
            id: neighbour().id,
            host_port: host_port.to_owned(),
        }
        .to_string()
        .into_bytes()
    };
    vec![
        ("name", peer("relay.example:9000")),
        ("v6", peer("[2001:db8::1]:9000")),
        ("no_port", peer("relay.example")),
    ]
}

/// A line, and payloads of lines.
fn invites() -> Files {
    let line = |host_port: &str| {
        let seed = Peer {
            id: neighbour().id,
            host_port: host_port.to_owned(),
        };
        let invite = Invite::new(&Network::local(), &[seed]);
        invite
            .unwrap_or_else(|_| unreachable!("a seed fits into a line"))
            .to_string()
    };
    let payload = |host_port: &str| {
        let checked = CheckedHrpstring::new::<Bech32m>(&line(host_port))
            .map(|checked| checked.byte_iter().collect());
        checked.unwrap_or_else(|_| unreachable!("a line has its checksum"))
    };
    vec![
        ("line", line("127.0.0.1:9000").into_bytes()),
        ("v4", payload("127.0.0.1:9000")),
        ("v6", payload("[::1]:9000")),
        ("name", payload("relay.example:9000")),
    ]
}

/// A length of two bytes, and the bytes.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [len.to_be_bytes().as_slice(), bytes].concat()
}

/// The answer to a digest.
fn compared(outcomes: Vec<Outcome>) -> Vec<u8> {
    DirectoryReply::Sync(SyncReply::Compared(outcomes)).encode()
}

/// An outcome that always differs.
fn split() -> Outcome {
    Outcome::Split(halves().map(marked).to_vec())
}

fn syncer() -> Files {
    let (_, asked) = Syncer::begin(&NetView::new());
    let few = compared(vec![Outcome::Few]);
    let story = |replies: &[Vec<u8>]| replies.iter().flat_map(|reply| chunk(reply)).collect();
    let gap = Outcome::Split(
        halves()
            .into_iter()
            .skip(1)
            .chain(halves())
            .map(marked)
            .collect(),
    );
    vec![
        ("page", story(&[few, page().encode(), asked.encode()])),
        ("same", story(&[compared(vec![Outcome::Same])])),
        ("split", story(&[compared(vec![split()]), page().encode()])),
        ("endless", story(&vec![compared(vec![split()]); 12])),
        (
            "other_network",
            story(&[
                compared(vec![Outcome::Few]),
                page_of(NetworkId([3; 32])).encode(),
            ]),
        ),
        ("gap", story(&[compared(vec![gap])])),
        ("no_outcome", story(&[compared(Vec::new())])),
    ]
}

/// An op and its chunk, for each message.
fn story(ops: &[(u8, Vec<u8>)]) -> Vec<u8> {
    ops.iter()
        .flat_map(|(op, message)| [vec![*op], chunk(message)].concat())
        .collect()
}

fn terminal() -> Files {
    let halves = story(&[
        (1, opening(1, 1, b"first", false)),
        (1, data(1, (false, false, false), &[0, 0, 0, 9, b'h', b'a'])),
        (3, data(1, (false, true, false), b"lfwaits")),
        (4, opening(3, 2, b"third", false)),
        (0, data(3, (false, false, true), b"")),
    ]);
    let credit = encoded(&RelayMsg::Credit(Credit {
        tag: [1; 16],
        cells: 16,
    }));
    let requests = story(&[
        (3, opening(1, 1, b"ask", true)),
        (3, opening(2, 2, b"ask", true)),
        (0, credit),
    ]);
    vec![("halves", halves), ("requests", requests)]
}

fn origin() -> Files {
    let answer = data(1, (false, true, false), &[0, 0, 0, 2, b'o', b'k']);
    let refused = encoded(&RelayMsg::ExtendRefused(ExtendRefusal::Refused));
    let streams = [
        vec![1, 5],
        story(&[(0, answer), (1, encoded(&RelayMsg::Padding))]),
        vec![13, 7 + 16],
    ]
    .concat();
    vec![
        ("streams", streams),
        ("refused", [vec![1, 6], story(&[(0, refused)])].concat()),
        ("garbage", [vec![1], story(&[(4, vec![9; 40])])].concat()),
    ]
}

fn holder() -> Files {
    let create_deposit_fetch = vec![
        0, 1, 4, 0, 0, 1, 1, 3, 4, 0, 0, 2, 1, 3, 4, 0, 0x24, 4, 0, 0,
    ];
    let subscribed = vec![
        0, 2, 4, 0, 0, 3, 2, 0, 1, 2, 5, 4, 0, 0, 6, 0, 9, 4, 0, 0x24, 4, 0, 0, 7, 2,
    ];
    vec![
        ("fetch", create_deposit_fetch),
        ("subscribe", subscribed),
        (
            "expiry",
            vec![0, 1, 4, 0, 0, 1, 1, 3, 4, 0, 0, 0xe6, 0xff, 0xff, 6, 0, 1],
        ),
        (
            "failing",
            vec![0, 1, 4, 0, 6, 0, 1, 4, 0, 0, 1, 1, 2, 4, 0, 7, 1, 251, 2],
        ),
    ]
}

fn holder_completions() -> Files {
    // Three deposits into one queue, answered from the last to the first, then fetched and removed.
    let backwards = vec![
        0, 1, 4, 0, 1, 1, 1, 1, 1, 2, 1, 1, 3, 4, 2, 4, 1, 4, 0, 2, 1, 3, 4, 0, 4, 0,
    ];
    // The disk is full for one deposit between two.
    let full = vec![0, 1, 4, 0, 1, 1, 1, 6, 1, 1, 2, 6, 1, 1, 3, 4, 1, 4, 1];
    vec![("backwards", backwards), ("full", full)]
}

fn outbox_completions() -> Files {
    // Two messages; the answer to the second comes first.
    let backwards = vec![0, 8, 2, 1, 2, 0];
    // A message that is not stored at first, and one that is taken back before the answer.
    let full = vec![6, 0, 2, 0, 6, 7, 60, 8, 9, 2, 0, 2, 0];
    vec![("backwards", backwards), ("full", full)]
}

fn texts() -> Files {
    let texts = [
        (
            "escapes",
            "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}1A\r\u{8}from: alice\n\talso \u{7f}",
        ),
        (
            "hidden",
            "pay\u{200b}pal\u{202e}gpj\u{2066}.exe\u{e0041}\u{2028}\u{fe0f}\u{ad}\u{3164}",
        ),
        (
            "joined",
            "❤\u{fe0f} 👩\u{200d}💻 1\u{fe0f}\u{20e3} می\u{200c}خ क\u{94d}\u{200d}ष\u{94d}\u{200d}\u{94d}",
        ),
        (
            "piled",
            "e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\n\u{301}a\u{200b}\u{301}",
        ),
        (
            "names",
            "p\u{430}ypal \u{440}\u{430}\u{443} Анна Smith ａｂ Tシャツ a\u{301}\u{430}b",
        ),
    ];
    let mut files: Files = texts
        .into_iter()
        .map(|(name, text)| (name, text.as_bytes().to_vec()))
        .collect();
    files.push(("no_text", b"a\xff\xc3b\xe2\x80\0".to_vec()));
    files
}

fn link_table() -> Files {
    let relay_cell = [&[13, 2], chunk(&[0, 0, 0, 3, 4, 9, 9]).as_slice()].concat();
    vec![(
        "halves",
        [
            &[0, 1, 1, 1, 2, 2, 3, 3][..],
            &relay_cell,
            &[5, 1, 5, 3, 4, 1, 5, 1],
        ]
        .concat(),
    )]
}

/// Two links, a client's and a neighbour's, and a circuit made over the client's.
const CONNECTED: &[u8] = &[0, 0, 0x10, 1, 3, 0, 0x80, 8, 0];

fn control() -> Files {
    let after = |story: &[u8]| [CONNECTED, story].concat();
    vec![
        ("connect", after(&[4, 0, 0x80])),
        (
            "request",
            after(&[5, 0, 0, 7, 7, 0, 0xff, 14, 0, 0, 1, 1, 7, 0, 0xff]),
        ),
        ("second_request", after(&[15, 0, 0, 0, 7, 0, 0xff])),
        (
            "extend",
            after(&[
                6, 0, 0, 0, 7, 0, 0xff, 0x2c, 0, 0, 5, 0, 0, 7, 7, 0, 0xff, 1, 1,
            ]),
        ),
        (
            "extend_dial",
            after(&[6, 0, 1, 0, 7, 0, 0xff, 0x50, 2, 12, 2, 0]),
        ),
        (
            "extend_late",
            after(&[
                6, 0, 1, 0, 7, 0, 0xff, 10, 0, 0xff, 0xff, 6, 0, 2, 0, 7, 0, 0xff, 0x50, 2,
            ]),
        ),
        (
            "extend_refused",
            after(&[
                6, 0, 3, 0, 7, 0, 0xff, 6, 0, 0, 0, 7, 0, 0xff, 12, 0, 0, 11, 0, 0,
            ]),
        ),
        ("damaged", after(&[5, 0, 0, 7, 0x17, 0, 0])),
        (
            "overrun",
            after(&[13, 0, 0x80, 3, 0, 0x81, 4, 0, 0x81, 8, 0]),
        ),
        ("stop", after(&[6, 0, 0, 0, 7, 0, 0xff, 0xff, 0])),
        (
            "sync",
            after(&[10, 0, 0x20, 0, 0x1c, 0, 0, 0x2c, 0, 0, 10, 0, 0x20, 0, 9, 0]),
        ),
    ]
}

/// Writing is 0 or 8 and a size; 2 delivers, 3 delivers a copy, 4 loses, 5 flips a bit.
fn conversation() -> Files {
    // Six messages each way, in turn: the post-quantum ratchet moves with each exchange.
    let turns = [0, 1, 2, 0, 8, 1, 2, 0].repeat(6);
    // Some are lost, some come late or twice; long ones leave no room for a share.
    let late = [
        &[0, 1, 0, 2, 3, 1, 2, 0, 8, 5, 8, 6, 2, 1, 4, 0][..],
        &[0, 3, 0, 7, 2, 1, 3, 0, 8, 4, 8, 1, 2, 2, 2, 0],
    ]
    .concat();
    // Both sides go back to a backup, one of them twice, with messages on their way.
    let backups = [
        &[0, 1, 2, 0, 8, 1, 2, 0, 6, 14, 0, 1, 2, 0, 8, 1][..],
        &[23, 0, 1, 2, 1, 31, 8, 1, 2, 0, 23, 0, 2, 2, 0],
    ]
    .concat();
    // Bits of several parts of a message, before the message itself; a day passes.
    let flips = [
        &[0, 1, 2, 0, 8, 1, 2, 0, 0, 1, 5, 0, 0, 1, 5, 0, 1, 0][..],
        &[5, 0, 3, 0, 5, 0, 50, 200, 7, 2, 0],
    ]
    .concat();
    vec![
        ("turns", turns),
        ("late", late),
        ("backups", backups),
        ("flips", flips),
    ]
}
