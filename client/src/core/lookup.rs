//! Looking contacts' inboxes up on the ring (docs/protocol.md §9.4).
//!
//! Positions are asked in random order, each on a circuit of its own, until four have answered and
//! enough agree on the highest revision, or all have answered or failed. So an old descriptor passes
//! as the newest only if all that answered are in league, or none of the others has a newer one.
//! Once enough agree, the others have three seconds: one that is silent must not hold a message up.
//! Near an epoch's end the neighbouring epoch is asked too, since clocks differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::CryptoRng;
use umbel_proto::chance::shuffle;
use umbel_proto::directory::ring::{self, Positions};
use umbel_proto::directory::service::{DirectoryReply, DirectoryRequest};
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::inbox::descriptor::InboxDescriptor;
use umbel_proto::limits::{CLOCK_SKEW_MAX, LOOKUP_ANSWERS_MIN, LOOKUP_PATIENCE};
use umbel_proto::time::{Due, Duration, Epoch, Instant};

use super::circuit::Isolation;
use super::context::Context;
use super::io::DeferReason;
use super::requests::{Answer, AskFault, Asker, Question, Requests};

/// How long a descriptor that was found is used without asking again.
const LIFE: Duration = Duration::from_secs(3600);
/// Most inboxes whose descriptors are kept or looked for; beyond it the one found longest ago is
/// forgotten.
const INBOXES_MAX: usize = 256;

/// The known descriptors of contacts' inboxes, and running look-ups.
#[derive(Default)]
pub(super) struct Lookups {
    by_address: BTreeMap<[u8; 32], Lookup>,
    /// Those that wait for the last answers, with when they conclude without them.
    patient: Due<[u8; 32]>,
    /// How many have ended.
    over: u64,
}

#[derive(Default)]
struct Lookup {
    known: Option<Known>,
    failed: Option<(DeferReason, Instant)>,
    running: Option<Running>,
}

/// A descriptor that was found.
struct Known {
    epoch: Epoch,
    descriptor: Arc<InboxDescriptor>,
    found_at: Instant,
}

/// Positions being asked.
struct Running {
    /// The epoch that it is, as far as is known.
    epoch: Epoch,
    rest: Vec<(Epoch, RelayId)>,
    asking: usize,
    best: Option<(Epoch, InboxDescriptor)>,
    agreeing: usize,
    /// How many answered, also that they have no descriptor.
    answered: usize,
    /// Until when others are waited for, since enough agree.
    patient_until: Option<Instant>,
    /// Why a position gave no answer.
    obstacle: Option<DeferReason>,
}

/// The outcome of a look-up.
pub(super) enum Found {
    /// This is the inbox's descriptor, of this epoch.
    Known(Epoch, Arc<InboxDescriptor>),
    /// It is being looked for.
    Pending,
    /// The look-up failed.
    Failed(DeferReason),
}

impl Lookups {
    /// The inbox's descriptor; if `is_fresh` is asked for, one looked up since `since`. Begins to
    /// look where it must.
    pub(super) fn find(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        address: &InboxAddress,
        since: Instant,
        is_fresh: bool,
    ) -> Found {
        // Without a view there are no positions: that is no answer.
        if !cx.is_ready {
            return Found::Pending;
        }
        if let Some(lookup) = self.by_address.get(address.key()) {
            if lookup.running.is_some() {
                return Found::Pending;
            }
            let is_good = |at: Instant| {
                if is_fresh {
                    at >= since
                } else {
                    at + LIFE > cx.now
                }
            };
            match (&lookup.known, &lookup.failed) {
                (Some(known), _) if is_good(known.found_at) => return known.found(),
                // Better an old one than none, unless its seal key may be erased before what is
                // sealed to it is fetched (§10.5(3)).
                (Some(known), Some((_, at))) if *at >= since && known.is_of_now(cx) => {
                    return known.found();
                }
                (_, &Some((reason, at))) if at >= since => return Found::Failed(reason),
                _ => {}
            }
        }
        if self.make_room(address.key()) {
            self.begin(cx, requests, address);
        }
        Found::Pending
    }

    /// Forgets what was found: the next answer is of what is there, and of nothing else.
    pub(super) fn forget(&mut self, address: &InboxAddress) {
        if let Some(lookup) = self.by_address.get_mut(address.key()) {
            lookup.known = None;
        }
    }

    /// How many look-ups have ended: while that stays as it is, so does what is pending.
    pub(super) const fn over_count(&self) -> u64 {
        self.over
    }

    /// Concludes what has waited long enough for the last answers.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, requests: &mut Requests) {
        while let Some(key) = self.patient.pop_expired(cx.now) {
            if let Ok(address) = InboxAddress::from_key(&key) {
                self.go_on_with(cx, requests, &address);
            }
        }
    }

    /// When [`Self::drive`] has something to do.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.patient.next()
    }

    /// A position answered, or did not.
    pub(super) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        address: &InboxAddress,
        epoch: Epoch,
        answer: Answer,
    ) {
        let Some(lookup) = self.by_address.get_mut(address.key()) else {
            return;
        };
        let Some(running) = &mut lookup.running else {
            return;
        };
        running.asking = running.asking.saturating_sub(1);
        match answer {
            Answer::Directory(DirectoryReply::Inbox(found)) => {
                running.answered += 1;
                let opened = found
                    .map(|bytes| InboxDescriptor::open(address, &cx.network.id, epoch, &bytes));
                if let Some(Ok(descriptor)) = opened {
                    running.on_found(epoch, descriptor);
                }
            }
            // No position is to blame: if none answered yet, asking the others would fail too.
            Answer::Failed(AskFault::NoCircuit) if running.answered == 0 => running.rest.clear(),
            Answer::Failed(AskFault::NoCircuit) => {}
            Answer::Failed(AskFault::Broken { circuits, guards }) => {
                running.obstacle = Some(DeferReason::Broken { circuits, guards });
            }
            Answer::Failed(_) | Answer::Directory(_) | Answer::Mailbox(_) => {
                running.obstacle.get_or_insert(DeferReason::NoDirectory);
            }
        }
        self.go_on_with(cx, requests, address);
    }

    fn begin(&mut self, cx: &mut Context<'_>, requests: &mut Requests, address: &InboxAddress) {
        let mut rest = Vec::new();
        // The likelier go last, since the list is taken from its end.
        for epoch in epochs_at(cx).into_iter().rev() {
            let blinded = address.blinded_key(&cx.network.id, epoch);
            let positions = ring::positions(cx.view(), cx.network, cx.wall, &blinded, epoch);
            rest.extend(last_first(positions, cx.rng).map(|relay| (epoch, relay)));
        }
        let lookup = self.by_address.entry(*address.key()).or_default();
        lookup.running = Some(Running::new(cx.wall.epoch(), rest));
        self.go_on_with(cx, requests, address);
    }

    /// Goes on with one look-up, and notes how far it is.
    fn go_on_with(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut Requests,
        address: &InboxAddress,
    ) {
        let Some(lookup) = self.by_address.get_mut(address.key()) else {
            return;
        };
        self.over += u64::from(Self::go_on(cx, requests, address, lookup));
        let running = lookup.running.as_ref();
        let until = running.and_then(|running| running.patient_until);
        // One that is overdue waits for an answer.
        let until = until.filter(|&until| until > cx.now);
        self.patient.set_or_cancel(*address.key(), until);
    }

    /// Asks as many more as may be needed, or concludes. Says whether it has concluded.
    fn go_on(
        cx: &mut Context<'_>,
        requests: &mut Requests,
        address: &InboxAddress,
        lookup: &mut Lookup,
    ) -> bool {
        let Some(running) = &mut lookup.running else {
            return false;
        };
        let wanted = cx.network.params.lookups_agree;
        while running.lacks_answers(wanted)
            && let Some((epoch, relay)) = running.rest.pop()
        {
            let blinded = address.blinded_key(&cx.network.id, epoch);
            let question = Question::Directory(DirectoryRequest::LookupInbox { blinded, epoch });
            let asker = Asker::Lookup {
                address: *address,
                epoch,
            };
            requests.ask(
                cx,
                asker,
                Isolation::Lookup {
                    address: *address.key(),
                    epoch,
                },
                relay,
                question,
            );
            running.asking += 1;
        }
        let over = running.is_over(wanted, cx.now);
        let over = over.then(|| lookup.running.take()).flatten();
        let is_over = over.is_some();
        if let Some(running) = over {
            lookup.conclude(cx.now, running);
        }
        is_over
    }

    /// Whether one more inbox may be looked for, once another is forgotten if need be.
    fn make_room(&mut self, key: &[u8; 32]) -> bool {
        if self.by_address.len() < INBOXES_MAX || self.by_address.contains_key(key) {
            return true;
        }
        let found_at = |lookup: &Lookup| {
            let known = lookup.known.as_ref();
            known.map_or(Instant::default(), |known| known.found_at)
        };
        let idle = self
            .by_address
            .iter()
            .filter(|(_, lookup)| lookup.running.is_none());
        let Some(oldest) = idle
            .min_by_key(|(_, lookup)| found_at(lookup))
            .map(|(&key, _)| key)
        else {
            return false;
        };
        self.by_address.remove(&oldest);
        true
    }
}

impl Lookup {
    fn conclude(&mut self, now: Instant, running: Running) {
        // A relay that serves an older one than was seen before is not believed.
        let is_older = |epoch: Epoch, revision: u64| {
            let known = self.known.as_ref();
            known.is_some_and(|it| it.epoch == epoch && it.descriptor.revision > revision)
        };
        match running.best {
            Some((epoch, descriptor)) if !is_older(epoch, descriptor.revision) => {
                self.known = Some(Known {
                    epoch,
                    descriptor: Arc::new(descriptor),
                    found_at: now,
                });
                self.failed = None;
            }
            _ if running.answered > 0 => self.failed = Some((DeferReason::NoDescriptor, now)),
            _ => self.failed = Some((running.obstacle.unwrap_or(DeferReason::NoCircuit), now)),
        }
    }
}

impl Known {
    fn found(&self) -> Found {
        Found::Known(self.epoch, Arc::clone(&self.descriptor))
    }

    /// Whether its owner may believe that its epoch runs.
    fn is_of_now(&self, cx: &Context<'_>) -> bool {
        epochs_at(cx).contains(&self.epoch)
    }
}

impl Running {
    const fn new(epoch: Epoch, rest: Vec<(Epoch, RelayId)>) -> Self {
        Self {
            epoch,
            rest,
            asking: 0,
            best: None,
            agreeing: 0,
            answered: 0,
            patient_until: None,
            obstacle: None,
        }
    }

    /// Whether one more is to be asked, even if all that were asked agree in the end.
    fn lacks_answers(&self, wanted: usize) -> bool {
        self.agreeing + self.asking < wanted || self.answered + self.asking < LOOKUP_ANSWERS_MIN
    }

    /// Whether nothing more is waited for: once enough agree, only for a while.
    fn is_over(&mut self, wanted: usize, now: Instant) -> bool {
        let is_agreed = self.agreeing >= wanted;
        if is_agreed {
            self.patient_until.get_or_insert(now + LOOKUP_PATIENCE);
        }
        let is_late = self.patient_until.is_some_and(|until| until <= now);
        (is_agreed && (is_late || self.answered >= LOOKUP_ANSWERS_MIN)) || self.asking == 0
    }

    /// Takes the highest revision of this epoch, else of a neighbouring one: revisions of two epochs
    /// say nothing of each other (§9.4(4)).
    fn on_found(&mut self, epoch: Epoch, descriptor: InboxDescriptor) {
        let rank = |epoch: Epoch, revision: u64| (epoch == self.epoch, revision);
        let new = rank(epoch, descriptor.revision);
        let best = self
            .best
            .as_ref()
            .map(|(epoch, it)| rank(*epoch, it.revision));
        match best {
            Some(best) if best > new => {}
            Some(best) if best == new => self.agreeing += 1,
            _ => {
                self.best = Some((epoch, descriptor));
                self.agreeing = 1;
            }
        }
    }
}

/// The positions, those to be asked first at the end (§9.4(4)).
fn last_first(positions: Positions, rng: &mut dyn CryptoRng) -> impl Iterator<Item = RelayId> {
    let mut parts = [positions.others, positions.first];
    parts.iter_mut().for_each(|part| shuffle(part, rng));
    parts.into_iter().flatten()
}

/// The epochs that an owner may believe it is, the likeliest first.
fn epochs_at(cx: &Context<'_>) -> Vec<Epoch> {
    let epoch = cx.wall.epoch();
    let before = Epoch(epoch.0.saturating_sub(1));
    if cx.wall.since(epoch.starts_at()) < CLOCK_SKEW_MAX {
        vec![epoch, before]
    } else if epoch.next().starts_at().since(cx.wall) < CLOCK_SKEW_MAX {
        vec![epoch, epoch.next()]
    } else {
        vec![epoch]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use umbel_proto::inbox::record::SealSecret;
    use umbel_proto::limits::RING_POSITIONS;

    use umbel_proto::inbox::address::InboxIdentity;
    use umbel_proto::time::WallTime;

    use super::super::testing::{When, id};
    use super::*;

    const EPOCH: Epoch = Epoch(3);

    fn descriptor(revision: u64) -> InboxDescriptor {
        InboxDescriptor {
            revision,
            seal_key: SealSecret::from_seed(&[4; 32]).public(),
            mailboxes: Vec::new(),
            puzzle_effort: 0,
        }
    }

    /// The revision that is believed, if positions have these, and are asked in this order. A
    /// position without one says that it has none.
    fn believed(positions: &[Option<u64>]) -> Option<u64> {
        let mut rest: Vec<_> = positions.iter().rev().copied().collect();
        let mut running = Running::new(EPOCH, Vec::new());
        let mut asked = Vec::new();
        loop {
            while running.lacks_answers(2)
                && let Some(position) = rest.pop()
            {
                running.asking += 1;
                asked.push(position);
            }
            if running.is_over(2, Instant::default()) || asked.is_empty() {
                return running.best.map(|(_, best)| best.revision);
            }
            running.asking -= 1;
            running.answered += 1;
            if let Some(revision) = asked.remove(0) {
                running.on_found(EPOCH, descriptor(revision));
            }
        }
    }

    /// Of all orders, the share in which as many positions that lie roll the inbox back.
    fn rolled_back(liars: usize) -> (usize, usize) {
        let (mut orders, mut rolled) = (0, 0);
        for order in 0_u32..1 << RING_POSITIONS {
            if order.count_ones() as usize == liars {
                let position = |at| Some(if (order >> at) & 1 == 0 { 2 } else { 1 });
                let positions: Vec<_> = (0..RING_POSITIONS).map(position).collect();
                orders += 1;
                rolled += usize::from(believed(&positions) == Some(1));
            }
        }
        (rolled, orders)
    }

    #[test] // §9.4(4)
    fn an_old_descriptor_is_believed_only_if_four_of_six_are_in_league() {
        assert_eq!([1, 2, 3].map(|liars| rolled_back(liars).0), [0; 3]);
        assert_eq!(rolled_back(4), (1, 15));
        assert_eq!(rolled_back(5), (2, 6));
        assert_eq!(rolled_back(6), (1, 1));
    }

    #[test] // §9.4(4)
    fn the_first_positions_are_asked_before_the_others() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let positions = Positions {
            first: (1..7).map(id).collect(),
            others: (7..13).map(id).collect(),
        };
        let order: Vec<_> = last_first(positions.clone(), &mut rng).collect();
        assert_eq!(order.len(), 12);
        assert!(order[6..].iter().all(|it| positions.first.contains(it)));
        assert_ne!(order[6..], positions.first, "in random order");
    }

    #[test] // §9.4(4)
    fn once_enough_agree_a_silent_position_is_waited_for_three_seconds() {
        let at = |millis| Instant::default() + Duration::from_millis(millis);
        let mut running = Running {
            asking: 2,
            answered: 2,
            ..Running::new(EPOCH, Vec::new())
        };
        running.on_found(EPOCH, descriptor(1));
        assert!(!running.is_over(2, at(0)), "one alone is not enough");
        assert_eq!(running.patient_until, None);
        running.on_found(EPOCH, descriptor(1));
        assert!(!running.is_over(2, at(1000)));
        assert!(!running.is_over(2, at(3999)));
        assert!(running.is_over(2, at(4000)));
        running.on_found(EPOCH, descriptor(2));
        assert!(!running.is_over(2, at(5000)), "a newer one needs another");
    }

    #[test] // §10.5(3)
    fn a_descriptor_of_a_week_that_is_over_is_used_no_more() {
        let address = *InboxIdentity::from_seed(&[3; 32]).address();
        let found_after = |wait: Duration| {
            let begins = WallTime(1_790_000_000).epoch().starts_at();
            let later = When {
                now: Instant::default() + Duration::from_secs(10),
                ..When::at(begins + wait)
            };
            later.act(|cx| {
                cx.is_ready = true;
                let known = Known {
                    epoch: begins.epoch(),
                    descriptor: Arc::new(descriptor(1)),
                    found_at: Instant::default(),
                };
                let lookup = Lookup {
                    known: Some(known),
                    failed: Some((DeferReason::NoDirectory, cx.now)),
                    running: None,
                };
                let mut lookups = Lookups::default();
                lookups.by_address.insert(*address.key(), lookup);
                let mut requests = Requests::default();
                lookups.find(cx, &mut requests, &address, cx.now, true)
            })
        };
        let is_known = |wait| matches!(found_after(wait).0, Found::Known(..));
        let week = Duration::from_secs(7 * 24 * 3600);
        assert!(is_known(Duration::from_secs(5)) && is_known(week + Duration::from_secs(3599)));
        assert!(!is_known(week + Duration::from_secs(3600)));
    }

    #[test] // §9.4(4)
    fn a_neighbouring_epochs_revision_counts_only_where_this_one_has_none() {
        let mut running = Running::new(EPOCH, Vec::new());
        let best = |running: &Running| running.best.as_ref().map(|(at, it)| (*at, it.revision));
        running.on_found(EPOCH.next(), descriptor(9));
        assert_eq!(best(&running), Some((EPOCH.next(), 9)));
        running.on_found(EPOCH, descriptor(1));
        running.on_found(EPOCH.next(), descriptor(9));
        assert_eq!((best(&running), running.agreeing), (Some((EPOCH, 1)), 1));
    }

    #[test] // §9.4(4)
    fn no_lower_revision_of_one_epoch_is_believed_after_a_higher() {
        let mut lookup = Lookup::default();
        let mut finds = |epoch, revision| {
            let mut running = Running::new(epoch, Vec::new());
            running.answered = 1;
            running.on_found(epoch, descriptor(revision));
            lookup.conclude(Instant::default(), running);
            lookup.known.as_ref().map(|it| it.descriptor.revision)
        };
        assert_eq!(finds(EPOCH, 7), Some(7));
        assert_eq!(finds(EPOCH, 6), Some(7));
        assert_eq!(
            finds(EPOCH.next(), 2),
            Some(2),
            "its own, which tells nothing"
        );
    }

    #[test] // §9.4(4)
    fn one_honest_position_among_four_answers_is_enough() {
        assert_eq!(
            believed(&[Some(1), Some(1), Some(1), Some(2), None, None]),
            Some(2)
        );
        assert_eq!(believed(&[None, None, None, None, None, Some(2)]), Some(2));
        assert_eq!(
            believed(&[None, None, Some(1), Some(1), Some(2), Some(2)]),
            Some(1)
        );
        assert_eq!(believed(&[Some(2), None]), Some(2), "fewer positions");
        assert_eq!(believed(&[None; 6]), None);
    }
}
