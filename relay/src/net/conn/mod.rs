//! The task that owns one link: it alone reads and writes the link's stream and its forwarding
//! table.
//!
//! Each time it wakes it writes a batch and reads a batch, each cell straight into the buffer in
//! which it goes onward; see [`Forwarding`]. A cell costs no lock and no allocation.
//!
//! Never decides about circuits: it hands cells that it can't forward to the control plane, which
//! answers by [`TableUpdates`] and by its queue.

mod reader;
mod writer;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::limits::LINK_CLOSING_MAX;
use umbel_proto::link::Padding;
use umbel_proto::time::Instant;

use super::forwarding::Forwarding;
use super::pool::CellCache;
use super::queue::LinkQueue;
use super::timer::{Expired, LinkTimer};
use super::{LinkHandle, LinkReport, Shared};
use crate::forward::TableUpdates;
use crate::forward::outgoing::Phase;
use reader::Reader;
use writer::Writer;

/// Most cells taken from the queue with one lock.
const WRITE_BATCH_CELLS: usize = 32;
/// Most batches written before reading has its turn.
const WRITE_ROUNDS: usize = 4;

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum LinkEnd {
    /// We closed it.
    Closed,
    /// The peer closed it.
    ByPeer,
    /// The peer broke a rule of the link.
    Violation(Violation),
    /// Nothing came for too long.
    Silent,
    /// The peer does not read what it is sent.
    Overrun,
    /// The connection failed.
    Io(io::Error),
    /// The relay stopped.
    Stopped,
    /// A fault of ours: the task panicked.
    Fault,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::ByPeer => f.write_str("closed by the peer"),
            Self::Violation(violation) => write!(f, "the peer broke a rule: {violation:?}"),
            Self::Silent => f.write_str("the peer was silent for too long"),
            Self::Overrun => f.write_str("the peer does not read"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Stopped => f.write_str("the relay stopped"),
            Self::Fault => f.write_str("a fault of ours"),
        }
    }
}

/// One link's task. `S` is the stream that carries it: TLS in production.
pub(crate) struct Conn<S> {
    stream: S,
    shared: Arc<Shared>,
    queue: Arc<LinkQueue>,
    updates: Arc<TableUpdates<Arc<LinkQueue>>>,
    forwarding: Forwarding,
    cells: CellCache,
    reader: Reader,
    writer: Writer,
    timer: LinkTimer,
    /// Whether the peer is a client: cells written to it are counted.
    is_client: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// The task of a link that is up, to a relay or to a client. The control plane reaches it by
    /// `handle`.
    pub(crate) fn new(
        stream: S,
        shared: Arc<Shared>,
        handle: LinkHandle,
        padding: Option<Padding>,
        is_client: bool,
    ) -> Self {
        let LinkHandle { queue, updates } = handle;
        Self {
            stream,
            forwarding: Forwarding::new(queue.link()),
            cells: CellCache::new(Arc::clone(&shared.pool)),
            timer: LinkTimer::new(padding, shared.clock),
            shared,
            queue,
            updates,
            reader: Reader::default(),
            writer: Writer::default(),
            is_client,
        }
    }

    /// Carries cells until the link ends. A panic, which reports itself, ends this link only, and
    /// the control plane learns of that end as of any other.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would keep its argument twice, at each link"
    )]
    pub(crate) fn run(mut self) -> impl Future<Output = LinkEnd> {
        async move {
            let end = caught(pin!(self.carry())).await;
            caught(pin!(self.finish(&end))).await;
            self.report_rest().await;
            end
        }
    }

    /// Ends the link: sends the queued cells, then close_notify (§2.6(4)).
    ///
    /// Every cause ends the link in the same way, so that the peer can't learn which rule it broke,
    /// or that it broke one (§2.6(5)). Only a broken connection ends without a word.
    async fn finish(&mut self, end: &LinkEnd) -> LinkEnd {
        if matches!(end, LinkEnd::Violation(_) | LinkEnd::Silent) {
            self.queue.close();
            self.timer.begin_closing(self.shared.clock.now());
            poll_fn(|cx| self.poll_write_only(cx)).await;
        }
        self.queue.shut();
        if !matches!(end, LinkEnd::Io(_)) {
            // The peer may not read it; the link is over either way.
            let _ = timeout(LINK_CLOSING_MAX, self.stream.shutdown()).await;
        }
        LinkEnd::Closed
    }

    async fn carry(&mut self) -> LinkEnd {
        loop {
            let carried = poll_fn(|cx| self.poll_carry(cx)).await;
            // Also when the link ends: the same batch may have broken circuits of other links.
            let reported = self.report().await;
            if let Err(end) = carried.and(reported) {
                return end;
            }
        }
    }

    /// Reports events to the control plane. While that has no room, nothing more is read from this
    /// link, but queued cells are written: a busy control plane slows those who keep it busy.
    /// Events that could not be reported because the link ended stay, for
    /// [`report_rest`](Self::report_rest).
    async fn report(&mut self) -> Result<(), LinkEnd> {
        if self.forwarding.events.is_empty() {
            return Ok(());
        }
        let control = self.shared.control.clone();
        let permit = match control.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Closed(())) => return Err(LinkEnd::Stopped),
            Err(TrySendError::Full(())) => tokio::select! {
                permit = control.reserve() => permit.map_err(|_| LinkEnd::Stopped)?,
                end = poll_fn(|cx| self.poll_write_only(cx)) => return Err(end),
            },
        };
        permit.send(LinkReport::Events(std::mem::take(
            &mut self.forwarding.events,
        )));
        Ok(())
    }

    /// Hands over what is left once the link has ended: other links' circuits may depend on it.
    async fn report_rest(&mut self) {
        let events = std::mem::take(&mut self.forwarding.events);
        if !events.is_empty() {
            // A closed channel means that the relay has stopped.
            let _ = self.shared.control.send(LinkReport::Events(events)).await;
        }
    }

    /// Ready when there is something to report, or the link has ended.
    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        let now = self.shared.clock.now();
        self.poll_timer(cx)?;
        let phase = self.transmit(cx, now)?;
        if phase == Phase::Open {
            self.receive(cx, now)?;
        }
        if self.forwarding.events.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_write_only(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        let now = self.shared.clock.now();
        match self.poll_timer(cx).and_then(|()| self.transmit(cx, now)) {
            Ok(_) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        while self.timer.poll_expired(cx).is_ready() {
            match self.timer.on_expired(self.shared.clock.now()) {
                Expired::Nothing => {}
                Expired::Keepalive => {
                    self.cells.clear();
                    self.queue.shrink();
                    let padding = Cell::new(None, Command::Padding);
                    self.forwarding
                        .push(&self.queue, padding, &mut self.cells, &self.shared);
                }
                Expired::Silent => return Err(LinkEnd::Silent),
                Expired::Closing => return Err(LinkEnd::Closed),
            }
        }
        Ok(())
    }

    /// Writes until nothing waits or the stream takes no more.
    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Phase, LinkEnd> {
        let mut phase = Phase::Open;
        for _ in 0..WRITE_ROUNDS {
            let written = self
                .writer
                .poll_write(cx, &mut self.stream, &mut self.cells);
            self.on_sent(now);
            let is_taken = written.map_err(LinkEnd::Io)?.is_ready();
            // Until the stream has taken all of a batch, the others wait in the queue, where
            // circuits take turns.
            phase = self.queue.take(
                cx,
                &mut self.writer.outbox,
                if is_taken { WRITE_BATCH_CELLS } else { 0 },
            );
            match phase {
                Phase::Open => {}
                Phase::Closing => self.timer.begin_closing(now),
                Phase::Closed => return Err(LinkEnd::Overrun),
            }
            match (is_taken, self.writer.outbox.is_empty(), phase) {
                (true, true, Phase::Closing) => return Err(LinkEnd::Closed),
                (true, true, _) | (false, _, _) => return Ok(phase),
                (true, false, _) => {}
            }
        }
        cx.waker().wake_by_ref(); // more waits, but reading has its turn
        Ok(phase)
    }

    fn on_sent(&mut self, now: Instant) {
        let count = self.writer.take_written();
        if count == 0 {
            return;
        }
        self.queue.budget().release(count);
        self.timer.on_sent(now);
        if self.is_client {
            self.shared
                .counters
                .client_cells
                .fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Reads a batch and forwards it.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), LinkEnd> {
        let read = self.reader.read(cx, &mut self.stream, &mut self.cells);
        // After reading and before any cell is handled: see `TableUpdates`. Also when no cell came,
        // so that removed keys are erased promptly.
        self.forwarding.apply(&self.updates);
        let received = &mut self.reader.received;
        if !received.is_empty() {
            self.timer.on_received(now);
            self.forwarding
                .handle_cells(received, &mut self.cells, &self.shared)?;
        }
        read
    }
}

/// State that a panic leaves half-done is not used again, except for the queue, which is emptied,
/// and the stream, which is closed. `work` is pinned by the caller: moved in here, it would be
/// stored twice on each link.
async fn caught(mut work: Pin<&mut impl Future<Output = LinkEnd>>) -> LinkEnd {
    let mut poll = |cx: &mut Context<'_>| catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
    poll_fn(|cx| poll(cx).unwrap_or(Poll::Ready(LinkEnd::Fault))).await
}

/// Whatever ended the task, nothing of it stays in the account.
impl<S> Drop for Conn<S> {
    fn drop(&mut self) {
        self.queue.shut();
        self.queue.budget().release(self.writer.charged_cells());
    }
}

#[cfg(test)]
mod tests;
