//! A relay's part in its network's gossip (docs/protocol.md §8.3).
//!
//! [`Gossip`] decides what is exchanged, and with whom. Here are the circuits of its exchanges.

use std::collections::BTreeMap;

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::directory::gossip::{self, ExchangeId, Gossip, Known, Out};
use umbel_proto::directory::{Book, DirectoryReply, DirectoryRequest};
use umbel_proto::ids::RelayId;
use umbel_proto::message::Service;
use umbel_proto::time::{Instant, WallTime};

use super::ControlConfig;
use super::circuits::Circuits;
use super::context::{Context, Heard, Signal};
use super::io::StoreOp;
use super::one_hop::{Errand, HopEvent, OneHop};
use super::timers::Timer;

/// The gossip machine, and the circuits of its exchanges.
pub(super) struct Discovery {
    gossip: Gossip,
    exchanges: BTreeMap<ExchangeId, Exchange>,
}

/// The circuit of one exchange.
struct Exchange {
    relay: RelayId,
    hop: OneHop,
}

impl Discovery {
    pub(super) fn new(relay: RelayId, anchors: Vec<RelayId>, now: Instant) -> Self {
        Self {
            gossip: Gossip::new(relay, anchors, now),
            exchanges: BTreeMap::new(),
        }
    }

    /// A link with this relay is up, dialled by either side.
    pub(super) fn handle_linked(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        relay: RelayId,
    ) {
        self.gossip
            .handle_linked(cx.now, relay, known(cx.config, cx.book, cx.wall));
        self.run(cx, circuits);
    }

    /// There is no link with this relay any more.
    pub(super) fn handle_unlinked(&mut self, cx: &Context<'_>, relay: RelayId) {
        self.gossip
            .handle_unlinked(cx.now, relay, known(cx.config, cx.book, cx.wall));
    }

    /// This relay can't be dialled.
    pub(super) fn handle_dial_failed(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        relay: RelayId,
    ) {
        self.gossip
            .handle_dial_failed(relay, known(cx.config, cx.book, cx.wall));
        self.run(cx, circuits);
    }

    /// A descriptor was refused, since too few relays vouch for it.
    pub(super) fn handle_unvouched(&mut self, cx: &Context<'_>) {
        self.gossip
            .handle_unvouched(cx.now, known(cx.config, cx.book, cx.wall));
    }

    /// A descriptor is news.
    pub(super) fn handle_news(&mut self, descriptor: &[u8]) {
        self.gossip.handle_news(descriptor);
    }

    /// Takes a cell of an exchange's circuit.
    pub(super) fn handle_cell(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
        command: Command,
        cell: Cell,
    ) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let handled = exchange.hop.handle_cell(cx, command, cell);
        self.take_events(cx, circuits, id, handled);
    }

    /// An exchange's circuit is gone.
    pub(super) fn handle_circuit_gone(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
    ) {
        self.exchanges.remove(&id);
        self.gossip
            .handle_failed(id, known(cx.config, cx.book, cx.wall));
        self.run(cx, circuits);
    }

    /// An exchange should be over by now.
    pub(super) fn handle_exchange_timeout(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
    ) {
        if let Some(exchange) = self.exchanges.get(&id) {
            tracing::debug!(relay = %exchange.relay, "an exchange with a relay took too long");
            self.fail(cx, circuits, id);
        }
    }

    /// Runs what is due.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits) {
        self.gossip
            .handle_timeout(cx.now, known(cx.config, cx.book, cx.wall), cx.rng);
        self.run(cx, circuits);
    }

    /// Reconciles with some relay now.
    pub(super) fn sync(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits) {
        self.gossip
            .sync(cx.now, known(cx.config, cx.book, cx.wall), cx.rng);
        self.run(cx, circuits);
    }

    pub(super) fn handle_stop(&mut self) {
        self.gossip.handle_stop();
        self.exchanges.clear();
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub(super) fn poll_timeout(&self) -> (Instant, gossip::Timer) {
        self.gossip.poll_timeout()
    }

    fn run(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits) {
        while let Some(out) = self.gossip.poll_out() {
            match out {
                Out::Dial(relay) => cx.signal(Signal::Dial(relay)),
                Out::Connect {
                    exchange,
                    relay,
                    due_at,
                } => match Exchange::begin(cx, circuits, exchange, relay) {
                    Some(begun) => {
                        self.exchanges.insert(exchange, begun);
                        cx.timers.set(Timer::Exchange(exchange), due_at);
                    }
                    None => self
                        .gossip
                        .handle_failed(exchange, known(cx.config, cx.book, cx.wall)),
                },
                Out::Ask(exchange, request) => {
                    if self.ask(cx, exchange, &request).is_none() {
                        self.fail(cx, circuits, exchange);
                    }
                }
                Out::Learned {
                    source,
                    exchange,
                    descriptor,
                } => {
                    let lists = cx.source(&source);
                    if cx.learn(lists.as_ref(), *descriptor) == Heard::Forged {
                        self.gossip.handle_forged(
                            exchange,
                            source,
                            known(cx.config, cx.book, cx.wall),
                        );
                    }
                }
                Out::Listed(listing) => cx.handle_listing(&listing),
                Out::Anchors(anchors) => cx.store(StoreOp::PutAnchors(anchors)),
                Out::Done(exchange) => self.end(cx, circuits, exchange),
                Out::Broken(exchange, fault) => {
                    if let Some(Exchange { hop, .. }) = self.exchanges.remove(&exchange) {
                        let (link, circ) = hop.end();
                        circuits.handle_violation(cx, link, circ, fault.into());
                    }
                }
            }
        }
    }

    /// Asks on the exchange's circuit. `None`: it can't be asked.
    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        id: ExchangeId,
        request: &DirectoryRequest,
    ) -> Option<()> {
        let exchange = self.exchanges.get_mut(&id)?;
        exchange.hop.ask(cx, Service::Directory, request.encode())
    }

    /// Takes what happened on an exchange's circuit, unless that broke a rule.
    fn take_events(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
        mut handled: Result<(), Violation>,
    ) {
        while let Some(exchange) = self.exchanges.get_mut(&id) {
            let (link, circ) = exchange.hop.end();
            let event = match handled.and_then(|()| exchange.hop.poll(cx)) {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(violation) => {
                    self.exchanges.remove(&id); // §4.4(1): nothing follows the Destroy
                    self.gossip
                        .handle_broken(id, known(cx.config, cx.book, cx.wall));
                    return circuits.handle_violation(cx, link, circ, violation);
                }
            };
            handled = self.on_event(cx, circuits, id, event);
        }
    }

    fn on_event(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
        event: HopEvent,
    ) -> Result<(), Violation> {
        match event {
            HopEvent::Ready => self
                .gossip
                .handle_connected(id, known(cx.config, cx.book, cx.wall)),
            HopEvent::Answered(frame) => {
                let reply = DirectoryReply::decode(&frame)?;
                self.gossip
                    .handle_reply(cx.now, id, reply, known(cx.config, cx.book, cx.wall));
            }
            HopEvent::Failed => self.fail(cx, circuits, id),
        }
        self.run(cx, circuits);
        Ok(())
    }

    fn fail(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits, id: ExchangeId) {
        self.end(cx, circuits, id);
        self.gossip
            .handle_failed(id, known(cx.config, cx.book, cx.wall));
    }

    fn end(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits, id: ExchangeId) {
        if let Some(Exchange { hop, .. }) = self.exchanges.remove(&id) {
            hop.finish(cx, circuits);
        }
    }
}

/// The facts that discovery decides by.
fn known<'a>(config: &'a ControlConfig, book: &'a Book, wall: WallTime) -> Known<'a> {
    Known {
        network: &config.network,
        book,
        seeds: &config.seeds,
        wall,
    }
}

impl Exchange {
    fn begin(
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        id: ExchangeId,
        relay: RelayId,
    ) -> Option<Self> {
        let link = cx.links.toward(&relay)?;
        let hop = OneHop::begin(cx, circuits, Errand::Exchange(id), relay, link)?;
        Some(Self { relay, hop })
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
