//! When the descriptors of a profile's inboxes are published, and what their keepers can tell from
//! it.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test that fails panics"
)]

use std::collections::{BTreeMap, BTreeSet};

use umbel_client::core::{Notice, Wish};
use umbel_proto::directory::ring;
use umbel_proto::ids::BlindedKey;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::network::{AddressGroups, Network};
use umbel_proto::time::{Duration, Epoch, Instant};
use umbel_tests::scenario::by_default;
use umbel_tests::{ClientName, RelayName, World};

const OWNER: ClientName = ClientName(0);
const STEP: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A world with default parameters but those that need days, or real addresses.
fn default_world(seed: u64) -> World {
    World::with_overlay(seed, default_overlay())
        .relays(12)
        .clients(1)
}

fn default_overlay() -> Network {
    let mut overlay = by_default();
    overlay.params.danger_address_groups = AddressGroups::Port;
    overlay.params.selectable_age = Duration::ZERO;
    overlay
}

fn name(number: usize) -> String {
    format!("box {number}")
}

fn create(world: &mut World, number: usize) {
    world.create_inbox(OWNER, &name(number));
}

/// The client's command is over.
fn end(world: &mut World) {
    world.wish(OWNER, Wish::Stop);
    world.run_for(Duration::from_secs(1));
    world.crash_client(OWNER);
}

/// What anyone can read of a descriptor (§9.3).
fn outside(descriptor: &[u8]) -> (Epoch, u64, BlindedKey) {
    let number =
        |at: usize| u64::from_be_bytes(descriptor[at..at + 8].try_into().expect("8 bytes"));
    let blinded = descriptor[17..49].try_into().expect("32 bytes");
    (Epoch(number(1)), number(9), BlindedKey(blinded))
}

/// How many relays keep a descriptor of the current epoch.
fn kept(world: &World) -> usize {
    let now = world.wall().epoch();
    let disks = world.all_relays().iter().map(|relay| &relay.disk);
    let found = disks.flat_map(|disk| disk.inbox_descriptors());
    found.filter(|it| outside(it).0 == now).count()
}

/// The keys of this epoch that a relay keeps a descriptor of.
fn found(world: &World) -> BTreeSet<BlindedKey> {
    let now = world.wall().epoch();
    let disks = world.all_relays().iter().map(|relay| &relay.disk);
    let all = disks.flat_map(|disk| disk.inbox_descriptors().map(outside));
    all.filter(|it| it.0 == now).map(|it| it.2).collect()
}

/// All that directory relays together see of what is published.
#[derive(Default)]
struct Keepers {
    /// The newest revision of each key.
    newest: BTreeMap<(Epoch, BlindedKey), u64>,
    /// When each revision of each key first came to one of them.
    came: Vec<(Instant, Epoch, BlindedKey, u64)>,
}

impl Keepers {
    fn look(&mut self, world: &World) {
        for relay in world.all_relays() {
            for descriptor in relay.disk.inbox_descriptors() {
                let (epoch, revision, blinded) = outside(descriptor);
                let newest = self.newest.entry((epoch, blinded)).or_default();
                if revision > *newest {
                    *newest = revision;
                    self.came.push((world.now(), epoch, blinded, revision));
                }
            }
        }
    }

    /// Lets time pass, and looks often.
    fn watch(&mut self, world: &mut World, length: Duration) {
        let until = world.now() + length;
        while world.now() < until {
            world.run_for(STEP);
            self.look(world);
        }
    }

    /// Forgets what came until now.
    fn forget(&mut self) {
        self.came.clear();
    }

    /// The waits between one that came and the next, of whichever key.
    fn waits(&self) -> Vec<Duration> {
        let pairs = self.came.iter().zip(self.came.iter().skip(1));
        pairs.map(|(one, next)| next.0.since(one.0)).collect()
    }
}

#[test] // §9.4(3)
fn after_weeks_away_each_command_of_seconds_has_one_more_inbox_found() {
    let mut world = default_world(604);
    (0..3).for_each(|number| create(&mut world, number));
    world.run_for(HOUR);
    end(&mut world);
    world.skip(DAY * 22);
    world.run_for(HOUR);
    for command in 1..=3 {
        world.restart_client(OWNER);
        world.run_for(Duration::from_secs(12));
        end(&mut world);
        assert_eq!(found(&world).len(), command, "{}", world.describe());
    }
}

/// The owner is away for weeks, until so long before an epoch's end.
fn away_until(world: &mut World, before_end: Duration) {
    end(world);
    world.skip(DAY * 15);
    let ends_at = world.wall().epoch().next().starts_at();
    let left = ends_at.since(world.wall());
    world.skip(left.saturating_sub(before_end));
    world.run_for(MINUTE);
}

/// Whether someone who has never written to this inbox can.
fn takes_mail(world: &mut World, address: &InboxAddress) -> bool {
    let stranger = world.add_client();
    let sent = world.send(stranger, address, b"hello".to_vec());
    world.run_until(MINUTE, |world| {
        let is_it = |it: &Notice| matches!(it, Notice::Held { id, .. } if *id == sent);
        world.has_notice(stranger, is_it)
    })
}

#[test] // §9.4(3), §9.4(4)
fn who_is_back_within_two_hours_of_an_epochs_end_is_found_now_and_after() {
    for (seed, minutes, is_short) in [(720, 115, true), (721, 61, false), (722, 4, true)] {
        let mut world = default_world(seed);
        let address = world.create_inbox(OWNER, &name(0));
        world.run_for(MINUTE);
        away_until(&mut world, MINUTE * minutes);
        world.restart_client(OWNER);
        world.run_for(Duration::from_secs(12));
        if is_short {
            end(&mut world);
        }
        let epoch = world.wall().epoch();
        assert!(takes_mail(&mut world, &address), "{}", world.describe());
        // Readers turn to the epoch before for an hour, and not after it.
        world.run_for(MINUTE * (minutes + 62));
        assert!(world.wall().epoch() == epoch.next());
        assert!(takes_mail(&mut world, &address), "{}", world.describe());
    }
}

#[test] // §9.4(3)
fn of_several_inboxes_back_before_an_epochs_end_one_goes_out_at_a_time() {
    for seed in [730, 731] {
        let mut world = default_world(seed);
        (0..4).for_each(|number| create(&mut world, number));
        world.run_for(MINUTE);
        away_until(&mut world, MINUTE * 100);
        let (now, mut keepers) = (world.wall().epoch(), Keepers::default());
        keepers.look(&world);
        keepers.forget();
        world.restart_client(OWNER);
        keepers.watch(&mut world, Duration::from_secs(20));
        let epochs: Vec<Epoch> = keepers.came.iter().map(|it| it.1).collect();
        assert_eq!(
            BTreeSet::from([now, now.next()]),
            epochs.iter().copied().collect()
        );
        assert_eq!(epochs.len(), 2, "one inbox: {:?}", keepers.came);
        keepers.watch(&mut world, HOUR * 3);
        let of_next = keepers.came.iter().filter(|it| it.1 == now.next());
        assert!(of_next.count() >= 4, "{:?}", keepers.came);
    }
}

#[test] // §9.4(3)
fn an_inbox_that_no_position_takes_keeps_no_other_behind_it() {
    let mut world = default_world(740).relays(18);
    (0..3).for_each(|number| create(&mut world, number));
    world.run_for(HOUR);
    end(&mut world);
    world.skip(DAY * 17);
    world.run_for(HOUR);
    world.restart_client(OWNER);
    world.run_for(Duration::from_millis(900));
    let (now, wall, overlay) = (world.wall().epoch(), world.wall(), default_overlay());
    let core = world.client(OWNER).core().expect("it runs");
    let keys = [0, 1, 2].map(|number| {
        let address = core.inbox_address(&name(number)).expect("it is there");
        address.blinded_key(&overlay.id, now)
    });
    let positions = ring::positions(core.view(), &overlay, wall, &keys[0], now);
    let its: Vec<RelayName> = positions
        .iter()
        .filter_map(|it| world.relay_named(it))
        .collect();
    end(&mut world);
    for relay in its {
        world.relay(relay).disk.is_full = true;
    }
    for _ in 0..4 {
        world.restart_client(OWNER);
        world.run_for(Duration::from_secs(12));
        end(&mut world);
        world.skip(MINUTE * 10);
    }
    let found = found(&world);
    assert_eq!(keys.map(|key| found.contains(&key)), [false, true, true]);
}

#[test] // §9.4(3)
fn starts_publish_nothing_that_is_not_due() {
    let mut world = default_world(601);
    (0..4).for_each(|number| create(&mut world, number));
    let mut keepers = Keepers::default();
    keepers.watch(&mut world, MINUTE);
    keepers.forget();
    for _ in 0..5 {
        end(&mut world);
        world.restart_client(OWNER);
        let listen = Wish::Listen {
            name: name(1),
            is_interactive: false,
        };
        world.wish(OWNER, listen);
        keepers.watch(&mut world, MINUTE);
    }
    assert!(keepers.came.is_empty(), "{}", world.describe());
}

#[test] // §9.4(3)
fn inboxes_of_one_owner_and_their_epochs_are_published_apart() {
    let mut world = default_world(602);
    (0..4).for_each(|number| create(&mut world, number));
    world.run_for(MINUTE);
    end(&mut world);
    world.skip(DAY * 2);
    world.restart_client(OWNER);
    let mut keepers = Keepers::default();
    keepers.look(&world);
    keepers.forget();
    keepers.watch(&mut world, HOUR * 8);
    let waits = keepers.waits();
    assert!(waits.len() >= 4, "{waits:?}: most of eight were overdue");
    let least = waits.iter().min().expect("there are some");
    assert!(*least > Duration::from_secs(20), "{waits:?}");
    let mean = waits.iter().sum::<Duration>() / u32::try_from(waits.len()).expect("few");
    assert!(mean > MINUTE * 15, "{waits:?}");
}

#[test] // §9.4(3)
fn commands_of_seconds_publish_what_is_overdue_one_a_run() {
    let mut world = default_world(603);
    (0..2).for_each(|number| create(&mut world, number));
    world.run_for(MINUTE);
    end(&mut world);
    world.skip(DAY * 6);
    world.run_for(MINUTE);
    let mut keepers = Keepers::default();
    keepers.look(&world);
    let before = keepers.newest.clone();
    for _ in 0..12 {
        keepers.forget();
        world.restart_client(OWNER);
        keepers.watch(&mut world, Duration::from_secs(20));
        assert!(keepers.came.len() <= 1, "{:?}", keepers.came);
        end(&mut world);
        world.skip(HOUR * 6);
    }
    let is_newer =
        |(key, revision): (&(Epoch, BlindedKey), &u64)| before.get(key) != Some(revision);
    let renewed = keepers.newest.iter().filter(|it| is_newer(*it)).count();
    assert!(renewed >= 4, "{renewed}: two inboxes, two epochs each");
}

#[test] // §9.4(3)
fn a_turn_that_was_cut_short_is_gone_on_with_at_the_next_start() {
    for seed in 660..666 {
        let mut world = default_world(seed);
        create(&mut world, 0);
        world.run_for(MINUTE);
        end(&mut world);
        world.skip(DAY * 15);
        world.run_for(MINUTE);
        assert_eq!(kept(&world), 0, "all epochs are over");
        // Ends as soon as its turn has begun.
        world.restart_client(OWNER);
        let cut_at = world.now() + MINUTE;
        while kept(&world) == 0 && world.now() < cut_at {
            world.run_for(Duration::from_millis(50));
        }
        end(&mut world);
        let before = kept(&world);
        world.restart_client(OWNER);
        world.run_for(Duration::from_secs(10));
        assert!(kept(&world) > 3, "{before}, {}", world.describe());
        end(&mut world);
    }
}

#[test] // §9.4(3), §9.4(5)
fn after_weeks_away_a_command_of_seconds_makes_an_inbox_findable() {
    for seed in 690..702 {
        let mut world = default_world(seed);
        create(&mut world, 0);
        world.run_for(MINUTE);
        end(&mut world);
        for _ in 0..2 {
            world.skip(DAY * 15);
            world.run_for(MINUTE);
            world.restart_client(OWNER);
            world.run_for(Duration::from_secs(12));
            // A sender asks four of six.
            let kept = kept(&world);
            assert!(kept >= 3, "seed {seed}: {kept} positions have it");
            let core = world.client(OWNER).core().expect("it runs");
            assert_eq!(core.status().inboxes[0].missing_since, None);
            end(&mut world);
        }
    }
}

#[test] // §9.3(6)
fn revisions_link_no_two_epochs_and_count_nothing() {
    let mut world = default_world(604);
    (0..4).for_each(|number| create(&mut world, number));
    let mut keepers = Keepers::default();
    keepers.watch(&mut world, HOUR);
    for _ in 0..6 {
        end(&mut world);
        world.skip(HOUR * 12);
        world.restart_client(OWNER);
        keepers.watch(&mut world, MINUTE * 20);
    }
    let mut all: Vec<_> = keepers.came.iter().map(|it| (it.3, it.2)).collect();
    all.sort_unstable();
    assert!(all.len() >= 8, "{all:?}");
    let pairs = || all.iter().zip(all.iter().skip(1));
    let are_apart = |(one, next): (&(u64, _), &(u64, _))| next.0 - one.0 > 1 << 42;
    let mut of_two = pairs().filter(|(one, next)| one.1 != next.1);
    assert!(
        of_two.all(are_apart),
        "no key's are near another's: {all:?}"
    );
    let of_one = pairs().filter(|(one, next)| one.1 == next.1);
    let steps: Vec<u64> = of_one.map(|(one, next)| next.0 - one.0).collect();
    let small = steps.iter().filter(|step| **step < 64).count();
    assert!(small * 2 <= steps.len(), "they are of any size: {steps:?}");
    let mut firsts = BTreeMap::new();
    for &(_, epoch, blinded, revision) in &keepers.came {
        firsts.entry((epoch, blinded)).or_insert(revision);
    }
    let small = firsts.values().filter(|first| **first < 1 << 52).count();
    assert_eq!(small, 0, "they begin anywhere: {firsts:?}");
}

#[test] // §9.4(3)
fn positions_that_take_nothing_make_no_start_visible() {
    let mut judged = 0;
    for seed in 640..656 {
        let mut world = default_world(seed);
        world.run_for(MINUTE);
        (5..12).for_each(|number| world.relay(RelayName(number)).disk.is_full = true);
        create(&mut world, 0);
        let mut keepers = Keepers::default();
        keepers.watch(&mut world, HOUR);
        let mut kept = BTreeMap::<Epoch, usize>::new();
        let disks = world.all_relays().iter().map(|relay| &relay.disk);
        for descriptor in disks.flat_map(|disk| disk.inbox_descriptors()) {
            *kept.entry(outside(descriptor).0).or_default() += 1;
        }
        // Half of the positions at most, in each epoch.
        if kept.len() != 2 || !kept.values().all(|count| (2..=3).contains(count)) {
            continue;
        }
        judged += 1;
        keepers.forget();
        for _ in 0..4 {
            end(&mut world);
            world.restart_client(OWNER);
            let listen = Wish::Listen {
                name: name(0),
                is_interactive: false,
            };
            world.wish(OWNER, listen);
            keepers.watch(&mut world, MINUTE);
        }
        assert!(keepers.came.is_empty(), "{}", world.describe());
    }
    assert!(judged > 2, "{judged}");
}

/// A command of seconds, and a pause after it. What came meanwhile.
fn command_of_seconds(world: &mut World, keepers: &mut Keepers, pause: Duration) {
    keepers.forget();
    world.restart_client(OWNER);
    keepers.watch(world, Duration::from_secs(10));
    end(world);
    world.skip(pause);
}

#[test] // §9.4(3)
fn positions_that_answer_nothing_make_no_start_of_seconds_visible() {
    let (mut judged, mut came) = (0, 0);
    for seed in 670..682 {
        let mut world = default_world(seed);
        create(&mut world, 0);
        world.run_for(MINUTE);
        end(&mut world);
        world.skip(DAY * 2);
        (6..12).for_each(|number| world.relay(RelayName(number)).disk.delay = DAY * 30);
        let mut keepers = Keepers::default();
        keepers.look(&world);
        command_of_seconds(&mut world, &mut keepers, HOUR * 4);
        if keepers.came.is_empty() {
            continue; // no position answers
        }
        judged += 1;
        for _ in 0..8 {
            command_of_seconds(&mut world, &mut keepers, HOUR * 4);
            let epochs: BTreeSet<Epoch> = keepers.came.iter().map(|it| it.1).collect();
            assert!(epochs.len() <= 1, "two keys at one start: {epochs:?}");
            came += keepers.came.len();
        }
    }
    // Two epochs, each due once a day: eight starts in 32 hours see some three.
    assert!(judged > 5, "{judged}");
    assert!(came <= judged * 5, "{came} of {}", judged * 8);
}

#[test] // §9.4(3)
fn killed_clients_go_on_with_what_all_were_asked_to_take_once() {
    let (mut judged, mut seen) = (0, 0);
    for seed in 670..682 {
        let mut world = default_world(seed);
        create(&mut world, 0);
        world.run_for(MINUTE);
        end(&mut world);
        world.skip(DAY * 2);
        let refusing = 6..12;
        (refusing.clone()).for_each(|it| world.relay(RelayName(it)).disk.is_full = true);
        let asked = |world: &World| -> usize {
            let relays = &world.all_relays()[refusing.clone()];
            relays.iter().map(|relay| relay.disk.published).sum()
        };
        for start in 0..9 {
            let before = asked(&world);
            let mut keepers = Keepers::default();
            world.restart_client(OWNER);
            keepers.watch(&mut world, Duration::from_secs(20));
            world.crash_client(OWNER);
            if start > 0 {
                judged += 1;
                seen += usize::from(asked(&world) > before);
            }
            world.skip(HOUR * 4);
        }
    }
    // Two epochs, each due once a day, and others that become positions.
    assert!(seen * 8 <= judged * 5, "{seen} of {judged}");
}

#[test] // §9.4(3)
fn of_two_inboxes_that_are_half_published_a_start_goes_on_with_one() {
    let (mut together, mut later) = (0, 0);
    for seed in 710..714 {
        let mut world = default_world(seed);
        (0..2).for_each(|number| create(&mut world, number));
        world.run_for(MINUTE);
        end(&mut world);
        world.skip(DAY * 3);
        (0..12).for_each(|it| world.relay(RelayName(it)).disk.is_full = true);
        world.restart_client(OWNER);
        world.run_for(HOUR * 12);
        world.crash_client(OWNER);
        let mut keepers = Keepers::default();
        keepers.look(&world);
        keepers.forget();
        (0..12).for_each(|it| world.relay(RelayName(it)).disk.is_full = false);
        world.restart_client(OWNER);
        keepers.watch(&mut world, MINUTE);
        let keys = |keepers: &Keepers| -> BTreeSet<BlindedKey> {
            keepers.came.iter().map(|it| it.2).collect()
        };
        let at_once = keys(&keepers).len();
        assert!(
            at_once > 0,
            "what was cut short goes on: {}",
            world.describe()
        );
        together += at_once - 1;
        keepers.watch(&mut world, HOUR * 12);
        later += keys(&keepers).len();
    }
    assert!(together <= 1, "{together}");
    // Not all: an epoch's last hours may be over before its turn comes.
    assert!(later > 9, "{later} of 16");
}

#[test] // §9.4(3), §9.4(4): a look-up asks other positions in place of those that fail
fn an_inbox_is_ready_though_most_of_its_positions_are_broken() {
    for seed in 620..630 {
        let mut world = World::new(seed).relays(9).clients(1);
        world.run_for(Duration::from_secs(30));
        (4..9).for_each(|number| world.relay(RelayName(number)).disk.is_full = true);
        world.wish(OWNER, Wish::CreateInbox { name: name(0) });
        let is_ready = |notice: &Notice| matches!(notice, Notice::InboxReady { .. });
        world.expect_within(Duration::from_secs(50), |world| {
            world.has_notice(OWNER, is_ready)
        });
    }
}
