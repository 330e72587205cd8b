//! One core's work: cells through the forwarding table, and handshakes.

use std::hint::black_box;
use std::slice;
use std::time::Instant;

use rand::Rng;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::aead::{LayerKey, seal_in_place};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::crypto::stream::xor_cell_and_next_key;
use umbel_proto::handshake::{HopTarget, Initiator, OnionSecret, respond};
use umbel_proto::ids::CircId;
use umbel_proto::limits::{BODY_LEN, TAG_LEN, forward_room};
use umbel_proto::network::Network;
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};
use umbel_relay::forward::{LinkTable, Next, TableUpdate, Verdict};

use super::row::{Row, Unit};
use super::{Extent, Report};

/// Cells timed together: as many as a window lets through at once.
const BATCH_CELLS: usize = 64;
/// Handshakes timed together.
const BATCH_HANDSHAKES: usize = 8;
/// Rounds before any that counts: caches fill, and the core's clock rises.
const WARM_UP_ROUNDS: usize = 3;

/// Batches of each kind that are timed.
const fn rounds(extent: Extent) -> usize {
    extent.pick(300, 20)
}

pub(super) fn measure(extent: Extent, report: &mut Report<'_>) {
    cells(rounds(extent), report);
    handshakes(rounds(extent), report);
}

/// The three are timed in turn, so that whatever else slows the machine slows them alike.
fn cells(rounds: usize, report: &mut Report<'_>) {
    let (mut aead, mut forward, mut backward) = (Vec::new(), Vec::new(), Vec::new());
    let mut table = Table::new();
    for round in 0..WARM_UP_ROUNDS + rounds {
        let ns = [baseline(), table.forward(), table.backward()];
        if round >= WARM_UP_ROUNDS {
            let [aead_ns, forward_ns, backward_ns] = ns;
            aead.push(aead_ns);
            forward.push(forward_ns);
            backward.push(backward_ns);
        }
    }
    let ratio = |cells: &[f64]| {
        cells
            .iter()
            .zip(&aead)
            .map(|(cell, aead)| cell / aead)
            .collect::<Vec<_>>()
    };
    let (forward_ratio, backward_ratio) = (ratio(&forward), ratio(&backward));
    let ns = Unit::Nanoseconds;
    report(Row::of(
        "aead_2kib",
        ns,
        aead,
        "one ChaCha20-Poly1305 over 2 KiB with a fresh key, by aws-lc-rs: the yardstick",
    ));
    report(Row::of(
        "cell_forward",
        ns,
        forward,
        "a cell on its way from the origin, through the forwarding table",
    ));
    report(Row::of(
        "cell_forward_ratio",
        Unit::Ratio,
        forward_ratio,
        "ratio to one ChaCha20-Poly1305 over 2 KiB; a forward cell is opened and its key moves on",
    ));
    report(Row::of(
        "cell_backward",
        ns,
        backward,
        "a cell on its way to the origin, through the forwarding table",
    ));
    report(Row::of(
        "cell_backward_ratio",
        Unit::Ratio,
        backward_ratio,
        "ratio to one ChaCha20-Poly1305 over 2 KiB; a backward cell gets one stream and its key moves on",
    ));
}

/// Nanoseconds for each of a batch.
fn ns_each(started: Instant, count: usize) -> f64 {
    started.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// Nanoseconds for one ChaCha20-Poly1305 over 2 KiB with a fresh key.
pub(super) fn baseline() -> f64 {
    each_with_a_fresh_key(BODY_LEN - TAG_LEN, |key, bytes| {
        black_box(seal_in_place(key, bytes));
    })
}

/// Nanoseconds for one ChaCha20 over a cell's body with a fresh key, and the key after it.
pub(super) fn keystream() -> f64 {
    each_with_a_fresh_key(BODY_LEN, xor_cell_and_next_key)
}

/// Nanoseconds for each of a batch of `work` over `len` bytes.
fn each_with_a_fresh_key(len: usize, work: impl Fn(&mut LayerKey, &mut [u8])) -> f64 {
    let mut rng = rand::rng();
    let mut batch: Vec<_> = (0..BATCH_CELLS)
        .map(|_| {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            (LayerKey::from_bytes(key), vec![0; len])
        })
        .collect();
    let started = Instant::now();
    for (key, bytes) in &mut batch {
        work(key, bytes);
    }
    ns_each(started, BATCH_CELLS)
}

/// The table of one relay's link, and the origin of a circuit that passes it.
pub(super) struct Table {
    table: LinkTable<()>,
    origin: OriginLayers,
    message: Vec<u8>,
}

impl Table {
    const FORWARD: u32 = 7;
    const BACKWARD: u32 = 8;
    const HOPS: usize = 2;

    pub(super) fn new() -> Self {
        let (mut table, mut origin) = (LinkTable::new(), OriginLayers::new());
        for hop in 0..Self::HOPS {
            let byte = u8::try_from(hop).unwrap_or(u8::MAX);
            origin.push(
                LayerKey::from_bytes([byte; 32]),
                LayerKey::from_bytes([byte; 32]),
            );
        }
        let next = || Next {
            queue: (),
            circ: circ(9),
        };
        table.apply(TableUpdate::Terminate(
            circ(Self::FORWARD),
            PeelLayer::new(LayerKey::from_bytes([0; 32])),
        ));
        table.apply(TableUpdate::Join(circ(Self::FORWARD), next()));
        let layer = AddLayer::new(LayerKey::from_bytes([0; 32]));
        table.apply(TableUpdate::Return(circ(Self::BACKWARD), layer, next()));
        Self {
            table,
            origin,
            message: vec![0; forward_room(Self::HOPS)],
        }
    }

    fn forward(&mut self) -> f64 {
        let wrap = |_| {
            let mut cell = Cell::new(Some(circ(Self::FORWARD)), Command::Relay);
            self.origin
                .wrap(false, &self.message, cell.body_mut(), &mut rand::rng());
            cell
        };
        let cells = (0..BATCH_CELLS).map(wrap).collect();
        self.pass(cells)
    }

    /// Nanoseconds for each of a batch of backward cells.
    pub(super) fn backward(&mut self) -> f64 {
        self.pass(
            (0..BATCH_CELLS)
                .map(|_| Cell::new(Some(circ(Self::BACKWARD)), Command::Relay))
                .collect(),
        )
    }

    fn pass(&mut self, mut cells: Vec<Cell>) -> f64 {
        let started = Instant::now();
        let mut passed = 0;
        for cell in &mut cells {
            passed += usize::from(matches!(self.table.handle_cell(cell), Verdict::Onward(())));
        }
        let ns = ns_each(started, cells.len());
        assert_eq!(passed, cells.len(), "each cell goes onward");
        ns
    }
}

fn circ(number: u32) -> CircId {
    CircId::new(number).unwrap_or_else(|| unreachable!("no number here is zero"))
}

fn handshakes(rounds: usize, report: &mut Report<'_>) {
    let (network, mut rng) = (Network::local().id, rand::rng());
    let relay = SigningKey::generate(&mut rng).public().into();
    let secret = OnionSecret::generate(&mut rng);
    let target = HopTarget {
        relay,
        onion_key: secret.public(),
    };
    let mut rates = Vec::new();
    for round in 0..WARM_UP_ROUNDS + rounds {
        let skins: Vec<_> = (0..BATCH_HANDSHAKES)
            .map(|_| Initiator::start(&network, &target, &mut rng).1)
            .collect();
        let started = Instant::now();
        for skin in &skins {
            let answer = black_box(respond(
                &network,
                &relay,
                slice::from_ref(&secret),
                skin,
                &mut rng,
            ));
            assert!(answer.is_ok(), "a good handshake is answered");
        }
        if round >= WARM_UP_ROUNDS {
            rates.push(1e9 / ns_each(started, BATCH_HANDSHAKES));
        }
    }
    report(Row::of(
        "handshakes",
        Unit::PerSecond,
        rates,
        "circuit handshakes (X25519 and ML-KEM-768) that a relay answers on one core",
    ));
}
