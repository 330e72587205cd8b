//! `umbel demo`: runs a whole network on this machine, sends messages through it, and shows each
//! step.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::Notice;
use umbel_client::local::{LocalError, LocalNetwork};
use umbel_client::{Client, ClientClosed, NewKey, NewProfile, NoticeGap, Notices, Profile};
use umbel_proto::ids::{MessageId, Peer, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::Duration;

use super::failure::Failure;
use super::output;
use super::session::{Interrupt, Session};

/// How long anything may take before the demo gives up.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Longest time that the histogram holds: ten times as long as anything may take.
const MICROS_MAX: u64 = 10 * STEP_MAX.as_secs() * 1_000_000;
/// The receiving client's name for its inbox.
const INBOX: &str = "demo";

#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// Number of relays
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(4..=64))]
    relays: u64,
    /// Number of messages
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    messages: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Relay {
        number: usize,
        id: String,
        address: &'a str,
    },
    Hop {
        client: &'a str,
        circuit: u64,
        hop: usize,
        relay: String,
    },
    Inbox {
        address: String,
        mailboxes: usize,
        positions: usize,
    },
    Sent {
        id: String,
        number: u64,
    },
    Received {
        id: String,
        number: u64,
        ms: f64,
    },
}

#[derive(Serialize)]
struct Summary {
    relays: u64,
    sent: u64,
    delivered: u64,
    p50_ms: f64,
    p99_ms: f64,
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        Self::failed(
            error.to_string(),
            "see that there is room for temporary files, and that loopback ports are free",
        )
    }
}

pub(super) async fn run(session: &Session, args: &DemoArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let network = LocalNetwork::start(usize::try_from(args.relays).unwrap_or(usize::MAX)).await?;
    let result = with_clients(session, args, &network.peers(), &interrupt).await;
    session.show_nothing();
    network.stop().await?;
    result
}

/// Alice sends, Bob receives; both are gone without trace afterwards.
async fn with_clients(
    session: &Session,
    args: &DemoArgs,
    peers: &[Peer],
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    if !session.is_json() {
        session.line(&format!(
            "{} relays on this machine; every link is TLS, every file is temporary.",
            peers.len()
        ))?;
    }
    for (index, peer) in peers.iter().enumerate() {
        let (number, id) = (index + 1, peer.id.to_string());
        let text = format!(
            "relay {number:<3} {} at {}",
            output::short_relay(&peer.id),
            peer.host_port
        );
        say(
            session,
            &Event::Relay {
                number,
                id,
                address: &peer.host_port,
            },
            &text,
        )?;
    }
    let dir = TempDir::with_prefix("umbel-").map_err(LocalError::Dir)?;
    let alice = open(&dir, "alice", peers).await?;
    let bob = open(&dir, "bob", peers).await?;
    let numbers = peers
        .iter()
        .zip(1..)
        .map(|(peer, number)| (peer.id, number))
        .collect();
    let mut demo = Demo::new(session, args, &alice, &bob, numbers);
    let result = tokio::select! {
        result = demo.run() => result,
        () = interrupt.wait() => Err(Failure::interrupted()),
    };
    tokio::join!(alice.close(), bob.close());
    dir.close().map_err(LocalError::Dir)?;
    result
}

async fn open(dir: &TempDir, name: &str, peers: &[Peer]) -> Result<Client, Failure> {
    let path = dir.path().join(name);
    let seeds = peers.iter().take(2).cloned().collect();
    let new = NewProfile {
        network: None,
        seeds,
        key: NewKey::File(path.join("key")),
    };
    Profile::create(&path, new, &mut rand::rng())?;
    Ok(Client::open(Profile::load(&path)?).await?)
}

/// The two clients, and what is known of the messages between them.
struct Demo<'a> {
    session: &'a Session,
    args: &'a DemoArgs,
    alice: &'a Client,
    bob: &'a Client,
    alice_notices: Notices,
    bob_notices: Notices,
    /// The relays' names in this demo.
    numbers: BTreeMap<RelayId, usize>,
    /// Messages on their way: number and when they were sent.
    under_way: BTreeMap<MessageId, (u64, Instant)>,
    sent: u64,
    delivered: u64,
    micros: Histogram<u64>,
}

/// Whose notice it is.
#[derive(Clone, Copy)]
enum Who {
    Alice,
    Bob,
}

impl<'a> Demo<'a> {
    fn new(
        session: &'a Session,
        args: &'a DemoArgs,
        alice: &'a Client,
        bob: &'a Client,
        numbers: BTreeMap<RelayId, usize>,
    ) -> Self {
        let micros = Histogram::new_with_max(MICROS_MAX, 3)
            .unwrap_or_else(|_| unreachable!("both are in range"));
        let (alice_notices, bob_notices) = (alice.notices(), bob.notices());
        let under_way = BTreeMap::new();
        Self {
            session,
            args,
            alice,
            bob,
            alice_notices,
            bob_notices,
            numbers,
            under_way,
            sent: 0,
            delivered: 0,
            micros,
        }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        self.session.show("Bob makes an inbox");
        let address = self.bob.create_inbox(INBOX).await?;
        let (mailboxes, positions) = self.until_ready().await?;
        let text = format!(
            "bob      has an inbox: {mailboxes} relays hold its mail, {positions} its descriptor"
        );
        say(
            self.session,
            &Event::Inbox {
                address: address.to_text(),
                mailboxes,
                positions,
            },
            &text,
        )?;
        self.bob.listen(INBOX, true).await?;
        self.until_listening().await?;
        while self.sent < self.args.messages {
            self.send(address).await?;
            self.until_received().await?;
            if !self.under_way.is_empty() {
                break;
            }
        }
        self.summarise()
    }

    async fn until_ready(&mut self) -> Result<(usize, usize), Failure> {
        let ends_at = Instant::now() + STEP_MAX;
        loop {
            let Some((_, notice)) = self.next(ends_at).await? else {
                return Err(Failure::failed(
                    "no inbox could be made in time",
                    "run it again with --verbose",
                ));
            };
            if let Notice::InboxReady {
                mailboxes,
                positions,
                ..
            } = notice
            {
                return Ok((mailboxes, positions));
            }
        }
    }

    /// Until all mailboxes answered, so that what is measured is the way of a message and not the
    /// building of circuits.
    async fn until_listening(&mut self) -> Result<(), Failure> {
        let ends_at = Instant::now() + STEP_MAX;
        while let Some((_, notice)) = self.next(ends_at).await? {
            if matches!(notice, Notice::CaughtUp { .. }) {
                return Ok(());
            }
        }
        Err(Failure::failed(
            "the mailboxes did not answer in time",
            "run it again with --verbose",
        ))
    }

    async fn send(&mut self, address: InboxAddress) -> Result<(), Failure> {
        let number = self.sent + 1;
        let sent_at = Instant::now();
        let id = self
            .alice
            .send(address, body(number, self.args.messages))
            .await?
            .id;
        self.sent = number;
        self.under_way.insert(id, (number, sent_at));
        let text = format!("alice    sends message {number}");
        say(
            self.session,
            &Event::Sent {
                id: id.to_string(),
                number,
            },
            &text,
        )
    }

    /// Waits until no message is in flight, or the last one takes too long.
    async fn until_received(&mut self) -> Result<(), Failure> {
        let ends_at = Instant::now() + STEP_MAX;
        while !self.under_way.is_empty() {
            match self.next(ends_at).await? {
                Some((Who::Bob, Notice::Received { .. })) => self.read().await?,
                Some(_) => {}
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads what Bob's profile holds, and compares it with what Alice wrote.
    async fn read(&mut self) -> Result<(), Failure> {
        for message in self.bob.unread(None, 0).await? {
            self.bob.mark_read(&message).await?;
            let Some((number, sent_at)) = self.under_way.remove(&message.id) else {
                continue;
            };
            if message.body.bytes() != body(number, self.args.messages) {
                continue;
            }
            let took = sent_at.elapsed();
            self.delivered += 1;
            self.micros
                .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            let ms = took.as_secs_f64() * 1000.0;
            let said = message.body.shown();
            let text = format!("bob      receives \"{said}\" after {ms:.1} ms");
            say(
                self.session,
                &Event::Received {
                    id: message.id.to_string(),
                    number,
                    ms,
                },
                &text,
            )?;
        }
        Ok(())
    }

    /// The next notice of either, shown; `None` when time is up.
    async fn next(&mut self, ends_at: Instant) -> Result<Option<(Who, Notice)>, Failure> {
        loop {
            let next = async {
                tokio::select! {
                    notice = self.alice_notices.next() => (Who::Alice, notice),
                    notice = self.bob_notices.next() => (Who::Bob, notice),
                }
            };
            let Ok((who, notice)) = timeout_at(ends_at, next).await else {
                return Ok(None);
            };
            match notice {
                Ok(notice) => {
                    self.show(who, &notice)?;
                    return Ok(Some((who, notice)));
                }
                Err(NoticeGap::Missed(_)) => self.read().await?,
                Err(NoticeGap::Closed) => return Err(ClientClosed.into()),
            }
        }
    }

    fn show(&self, who: Who, notice: &Notice) -> Result<(), Failure> {
        let Notice::HopBuilt {
            circuit,
            hop,
            relay,
        } = notice
        else {
            return Ok(());
        };
        let client = match who {
            Who::Alice => "alice",
            Who::Bob => "bob",
        };
        let number = self.numbers.get(relay).copied().unwrap_or_default();
        let event = Event::Hop {
            client,
            circuit: *circuit,
            hop: *hop,
            relay: relay.to_string(),
        };
        say(
            self.session,
            &event,
            &format!("{client:<8} circuit {circuit}: hop {hop} is relay {number}"),
        )
    }

    fn summarise(&self) -> Result<(), Failure> {
        let ms = |quantile| {
            Duration::from_micros(self.micros.value_at_quantile(quantile)).as_secs_f64() * 1000.0
        };
        let Self {
            sent, delivered, ..
        } = *self;
        let summary = Summary {
            relays: self.args.relays,
            sent,
            delivered,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        };
        if self.session.is_json() {
            self.session.json(&summary)?;
        } else {
            let Summary { p50_ms, p99_ms, .. } = summary;
            let times = format!("from send to received: p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms");
            self.session
                .line(&format!("{sent} sent, {delivered} delivered; {times}"))?;
        }
        if delivered == self.args.messages {
            return Ok(());
        }
        let error = format!(
            "{delivered} of {} messages were delivered",
            self.args.messages
        );
        Err(Failure::failed(
            error,
            "run it again with --verbose, and report what it says",
        ))
    }
}

fn body(number: u64, count: u64) -> Vec<u8> {
    format!("Message {number} of {count}: only Bob can read this, and nobody can tell that Alice wrote it.")
        .into_bytes()
}

fn say(session: &Session, event: &Event<'_>, text: &str) -> Result<(), Failure> {
    if session.is_json() {
        session.json(event)
    } else {
        session.line(text)
    }
}
