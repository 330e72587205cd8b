//! Fuzz bodies: one function for each decoder and machine that a peer's bytes reach.
//!
//! Each takes any bytes at all and asserts what must hold whatever they are: nothing panics, what
//! is read is written back as it was, what comes out is bounded. `tests/tests/fuzz.rs` runs them
//! over `tests/corpus`, over mutations of it, and over random bytes; a coverage-guided fuzzer can
//! call the same functions.

mod control;
mod conversation;
mod decoders;
mod display;
mod holder;
mod machines;
mod outbox;
pub mod seeds;

/// One fuzz body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
    /// How many mutations of each file of the corpus are tried; fewer where public-key work is
    /// done.
    pub mutations: usize,
}

/// All of them.
pub const BODIES: &[Body] = &[
    Body {
        name: "hello",
        run: decoders::hello,
        mutations: 300,
    },
    Body {
        name: "cell_header",
        run: decoders::cell_header,
        mutations: 300,
    },
    Body {
        name: "create_body",
        run: decoders::create_body,
        mutations: 300,
    },
    Body {
        name: "created_body",
        run: decoders::created_body,
        mutations: 300,
    },
    Body {
        name: "relay_message",
        run: decoders::relay_message,
        mutations: 300,
    },
    Body {
        name: "relay_descriptor",
        run: decoders::relay_descriptor,
        mutations: 300,
    },
    Body {
        name: "directory_request",
        run: decoders::directory_request,
        mutations: 300,
    },
    Body {
        name: "directory_reply",
        run: decoders::directory_reply,
        mutations: 300,
    },
    Body {
        name: "receipt_request",
        run: decoders::receipt_request,
        mutations: 300,
    },
    Body {
        name: "receipt_reply",
        run: decoders::receipt_reply,
        mutations: 300,
    },
    Body {
        name: "mailbox_request",
        run: decoders::mailbox_request,
        mutations: 300,
    },
    Body {
        name: "mailbox_reply",
        run: decoders::mailbox_reply,
        mutations: 300,
    },
    Body {
        name: "inbox_descriptor",
        run: decoders::inbox_descriptor,
        mutations: 300,
    },
    Body {
        name: "record",
        run: decoders::record,
        mutations: 300,
    },
    Body {
        name: "inbox_address",
        run: decoders::inbox_address,
        mutations: 300,
    },
    Body {
        name: "peer",
        run: decoders::peer,
        mutations: 300,
    },
    Body {
        name: "invite",
        run: decoders::invite,
        mutations: 300,
    },
    Body {
        name: "network",
        run: decoders::network,
        mutations: 300,
    },
    Body {
        name: "answerer",
        run: machines::answerer,
        mutations: 300,
    },
    Body {
        name: "syncer",
        run: machines::syncer,
        mutations: 300,
    },
    Body {
        name: "terminal",
        run: machines::terminal,
        mutations: 300,
    },
    Body {
        name: "origin",
        run: machines::origin,
        mutations: 150,
    },
    Body {
        name: "holder",
        run: holder::holder,
        mutations: 150,
    },
    Body {
        name: "holder_completions",
        run: holder::holder_completions,
        mutations: 150,
    },
    Body {
        name: "outbox_completions",
        run: outbox::outbox_completions,
        mutations: 150,
    },
    Body {
        name: "shown",
        run: display::shown,
        mutations: 2000,
    },
    Body {
        name: "link_table",
        run: machines::link_table,
        mutations: 300,
    },
    Body {
        name: "control",
        run: control::control,
        mutations: 100,
    },
    Body {
        name: "conversation",
        run: conversation::conversation,
        mutations: 40,
    },
];

/// Reads a story off the front of the input; past its end there are only zeros.
struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The next op, while there is one.
    fn op(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn byte(&mut self) -> u8 {
        self.op().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as there are left, at most `len`.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// A length in two bytes, then that many bytes.
    fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.bytes(len)
    }
}
