//! The directory service (docs/protocol.md §8.4, §9.4): relay descriptors are reconciled and taken,
//! inbox descriptors kept.
//!
//! An inbox descriptor is acknowledged, and served, only once it is durable.

use std::collections::{BTreeMap, VecDeque};

use serde_bytes::ByteBuf;
use umbel_proto::Violation;
use umbel_proto::directory::reconcile::SyncRequest;
use umbel_proto::directory::{
    DirectoryRefusal, DirectoryReply, DirectoryRequest, Unverified, reconcile,
};
use umbel_proto::ids::BlindedKey;
use umbel_proto::inbox::descriptor::Outer;
use umbel_proto::limits::{CLOCK_SKEW_MAX, NETWORK_FILE_LEN_MAX};
use umbel_proto::link::LinkId;
use umbel_proto::network::Network;
use umbel_proto::time::{Duration, Epoch, WallTime};

use super::super::context::{Context, Heard};
use super::super::io::StoreOp;
use super::budgets::{CompareBudgets, PushBudgets, Source};
use super::{Answer, LateAnswer, Request, RequestId};

/// Where an inbox descriptor is kept: oldest epoch first.
type Place = (Epoch, BlindedKey);

/// The inbox descriptors of a relay.
pub(in super::super) struct Directory {
    inboxes: BTreeMap<Place, StoredInbox>,
    publishing: BTreeMap<RequestId, (Place, StoredInbox)>,
    answers: VecDeque<LateAnswer>,
    push_budgets: PushBudgets,
    compare_budgets: CompareBudgets,
}

/// An inbox descriptor that is durable here, or is being stored.
struct StoredInbox {
    revision: u64,
    descriptor: Vec<u8>,
}

impl Directory {
    /// Inbox descriptors were checked against the clock when they came; the clock of the start may
    /// be the wrong one.
    pub(in super::super) fn restore(inbox_descriptors: Vec<Vec<u8>>) -> Self {
        let mut inboxes = BTreeMap::new();
        for descriptor in inbox_descriptors {
            if let Ok(outer) = Outer::verify_stored(&descriptor) {
                let inbox = StoredInbox {
                    revision: outer.revision,
                    descriptor,
                };
                inboxes.insert((outer.epoch, outer.blinded), inbox);
            }
        }
        Self {
            inboxes,
            publishing: BTreeMap::new(),
            answers: VecDeque::new(),
            push_budgets: PushBudgets::new(),
            compare_budgets: CompareBudgets::new(),
        }
    }

    pub(super) fn handle_request(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        request: &Request<'_>,
    ) -> Result<Answer, Violation> {
        let reply = match DirectoryRequest::decode(request.frame)? {
            DirectoryRequest::Sync(sync) => Some(self.reconcile(cx, request.link, &sync)),
            DirectoryRequest::Push(descriptors) => {
                Some(self.take_pushed(cx, request.link, &descriptors)?)
            }
            DirectoryRequest::NetworkFile => Some(network_file(&cx.config.network)),
            DirectoryRequest::PublishInbox(descriptor) => self.publish(cx, id, descriptor),
            DirectoryRequest::LookupInbox { blinded, epoch } => {
                let found = self.inboxes.get(&(epoch, blinded));
                Some(DirectoryReply::Inbox(
                    found.map(|inbox| ByteBuf::from(inbox.descriptor.clone())),
                ))
            }
        };
        Ok(reply.map_or(Answer::Later, |reply| Answer::Now(reply.encode())))
    }

    /// An inbox descriptor is durable, or could not be stored.
    pub(super) fn handle_stored(&mut self, request: RequestId, is_stored: bool) {
        let Some((at, inbox)) = self.publishing.remove(&request) else {
            return;
        };
        let reply = if is_stored {
            self.inboxes.insert(at, inbox);
            DirectoryReply::Published
        } else {
            DirectoryReply::Refused(DirectoryRefusal::Store)
        };
        self.answers
            .push_back(LateAnswer::whole(request, reply.encode()));
    }

    pub(super) fn poll_answer(&mut self) -> Option<LateAnswer> {
        self.answers.pop_front()
    }

    /// Removes inbox descriptors whose epoch ended, by confirmed time, more than 1 h + `kept` ago.
    /// The hour is for a publisher whose clock is slow and still in the epoch before (§9.3).
    pub(super) fn expire(&mut self, cx: &mut Context<'_>, kept: Duration) {
        let kept = CLOCK_SKEW_MAX + kept;
        let confirmed = cx.clock.confirmed().as_secs();
        let oldest = WallTime(confirmed.saturating_sub(kept.as_secs())).epoch();
        let later = self.inboxes.split_off(&first_of(oldest));
        let expired = core::mem::replace(&mut self.inboxes, later);
        if !expired.is_empty() {
            cx.store(StoreOp::RemoveInboxDescriptorsBefore(oldest));
        }
    }

    /// How many inbox descriptors are durable here.
    pub(super) fn inbox_descriptor_count(&self) -> usize {
        self.inboxes.len()
    }

    /// Takes an inbox descriptor in (§8.4(3)). Answers at once what needs no store.
    fn publish(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        descriptor: ByteBuf,
    ) -> Option<DirectoryReply> {
        let Ok(outer) = Outer::verify(&descriptor, cx.wall) else {
            return Some(DirectoryReply::Refused(DirectoryRefusal::Invalid));
        };
        let at = (outer.epoch, outer.blinded);
        if !self.inboxes.contains_key(&at) {
            self.make_room(cx);
        }
        // Of two that are stored at once the later would stay on the disk, whichever is the newer.
        let is_busy = self.publishing.values().any(|(other, _)| *other == at);
        match self.inboxes.get(&at) {
            Some(known) if known.descriptor == descriptor.as_slice() => {
                return Some(DirectoryReply::Published);
            }
            Some(known) if known.revision >= outer.revision => {
                return Some(DirectoryReply::Refused(DirectoryRefusal::Stale));
            }
            _ if is_busy => return Some(DirectoryReply::Refused(DirectoryRefusal::Busy)),
            None if self.is_full(cx) => {
                return Some(DirectoryReply::Refused(DirectoryRefusal::Full));
            }
            _ => {}
        }
        let descriptor = descriptor.into_vec();
        cx.store(StoreOp::PutInboxDescriptor {
            ticket: id.0,
            blinded: outer.blinded,
            epoch: outer.epoch,
            descriptor: descriptor.clone(),
        });
        let inbox = StoredInbox {
            revision: outer.revision,
            descriptor,
        };
        self.publishing.insert(id, (at, inbox));
        None
    }

    fn is_full(&self, cx: &Context<'_>) -> bool {
        self.inboxes.len() + self.publishing.len() >= cx.config.inbox_descriptors_max
    }

    /// Where there is no room for another, removes those of past epochs, then those of future ones
    /// (§8.4(4)).
    fn make_room(&mut self, cx: &mut Context<'_>) {
        if self.is_full(cx) {
            self.expire(cx, Duration::ZERO);
        }
        if self.is_full(cx) {
            self.forget_future(cx);
        }
    }

    /// Removes inbox descriptors of epochs for which none is accepted yet: they came while the
    /// clock was ahead. Nobody asks for them, and their owners publish them again. A table full of
    /// them would take no others until their epochs are over.
    fn forget_future(&mut self, cx: &mut Context<'_>) {
        if !cx.clock.may_delete() {
            return;
        }
        let latest = (cx.wall + CLOCK_SKEW_MAX).epoch().next();
        if !self.inboxes.split_off(&first_of(latest.next())).is_empty() {
            cx.store(StoreOp::RemoveInboxDescriptorsAfter(latest));
        }
    }

    /// Answers a relay or client that reconciles, if that costs no more than it may (§8.4(7)).
    fn reconcile(
        &mut self,
        cx: &Context<'_>,
        link: LinkId,
        request: &SyncRequest,
    ) -> DirectoryReply {
        let group = cx
            .links
            .remote(link)
            .map(|remote| cx.config.network.group_of(remote));
        let cost = || reconcile::cost(cx.view(), request);
        let may = reconcile::is_free(request)
            || group.is_none_or(|group| self.compare_budgets.try_take(group, cost, cx.now));
        if may {
            DirectoryReply::Sync(reconcile::answer(cx.view(), request))
        } else {
            DirectoryReply::Refused(DirectoryRefusal::Busy)
        }
    }

    /// Takes relay descriptors that a linked relay pushes; those that are malformed or refused are
    /// passed over (§8.4(2)).
    fn take_pushed(
        &mut self,
        cx: &mut Context<'_>,
        link: LinkId,
        descriptors: &[ByteBuf],
    ) -> Result<DirectoryReply, Violation> {
        let (relay, remote) = cx.links.relay_at(link).ok_or(Violation::Unexpected)?;
        let lists = cx.source(&relay);
        let source = if cx.view().get(&relay).is_some() {
            Source::Relay(relay)
        } else {
            Source::Strangers(cx.config.network.group_of(remote))
        };
        let mut accepted = 0;
        for bytes in descriptors {
            if !self.push_budgets.may_check(source, cx.now) {
                break;
            }
            let Ok(descriptor) = Unverified::decode(bytes) else {
                continue;
            };
            let heard = cx.learn(lists.as_ref(), descriptor);
            if heard != Heard::Cheap {
                self.push_budgets.take(source, cx.now);
            }
            accepted += u32::from(heard == Heard::News);
        }
        Ok(DirectoryReply::Pushed { accepted })
    }
}

/// The network's file, for those who were invited (§8.4(6)).
fn network_file(network: &Network) -> DirectoryReply {
    let file = network.to_shared_toml();
    if file.len() > NETWORK_FILE_LEN_MAX {
        return DirectoryReply::Refused(DirectoryRefusal::Invalid);
    }
    DirectoryReply::NetworkFile(ByteBuf::from(file.into_bytes()))
}

const fn first_of(epoch: Epoch) -> Place {
    (epoch, BlindedKey([0; BlindedKey::LEN]))
}
