//! Relay messages: the contents of a relay cell once all layers are off (docs/protocol.md §6, §7).

use crate::handshake::{ONIONSKIN_LEN, Onionskin, REPLY_LEN, Reply};
use crate::ids::{OnionKeyId, RelayId};
use crate::limits::TAG_LEN;
use crate::wire::{Malformed, Reader};

/// Names a stream on one circuit; chosen by the origin, never zero, never used twice (§7.1(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u16);

/// The service that a stream speaks to (§7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Service {
    /// Relay and inbox descriptors (§8, §9).
    Directory = 1,
    /// Queues of records (§10).
    Mailbox = 2,
    /// Receipts for addresses (§8.7).
    Receipts = 3,
}

impl Service {
    /// The service with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Directory),
            2 => Some(Self::Mailbox),
            3 => Some(Self::Receipts),
            _ => None,
        }
    }
}

/// Why a relay did not extend a circuit; the client picks another relay (§6.3). Another byte is
/// malformed (§6.3(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExtendRefusal {
    /// The relay's view has no such relay.
    UnknownRelay = 1,
    /// That relay could not be reached.
    Unreachable = 2,
    /// That relay refused the onionskin, or there were too many requests.
    Refused = 3,
}

/// The message inside a relay cell once all layers are off.
#[derive(Debug)]
pub enum RelayMsg<'a> {
    /// Carries nothing; hides volume, in either direction.
    Padding,
    /// Make one more hop (forward, only in an early cell).
    Extend(Box<Extend>),
    /// The new hop's answer (backward).
    Extended(Box<Reply>),
    /// There will be no new hop (backward).
    ExtendRefused(ExtendRefusal),
    /// A stream's bytes (either way).
    Data(Data<'a>),
    /// The receiver of `Data` cells has taken more of them (either way).
    Credit(Credit),
}

/// Make one more hop: to whom, and the handshake for it.
#[derive(Debug)]
pub struct Extend {
    /// The next relay.
    pub relay: RelayId,
    /// Which of its onion keys the onionskin is for: [`Onionskin::onion_key`].
    pub onion_key: OnionKeyId,
    /// The handshake.
    pub onionskin: Onionskin,
}

/// Some bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// Which stream.
    pub stream: StreamId,
    /// Flags for the stream.
    pub flags: DataFlags,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The effects of a `Data` message on its stream besides carrying bytes (§7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataFlags {
    /// The stream begins here; its first byte is the service.
    pub open: bool,
    /// The sender says nothing more on this stream.
    pub fin: bool,
    /// The stream is over, now, both ways; no bytes.
    pub reset: bool,
}

/// Leave to send more `Data` cells, by proof of having received some (§7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The tag of the last cell taken.
    pub tag: [u8; TAG_LEN],
    /// How many more cells may be sent.
    pub cells: u16,
}

const PADDING: u8 = 0;
const EXTEND: u8 = 1;
const EXTENDED: u8 = 2;
const EXTEND_REFUSED: u8 = 3;
const DATA: u8 = 4;
const CREDIT: u8 = 5;

const FLAG_OPEN: u8 = 1;
const FLAG_FIN: u8 = 2;
const FLAG_RESET: u8 = 4;

/// Length of an encoded `Extend`, bytes.
pub const EXTEND_LEN: usize = 1 + RelayId::LEN + OnionKeyId::LEN + ONIONSKIN_LEN;

const _: () = assert!(EXTEND_LEN <= crate::limits::forward_room(crate::limits::HOPS_MAX));
const _: () = assert!(REPLY_LEN < crate::limits::BACKWARD_ROOM);

impl<'a> RelayMsg<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// Anything that is not exactly one message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            PADDING => Self::Padding,
            EXTEND => Self::Extend(Box::new(Extend::decode(&mut reader)?)),
            EXTENDED => Self::Extended(Box::new(Reply(reader.array()?))),
            EXTEND_REFUSED => Self::ExtendRefused(match reader.u8()? {
                1 => ExtendRefusal::UnknownRelay,
                2 => ExtendRefusal::Unreachable,
                3 => ExtendRefusal::Refused,
                _ => return Err(Malformed::Value),
            }),
            DATA => return Data::decode(reader).map(Self::Data),
            CREDIT => Self::Credit(Credit {
                tag: reader.array()?,
                cells: reader.u16()?,
            }),
            _ => return Err(Malformed::Value),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Appends the message's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Padding => out.push(PADDING),
            Self::Extend(extend) => {
                out.push(EXTEND);
                out.extend_from_slice(extend.relay.as_bytes());
                out.extend_from_slice(extend.onion_key.as_bytes());
                out.extend_from_slice(&extend.onionskin.0);
            }
            Self::Extended(reply) => {
                out.push(EXTENDED);
                out.extend_from_slice(&reply.0);
            }
            Self::ExtendRefused(refusal) => {
                out.extend_from_slice(&[EXTEND_REFUSED, *refusal as u8]);
            }
            Self::Data(data) => data.encode(out),
            Self::Credit(credit) => {
                out.push(CREDIT);
                out.extend_from_slice(&credit.tag);
                out.extend_from_slice(&credit.cells.to_be_bytes());
            }
        }
    }
}

impl Extend {
    /// The onion key id stands twice and must be equal (§6.2(5)): this relay reads the same id as
    /// the next one.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let relay = RelayId(reader.array()?);
        let onion_key = OnionKeyId(reader.array()?);
        let onionskin = Onionskin(reader.array()?);
        if onionskin.onion_key() != onion_key {
            return Err(Malformed::Value);
        }
        Ok(Self {
            relay,
            onion_key,
            onionskin,
        })
    }
}

impl<'a> Data<'a> {
    fn decode(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let stream = StreamId(reader.u16()?);
        let flags = DataFlags::decode(reader.u8()?)?;
        let bytes = reader.rest();
        if stream.0 == 0 || (flags.reset && !bytes.is_empty()) {
            return Err(Malformed::Value);
        }
        Ok(Self {
            stream,
            flags,
            bytes,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(DATA);
        out.extend_from_slice(&self.stream.0.to_be_bytes());
        out.push(self.flags.encode());
        out.extend_from_slice(self.bytes);
    }
}

impl DataFlags {
    fn decode(byte: u8) -> Result<Self, Malformed> {
        let flags = Self {
            open: byte & FLAG_OPEN != 0,
            fin: byte & FLAG_FIN != 0,
            reset: byte & FLAG_RESET != 0,
        };
        let is_known = byte & !(FLAG_OPEN | FLAG_FIN | FLAG_RESET) == 0;
        let is_sole_reset = !flags.reset || byte == FLAG_RESET;
        if is_known && is_sole_reset {
            Ok(flags)
        } else {
            Err(Malformed::Value)
        }
    }

    const fn encode(self) -> u8 {
        (self.open as u8) * FLAG_OPEN
            + (self.fin as u8) * FLAG_FIN
            + (self.reset as u8) * FLAG_RESET
    }
}
