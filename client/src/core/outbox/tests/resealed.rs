//! A record is deposited only while the newest descriptor names the key that it is sealed to.

use umbel_proto::inbox::record::{Opened, open_record};

use super::*;

fn key_of_week(week: u8) -> SealSecret {
    SealSecret::from_seed(&[week; 32])
}

/// A client that was started anew in another week, found the descriptor of that, and waited until
/// every mailbox was due.
fn in_week(week: u8, before: &Bench) -> Bench {
    let mut bench = restarted(before);
    bench.find_with_key(&key_of_week(week), 3);
    bench.drive_for_long();
    bench
}

impl Bench {
    fn drive_for_long(&mut self) {
        for _ in 0..3 {
            self.drive();
        }
        self.pass(Duration::from_secs(1000));
    }

    fn record_for(&self, number: u8) -> Option<&[u8]> {
        let queue = mailbox(number).queue;
        self.outbox.entries[&ID].delivery.record_for(queue)
    }

    /// Whether the record for this mailbox is this message, sealed to that week's key.
    fn is_sealed_in(&self, week: u8, number: u8) -> bool {
        let opened = open_record(&key_of_week(week), self.record_for(number).unwrap());
        matches!(opened, Ok(Opened::OneWay(message)) if message.id == ID && message.body == [7; 100])
    }
}

/// In week 4: sealed for three holders, of whom one has it, and the others were not asked.
fn held_by_one_in_week_4() -> (Bench, u8) {
    let (mut bench, _) = held_by_one();
    let holder = (0..3)
        .find(|&number| bench.record_for(number).is_none())
        .unwrap();
    bench.with(|outbox, cx, _| outbox.stop(cx));
    (bench, holder)
}

#[test] // §10.5(3), §10.3(6)
fn a_stored_record_is_sealed_anew_after_the_week_turned() {
    let (before, holder) = held_by_one_in_week_4();
    let mut bench = in_week(5, &before);
    for number in (0..3).filter(|&number| number != holder) {
        assert!(before.is_sealed_in(4, number) && bench.is_sealed_in(5, number));
        assert!(bench.is_asked(number), "once, with the new record");
    }
    assert_eq!(bench.record_for(holder), None);
    assert!(!bench.is_asked(holder), "it has the old one, which is good");
}

#[test] // §10.5(3)
fn a_stored_record_is_deposited_as_it_is_in_the_week_of_its_key() {
    let (before, holder) = held_by_one_in_week_4();
    let bench = in_week(4, &before);
    for number in (0..3).filter(|&number| number != holder) {
        assert_eq!(bench.record_for(number), before.record_for(number));
    }
}

#[test] // §10.5(3): what is stored after the week turned is the new record
fn a_record_that_was_sealed_anew_stays_over_a_restart() {
    let (before, holder) = held_by_one_in_week_4();
    let mut turned = in_week(5, &before);
    turned.with(|outbox, cx, _| outbox.stop(cx));
    let bench = in_week(5, &turned);
    for number in (0..3).filter(|&number| number != holder) {
        assert_eq!(bench.record_for(number), turned.record_for(number));
    }
}

#[test] // §10.5(3)
fn a_late_answer_to_the_old_record_makes_a_new_one_needless() {
    let (before, holder) = held_by_one_in_week_4();
    let late = (0..3).find(|&number| number != holder).unwrap();
    let mut bench = restarted(&before);
    bench.find_with_key(&key_of_week(5), 3);
    bench.answer(late, &TAKEN);
    bench.drive_for_long();
    assert_eq!(bench.record_for(late), None);
    assert!(!bench.is_asked(late));
}
