//! Whom a book believes by what its sources list (docs/protocol.md §8.2(3), §8.2(11)).

use core::net::SocketAddr;

use super::*;
use crate::directory::ring;
use crate::ids::BlindedKey;

/// This relay as a source, where its descriptor says.
fn source(number: u32) -> Source {
    let known = testing::relay(number).descriptor;
    let network = testing::public_network();
    Source::dialled_by_others(&network, &known)
}

/// A book that took relays 1 to 3 of this setup from a source, relay 10.
fn listed_by_one() -> (Network, Book) {
    let mut network = testing::public_network();
    network.params.selectable_age = Duration::from_secs(24 * 3600);
    let mut book = Book::new();
    for number in [10, 11, 12, 1, 2, 3] {
        let relay = testing::relay(number);
        book.learn(&network, WALL, relay.unverified()).unwrap();
        book.handle_listed(&source(10), &relay.descriptor.relay);
    }
    (network, book)
}

/// The relays that may be drawn, by number.
fn drawn(network: &Network, book: &Book, wall: WallTime) -> Vec<u32> {
    let view = book.view();
    let drawn: Vec<RelayId> = view.selectable(network, wall).map(|it| it.relay).collect();
    let numbers = [1, 2, 3, 10, 11, 12].into_iter();
    numbers
        .filter(|&number| drawn.contains(&id(number)))
        .collect()
}

#[test] // §8.2(3)
fn setup_believes_what_two_sources_list() {
    let (network, mut book) = listed_by_one();
    assert!(drawn(&network, &book, WALL).is_empty());
    let mut disk = Disk::default();
    disk.take(&mut book);
    let before = disk.open(WALL);
    assert!(!book.handle_listed(&source(10), &id(1)), "the same");
    assert!(!book.handle_listed(&source(1), &id(1)), "of itself");
    assert!(!book.handle_listed(&source(50), &id(1)), "of no view");
    let listing = Listing {
        source: id(11),
        mark: book.mark(),
        lacking: [id(3)].into(),
    };
    let changes = book.changes();
    book.handle_listing(&source(11), &listing);
    assert!(book.changes() > changes);
    assert_eq!(
        drawn(&network, &book, WALL),
        [1, 2, 12],
        "10 and 11 are sources"
    );
    let changes = book.changes();
    book.handle_listing(&source(11), &listing);
    assert_eq!(book.changes(), changes, "the same again");
    // The others grow old like newcomers.
    let old = later(24 * HOUR);
    assert_eq!(drawn(&network, &book, old), [1, 2, 3, 10, 11, 12]);
    // What was confirmed, and what was not, outlives a restart.
    assert!(drawn(&network, &before, WALL).is_empty());
    disk.take(&mut book);
    assert_eq!(drawn(&network, &disk.open(WALL), WALL), [1, 2, 12]);
}

#[test] // §8.2(3)
fn sources_of_one_group_are_one() {
    let (network, mut book) = listed_by_one();
    let beside = testing::relay(13).with(|it| {
        it.addresses = testing::relay(10).descriptor.addresses;
    });
    let at_its_side = Source::dialled_by_others(&network, &beside.descriptor);
    book.learn(&network, WALL, beside.unverified()).unwrap();
    assert!(!book.handle_listed(&at_its_side, &id(1)));
    assert!(book.handle_listed(&source(11), &id(1)));
}

#[test] // §8.2(3)
fn a_source_that_names_the_groups_of_others_silences_none() {
    let (network, mut book) = listed_by_one();
    let everywhere = testing::relay(10).with(|it| {
        it.addresses.extend(testing::relay(11).descriptor.addresses);
        it.addresses.extend(testing::relay(12).descriptor.addresses);
    });
    let hostile = Source::dialled_by_others(&network, &everywhere.descriptor);
    book.learn(&network, WALL, testing::relay(4).unverified())
        .unwrap();
    for (source, confirms) in [(hostile, false), (source(11), false), (source(12), true)] {
        assert_eq!(book.handle_listed(&source, &id(4)), confirms);
    }
}

#[test] // §8.2(3)
fn a_source_is_where_its_link_goes() {
    let network = testing::public_network();
    let known = testing::relay(1).with(|it| {
        it.addresses = ["20.1.1.1:9000", "20.2.1.1:9000"]
            .map(|it| it.parse().unwrap())
            .into();
    });
    let linked = |ip: &str| Source::linked(&network, &known.descriptor, ip.parse().unwrap());
    assert_eq!(linked("20.3.1.1"), None);
    let at = linked("::ffff:20.1.1.1").unwrap().groups;
    assert_eq!(
        at,
        network.groups_of(known.descriptor.addresses[0]).collect()
    );
}

#[test] // §8.2(3)
fn what_came_during_a_reconciliation_is_not_of_its_source() {
    let (network, mut book) = listed_by_one();
    let mark = book.mark();
    book.learn(&network, WALL, testing::relay(4).unverified())
        .unwrap();
    book.handle_listed(&source(12), &id(4));
    let listing = Listing {
        source: id(11),
        mark,
        lacking: [].into(),
    };
    book.handle_listing(&source(11), &listing);
    assert_eq!(book.view().age(&id(4)).unwrap().belief, Belief::NotYet);
    assert_eq!(book.view().age(&id(1)).unwrap().belief, Belief::Given(WALL));
}

#[test] // §8.2(3)
fn a_restart_before_anything_is_confirmed_is_no_setup() {
    let (network, mut book) = listed_by_one();
    let mut disk = Disk::default();
    disk.take(&mut book);
    let later = later(20 * HOUR);
    let mut book = disk.open(later);
    let late = testing::relay(4).with(|it| it.issued_at = later);
    book.learn(&network, later, late.unverified()).unwrap();
    for number in [10, 11] {
        book.handle_listed(&source(number), &id(4));
        book.handle_listed(&source(number), &id(1));
    }
    assert_eq!(drawn(&network, &book, later), [1], "4 came after the setup");
}

#[test] // §8.2(3)
fn an_hour_in_which_a_newcomer_was_cut_off_was_no_setup() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let (mut book, mut disk) = (Book::new(), Disk::default());
    let hello = testing::vouched(testing::relay(10), [8], WALL);
    book.learn(&network, WALL, hello.unverified()).unwrap();
    // Nothing answers for hours, and the client is started again.
    let back_at = later(20 * HOUR);
    disk.take(&mut book);
    let mut book = disk.open(back_at);
    let confirm = |book: &mut Book, number: u32, at: WallTime| {
        let relay = testing::vouched(issued(number, at), [8], at);
        let learned = book.learn(&network, at, relay.unverified());
        for by in [10, 11] {
            book.handle_listed(&source(by), &id(number));
        }
        learned.is_ok()
    };
    assert!(
        !confirm(&mut book, 1, back_at),
        "by an issuer that it does not know"
    );
    book.expire(&network, back_at, back_at);
    assert!(!confirm_listed(&mut book, 10), "of no setup yet");
    for number in [11, 1, 2] {
        assert!(confirm(&mut book, number, back_at));
    }
    let is_old = |book: &Book, number| {
        let age = book.view().age(&id(number)).unwrap();
        age.is_at_least(network.params.receipt_issuer_age, back_at)
    };
    assert!(is_old(&book, 1) && is_old(&book, 2) && !is_old(&book, 10));
    // It ends, as any setup does, and no other follows.
    disk.take(&mut book);
    for mut book in [book, disk.open(back_at)] {
        let after = later(22 * HOUR);
        book.expire(&network, after, after);
        assert!(!confirm(&mut book, 3, after));
        assert!(confirm_listed(&mut book, 10), "it is of the setup");
        assert!(is_old(&book, 10));
    }
}

#[test] // §8.2(3)
fn founders_who_know_only_each_other_have_one_setup() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let peer = |number| Peer {
        id: id(number),
        host_port: "20.1.1.1:9000".to_owned(),
    };
    for (seeds, is_over) in [(vec![peer(1), peer(2)], true), (vec![peer(2)], false)] {
        network.seeds = seeds;
        let mut book = Book::new();
        let own = testing::vouched(issued(1, WALL), [2], WALL);
        book.own(&network, WALL, &own.bytes()).unwrap();
        let other = testing::vouched(issued(2, WALL), [1], WALL);
        book.learn(&network, WALL, other.unverified()).unwrap();
        let then = later(2 * HOUR);
        book.expire(&network, then, then);
        let stranger = testing::vouched(issued(9, then), [8], then);
        let learned = book.learn(&network, then, stranger.unverified());
        assert_eq!(learned.is_err(), is_over, "{learned:?}");
    }
}

/// Two sources list this relay.
fn confirm_listed(book: &mut Book, number: u32) -> bool {
    let mut sources = [1, 2].into_iter();
    sources.any(|by| book.handle_listed(&source(by), &id(number)))
}

/// A client's book a day after its setup, with relays 10 to 17, and relay 1, which came after it by the
/// word of relay 10.
fn believing_client() -> (Network, Book) {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    let mut book = Book::new();
    book.believe_listed_only(&network, WALL, []);
    let learn = |book: &mut Book, number: u32, issuer: u32, at: WallTime| {
        let relay = testing::vouched(issued(number, at), [issuer], at);
        book.learn(&network, at, relay.unverified()).unwrap();
    };
    for (at, is_setup) in [
        (WALL, true),
        (later(2 * HOUR), false),
        (later(DAY + 3 * HOUR), false),
    ] {
        (10..18).for_each(|number| learn(&mut book, number, (number - 9) % 8 + 10, at));
        if is_setup {
            book.confirm_all();
        } else {
            learn(&mut book, 1, 10, at);
            book.handle_listed(&source(10), &id(1));
        }
    }
    (network, book)
}

/// The same as a relay's, which takes the word of those alone that it has met.
fn believing_relay(at: WallTime) -> (Network, Book) {
    let (network, mut book) = believing_client();
    let mut disk = Disk::default();
    disk.take(&mut book);
    let mut book = disk.open(at);
    book.believe_met_only(&network, at);
    (network, book)
}

/// What a reconciliation with this source shows, of relay 1 alone.
fn hear_of_1(book: &mut Book, number: u32, has_it: bool) {
    let listing = Listing {
        source: id(number),
        mark: book.mark(),
        lacking: (!has_it).then_some(id(1)).into_iter().collect(),
    };
    book.handle_listing(&source(number), &listing);
}

/// Whether a client draws relay 1, may use it as a ring position, and takes its word.
fn believes_1(network: &Network, book: &Book) -> [bool; 3] {
    let wall = later(DAY + 4 * HOUR);
    let view = book.view();
    let is_drawn = view.selectable(network, wall).any(|it| it.relay == id(1));
    let has_position = (0..40).any(|key| {
        let key = BlindedKey([key; 32]);
        let positions = ring::positions(view, network, wall, &key, wall.epoch());
        positions.iter().any(|relay| relay == id(1))
    });
    let mut network = network.clone();
    network.params.receipt_issuer_age = Duration::from_secs(DAY);
    let address = testing::relay(30).descriptor.addresses[0];
    let vouches = view.vouchers(&network, address, wall).would_count(&id(1));
    [is_drawn, has_position, vouches]
}

#[test] // §8.2(11)
fn a_client_believes_in_relays_that_two_sources_list() {
    let (network, mut book) = believing_client();
    let drawn = book.view().selectable(&network, later(DAY + 4 * HOUR));
    assert_eq!(drawn.count(), 8, "those of the setup");
    assert_eq!(believes_1(&network, &book), [false; 3]);
    hear_of_1(&mut book, 10, true);
    assert_eq!(believes_1(&network, &book), [false; 3], "the same again");
    hear_of_1(&mut book, 11, true);
    assert_eq!(believes_1(&network, &book), [true; 3]);
}

#[test] // §8.2(11)
fn a_client_doubts_relays_that_most_of_its_sources_lack() {
    let (network, mut book) = believing_client();
    let mut disk = Disk::default();
    let mut hear = |book: &mut Book, number, has_it| {
        hear_of_1(book, number, has_it);
        disk.take(book);
        // A restart forgets nothing of it.
        *book = disk.open(later(DAY + 4 * HOUR));
        book.believe_listed_only(&network, later(DAY + 4 * HOUR), disk.1.clone());
        believes_1(&network, book)
    };
    for (number, has_it, is_believed) in [
        (11, true, true),
        (12, false, true),
        (13, false, true),
        (12, false, true), // the same again
        (14, true, true),
        (15, false, true), // three lack it, one lists it, and it was believed in
        (10, false, false),
        (16, true, false),
        (17, true, false),
        (12, true, true), // four list it, and three lack it
    ] {
        let believes = hear(&mut book, number, has_it);
        assert_eq!(believes, [is_believed; 3], "{number}");
    }
}

#[test] // §8.2(11)
fn the_word_of_a_hostile_guard_counts_once_however_often_it_is_asked() {
    let (network, mut book) = believing_client();
    for number in 11..18 {
        hear_of_1(&mut book, 10, true);
        hear_of_1(&mut book, number, false);
        hear_of_1(&mut book, 10, true);
        assert_eq!(believes_1(&network, &book), [false; 3]);
    }
}

#[test] // §8.2(11)
fn two_guards_that_hide_relays_take_them_out_of_no_use() {
    let (network, mut book) = believing_client();
    hear_of_1(&mut book, 11, true);
    for _ in 0..3 {
        // Relays 12 and 13 are hostile guards, and 15 was drawn.
        for (number, has_it) in [
            (12, false),
            (13, false),
            (15, false),
            (14, true),
            (16, true),
        ] {
            hear_of_1(&mut book, number, has_it);
            assert_eq!(believes_1(&network, &book), [true; 3], "{number}");
        }
    }
}

#[test] // §8.2(11)
fn of_a_relay_that_is_dead_no_source_says_anything() {
    let (network, mut book) = believing_client();
    let back_at = later(4 * DAY);
    book.expire(&network, back_at, back_at);
    let (relays, at) = ([12, 13, 14], back_at);
    for number in relays {
        let relay = testing::vouched(issued(number, at), [(number - 9) % 8 + 10], at);
        take(&network, &mut book, at, &relay);
    }
    for number in relays {
        hear_of_1(&mut book, number, true);
    }
    let back = testing::vouched(issued(1, at), [12], at);
    take(&network, &mut book, at, &back);
    let is_in_doubt = |book: &Book| book.view().age(&id(1)).unwrap().is_in_doubt();
    assert!(is_in_doubt(&book));
    assert_eq!(
        book.view().first_seen(&id(1)),
        Some(back_at),
        "it is as new as any"
    );
    for number in [12, 13] {
        hear_of_1(&mut book, number, true);
    }
    assert!(!is_in_doubt(&book));
}

/// This relay is new in the view, whoever vouches for it.
fn take(network: &Network, book: &mut Book, at: WallTime, relay: &TestRelay) {
    let descriptor = relay.unverified().verify(network, at).unwrap();
    let inserted = book.take(network, descriptor, at);
    assert_eq!(inserted.inserted, Inserted::New);
}

#[test] // §8.2(11)
fn what_dies_in_doubt_while_a_client_is_off_is_forgotten() {
    let (network, mut book) = believing_client();
    let mut disk = Disk::default();
    disk.take(&mut book);
    let mut book = disk.open(later(4 * DAY));
    book.believe_listed_only(&network, later(4 * DAY), disk.1.clone());
    assert!(book.last_known_of(&id(1)).is_none() && book.last_known_of(&id(12)).is_some());
    disk.take(&mut book);
    assert!(!disk.0.contains_key(&id(1)) && disk.0.contains_key(&id(12)));
}

#[test] // §8.2(11)
fn what_was_believed_before_its_doubts_comes_back_as_old_as_it_was() {
    let (network, mut book) = believing_client();
    hear_of_1(&mut book, 11, true);
    assert_eq!(believes_1(&network, &book), [true; 3]);
    for number in [12, 13, 14, 15, 16] {
        hear_of_1(&mut book, number, false);
    }
    assert_eq!(believes_1(&network, &book), [false; 3]);
    let back_at = later(4 * DAY);
    book.expire(&network, back_at, back_at);
    assert!(book.last_known_of(&id(1)).is_some(), "it is not forgotten");
    for number in [12, 13, 14] {
        let issuer = (number - 9) % 8 + 10;
        let relay = testing::vouched(issued(number, back_at), [issuer], back_at);
        take(&network, &mut book, back_at, &relay);
    }
    let back = testing::vouched(issued(1, back_at), [12], back_at);
    take(&network, &mut book, back_at, &back);
    let age = book.view().age(&id(1)).unwrap();
    assert_eq!(
        (age.belief, age.first_seen),
        (Belief::NoMore, later(2 * HOUR))
    );
}

#[test] // §8.2(3)
fn who_has_others_doubted_begins_no_setup_anew() {
    let network = {
        let mut network = testing::public_network();
        network.params.receipts_min = 1;
        network
    };
    let at = later(2 * HOUR);
    for (is_doubted, is_anew) in [(true, false), (false, true)] {
        let mut book = Book::new();
        book.believe_listed_only(&network, WALL, []);
        for number in [10, 11, 12] {
            let relay = testing::vouched(testing::relay(number), [8], WALL);
            book.learn(&network, WALL, relay.unverified()).unwrap();
        }
        if is_doubted {
            book.confirm_all();
            [10, 11, 12].iter().for_each(|number| {
                let _ = book.view.doubt(&id(*number));
            });
        }
        book.expire(&network, at, at);
        assert_eq!(book.view().is_setting_up(at), is_anew, "{is_doubted}");
    }
}

#[test] // §8.2(11)
fn relays_and_networks_without_receipts_have_no_such_doubts() {
    let (mut network, mut book) = believing_client();
    for number in 11..18 {
        hear_of_1(&mut book, number, false);
    }
    let mut disk = Disk::default();
    disk.take(&mut book);
    let at = later(DAY + 4 * HOUR);
    assert_eq!(
        believes_1(&network, &disk.open(at)),
        [true; 3],
        "of a relay"
    );
    network.params.receipts_min = 0;
    let mut book = disk.open(at);
    book.believe_listed_only(&network, at, disk.1.clone());
    assert!(believes_1(&network, &book)[0]);
}

#[test] // §8.2(12)
fn a_relay_takes_the_word_of_those_alone_that_it_has_met_or_that_were_there() {
    let (mut network, mut book) = believing_client();
    let mut disk = Disk::default();
    disk.take(&mut book);
    // Whatever sources list.
    let at = later(DAY + 4 * HOUR);
    let mut book = disk.open(at);
    book.believe_met_only(&network, at);
    for number in 10..14 {
        hear_of_1(&mut book, number, true);
    }
    network.params.receipt_issuer_age = Duration::from_secs(DAY);
    let vouches = |book: &Book, number| {
        let address = testing::relay(30).descriptor.addresses[0];
        let vouchers = book.view().vouchers(&network, address, at);
        vouchers.would_count(&id(number))
    };
    assert!(vouches(&book, 10) && !vouches(&book, 1));
    assert!(believes_1(&network, &book)[0], "it is drawn");
    assert!(book.view().is_unmet(&id(1)) && !book.view().is_unmet(&id(10)));
    book.meet(&id(1));
    disk.take(&mut book);
    let mut restarted = disk.open(at);
    restarted.believe_met_only(&network, at);
    for book in [book, restarted] {
        assert!(vouches(&book, 1) && !book.view().is_unmet(&id(1)));
        let age = book.view().age(&id(1)).unwrap();
        assert!(
            !age.is_at_least(Duration::from_secs(2 * DAY), at),
            "it is no older"
        );
    }
}

#[test] // §8.2(12)
fn a_relay_that_moves_is_to_be_met_again() {
    let at = later(DAY + 4 * HOUR);
    let (network, mut book) = believing_relay(at);
    book.meet(&id(1));
    for (number, is_of_setup) in [(1, false), (12, true)] {
        let elsewhere = testing::relay(number + 100).descriptor.addresses;
        let moved = issued(number, at).with(|it| it.addresses = elsewhere);
        let moved = testing::vouched(moved, [14], at);
        book.learn(&network, at, moved.unverified()).unwrap();
        assert_eq!(book.view().is_unmet(&id(number)), !is_of_setup);
    }
    book.meet(&id(1));
    assert!(!book.view().is_unmet(&id(1)));
}

#[test] // §8.2(12)
fn who_is_no_longer_where_it_was_met_is_to_be_met_again() {
    let at = later(DAY + 4 * HOUR);
    let real = testing::relay(1).descriptor.addresses[0];
    let invented: SocketAddr = "99.1.1.1:9000".parse().unwrap();
    let with = |addresses: &[SocketAddr], at: WallTime| {
        let relay = issued(1, at).with(|it| it.addresses = addresses.to_vec());
        testing::vouched(relay, [14], at)
    };
    // It moves while its descriptor is dead; or it names the real address beside, until it was met.
    for dies in [true, false] {
        let (network, mut book) = believing_relay(at);
        let then = if dies {
            later(4 * DAY)
        } else {
            at + Duration::from_secs(60)
        };
        if dies {
            book.meet(&id(1));
            book.expire(&network, then, then);
            assert!(book.last_known_of(&id(1)).is_some());
        } else {
            let both = with(&[invented, real], at).unverified().believed();
            book.insert(&both, at);
            book.meet(&id(1));
        }
        assert!(!book.view().is_unmet(&id(1)));
        let moved = with(&[invented], then).unverified().believed();
        book.insert(&moved, then);
        assert!(book.view().is_unmet(&id(1)), "dies: {dies}");
        let of_setup =
            issued(12, then).with(|it| it.addresses = vec!["98.1.1.1:9000".parse().unwrap()]);
        let of_setup = testing::vouched(of_setup, [14], then)
            .unverified()
            .believed();
        book.insert(&of_setup, then);
        let belief = book.view().age(&id(12)).unwrap().belief;
        assert_eq!(belief, Belief::Given(WALL), "wherever it goes");
        // Another order, or one address more, is no move.
        for (minute, addresses) in [(1, &[real, invented][..]), (2, &[invented, real])] {
            book.meet(&id(1));
            let grown = with(addresses, then + Duration::from_secs(60 * minute))
                .unverified()
                .believed();
            assert_eq!(book.insert(&grown, then), Inserted::Newer);
            assert!(!book.view().is_unmet(&id(1)), "{addresses:?}");
        }
    }
}

#[test] // §8.2(3), §8.2(12)
fn whoever_is_met_before_a_setup_begins_may_be_of_it() {
    let at = later(DAY + 4 * HOUR);
    let (_, mut book) = believing_relay(at);
    book.begin_anew();
    book.meet(&id(12));
    assert_eq!(book.view().age(&id(12)).unwrap().belief, Belief::Anew);
}

#[test] // §8.2(3)
fn whoever_knew_nobody_that_may_vouch_has_its_setup_before_it() {
    let mut network = testing::public_network();
    network.params.receipts_min = 1;
    for is_client in [false, true] {
        let (mut book, mut disk) = (Book::new(), Disk::default());
        // One source was heard, and then nothing for ten days.
        for number in [10, 11, 12, 1] {
            let relay = testing::vouched(testing::relay(number), [8], WALL);
            book.learn(&network, WALL, relay.unverified()).unwrap();
            book.handle_listed(&source(10), &id(number));
        }
        disk.take(&mut book);
        let back_at = later(10 * DAY);
        let mut book = disk.open(back_at);
        if is_client {
            book.believe_listed_only(&network, back_at, []);
        } else {
            book.believe_met_only(&network, back_at);
        }
        book.expire(&network, back_at, back_at);
        let stranger = testing::vouched(issued(20, back_at), [30], back_at);
        let learned = book.learn(&network, back_at, stranger.unverified());
        assert!(learned.is_ok(), "{is_client}: {learned:?}");
    }
}
