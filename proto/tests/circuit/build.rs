//! Building circuits, and what becomes of cells that are not as they were sent (§3, §4.3, §6).

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::circuit::OriginEvent;
use umbel_proto::handshake::{REPLY_LEN, Reply};
use umbel_proto::ids::CircId;
use umbel_proto::limits::EARLY_CELLS_MAX;
use umbel_proto::message::{ExtendRefusal, RelayMsg, Service};
use umbel_proto::wire::Malformed;

use crate::chain::{Chain, Destroyed};

#[test] // §6.1(1)
fn builds_one_to_four_hops() {
    for hops in 1..=4 {
        let mut chain = Chain::built(hops);
        assert_eq!((chain.origin.hops(), chain.origin.is_open()), (hops, true));
        let shared = chain.terminal().binding().clone();
        assert!(chain.origin.binding() == Some(&shared));
        assert_eq!(chain.origin.can_extend(), hops < 4);
        assert_eq!(
            (chain.origin.cells_sent(), chain.origin.cells_received()),
            (hops as u64, hops as u64)
        );
    }
}

#[test] // §6.2(2)
fn a_circuit_with_a_stream_is_not_extended() {
    let mut chain = Chain::built(3);
    assert!(chain.origin.can_extend());
    let stream = chain
        .origin
        .open_stream(Service::Directory, b"?", true)
        .unwrap();
    assert!(!chain.origin.can_extend());
    chain.run().unwrap();
    chain.terminal().reply(stream, b"!", true).unwrap();
    chain.run().unwrap();
    assert!(!chain.origin.can_extend() && !chain.terminal().is_fresh());
}

#[test] // §6.2(1)
fn between_extend_and_its_answer_the_origin_sends_nothing() {
    let mut chain = Chain::built(1);
    chain.begin_extend(2);
    assert!(!chain.origin.can_extend(), "one at a time");
    assert!(chain.origin.poll_cell(&mut chain.rng).is_some());
    assert!(chain.origin.poll_cell(&mut chain.rng).is_none());
    assert!(!chain.origin.can_extend() && !chain.origin.is_open());
}

#[test] // §6.3(2)
fn a_refused_extend_leaves_the_circuit_open() {
    let mut chain = Chain::built(2);
    chain.begin_extend_to_unknown();
    assert!(!chain.origin.is_open());
    chain.run().unwrap();
    let events = chain.origin_events();
    assert!(matches!(
        events[..],
        [OriginEvent::ExtendRefused(ExtendRefusal::UnknownRelay)]
    ));
    chain.begin_extend(3);
    chain.run().unwrap();
    assert_eq!(chain.origin.hops(), 3);
}

#[test] // §6.1(2), §3.2(4)
fn a_circuit_runs_out_of_early_cells() {
    let mut chain = Chain::built(1);
    for _ in 0..EARLY_CELLS_MAX {
        assert!(chain.origin.can_extend());
        chain.begin_extend_to_unknown();
        chain.run().unwrap();
    }
    assert!(!chain.origin.can_extend());
}

#[test] // §3.1(4)
fn each_hop_refuses_a_forward_cell_that_was_touched() {
    for tampered_hop in 1..=4 {
        for at in [0, 16, 17, 1000, 2042] {
            let mut chain = Chain::built(4);
            chain
                .origin
                .open_stream(Service::Mailbox, b"request", true)
                .unwrap();
            let cell = chain.origin.poll_cell(&mut chain.rng).unwrap();
            let result = chain.forward_tampered(cell, |hop, cell| {
                if hop == tampered_hop {
                    cell.body_mut()[at] ^= 1;
                }
            });
            assert_eq!(
                result,
                Err(Destroyed {
                    by: tampered_hop,
                    violation: Violation::Tag
                })
            );
        }
    }
}

#[test] // §3.1(4)
fn forward_cells_dropped_or_replayed_or_reordered_are_refused() {
    let refused = Err(Destroyed {
        by: 1,
        violation: Violation::Tag,
    });
    let sent = || {
        let mut chain = Chain::built(2);
        chain
            .origin
            .open_stream(Service::Mailbox, &[1; 8000], true)
            .unwrap();
        let first = chain.origin.poll_cell(&mut chain.rng).unwrap();
        let second = chain.origin.poll_cell(&mut chain.rng).unwrap();
        (chain, first, second)
    };
    let (mut chain, _, second) = sent();
    assert_eq!(chain.forward(second), refused);
    let (mut chain, first, _) = sent();
    chain.forward(first.clone()).unwrap();
    assert_eq!(chain.forward(first), refused);
    let (mut chain, first, second) = sent();
    chain.forward(first).unwrap();
    chain.forward(second).unwrap();
}

#[test] // §3.4(3)
fn the_origin_refuses_a_backward_cell_that_was_touched_or_dropped() {
    let answered = || {
        let mut chain = Chain::built(3);
        let stream = chain
            .origin
            .open_stream(Service::Directory, b"?", true)
            .unwrap();
        chain.run().unwrap();
        chain.terminal().reply(stream, &[2; 8000], true).unwrap();
        chain.collect_backward();
        chain
    };
    for at in [0, 16, 1000, 2042] {
        let mut chain = answered();
        let mut cell = chain.backward.pop_front().unwrap();
        cell.body_mut()[at] ^= 0x80;
        assert_eq!(
            chain.deliver_backward(cell),
            Err(Destroyed {
                by: 0,
                violation: Violation::Tag
            })
        );
    }
    let mut chain = answered();
    chain.backward.pop_front();
    assert_eq!(
        chain.run(),
        Err(Destroyed {
            by: 0,
            violation: Violation::Tag
        })
    );
    answered().run().unwrap();
}

#[test] // §4.3(1)
fn an_origin_takes_nothing_but_created_first() {
    for command in [Command::Relay, Command::Create, Command::Destroy] {
        let mut chain = Chain::unbuilt();
        let mut cell = Cell::new(CircId::new(1), command);
        chain.origin.poll_cell(&mut chain.rng).unwrap();
        assert_eq!(
            chain.origin.handle_cell(command, &mut cell),
            Err(Violation::Unexpected)
        );
    }
    let mut chain = Chain::unbuilt();
    let mut forged = Cell::new(CircId::new(1), Command::Created);
    chain.origin.poll_cell(&mut chain.rng).unwrap();
    assert_eq!(
        chain.origin.handle_cell(Command::Created, &mut forged),
        Err(Violation::Handshake)
    );
}

#[test] // §4.1(3)
fn a_created_with_bytes_behind_its_reply_is_a_violation() {
    let mut chain = Chain::unbuilt();
    let create = chain.origin.poll_cell(&mut chain.rng).unwrap();
    chain.forward(create).unwrap();
    let mut created = chain.backward.pop_front().unwrap();
    created.body_mut()[REPLY_LEN] = 1;
    assert_eq!(
        chain.deliver_backward(created),
        Err(Destroyed {
            by: 0,
            violation: Violation::Malformed(Malformed::Trailing)
        })
    );
}

#[test] // §4.3(1), §4.4(4)
fn a_second_created_is_refused() {
    let mut chain = Chain::built(1);
    let mut cell = Cell::new(CircId::new(1), Command::Created);
    assert_eq!(
        chain.origin.handle_cell(Command::Created, &mut cell),
        Err(Violation::Unexpected)
    );
}

#[test] // §4.3(2), §6.2(8)
fn answers_to_no_extend_are_refused() {
    for answer in [
        RelayMsg::ExtendRefused(ExtendRefusal::Refused),
        RelayMsg::Extended(Box::new(Reply([0; REPLY_LEN]))),
    ] {
        let mut chain = Chain::rogue();
        let (_, cell) = chain.rogue_says(&answer);
        assert_eq!(
            chain.deliver_backward(cell),
            Err(Destroyed {
                by: 0,
                violation: Violation::Unexpected
            })
        );
    }
}

#[test] // §4.3(2): an answer can't come before its question was sent
fn an_answer_before_the_extend_is_sent_is_refused() {
    let mut chain = Chain::rogue();
    chain.begin_extend(2);
    let (_, cell) = chain.rogue_says(&RelayMsg::ExtendRefused(ExtendRefusal::Refused));
    assert_eq!(
        chain.deliver_backward(cell),
        Err(Destroyed {
            by: 0,
            violation: Violation::Unexpected
        })
    );
}

#[test] // §6.2(7)
fn a_forged_extended_closes_the_circuit() {
    let mut chain = Chain::rogue();
    chain.begin_extend(2);
    chain.origin.poll_cell(&mut chain.rng).unwrap();
    let (_, cell) = chain.rogue_says(&RelayMsg::Extended(Box::new(Reply([1; REPLY_LEN]))));
    assert_eq!(
        chain.deliver_backward(cell),
        Err(Destroyed {
            by: 0,
            violation: Violation::Handshake
        })
    );
}

#[test] // §4.4(1)
fn a_closed_circuit_refuses_everything() {
    let mut chain = Chain::rogue();
    let (_, cell) = chain.rogue_says(&RelayMsg::ExtendRefused(ExtendRefusal::Refused));
    let (_, padding) = chain.rogue_says(&RelayMsg::Padding);
    chain.deliver_backward(cell).unwrap_err();
    assert_eq!(
        chain.deliver_backward(padding),
        Err(Destroyed {
            by: 0,
            violation: Violation::Unexpected
        })
    );
    assert!(
        !chain.origin.is_open() && chain.origin.hops() == 0 && chain.origin.binding().is_none()
    );
    assert!(
        chain.origin.poll_cell(&mut chain.rng).is_none() && chain.origin.poll_event().is_none()
    );
}

#[test] // §4.4(1)
fn a_closed_terminal_refuses_everything() {
    let mut chain = Chain::built(1);
    let terminal = chain.terminal();
    assert_eq!(terminal.handle_message([0; 16], &RelayMsg::Padding), Ok(()));
    let refused = RelayMsg::ExtendRefused(ExtendRefusal::Refused);
    assert_eq!(
        terminal.handle_message([0; 16], &refused),
        Err(Violation::Unexpected)
    );
    assert_eq!(
        terminal.handle_message([0; 16], &RelayMsg::Padding),
        Err(Violation::Unexpected)
    );
    assert!(terminal.poll_cell().is_none() && !terminal.is_fresh());
}
