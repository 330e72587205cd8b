//! What a relay says of itself (docs/protocol.md §5.3, §8.1): its onion keys, its receipts, and its
//! descriptor, issued anew when they age or its addresses change.
//!
//! A descriptor of this relay that a peer sent is never taken. A newer one was issued by another
//! process with the same identity, or before this clock was set back; this relay then issues one
//! that is newer still.

pub(super) mod receipts;

use std::net::SocketAddr;

use rand::RngExt;
use umbel_proto::directory::Receipt;
use umbel_proto::directory::descriptor::{DescriptorFault, RelayDescriptor, Unverified};
use umbel_proto::directory::receipts::Asker;
use umbel_proto::ids::{NetworkId, RelayId};
use umbel_proto::limits::{
    CLOCK_SKEW_MAX, LAST_KNOWN_LIFE, RECEIPT_REISSUE_PAUSE, RELAY_DESCRIPTOR_LIFE,
};
use umbel_proto::time::{Duration, Instant, WallTime};

use super::circuits::Circuits;
use super::context::{Context, Signal};
use super::io::{Listed, News, StoreOp, StoredOnionKey};
use super::keys::{OnionKeys, Responder};
pub(super) use receipts::OwnReceipts;

/// Least time before this relay outdoes another descriptor of itself again: two relays that outdo
/// each other update the whole network each time.
const OUTDO_INTERVAL: Duration = Duration::from_secs(3600);
/// How long after a start, or a change of addresses, the operator is first told that too few relays
/// vouch for one.
const UNVOUCHED_FIRST: Duration = Duration::from_secs(120);
/// How often the operator is told.
const UNVOUCHED_TOLD_EVERY: Duration = Duration::from_secs(3600);

/// A relay's own keys and descriptor.
pub(super) struct Own {
    keys: OnionKeys,
    receipts: OwnReceipts,
    descriptor: OwnDescriptor,
    /// Since when others list this relay; `None` if they never have.
    listed: Option<Listed>,
    /// When a descriptor from elsewhere was last outdone.
    outdone_at: Option<Instant>,
    /// When a descriptor last came that another process issued.
    twin_at: Option<Instant>,
    /// When the operator is told again that too few relays vouch for an address.
    unvouched_told_from: Instant,
}

/// A descriptor, and when it is issued anew.
struct OwnDescriptor {
    bytes: Vec<u8>,
    /// The addresses in it that enough relays vouch for.
    vouched: Vec<SocketAddr>,
    receipt_count: usize,
    issued_at: WallTime,
    republish_at: WallTime,
}

impl Own {
    /// Takes up stored keys, and issues the first descriptor.
    pub(super) fn restore(
        cx: &mut Context<'_>,
        onion_keys: Vec<StoredOnionKey>,
        receipts: &[Vec<u8>],
        listed: Option<Listed>,
    ) -> Self {
        let keys = OnionKeys::restore(cx, onion_keys);
        let receipts = OwnReceipts::restore(cx, receipts);
        let descriptor = OwnDescriptor::issue(cx, &keys, &receipts, None);
        let mut own = Self {
            keys,
            receipts,
            descriptor,
            listed,
            outdone_at: None,
            twin_at: None,
            unvouched_told_from: cx.now + UNVOUCHED_FIRST,
        };
        own.enter_view(cx);
        own
    }

    /// The descriptor as it is passed on.
    pub(super) fn descriptor(&self) -> &[u8] {
        &self.descriptor.bytes
    }

    /// Answers handshakes with the keys of now.
    pub(super) fn responder(&self, network: NetworkId, relay: RelayId) -> Responder {
        self.keys.responder(network, relay)
    }

    /// The receipts of our addresses: what is asked for them, and what came.
    pub(super) const fn receipts(&mut self) -> &mut OwnReceipts {
        &mut self.receipts
    }

    /// Who vouches for our addresses, and who refused.
    pub(super) const fn asker(&self) -> &Asker {
        self.receipts.asker()
    }

    /// Since when others list this relay; `None` if they never have.
    pub(super) const fn listed(&self) -> Option<Listed> {
        self.listed
    }

    /// When receipts are to be looked after.
    pub(super) const fn receipts_due(&self) -> Option<Instant> {
        self.receipts.poll_timeout()
    }

    /// Rotates the onion key and issues the descriptor anew, when it is time.
    pub(super) fn renew(&mut self, cx: &mut Context<'_>) {
        self.receipts.expire(cx);
        let is_key_old = self.keys.is_due(cx);
        let is_descriptor_old = cx.wall >= self.descriptor.republish_at
            || is_of_the_future(cx, self.descriptor.issued_at);
        if is_key_old {
            self.keys.add(cx);
        }
        if is_key_old || is_descriptor_old {
            self.reissue(cx);
        }
    }

    /// Issues the descriptor anew and passes it on.
    pub(super) fn reissue(&mut self, cx: &mut Context<'_>) {
        self.keys.redate(cx);
        let issued = self.issue(cx);
        self.publish(cx, issued);
    }

    /// Looks after the receipts when that is due. After an absence of all relays those who vouch come
    /// back into view one by one, so an address may be vouched for without a receipt that is new.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>, circuits: &mut Circuits) {
        if self.receipts_due().is_none_or(|at| at > cx.now) {
            return;
        }
        self.receipts.handle_timeout(cx, circuits);
        if self.is_wearing_out(cx) {
            self.reissue_soon();
        }
        let known = receipts::known(cx.config, cx.book, cx.wall);
        let vouched = self.receipts.asker().vouched(known);
        let is_shown = |address: &SocketAddr| self.descriptor.vouched.contains(address);
        if !vouched.iter().all(is_shown) {
            return self.handle_vouched(cx);
        }
        if !self.receipts.is_asking() && !cx.config.addresses.iter().all(is_shown) {
            // Those who could may not be in view: nobody passes news on to a relay that nobody knows.
            cx.signal(Signal::ReconcileSoon);
        }
        if self.unvouched_told_from > cx.now {
            return;
        }
        self.unvouched_told_from = cx.now + UNVOUCHED_TOLD_EVERY;
        let wanted = cx.params().receipts_min;
        for &address in cx.config.addresses.iter().filter(|it| !is_shown(it)) {
            let receipt_count = self.count(cx, address);
            cx.out.news.push_back(News::Unvouched {
                address,
                receipt_count,
                wanted,
            });
        }
    }

    /// A receipt came, or an issuer came into view. An address that becomes vouched for is shown at
    /// once; more receipts, in a while.
    pub(super) fn handle_vouched(&mut self, cx: &mut Context<'_>) {
        let issued = self.issue(cx);
        if issued.vouched != self.descriptor.vouched {
            for &address in &issued.vouched {
                if !self.descriptor.vouched.contains(&address) {
                    let receipt_count = self.count(cx, address);
                    cx.tell(News::Reachable {
                        address,
                        receipt_count,
                    });
                }
            }
            self.publish(cx, issued);
        } else if issued.receipt_count > self.descriptor.receipt_count {
            self.reissue_soon();
        }
    }

    fn reissue_soon(&mut self) {
        let due = self.descriptor.issued_at + RECEIPT_REISSUE_PAUSE;
        self.descriptor.republish_at = self.descriptor.republish_at.min(due);
    }

    /// Whether no receipt of an address that is shown may be lost any more, though there are others to
    /// show: issuers have left, or were barred.
    fn is_wearing_out(&self, cx: &Context<'_>) -> bool {
        let known = receipts::known(cx.config, cx.book, cx.wall);
        let Some(own) = cx.view().get(&cx.relay) else {
            return false;
        };
        self.descriptor.vouched.iter().any(|&address| {
            let counted = cx
                .view()
                .counted_receipts(own, address, known.network, cx.wall);
            let counted = counted.count();
            counted <= cx.params().receipts_min && self.count(cx, address) > counted
        })
    }

    /// The relay is dialled at other addresses now.
    ///
    /// # Errors
    /// Others would not take a descriptor with these addresses; the one before stays.
    pub(super) fn handle_addresses(&mut self, cx: &mut Context<'_>) -> Result<(), DescriptorFault> {
        let issued = self.issue(cx);
        let verified = Unverified::decode(&issued.bytes)
            .and_then(|own| own.verify(&cx.config.network, cx.wall));
        match verified {
            Err(
                fault @ (DescriptorFault::Address
                | DescriptorFault::AddressPrivate
                | DescriptorFault::NoAddress),
            ) => Err(fault),
            Ok(_) | Err(_) => {
                self.publish(cx, issued);
                self.receipts.handle_addresses(cx.now);
                self.unvouched_told_from = cx.now + UNVOUCHED_FIRST;
                Ok(())
            }
        }
    }

    /// A peer sent a descriptor of this relay.
    pub(super) fn handle_seen(&mut self, cx: &mut Context<'_>, seen: Unverified) {
        let own = Unverified::decode(&self.descriptor.bytes);
        let is_newer = own.is_ok_and(|own| seen.version() > own.version());
        if !is_newer {
            return;
        }
        let Ok(seen) = seen.verify(&cx.config.network, cx.wall) else {
            return;
        };
        let is_ours = |address: &SocketAddr| cx.config.addresses.contains(address);
        if !seen.addresses.iter().all(is_ours) {
            cx.stats.twins += 1;
            self.twin_at = Some(cx.now);
        }
        let is_early = self
            .outdone_at
            .is_some_and(|at| cx.now < at + OUTDO_INTERVAL);
        if !is_early {
            self.outdone_at = Some(cx.now);
            self.descriptor.republish_at = cx.wall.max(seen.issued_at + Duration::from_secs(1));
        }
    }

    /// Whether another process issues descriptors of this relay, as far as was heard: each outdoes the
    /// other once an hour.
    pub(super) fn has_twin(&self, now: Instant) -> bool {
        self.twin_at.is_some_and(|at| now < at + OUTDO_INTERVAL * 2)
    }

    /// How many relays vouch for this address, as our own view counts them.
    fn count(&self, cx: &Context<'_>, address: SocketAddr) -> usize {
        let known = receipts::known(cx.config, cx.book, cx.wall);
        self.receipts.asker().receipts_for(known, address).len()
    }

    fn issue(&self, cx: &mut Context<'_>) -> OwnDescriptor {
        let before = self.descriptor.issued_at;
        OwnDescriptor::issue(cx, &self.keys, &self.receipts, Some(before))
    }

    fn publish(&mut self, cx: &mut Context<'_>, descriptor: OwnDescriptor) {
        self.descriptor = descriptor;
        if self.enter_view(cx) {
            cx.signal(Signal::Learned(self.descriptor.bytes.clone()));
        }
    }

    /// Takes our own descriptor into our view, and says whether others would take it too: not while
    /// too few relays vouch for it.
    fn enter_view(&mut self, cx: &mut Context<'_>) -> bool {
        if cx.config.addresses.is_empty() {
            return false; // nobody can dial it yet: the shell looks for addresses, and logs that
        }
        let network = &cx.config.network;
        match cx.book.own(network, cx.wall, &self.descriptor.bytes) {
            Ok(is_taken) => {
                if is_taken {
                    self.note_listed(cx);
                }
                is_taken
            }
            Err(fault) => {
                cx.tell(News::DescriptorRefused(fault));
                false
            }
        }
    }

    /// Others take the descriptor. They remember a relay whose last one is dead for a while (§8.2(7)): after
    /// a longer gap it may be new to them. A clock that was ahead for a moment is none.
    fn note_listed(&mut self, cx: &mut Context<'_>) {
        let confirmed = cx.clock.confirmed();
        let is_remembered = |before: &Listed| before.until + LAST_KNOWN_LIFE > confirmed;
        let before = self.listed.filter(is_remembered);
        let since = before.map_or(cx.wall, |before| before.since.min(cx.wall));
        let until = self.descriptor.issued_at + RELAY_DESCRIPTOR_LIFE;
        let listed = Listed { since, until };
        if self.listed.replace(listed) != Some(listed) {
            cx.store(StoreOp::PutListed(listed));
        }
    }
}

impl OwnDescriptor {
    /// Lists the addresses that enough relays vouch for (§8.7(7)): one that they don't would keep
    /// the descriptor out of every view (§8.2(4)). Without any it lists all, to be dialled by.
    ///
    /// It is newer than the one issued `before`: of two from one second the hash would decide. One
    /// that is of the future gives way, since others refuse it (§8.1(9)).
    fn issue(
        cx: &mut Context<'_>,
        keys: &OnionKeys,
        own: &OwnReceipts,
        before: Option<WallTime>,
    ) -> Self {
        let before = before.filter(|&at| !is_of_the_future(cx, at));
        let issued_at = before.map_or(cx.wall, |at| cx.wall.max(at + Duration::from_secs(1)));
        let known = receipts::known(cx.config, cx.book, cx.wall);
        let view = known.book.view();
        let is_seed = view.seed_vouches(known.network, &cx.relay, cx.wall);
        let vouched = if is_seed {
            known.addresses.to_vec()
        } else {
            own.asker().vouched(known)
        };
        let addresses = match &vouched[..] {
            [] => known.addresses,
            some => some,
        };
        let shown: Vec<Receipt> = addresses
            .iter()
            .flat_map(|&address| own.asker().receipts_for(known, address))
            .collect();
        let receipt_count = shown.len();
        let descriptor = RelayDescriptor {
            network: cx.config.network.id,
            relay: cx.relay,
            onion_keys: keys.public(),
            addresses: addresses.to_vec(),
            roles: cx.config.roles,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            issued_at,
            receipts: shown,
            puzzle: 0,
        };
        let jitter_max = cx.params().republish_jitter;
        let jitter = jitter_max.mul_f64(cx.rng.random_range(0.0..2.0));
        let pause = (cx.params().republish + jitter).saturating_sub(jitter_max);
        Self {
            bytes: descriptor.sign(&cx.config.identity),
            vouched,
            receipt_count,
            issued_at,
            republish_at: issued_at + pause,
        }
    }
}

/// Whether others refuse a descriptor of that time as one of the future (§8.1(4)).
fn is_of_the_future(cx: &Context<'_>, issued_at: WallTime) -> bool {
    issued_at > cx.wall + CLOCK_SKEW_MAX
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::handshake::OnionSecret;
    use umbel_proto::limits::ONION_KEYS_MAX;
    use umbel_proto::time::Moment;

    use super::super::io::StoreOp;
    use super::super::testing::{Bench, descriptor};
    use super::*;

    /// A descriptor of the bench's relay that another process issued.
    fn twin(issued_at: WallTime) -> Unverified {
        let (identity, onion) = (
            SigningKey::from_seed(&[99; 32]),
            OnionSecret::from_seed(&[8; 32]),
        );
        descriptor(&identity, &onion, 9999, issued_at)
    }

    /// A relay that has said who it is.
    fn issued() -> (Bench, Own) {
        let mut bench = Bench::new(0);
        bench.shared.clock.confirm();
        let own = Own::restore(&mut bench.context(), Vec::new(), &[], None);
        bench.shared.out.store.clear();
        (bench, own)
    }

    /// Looks whether anything is due; when the descriptor that is passed on was issued, if one is.
    fn renewed(bench: &mut Bench, own: &mut Own) -> Option<WallTime> {
        own.renew(&mut bench.context());
        match &bench.signals()[..] {
            [] => None,
            [Signal::Learned(bytes)] => {
                assert_eq!(bytes, own.descriptor());
                Some(Unverified::decode(bytes).unwrap().issued_at())
            }
            _ => panic!("nothing else is told"),
        }
    }

    #[test] // §8.2
    fn a_newer_descriptor_from_elsewhere_is_outdone_at_most_once_an_hour() {
        let (mut bench, mut own) = issued();
        let mut outdone = Vec::new();
        for _ in 0..7 {
            bench.pass(Duration::from_secs(1000));
            let newer = bench.moment.wall;
            own.handle_seen(&mut bench.context(), twin(newer));
            bench.pass(Duration::from_secs(1));
            if let Some(at) = renewed(&mut bench, &mut own) {
                assert!(at > newer);
                outdone.push(bench.moment.wall.since(WallTime(1_790_000_000)).as_secs());
            }
        }
        assert_eq!(outdone, [1001, 5005]);
        assert_eq!(bench.shared.stats.twins, 7);
        assert!(own.has_twin(bench.moment.now));
        bench.pass(OUTDO_INTERVAL * 2);
        assert!(!own.has_twin(bench.moment.now), "it was stopped");
    }

    #[test] // §8.2
    fn a_peer_that_repeats_or_forges_our_descriptor_changes_nothing() {
        let (mut bench, mut own) = issued();
        let wall = bench.moment.wall;
        let repeated = Unverified::decode(own.descriptor()).unwrap();
        let mut forged = twin(wall + Duration::from_secs(60)).bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let forged = Unverified::decode(&forged).unwrap();
        let older = twin(WallTime(wall.as_secs() - 60));
        for seen in [repeated, forged, older] {
            own.handle_seen(&mut bench.context(), seen);
            bench.pass(Duration::from_secs(5));
            assert_eq!(renewed(&mut bench, &mut own), None);
        }
        assert_eq!(bench.shared.stats.twins, 0);
    }

    #[test] // §8.2(1)
    fn of_two_descriptors_of_one_second_the_later_is_newer() {
        let (mut bench, mut own) = issued();
        let mut last = Unverified::decode(own.descriptor()).unwrap().issued_at();
        for _ in 0..3 {
            own.reissue(&mut bench.context());
            let next = Unverified::decode(own.descriptor()).unwrap().issued_at();
            assert!(next > last);
            last = next;
        }
    }

    #[test] // §8.1(9)
    fn a_descriptor_of_the_future_gives_way_to_one_of_now() {
        let (mut bench, mut own) = issued();
        bench.moment.wall = WallTime(bench.moment.wall.as_secs() - 7200);
        own.reissue(&mut bench.context());
        let issued_at = Unverified::decode(own.descriptor()).unwrap().issued_at();
        assert_eq!(issued_at, bench.moment.wall);
    }

    #[test] // §8.1(9)
    fn a_descriptor_of_the_future_is_replaced_once_the_clock_is_right() {
        let (mut bench, mut own) = issued();
        bench.pass(Duration::from_secs(60));
        assert_eq!(renewed(&mut bench, &mut own), None);
        let right = WallTime(bench.moment.wall.as_secs() - 2 * CLOCK_SKEW_MAX.as_secs());
        bench.moment.wall = right;
        assert_eq!(renewed(&mut bench, &mut own), Some(right));
        bench.pass(Duration::from_secs(60));
        assert_eq!(renewed(&mut bench, &mut own), None, "once is enough");
    }

    #[test] // §1.6, §5.3
    fn an_unconfirmed_clock_reissues_the_descriptor_but_discards_no_onion_key() {
        let (mut bench, mut own) = issued();
        let life = bench.shared.config.network.params.onion_key_life;
        bench.moment.wall = bench.moment.wall + life + life;
        for _ in 0..ONION_KEYS_MAX {
            let Moment { now, wall } = bench.moment;
            bench.shared.clock.look(now, wall);
            assert_eq!(renewed(&mut bench, &mut own), Some(bench.moment.wall));
            let is_key = |op: &StoreOp| matches!(op, StoreOp::PutOnionKeys(_));
            assert!(!bench.shared.out.store.drain(..).any(|op| is_key(&op)));
            bench.moment.wall = bench.moment.wall + life;
        }
        bench.shared.clock.confirm();
        own.renew(&mut bench.context());
        assert!(matches!(
            bench.shared.out.store.pop_front(),
            Some(StoreOp::PutOnionKeys(stored)) if stored.len() == 2
        ));
    }

    #[test]
    fn others_list_a_relay_until_its_last_descriptor_is_dead() {
        let (mut bench, mut own) = issued();
        let since = bench.moment.wall;
        let republish = bench.shared.config.network.params.republish;
        for _ in 0..3 {
            bench.pass(republish);
            own.reissue(&mut bench.context());
            let until = bench.moment.wall + RELAY_DESCRIPTOR_LIFE;
            assert_eq!(own.listed, Some(Listed { since, until }));
        }
        let listed = own.listed;
        bench.pass(RELAY_DESCRIPTOR_LIFE - Duration::from_secs(1));
        let again = |bench: &mut Bench| {
            let own = Own::restore(&mut bench.context(), Vec::new(), &[], listed);
            own.listed.map(|listed| listed.since)
        };
        assert_eq!(again(&mut bench), Some(since));
        bench.pass(LAST_KNOWN_LIFE);
        assert_eq!(again(&mut bench), Some(since), "it is remembered");
        bench.pass(Duration::from_secs(1));
        let Moment { now, wall } = bench.moment;
        bench.shared.clock.look(now, wall);
        assert_eq!(again(&mut bench), Some(wall), "it is new");
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_moment_makes_no_relay_new_to_others() {
        let (mut bench, mut own) = issued();
        let since = bench.moment.wall;
        for ahead in [Duration::from_secs(400 * 86_400), Duration::ZERO] {
            bench.moment.wall = since + ahead;
            let Moment { now, wall } = bench.moment;
            bench.shared.clock.look(now, wall);
            own.reissue(&mut bench.context());
            assert_eq!(own.listed.map(|listed| listed.since), Some(since));
        }
    }

    /// A relay in need of three receipts, at a public address, and the keys of six others that it
    /// knows and that may vouch.
    fn unvouched() -> (Bench, Own, Vec<SigningKey>) {
        let mut bench = Bench::new(0);
        let issuers = (1..=6).map(|number| {
            bench.learn(number, &[&format!("20.{number}.1.1:9000")]);
            SigningKey::from_seed(&[number; 32])
        });
        let issuers = issuers.collect();
        bench.shared.clock.confirm();
        bench.shared.config.network.params.receipts_min = 3;
        bench.shared.config.addresses = vec!["30.1.1.1:9000".parse().unwrap()];
        let own = Own::restore(&mut bench.context(), Vec::new(), &[], None);
        bench.signals();
        (bench, own, issuers)
    }

    /// This relay vouches for the bench's relay, an address of it.
    fn vouch(bench: &mut Bench, own: &mut Own, issuer: &SigningKey) {
        let address = bench.shared.config.addresses[0];
        let (network, relay) = (bench.shared.config.network.id, bench.shared.relay);
        let receipt = Receipt::sign(issuer, &network, &relay, address, bench.moment.wall);
        let mut cx = bench.context();
        own.receipts.take(&mut cx, receipt);
        own.handle_vouched(&mut cx);
    }

    /// The receipts in a descriptor that was passed on, if one was.
    fn passed_on(bench: &mut Bench) -> Option<usize> {
        let (network, wall) = (bench.shared.config.network.clone(), bench.moment.wall);
        match &bench.signals()[..] {
            [] => None,
            [Signal::Learned(bytes)] => {
                let own = Unverified::decode(bytes).unwrap();
                Some(own.verify(&network, wall).unwrap().receipts.len())
            }
            _ => panic!("nothing else is told"),
        }
    }

    #[test] // §8.7(7)
    fn an_address_is_shown_once_it_is_vouched_for() {
        let (mut bench, mut own, issuers) = unvouched();
        for issuer in &issuers[..2] {
            vouch(&mut bench, &mut own, issuer);
            assert_eq!(passed_on(&mut bench), None, "two are too few");
        }
        vouch(&mut bench, &mut own, &SigningKey::from_seed(&[77; 32])); // unknown here
        assert!(bench.shared.out.news.is_empty());
        vouch(&mut bench, &mut own, &issuers[2]);
        assert_eq!(passed_on(&mut bench), Some(3));
        let address = bench.shared.config.addresses[0];
        assert!(matches!(
            bench.shared.out.news.pop_front(),
            Some(News::Reachable { address: at, receipt_count: 3 }) if at == address
        ));
    }

    #[test] // §8.7(7)
    fn further_receipts_are_shown_a_minute_later() {
        let (mut bench, mut own, issuers) = unvouched();
        for issuer in &issuers[..5] {
            vouch(&mut bench, &mut own, issuer);
        }
        assert_eq!(passed_on(&mut bench), Some(3));
        bench.pass(RECEIPT_REISSUE_PAUSE);
        own.renew(&mut bench.context());
        assert_eq!(passed_on(&mut bench), None, "its issue was a second late");
        bench.pass(Duration::from_secs(1));
        own.renew(&mut bench.context());
        assert_eq!(passed_on(&mut bench), Some(5));
    }

    #[test] // §8.7(7)
    fn receipts_of_issuers_that_were_barred_are_replaced_by_others_in_time() {
        let (mut bench, mut own, issuers) = unvouched();
        for issuer in &issuers {
            vouch(&mut bench, &mut own, issuer);
        }
        bench.pass(RECEIPT_REISSUE_PAUSE * 2);
        own.renew(&mut bench.context());
        bench.signals();
        let descriptor = bench.shared.book.view().get(&bench.shared.relay).unwrap();
        let shown: Vec<RelayId> = descriptor.receipts.iter().map(|it| it.issuer).collect();
        assert_eq!(shown.len(), 5);
        for (barred, replaced_by) in [(1, None), (2, Some(4)), (3, None)] {
            let barred = shown.iter().copied().take(barred).collect();
            let network = &bench.shared.config.network;
            let wall = bench.moment.wall;
            bench.shared.book.bar(network, wall, barred);
            bench.pass(RECEIPT_REISSUE_PAUSE * 2);
            own.handle_timeout(&mut bench.context(), &mut Circuits::default());
            own.renew(&mut bench.context());
            assert_eq!(passed_on(&mut bench), replaced_by);
        }
    }

    #[test] // §8.7(5)
    fn a_new_address_is_asked_for_at_once_and_complained_of_later() {
        let (mut bench, mut own, issuers) = unvouched();
        let mut circuits = Circuits::default();
        for issuer in &issuers[..5] {
            vouch(&mut bench, &mut own, issuer);
        }
        bench.pass(UNVOUCHED_FIRST * 2);
        own.handle_timeout(&mut bench.context(), &mut circuits);
        assert!(own.receipts_due() > Some(bench.moment.now), "all is well");
        bench.shared.config.addresses = vec!["30.2.1.1:9000".parse().unwrap()];
        own.handle_addresses(&mut bench.context()).unwrap();
        own.handle_timeout(&mut bench.context(), &mut circuits);
        assert!(own.receipts.is_asking());
        let told = |bench: &mut Bench| {
            let news = core::mem::take(&mut bench.shared.out.news);
            news.iter()
                .filter(|it| matches!(it, News::Unvouched { .. }))
                .count()
        };
        assert_eq!(told(&mut bench), 0);
        let mut cx = bench.context();
        own.receipts.handle_ask_timeout(&mut cx, &mut circuits, 0);
        bench.pass(UNVOUCHED_FIRST);
        own.handle_timeout(&mut bench.context(), &mut circuits);
        assert_eq!(told(&mut bench), 1);
    }

    #[test]
    fn a_relay_without_addresses_is_not_in_its_view_and_does_not_complain() {
        let mut bench = Bench::new(0);
        bench.shared.config.addresses.clear();
        let mut own = Own::restore(&mut bench.context(), Vec::new(), &[], None);
        assert!(bench.shared.book.view().is_empty() && bench.shared.out.news.is_empty());
        bench.shared.config.addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9000))];
        own.handle_addresses(&mut bench.context()).unwrap();
        assert_eq!(bench.shared.book.view().len(), 1);
        assert!(matches!(bench.signals()[..], [Signal::Learned(_)]));
    }
}
