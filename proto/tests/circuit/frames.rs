//! Frames pass whole and in order, and streams share their circuit (§7.2).

use umbel_proto::circuit::{Full, OriginEvent, TerminalEvent};
use umbel_proto::limits::{
    BACKWARD_DATA_MAX, FORWARD_DATA_MAX, FRAME_LEN_MAX, OUTGOING_BYTES_MAX, STREAMS_MAX,
};
use umbel_proto::message::{Service, StreamId};

use crate::chain::Chain;

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + seed) as u8).collect()
}

#[test] // §7.2(1)
fn frames_of_any_length_pass_both_ways_at_once() {
    let edges =
        [FORWARD_DATA_MAX, BACKWARD_DATA_MAX].map(|max| [max - 6, max - 5, max - 4, max - 3, max]);
    let lens = [1, 2, 1000, 65_536, FRAME_LEN_MAX - 1, FRAME_LEN_MAX];
    for len in lens.into_iter().chain(edges.into_iter().flatten()) {
        let mut chain = Chain::built(4);
        let stream = chain
            .origin
            .open_stream(Service::Mailbox, &pattern(len, 1), false)
            .unwrap();
        chain.run().unwrap();
        chain.origin.send(stream, &pattern(len, 2), true).unwrap();
        chain
            .terminal()
            .reply(stream, &pattern(len, 3), true)
            .unwrap();
        chain.run().unwrap();
        let events = chain.terminal_events();
        assert!(matches!(&events[..], [
                TerminalEvent::Request { service: Service::Mailbox, frame: first, fin: false, .. },
                TerminalEvent::Request { frame: second, fin: true, .. },
            ] if *first == pattern(len, 1) && *second == pattern(len, 2)));
        let events = chain.origin_events();
        assert!(matches!(&events[..], [
                OriginEvent::Frame { frame, .. },
                OriginEvent::StreamEnded { reset: false, .. },
            ] if *frame == pattern(len, 3)));
        assert!(chain.terminal().is_idle() && chain.origin.stream_count() == 0);
        assert_eq!(
            (
                chain.origin.outgoing_bytes(),
                chain.terminal().outgoing_bytes()
            ),
            (0, 0)
        );
    }
}

#[test] // §7.1(3)
fn a_short_request_and_its_reply_are_a_cell_each() {
    let mut chain = Chain::built(4);
    let (sent, received) = (chain.origin.cells_sent(), chain.origin.cells_received());
    let request = pattern(FORWARD_DATA_MAX - 5, 0);
    let stream = chain
        .origin
        .open_stream(Service::Directory, &request, true)
        .unwrap();
    chain.run().unwrap();
    chain
        .terminal()
        .reply(stream, &pattern(BACKWARD_DATA_MAX - 4, 0), true)
        .unwrap();
    chain.run().unwrap();
    assert_eq!(
        (
            chain.origin.cells_sent() - sent,
            chain.origin.cells_received() - received
        ),
        (1, 1)
    );
}

#[test] // §7.2(5)
fn short_frames_of_a_stream_share_a_cell() {
    let mut chain = Chain::built(1);
    let sent = chain.origin.cells_sent();
    let stream = chain
        .origin
        .open_stream(Service::Directory, &[1; 100], false)
        .unwrap();
    for number in 2..=18 {
        chain
            .origin
            .send(stream, &[number; 100], number == 18)
            .unwrap();
    }
    chain.run().unwrap();
    assert_eq!(chain.origin.cells_sent() - sent, 1);
    let frames: Vec<_> = chain.terminal_events();
    assert_eq!(frames.len(), 18);
    assert!(matches!(
        frames.last(),
        Some(TerminalEvent::Request { fin: true, .. })
    ));
}

#[test] // §7.2(5)
fn streams_take_turns() {
    let mut chain = Chain::built(1);
    let long = chain
        .origin
        .open_stream(Service::Mailbox, &pattern(100_000, 1), true)
        .unwrap();
    let short = chain
        .origin
        .open_stream(Service::Mailbox, &pattern(10, 2), true)
        .unwrap();
    chain.run().unwrap();
    let order: Vec<_> = chain
        .terminal_events()
        .into_iter()
        .map(|event| match event {
            TerminalEvent::Request { stream, .. } | TerminalEvent::StreamEnded { stream, .. } => {
                stream
            }
        })
        .collect();
    assert_eq!(
        order,
        [short, long],
        "the short one is not held up by the long one"
    );
}

#[test] // §7.2(4): both ends stay below the limits though all streams send at once
fn many_long_frames_pass_interleaved() {
    let mut chain = Chain::built(2);
    let len = OUTGOING_BYTES_MAX / STREAMS_MAX;
    for number in 1..=STREAMS_MAX {
        chain
            .origin
            .open_stream(Service::Mailbox, &pattern(len, number), true)
            .unwrap();
    }
    chain.run().unwrap();
    assert_eq!(chain.terminal_events().len(), STREAMS_MAX);
    for number in 1..=STREAMS_MAX {
        chain
            .terminal()
            .reply(StreamId(number as u16), &pattern(len, number + 9), true)
            .unwrap();
    }
    chain.run().unwrap();
    for event in chain.origin_events() {
        if let OriginEvent::Frame { stream, frame } = event {
            assert_eq!(frame, pattern(len, usize::from(stream.0) + 9));
        }
    }
    assert!(chain.terminal().is_idle() && chain.origin.stream_count() == 0);
}

#[test] // §7.2(4): a stream opens on time though its frame has to wait for room at the other end
fn long_frames_wait_for_each_other() {
    let mut chain = Chain::built(1);
    for number in 0..4 {
        chain
            .origin
            .open_stream(Service::Mailbox, &pattern(FRAME_LEN_MAX, number), true)
            .unwrap();
    }
    chain.run().unwrap();
    assert_eq!(chain.terminal_events().len(), 4);
}

#[test] // §7.3(7)
fn what_does_not_fit_the_queue_is_refused_to_the_caller() {
    let mut chain = Chain::built(1);
    let stream = chain
        .origin
        .open_stream(Service::Mailbox, &[0; FRAME_LEN_MAX], false)
        .unwrap();
    for _ in 1..OUTGOING_BYTES_MAX / FRAME_LEN_MAX {
        chain
            .origin
            .send(stream, &[0; FRAME_LEN_MAX], false)
            .unwrap();
    }
    assert_eq!(chain.origin.send(stream, &[0], false), Err(Full::Bytes));
    assert_eq!(
        chain.origin.open_stream(Service::Mailbox, &[0], true),
        Err(Full::Bytes)
    );
    chain.run().unwrap();
    assert_eq!(chain.origin.send(stream, &[0], true), Ok(()));
    for frame in [&[][..], &[0; FRAME_LEN_MAX + 1]] {
        assert_eq!(
            chain.origin.open_stream(Service::Mailbox, frame, true),
            Err(Full::FrameLen)
        );
    }
}
