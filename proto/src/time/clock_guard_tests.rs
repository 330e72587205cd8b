//! The jumps that are confirmed, and when; nothing else is.

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const START: u64 = 1_790_000_000;

/// A machine: how long it ran, and what its calendar says.
struct Machine {
    guard: ClockGuard,
    ran: u64,
    wall: u64,
}

impl Machine {
    /// One whose clock has been confirmed.
    fn new() -> Self {
        let (guard, jump) = ClockGuard::restore(None, Instant::default(), WallTime(START));
        assert_eq!(jump, None);
        let mut machine = Self {
            guard,
            ran: 0,
            wall: START,
        };
        assert!(!machine.guard.may_delete());
        assert_eq!(machine.run(25 * HOUR), []);
        assert!(machine.guard.may_delete());
        assert!(machine.lag() <= 2);
        machine
    }

    /// Runs for this many seconds, and looks once a minute.
    fn run(&mut self, seconds: u64) -> Vec<ClockJump> {
        let mut jumps = Vec::new();
        for passed in (0..seconds).step_by(60) {
            let step = (seconds - passed).min(60);
            (self.ran, self.wall) = (self.ran + step, self.wall + step);
            jumps.extend(self.look());
        }
        jumps
    }

    fn look(&mut self) -> Option<ClockJump> {
        self.guard.look(
            Instant::default() + Duration::from_secs(self.ran),
            WallTime(self.wall),
        )
    }

    fn step(&mut self, seconds: i64) -> Option<ClockJump> {
        self.wall = self.wall.saturating_add_signed(seconds);
        self.look()
    }

    /// Switched off, and on again this many seconds later by the calendar.
    fn restart(&mut self, seconds: i64) -> Option<ClockJump> {
        self.wall = self.wall.saturating_add_signed(seconds);
        self.ran = 7;
        let now = Instant::default() + Duration::from_secs(self.ran);
        let (guard, jump) =
            ClockGuard::restore(Some(&self.guard.state()), now, WallTime(self.wall));
        self.guard = guard;
        jump
    }

    fn lag(&self) -> u64 {
        self.wall.abs_diff(self.guard.confirmed().as_secs())
    }
}

fn signed(seconds: u64) -> i64 {
    seconds.cast_signed()
}

#[test] // §1.6
fn a_jump_ahead_is_believed_after_a_day_of_running() {
    for is_restart in [false, true] {
        let mut machine = Machine::new();
        let jump = if is_restart {
            machine.restart(signed(29 * DAY))
        } else {
            machine.step(signed(29 * DAY))
        };
        assert_eq!(jump, Some(ClockJump::Ahead(Duration::from_secs(29 * DAY))));
        assert_eq!(machine.run(23 * HOUR), []);
        assert!(!machine.guard.may_delete() && machine.lag() >= 29 * DAY - 2);
        machine.run(2 * HOUR);
        assert!(machine.guard.may_delete() && machine.lag() <= 2);
    }
}

#[test] // §1.6
fn a_jump_that_is_taken_back_leaves_nothing_behind() {
    let mut machine = Machine::new();
    machine.restart(signed(365 * DAY));
    machine.run(5);
    assert!(matches!(
        machine.restart(-signed(365 * DAY)),
        Some(ClockJump::Back(_))
    ));
    assert!(machine.guard.may_delete() && machine.lag() <= 2);
}

#[test] // §1.6: calendars are read in whole seconds
fn a_jump_that_is_taken_back_within_a_second_leaves_no_part_of_one_behind() {
    let mut machine = Machine::new();
    let mut look = |micros, ahead| {
        let now =
            Instant::default() + Duration::from_secs(machine.ran) + Duration::from_micros(micros);
        machine.guard.look(now, WallTime(machine.wall + ahead));
        machine.guard.may_delete()
    };
    assert!(!look(200_000, 1 + 29 * DAY));
    assert!(look(300_000, 1));
}

#[test] // §1.6
fn a_clock_that_was_behind_is_a_jump_ahead_when_it_is_set_right() {
    let mut machine = Machine::new();
    assert!(matches!(
        machine.step(-signed(3 * DAY)),
        Some(ClockJump::Back(_))
    ));
    assert!(
        !machine.guard.may_delete() && machine.lag() <= 2,
        "a clock that is behind deletes nothing early"
    );
    assert!(matches!(
        machine.step(signed(3 * DAY)),
        Some(ClockJump::Ahead(_))
    ));
    assert!(!machine.guard.may_delete());
}

#[test] // §1.6
fn a_short_restart_is_no_jump_and_small_steps_add_up_to_one() {
    let mut machine = Machine::new();
    for _ in 0..4 {
        assert_eq!(machine.restart(90), None);
        machine.run(HOUR);
        assert!(machine.guard.may_delete());
    }
    machine.step(signed(HOUR - 60));
    assert!(machine.guard.may_delete());
    machine.step(signed(HOUR - 60));
    assert!(!machine.guard.may_delete());
    for _ in 0..1000 {
        machine.step(signed(HOUR - 60));
    }
    assert!(machine.lag() > 900 * HOUR && machine.guard.pending.len() <= JUMPS_MAX);
}

#[test] // a relay that is switched off every night
fn nights_are_confirmed_each_after_a_day_of_running() {
    let mut machine = Machine::new();
    for _ in 0..30 {
        machine.restart(signed(14 * HOUR));
        machine.run(10 * HOUR);
        assert!(
            machine.lag() <= 3 * 14 * HOUR + 2,
            "no more than three nights are open"
        );
    }
}

#[test] // one that starts every minute, with a clock that runs away
fn whatever_happens_confirmed_time_is_lived_and_the_list_is_bounded() {
    let mut machine = Machine::new();
    let began = machine.guard.confirmed().as_secs();
    let mut lived = 0;
    for round in 0..200 {
        machine.restart(signed(round * HOUR));
        machine.run(1800);
        lived += 1800;
        assert!(machine.guard.pending.len() <= JUMPS_MAX);
    }
    let followed: u64 = machine.guard.confirmed().as_secs() - began;
    assert!(
        followed < lived + (0..160).map(|round| round * HOUR).sum::<u64>(),
        "a day behind, at least"
    );
    machine.run(25 * HOUR);
    assert!(machine.guard.may_delete() && machine.lag() <= 2);
}

#[test] // §1.6: commands of a moment, and nobody to ask
fn three_starts_over_a_day_confirm() {
    let mut machine = Machine::new();
    let mut start = |hours: i64| {
        machine.restart(hours * signed(HOUR));
        let is_due = machine.guard.count_start(WallTime(machine.wall));
        machine.run(5);
        (machine.guard.may_delete(), is_due, machine.lag() / DAY)
    };
    assert_eq!(
        start(29 * 24),
        (false, true, 29),
        "its state is to be stored"
    );
    assert_eq!(
        (start(0).0, start(1).0, start(5).0, start(6).0),
        (false, false, false, false)
    );
    assert_eq!(
        start(6),
        (false, true, 29),
        "three that count, not yet a day"
    );
    assert_eq!(start(7).2, 0, "the month is confirmed");
    for day in 0..9 {
        assert!(
            start(24).2 <= 3,
            "day {day}: of nights no more than three wait"
        );
    }
}

#[test] // §1.6
fn starts_count_only_while_the_calendar_does_not_go_back() {
    let mut machine = Machine::new();
    for _ in 0..9 {
        machine.restart(signed(29 * DAY));
        machine.guard.count_start(WallTime(machine.wall));
        machine.restart(signed(8 * HOUR));
        machine.guard.count_start(WallTime(machine.wall));
        machine.run(5);
        machine.restart(-signed(29 * DAY + 8 * HOUR));
        machine.guard.count_start(WallTime(machine.wall));
        assert!(machine.guard.may_delete() && machine.lag() <= 2);
    }
}

#[test]
fn what_was_stored_before_starts_counted_is_read() {
    #[derive(Serialize)]
    struct Old(u8, u64, u64, Vec<(u64, u64)>);
    let old = wire::encode(&Old(1, START, 60, vec![(29 * DAY, HOUR)]));
    let (mut guard, jump) =
        ClockGuard::restore(Some(&old), Instant::default(), WallTime(START + 29 * DAY));
    assert_eq!((jump, guard.confirmed()), (None, WallTime(START)));
    assert_eq!(guard.unconfirmed(), Some(Duration::from_secs(29 * DAY)));
    guard.look(
        Instant::default() + Duration::from_secs(HOUR),
        WallTime(START + 29 * DAY + HOUR),
    );
    assert!(guard.may_delete());
    assert_eq!(
        ClockGuard::restore(None, Instant::default(), WallTime(START))
            .0
            .unconfirmed(),
        None
    );
}

#[test]
fn others_who_agree_confirm() {
    let mut machine = Machine::new();
    machine.restart(signed(40 * DAY));
    machine.guard.confirm();
    assert!(machine.guard.may_delete() && machine.lag() <= 2);
}

#[test]
fn what_is_stored_is_due_every_few_minutes_and_nonsense_is_no_past() {
    let mut machine = Machine::new();
    assert!(machine.guard.take_state().is_some());
    assert!(machine.guard.take_state().is_none());
    machine.run(6 * 60);
    assert!(machine.guard.take_state().is_some());
    let (guard, _) = ClockGuard::restore(Some(&[9, 9]), Instant::default(), WallTime(START));
    assert!(!guard.may_delete() && guard.confirmed() < WallTime(1));
    let (guard, jump) = ClockGuard::restore(
        Some(&machine.guard.state()),
        Instant::default(),
        WallTime(u64::MAX),
    );
    assert!(!guard.may_delete() && matches!(jump, Some(ClockJump::Ahead(_))));
}
