//! The task that owns one link: it alone reads and writes the link's stream and its forwarding
//! table.
//!
//! Each time it wakes it writes a batch and reads a batch, each cell straight into the buffer in
//! which it goes onward; see [`Forwarding`]. A cell costs no lock and no allocation.
//!
//! Never decides about circuits: what it can't forward goes to the control plane, which tells it
//! what to do by [`TableUpdates`] and by its queue.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;
use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::limits::{CELL_LEN, LINK_CLOSING_MAX};
use umbel_proto::link::Padding;
use umbel_proto::time::Instant;

use super::forwarding::Forwarding;
use super::pool::CellCache;
use super::queue::LinkQueue;
use super::timer::{Expired, LinkTimer};
use super::{LinkHandle, LinkReport, Shared};
use crate::forward::TableUpdates;
use crate::forward::outgoing::{Phase, Pushed};

/// Most cells read before other links and this one's writing have their turn.
const READ_BATCH_CELLS: usize = 32;
/// Most cells taken from the queue with one lock.
const WRITE_BATCH_CELLS: usize = 32;
/// Cells written at once: they fill a TLS record.
const RECORD_CELLS: usize = 16 * 1024 / CELL_LEN;
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
    /// A cell of which only so many bytes have come.
    partial: Option<(Cell, usize)>,
    received: Vec<Cell>,
    /// Cells taken from the queue. Of the first, so many bytes are written.
    outbox: VecDeque<Cell>,
    written_len: usize,
    needs_flush: bool,
    timer: LinkTimer,
    /// Whether the peer is a client: what is written to it is counted.
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
            partial: None,
            received: Vec::new(),
            outbox: VecDeque::new(),
            written_len: 0,
            needs_flush: false,
            is_client,
        }
    }

    /// Carries cells until the link ends. A panic, which reports itself, ends this link only: the
    /// control plane is to hear of that end as of any other.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would keep its argument twice, at each link"
    )]
    pub(crate) fn run(mut self) -> impl Future<Output = LinkEnd> {
        async move {
            let end = caught(pin!(self.carry())).await;
            caught(pin!(self.finish(&end))).await;
            end
        }
    }

    /// Ends the link in the same way whatever ended it, so that the peer can't tell which rule it
    /// broke, or whether it broke one: what waits is sent, then TLS says that the end was meant
    /// (§2.6). Only a broken connection says nothing.
    async fn finish(&mut self, end: &LinkEnd) -> LinkEnd {
        if matches!(end, LinkEnd::Violation(_) | LinkEnd::Silent) {
            self.queue.close();
            self.timer.begin_closing(self.shared.clock.now());
            poll_fn(|cx| self.poll_write_only(cx)).await;
        }
        self.queue.shut();
        if !matches!(end, LinkEnd::Io(_)) {
            // It may not listen: whether it hears is its own affair.
            let _ = timeout(LINK_CLOSING_MAX, self.stream.shutdown()).await;
        }
        LinkEnd::Closed
    }

    async fn carry(&mut self) -> LinkEnd {
        loop {
            if let Err(end) = poll_fn(|cx| self.poll_carry(cx)).await {
                return end;
            }
            if let Err(end) = self.report().await {
                return end;
            }
        }
    }

    /// Hands what the control plane has to know to it. While it has no room nothing more is read
    /// from this link, but what waits is written: a busy control plane slows those who keep it
    /// busy.
    async fn report(&mut self) -> Result<(), LinkEnd> {
        let control = self.shared.control.clone();
        let report = LinkReport::Events(std::mem::take(&mut self.forwarding.events));
        let report = match control.try_send(report) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(LinkEnd::Stopped),
            Err(TrySendError::Full(report)) => report,
        };
        tokio::select! {
            sent = control.send(report) => sent.map_err(|_| LinkEnd::Stopped),
            end = poll_fn(|cx| self.poll_write_only(cx)) => Err(end),
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
                    self.queue
                        .push([Cell::new(None, Command::Padding)], &mut Pushed::default());
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
            let is_taken = self.poll_write(cx, now).map_err(LinkEnd::Io)?.is_ready();
            // Until the stream has taken all of a batch, the others wait in the queue, where
            // circuits take turns.
            phase = self.queue.take(
                cx,
                &mut self.outbox,
                if is_taken { WRITE_BATCH_CELLS } else { 0 },
            );
            match phase {
                Phase::Open => {}
                Phase::Closing => self.timer.begin_closing(now),
                Phase::Closed => return Err(LinkEnd::Overrun),
            }
            match (is_taken, self.outbox.is_empty(), phase) {
                (true, true, Phase::Closing) => return Err(LinkEnd::Closed),
                (true, true, _) | (false, _, _) => return Ok(phase),
                (true, false, _) => {}
            }
        }
        cx.waker().wake_by_ref(); // more waits, but reading has its turn
        Ok(phase)
    }

    fn on_sent(&mut self, count: usize, now: Instant) {
        self.queue.budget().release(count);
        self.timer.on_sent(now);
        if self.is_client {
            self.shared
                .counters
                .client_cells
                .fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Writes and flushes what was taken from the queue.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Poll<()>, io::Error> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); RECORD_CELLS];
            for (slice, cell) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(cell.as_bytes());
            }
            let mut unwritten = slices.as_mut_slice();
            IoSlice::advance_slices(&mut unwritten, self.written_len);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, unwritten) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => self.on_written(len, now),
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if self.needs_flush {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(flushed) => flushed?,
            }
            self.needs_flush = false;
        }
        Ok(Poll::Ready(()))
    }

    fn on_written(&mut self, len: usize, now: Instant) {
        self.needs_flush = true;
        self.written_len += len;
        let count = self.written_len / CELL_LEN;
        self.written_len %= CELL_LEN;
        self.outbox
            .drain(..count)
            .for_each(|cell| self.cells.put(cell));
        if count > 0 {
            self.on_sent(count, now);
        }
    }

    /// Reads a batch and forwards it.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), LinkEnd> {
        let mut end = None;
        while self.received.len() < READ_BATCH_CELLS {
            match self.poll_read_cell(cx) {
                Poll::Ready(Ok(cell)) => self.received.push(cell),
                Poll::Ready(Err(fault)) => {
                    end = Some(fault);
                    break;
                }
                Poll::Pending => break,
            }
        }
        if self.received.len() == READ_BATCH_CELLS {
            cx.waker().wake_by_ref(); // more may be there, but others come first
        }
        // After reading and before any cell is handled: see `TableUpdates`. Also when nothing came:
        // keys that are to be gone go.
        self.forwarding.apply(&self.updates);
        if !self.received.is_empty() {
            self.timer.on_received(now);
            self.forwarding
                .handle_cells(&mut self.received, &mut self.cells, &self.shared)?;
        }
        end.map_or(Ok(()), Err)
    }

    /// Reads straight into the cell that will go onward.
    fn poll_read_cell(&mut self, cx: &mut Context<'_>) -> Poll<Result<Cell, LinkEnd>> {
        let (mut cell, mut read_len) = self
            .partial
            .take()
            .unwrap_or_else(|| (self.cells.take(), 0));
        loop {
            let mut rest =
                ReadBuf::new(cell.as_bytes_mut().get_mut(read_len..).unwrap_or_default());
            let polled = Pin::new(&mut self.stream).poll_read(cx, &mut rest);
            let len = rest.filled().len();
            match polled {
                Poll::Pending if read_len == 0 => {
                    self.cells.put(cell);
                    return Poll::Pending;
                }
                Poll::Pending => {
                    self.partial = Some((cell, read_len));
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkEnd::Io(error))),
                Poll::Ready(Ok(())) if len == 0 => return Poll::Ready(Err(LinkEnd::ByPeer)),
                Poll::Ready(Ok(())) => read_len += len,
            }
            if read_len == CELL_LEN {
                return Poll::Ready(Ok(cell));
            }
        }
    }
}

/// What a panic leaves half-done is not used again, but for the queue, which is emptied, and the
/// stream, which is closed. The work stays where it is: moved in here it would be stored twice, at
/// each link.
async fn caught(mut work: Pin<&mut impl Future<Output = LinkEnd>>) -> LinkEnd {
    let mut poll = |cx: &mut Context<'_>| catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
    poll_fn(|cx| poll(cx).unwrap_or(Poll::Ready(LinkEnd::Fault))).await
}

/// Whatever ended the task, nothing of it stays in the account.
impl<S> Drop for Conn<S> {
    fn drop(&mut self) {
        self.queue.shut();
        self.queue.budget().release(self.outbox.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use umbel_proto::cell::DestroyReason;
    use umbel_proto::crypto::aead::LayerKey;
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::ids::CircId;
    use umbel_proto::limits::{CIRCUIT_QUEUE_CELLS_MAX, LINK_KEEPALIVE, LINK_SILENCE_MIN};
    use umbel_proto::link::{Hello, LINK_VERSION, LinkId};
    use umbel_proto::network::Network;
    use umbel_proto::onion::transit::AddLayer;
    use umbel_proto::time::WallTime;

    use super::*;
    use crate::forward::{LinkEvent, Next, TableUpdate};

    fn shared() -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
        let network = Network::local();
        let hello = Hello {
            versions: vec![LINK_VERSION],
            network: network.id,
            clock: WallTime(0),
            features: 0,
            descriptor: None,
        };
        Shared::new(network, SigningKey::from_seed(&[1; 32]), 1 << 30, hello)
    }

    /// A stream, and whether its end was said.
    struct Watched(DuplexStream, Arc<AtomicBool>);

    impl AsyncRead for Watched {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Watched {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            this.1.store(true, Ordering::Relaxed);
            Pin::new(&mut this.0).poll_shutdown(cx)
        }
    }

    /// A link whose peer is the test.
    struct Link {
        peer: DuplexStream,
        queue: Arc<LinkQueue>,
        updates: Arc<TableUpdates<Arc<LinkQueue>>>,
        task: tokio::task::JoinHandle<LinkEnd>,
        is_end_said: Arc<AtomicBool>,
    }

    fn link(shared: &Arc<Shared>, id: u64) -> Link {
        let (peer, stream) = duplex(4 * CELL_LEN);
        let is_end_said = Arc::default();
        let stream = Watched(stream, Arc::clone(&is_end_said));
        let queue = Arc::new(LinkQueue::new(LinkId(id), Arc::clone(&shared.budget)));
        let updates = Arc::new(TableUpdates::default());
        let handle = LinkHandle {
            queue: Arc::clone(&queue),
            updates: Arc::clone(&updates),
        };
        let conn = Conn::new(stream, Arc::clone(shared), handle, None, true);
        Link {
            peer,
            queue,
            updates,
            task: tokio::spawn(conn.run()),
            is_end_said,
        }
    }

    impl Link {
        async fn write(&mut self, cells: &[Cell]) {
            for cell in cells {
                self.peer.write_all(cell.as_bytes()).await.unwrap();
            }
        }

        async fn read(&mut self) -> Cell {
            let mut cell = Cell::blank();
            self.peer.read_exact(cell.as_bytes_mut()).await.unwrap();
            cell
        }
    }

    fn circ(number: u32) -> CircId {
        CircId::new(number).unwrap()
    }

    fn relay(number: u32) -> Cell {
        Cell::new(Some(circ(number)), Command::Relay)
    }

    fn to(link: &Link, number: u32) -> TableUpdate<Arc<LinkQueue>> {
        let next = Next {
            queue: Arc::clone(&link.queue),
            circ: circ(number),
        };
        TableUpdate::Return(circ(1), AddLayer::new(LayerKey::from_bytes([7; 32])), next)
    }

    #[tokio::test]
    async fn cells_pass_from_link_to_link_in_order_and_in_whatever_pieces_they_come() {
        let (shared, _reports) = shared();
        let (mut from, mut onward) = (link(&shared, 1), link(&shared, 2));
        from.updates.push(to(&onward, 9));
        let mut layer = AddLayer::new(LayerKey::from_bytes([7; 32]));
        for round in 0..100_u8 {
            let mut cell = relay(1);
            *cell.body_mut() = [round; 2043];
            let (head, tail) = cell.as_bytes().split_at(usize::from(round) * 20);
            from.peer.write_all(head).await.unwrap();
            tokio::task::yield_now().await;
            from.peer.write_all(tail).await.unwrap();
            let mut expected = [round; 2043];
            layer.add(&mut expected);
            let came = onward.read().await;
            assert_eq!(came.header(), Ok((Some(circ(9)), Command::Relay)));
            assert!(*came.body() == expected);
        }
        assert_eq!(shared.counters.forwarded_cells.load(Ordering::Relaxed), 100);
        assert_eq!(shared.counters.client_cells.load(Ordering::Relaxed), 100);
        assert_eq!(shared.budget.used_cells(), 0);
    }

    #[tokio::test]
    async fn what_is_the_control_planes_goes_there_and_stale_cells_are_counted() {
        let (shared, mut reports) = shared();
        let mut link = link(&shared, 1);
        let destroy = Cell::destroy(circ(5), DestroyReason::Finished);
        link.write(&[relay(1), Cell::new(None, Command::Padding), destroy])
            .await;
        let Some(LinkReport::Events(events)) = reports.recv().await else {
            panic!("an event is reported")
        };
        let [(LinkId(1), LinkEvent::Cell(cell))] = events.as_slice() else {
            panic!("one event: {events:?}")
        };
        assert_eq!(cell.header(), Ok((Some(circ(5)), Command::Destroy)));
        assert_eq!(shared.counters.stale_cells.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_link_that_breaks_a_rule_is_closed_and_cells_before_that_still_go_on() {
        let (shared, mut reports) = shared();
        let mut link = link(&shared, 1);
        let hello = Cell::new(None, Command::Hello);
        link.write(&[Cell::destroy(circ(5), DestroyReason::Finished), hello])
            .await;
        assert!(matches!(
            link.task.await.unwrap(),
            LinkEnd::Violation(Violation::Hello)
        ));
        drop(reports.try_recv()); // the first cell may have been reported before the second came
        assert_eq!(link.peer.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_circuit_whose_next_link_is_stuck_is_broken_and_the_rest_goes_on() {
        let (shared, mut reports) = shared();
        let (mut from, mut stuck) = (link(&shared, 1), link(&shared, 2));
        from.updates.push(to(&stuck, 9));
        for _ in 0..CIRCUIT_QUEUE_CELLS_MAX + 64 {
            from.write(&[relay(1)]).await;
        }
        let Some(LinkReport::Events(events)) = reports.recv().await else {
            panic!("an event is reported")
        };
        assert!(
            matches!(events.as_slice(), [(LinkId(2), LinkEvent::Broken(broken, Violation::Window))] if *broken == circ(9))
        );
        // Only what was on its way already comes before what the control plane sends.
        stuck.queue.push(
            [Cell::destroy(circ(9), DestroyReason::Protocol)],
            &mut Pushed::default(),
        );
        let mut count = 0;
        while stuck.read().await.header() != Ok((Some(circ(9)), Command::Destroy)) {
            count += 1;
        }
        assert!(count <= WRITE_BATCH_CELLS + 4, "{count}");
    }

    #[tokio::test]
    async fn while_the_control_plane_is_behind_its_links_still_write() {
        let (shared, mut reports) = shared();
        while shared.control.try_send(LinkReport::Down(LinkId(9))).is_ok() {}
        let mut link = link(&shared, 1);
        link.write(&[Cell::destroy(circ(5), DestroyReason::Finished)])
            .await;
        tokio::task::yield_now().await;
        link.queue.push([relay(3)], &mut Pushed::default());
        assert_eq!(
            link.read().await.header(),
            Ok((Some(circ(3)), Command::Relay))
        );
        while let Some(report) = reports.recv().await {
            if matches!(report, LinkReport::Events(_)) {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_link_that_is_to_close_sends_what_waits_first() {
        let (shared, _reports) = shared();
        let mut link = link(&shared, 1);
        link.queue
            .push((0..50).map(|_| relay(1)), &mut Pushed::default());
        link.queue.close();
        for _ in 0..50 {
            link.read().await;
        }
        assert!(matches!(link.task.await.unwrap(), LinkEnd::Closed));
        assert_eq!(link.peer.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(shared.budget.used_cells(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_can_not_keep_a_link_from_closing() {
        let (shared, _reports) = shared();
        let link = link(&shared, 1);
        link.queue
            .push((0..50).map(|_| relay(1)), &mut Pushed::default());
        link.queue.close();
        assert!(matches!(link.task.await.unwrap(), LinkEnd::Closed));
        assert_eq!(shared.budget.used_cells(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_link_is_kept_alive_and_a_silent_one_is_given_up() {
        let (shared, _reports) = shared();
        let started_at = Instant::now();
        let mut link = link(&shared, 1);
        for _ in 0..2 {
            assert_eq!(link.read().await.header(), Ok((None, Command::Padding)));
        }
        assert_eq!(started_at.elapsed().as_secs(), 2 * LINK_KEEPALIVE.as_secs());
        link.write(&[Cell::new(None, Command::Padding)]).await;
        assert!(matches!(link.task.await.unwrap(), LinkEnd::Silent));
        assert_eq!(
            started_at.elapsed().as_secs(),
            (2 * LINK_KEEPALIVE + LINK_SILENCE_MIN).as_secs()
        );
    }

    #[test] // a relay keeps one for each link
    fn a_link_is_stored_once() {
        fn stored<A, F>(_: fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let link = size_of::<Conn<DuplexStream>>();
        assert!(
            stored(Conn::<DuplexStream>::run) < link + 1024,
            "{} for {link}",
            stored(Conn::<DuplexStream>::run)
        );
    }

    #[tokio::test(start_paused = true)] // §2.6
    async fn all_that_ends_a_link_looks_alike_to_its_peer() {
        let (shared, _reports) = shared();
        type Provoke = fn(&Link) -> Vec<Cell>;
        type IsExpected = fn(&LinkEnd) -> bool;
        let ends: [(Provoke, IsExpected); 3] = [
            (
                |_| vec![Cell::new(None, Command::Hello)],
                |end| matches!(end, LinkEnd::Violation(_)),
            ),
            (|_| Vec::new(), |end| matches!(end, LinkEnd::Silent)),
            (
                |link| {
                    link.queue.close();
                    Vec::new()
                },
                |end| matches!(end, LinkEnd::Closed),
            ),
        ];
        for (end, is_expected) in ends {
            let mut link = link(&shared, 1);
            link.queue
                .push((0..20).map(|_| relay(1)), &mut Pushed::default());
            let cells = end(&link);
            link.write(&cells).await;
            let mut came = Vec::new();
            link.peer.read_to_end(&mut came).await.unwrap();
            let ended = link.task.await.unwrap();
            assert!(is_expected(&ended), "{ended}");
            assert!(link.is_end_said.load(Ordering::Relaxed), "{ended}");
            let relayed = came
                .chunks(CELL_LEN)
                .filter(|cell| cell[..5] == relay(1).as_bytes()[..5])
                .count();
            assert_eq!(
                (relayed, came.len() % CELL_LEN),
                (20, 0),
                "{ended}: what waited was sent"
            );
        }
        assert_eq!(shared.budget.used_cells(), 0);
    }

    /// A stream that is broken beyond what its type says.
    struct Panics;

    impl AsyncRead for Panics {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            panic!("for the test")
        }
    }

    impl AsyncWrite for Panics {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_panic_ends_its_link_as_anything_else_does() {
        let (shared, _reports) = shared();
        let queue = Arc::new(LinkQueue::new(LinkId(1), Arc::clone(&shared.budget)));
        let handle = LinkHandle {
            queue: Arc::clone(&queue),
            updates: Arc::default(),
        };
        let end = Conn::new(Panics, shared, handle, None, true).run().await;
        assert!(matches!(end, LinkEnd::Fault));
        assert_eq!(
            queue.take(
                &Context::from_waker(std::task::Waker::noop()),
                &mut VecDeque::new(),
                1
            ),
            Phase::Closed
        );
    }

    #[tokio::test]
    async fn a_removed_circuit_is_gone_before_its_peer_says_anything() {
        let (shared, _reports) = shared();
        let link = link(&shared, 1);
        tokio::task::yield_now().await;
        link.updates
            .push(TableUpdate::Remove(CircId::new(7).unwrap()));
        link.queue.wake();
        tokio::task::yield_now().await;
        let mut left = Vec::new();
        link.updates.take(&mut left);
        assert!(left.is_empty());
    }
}
