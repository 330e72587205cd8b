//! What a cell costs each layer and the forwarding table, beside one ChaCha20-Poly1305 over as many
//! bytes.
//!
//! `cargo bench -p umbel-tests --bench cell`. All on one core, cells in batches of [`BATCH`] as a
//! busy link has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "benches may fail")]
#![allow(missing_docs, reason = "criterion's macros make the functions")]

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::ids::CircId;
use umbel_proto::limits::{BACKWARD_ROOM, BODY_LEN, CELL_LEN, HOPS_MAX, TAG_LEN, forward_room};
use umbel_proto::onion::origin::OriginLayers;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};
use umbel_relay::forward::{LinkTable, Next, TableUpdate, Verdict};

/// Cells that are made ready before any of them is timed.
const BATCH: BatchSize = BatchSize::NumIterations(64);

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// A layer's first key: the same number, the same key.
fn key(number: usize) -> LayerKey {
    LayerKey::from_bytes([u8::try_from(number).unwrap(); 32])
}

fn circ(number: u32) -> CircId {
    CircId::new(number).unwrap()
}

fn relay_cell() -> Cell {
    Cell::new(Some(circ(7)), Command::Relay)
}

/// The layers of a circuit of `hops` hops: hop `n`, counted from 0, has forward key `n` and
/// backward key `100 + n`.
fn origin(hops: usize) -> OriginLayers {
    let mut layers = OriginLayers::new();
    for hop in 0..hops {
        layers.push(key(hop), key(100 + hop));
    }
    layers
}

/// Cells as they leave the origin, one after the other.
fn wrapped(hops: usize) -> impl FnMut() -> Cell {
    let (mut layers, mut rng) = (origin(hops), ChaCha20Rng::seed_from_u64(1));
    let message = vec![7; forward_room(hops)];
    move || {
        let mut cell = relay_cell();
        layers.wrap(false, &message, cell.body_mut(), &mut rng);
        cell
    }
}

/// The yardstick: no relay can do less for a cell that it must authenticate. A fresh key each time,
/// as for cells.
fn baseline(group: &mut Group<'_>) {
    let mut number = 0_u64;
    let mut prepare = || {
        number += 1;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        (key, vec![7; BODY_LEN - TAG_LEN])
    };
    group.bench_function("chacha20_poly1305", |bench| {
        bench.iter_batched_ref(
            &mut prepare,
            |(key, bytes)| {
                let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
                let nonce = Nonce::assume_unique_for_key([0; 12]);
                key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(bytes))
                    .unwrap()
            },
            BATCH,
        );
    });
}

fn transit_layers(group: &mut Group<'_>) {
    let (mut cells, mut layer) = (wrapped(2), PeelLayer::new(key(0)));
    group.bench_function("peel", |bench| {
        bench.iter_batched_ref(&mut cells, |cell| layer.peel(cell).unwrap(), BATCH);
    });
    let mut layer = AddLayer::new(key(100));
    group.bench_function("add", |bench| {
        bench.iter_batched_ref(relay_cell, |cell| layer.add(cell.body_mut()), BATCH);
    });
    let (mut layer, message) = (AddLayer::new(key(100)), vec![7; BACKWARD_ROOM]);
    group.bench_function("seal", |bench| {
        bench.iter_batched_ref(relay_cell, |cell| layer.seal(&message, cell), BATCH);
    });
}

fn forwarding_table(group: &mut Group<'_>) {
    let next = || Next {
        queue: (),
        circ: circ(9),
    };
    let mut table = LinkTable::new();
    table.apply(TableUpdate::Terminate(circ(7), PeelLayer::new(key(0))));
    table.apply(TableUpdate::Join(circ(7), next()));
    let mut cells = wrapped(2);
    group.bench_function("handle_cell_forward", |bench| {
        bench.iter_batched_ref(
            &mut cells,
            |cell| assert!(matches!(table.handle_cell(cell), Verdict::Onward(()))),
            BATCH,
        );
    });
    let mut table = LinkTable::new();
    table.apply(TableUpdate::Return(
        circ(7),
        AddLayer::new(key(100)),
        next(),
    ));
    group.bench_function("handle_cell_backward", |bench| {
        bench.iter_batched_ref(
            relay_cell,
            |cell| assert!(matches!(table.handle_cell(cell), Verdict::Onward(()))),
            BATCH,
        );
    });
}

fn origin_layers(group: &mut Group<'_>) {
    let (mut layers, mut rng) = (origin(HOPS_MAX), ChaCha20Rng::seed_from_u64(1));
    let message = vec![7; forward_room(HOPS_MAX)];
    group.bench_function("wrap_4_hops", |bench| {
        bench.iter_batched_ref(
            relay_cell,
            |cell| layers.wrap(false, &message, cell.body_mut(), &mut rng),
            BATCH,
        );
    });
    let mut layers = origin(HOPS_MAX);
    let mut last = AddLayer::new(key(100 + HOPS_MAX - 1));
    let mut before: Vec<AddLayer> = (0..HOPS_MAX - 1)
        .map(|hop| AddLayer::new(key(100 + hop)))
        .collect();
    let message = vec![7; BACKWARD_ROOM];
    let mut answers = || {
        let mut cell = relay_cell();
        last.seal(&message, &mut cell);
        for layer in before.iter_mut().rev() {
            layer.add(cell.body_mut());
        }
        cell
    };
    group.bench_function("unwrap_4_hops", |bench| {
        bench.iter_batched_ref(
            &mut answers,
            |cell| layers.unwrap(cell.body_mut()).unwrap().1.len(),
            BATCH,
        );
    });
}

fn cell(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cell");
    group.throughput(Throughput::Bytes(CELL_LEN as u64));
    baseline(&mut group);
    transit_layers(&mut group);
    forwarding_table(&mut group);
    origin_layers(&mut group);
    group.finish();
}

criterion_group!(benches, cell);
criterion_main!(benches);
