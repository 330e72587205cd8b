//! Keeping the view whole (docs/protocol.md §8.3): from any peer while it is too small to build circuits, then from the
//! guard in use, on circuits of one hop.
//!
//! A client takes and never gives. While it has no view, it goes round the seeds and whatever relays it knows.

use umbel_proto::directory::reconcile::Syncer;
use umbel_proto::directory::{DirectoryReply, DirectoryRequest, Unverified};
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::time::{Duration, Instant};

use super::Context;
use super::chance::{Backoff, between, shuffle};
use super::circuit::Isolation;
use super::links::Reach;
use super::pool::Pool;
use super::requests::{Answer, Asker, Question, Requests};

/// How long a dial goes on before the next peer is dialled besides.
const STAGGER: Duration = Duration::from_secs(2);
/// Most peers gone round while there is no view.
const PEERS_MAX: usize = 64;

/// The reconciliation under way, and when the next one is due.
pub(super) struct Sync {
    seeds: Vec<Peer>,
    /// The peers to go round, and how often each was asked.
    round: Vec<(Peer, u32)>,
    running: Option<(RelayId, Syncer)>,
    next_at: Instant,
    backoff: Backoff,
}

impl Sync {
    pub(super) const fn new(seeds: Vec<Peer>) -> Self {
        Self { seeds, round: Vec::new(), running: None, next_at: Instant::from_micros(0), backoff: Backoff::new() }
    }

    /// Begins a reconciliation that is due, or sees to it that there is somebody to begin it with.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, pool: &mut Pool, requests: &mut Requests) {
        if self.running.is_some() || self.next_at > cx.now {
            return;
        }
        let peer = if cx.is_ready {
            self.round.clear();
            pool.guard_in_use().map(|(relay, _)| relay)
        } else {
            self.next_peer(cx, pool)
        };
        let Some(peer) = peer else { return };
        if let Some((_, count)) = self.round.iter_mut().find(|(other, _)| other.id == peer) {
            *count += 1;
        }
        let (syncer, request) = Syncer::begin_taking(cx.view);
        self.running = Some((peer, syncer));
        ask(cx, requests, peer, request);
    }

    /// Takes an answer; returns what came with it, to be verified and admitted.
    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        answer: Answer,
    ) -> Vec<Unverified> {
        let Some((peer, mut syncer)) = self.running.take() else { return Vec::new() };
        let step = match answer {
            Answer::Directory(DirectoryReply::Sync(reply)) => {
                syncer.on_reply(cx.view, DirectoryReply::Sync(reply)).ok()
            }
            Answer::Directory(_) | Answer::Mailbox(_) | Answer::Failed(_) => None,
        };
        let Some(step) = step else {
            let wait = self.backoff.fail(cx);
            self.next_at = cx.now + wait;
            return Vec::new();
        };
        if let Some(request) = step.request {
            self.running = Some((peer, syncer));
            ask(cx, requests, peer, request);
        } else {
            self.end(cx);
        }
        step.received
    }

    /// Whether a link to this relay is kept for now.
    pub(super) fn wants(&self, relay: RelayId) -> bool {
        self.running.as_ref().is_some_and(|(peer, _)| *peer == relay)
            || self.round.iter().any(|(peer, _)| peer.id == relay)
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        let wait = if cx.is_ready {
            self.backoff.reset();
            let every = cx.network.params.client_sync_interval;
            between(every * 3 / 4, every * 5 / 4, cx.rng)
        } else {
            // Whoever was asked knows too few relays as well: they are waited for.
            self.backoff.fail(cx).min(cx.network.params.client_sync_interval)
        };
        self.next_at = cx.now + wait;
    }

    /// The peer asked least often that can be reached. One that there is no link to is dialled and waited for.
    fn next_peer(&mut self, cx: &mut Context<'_>, pool: &mut Pool) -> Option<RelayId> {
        if self.round.is_empty() {
            self.round = self.peers(cx).into_iter().map(|peer| (peer, 0)).collect();
        }
        self.round.sort_by_key(|&(_, count)| count);
        for (peer, _) in &self.round {
            match pool.links.reach(peer.id, cx.now) {
                Reach::Up(_) => return Some(peer.id),
                Reach::Dialling(began_at) if began_at + STAGGER > cx.now => {
                    self.next_at = began_at + STAGGER;
                    break;
                }
                Reach::Dialling(_) | Reach::Resting(_) => {}
                Reach::Unknown => {
                    pool.links.dial(cx, peer.id, vec![peer.host_port.clone()]);
                    self.next_at = cx.now + STAGGER;
                    break;
                }
            }
        }
        None
    }

    /// Whoever could be asked: seeds, then relays that are known, both in random order.
    fn peers(&self, cx: &mut Context<'_>) -> Vec<Peer> {
        let mut peers = self.seeds.clone();
        shuffle(&mut peers, cx.rng);
        let known = cx.view.iter().filter_map(|descriptor| {
            let host_port = descriptor.host_ports().into_iter().next()?;
            Some(Peer { id: descriptor.relay, host_port })
        });
        let mut known: Vec<Peer> = known.filter(|peer| !peers.iter().any(|seed| seed.id == peer.id)).collect();
        shuffle(&mut known, cx.rng);
        peers.extend(known);
        peers.truncate(PEERS_MAX);
        peers
    }

    /// A link came up or failed: what waited for it goes on.
    pub(super) fn on_link_change(&mut self, now: Instant) {
        if self.running.is_none() && !self.round.is_empty() {
            self.next_at = self.next_at.min(now);
        }
    }

    /// When there is something to do; `after` tells resting peers from those due.
    pub(super) fn timeout(&self, after: Instant, pool: &Pool) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        let rests = self.round.iter().filter_map(|(peer, _)| match pool.links.reach(peer.id, after) {
            Reach::Resting(until) => Some(until),
            Reach::Up(_) | Reach::Dialling(_) | Reach::Unknown => None,
        });
        rests.chain([self.next_at]).filter(|&at| at > after).min()
    }
}

fn ask(cx: &Context<'_>, requests: &mut Requests, peer: RelayId, request: DirectoryRequest) {
    requests.ask(cx, Asker::Sync, Isolation::Sync, peer, Question::Directory(request));
}
