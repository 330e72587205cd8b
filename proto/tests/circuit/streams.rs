//! Every rule of streams, kept and broken (§7.1, §7.2).

use umbel_proto::Violation;
use umbel_proto::circuit::{Full, OriginEvent, TerminalEvent};
use umbel_proto::limits::{
    FINISHED_STREAMS_MAX, FORWARD_DATA_MAX, FRAME_LEN_MAX, REASSEMBLY_BYTES_MAX, STREAMS_MAX,
};
use umbel_proto::message::{Data, DataFlags, RelayMsg, Service, StreamId};
use umbel_proto::wire::Malformed;

use crate::chain::{Chain, Destroyed};

const NONE: DataFlags = DataFlags {
    open: false,
    fin: false,
    reset: false,
};
const OPEN: DataFlags = DataFlags { open: true, ..NONE };
const FIN: DataFlags = DataFlags { fin: true, ..NONE };
const RESET: DataFlags = DataFlags {
    reset: true,
    ..NONE
};
const OPEN_FIN: DataFlags = DataFlags {
    open: true,
    fin: true,
    reset: false,
};

/// A frame of 3 bytes behind the number of a service.
const REQUEST: &[u8] = &[1, 0, 0, 0, 3, b'a', b's', b'k'];
/// The same without the service.
const FRAME: &[u8] = &[0, 0, 0, 3, b'a', b's', b'k'];

fn data(stream: u16, flags: DataFlags, bytes: &[u8]) -> RelayMsg<'_> {
    RelayMsg::Data(Data {
        stream: StreamId(stream),
        flags,
        bytes,
    })
}

/// A fresh terminal's verdict on the last of these messages; it accepts all before.
fn terminal_says(messages: &[RelayMsg<'_>]) -> Result<(), Violation> {
    let mut chain = Chain::built(1);
    let (last, before) = messages.split_last().unwrap();
    for message in before {
        chain.terminal().handle_message([0; 16], message).unwrap();
    }
    chain.terminal().handle_message([0; 16], last)
}

/// The verdict on the last of these of an origin that opened stream 1 with a finished request; it
/// accepts all before.
fn origin_says(messages: &[RelayMsg<'_>]) -> Result<(), Violation> {
    let mut chain = Chain::rogue();
    chain
        .origin
        .open_stream(Service::Directory, b"ask", true)
        .unwrap();
    chain.origin.poll_cell(&mut chain.rng).unwrap();
    let mut result = Ok(());
    for message in messages {
        result.unwrap();
        let (_, cell) = chain.rogue_says(message);
        result = chain
            .deliver_backward(cell)
            .map_err(|destroyed| destroyed.violation);
    }
    result
}

#[test] // §7.1(4)
fn at_most_32_streams_are_open() {
    let mut chain = Chain::built(1);
    for _ in 0..STREAMS_MAX {
        chain
            .origin
            .open_stream(Service::Mailbox, b"?", true)
            .unwrap();
    }
    assert_eq!(
        chain.origin.open_stream(Service::Mailbox, b"?", true),
        Err(Full::Streams)
    );
    chain.run().unwrap();
    chain.terminal().reply(StreamId(5), b"!", true).unwrap();
    chain.run().unwrap();
    assert_eq!(
        chain.origin.open_stream(Service::Mailbox, b"?", true),
        Ok(StreamId(33))
    );

    let opens: Vec<_> = (1..=33)
        .map(|stream| data(stream, OPEN_FIN, REQUEST))
        .collect();
    assert_eq!(terminal_says(&opens[..32]), Ok(()));
    assert_eq!(terminal_says(&opens), Err(Violation::Stream));
}

#[test] // §7.1(2)
fn stream_ids_run_out() {
    let mut chain = Chain::built(1);
    for number in 1..=u16::MAX {
        let stream = chain
            .origin
            .open_stream(Service::Mailbox, b"?", true)
            .unwrap();
        assert_eq!(stream, StreamId(number));
        chain.origin.reset(stream);
    }
    assert_eq!(
        chain.origin.open_stream(Service::Mailbox, b"?", true),
        Err(Full::Ids)
    );
    assert!(
        chain.origin.poll_cell(&mut chain.rng).is_none(),
        "what was reset before it was said is not said"
    );
}

#[test] // §7.1(2)
fn ids_only_grow() {
    assert_eq!(
        terminal_says(&[data(1, OPEN, REQUEST), data(7, OPEN, REQUEST)]),
        Ok(())
    );
    assert_eq!(
        terminal_says(&[data(7, OPEN, REQUEST), data(7, OPEN, REQUEST)]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[data(7, OPEN, REQUEST), data(6, OPEN, REQUEST)]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[
            data(7, OPEN, REQUEST),
            data(7, RESET, &[]),
            data(7, OPEN, REQUEST)
        ]),
        Err(Violation::Stream)
    );
}

#[test] // §7.1(2)
fn only_the_origin_opens_streams() {
    assert_eq!(
        origin_says(&[data(2, OPEN, REQUEST)]),
        Err(Violation::Stream)
    );
    assert_eq!(
        origin_says(&[data(1, OPEN, REQUEST)]),
        Err(Violation::Stream)
    );
}

#[test] // §7.1(3)
fn the_first_byte_is_a_service() {
    assert_eq!(terminal_says(&[data(1, OPEN, &[2])]), Ok(()));
    assert_eq!(terminal_says(&[data(1, OPEN, &[])]), Err(Violation::Stream));
    assert_eq!(
        terminal_says(&[data(1, OPEN, &[0])]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN, &[4])]),
        Err(Violation::Stream)
    );
}

#[test] // §7.1(8)
fn data_of_unknown_streams_is_refused() {
    for flags in [NONE, FIN] {
        assert_eq!(
            terminal_says(&[data(1, flags, FRAME)]),
            Err(Violation::Stream)
        );
        assert_eq!(
            origin_says(&[data(2, flags, FRAME)]),
            Err(Violation::Stream)
        );
    }
    assert_eq!(
        terminal_says(&[data(1, RESET, &[])]),
        Err(Violation::Stream),
        "never opened"
    );
    assert_eq!(
        origin_says(&[data(2, RESET, &[])]),
        Err(Violation::Stream),
        "never opened"
    );
}

#[test] // §7.1(5)
fn a_message_carries_bytes_or_a_flag() {
    assert_eq!(
        terminal_says(&[data(1, OPEN, &[1]), data(1, NONE, FRAME)]),
        Ok(())
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN, &[1]), data(1, NONE, &[])]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN, &[1]), data(1, FIN, &[])]),
        Ok(())
    );
}

#[test] // §7.1(6)
fn nothing_follows_the_end_but_a_reset() {
    assert_eq!(
        terminal_says(&[data(1, OPEN_FIN, REQUEST), data(1, NONE, FRAME)]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN_FIN, REQUEST), data(1, FIN, &[])]),
        Err(Violation::Stream)
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN_FIN, REQUEST), data(1, RESET, &[])]),
        Ok(())
    );
    assert_eq!(
        origin_says(&[data(1, FIN, FRAME), data(1, NONE, FRAME)]),
        Err(Violation::Stream)
    );
}

#[test] // §7.1(7)
fn nothing_follows_a_reset() {
    let reset = [data(1, OPEN, REQUEST), data(1, RESET, &[])];
    assert_eq!(terminal_says(&reset), Ok(()));
    for (flags, bytes) in [(NONE, FRAME), (FIN, FRAME), (FIN, &[]), (RESET, &[])] {
        let [open, reset] = [data(1, OPEN, REQUEST), data(1, RESET, &[])];
        assert_eq!(
            terminal_says(&[open, reset, data(1, flags, bytes)]),
            Err(Violation::Stream)
        );
    }
}

#[test] // §7.2(2)
fn a_stream_does_not_end_inside_a_frame() {
    for bytes in [
        &[1, 0, 0][..],
        &[1, 0, 0, 0, 3],
        &[1, 0, 0, 0, 3, b'a', b's'],
    ] {
        assert_eq!(
            terminal_says(&[data(1, OPEN_FIN, bytes)]),
            Err(Violation::Stream)
        );
        assert_eq!(terminal_says(&[data(1, OPEN, bytes)]), Ok(()));
    }
    assert_eq!(terminal_says(&[data(1, OPEN_FIN, REQUEST)]), Ok(()));
}

#[test] // §7.2(5)
fn a_frame_arrives_however_it_is_cut() {
    let mut chain = Chain::built(1);
    chain
        .terminal()
        .handle_message([0; 16], &data(1, OPEN, &[1]))
        .unwrap();
    for byte in FRAME {
        chain
            .terminal()
            .handle_message([0; 16], &data(1, NONE, &[*byte]))
            .unwrap();
    }
    let events = chain.terminal_events();
    assert!(
        matches!(&events[..], [TerminalEvent::Request { frame, fin: false, .. }] if frame == b"ask")
    );
    chain
        .terminal()
        .handle_message([0; 16], &data(1, FIN, &[]))
        .unwrap();
    let events = chain.terminal_events();
    assert!(matches!(
        &events[..],
        [TerminalEvent::StreamEnded { reset: false, .. }]
    ));
}

#[test] // §7.2(1)
fn a_frame_announces_1_to_196608_bytes() {
    let announced = |len: u32| [&[1][..], &len.to_be_bytes()].concat();
    for (len, expected) in [
        (0, Err(Violation::FrameLen)),
        (1, Ok(())),
        (FRAME_LEN_MAX as u32, Ok(())),
        (FRAME_LEN_MAX as u32 + 1, Err(Violation::FrameLen)),
        (u32::MAX, Err(Violation::FrameLen)),
    ] {
        assert_eq!(
            terminal_says(&[data(1, OPEN, &announced(len))]),
            expected,
            "{len}"
        );
    }
}

#[test] // §7.2(3)
fn half_received_frames_are_bounded() {
    let mut chain = Chain::built(1);
    let begin = [&[1][..], &(FRAME_LEN_MAX as u32).to_be_bytes(), &[0; 1900]].concat();
    let more = [0; 1900];
    let mut held = 0;
    let mut tag = 0_u8;
    loop {
        for stream in 1..=4 {
            let message = if held < 4 * 1900 {
                data(stream, OPEN, &begin)
            } else {
                data(stream, NONE, &more)
            };
            tag = tag.wrapping_add(1);
            let result = chain.terminal().handle_message([tag; 16], &message);
            held += 1900;
            if held > REASSEMBLY_BYTES_MAX {
                assert_eq!(result, Err(Violation::FrameLen));
                return;
            }
            assert_eq!(result, Ok(()));
            while chain.terminal().poll_cell().is_some() {}
        }
    }
}

#[test] // §7.1(1)
fn a_message_keeps_to_its_direction_s_length() {
    let long = [&[1, 0, 0, 255, 255][..], &[0; FORWARD_DATA_MAX - 4]].concat();
    assert_eq!(
        terminal_says(&[data(1, OPEN, &long[..FORWARD_DATA_MAX])]),
        Ok(())
    );
    assert_eq!(
        terminal_says(&[data(1, OPEN, &long)]),
        Err(Violation::Malformed(Malformed::TooLong))
    );
}

#[test] // §7.1(7): a reset is answered by a reset; messages that crossed it are discarded
fn the_terminal_resets_a_stream_that_still_sends() {
    let mut chain = Chain::built(2);
    let stream = chain
        .origin
        .open_stream(Service::Mailbox, &[0; 50_000], false)
        .unwrap();
    for _ in 0..3 {
        let cell = chain.origin.poll_cell(&mut chain.rng).unwrap();
        chain.forward(cell).unwrap();
    }
    chain.terminal().reset(stream);
    assert!(!chain.terminal().is_idle(), "the origin does not know yet");
    chain.run().unwrap();
    let events = chain.origin_events();
    assert!(
        matches!(&events[..], [OriginEvent::StreamEnded { reset: true, .. }]),
        "{events:?}"
    );
    assert!(chain.terminal_events().is_empty());
    assert!(
        chain.terminal().is_idle()
            && chain.origin.stream_count() == 0
            && chain.origin.outgoing_bytes() == 0
    );
    assert_eq!(
        chain.origin.send(stream, b"late", true),
        Ok(()),
        "the stream is over: nothing happens"
    );
    assert!(chain.origin.poll_cell(&mut chain.rng).is_none());
}

#[test] // §7.1(9), §7.3(6)
fn a_reset_goes_before_all_data_that_waits() {
    let mut chain = Chain::built(1);
    let open = |chain: &mut Chain| {
        let opened = chain.origin.open_stream(Service::Mailbox, &[0; 9000], true);
        opened.unwrap()
    };
    let (first, second) = (open(&mut chain), open(&mut chain));
    for _ in 0..2 {
        let cell = chain.origin.poll_cell(&mut chain.rng).unwrap();
        chain.forward(cell).unwrap();
    }
    chain.origin.reset(second);
    let cell = chain.origin.poll_cell(&mut chain.rng).unwrap();
    chain.forward(cell).unwrap();
    let events = chain.terminal_events();
    assert!(
        matches!(events[..], [TerminalEvent::StreamEnded { stream, reset: true }] if stream == second),
        "{events:?}"
    );
    chain.run().unwrap();
    let events = chain.terminal_events();
    assert!(
        matches!(events[..], [TerminalEvent::Request { stream, .. }] if stream == first),
        "{events:?}"
    );
}

#[test] // §7.1(10)
fn a_stream_that_is_reset_before_it_was_opened_leaves_a_gap() {
    let mut chain = Chain::built(1);
    let open = |chain: &mut Chain| {
        let opened = chain.origin.open_stream(Service::Mailbox, b"ask", true);
        opened.unwrap()
    };
    let (first, second) = (open(&mut chain), open(&mut chain));
    chain.origin.reset(first);
    assert_eq!((first, second), (StreamId(1), StreamId(2)));
    let before = chain.origin.cells_sent();
    chain.run().unwrap();
    assert_eq!(
        chain.origin.cells_sent(),
        before + 1,
        "only the second is said"
    );
    let events = chain.terminal_events();
    assert!(
        matches!(events[..], [TerminalEvent::Request { stream, .. }] if stream == second),
        "{events:?}"
    );
}

#[test] // §7.1(7)
fn the_origin_ends_a_subscription() {
    let mut chain = Chain::built(1);
    let stream = chain
        .origin
        .open_stream(Service::Mailbox, b"subscribe", true)
        .unwrap();
    chain.run().unwrap();
    assert_eq!(chain.terminal_events().len(), 1);
    for _ in 0..5 {
        chain.terminal().reply(stream, b"pushed", false).unwrap();
        chain.run().unwrap();
    }
    assert_eq!(chain.origin_events().len(), 5);
    chain
        .terminal()
        .reply(stream, b"on its way", false)
        .unwrap();
    chain.collect_backward();
    chain.origin.reset(stream);
    chain.run().unwrap();
    assert!(
        chain.origin_events().is_empty(),
        "no event comes after a reset of our own"
    );
    let events = chain.terminal_events();
    assert!(matches!(
        &events[..],
        [TerminalEvent::StreamEnded { reset: true, .. }]
    ));
    assert!(chain.terminal().is_idle() && chain.origin.stream_count() == 0);
}

#[test] // §7.1(7)
fn resets_and_ends_may_cross() {
    type Act = fn(&mut Chain, StreamId);
    let origin_acts: [Act; 3] = [
        |chain, stream| chain.origin.finish(stream),
        |chain, stream| chain.origin.reset(stream),
        |chain, stream| {
            chain.origin.finish(stream);
            while let Some(cell) = chain.origin.poll_cell(&mut chain.rng) {
                chain.forward(cell).unwrap();
            }
            chain.origin.reset(stream);
        },
    ];
    let terminal_acts: [Act; 3] = [
        |chain, stream| chain.terminal().finish(stream),
        |chain, stream| chain.terminal().reset(stream),
        |chain, stream| {
            chain.terminal().finish(stream);
            chain.collect_backward();
            chain.terminal().reset(stream);
        },
    ];
    for origin_act in origin_acts {
        for terminal_act in terminal_acts {
            let mut chain = Chain::built(1);
            let stream = chain
                .origin
                .open_stream(Service::Mailbox, b"?", false)
                .unwrap();
            chain.run().unwrap();
            terminal_act(&mut chain, stream);
            chain.collect_backward();
            origin_act(&mut chain, stream);
            chain.run().unwrap();
            assert!(chain.terminal().is_idle() && chain.origin.stream_count() == 0);
        }
    }
}

#[test] // §7.1(8)
fn a_reset_that_crossed_the_end_is_ignored() {
    assert_eq!(
        origin_says(&[data(1, FIN, FRAME), data(1, RESET, &[])]),
        Ok(())
    );
    let refused = Err(Destroyed {
        by: 0,
        violation: Violation::Stream,
    });
    let mut chain = Chain::rogue();
    let (_, cell) = chain.rogue_says(&data(1, RESET, &[]));
    chain
        .origin
        .open_stream(Service::Mailbox, b"?", true)
        .unwrap();
    assert_eq!(
        chain.deliver_backward(cell),
        refused,
        "its opening is not sent yet"
    );
}

#[test] // §7.1(8)
fn a_reset_is_ignored_only_if_its_stream_was_opened_and_finished() {
    let gap = [data(9, OPEN, REQUEST), data(5, RESET, &[])];
    assert_eq!(
        terminal_says(&gap),
        Err(Violation::Stream),
        "an id in a gap was never opened"
    );
    let again = [
        data(1, FIN, FRAME),
        data(1, RESET, &[]),
        data(1, RESET, &[]),
    ];
    assert_eq!(
        origin_says(&again),
        Err(Violation::Stream),
        "a reset is the last message of its stream"
    );

    let mut chain = Chain::built(1);
    for number in 1..=FINISHED_STREAMS_MAX + 1 {
        let stream = chain
            .origin
            .open_stream(Service::Mailbox, b"?", true)
            .unwrap();
        chain.run().unwrap();
        chain.terminal().reply(stream, b"!", true).unwrap();
        chain.run().unwrap();
        assert_eq!(usize::from(stream.0), number);
    }
    let mut resets = |stream| {
        chain
            .terminal()
            .handle_message([0; 16], &data(stream, RESET, &[]))
    };
    assert_eq!(
        (resets(65), resets(2)),
        (Ok(()), Ok(())),
        "as many as may have ended since its origin last heard"
    );
    assert_eq!(
        resets(1),
        Err(Violation::Stream),
        "no honest reset is that late"
    );
}
