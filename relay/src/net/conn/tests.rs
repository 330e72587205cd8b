//! A link's task over an in-memory stream.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio::time::Instant;
use umbel_proto::cell::DestroyReason;
use umbel_proto::crypto::aead::LayerKey;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::CircId;
use umbel_proto::limits::{CELL_LEN, CIRCUIT_QUEUE_CELLS_MAX, LINK_KEEPALIVE, LINK_SILENCE_MIN};
use umbel_proto::link::{Hello, LinkId};
use umbel_proto::network::Network;
use umbel_proto::onion::transit::AddLayer;
use umbel_proto::time::WallTime;

use super::*;
use crate::forward::outgoing::Pushed;
use crate::forward::{LinkEvent, Next, TableUpdate};
use crate::shell::Clock;

fn shared() -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
    shared_with(1 << 30)
}

/// A relay whose queues may hold this many bytes.
fn shared_with(memory_budget: usize) -> (Arc<Shared>, mpsc::Receiver<LinkReport>) {
    let network = Network::local();
    let hello = Hello::of_client(network.id, WallTime(0));
    Shared::new(
        network,
        SigningKey::from_seed(&[1; 32]),
        memory_budget,
        hello,
        Clock::start(),
        None,
    )
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

#[tokio::test] // §2.1(1), §3.2(5)
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
async fn a_link_that_breaks_a_rule_is_closed_after_its_earlier_cells() {
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
async fn a_circuit_whose_next_link_is_stuck_is_broken_alone() {
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

/// Cells that all queues of [`nearly_full`] may hold.
const BUDGET_CELLS: usize = 100;

/// A link whose peer does not read: circuit 9 waits in its queue, and one more cell anywhere is
/// over the budget.
async fn nearly_full() -> (Arc<Shared>, mpsc::Receiver<LinkReport>, Link) {
    let (shared, reports) = shared_with(BUDGET_CELLS * CELL_LEN);
    let stuck = link(&shared, 2);
    let mut pushed = Pushed::default();
    stuck.queue.push((0..80).map(|_| relay(9)), &mut pushed);
    tokio::task::yield_now().await; // it writes what its stream takes
    while shared.budget.used_cells() < BUDGET_CELLS {
        let created = Cell::new(Some(circ(10)), Command::Created);
        stuck.queue.push([created], &mut pushed);
    }
    assert!(pushed.broken.is_empty());
    (shared, reports, stuck)
}

/// The report that circuit 9 of [`nearly_full`] was broken.
fn is_broken(report: &LinkReport) -> bool {
    matches!(report, LinkReport::Events(events) if matches!(
        events.as_slice(),
        [(LinkId(2), LinkEvent::Broken(broken, Violation::Window))] if *broken == circ(9)
    ))
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_a_keepalive_breaks_is_reported() {
    let (_shared, mut reports, stuck) = nearly_full().await;
    let report = timeout(LINK_SILENCE_MIN, reports.recv()).await;
    assert!(report.is_ok_and(|report| report.is_some_and(|report| is_broken(&report))));
    drop(stuck);
}

#[tokio::test]
async fn circuits_broken_by_a_batch_that_ends_its_link_are_reported() {
    let (shared, mut reports, stuck) = nearly_full().await;
    let mut from = link(&shared, 1);
    from.updates.push(to(&stuck, 9));
    let hello = Cell::new(None, Command::Hello);
    let batch = [*relay(1).as_bytes(), *hello.as_bytes()].concat();
    from.peer.write_all(&batch).await.unwrap();
    assert!(matches!(
        from.task.await.unwrap(),
        LinkEnd::Violation(Violation::Hello)
    ));
    assert!(reports.try_recv().is_ok_and(|report| is_broken(&report)));
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_link_has_to_report_waits_for_the_control_plane() {
    let (shared, mut reports, stuck) = nearly_full().await;
    while shared.control.try_send(LinkReport::Down(LinkId(9))).is_ok() {}
    let mut from = link(&shared, 1);
    from.updates.push(to(&stuck, 9));
    from.write(&[relay(1)]).await;
    tokio::task::yield_now().await;
    drop(from.peer);
    from.queue.push([relay(3)], &mut Pushed::default()); // its stream is broken
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut is_reported = false;
    while let Ok(report) = reports.try_recv() {
        is_reported |= is_broken(&report);
        tokio::task::yield_now().await;
    }
    assert!(is_reported);
    assert!(matches!(from.task.await.unwrap(), LinkEnd::Io(_)));
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

#[tokio::test] // §2.6(4)
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

#[tokio::test(start_paused = true)] // §2.6(4)
async fn a_peer_that_does_not_read_can_not_keep_a_link_from_closing() {
    let (shared, _reports) = shared();
    let link = link(&shared, 1);
    link.queue
        .push((0..50).map(|_| relay(1)), &mut Pushed::default());
    link.queue.close();
    assert!(matches!(link.task.await.unwrap(), LinkEnd::Closed));
    assert_eq!(shared.budget.used_cells(), 0);
}

#[tokio::test(start_paused = true)] // §2.6(1), §2.6(3)
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

#[tokio::test(start_paused = true)] // §2.6(5)
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
