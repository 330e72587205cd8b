//! A link's task, with a relay that the test plays.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream as ServerStream;
use umbel_proto::cell::DestroyReason;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::ids::{CircId, NetworkId};
use umbel_proto::link::tls;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;

use super::*;

fn bytes(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flat_map(|cell| *cell.as_bytes()).collect()
}

#[test] // §2.6
fn padding_stays_with_the_link() {
    let destroy = Cell::destroy(CircId::new(7).unwrap(), DestroyReason::Finished);
    let cells = circuit_cells(&bytes(&[
        Cell::new(None, Command::Padding),
        destroy.clone(),
    ]))
    .unwrap();
    assert_eq!(cells.len(), 1);
    assert_eq!(cells[0].as_bytes(), destroy.as_bytes());
}

/// A relay's side of one link, as far as a link goes: accepts, says `hello`, and hands over the
/// stream.
async fn accept(
    listener: TcpListener,
    own: SigningKey,
    hello: Hello,
) -> io::Result<ServerStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(tls::accept_config(&own).unwrap());
    let (socket, _) = listener.accept().await?;
    let mut stream = acceptor.accept(socket).await?;
    let mut theirs = Cell::blank();
    stream.read_exact(theirs.as_bytes_mut()).await?;
    assert!(Hello::decode(&theirs).unwrap().descriptor.is_none());
    stream.write_all(hello.encode().as_bytes()).await?;
    stream.flush().await?;
    Ok(stream)
}

fn hello(network: u8) -> Hello {
    Hello::of_client(NetworkId([network; 32]), WallTime(7300))
}

#[test] // §2.4(5)
fn a_client_says_the_hour_and_nothing_of_itself() {
    let said = hello(1);
    assert_eq!((said.clock, said.descriptor), (WallTime(7200), None));
}

/// A link's task that dials, and the relay that accepts.
struct World {
    queue: QueueSender,
    events: mpsc::Receiver<LinkReport>,
    relay: JoinHandle<io::Result<ServerStream<TcpStream>>>,
}

/// The client dials the relay with the key `expected`; the one there has the key `actual` and
/// belongs to `network`.
async fn world(expected: u8, actual: u8, network: u8) -> World {
    let key = |seed: u8| SigningKey::from_seed(&[seed; 32]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        link: LinkId(1),
        relay: RelayId(key(expected).public().0),
        host_ports: vec![listener.local_addr().unwrap().to_string()],
        hello: hello(1),
        params: Arc::new(Params::LOCAL),
        clock: Clock::start(),
    };
    let relay = tokio::spawn(accept(listener, key(actual), hello(network)));
    let (queue, cells) = queue(4);
    let (event_sender, events) = mpsc::channel(4);
    tokio::spawn(run(target, cells, event_sender));
    World {
        queue,
        events,
        relay,
    }
}

fn destroy(number: u32) -> Cell {
    Cell::destroy(CircId::new(number).unwrap(), DestroyReason::Finished)
}

#[tokio::test] // §2
async fn cells_pass_both_ways_until_the_queue_closes() {
    let mut world = world(1, 1, 1).await;
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Up {
            link: LinkId(1),
            ..
        })
    ));
    let mut relay = world.relay.await.unwrap().unwrap();
    relay
        .write_all(&bytes(&[destroy(5), destroy(6)]))
        .await
        .unwrap();
    relay.flush().await.unwrap();
    let mut came = Vec::new();
    while came.len() < 2 {
        let Some(LinkReport::Cells { cells, .. }) = world.events.recv().await else {
            panic!("no cells")
        };
        came.extend(cells);
    }
    assert_eq!(bytes(&came), bytes(&[destroy(5), destroy(6)]));

    world.queue.try_send(destroy(7)).unwrap();
    drop(world.queue);
    let mut rest = Vec::new();
    relay.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, bytes(&[destroy(7)]));
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Down { link: LinkId(1) })
    ));
}

#[tokio::test] // §2.6
async fn a_fault_of_the_relay_ends_the_link_as_any_end_does() {
    let mut world = world(1, 1, 1).await;
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Up { .. })
    ));
    let mut relay = world.relay.await.unwrap().unwrap();
    relay
        .write_all(Cell::new(None, Command::Hello).as_bytes())
        .await
        .unwrap();
    relay.flush().await.unwrap();
    let mut rest = Vec::new();
    relay.read_to_end(&mut rest).await.expect("the end is said");
    assert!(rest.is_empty());
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Down { link: LinkId(1) })
    ));
}

#[tokio::test] // §2.5
async fn another_relay_than_the_expected_is_refused() {
    let mut world = world(1, 2, 1).await;
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::DialFailed {
            link: LinkId(1),
            fault: DialFault::OtherRelay
        })
    ));
}

#[tokio::test] // §2.4
async fn a_relay_of_another_network_is_refused() {
    let mut world = world(1, 1, 2).await;
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::DialFailed {
            link: LinkId(1),
            fault: DialFault::OtherNetwork
        })
    ));
}

#[tokio::test] // §8.6(7)
async fn the_local_network_dials_nobody_elsewhere() {
    let target = Target {
        link: LinkId(1),
        relay: RelayId([1; 32]),
        host_ports: vec!["192.0.2.1:1".to_owned(), "[2001:db8::1]:1".to_owned()],
        hello: Hello::of_client(Network::local().id, WallTime(0)),
        params: Arc::new(Params::LOCAL),
        clock: Clock::start(),
    };
    let fault = dial(&target).await.err().unwrap();
    assert!(matches!(fault, LinkFault::Elsewhere), "{fault:?}");
}

#[tokio::test]
async fn a_relay_that_hangs_up_takes_the_link_down() {
    let mut world = world(1, 1, 1).await;
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Up { .. })
    ));
    drop(world.relay.await.unwrap().unwrap());
    assert!(matches!(
        world.events.recv().await,
        Some(LinkReport::Down { link: LinkId(1) })
    ));
}

/// A link in memory that is up, whose peer reads nothing yet; and how it ends.
fn carried(
    cells: u32,
) -> (
    QueueSender,
    tokio::io::DuplexStream,
    JoinHandle<(LinkFault, Duration)>,
) {
    let (stream, peer) = tokio::io::duplex(CELL_LEN / 2);
    let (sender, queue) = queue(64);
    for number in 1..=cells {
        sender.try_send(destroy(number)).unwrap();
    }
    let task = tokio::spawn(async move {
        let (events, _reports) = mpsc::channel(4);
        let (clock, began_at) = (Clock::start(), tokio::time::Instant::now());
        let fault = carry(stream, LinkId(1), queue, &events, clock, None).await;
        (fault, began_at.elapsed())
    });
    (sender, peer, task)
}

#[tokio::test(start_paused = true)] // §2.6(4)
async fn a_relay_that_does_not_read_keeps_no_link_from_closing() {
    let (queue, _peer, task) = carried(50);
    tokio::task::yield_now().await;
    drop(queue);
    let (fault, took) = task.await.unwrap();
    assert!(matches!(fault, LinkFault::Stuck), "{fault:?}");
    assert!(took <= 2 * LINK_CLOSING_MAX, "{took:?}");
}

#[tokio::test(start_paused = true)] // §2.6(4), §2.6(5)
async fn what_waits_is_sent_whole_before_a_fault_of_the_relay_ends_the_link() {
    let (_queue, mut peer, task) = carried(50);
    tokio::task::yield_now().await; // a cell is written in part
    let second_hello = Cell::new(None, Command::Hello);
    peer.write_all(second_hello.as_bytes()).await.unwrap();
    let mut came = Vec::new();
    peer.read_to_end(&mut came).await.unwrap();
    let expected: Vec<Cell> = (1..=50).map(destroy).collect();
    assert!(came == bytes(&expected), "{} bytes", came.len());
    let (fault, _) = task.await.unwrap();
    assert!(matches!(fault, LinkFault::Violation(_)), "{fault:?}");
}

#[tokio::test(start_paused = true)] // §2.6(3)
async fn a_byte_now_and_then_is_silence_all_the_same() {
    let (_queue, peer, task) = carried(0);
    let (mut reading, mut writing) = tokio::io::split(peer);
    tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    tokio::spawn(async move {
        while writing.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    });
    let ended = timeout(2 * LINK_SILENCE_MAX, task).await;
    let (fault, took) = ended.expect("it is given up").unwrap();
    assert!(matches!(fault, LinkFault::Silent), "{fault:?}");
    assert_eq!(took, LINK_SILENCE_MAX);
}

#[tokio::test(start_paused = true)] // §2.6(3)
async fn a_cell_ends_the_silence_in_whatever_pieces_it_comes() {
    let (_queue, peer, task) = carried(0);
    let (mut reading, mut writing) = tokio::io::split(peer);
    tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    let padding = Cell::new(None, Command::Padding);
    for piece in padding.as_bytes().chunks(CELL_LEN / 4) {
        sleep(Duration::from_secs(10)).await;
        writing.write_all(piece).await.unwrap();
    }
    let (fault, took) = task.await.unwrap();
    assert!(matches!(fault, LinkFault::Silent), "{fault:?}");
    assert_eq!(took, Duration::from_secs(40) + LINK_SILENCE_MAX);
}

#[tokio::test(start_paused = true)] // §2.5(8)
async fn a_silent_relay_is_given_up_in_time_whatever_the_network_file_says() {
    for (dial_timeout, expected) in [(120, HANDSHAKE_MAX), (3, Duration::from_secs(3))] {
        let params = Params {
            dial_timeout: Duration::from_secs(dial_timeout),
            ..Params::LOCAL
        };
        let (mut stream, _peer) = tokio::io::duplex(CELL_LEN);
        let began_at = tokio::time::Instant::now();
        let said = exchange_hello(&mut stream, &hello(1), step_max(&params)).await;
        assert!(matches!(said, Err(HelloFault::Timeout)));
        assert_eq!(began_at.elapsed(), expected);
    }
}
