//! The streams of one circuit, as either end keeps them: frames in, bytes for one `Data` message at
//! a time out (docs/protocol.md §7.1, §7.2).
//!
//! Knows neither cells nor windows. What a peer can make it hold is bounded: streams, half-received
//! frames, and one event for each whole frame, which the caller must take after each message.

use std::collections::{BTreeMap, VecDeque};

use super::half::{ReceiveHalf, SendHalf};
use crate::Violation;
use crate::limits::{
    BACKWARD_DATA_MAX, FINISHED_STREAMS_MAX, FORWARD_DATA_MAX, FRAME_LEN_MAX, OUTGOING_BYTES_MAX,
    REASSEMBLY_BYTES_MAX, STREAMS_MAX,
};
use crate::message::{Data, DataFlags, Service, StreamId};
use crate::wire::Malformed;

/// Why a frame was not taken: a limit of docs/protocol.md §7 is reached. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// [`OUTGOING_BYTES_MAX`] bytes wait to be sent; later it may work.
    Bytes,
    /// [`STREAMS_MAX`] streams are open; later it may work.
    Streams,
    /// Every stream id was used once: this circuit opens no more streams.
    Ids,
    /// A frame is empty, or longer than [`FRAME_LEN_MAX`].
    FrameLen,
}

/// Which end of the circuit this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Opens streams; speaks forward.
    Origin,
    /// Takes streams; speaks backward.
    Terminal,
}

impl End {
    /// Most stream bytes in one message from this end (§7.1(1)).
    const fn data_max(self) -> usize {
        match self {
            Self::Origin => FORWARD_DATA_MAX,
            Self::Terminal => BACKWARD_DATA_MAX,
        }
    }

    const fn peer(self) -> Self {
        match self {
            Self::Origin => Self::Terminal,
            Self::Terminal => Self::Origin,
        }
    }
}

/// An action of the peer on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A frame came, whole. `fin`: nothing follows it.
    Frame {
        stream: StreamId,
        service: Service,
        frame: Vec<u8>,
        is_first: bool,
        fin: bool,
    },
    /// Nothing follows: the peer finished without a frame, or the stream was reset.
    Ended { stream: StreamId, reset: bool },
}

impl StreamEvent {
    const fn stream(&self) -> StreamId {
        match self {
            Self::Frame { stream, .. } | Self::Ended { stream, .. } => *stream,
        }
    }
}

/// The contents of one `Data` message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) stream: StreamId,
    pub(super) flags: DataFlags,
    pub(super) bytes: Vec<u8>,
}

/// All streams of one circuit, at one end.
pub(super) struct Streams {
    end: End,
    table: BTreeMap<StreamId, Stream>,
    /// Streams with something to send, in the order of their turns; one that gives up its turn
    /// keeps its place.
    turns: VecDeque<StreamId>,
    /// The highest id whose opening message has passed; zero before the first.
    last_opened: u16,
    /// The id of the next stream to open, while there is one.
    next_id: Option<StreamId>,
    /// The latest streams that both ends finished, oldest first: the peer's reset of one may still
    /// be on its way.
    finished: VecDeque<StreamId>,
    /// Bytes of frames not yet sent.
    outgoing_bytes: usize,
    /// Announced bytes of frames sent in part: the most that the peer may have to hold.
    begun_bytes: usize,
    /// Bytes of frames received in part.
    incoming_bytes: usize,
    events: VecDeque<StreamEvent>,
}

/// One stream, at one end.
struct Stream {
    service: Service,
    phase: Phase,
    send: SendHalf,
    receive: ReceiveHalf,
    /// Whether a frame has come on it.
    has_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Frames pass.
    Live,
    /// We reset it; the peer can't know yet.
    Resetting,
    /// Our reset was sent. Messages that arrive before the peer's reset were sent before it knew.
    ResetSent,
    /// The peer reset it; our own reset, which says that we know, is not sent yet.
    Answering,
}

impl Streams {
    pub(super) const fn new(end: End) -> Self {
        Self {
            end,
            table: BTreeMap::new(),
            turns: VecDeque::new(),
            last_opened: 0,
            next_id: Some(StreamId(1)),
            finished: VecDeque::new(),
            outgoing_bytes: 0,
            begun_bytes: 0,
            incoming_bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// Whether a stream was ever opened.
    pub(super) fn is_used(&self) -> bool {
        self.last_opened != 0 || self.next_id != Some(StreamId(1))
    }

    /// How many streams are not over.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of frames not yet sent.
    pub(super) const fn outgoing_bytes(&self) -> usize {
        self.outgoing_bytes
    }

    /// Bytes that frames take: those on their way out, the begun ones whole, and those
    /// half-received.
    pub(super) const fn held_bytes(&self) -> usize {
        self.outgoing_bytes + self.begun_bytes + self.incoming_bytes
    }

    /// Opens a stream with its first frame.
    pub(super) fn open(
        &mut self,
        service: Service,
        frame: &[u8],
        fin: bool,
    ) -> Result<StreamId, Full> {
        assert!(self.end == End::Origin, "only the origin opens streams");
        let id = self.next_id.ok_or(Full::Ids)?;
        if self.table.len() >= STREAMS_MAX {
            return Err(Full::Streams);
        }
        self.take_outgoing_room(frame)?;
        let mut stream = Stream::new(service, SendHalf::unopened());
        stream.send.push(frame);
        if fin {
            stream.send.finish();
        }
        self.table.insert(id, stream);
        self.turns.push_back(id);
        self.next_id = id.0.checked_add(1).map(StreamId);
        Ok(id)
    }

    /// Queues a frame; `fin`: it is the last. On a stream that is over it does nothing; an event
    /// has reported that end.
    pub(super) fn send(&mut self, id: StreamId, frame: &[u8], fin: bool) -> Result<(), Full> {
        let Some(stream) = self
            .table
            .get(&id)
            .filter(|stream| stream.phase == Phase::Live)
        else {
            return Ok(());
        };
        assert!(!stream.send.is_finished(), "nothing is sent after the end");
        self.take_outgoing_room(frame)?;
        if let Some(stream) = self.table.get_mut(&id) {
            stream.send.push(frame);
            if fin {
                stream.send.finish();
            }
        }
        self.queue_turn(id);
        Ok(())
    }

    /// A stream that is not over.
    fn live(&mut self, id: StreamId) -> Option<&mut Stream> {
        let stream = self.table.get_mut(&id);
        stream.filter(|stream| stream.phase == Phase::Live)
    }

    /// Says nothing more on a stream. On a stream that is over, or finished, it does nothing.
    pub(super) fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.live(id) else {
            return;
        };
        if !stream.send.is_finished() {
            stream.send.finish();
            self.queue_turn(id);
        }
    }

    /// Ends a stream both ways, now: no event of it comes after this. On a stream that is over it
    /// does nothing. One whose opening message was not sent leaves a gap in the ids (§7.1(10)).
    pub(super) fn reset(&mut self, id: StreamId) {
        self.events.retain(|event| event.stream() != id);
        let Some(stream) = self.live(id) else {
            return;
        };
        let is_opened = stream.send.is_opened();
        stream.phase = Phase::Resetting;
        self.drop_bytes(id);
        if is_opened {
            self.queue_turn_first(id);
        } else {
            self.remove(id);
        }
    }

    /// The peer's next action; the caller takes all events after each message.
    pub(super) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Takes what a `Data` message says (§7.1(7) for streams that were reset).
    pub(super) fn handle_data(&mut self, data: &Data<'_>) -> Result<(), Violation> {
        if data.bytes.len() > self.end.peer().data_max() {
            return Err(Malformed::TooLong.into());
        }
        if data.flags.open {
            return self.on_open(data);
        }
        let Some(stream) = self
            .table
            .get_mut(&data.stream)
            .filter(|stream| stream.send.is_opened())
        else {
            return self.on_unknown(data);
        };
        match (stream.phase, data.flags.reset) {
            (Phase::Live, false) => self.on_bytes(data.stream, data.bytes, data.flags.fin),
            (Phase::Live, true) => {
                self.on_reset(data.stream);
                Ok(())
            }
            (Phase::Resetting, true) => {
                stream.phase = Phase::Answering;
                Ok(())
            }
            (Phase::ResetSent, true) => {
                self.remove(data.stream);
                Ok(())
            }
            (Phase::Resetting | Phase::ResetSent, false) => self.on_crossing(data),
            (Phase::Answering, _) => Err(Violation::Stream),
        }
    }

    /// The bytes of the next `Data` message to send. Resets go first (§7.1(9)), then streams take
    /// turns, a message each (§7.2(5)).
    pub(super) fn poll_segment(&mut self) -> Option<Segment> {
        let mut may_begin = true;
        let mut index = 0;
        while let Some(&id) = self.turns.get(index) {
            if let Some(segment) = self.take_turn(id, &mut may_begin) {
                self.turns.remove(index);
                self.end_turn(id);
                return Some(segment);
            }
            index += 1;
        }
        None
    }

    fn take_outgoing_room(&mut self, frame: &[u8]) -> Result<(), Full> {
        if frame.is_empty() || frame.len() > FRAME_LEN_MAX {
            return Err(Full::FrameLen);
        }
        // §7.3(7)
        if self.outgoing_bytes + frame.len() > OUTGOING_BYTES_MAX {
            return Err(Full::Bytes);
        }
        self.outgoing_bytes += frame.len();
        Ok(())
    }

    /// A stream begins: at the terminal only, under an id above all before it (§7.1(2)), while
    /// fewer than [`STREAMS_MAX`] are open (§7.1(4)).
    fn on_open(&mut self, data: &Data<'_>) -> Result<(), Violation> {
        let is_next = self.end == End::Terminal && data.stream.0 > self.last_opened;
        if !is_next || self.table.len() >= STREAMS_MAX {
            return Err(Violation::Stream);
        }
        // §7.1(3)
        let (&service, bytes) = data.bytes.split_first().ok_or(Violation::Stream)?;
        let service = Service::from_number(service).ok_or(Violation::Stream)?;
        self.last_opened = data.stream.0;
        self.table
            .insert(data.stream, Stream::new(service, SendHalf::opened()));
        if bytes.is_empty() && !data.flags.fin {
            Ok(())
        } else {
            self.on_bytes(data.stream, bytes, data.flags.fin)
        }
    }

    /// A message of no stream we know: only a reset that crossed the stream's end on the way
    /// (§7.1(8)).
    fn on_unknown(&mut self, data: &Data<'_>) -> Result<(), Violation> {
        let crossed = self
            .finished
            .iter()
            .position(|&finished| finished == data.stream);
        match crossed {
            Some(index) if data.flags.reset => {
                self.finished.remove(index);
                Ok(())
            }
            _ => Err(Violation::Stream),
        }
    }

    /// A message that the peer sent before it knew of our reset (§7.1(7)).
    fn on_crossing(&mut self, data: &Data<'_>) -> Result<(), Violation> {
        let Some(stream) = self.table.get_mut(&data.stream) else {
            return Ok(());
        };
        stream.receive.skip(data.bytes, data.flags.fin)?;
        // The peer has both ends of it: for the peer the stream is over, and it won't answer our
        // reset.
        if data.flags.fin && stream.send.is_fin_sent() {
            self.remove_finished(data.stream);
        }
        Ok(())
    }

    fn on_reset(&mut self, id: StreamId) {
        self.drop_bytes(id);
        if let Some(stream) = self.table.get_mut(&id) {
            stream.phase = Phase::Answering;
        }
        self.events.push_back(StreamEvent::Ended {
            stream: id,
            reset: true,
        });
        self.queue_turn_first(id);
    }

    fn on_bytes(&mut self, id: StreamId, mut bytes: &[u8], fin: bool) -> Result<(), Violation> {
        let Some(stream) = self.table.get_mut(&id) else {
            return Err(Violation::Stream);
        };
        stream.receive.begin(bytes, fin)?;
        self.incoming_bytes -= stream.receive.buffered_len();
        let mut is_last_told = false;
        while !bytes.is_empty() {
            if let Some(frame) = stream.receive.take(&mut bytes)? {
                is_last_told = fin && bytes.is_empty();
                let service = stream.service;
                let is_first = !core::mem::replace(&mut stream.has_told, true);
                self.events.push_back(StreamEvent::Frame {
                    stream: id,
                    service,
                    frame,
                    is_first,
                    fin: is_last_told,
                });
            }
        }
        self.incoming_bytes += stream.receive.buffered_len();
        // §7.2(3)
        if self.incoming_bytes > REASSEMBLY_BYTES_MAX {
            return Err(Violation::FrameLen);
        }
        if fin {
            stream.receive.finish()?;
            let is_over = stream.send.is_fin_sent();
            if !is_last_told {
                self.events.push_back(StreamEvent::Ended {
                    stream: id,
                    reset: false,
                });
            }
            if is_over {
                self.remove_finished(id);
            }
        }
        Ok(())
    }

    /// The stream's message for its turn; `None` while its next frame has to wait for others to be
    /// sent (§7.2(4)).
    fn take_turn(&mut self, id: StreamId, may_begin: &mut bool) -> Option<Segment> {
        let stream = self.table.get_mut(&id)?;
        if stream.phase != Phase::Live {
            return Some(Segment {
                stream: id,
                flags: DataFlags {
                    reset: true,
                    ..DataFlags::default()
                },
                bytes: Vec::new(),
            });
        }
        let mut bytes = Vec::with_capacity(self.end.data_max());
        let open = !stream.send.is_opened();
        if open {
            bytes.push(stream.service as u8);
        }
        let begin_room = if *may_begin {
            REASSEMBLY_BYTES_MAX - self.begun_bytes
        } else {
            0
        };
        let packed = stream
            .send
            .pack(&mut bytes, self.end.data_max(), begin_room);
        self.outgoing_bytes -= packed.sent_bytes;
        self.begun_bytes = self.begun_bytes + packed.begun_bytes - packed.ended_bytes;
        *may_begin &= !packed.is_held;
        let fin = stream.send.take_fin();
        if bytes.is_empty() && !fin {
            return None;
        }
        Some(Segment {
            stream: id,
            flags: DataFlags {
                open,
                fin,
                reset: false,
            },
            bytes,
        })
    }

    /// Updates the stream after one of its messages was made.
    fn end_turn(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else {
            return;
        };
        match stream.phase {
            Phase::Live => {
                if stream.send.open() {
                    self.last_opened = id.0;
                }
                if stream.send.has_more() {
                    self.turns.push_back(id);
                } else if stream.send.is_fin_sent() && stream.receive.is_finished() {
                    self.remove_finished(id);
                }
            }
            Phase::Resetting => stream.phase = Phase::ResetSent,
            Phase::Answering => self.remove(id),
            Phase::ResetSent => unreachable!("a reset is sent once"),
        }
    }

    fn queue_turn(&mut self, id: StreamId) {
        if !self.turns.contains(&id) {
            self.turns.push_back(id);
        }
    }

    /// Resets go first (§7.1(9)), so that the peer frees its memory for the stream before more data
    /// arrives.
    fn queue_turn_first(&mut self, id: StreamId) {
        self.turns.retain(|&other| other != id);
        self.turns.push_front(id);
    }

    /// Forgets what a stream holds, both ways.
    fn drop_bytes(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else {
            return;
        };
        let dropped = stream.send.clear();
        self.outgoing_bytes -= dropped.outgoing_bytes;
        self.begun_bytes -= dropped.begun_bytes;
        self.incoming_bytes -= stream.receive.clear();
    }

    /// A stream is over by both its ends. The peer may not know yet, and reset it.
    fn remove_finished(&mut self, id: StreamId) {
        self.remove(id);
        if self.finished.len() == FINISHED_STREAMS_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(id);
    }

    fn remove(&mut self, id: StreamId) {
        self.table.remove(&id);
        self.turns.retain(|&other| other != id);
    }
}

impl Stream {
    const fn new(service: Service, send: SendHalf) -> Self {
        Self {
            service,
            phase: Phase::Live,
            send,
            receive: ReceiveHalf::new(),
            has_told: false,
        }
    }
}
