//! What public-key work costs: a hop's handshake at both ends, a record, a relay's descriptor.
//!
//! `cargo bench -p umbel-tests --bench handshake`. All on one core.

#![allow(clippy::unwrap_used, clippy::panic, reason = "benches may fail")]
#![allow(missing_docs, reason = "criterion's macros make the functions")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::directory::descriptor::{RelayDescriptor, Roles, Unverified};
use umbel_proto::handshake::{HopTarget, Initiator, OnionSecret, respond};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::record::{Message, SealSecret, open_record, seal_record};
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;

/// Length of the message that is sealed: it goes in the shortest record.
const MESSAGE_LEN: usize = 100;

fn hop(criterion: &mut Criterion) {
    let (network, mut rng) = (Network::local().id, ChaCha20Rng::seed_from_u64(1));
    let relay = SigningKey::generate(&mut rng).public().into();
    let secrets = [OnionSecret::generate(&mut rng)];
    let target = HopTarget {
        relay,
        onion_key: secrets[0].public(),
    };
    let mut group = criterion.benchmark_group("handshake");
    group.bench_function("start", |bench| {
        bench.iter(|| Initiator::start(&network, &target, &mut rng));
    });
    let mut skins = ChaCha20Rng::seed_from_u64(2);
    group.bench_function("respond", |bench| {
        bench.iter_batched_ref(
            || Initiator::start(&network, &target, &mut skins).1,
            |skin| respond(&network, &relay, &secrets, skin, &mut rng).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("finish", |bench| {
        bench.iter_batched(
            || {
                let (initiator, skin) = Initiator::start(&network, &target, &mut rng);
                (
                    initiator,
                    respond(&network, &relay, &secrets, &skin, &mut rng)
                        .unwrap()
                        .1,
                )
            },
            |(initiator, reply)| initiator.finish(&reply).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn record(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let secret = SealSecret::from_seed(&[3; 32]);
    let key = secret.public();
    let message = Message {
        id: MessageId([5; 16]),
        body: vec![7; MESSAGE_LEN],
    };
    let sealed = seal_record(&key, &message, &mut rng).unwrap();
    let mut group = criterion.benchmark_group("record");
    group.bench_function("seal", |bench| {
        bench.iter(|| seal_record(&key, &message, &mut rng).unwrap());
    });
    group.bench_function("open", |bench| {
        bench.iter(|| open_record(&secret, &sealed).unwrap());
    });
    group.finish();
}

fn descriptor(criterion: &mut Criterion) {
    let (network, mut rng) = (Network::local(), ChaCha20Rng::seed_from_u64(4));
    let identity = SigningKey::generate(&mut rng);
    let issued_at = WallTime(1_800_000_000);
    let bytes = RelayDescriptor {
        network: network.id,
        relay: identity.public().into(),
        onion_keys: vec![OnionSecret::generate(&mut rng).public()],
        addresses: vec!["127.0.0.1:7443".parse().unwrap()],
        roles: Roles(Roles::HOLDER.0 | Roles::DIRECTORY.0),
        version: "0.1.0".to_owned(),
        issued_at,
        receipts: Vec::new(),
        puzzle: 0,
    }
    .sign(&identity);
    criterion.bench_function("descriptor/verify", |bench| {
        bench.iter(|| {
            Unverified::decode(&bytes)
                .unwrap()
                .verify(&network, issued_at)
                .unwrap()
        });
    });
}

criterion_group!(benches, hop, record, descriptor);
criterion_main!(benches);
