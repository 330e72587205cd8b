//! The two halves of a stream: frames on their way out, and the frame that is coming in
//! (docs/protocol.md §7.2).
//!
//! A frame is its length (4 bytes, big-endian, 1 to [`FRAME_LEN_MAX`]) and its bytes.

use std::collections::VecDeque;

use crate::Violation;
use crate::limits::FRAME_LEN_MAX;

/// Length of what announces a frame's length, bytes.
const PREFIX_LEN: usize = 4;

/// The frames that one end still has to send on a stream.
pub(super) struct SendHalf {
    frames: VecDeque<Outgoing>,
    is_opened: bool,
    fin: Fin,
}

/// One frame on its way out: prefix and bytes, and how many of them are sent.
struct Outgoing {
    bytes: Vec<u8>,
    sent_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    /// More may be said.
    Unsaid,
    /// The stream ends after the queued frames.
    Queued,
    /// `FIN` was sent.
    Sent,
}

/// The effect of packing one message on the counts, in bytes of frames without their prefixes.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Bytes taken out of the queue.
    pub(super) sent_bytes: usize,
    /// Announced bytes of a frame that was begun and continues in a later message.
    pub(super) begun_bytes: usize,
    /// Announced bytes of a frame from an earlier message that is now through.
    pub(super) ended_bytes: usize,
    /// Whether a frame was held back because there is no room to begin it.
    pub(super) is_held: bool,
}

/// The dropped amounts, in bytes of frames without their prefixes.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) outgoing_bytes: usize,
    pub(super) begun_bytes: usize,
}

impl SendHalf {
    /// Of a stream whose opening message is not sent yet.
    pub(super) const fn unopened() -> Self {
        Self {
            frames: VecDeque::new(),
            is_opened: false,
            fin: Fin::Unsaid,
        }
    }

    /// Of a stream that the peer opened.
    pub(super) const fn opened() -> Self {
        Self {
            frames: VecDeque::new(),
            is_opened: true,
            fin: Fin::Unsaid,
        }
    }

    pub(super) const fn is_opened(&self) -> bool {
        self.is_opened
    }

    /// The opening message is sent; returns whether it was this one.
    pub(super) const fn open(&mut self) -> bool {
        !core::mem::replace(&mut self.is_opened, true)
    }

    /// Whether nothing more may be said.
    pub(super) fn is_finished(&self) -> bool {
        self.fin != Fin::Unsaid
    }

    /// Whether `FIN` was sent.
    pub(super) fn is_fin_sent(&self) -> bool {
        self.fin == Fin::Sent
    }

    /// Whether there is another message to send.
    pub(super) fn has_more(&self) -> bool {
        !self.frames.is_empty() || self.fin == Fin::Queued
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: &[u8]) {
        assert!(!self.is_finished() && !frame.is_empty() && frame.len() <= FRAME_LEN_MAX);
        let len = u32::try_from(frame.len())
            .unwrap_or_else(|_| unreachable!("a frame's length is below FRAME_LEN_MAX"));
        let bytes = [&len.to_be_bytes(), frame].concat();
        self.frames.push_back(Outgoing { bytes, sent_len: 0 });
    }

    /// Ends the stream after the queued frames.
    pub(super) fn finish(&mut self) {
        assert!(!self.is_finished(), "a stream is finished once");
        self.fin = Fin::Queued;
    }

    /// Moves as many bytes as fit to `out`, which grows to at most `len_max`. A frame that would
    /// not be through with this message is begun only if it announces at most `begin_room` bytes.
    pub(super) fn pack(&mut self, out: &mut Vec<u8>, len_max: usize, begin_room: usize) -> Packed {
        let mut packed = Packed::default();
        while let Some(frame) = self.frames.front_mut() {
            let room = len_max - out.len();
            let is_through = frame.rest().len() <= room;
            let is_new = frame.sent_len == 0;
            if !is_through && is_new && (frame.len() > begin_room || room <= PREFIX_LEN) {
                packed.is_held = frame.len() > begin_room;
                break;
            }
            packed.sent_bytes += frame.move_to(out, room);
            match (is_new, is_through) {
                (true, false) => packed.begun_bytes = frame.len(),
                (false, true) => packed.ended_bytes = frame.len(),
                (true, true) | (false, false) => {}
            }
            if !is_through {
                break;
            }
            self.frames.pop_front();
        }
        packed
    }

    /// Whether this message is the last; asked once, after packing.
    pub(super) fn take_fin(&mut self) -> bool {
        let is_last = self.fin == Fin::Queued && self.frames.is_empty();
        if is_last {
            self.fin = Fin::Sent;
        }
        is_last
    }

    /// Drops what is queued.
    pub(super) fn clear(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        for frame in core::mem::take(&mut self.frames) {
            dropped.outgoing_bytes += frame.len() - frame.sent_len.saturating_sub(PREFIX_LEN);
            dropped.begun_bytes += if frame.sent_len > 0 { frame.len() } else { 0 };
        }
        dropped
    }
}

impl Outgoing {
    /// Length of the frame without its prefix.
    fn len(&self) -> usize {
        self.bytes.len() - PREFIX_LEN
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent_len..).unwrap_or_default()
    }

    /// Moves at most `room` bytes to `out`; returns how many were of the frame itself.
    fn move_to(&mut self, out: &mut Vec<u8>, room: usize) -> usize {
        let rest = self.rest();
        let moved = rest.get(..room).unwrap_or(rest);
        let moved_len = moved.len();
        out.extend_from_slice(moved);
        let before = self.sent_len.saturating_sub(PREFIX_LEN);
        self.sent_len += moved_len;
        self.sent_len.saturating_sub(PREFIX_LEN) - before
    }
}

/// The frame that is coming in from the other end, as far as it came.
pub(super) struct ReceiveHalf {
    /// The frame's length, once it is known; zero before.
    announced_len: usize,
    /// Of the prefix until the length is known, then of the frame. Grows as bytes arrive, never by
    /// what is announced.
    partial: Vec<u8>,
    is_finished: bool,
}

impl ReceiveHalf {
    pub(super) const fn new() -> Self {
        Self {
            announced_len: 0,
            partial: Vec::new(),
            is_finished: false,
        }
    }

    /// Whether the peer says nothing more.
    pub(super) const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Bytes held of a frame that is not whole, without its prefix.
    pub(super) const fn buffered_len(&self) -> usize {
        if self.announced_len == 0 {
            0
        } else {
            self.partial.len()
        }
    }

    /// A message that says this much may come: it says something (§7.1(5)), and not after the end
    /// (§7.1(6)).
    pub(super) const fn begin(&self, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        if self.is_finished || (bytes.is_empty() && !fin) {
            Err(Violation::Stream)
        } else {
            Ok(())
        }
    }

    /// Takes bytes off the front of `bytes` until a frame is whole or none are left. The length is
    /// checked before anything is kept (§7.2(1)).
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Violation> {
        if self.announced_len == 0 {
            self.append(bytes, PREFIX_LEN);
            let Ok(prefix) = <[u8; PREFIX_LEN]>::try_from(self.partial.as_slice()) else {
                return Ok(None);
            };
            let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
            if len == 0 || len > FRAME_LEN_MAX {
                return Err(Violation::FrameLen);
            }
            self.announced_len = len;
            self.partial = Vec::new();
        }
        self.append(bytes, self.announced_len);
        if self.partial.len() < self.announced_len {
            return Ok(None);
        }
        self.announced_len = 0;
        Ok(Some(core::mem::take(&mut self.partial)))
    }

    /// The peer ends the stream. It must not do so inside a frame (§7.2(2)).
    pub(super) const fn finish(&mut self) -> Result<(), Violation> {
        self.is_finished = true;
        if self.announced_len == 0 && self.partial.is_empty() {
            Ok(())
        } else {
            Err(Violation::Stream)
        }
    }

    /// Lets bytes of a stream that we have reset go by.
    pub(super) fn skip(&mut self, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        self.begin(bytes, fin)?;
        self.is_finished = fin;
        Ok(())
    }

    /// Drops what is half-received; returns how many bytes of frames it was.
    pub(super) fn clear(&mut self) -> usize {
        let buffered_len = self.buffered_len();
        self.announced_len = 0;
        self.partial = Vec::new();
        buffered_len
    }

    /// Moves bytes to `partial` until it holds `len` of them. Its room at most doubles, and never
    /// exceeds `len`.
    fn append(&mut self, bytes: &mut &[u8], len: usize) {
        let wanted_len = len - self.partial.len();
        let (head, rest) = bytes.split_at_checked(wanted_len).unwrap_or((bytes, &[]));
        *bytes = rest;
        let needed_len = self.partial.len() + head.len();
        if needed_len > self.partial.capacity() {
            let room = needed_len.max(2 * self.partial.capacity()).min(len);
            self.partial.reserve_exact(room - self.partial.len());
        }
        self.partial.extend_from_slice(head);
    }
}
