//! The relay's end of the control socket: a few connections at once, each for a short time, each
//! with lines of bounded length.
//!
//! Whoever asks can't hold the relay: the control plane is asked as by any other task, and answers
//! wait for a reader here.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use umbel_proto::ids::{Peer, RelayId};

use super::answer::{self, Facts, Health, Status};
use super::socket::{self, SocketFile};
use super::{Question, REQUEST_LEN_MAX, Refused, Request, VERSION};
use crate::config::Config;
use crate::net::Shared;
use crate::net::plane::Ask;
use crate::store::StoreState;

/// Connections at once.
const CONNS_MAX: usize = 8;
/// How long a connection may take in all: a program that asks often connects anew.
const CONN_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a request may take to come, and an answer to be read.
const LINE_TIME_MAX: Duration = Duration::from_secs(5);
/// The pause after connections can't be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where answers come from.
pub(crate) struct Source {
    /// How others dial the relay.
    pub(crate) peer: Peer,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// When it started.
    pub(crate) started_at: Instant,
    /// The control plane.
    pub(crate) asks: mpsc::Sender<Ask>,
    /// Sums of the forwarding plane.
    pub(crate) shared: Arc<Shared>,
    /// What keeps the mail.
    pub(crate) store: StoreState,
    /// The settings in force.
    pub(crate) config: watch::Receiver<Config>,
}

/// Answers in the relay's data directory, whose lock the caller holds, until the relay stops. A relay
/// runs as well without: its log says why it can't be asked.
pub(crate) fn open(source: Arc<Source>, mut stop: watch::Receiver<bool>) -> Option<SocketFile> {
    let data_dir = source.config.borrow().data_dir.clone();
    let bound = socket::bind(&data_dir)
        .and_then(|(listener, file)| Ok((UnixListener::from_std(listener)?, file)));
    match bound {
        Ok((listener, file)) => {
            tokio::spawn(async move {
                tokio::select! {
                    _ = stop.wait_for(|&stop| stop) => {}
                    () = accept(listener, source) => {}
                }
            });
            Some(file)
        }
        Err(error) => {
            tracing::warn!(
                directory = %data_dir.display(),
                %error,
                "can't make the control socket, so `umbel-relay status` can't ask this relay"
            );
            None
        }
    }
}

async fn accept(listener: UnixListener, source: Arc<Source>) {
    let room = Arc::new(Semaphore::new(CONNS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await; // no open files are left, which others have reported
            continue;
        };
        if !is_operator(&stream) {
            continue;
        }
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            refuse(stream);
            continue;
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let _ = timeout(CONN_TIME_MAX, converse(stream, &source)).await;
            drop(place);
        });
    }
}

/// Tells one connection too many so, as far as its socket takes that at once.
fn refuse(stream: UnixStream) {
    let full = refusal("there are too many connections", "ask again in a minute");
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(full.as_bytes());
    }
}

/// Whether the other end belongs to the user that the relay runs as, or to root. The file's mode
/// says the same, which some systems don't look at.
fn is_operator(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(mut stream: UnixStream, source: &Source) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    while let Ok(Some(line)) = in_time(read_line(&mut reader)).await {
        let is_last = matches!(line, Line::TooLong);
        let answer = match line {
            Line::Request(request) => source.answer(&request).await,
            Line::TooLong => Some(refusal("the request is too long", "write a shorter line")),
        };
        let Some(answer) = answer else {
            return; // the relay stops
        };
        let written = in_time(writer.write_all(answer.as_bytes())).await;
        if is_last || written.is_err() {
            return;
        }
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    timeout(LINE_TIME_MAX, step).await.map_err(late)?
}

/// A line that was read.
enum Line {
    Request(Vec<u8>),
    /// Nothing can be read after it.
    TooLong,
}

/// The next line; `None` if there is none.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut bounded = reader.take(REQUEST_LEN_MAX as u64);
    bounded.read_until(b'\n', &mut line).await?;
    Ok(match line.last() {
        Some(b'\n') => Some(Line::Request(line)),
        Some(_) if line.len() >= REQUEST_LEN_MAX => Some(Line::TooLong),
        _ => None,
    })
}

impl Source {
    /// The line that answers a request; `None` once the relay has stopped.
    async fn answer(&self, request: &[u8]) -> Option<String> {
        const HINT: &str = "ask with the `umbel-relay` of the relay's own version";
        let Ok(Request { v, question }) = serde_json::from_slice(request) else {
            return Some(refusal("it does not know this question", HINT));
        };
        if v > VERSION {
            let known = format!("it knows version {VERSION} of requests");
            return Some(refusal(&known, HINT));
        }
        match question {
            Question::Status => self.status().await.as_ref().map(line),
            Question::Why { relay } => match relay.parse() {
                Ok(relay) => self.why(relay).await,
                Err(_) => Some(refusal(
                    "that is no relay's id",
                    "write the 52 characters before the @ of ID@HOST:PORT",
                )),
            },
        }
    }

    /// How the relay does; `None` once it has stopped.
    pub(crate) async fn health(&self) -> Option<Health> {
        self.status().await.map(Health::from)
    }

    async fn status(&self) -> Option<Status> {
        let (question, answer) = oneshot::channel();
        self.asks.send(Ask::Standing(question)).await.ok()?;
        let standing = answer.await.ok()?;
        let config = self.config.borrow().clone();
        let facts = Facts {
            peer: &self.peer,
            listen: self.listen,
            uptime: self.started_at.elapsed(),
            network: &self.shared.network,
            config: &config,
            relay_link_count: self.shared.relay_link_count(),
            queued_cells: self.shared.budget.used_cells(),
            is_store_failing: self.store.is_failing(),
        };
        Some(answer::status(&facts, &standing))
    }

    async fn why(&self, relay: RelayId) -> Option<String> {
        let (question, answer) = oneshot::channel();
        self.asks
            .send(Ask::StandingOf(relay, question))
            .await
            .ok()?;
        let (standing, dial) = answer.await.ok()?;
        Some(line(&answer::why(
            relay,
            &standing,
            dial,
            &self.shared.network,
        )))
    }
}

fn refusal(error: &str, hint: &str) -> String {
    line(&Refused {
        v: VERSION,
        error: error.to_owned(),
        hint: hint.to_owned(),
    })
}

/// An object, and the end of its line.
fn line(object: &impl serde::Serialize) -> String {
    // Strings and numbers alone: there is nothing that JSON can't say.
    let mut line = serde_json::to_string(object).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tempfile::TempDir;
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::link::Hello;
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use super::*;
    use crate::control::io::ControlStats;
    use crate::control::standing::Standing;
    use crate::shell::Clock;

    /// A relay that serves its operator, whose control plane is played.
    struct Bench {
        dir: TempDir,
        _socket: SocketFile,
        _config: watch::Sender<Config>,
        _stop: watch::Sender<bool>,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let network = Network::local();
            let hello = Hello::of_client(network.id, WallTime(0));
            let identity = SigningKey::from_seed(&[1; 32]);
            let (shared, _) = Shared::new(network, identity, 1 << 20, hello, Clock::start(), None);
            let config = watch::Sender::new(Config::new(dir.path()));
            let peer = Peer {
                id: RelayId([1; 32]),
                host_port: "127.0.0.1:9000".to_owned(),
            };
            let (asks, asked) = mpsc::channel(1);
            tokio::spawn(play(asked));
            let source = Source {
                peer,
                listen: ([127, 0, 0, 1], 9000).into(),
                started_at: Instant::now(),
                asks,
                shared,
                store: StoreState::default(),
                config: config.subscribe(),
            };
            let (stop, stopped) = watch::channel(false);
            Self {
                _socket: open(Arc::new(source), stopped).unwrap(),
                dir,
                _config: config,
                _stop: stop,
            }
        }

        async fn connect(&self) -> UnixStream {
            let path = self.dir.path().join("control.sock");
            UnixStream::connect(path).await.unwrap()
        }
    }

    async fn play(mut asked: mpsc::Receiver<Ask>) {
        while let Some(ask) = asked.recv().await {
            if let Ask::Standing(answer) = ask {
                let standing = Standing {
                    addresses: Vec::new(),
                    receipts_min: 0,
                    is_seed: false,
                    listed: None,
                    obstacle: None,
                    has_twin: false,
                    missing_seeds: Vec::new(),
                    others: 7,
                    relay_link_count: 2,
                    known_link_count: 2,
                    clock_ahead: Some(-60),
                    stats: ControlStats {
                        links: 19,
                        circuits: 17,
                        ..ControlStats::default()
                    },
                };
                answer.send(standing).unwrap();
            }
        }
    }

    /// Writes this, and reads a line.
    async fn said(stream: &mut UnixStream, request: &[u8]) -> Value {
        stream.write_all(request).await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn requests_are_answered_in_turn_also_those_that_it_does_not_know() {
        let bench = Bench::new();
        let mut stream = bench.connect().await;
        let status = said(&mut stream, b"{\"v\":1,\"ask\":\"status\",\"new\":1}\n").await;
        assert_eq!((&status["v"], &status["relays"]), (&1.into(), &7.into()));
        assert_eq!(
            (&status["links"], &status["circuits"]),
            (&18.into(), &16.into())
        );
        assert_eq!(status["clock_off_s"], 60);
        for (request, with) in [
            ("{\"v\":1,\"ask\":\"dance\"}", "does not know this question"),
            ("status", "does not know this question"),
            ("{\"v\":2,\"ask\":\"status\"}", "version 1 of"),
            ("{\"v\":1,\"ask\":\"why\",\"relay\":\"x\"}", "no relay's id"),
        ] {
            let answer = said(&mut stream, format!("{request}\n").as_bytes()).await;
            assert!(answer["error"].as_str().unwrap().contains(with), "{answer}");
            assert!(!answer["hint"].as_str().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_line_that_does_not_end_ends_the_connection() {
        let bench = Bench::new();
        let mut stream = bench.connect().await;
        let answer = said(&mut stream, &[b' '; REQUEST_LEN_MAX]).await;
        assert!(answer["error"].as_str().unwrap().contains("too long"));
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn those_who_hold_all_places_keep_others_waiting_for_a_while_only() {
        tokio::time::pause();
        let bench = Bench::new();
        let mut silent = Vec::new();
        for _ in 0..CONNS_MAX {
            let mut stream = bench.connect().await;
            let status = said(&mut stream, b"{\"v\":1,\"ask\":\"status\"}\n").await;
            assert_eq!(status["relays"], 7);
            silent.push(stream);
        }
        let mut line = String::new();
        let mut refused = BufReader::new(bench.connect().await);
        refused.read_line(&mut line).await.unwrap();
        assert!(line.contains("too many connections"), "{line}");
        sleep(LINE_TIME_MAX * 2).await;
        let mut stream = bench.connect().await;
        let status = said(&mut stream, b"{\"v\":1,\"ask\":\"status\"}\n").await;
        assert_eq!(status["relays"], 7);
    }

    #[tokio::test]
    async fn a_reader_that_takes_no_answers_is_left_alone() {
        tokio::time::pause();
        let bench = Bench::new();
        let mut slow = bench.connect().await;
        let asks = async {
            loop {
                slow.write_all(b"{\"v\":1,\"ask\":\"status\"}\n").await?;
            }
        };
        let began_at = Instant::now();
        let ended: io::Result<()> = asks.await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(began_at.elapsed() < CONN_TIME_MAX);
        let mut stream = bench.connect().await;
        let status = said(&mut stream, b"{\"v\":1,\"ask\":\"status\"}\n").await;
        assert_eq!(status["relays"], 7);
    }
}
