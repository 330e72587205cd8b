use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::directory::testing::{self, TestRelay, WALL};
use crate::ids::Peer;
use crate::limits::{RENEWALS_AT_ONCE, VIEW_SLACK};
use crate::time::Duration;

#[path = "book_listed_tests.rs"]
mod listed;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn later(secs: u64) -> WallTime {
    WallTime(WALL.as_secs() + secs)
}

fn earlier(secs: u64) -> WallTime {
    WallTime(WALL.as_secs() - secs)
}

fn issued(number: u32, at: WallTime) -> TestRelay {
    testing::relay(number).with(|descriptor| descriptor.issued_at = at)
}

fn id(number: u32) -> RelayId {
    testing::relay(number).descriptor.relay
}

fn learn(book: &mut Book, relay: &TestRelay, wall: WallTime) -> Inserted {
    book.learn(&testing::public_network(), wall, relay.unverified())
        .unwrap()
        .inserted
}

fn learn_shown(
    network: &Network,
    book: &mut Book,
    relay: &TestRelay,
    wall: WallTime,
) -> Result<Shown, DescriptorFault> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    book.learn_shown(network, wall, relay.unverified(), &mut rng)
}

fn expire(book: &mut Book, wall: WallTime, confirmed: WallTime) -> bool {
    let before = book.changes();
    book.expire(&testing::public_network(), wall, confirmed);
    book.changes() > before
}

/// The contents of a store that does as it is asked: rows, and words.
#[derive(Default)]
struct Disk(BTreeMap<RelayId, BookRow>, BTreeMap<RelayId, Vec<u8>>);

impl Disk {
    fn take(&mut self, book: &mut Book) {
        while let Some(op) = book.poll_op() {
            match op {
                BookOp::Put { relay, row } => drop(self.0.insert(relay, row)),
                BookOp::PutWords { relay, words } => drop(self.1.insert(relay, words)),
                BookOp::Remove(relays) => self.0.retain(|relay, _| !relays.contains(relay)),
            }
        }
    }

    fn open(&self, wall: WallTime) -> Book {
        Book::restore(&testing::public_network(), self.0.values().cloned(), wall)
    }
}

/// A book of these relays, learned at [`WALL`], and its disk.
fn book_of(numbers: core::ops::Range<u32>) -> (Book, Disk) {
    let (mut book, mut disk) = (Book::new(), Disk::default());
    for number in numbers {
        learn(&mut book, &testing::relay(number), WALL);
    }
    book.confirm_all();
    disk.take(&mut book);
    (book, disk)
}

fn last_known(book: &Book) -> Vec<RelayId> {
    book.last_known(&testing::public_network())
        .map(|descriptor| descriptor.relay)
        .collect()
}

#[test] // §8.2
fn what_is_news_is_stored_and_what_is_known_is_not() {
    let (mut book, mut disk) = book_of(1..3);
    assert_eq!(disk.0.len(), 2);
    assert_eq!(
        learn(&mut book, &testing::relay(1), later(5)),
        Inserted::Stale
    );
    assert_eq!(book.poll_op(), None);
    let newer = issued(1, later(10));
    assert_eq!(learn(&mut book, &newer, later(20)), Inserted::Newer);
    disk.take(&mut book);
    let row = &disk.0[&id(1)];
    assert_eq!(
        (&row.descriptor, row.age.first_seen),
        (&newer.bytes(), WALL)
    );
}

#[test] // §8.2(3)
fn ages_outlive_a_restart_and_a_restart_is_no_setup() {
    let network = testing::public_network();
    let (mut book, mut disk) = book_of(1..2);
    learn(&mut book, &issued(2, later(2 * HOUR)), later(2 * HOUR));
    disk.take(&mut book);
    let selectable = |book: &Book, wall| book.view().selectable(&network, wall).count();
    assert_eq!(selectable(&book, later(3 * HOUR)), 1, "the second is new");
    let book = disk.open(later(3 * HOUR));
    assert_eq!(
        book.view().age(&id(2)).map(|age| age.first_seen),
        Some(later(2 * HOUR))
    );
    assert_eq!(
        selectable(&book, later(3 * HOUR)),
        1,
        "it is as new as before"
    );
    assert_eq!(selectable(&book, later(26 * HOUR)), 2);
    let mut book = disk.open(later(3 * HOUR));
    learn(&mut book, &issued(3, later(3 * HOUR)), later(3 * HOUR));
    assert_eq!(
        selectable(&book, later(3 * HOUR)),
        1,
        "a start does not make whoever comes old"
    );
}

#[test] // §8.2(3)
fn a_restart_does_not_let_in_who_is_not_vouched_for() {
    let (_, disk) = book_of(1..2);
    let mut network = testing::public_network();
    network.params.receipts_min = 0;
    let mut book = disk.open(later(2 * HOUR));
    network.params.receipts_min = 1;
    let stranger = testing::vouched(issued(2, later(2 * HOUR)), [8], later(2 * HOUR));
    let learned = book.learn(&network, later(2 * HOUR), stranger.unverified());
    assert_eq!(learned, Err(NotLearned::Unvouched));
    let shown = learn_shown(&network, &mut book, &stranger, later(2 * HOUR));
    assert_eq!(shown.unwrap().taken, Err(NotLearned::Unvouched));
    let descriptor = stranger
        .unverified()
        .verify(&testing::public_network(), later(2 * HOUR))
        .unwrap();
    assert!(
        !book
            .view()
            .may_admit(&descriptor, &network, later(2 * HOUR))
    );
    assert!(
        Book::new()
            .view()
            .may_admit(&descriptor, &network, later(2 * HOUR)),
        "a new book is being set up"
    );
}

#[test] // §8.2(4)
fn to_one_who_was_away_the_relays_of_that_time_vouch_and_those_gone_before_do_not() {
    let (mut book, _) = book_of(1..5);
    let left_at = later(17 * DAY);
    expire(&mut book, left_at, left_at);
    for number in 1..4 {
        learn(&mut book, &issued(number, left_at), left_at);
    }
    // Its clock is not confirmed yet: then it would have its setup before it.
    let back_at = later(40 * DAY);
    expire(&mut book, back_at, left_at);
    assert_eq!((book.view().len(), last_known(&book).len()), (0, 4));
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    // Its own descriptor is newer than all that it knew, and makes nobody too old; nor does one that
    // a stranger dated back, so that it soon dies.
    let own = testing::vouched(issued(20, back_at), [1], back_at);
    assert_eq!(book.own(&network, back_at, &own.bytes()), Ok(true));
    let dated_back = later(38 * DAY + 10);
    let dying = testing::vouched(issued(21, dated_back), [2], dated_back);
    assert!(book.learn(&network, back_at, dying.unverified()).is_ok());
    let back_at = back_at + Duration::from_secs(60);
    book.expire(&network, back_at, left_at);
    assert!(last_known(&book).contains(&id(21)));
    // The third is a stranger.
    for (number, issuer, is_taken) in [(5, 1, true), (6, 4, false), (7, 8, false)] {
        let newcomer = testing::vouched(issued(number, back_at), [issuer], back_at);
        let learned = book.learn(&network, back_at, newcomer.unverified());
        assert_eq!(learned.is_ok(), is_taken, "{issuer}: {learned:?}");
    }
}

#[test] // §8.2(4), §8.2(7)
fn whoever_comes_back_takes_all_that_it_knew() {
    let mut network = testing::public_network();
    network.params.receipts_min = 3;
    let (mut book, mut disk) = (Book::new(), Disk::default());
    let relay = |number: u32, at| {
        let issuers = [1, 6, 12, 19, 27].map(|step| (number + step) % 40 + 1);
        testing::vouched(issued(number, at), issuers, at)
    };
    for number in 1..=40 {
        book.learn(&network, WALL, relay(number, WALL).unverified())
            .unwrap();
    }
    book.confirm_all();
    disk.take(&mut book);
    let back_at = later(10 * DAY);
    // Those who come first are enough to do without the seeds.
    network.params.seeds_vouch_until = 5;
    let mut book = disk.open(back_at);
    let mut come = Vec::new();
    for _ in 0..5 {
        for number in 1..=40 {
            book.expire(&network, back_at, back_at);
            let _ = book.learn(&network, back_at, relay(number, back_at).unverified());
        }
        come.push(book.view().len());
    }
    assert!(come[0] > 20 && come[4] == 40, "{come:?}");
    let drawn = book.view().selectable(&network, back_at).count();
    assert_eq!(drawn, 40, "as old as they were");
}

#[test] // §8.2(3)
fn whoever_was_away_for_weeks_has_a_setup_and_takes_those_who_came_meanwhile() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let (mut book, mut disk) = book_of(1..20);
    disk.take(&mut book);
    for (days, is_anew) in [(8, false), (20, true)] {
        let back_at = later(days * DAY);
        let mut book = disk.open(back_at);
        // A clock that jumped begins nothing.
        book.expire(&network, back_at, later(DAY));
        let by_newcomer = |number| testing::vouched(issued(number, back_at), [50], back_at);
        let learned = book.learn(&network, back_at, by_newcomer(1).unverified());
        assert_eq!(learned, Err(NotLearned::Unvouched));
        book.expire(&network, back_at, back_at);
        let learned = book.learn(&network, back_at, by_newcomer(1).unverified());
        assert_eq!(learned.is_ok(), is_anew, "{days}: {learned:?}");
    }
}

/// Those of these relays that are alive are renewed each half day, until then.
fn live_on(book: &mut Book, numbers: impl Iterator<Item = u32>, at: WallTime) {
    for number in numbers {
        learn(book, &issued(number, at), at);
    }
    expire(book, at, at);
}

/// Whether relays that are dead vouch now; and whether its setup is still to come, or has just begun.
fn is_back_or_anew(book: &Book, dead: u32, wall: WallTime) -> (bool, bool) {
    let network = testing::public_network();
    let former = book.former_issuers(&network, wall, core::iter::once(id(dead)));
    (!former.is_empty(), book.view().is_setting_up(wall))
}

#[test] // §8.2(3), §8.2(4)
fn who_is_in_touch_stays_so_whoever_dies() {
    // A flood of relays that are not there, and half of the network that leaves for good.
    let flood = (60, 100..1000, 0..60);
    let loss = (60, 0..0, 0..24);
    for (relays, invented, staying) in [flood, loss] {
        let mut book = book_of(0..relays).0;
        let dies = invented.clone().chain(24..25).next().unwrap();
        for half_days in 1..50 {
            let at = later(half_days * DAY / 2);
            if half_days == 20 {
                live_on(&mut book, invented.clone(), at);
            }
            let alive = if half_days < 20 {
                0..relays
            } else {
                staying.clone()
            };
            live_on(&mut book, alive, at);
            // Whenever it is asked, and not only as it looks.
            for looked_at in [at, at + Duration::from_secs(59)] {
                let state = is_back_or_anew(&book, dies, looked_at);
                assert_eq!(state, (false, false), "after {half_days} half days");
            }
        }
    }
}

#[test] // §8.2(4)
fn who_is_in_touch_stays_so_whatever_dies_on_a_few_hosts() {
    let network = testing::public_network();
    let honest = 40;
    let mut book = book_of(0..honest).0;
    // Three hosts have been 150 relays, which say in the end that they are elsewhere, too, each in a
    // network of its own.
    let cheap = |number: u32, at, is_last: bool| {
        let (host, port, own) = (number % 3, 9000 + number, number - 1000);
        let own = is_last.then(|| format!("99.{own}.1.1:9000"));
        let addresses = own.into_iter().chain([format!("60.{host}.1.1:{port}")]);
        let addresses = addresses.map(|it| it.parse().unwrap()).collect();
        issued(number, at).with(|it| it.addresses = addresses)
    };
    for half_days in 1..60 {
        let at = later(half_days * DAY / 2);
        if half_days < 20 {
            for number in 1000..1150 {
                let relay = cheap(number, at, half_days == 19);
                book.learn(&network, at, relay.unverified()).unwrap();
            }
        }
        live_on(&mut book, 0..honest, at);
        let state = is_back_or_anew(&book, 1000, at);
        assert_eq!(state, (false, false), "after {half_days} half days");
    }
}

#[test] // §8.2(3), §8.2(4)
fn who_is_in_touch_stays_so_while_a_tenth_of_all_leaves_each_day() {
    let mut book = book_of(0..200).0;
    let mut first = 0;
    for half_days in 1..120 {
        let at = later(half_days * DAY / 2);
        live_on(&mut book, first..first + 200, at);
        // Of the last that left.
        let state = is_back_or_anew(&book, first.max(1) - 1, at + Duration::from_secs(59));
        assert_eq!(state, (false, false), "after {half_days} half days");
        first += 10;
    }
}

#[test] // §8.2(3)
fn a_setup_that_is_to_come_outlives_a_restart() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let back_at = later(20 * DAY);
    let open = |disk: &Disk| {
        let mut book = disk.open(back_at);
        book.believe_listed_only(&network, back_at, disk.1.clone());
        expire(&mut book, back_at, back_at);
        book
    };
    let mut disk = book_of(1..20).1;
    let mut book = open(&disk);
    assert!(book.view().is_setting_up(back_at));
    let newcomer = testing::vouched(issued(30, back_at), [50], back_at);
    let learned = book.learn(&network, back_at, newcomer.unverified());
    assert!(learned.is_ok(), "whoever vouches: {learned:?}");
    disk.take(&mut book);
    let book = open(&disk);
    assert!(book.view().is_setting_up(back_at));
    assert_eq!(last_known(&book).len(), 19, "where to dial");
}

#[test] // §8.2(4)
fn what_a_wrong_clock_dated_ahead_makes_no_former_issuer_too_old() {
    let (mut book, mut disk) = book_of(1..3);
    let ahead = later(30 * DAY);
    learn(&mut book, &issued(3, ahead), ahead);
    expire(&mut book, ahead, WALL);
    disk.take(&mut book);
    let back_at = later(8 * DAY);
    expire(&mut book, back_at, back_at);
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    for mut book in [book, disk.open(back_at)] {
        assert_eq!((book.view().len(), last_known(&book).len()), (0, 3));
        let newcomer = testing::vouched(issued(5, back_at), [1], back_at);
        let learned = book.learn(&network, back_at, newcomer.unverified());
        assert!(learned.is_ok(), "{learned:?}");
    }
}

#[test] // §8.2
fn addresses_outlive_descriptors_and_are_in_no_view() {
    let network = testing::public_network();
    let (mut book, mut disk) = book_of(1..5);
    let away = later(3 * DAY);
    assert!(expire(&mut book, away, away));
    disk.take(&mut book);
    for book in [&book, &disk.open(away)] {
        assert!(book.view().is_empty() && book.view().selectable(&network, away).next().is_none());
        assert_eq!(last_known(book).len(), 4);
        let addresses = &book.last_known_of(&id(2)).unwrap().addresses;
        assert_eq!(addresses, &testing::relay(2).descriptor.addresses);
    }
    let mut book = disk.open(away);
    assert_eq!(learn(&mut book, &issued(2, away), away), Inserted::New);
    assert_eq!(
        book.view().first_seen(&id(2)),
        Some(WALL),
        "it has been known since then"
    );
    assert!(!last_known(&book).contains(&id(2)));
}

#[test] // §8.2
fn some_dozens_of_addresses_are_kept_the_newest_and_from_many_groups() {
    let (mut book, mut disk) = (Book::new(), Disk::default());
    let crowd = |number: u32, at| {
        let address = format!("99.9.1.{}:9000", number - 1000).parse().unwrap();
        issued(number, at).with(|descriptor| descriptor.addresses = vec![address])
    };
    for number in 0..40 {
        learn(&mut book, &issued(number, WALL), WALL);
    }
    for number in 1000..1100 {
        learn(
            &mut book,
            &crowd(number, later(u64::from(number))),
            later(u64::from(number)),
        );
    }
    book.confirm_all();
    disk.take(&mut book);
    expire(&mut book, later(8 * DAY), later(8 * DAY));
    disk.take(&mut book);
    let back_at = later(40 * DAY);
    expire(&mut book, back_at, back_at);
    disk.take(&mut book);
    assert_eq!(disk.0.len(), 140, "all are as old as they were");
    for number in 2000..2150 {
        learn(&mut book, &issued(number, back_at), back_at);
    }
    expire(&mut book, back_at, back_at);
    disk.take(&mut book);
    let kept = last_known(&book);
    assert_eq!(
        (kept.len(), disk.0.len() - 150),
        (LAST_KNOWN_MAX, LAST_KNOWN_MAX)
    );
    assert!(
        (0..40).all(|number| kept.contains(&id(number))),
        "one group does not push the others out"
    );
    let newest = (1000..1100).rev().take(LAST_KNOWN_MAX - 40);
    assert!(
        newest.map(id).all(|relay| kept.contains(&relay)),
        "of a group the newest stay"
    );
}

#[test] // §8.2
fn nothing_is_forgotten_while_the_clock_is_in_doubt() {
    let (mut book, mut disk) = book_of(0..100);
    expire(&mut book, later(29 * DAY), WALL);
    disk.take(&mut book);
    assert_eq!((book.view().len(), disk.0.len()), (0, 100));
    assert!(
        expire(&mut book, later(60), WALL),
        "the clock is right again"
    );
    assert_eq!(book.view().len(), 100);
    let mut book = disk.open(later(29 * DAY));
    assert!(expire(&mut book, later(60), later(60)));
    assert_eq!(
        (book.view().len(), book.view().first_seen(&id(1))),
        (100, Some(WALL))
    );
}

#[test] // §8.2
fn rows_from_a_slow_clocks_future_are_back_when_it_is_right() {
    let (_, disk) = book_of(0..10);
    let mut book = disk.open(earlier(3 * DAY));
    assert!(book.view().is_empty());
    expire(&mut book, earlier(3 * DAY), earlier(3 * DAY));
    assert_eq!(last_known(&book).len(), 10, "they may be dialled");
    assert!(expire(&mut book, later(60), later(60)));
    assert_eq!(book.view().len(), 10);
}

#[test] // §8.2
fn a_valid_descriptor_replaces_one_dated_ahead_by_a_wrong_clock() {
    let (mut book, mut disk) = (Book::new(), Disk::default());
    learn(&mut book, &issued(1, later(29 * DAY)), later(29 * DAY));
    disk.take(&mut book);
    let mut book = disk.open(WALL);
    assert_eq!(learn(&mut book, &issued(1, WALL), WALL), Inserted::New);
    disk.take(&mut book);
    let row = &disk.0[&id(1)];
    assert_eq!(
        (&row.descriptor, row.age.first_seen),
        (&issued(1, WALL).bytes(), WALL)
    );
}

#[test] // §8.2
fn an_own_descriptor_takes_the_place_of_one_from_the_future() {
    let network = testing::public_network();
    let mut book = Book::new();
    book.own(
        &network,
        later(29 * DAY),
        &issued(1, later(29 * DAY)).bytes(),
    )
    .unwrap();
    book.own(&network, WALL, &issued(1, WALL).bytes()).unwrap();
    assert_eq!(book.view().get(&id(1)).unwrap().issued_at, WALL);
    assert_eq!(book.poll_op(), None);
}

/// A book whose view holds as many relays as it may, all in one AS and known for long.
fn full_book() -> Book {
    let (mut book, model) = (Book::new(), testing::relay(1).verified());
    let age = Age {
        first_seen: WALL,
        belief: Belief::Given(WALL),
        there_since: WALL,
    };
    for number in 0..VIEW_RELAYS_MAX + VIEW_SLACK {
        let mut other = [0xff; RelayId::LEN];
        other[..8].copy_from_slice(&(number as u64).to_be_bytes());
        book.view.insert_aged(model.as_of(RelayId(other)), age);
    }
    book
}

fn make_room(book: &mut Book, wall: WallTime) -> bool {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let before = book.changes();
    book.make_room(&testing::public_network(), wall, &mut rng);
    book.changes() > before
}

#[test] // §8.2(9)
fn an_own_descriptor_needs_no_room_and_newcomers_are_given_some() {
    let network = testing::public_network();
    let mut book = full_book();
    assert_eq!(learn(&mut book, &issued(2, WALL), WALL), Inserted::Full);
    let own = |book: &mut Book, at| book.own(&network, at, &issued(3, at).bytes());
    assert_eq!(own(&mut book, WALL), Ok(true));
    assert_eq!(own(&mut book, later(60)), Ok(true), "and again");
    assert_eq!(book.view().get(&id(3)).unwrap().issued_at, later(60));

    assert!(make_room(&mut book, later(60)));
    assert_eq!(book.view().len(), VIEW_RELAYS_MAX + 1);
    assert!(
        !make_room(&mut book, later(60)),
        "there is some for a while"
    );
    for newcomer in 4..10 {
        let newcomer = issued(newcomer, later(60));
        assert_eq!(learn(&mut book, &newcomer, later(60)), Inserted::New);
    }
    assert!(book.view().get(&id(3)).is_some());
}

#[test] // §8.2(9)
fn what_left_a_full_view_is_not_taken_again_before_its_relay_issues_anew() {
    let network = testing::public_network();
    let mut book = full_book();
    assert_eq!(learn(&mut book, &issued(2, WALL), WALL), Inserted::Full);
    assert!(make_room(&mut book, WALL));
    while let Some(op) = book.poll_op() {
        let BookOp::Remove(left) = op else { continue };
        assert_eq!(left.len(), VIEW_SLACK);
        assert!(left.iter().all(|relay| book.view().get(relay).is_none()));
        assert!(
            left.iter()
                .all(|relay| book.view().heard_of(relay).is_some())
        );
    }
    let again = book.learn(&network, WALL, issued(2, WALL).unverified());
    assert_eq!(again, Err(NotLearned::TurnedAway));
    // Nor if its relay itself shows it on a link; it is linked to all the same.
    let shown = learn_shown(&network, &mut book, &issued(2, WALL), WALL);
    assert_eq!(shown.unwrap().taken, Err(NotLearned::TurnedAway));
    assert_eq!(
        learn(&mut book, &issued(2, later(60)), later(60)),
        Inserted::New
    );
    let held = book.view().get(&id(2)).unwrap().version();
    assert_eq!(book.view().heard_of(&id(2)), Some(held));
}

#[test] // §8.2(9), §8.2(10)
fn who_comes_to_a_held_address_is_remembered_if_it_is_vouched_for() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let (mut book, _) = book_of(10..11);
    book.confirm_all();
    let wall = later(2 * HOUR);
    let at = |number, issuer| {
        let address = "20.1.1.1:9000".parse().unwrap();
        let relay = issued(number, wall).with(|it| it.addresses = vec![address]);
        testing::vouched(relay, [issuer], wall)
    };
    let mut learn = |relay: &TestRelay| {
        let learned = book.learn(&network, wall, relay.unverified());
        learned.map(|learned| learned.inserted)
    };
    assert_eq!(learn(&at(1, 10)), Ok(Inserted::New));
    let (second, invented) = (at(2, 10), at(3, 40));
    let believed = |by: &TestRelay| by.unverified().believed();
    let taken = |by: &TestRelay| Err(NotLearned::AddressTaken(Some(Box::new(believed(by)))));
    assert_eq!(learn(&second), taken(&second));
    assert_eq!(learn(&second), Err(NotLearned::TurnedAway), "it is known");
    for _ in 0..2 {
        assert_eq!(learn(&invented), Err(NotLearned::Unvouched));
    }
    let mut forged = at(4, 10).bytes();
    *forged.last_mut().unwrap() ^= 1;
    let forged = Unverified::decode(&forged).unwrap();
    for _ in 0..2 {
        let learned = book.learn(&network, wall, forged.clone());
        assert_eq!(
            learned,
            Err(NotLearned::Fault(DescriptorFault::Signature)),
            "it costs what others cost"
        );
    }
}

/// A relay at one address for all, with a receipt of that time, issued at this one.
fn at_one_address(number: u32, receipt_at: WallTime, at: WallTime) -> TestRelay {
    let address = "20.1.1.1:9000".parse().unwrap();
    let relay = issued(number, at).with(|it| it.addresses = vec![address]);
    testing::vouched(relay, [10], receipt_at)
}

#[test] // §8.2(10)
fn of_those_who_come_to_one_address_the_newest_few_are_remembered() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let (mut book, _) = book_of(10..11);
    for number in 1..10 {
        let at = later(2 * HOUR + u64::from(number));
        let relay = at_one_address(number, at, at);
        let learned = book.learn(&network, at, relay.unverified());
        assert_eq!(learned.is_ok(), number == 1);
    }
    let remembered = (2..10).filter(|&it| book.view().heard_of(&id(it)).is_some());
    assert_eq!(remembered.collect::<Vec<_>>(), [7, 8, 9]);
}

#[test] // §8.2(10)
fn who_shows_no_young_receipt_of_an_address_holds_it_no_longer() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let (began_at, renewed_at) = (later(2 * HOUR), later(30 * HOUR));
    for receipt_at in [began_at, renewed_at] {
        let (mut book, _) = book_of(10..11);
        let mut learn = |relay: &TestRelay, wall| {
            let learned = book.learn(&network, wall, relay.unverified());
            learned.is_ok()
        };
        assert!(learn(&at_one_address(1, began_at, began_at), began_at));
        assert!(learn(
            &at_one_address(1, receipt_at, renewed_at),
            renewed_at
        ));
        for (hours, is_held) in [(43, true), (45, receipt_at == renewed_at)] {
            let now = later(hours * HOUR);
            assert_eq!(!learn(&at_one_address(2, now, now), now), is_held);
        }
    }
}

#[test] // §8.2(9)
fn a_view_that_has_room_again_takes_what_it_turned_away() {
    let mut book = full_book();
    let (day_later, young) = (later(DAY), issued(2, later(DAY)));
    assert_eq!(learn(&mut book, &young, day_later), Inserted::Full);
    // All others are dead by now.
    expire(&mut book, later(2 * DAY), later(2 * DAY));
    assert_eq!(book.view().heard_of(&id(2)), None);
    assert_eq!(learn(&mut book, &young, later(2 * DAY)), Inserted::New);
}

#[test] // §8.2(3), §8.2(5)
fn a_relay_that_knows_only_itself_has_its_setup_before_it_also_after_a_restart() {
    let network = testing::public_network();
    let mut strict = testing::public_network();
    strict.params.receipts_min = 1;
    let admits = |book: &Book, wall| {
        let stranger = testing::vouched(issued(9, wall), [8], wall);
        let stranger = stranger.unverified().verify(&network, wall).unwrap();
        book.view().may_admit(&stranger, &strict, wall)
    };
    let (mut book, mut disk) = (Book::new(), Disk::default());
    book.own(&network, WALL, &issued(1, WALL).bytes()).unwrap();
    disk.take(&mut book);
    assert!(disk.0.is_empty(), "our own descriptor is not stored");
    assert!(admits(&book, later(20 * DAY)));
    let mut book = disk.open(later(20 * DAY));
    let own = issued(1, later(20 * DAY)).bytes();
    book.own(&network, later(20 * DAY), &own).unwrap();
    learn(&mut book, &issued(2, later(20 * DAY)), later(20 * DAY));
    assert!(admits(&book, later(20 * DAY + HOUR)));
    assert!(!admits(&book, later(20 * DAY + HOUR + 1)));
}

#[test]
fn rows_that_are_no_descriptors_are_left_out() {
    let age = Age {
        first_seen: WALL,
        belief: Belief::Given(WALL),
        there_since: WALL,
    };
    let rows = [vec![], vec![1, 2, 3], testing::relay(1).bytes()]
        .map(|descriptor| BookRow { descriptor, age });
    let book = Book::restore(&testing::public_network(), rows, WALL);
    assert_eq!((book.view().len(), last_known(&book).len()), (1, 0));
}

#[test] // §8.2(8)
fn a_relay_that_issues_often_is_heard_some_times_and_then_once_an_hour() {
    let (mut book, _) = book_of(1..3);
    let network = testing::public_network();
    let mut taken = |at: WallTime| {
        let learned = book.learn(&network, at, issued(1, at).unverified());
        match learned.map(|learned| learned.inserted) {
            Ok(Inserted::Newer) => true,
            Err(NotLearned::TooSoon) => false,
            other => panic!("{other:?}"),
        }
    };
    let at_once = (1..60).filter(|&second| taken(later(second))).count();
    assert_eq!(at_once, 1 + RENEWALS_AT_ONCE as usize);
    let in_a_day = (1..=24).filter(|hour| taken(later(HOUR * hour + 60)));
    assert_eq!(in_a_day.count(), 24);
    assert!(!taken(later(24 * HOUR + 61)) && taken(later(25 * HOUR + 60)));
}

#[test] // §8.4(2)
fn what_is_no_news_is_passed_over_before_its_signature_is_looked_at() {
    let (mut book, _) = book_of(1..3);
    let network = testing::public_network();
    let mut forged = issued(1, earlier(HOUR)).unverified().bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = Unverified::decode(&forged).unwrap();
    let learned = book.learn(&network, WALL, forged).unwrap();
    assert_eq!(learned.inserted, Inserted::Stale);
    assert_eq!(
        learned.descriptor,
        *book.view().get(&id(1)).unwrap(),
        "the one it has"
    );
    let mut newer = issued(1, later(1)).unverified().bytes().to_vec();
    *newer.last_mut().unwrap() ^= 1;
    let newer = Unverified::decode(&newer).unwrap();
    assert!(matches!(
        book.learn(&network, later(1), newer),
        Err(NotLearned::Fault(_))
    ));
}
