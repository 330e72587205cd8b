//! Windows and credits (§7.3).

use umbel_proto::Violation;
use umbel_proto::message::{Credit, Data, DataFlags, RelayMsg, Service, StreamId};

use crate::chain::{Chain, Destroyed};

static BULK: [u8; 190_000] = [5; 190_000];

/// Gives the terminal all that the origin can send, leaves the terminal's cells where they are, and
/// counts.
fn send_unanswered(chain: &mut Chain) -> usize {
    let mut cells = 0;
    while let Some(cell) = chain.origin.poll_cell(&mut chain.rng) {
        chain.forward(cell).unwrap();
        cells += 1;
    }
    cells
}

/// A chain whose terminal has sent as much of a long answer as its window allows.
fn answering(hops: usize) -> Chain {
    let mut chain = Chain::built(hops);
    let stream = chain
        .origin
        .open_stream(Service::Mailbox, b"?", true)
        .unwrap();
    chain.run().unwrap();
    chain.terminal().reply(stream, &BULK, true).unwrap();
    chain.collect_backward();
    chain
}

fn bytes_of(stream: u16, bytes: &[u8]) -> RelayMsg<'_> {
    RelayMsg::Data(Data {
        stream: StreamId(stream),
        flags: DataFlags::default(),
        bytes,
    })
}

#[test] // §7.3(1)
fn sixty_four_cells_go_before_the_first_credit() {
    let mut chain = Chain::built(2);
    chain
        .origin
        .open_stream(Service::Mailbox, &BULK, true)
        .unwrap();
    assert_eq!(send_unanswered(&mut chain), 64);
    assert_eq!(
        chain
            .poll_terminal_cell()
            .map(|cell| chain.deliver_backward(cell)),
        Some(Ok(()))
    );
    assert_eq!(
        send_unanswered(&mut chain),
        32,
        "a credit grants what it acknowledges and one step more"
    );
}

#[test] // §7.3(6)
fn a_credit_goes_before_data_that_waits() {
    let mut chain = Chain::built(1);
    let (asked, long) = (b"?".as_slice(), BULK.as_slice());
    let [asked, _] = [asked, long].map(|frame| {
        let opened = chain.origin.open_stream(Service::Mailbox, frame, true);
        opened.unwrap()
    });
    assert_eq!(send_unanswered(&mut chain), 64);
    chain.terminal().reply(asked, b"!", true).unwrap();
    for credit in 0..4 {
        let cell = chain.poll_terminal_cell().unwrap();
        chain.deliver_backward(cell).unwrap();
        assert!(
            chain.origin_events().is_empty(),
            "cell {credit} is a credit"
        );
    }
    let cell = chain.poll_terminal_cell().unwrap();
    chain.deliver_backward(cell).unwrap();
    assert!(!chain.origin_events().is_empty(), "the answer");
}

#[test] // §7.3(1)
fn the_terminal_keeps_to_its_window_too() {
    let mut chain = answering(2);
    assert_eq!(chain.backward.len(), 64);
    chain.run().unwrap();
    assert_eq!(
        chain.origin_events().len(),
        2,
        "the frame, and the end of the stream"
    );
}

/// The same with as much to say as there is room for.
fn fill_unanswered(chain: &mut Chain, stream: StreamId) -> usize {
    let mut cells = 0;
    loop {
        while chain.origin.send(stream, &BULK, false).is_ok() {}
        match send_unanswered(chain) {
            0 => return cells,
            more => cells += more,
        }
    }
}

#[test] // §7.3(4)
fn the_window_grows_to_512_while_that_is_allowed() {
    for (may_grow, window) in [(true, 512), (false, 64)] {
        let mut chain = Chain::built(1);
        chain.terminal().set_growth(may_grow);
        let stream = chain
            .origin
            .open_stream(Service::Mailbox, b"?", false)
            .unwrap();
        let mut cells = 0;
        for _ in 0..40 {
            cells += fill_unanswered(&mut chain, stream);
            // The begun frame is finished, and all credits come back.
            let before = chain.origin.cells_sent();
            chain.run().unwrap();
            cells += (chain.origin.cells_sent() - before) as usize;
        }
        // Cells since the last credit are outstanding still.
        assert_eq!(fill_unanswered(&mut chain, stream), window - cells % 16);
    }
}

#[test] // §7.3(5)
fn a_forged_credit_is_refused_by_the_terminal() {
    let mut chain = answering(1);
    let forged = RelayMsg::Credit(Credit {
        tag: [3; 16],
        cells: 16,
    });
    assert_eq!(
        chain.terminal().handle_message([0; 16], &forged),
        Err(Violation::Window)
    );
}

#[test] // §7.3(5)
fn a_credit_without_cells_is_refused() {
    let credit = RelayMsg::Credit(Credit {
        tag: [0; 16],
        cells: 16,
    });
    assert_eq!(
        Chain::built(1).terminal().handle_message([0; 16], &credit),
        Err(Violation::Window)
    );
    let mut chain = Chain::rogue();
    let (_, cell) = chain.rogue_says(&credit);
    assert_eq!(
        chain.deliver_backward(cell),
        Err(Destroyed {
            by: 0,
            violation: Violation::Window
        })
    );
}

#[test] // §7.3(5)
fn a_replayed_credit_is_refused() {
    let mut chain = Chain::built(1);
    // As a terminal that keeps what it is sent: 16 cells and their last tag.
    let stream = chain
        .origin
        .open_stream(Service::Mailbox, b"?", true)
        .unwrap();
    chain.run().unwrap();
    chain.terminal().reply(stream, &BULK, true).unwrap();
    let mut tag = [0; 16];
    for _ in 0..16 {
        let cell = chain.poll_terminal_cell().unwrap();
        tag.copy_from_slice(&cell.body()[..16]);
    }
    let credit = RelayMsg::Credit(Credit { tag, cells: 16 });
    assert_eq!(chain.terminal().handle_message([0; 16], &credit), Ok(()));
    assert_eq!(
        chain.terminal().handle_message([0; 16], &credit),
        Err(Violation::Window)
    );
}

#[test] // §7.3(3)
fn the_terminal_refuses_an_overrun() {
    for answers in [false, true] {
        let mut chain = Chain::built(1);
        let terminal = chain.terminal();
        let open = DataFlags {
            open: true,
            ..DataFlags::default()
        };
        let first = RelayMsg::Data(Data {
            stream: StreamId(1),
            flags: open,
            bytes: &[2, 0, 1, 0, 0, 9],
        });
        terminal.handle_message([0; 16], &first).unwrap();
        for number in 2..=64 {
            terminal
                .handle_message([number; 16], &bytes_of(1, &[9]))
                .unwrap();
        }
        if answers {
            assert!(terminal.poll_cell().is_some(), "a credit");
        }
        let result = terminal.handle_message([65; 16], &bytes_of(1, &[9]));
        assert_eq!(
            result,
            if answers {
                Ok(())
            } else {
                Err(Violation::Window)
            }
        );
    }
}

#[test] // §7.3(3): data for a stream that was reset counts too
fn the_origin_refuses_an_overrun() {
    let mut chain = Chain::rogue();
    let stream = chain
        .origin
        .open_stream(Service::Directory, b"?", true)
        .unwrap();
    chain.origin.poll_cell(&mut chain.rng).unwrap();
    chain.origin.reset(stream);
    for _ in 0..64 {
        let (_, cell) = chain.rogue_says(&bytes_of(1, &[9]));
        chain.deliver_backward(cell).unwrap();
    }
    let (_, cell) = chain.rogue_says(&bytes_of(1, &[9]));
    assert_eq!(
        chain.deliver_backward(cell),
        Err(Destroyed {
            by: 0,
            violation: Violation::Window
        })
    );
}
