//! A body for a session of a conversation: the input is what two sides write, and what becomes of it
//! on its way and on their disks.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use umbel_proto::conversation::envelope::ENVELOPE_ROOMS;
use umbel_proto::conversation::opening::Introduction;
use umbel_proto::conversation::session::{OpenFault, SealFault, Session};
use umbel_proto::crypto::dh::DhSecret;
use umbel_proto::ids::NetworkId;
use umbel_proto::time::{Duration, WallTime};

use super::Script;
use super::decoders::{WALL, identity};

/// Longer stories say nothing new, and each op is public-key work.
const OPS_MAX: usize = 48;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Two sides that write; a path that loses, delays, repeats and flips; restarts from backups.
///
/// What is opened is what was written, and once only. A message that is refused changes nothing.
/// While neither side went back to a backup, whatever arrives whole for the first time is opened.
pub(super) fn conversation(input: &[u8]) {
    let mut pair = Pair::new();
    let mut script = Script::new(input);
    for _ in 0..OPS_MAX {
        let Some(op) = script.op() else { break };
        let side = usize::from(op >> 3 & 1);
        match op % 8 {
            0 | 1 => pair.write(side, script.byte()),
            2 => drop(pair.pick(script.byte(), false).map(|it| pair.deliver(&it))),
            3 => drop(pair.pick(script.byte(), true).map(|it| pair.deliver(&it))),
            4 => drop(pair.pick(script.byte(), false)),
            5 => pair.deliver_flipped(script.byte(), script.u16()),
            6 => pair.sides[side].back_up(),
            _ if op >> 4 & 1 == 0 => pair.now = pair.now + DAY,
            _ => pair.go_back(side),
        }
    }
    pair.end();
}

/// One side, and a copy of what was on its disk.
struct Side {
    session: Session,
    /// The numbers of the letters that it opened.
    opened: BTreeSet<usize>,
    backup: (Vec<u8>, BTreeSet<usize>),
}

/// A message on its way.
#[derive(Clone)]
struct Letter {
    number: usize,
    to: usize,
    text: Vec<u8>,
    message: Vec<u8>,
}

struct Pair {
    sides: [Side; 2],
    letters: Vec<Letter>,
    written: usize,
    now: WallTime,
    rng: ChaCha20Rng,
    went_back: bool,
}

fn restored(state: &[u8]) -> Session {
    Session::restore(state).unwrap_or_else(|fault| unreachable!("its own state: {fault:?}"))
}

impl Side {
    fn new(session: Session) -> Self {
        let backup = (session.state().to_vec(), BTreeSet::new());
        Self {
            session,
            opened: BTreeSet::new(),
            backup,
        }
    }

    fn back_up(&mut self) {
        self.backup = (self.session.state().to_vec(), self.opened.clone());
    }

    /// It comes up with what is on its disk.
    fn restart(&mut self) {
        self.session = restored(&self.session.state());
    }
}

impl Pair {
    fn new() -> Self {
        let (network, mut rng) = (NetworkId([3; 32]), ChaCha20Rng::seed_from_u64(11));
        let (bob, pseudonym) = (identity(), DhSecret::generate(&mut rng));
        let begun = Introduction::begin(&network, bob.address(), &pseudonym, None, WALL, &mut rng);
        let (introduction, alice) =
            begun.unwrap_or_else(|fault| unreachable!("sound keys: {fault:?}"));
        let bob = introduction.accept(&network, &bob, WALL);
        let bob = bob.unwrap_or_else(|fault| unreachable!("sound keys: {fault:?}"));
        Self {
            sides: [alice.session, bob.session].map(Side::new),
            letters: Vec::new(),
            written: 0,
            now: WALL,
            rng,
            went_back: false,
        }
    }

    /// A side writes as much as `size` says: for two of the records' lengths, and such that a share
    /// just fits or does not.
    fn write(&mut self, from: usize, size: u8) {
        let number = self.written;
        let len = [1, 60, 452, 453, 548, 1652, 1653, 7559][usize::from(size % 8)];
        let text = vec![u8::try_from(number % 255).unwrap_or_default() + 1; len];
        let session = &mut self.sides[from].session;
        let (before, may_seal) = (session.state(), session.may_seal());
        match session.seal(&text, &ENVELOPE_ROOMS, self.now, &mut self.rng) {
            Ok(sealed) => {
                assert!(may_seal, "a responder waits");
                assert_eq!(sealed.message.len(), ENVELOPE_ROOMS[sealed.class]);
                self.letters.push(Letter {
                    number,
                    to: 1 - from,
                    text,
                    message: sealed.message,
                });
                self.written += 1;
            }
            Err(fault) => {
                assert!(!may_seal && fault == SealFault::NotYet, "it fits");
                assert!(session.state() == before, "nothing was written");
            }
        }
        self.sides[from].restart();
    }

    /// A letter on its way; it goes on being there if a copy is taken.
    fn pick(&mut self, index: u8, is_copy: bool) -> Option<Letter> {
        let index = usize::from(index).checked_rem(self.letters.len())?;
        if is_copy {
            self.letters.get(index).cloned()
        } else {
            Some(self.letters.remove(index))
        }
    }

    fn deliver(&mut self, letter: &Letter) {
        let (now, side) = (self.now, &mut self.sides[letter.to]);
        let before = side.session.state();
        match side.session.open(&letter.message, now) {
            Ok(body) => {
                let (text, zeros) = body.split_at(letter.text.len());
                assert!(text == letter.text, "what was written");
                assert!(zeros.iter().all(|&it| it == 0), "and zeros");
                assert!(side.opened.insert(letter.number), "once");
            }
            Err(fault) => {
                assert!(side.session.state() == before, "nothing changes");
                let was_opened = side.opened.contains(&letter.number);
                let is_copy = fault == OpenFault::Repeated { is_copy: true };
                assert!(was_opened == is_copy, "a copy: {fault:?}");
                assert!(was_opened || self.went_back, "refused: {fault:?}");
            }
        }
        side.restart();
    }

    fn deliver_flipped(&mut self, index: u8, bit: u16) {
        let Some(mut letter) = self.pick(index, true) else {
            return;
        };
        let bit = usize::from(bit) % (letter.message.len() * 8);
        letter.message[bit / 8] ^= 1 << (bit % 8);
        let (now, session) = (self.now, &mut self.sides[letter.to].session);
        let before = session.state();
        assert!(session.open(&letter.message, now).is_err(), "bit {bit}");
        assert!(session.state() == before, "nothing changes");
    }

    fn go_back(&mut self, side: usize) {
        let side = &mut self.sides[side];
        side.session = restored(&side.backup.0);
        side.opened = side.backup.1.clone();
        self.went_back = true;
    }

    /// All that is still on its way arrives, the newest first; then both sides write twice more.
    fn end(mut self) {
        self.deliver_all();
        for from in [0, 1, 0, 1] {
            self.write(from, 1);
            self.deliver_all();
        }
    }

    fn deliver_all(&mut self) {
        while let Some(letter) = self.letters.pop() {
            self.deliver(&letter);
        }
    }
}
