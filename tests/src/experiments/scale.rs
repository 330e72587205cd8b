//! What the directory costs in a network of many relays: bytes, CPU time and memory of one
//! reconciliation.

use std::collections::BTreeSet;
use std::fs;

use rand::seq::IndexedRandom;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use umbel_proto::directory::{Book, Receipt, Unverified};
use umbel_proto::limits::{RECEIPTS_AN_ADDRESS_MAX, RUMOUR_FANOUT};
use umbel_proto::network::{AsMap, AsNumber, Network, Params};
use umbel_proto::time::WallTime;

use super::addresses::{Announced, announced};
use super::reconciling::{Cost, reconcile};
use super::relays::{Relay, WALL, honest, network};
use super::{Experiment, Finding, Line, Page, Plot, Scale, Table, percent};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "scale",
    question: "What does it cost a client and a relay to know 10,000 relays, in bytes, CPU time and memory? And 100,000, and a million, on paper?",
    run,
};

/// Sizes of networks that are measured.
const WHOLE: &[usize] = &[300, 1000, 3000, 10_000];
const SMALL: &[usize] = &[100, 300];
/// Those that are worked out from the largest.
const ON_PAPER: [usize; 2] = [100_000, 1_000_000];
/// One in so many relays issues its descriptor anew in two hours: each does every 18 h.
const RENEWED: usize = 9;
const DAY: f64 = 86_400.0;
/// Bytes of a relay in a list: 72, and some for ranges (§8.3(1)).
const ITEM: f64 = 75.0;
/// Relays that a client knows since it has links to them.
const SHOWN: usize = 2;

/// The default parameters and receipts that count.
fn strict() -> Network {
    let mut network = network(AsMap::NEWEST);
    network.params.receipts_min = Params::DEFAULT.receipts_min;
    network
}

/// Memory that this process has, bytes.
fn memory() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4096.0
}

/// What a network of one size costs.
struct Seen {
    relays: usize,
    /// How many of them issued anew within two hours.
    renewed: usize,
    /// Bytes of a descriptor, in the mean.
    descriptor: f64,
    /// Memory that a book of all takes.
    memory: f64,
    /// A newcomer's first reconciliation, one after two hours, and one in which nothing is new.
    first: Cost,
    later: Cost,
    equal: Cost,
}

fn seen(count: usize, announced: &[(AsNumber, Announced)], rng: &mut ChaCha20Rng) -> Seen {
    let network = strict();
    let mut relays = honest((count, count / 7), announced, rng);
    let mut addresses = BTreeSet::new();
    relays.retain(|relay| addresses.insert(relay.descriptor.addresses[0]));
    vouch(&network, &mut relays, WALL, rng);
    let sources = two_apart(&network, &relays);
    let [source, second] = sources.map(|relay| relay.descriptor.relay);
    let answerer = Book::restore(&network, relays.iter().map(Relay::row), WALL);
    let mut asker = Book::new();
    asker.believe_listed_only(&network, WALL, []);
    let before = memory();
    // A source shows its own descriptor when the link comes up (§2.4).
    for relay in sources {
        let shown = Unverified::decode(&relay.descriptor.sign(&relay.key));
        if let Ok(shown) = shown {
            let _ = asker.learn_shown(&network, WALL, shown, rng);
        }
    }
    let first = reconcile(&network, &mut asker, (source, &answerer), WALL, rng);
    let memory = memory() - before;
    // By one source's word no relay is old enough to vouch (§8.2(3)).
    let equal = reconcile(&network, &mut asker, (second, &answerer), WALL, rng);
    // Two hours later some have issued their descriptors anew.
    let wall = WALL + Params::DEFAULT.client_sync_interval;
    let renewed = relays.len() / RENEWED;
    for relay in &mut relays[..renewed] {
        relay.descriptor.issued_at = wall;
    }
    let newer = Book::restore(&network, relays.iter().map(Relay::row), wall);
    let later = reconcile(&network, &mut asker, (source, &newer), wall, rng);
    let bytes = relays
        .iter()
        .map(|relay| relay.descriptor.sign(&relay.key).len());
    Seen {
        relays: relays.len(),
        renewed,
        descriptor: bytes.sum::<usize>() as f64 / relays.len() as f64,
        memory,
        first,
        later,
        equal,
    }
}

/// Two relays without a common address group.
fn two_apart<'a>(network: &Network, relays: &'a [Relay]) -> [&'a Relay; 2] {
    let group = |relay: &Relay| network.widest_group_of(relay.descriptor.addresses[0]);
    let first = &relays[0];
    let second = relays.iter().find(|relay| group(relay) != group(first));
    [first, second.unwrap_or(first)]
}

/// Gives each relay as many receipts as fit for its address.
fn vouch(network: &Network, relays: &mut [Relay], at: WallTime, rng: &mut ChaCha20Rng) {
    let receipts: Vec<Vec<Receipt>> = relays
        .iter()
        .map(|relay| {
            let (id, address) = (relay.descriptor.relay, relay.descriptor.addresses[0]);
            let mut groups = vec![network.widest_group_of(address)];
            let mut receipts = Vec::new();
            for _ in 0..200 {
                let Some(issuer) = relays.choose(rng) else {
                    break;
                };
                let group = network.widest_group_of(issuer.descriptor.addresses[0]);
                if receipts.len() < RECEIPTS_AN_ADDRESS_MAX && !groups.contains(&group) {
                    groups.push(group);
                    receipts.push(Receipt::sign(&issuer.key, &network.id, &id, address, at));
                }
            }
            receipts
        })
        .collect();
    for (relay, receipts) in relays.iter_mut().zip(receipts) {
        relay.descriptor.receipts = receipts;
    }
}

fn run(scale: Scale, seed: u64) -> Page {
    let sizes = match scale {
        Scale::Small => SMALL,
        Scale::Whole => WHOLE,
    };
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let announced: Vec<(AsNumber, Announced)> = announced().into_iter().collect();
    let all: Vec<Seen> = sizes
        .iter()
        .map(|&count| seen(count, &announced, &mut rng))
        .collect();
    page(&all)
}

/// How often a client reconciles.
fn syncs_a_day() -> f64 {
    DAY / Params::DEFAULT.client_sync_interval.as_secs_f64()
}

/// What a client gets a day in the reconciliations after the first, megabytes.
fn megabytes_a_day(seen: &Seen) -> f64 {
    (seen.later.up + seen.later.down) as f64 * syncs_a_day() / 1e6
}

fn page(all: &[Seen]) -> Page {
    let line = |name: &str, of: fn(&Seen) -> f64| Line {
        name: name.to_owned(),
        points: all
            .iter()
            .map(|seen| (seen.relays as f64, of(seen)))
            .collect(),
    };
    Page {
        method: method(if cfg!(debug_assertions) {
            "for tests"
        } else {
            "for release"
        }),
        findings: findings(all),
        tables: vec![costs(all), on_paper(all)],
        plot: Plot {
            title: "Megabytes that a client gets".to_owned(),
            x: "relays".to_owned(),
            y: "MB".to_owned(),
            lines: vec![
                line("at first", |seen| seen.first.down as f64 / 1e6),
                line("a day, afterwards", megabytes_a_day),
            ],
        },
    }
}

fn findings(all: &[Seen]) -> Vec<Finding> {
    let Some(largest) = all.last() else {
        return Vec::new();
    };
    let overhead = |cost: &Cost| {
        let descriptors = cost.news as f64 * largest.descriptor;
        (cost.up + cost.down) as f64 / descriptors - 1.0
    };
    let (first, later) = (overhead(&largest.first), overhead(&largest.later));
    let sent = largest.later.up as f64 / largest.relays as f64;
    vec![
        Finding::new(
            "A newcomer learns every relay but the two that it has links to in one reconciliation, and says and hears at most a tenth more than the descriptors",
            format!(
                "{} of {}; {} more",
                largest.first.news,
                largest.relays,
                percent(first)
            ),
            largest.first.news + SHOWN == largest.relays && first < 0.1,
        ),
        Finding::new(
            format!(
                "Two hours later it learns all that was issued anew, and sends at most {ITEM} bytes for each relay: one in nine being new, nearly every range of 16 differs, and is listed"
            ),
            format!(
                "{} of {}; {:.1} bytes for each relay, {} more than the descriptors in all",
                largest.later.news,
                largest.renewed,
                sent,
                percent(later)
            ),
            largest.later.news == largest.renewed && sent <= ITEM,
        ),
        Finding::new(
            "Equal views cost two frames of under 200 bytes",
            format!(
                "{} requests, {} bytes",
                largest.equal.requests,
                largest.equal.up + largest.equal.down
            ),
            largest.equal.requests == 1 && largest.equal.up + largest.equal.down < 200,
        ),
    ]
}

fn costs(all: &[Seen]) -> Table {
    let head = [
        "relays",
        "descriptor, bytes",
        "memory, MB",
        "reconciliation",
        "news",
        "not vouched for",
        "requests",
        "sent, kB",
        "received, kB",
        "CPU of the asker, s",
        "CPU of the answerer, s",
    ];
    let row = |seen: &Seen, name: &str, cost: &Cost| {
        vec![
            seen.relays.to_string(),
            format!("{:.0}", seen.descriptor),
            format!("{:.1}", seen.memory / 1e6),
            name.to_owned(),
            cost.news.to_string(),
            cost.refused.to_string(),
            cost.requests.to_string(),
            format!("{:.1}", cost.up as f64 / 1e3),
            format!("{:.1}", cost.down as f64 / 1e3),
            format!("{:.3}", cost.asker),
            format!("{:.3}", cost.answerer),
        ]
    };
    let rows = all.iter().flat_map(|seen| {
        [
            row(seen, "the first", &seen.first),
            row(seen, "two hours later", &seen.later),
            row(seen, "nothing is new", &seen.equal),
        ]
    });
    Table {
        title: "Measured".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

/// Descriptors that are issued a day in a network of so many relays.
fn news_a_day(relays: usize) -> f64 {
    relays as f64 * DAY / Params::DEFAULT.republish.as_secs_f64()
}

/// Everything grows with the number of relays; what fingerprints add grows with its logarithm and is
/// left out.
fn on_paper(all: &[Seen]) -> Table {
    let head = [
        "relays",
        "a client's first reconciliation, MB",
        "CPU of it, s",
        "a client's day, MB",
        "CPU of it, s",
        "memory of a view, MB",
        "a relay's day: news",
        "pushes of them, MB at most",
        "CPU of it, s",
    ];
    let row = |relays: usize, seen: &Seen| {
        let times = relays as f64 / seen.relays as f64;
        let news = news_a_day(relays);
        let cpu = news * seen.first.asker / seen.first.news.max(1) as f64;
        vec![
            relays.to_string(),
            format!(
                "{:.0}",
                (seen.first.up + seen.first.down) as f64 * times / 1e6
            ),
            format!("{:.1}", seen.first.asker * times),
            format!("{:.0}", megabytes_a_day(seen) * times),
            format!("{:.1}", seen.later.asker * times * syncs_a_day()),
            format!("{:.0}", seen.memory * times / 1e6),
            format!("{news:.0}"),
            format!("{:.0}", news * seen.descriptor * RUMOUR_FANOUT as f64 / 1e6),
            format!("{cpu:.1}"),
        ]
    };
    let largest = all.last();
    let sizes = largest.map(|seen| seen.relays).into_iter().chain(ON_PAPER);
    Table {
        title: "Worked out from the largest of these".to_owned(),
        head: head.map(str::to_owned).into(),
        rows: largest.map_or_else(Vec::new, |seen| sizes.map(|size| row(size, seen)).collect()),
    }
}

fn method(profile: &str) -> String {
    format!(
        "Relays as for [sybil](sybil.md), each with one address and up to {RECEIPTS_AN_ADDRESS_MAX} receipts by others, and default parameters. A client that knows nobody reconciles with a relay that \
         knows all; then with a second one, as a client does before it believes the first (\"nothing is new\"); and again after two hours (`client_sync_interval`), in which a ninth of all relays have issued their descriptors anew, as they do every 18 \
         h. The books and both sides of the reconciliation (`directory::reconcile`) are the production code; frames are counted as they go into a stream. On the wire there are some 4 % more, for \
         cells.\n\n\
         A relay's day is on paper: it checks each new descriptor once, and pushes it on to {RUMOUR_FANOUT} relays at most (protocol.md §8.3(10)). [churn](churn.md) measures the whole of it in a smaller network.\n\n\
         CPU times are one thread's, signatures included, in a build {profile}; memory is what the process grew by. Both vary with the machine, and no seed replays them.\n\n\
         On paper only: a view holds 50,000 relays at most (`VIEW_RELAYS_MAX`), so a network of 100,000 or more would need another way to know relays than that everybody knows all."
    )
}
