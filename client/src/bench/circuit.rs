//! Circuits over real links: how long they take to build, and what goes through one.

use std::time::Instant;

use rand::Rng;
use serde_bytes::ByteBuf;
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::handshake::HopTarget;
use umbel_proto::ids::{CircId, QueueId};
use umbel_proto::inbox::mailbox::{FETCH_BYTES_MAX, MailboxContext, MailboxReply, Verb};
use umbel_proto::limits::{HOPS_MAX, RECORD_LEN_MAX};
use umbel_proto::network::Network;

use super::probe::Probe;
use super::process::Process;
use super::row::{Row, Unit, ms};
use super::{BenchError, Plan, Step, within};
use crate::local::LocalNetwork;

/// Fetches that are under way at once, so that the circuit's window is what limits.
const FETCHES_UNDER_WAY: usize = 3;

pub(super) async fn measure(
    plan: &Plan,
    network: &LocalNetwork,
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let mut guard = None;
    let mut onward = Vec::new();
    for peer in network.peers().iter().take(HOPS_MAX) {
        let probe = Probe::dial(peer).await?;
        match guard {
            None => guard = Some(probe),
            Some(_) => onward.push(probe.target().clone()),
        }
    }
    let Some(mut probe) = guard else { return Err(BenchError::NoDescriptor) };
    build(plan, &mut probe, &onward, report).await?;
    bulk(plan, &mut probe, &onward, report).await
}

async fn build(
    plan: &Plan,
    probe: &mut Probe,
    onward: &[HopTarget],
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    probe.build(onward).await?; // the links between the relays are there from now on
    let mut times = Vec::new();
    for _ in 0..plan.circuits {
        let started = Instant::now();
        probe.build(onward).await?;
        times.push(ms(started.elapsed()));
    }
    report(Row::of(
        "circuit_build",
        Unit::Milliseconds,
        times,
        "four hops, one after the other, over links that are up: four handshakes at each end, and 2 + 4 + 6 + 8 cells",
    ));
    Ok(())
}

/// A queue of its own on the last relay of a circuit.
struct Mailbox<'a> {
    probe: &'a mut Probe,
    circ: CircId,
    holder: HopTarget,
    network: Network,
    queue: QueueId,
    owner: SigningKey,
    sender: SigningKey,
}

impl<'a> Mailbox<'a> {
    async fn create(probe: &'a mut Probe, onward: &[HopTarget]) -> Result<Self, BenchError> {
        let circ = probe.build(onward).await?;
        let holder = onward.last().unwrap_or_else(|| probe.target()).clone();
        let mut rng = rand::rng();
        let mut queue = [0; QueueId::LEN];
        rng.fill_bytes(&mut queue);
        let (owner, sender) = (SigningKey::generate(&mut rng), SigningKey::generate(&mut rng));
        let mut mailbox = Self { probe, circ, holder, network: Network::local(), queue: QueueId(queue), owner, sender };
        let (owner, sender) = (mailbox.owner.public(), mailbox.sender.public());
        mailbox.ask(Verb::Create { queue: mailbox.queue, owner, sender })?;
        match mailbox.answer().await? {
            MailboxReply::Created => Ok(mailbox),
            _ => Err(BenchError::Unexpected),
        }
    }

    async fn deposit(&mut self, record: Vec<u8>) -> Result<(), BenchError> {
        self.ask(Verb::Deposit { queue: self.queue, record: ByteBuf::from(record), puzzle: 0 })?;
        match self.answer().await? {
            MailboxReply::Deposited => Ok(()),
            _ => Err(BenchError::Unexpected),
        }
    }

    /// Fetches the queue's first record so many times, and counts the bytes that came.
    async fn fetch(&mut self, count: usize) -> Result<usize, BenchError> {
        let (mut asked, mut answered, mut bytes) = (0, 0, 0);
        while answered < count {
            while asked < count && asked - answered < FETCHES_UNDER_WAY {
                self.ask(Verb::Fetch { queue: self.queue, remove: Vec::new(), bytes_max: FETCH_BYTES_MAX })?;
                asked += 1;
            }
            let MailboxReply::Fetched { records, .. } = self.answer().await? else {
                return Err(BenchError::Unexpected);
            };
            bytes += records.iter().map(|record| record.len()).sum::<usize>();
            answered += 1;
        }
        Ok(bytes)
    }

    fn ask(&mut self, verb: Verb) -> Result<(), BenchError> {
        let binding = self.probe.binding(self.circ)?;
        let context = MailboxContext { network: &self.network.id, holder: &self.holder.relay, binding: &binding };
        let key = if matches!(verb, Verb::Deposit { .. }) { &self.sender } else { &self.owner };
        let frame = verb.signed(key, &context).encode();
        self.probe.ask(self.circ, &frame)
    }

    async fn answer(&mut self) -> Result<MailboxReply, BenchError> {
        let frame = within(Step::Mailbox, self.probe.next_frame(self.circ)).await?;
        match MailboxReply::decode(&frame) {
            Ok(MailboxReply::Refused(refusal)) => Err(BenchError::Refused(refusal)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(BenchError::Unexpected),
        }
    }
}

async fn bulk(
    plan: &Plan,
    probe: &mut Probe,
    onward: &[HopTarget],
    report: &mut (dyn FnMut(Row) + Send),
) -> Result<(), BenchError> {
    let mut mailbox = Mailbox::create(probe, onward).await?;
    let mut record = vec![0; RECORD_LEN_MAX];
    rand::rng().fill_bytes(&mut record);
    mailbox.deposit(record).await?;
    mailbox.fetch(plan.bulk_records).await?; // the window grows to its full size
    let (mut rates, mut bytes_total) = (Vec::new(), 0);
    let cpu_before = Process::current().cpu_time();
    for _ in 0..plan.bulk_rounds {
        let started = Instant::now();
        let bytes = mailbox.fetch(plan.bulk_records).await?;
        rates.push(bytes as f64 / 1e6 / started.elapsed().as_secs_f64());
        bytes_total += bytes;
    }
    let cpu = Process::current().cpu_time().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    report(Row::of(
        "bulk",
        Unit::MegabytesPerSecond,
        rates,
        "records of 124 kB fetched over one circuit of four relays: store, four layers, four links of TLS, all on this machine",
    ));
    report(Row::single(
        "bulk_cpu",
        Unit::SecondsPerGigabyte,
        cpu.map(|cpu| cpu.as_secs_f64() * 1e9 / bytes_total as f64),
        "time on cores for the same, the four relays and the client together in one process",
    ));
    Ok(())
}
