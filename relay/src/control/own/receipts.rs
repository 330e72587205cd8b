//! The receipts of this relay's own addresses: asking for them, keeping them, showing them
//! (docs/protocol.md §8.7).
//!
//! [`Asker`] decides whom to ask. Here is the circuit of the request in flight, one at a time.

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::directory::receipts::{
    Ask, Asker, Known, NoReceipt, ReceiptReply, ReceiptRequest, RequestContext,
};
use umbel_proto::directory::{Book, Receipt};
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{CLOCK_SKEW_MAX, RECEIPT_ASK_TIMEOUT};
use umbel_proto::message::Service;
use umbel_proto::network::Family;
use umbel_proto::time::{Instant, WallTime};

use super::super::ControlConfig;
use super::super::circuits::Circuits;
use super::super::context::{Context, Signal};
use super::super::io::{News, StoreOp};
use super::super::one_hop::{Errand, HopEvent, OneHop};
use super::super::timers::Timer;

/// The receipts held, and the request in flight.
pub(in super::super) struct OwnReceipts {
    asker: Asker,
    in_flight: Option<Asking>,
    next_serial: u64,
}

/// What it is decided by.
pub(in super::super) fn known<'a>(
    config: &'a ControlConfig,
    book: &'a Book,
    wall: WallTime,
) -> Known<'a> {
    Known {
        network: &config.network,
        book,
        addresses: &config.addresses,
        wall,
    }
}

/// A request in flight.
struct Asking {
    serial: u64,
    ask: Ask,
    /// `None` until there is a link to the issuer.
    hop: Option<OneHop>,
}

impl OwnReceipts {
    /// Takes up receipts that were stored; those that are not ours are left out.
    pub(super) fn restore(cx: &Context<'_>, stored: &[Vec<u8>]) -> Self {
        let receipts = stored
            .iter()
            .filter_map(|bytes| umbel_proto::wire::decode::<Receipt>(bytes).ok())
            .filter(|receipt| receipt.is_signed(&cx.config.network.id, &cx.relay));
        Self {
            asker: Asker::new(cx.relay, receipts.collect(), cx.now),
            in_flight: None,
            next_serial: 0,
        }
    }

    /// The machine that decides.
    pub(super) const fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Asks for what is missing, if it is time.
    pub(in super::super) fn handle_timeout(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
    ) {
        let known = known(cx.config, cx.book, cx.wall);
        let Some(ask) = self.asker.handle_timeout(cx.now, known, cx.rng) else {
            return;
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        self.in_flight = Some(Asking {
            serial,
            ask,
            hop: None,
        });
        cx.timers
            .set(Timer::Receipt(serial), cx.now + RECEIPT_ASK_TIMEOUT);
        if !self.begin(cx, circuits) {
            cx.signal(Signal::DialOver {
                relay: ask.issuer,
                family: ask.address.into(),
            });
        }
    }

    /// A link with this relay is up, dialled by either side.
    pub(in super::super) fn handle_linked(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        relay: RelayId,
    ) {
        if self.awaited_family(relay).is_some() {
            self.begin(cx, circuits);
        }
    }

    /// A dial toward this relay has ended with a link, which [`Self::handle_linked`] could not use
    /// if it is of the other family.
    pub(in super::super) fn handle_dialled(
        &mut self,
        cx: &mut Context<'_>,
        relay: RelayId,
        first: Option<Family>,
    ) {
        let Some(family) = self.awaited_family(relay) else {
            return;
        };
        if first == Some(family) {
            self.end(cx, Err(NoReceipt::NoAnswer)); // no address of the family answered
        } else {
            cx.signal(Signal::DialOver { relay, family });
        }
    }

    /// No address of this relay answers.
    pub(in super::super) fn handle_dial_failed(&mut self, cx: &mut Context<'_>, relay: RelayId) {
        if self.awaited_family(relay).is_some() {
            self.end(cx, Err(NoReceipt::NoAnswer));
        }
    }

    /// Takes a cell of the request's circuit.
    pub(in super::super) fn handle_cell(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        serial: u64,
        command: Command,
        cell: Cell,
    ) {
        let Some(hop) = self.hop(serial) else { return };
        let (link, circ) = hop.end();
        let handled = hop.handle_cell(cx, command, cell);
        if let Err(violation) = handled.and_then(|()| self.take_events(cx, circuits, serial)) {
            self.end(cx, Err(NoReceipt::NoAnswer));
            circuits.handle_violation(cx, link, circ, violation);
        }
    }

    /// The request's circuit is gone.
    pub(in super::super) fn handle_circuit_gone(&mut self, cx: &mut Context<'_>, serial: u64) {
        if self.hop(serial).is_some() {
            self.end(cx, Err(NoReceipt::NoAnswer));
        }
    }

    /// The request should be over by now.
    pub(in super::super) fn handle_ask_timeout(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        serial: u64,
    ) {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|it| it.serial == serial)
        {
            self.finish(cx, circuits, Err(NoReceipt::NoAnswer));
        }
    }

    /// The relay is dialled at other addresses now: they need receipts at once.
    pub(super) const fn handle_addresses(&mut self, now: Instant) {
        self.asker.handle_addresses(now);
    }

    /// Whether a request is in flight.
    pub(super) const fn is_asking(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Forgets receipts that are of no more use.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        if self
            .asker
            .expire(known(cx.config, cx.book, cx.wall), cx.clock.confirmed())
        {
            self.store(cx);
        }
    }

    pub(in super::super) fn handle_stop(&mut self) {
        self.in_flight = None;
    }

    /// When [`Self::handle_timeout`] is due.
    pub(in super::super) const fn poll_timeout(&self) -> Option<Instant> {
        self.asker.poll_timeout()
    }

    /// The address family over which the request waits for a link to this relay, if it does.
    fn awaited_family(&self, relay: RelayId) -> Option<Family> {
        let is_awaited = |it: &&Asking| it.ask.issuer == relay && it.hop.is_none();
        let request = self.in_flight.as_ref().filter(is_awaited)?;
        Some(request.ask.address.into())
    }

    /// Begins the circuit of the request, if there is a link for it.
    fn begin(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits) -> bool {
        let Some(request) = &mut self.in_flight else {
            return false;
        };
        let issuer = request.ask.issuer;
        let Some(link) = cx.links.toward_over(&issuer, request.ask.address.into()) else {
            return false;
        };
        request.hop = OneHop::begin(cx, circuits, Errand::Receipt(request.serial), issuer, link);
        request.hop.is_some()
    }

    fn take_events(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        serial: u64,
    ) -> Result<(), Violation> {
        while let Some(hop) = self.hop(serial) {
            match hop.poll(cx)? {
                None => break,
                Some(HopEvent::Ready) => {
                    if self.ask(cx).is_none() {
                        self.finish(cx, circuits, Err(NoReceipt::NoAnswer));
                    }
                }
                Some(HopEvent::Answered(frame)) => {
                    let reply = ReceiptReply::decode(&frame)?;
                    let outcome = self.judge(cx, reply);
                    self.finish(cx, circuits, outcome);
                }
                Some(HopEvent::Failed) => self.finish(cx, circuits, Err(NoReceipt::NoAnswer)),
            }
        }
        Ok(())
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Option<()> {
        let Asking { ask, hop, .. } = self.in_flight.as_mut()?;
        let hop = hop.as_mut()?;
        let context = RequestContext {
            network: &cx.config.network.id,
            issuer: &ask.issuer,
            binding: hop.binding()?,
        };
        let request = ReceiptRequest::sign(&cx.config.identity, &context, ask.address);
        hop.ask(cx, Service::Receipts, request.encode())
    }

    fn judge(&mut self, cx: &mut Context<'_>, reply: ReceiptReply) -> Result<Receipt, NoReceipt> {
        let Some(Asking { ask, .. }) = self.in_flight else {
            return Err(NoReceipt::NoAnswer);
        };
        match reply {
            ReceiptReply::Refused(refusal) => Err(NoReceipt::Refused(refusal)),
            ReceiptReply::Issued(receipt) => {
                // §8.7(6)
                let is_good = (receipt.issuer, receipt.address) == (ask.issuer, ask.address)
                    && receipt.is_signed(&cx.config.network.id, &cx.relay);
                let is_of_now = receipt.at <= cx.wall + CLOCK_SKEW_MAX
                    && cx.wall.since(receipt.at) <= CLOCK_SKEW_MAX * 2;
                if is_good && is_of_now {
                    return Ok(receipt);
                }
                let known = known(cx.config, cx.book, cx.wall);
                if is_good && self.asker.keep_misdated(known, receipt) {
                    self.store(cx);
                }
                Err(NoReceipt::Wrong)
            }
        }
    }

    fn hop(&mut self, serial: u64) -> Option<&mut OneHop> {
        let request = self.in_flight.as_mut().filter(|it| it.serial == serial)?;
        request.hop.as_mut()
    }

    fn finish(
        &mut self,
        cx: &mut Context<'_>,
        circuits: &mut Circuits,
        outcome: Result<Receipt, NoReceipt>,
    ) {
        let hop = self
            .in_flight
            .as_mut()
            .and_then(|request| request.hop.take());
        self.end(cx, outcome);
        if let Some(hop) = hop {
            hop.finish(cx, circuits);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, outcome: Result<Receipt, NoReceipt>) {
        let Some(Asking { ask, .. }) = self.in_flight.take() else {
            return;
        };
        if let Err(NoReceipt::Refused(refusal)) = outcome {
            cx.tell(News::ReceiptRefused {
                address: ask.address,
                issuer: ask.issuer,
                refusal,
            });
        }
        if self.asker.handle_outcome(cx.now, ask, outcome) {
            self.store(cx);
            cx.signal(Signal::Vouched);
        }
    }

    fn store(&self, cx: &mut Context<'_>) {
        let receipts = self.asker.receipts();
        let encoded = receipts.map(umbel_proto::wire::encode);
        cx.store(StoreOp::PutReceipts(encoded.collect()));
    }
}

#[cfg(test)]
impl OwnReceipts {
    /// A receipt comes, asked for or not.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, receipt: Receipt) {
        let (issuer, address) = (receipt.issuer, receipt.address);
        let ask = Ask { issuer, address };
        let outcome = Ok(receipt);
        assert!(self.asker.handle_outcome(cx.now, ask, outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use umbel_proto::directory::receipts::Attempt;

    use super::super::super::testing::Bench;
    use super::*;

    /// A relay that is about to ask the one relay that it knows for a receipt of its v6 address.
    struct Scene {
        bench: Bench,
        circuits: Circuits,
        receipts: OwnReceipts,
        issuer: RelayId,
    }

    impl Scene {
        fn new() -> Self {
            let mut bench = Bench::new(0);
            let issuer = bench.learn(1, &["20.1.1.1:9000", "[2a01::1]:9000"]);
            bench.shared.config.network.params.receipts_min = 3;
            bench.shared.config.addresses = vec!["[2a00::1]:9000".parse().unwrap()];
            let receipts = OwnReceipts::restore(&bench.context(), &[]);
            let circuits = Circuits::default();
            bench.signals();
            Self {
                bench,
                circuits,
                receipts,
                issuer,
            }
        }

        /// Runs what is due; whether that asks for a dial over v6.
        fn run(&mut self) -> bool {
            let mut cx = self.bench.context();
            self.receipts.handle_timeout(&mut cx, &mut self.circuits);
            self.is_dialling()
        }

        fn is_dialling(&mut self) -> bool {
            let signals = self.bench.signals();
            let is_ours = |signal: &Signal| matches!(signal, Signal::DialOver { relay, family: Family::V6 } if *relay == self.issuer);
            assert!(signals.iter().all(is_ours));
            !signals.is_empty()
        }

        /// A dial has ended with a link to this address of the issuer.
        fn dialled(&mut self, number: u64, at: &str, first: Option<Family>) {
            let remote: SocketAddr = at.parse().unwrap();
            self.bench.link_at(number, self.issuer, remote);
            let mut cx = self.bench.context();
            self.receipts
                .handle_linked(&mut cx, &mut self.circuits, self.issuer);
            self.receipts.handle_dialled(&mut cx, self.issuer, first);
        }

        fn faults(&self) -> Vec<NoReceipt> {
            let attempts = self.receipts.asker().attempts();
            attempts.map(|Attempt { fault, .. }| *fault).collect()
        }

        fn cells(&self) -> usize {
            self.bench.shared.out.cells.len()
        }
    }

    #[test] // §8.7(5)
    fn a_receipt_is_asked_for_over_a_link_of_the_addresss_family() {
        let mut scene = Scene::new();
        assert!(scene.run());
        scene.dialled(1, "[2a01::1]:9000", Some(Family::V6));
        assert_eq!(scene.cells(), 1, "a circuit begins");
        assert!(scene.faults().is_empty());
    }

    #[test] // §8.7(5)
    fn a_link_of_the_other_family_is_followed_by_a_dial_over_the_right_one() {
        let mut scene = Scene::new();
        assert!(scene.run());
        scene.dialled(1, "20.1.1.1:9000", None);
        assert!(scene.is_dialling(), "that dial was in flight already");
        scene.dialled(2, "20.1.1.1:9000", Some(Family::V6));
        assert!(!scene.is_dialling(), "v6 went first, and did not answer");
        assert_eq!(scene.faults(), [NoReceipt::NoAnswer]);
        assert_eq!(scene.cells(), 0);
    }

    #[test] // §8.7(5)
    fn an_issuer_that_cannot_be_dialled_gives_no_answer() {
        let mut scene = Scene::new();
        assert!(scene.run());
        let mut cx = scene.bench.context();
        scene.receipts.handle_dial_failed(&mut cx, scene.issuer);
        assert_eq!(scene.faults(), [NoReceipt::NoAnswer]);
        assert!(!scene.run(), "it rests");
    }

    #[test] // §8.7(5)
    fn a_request_ends_in_time() {
        let mut scene = Scene::new();
        assert!(scene.run());
        let mut cx = scene.bench.context();
        scene
            .receipts
            .handle_ask_timeout(&mut cx, &mut scene.circuits, 7);
        assert!(scene.faults().is_empty(), "that is another request");
        let mut cx = scene.bench.context();
        scene
            .receipts
            .handle_ask_timeout(&mut cx, &mut scene.circuits, 0);
        assert_eq!(scene.faults(), [NoReceipt::NoAnswer]);
    }
}
