//! Anything at all, in any order: honest ends never accuse each other and lose nothing; nobody
//! makes anybody panic.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use umbel_proto::cell::Cell;
use umbel_proto::circuit::{Full, OriginEvent, TerminalEvent};
use umbel_proto::limits::FRAME_LEN_MAX;
use umbel_proto::message::{Credit, Data, DataFlags, RelayMsg, Service, StreamId};

use crate::chain::Chain;

/// An action of one end, or of the links between them.
#[derive(Debug, Clone)]
enum Act {
    Open { len: usize, fin: bool },
    OriginSends { pick: usize, len: usize, fin: bool },
    TerminalSends { pick: usize, len: usize, fin: bool },
    OriginFinishes(usize),
    TerminalFinishes(usize),
    OriginResets(usize),
    TerminalResets(usize),
    Growth(bool),
    Forward { polled: usize, delivered: usize },
    Backward { polled: usize, delivered: usize },
}

fn frame_len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..3000_usize, 2 => 1..60_000_usize, 1 => Just(FRAME_LEN_MAX)]
}

fn act() -> impl Strategy<Value = Act> {
    let pick = 0..64_usize;
    prop_oneof![
        4 => (frame_len(), any::<bool>()).prop_map(|(len, fin)| Act::Open { len, fin }),
        3 => (pick.clone(), frame_len(), any::<bool>()).prop_map(|(pick, len, fin)| Act::OriginSends { pick, len, fin }),
        5 => (pick.clone(), frame_len(), any::<bool>())
            .prop_map(|(pick, len, fin)| Act::TerminalSends { pick, len, fin }),
        1 => pick.clone().prop_map(Act::OriginFinishes),
        1 => pick.clone().prop_map(Act::TerminalFinishes),
        1 => pick.clone().prop_map(Act::OriginResets),
        1 => pick.prop_map(Act::TerminalResets),
        1 => any::<bool>().prop_map(Act::Growth),
        5 => (0..90_usize, 0..90_usize).prop_map(|(polled, delivered)| Act::Forward { polled, delivered }),
        5 => (0..90_usize, 0..90_usize).prop_map(|(polled, delivered)| Act::Backward { polled, delivered }),
    ]
}

/// The frames that passed one way on one stream, as their speaker and their listener recorded them.
#[derive(Debug, Default)]
struct Half {
    said: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    is_finished: bool,
    is_end_heard: bool,
}

#[derive(Debug, Default)]
struct Account {
    forward: Half,
    backward: Half,
    is_reset: bool,
    is_known_to_terminal: bool,
}

/// Two honest ends, and links that hold cells for as long as they like.
struct World {
    chain: Chain,
    forward: VecDeque<Cell>,
    accounts: BTreeMap<StreamId, Account>,
    frames: u32,
}

impl World {
    fn new() -> Self {
        Self {
            chain: Chain::built(1),
            forward: VecDeque::new(),
            accounts: BTreeMap::new(),
            frames: 0,
        }
    }

    fn frame(&mut self, len: usize) -> Vec<u8> {
        self.frames += 1;
        self.frames
            .to_be_bytes()
            .into_iter()
            .cycle()
            .take(len)
            .collect()
    }

    fn pick(&self, pick: usize, is_wanted: impl Fn(&Account) -> bool) -> Option<StreamId> {
        let streams: Vec<_> = self
            .accounts
            .iter()
            .filter(|(_, account)| is_wanted(account))
            .map(|(id, _)| *id)
            .collect();
        streams.get(pick.checked_rem(streams.len())?).copied()
    }

    fn play(&mut self, act: &Act) {
        match *act {
            Act::Open { len, fin } => self.open(len, fin),
            Act::OriginSends { pick, len, fin } => self.origin_sends(pick, len, fin),
            Act::TerminalSends { pick, len, fin } => self.terminal_sends(pick, len, fin),
            Act::OriginFinishes(pick) => {
                if let Some(stream) = self.pick(pick, |account| !account.is_reset) {
                    self.chain.origin.finish(stream);
                    self.account(stream).forward.is_finished = true;
                }
            }
            Act::TerminalFinishes(pick) => {
                if let Some(stream) = self.pick(pick, |account| account.is_known_to_terminal) {
                    self.chain.terminal().finish(stream);
                    self.account(stream).backward.is_finished = true;
                }
            }
            Act::OriginResets(pick) => {
                if let Some(stream) = self.pick(pick, |_| true) {
                    self.chain.origin.reset(stream);
                    self.account(stream).is_reset = true;
                }
            }
            Act::TerminalResets(pick) => {
                if let Some(stream) = self.pick(pick, |account| account.is_known_to_terminal) {
                    self.chain.terminal().reset(stream);
                    self.account(stream).is_reset = true;
                }
            }
            Act::Growth(may_grow) => {
                self.chain.origin.set_growth(may_grow);
                self.chain.terminal().set_growth(!may_grow);
            }
            Act::Forward { polled, delivered } => self.pass_forward(polled, delivered),
            Act::Backward { polled, delivered } => self.pass_backward(polled, delivered),
        }
    }

    fn account(&mut self, stream: StreamId) -> &mut Account {
        self.accounts
            .get_mut(&stream)
            .expect("a stream that was opened")
    }

    fn open(&mut self, len: usize, fin: bool) {
        let frame = self.frame(len);
        match self.chain.origin.open_stream(Service::Mailbox, &frame, fin) {
            Ok(stream) => {
                let forward = Half {
                    said: vec![frame],
                    is_finished: fin,
                    ..Half::default()
                };
                self.accounts.insert(
                    stream,
                    Account {
                        forward,
                        ..Account::default()
                    },
                );
            }
            Err(full) => assert!(matches!(full, Full::Bytes | Full::Streams)),
        }
    }

    fn origin_sends(&mut self, pick: usize, len: usize, fin: bool) {
        let Some(stream) = self.pick(pick, |account| {
            !account.is_reset && !account.forward.is_finished
        }) else {
            return;
        };
        let frame = self.frame(len);
        if self.chain.origin.send(stream, &frame, fin).is_ok() {
            let half = &mut self.account(stream).forward;
            half.said.push(frame);
            half.is_finished = fin;
        }
    }

    fn terminal_sends(&mut self, pick: usize, len: usize, fin: bool) {
        let wanted = |account: &Account| {
            account.is_known_to_terminal && !account.is_reset && !account.backward.is_finished
        };
        let Some(stream) = self.pick(pick, wanted) else {
            return;
        };
        let frame = self.frame(len);
        if self.chain.terminal().reply(stream, &frame, fin).is_ok() {
            let half = &mut self.account(stream).backward;
            half.said.push(frame);
            half.is_finished = fin;
        }
    }

    fn pass_forward(&mut self, polled: usize, delivered: usize) {
        for _ in 0..polled {
            self.forward
                .extend(self.chain.origin.poll_cell(&mut self.chain.rng));
        }
        for cell in self.forward.drain(..delivered.min(self.forward.len())) {
            self.chain.forward(cell).expect("honest ends");
        }
        for event in self.chain.terminal_events() {
            match event {
                TerminalEvent::Request {
                    stream, frame, fin, ..
                } => {
                    let account = self.account(stream);
                    account.is_known_to_terminal = true;
                    account.forward.heard.push(frame);
                    account.forward.is_end_heard |= fin;
                }
                TerminalEvent::StreamEnded { stream, reset } => {
                    let account = self.account(stream);
                    assert!(!reset || account.is_reset, "somebody reset it");
                    account.forward.is_end_heard = true;
                }
            }
        }
    }

    fn pass_backward(&mut self, polled: usize, delivered: usize) {
        for _ in 0..polled {
            let cell = self.chain.poll_terminal_cell();
            self.chain.backward.extend(cell);
        }
        for _ in 0..delivered {
            let Some(cell) = self.chain.backward.pop_front() else {
                break;
            };
            self.chain.deliver_backward(cell).expect("honest ends");
        }
        for event in self.chain.origin_events() {
            match event {
                OriginEvent::Frame { stream, frame } => {
                    self.account(stream).backward.heard.push(frame);
                }
                OriginEvent::StreamEnded { stream, reset } => {
                    let account = self.account(stream);
                    assert!(!reset || account.is_reset, "somebody reset it");
                    account.backward.is_end_heard = true;
                }
                other => panic!("no extend was asked: {other:?}"),
            }
        }
    }

    fn settle(&mut self) {
        loop {
            let before = (
                self.chain.origin.cells_sent(),
                self.chain.origin.cells_received(),
            );
            self.pass_forward(600, 600);
            self.pass_backward(600, 600);
            if before
                == (
                    self.chain.origin.cells_sent(),
                    self.chain.origin.cells_received(),
                )
            {
                return;
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(
            (
                self.chain.origin.outgoing_bytes(),
                self.chain.terminal().outgoing_bytes()
            ),
            (0, 0)
        );
        let mut open = 0;
        for (stream, account) in &self.accounts {
            for half in [&account.forward, &account.backward] {
                assert!(
                    half.said.starts_with(&half.heard),
                    "{stream:?}: what is heard was said, in order"
                );
                if !account.is_reset {
                    assert_eq!(half.said, half.heard, "{stream:?}");
                    assert_eq!(half.is_end_heard, half.is_finished, "{stream:?}");
                }
            }
            let is_over =
                account.is_reset || (account.forward.is_finished && account.backward.is_finished);
            open += usize::from(!is_over);
        }
        assert_eq!(self.chain.origin.stream_count(), open);
        assert_eq!(self.chain.terminal().stream_count(), open);
    }
}

fn flags() -> impl Strategy<Value = DataFlags> {
    prop_oneof![
        4 => Just(DataFlags { open: true, ..DataFlags::default() }),
        4 => Just(DataFlags::default()),
        2 => any::<bool>().prop_map(|open| DataFlags { open, fin: true, reset: false }),
        1 => Just(DataFlags { reset: true, ..DataFlags::default() }),
    ]
}

/// Bytes that look like a service and frames more often than chance has it.
fn stream_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (
            1..4_u8,
            0..6_u8,
            proptest::collection::vec(any::<u8>(), 0..40)
        )
            .prop_map(|(service, len, bytes)| [&[service, 0, 0, 0, len][..], &bytes].concat()),
        (0..6_u8, proptest::collection::vec(any::<u8>(), 0..2100)).prop_map(|(len, bytes)| [
            &[0, 0, len, len][..],
            &bytes
        ]
        .concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_ends_agree(acts in proptest::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in &acts {
            world.play(act);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn a_terminal_survives_any_messages(
        messages in proptest::collection::vec((1..6_u16, flags(), stream_bytes(), any::<[u8; 16]>(), 0..4_u8), 1..80),
    ) {
        let mut chain = Chain::built(1);
        for (stream, flags, bytes, tag, act) in &messages {
            let bytes = if flags.reset { &[][..] } else { bytes };
            let message = match act {
                0 => RelayMsg::Credit(Credit { tag: *tag, cells: 16 }),
                _ => RelayMsg::Data(Data { stream: StreamId(*stream), flags: *flags, bytes }),
            };
            let terminal = chain.terminal();
            let _ = terminal.handle_message(*tag, &message);
            while let Some(event) = terminal.poll_event() {
                match event {
                    TerminalEvent::Request { stream, frame, .. } if act % 2 == 0 => {
                        let _ = terminal.reply(stream, &frame, false);
                    }
                    TerminalEvent::Request { stream, .. } => terminal.reset(stream),
                    TerminalEvent::StreamEnded { stream, .. } => terminal.finish(stream),
                }
            }
            while terminal.poll_cell().is_some() {}
        }
    }

    #[test]
    fn an_origin_survives_any_messages(
        messages in proptest::collection::vec((1..6_u16, flags(), stream_bytes(), 0..4_u8), 1..40),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut chain = Chain::rogue();
        for _ in 0..4 {
            chain.origin.open_stream(Service::Directory, b"?", false).expect("room");
        }
        while chain.origin.poll_cell(&mut chain.rng).is_some() {}
        for (stream, flags, bytes, act) in &messages {
            let flags = if *act == 3 { *flags } else { DataFlags { open: false, ..*flags } };
            let bytes = if flags.reset { &[][..] } else { bytes };
            let (_, cell) = chain.rogue_says(&RelayMsg::Data(Data { stream: StreamId(*stream), flags, bytes: &bytes[..bytes.len().min(2000)] }));
            let _ = chain.deliver_backward(cell);
            while chain.origin.poll_event().is_some() {}
            if *act == 1 {
                chain.origin.reset(StreamId(*stream));
            }
            while chain.origin.poll_cell(&mut chain.rng).is_some() {}
        }
        let (_, cell) = chain.rogue_says_bytes(&noise);
        let _ = chain.deliver_backward(cell);
    }
}
