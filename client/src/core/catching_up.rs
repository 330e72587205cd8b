//! When a user hears that everything was fetched: for an inbox and the contacts that belong to it, or
//! for the contacts that belong to none.

use std::collections::BTreeMap;

use super::context::Context;
use super::inboxes::{InboxId, Inboxes};
use super::io::Notice;
use super::mailbox::{CaughtUp, Owner};

/// What was seen, by the inbox that it belongs to.
#[derive(Default)]
pub(super) struct CatchingUp {
    groups: BTreeMap<Option<InboxId>, Group>,
}

#[derive(Default)]
struct Group {
    /// Of each owner of mailboxes: how many answered, of how many. `None`: not all were seen yet.
    members: BTreeMap<Owner, Option<Seen>>,
    told: Option<Seen>,
    is_interactive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    answered: usize,
    mailboxes: usize,
}

impl CatchingUp {
    /// The user asks for this group, or asks again.
    pub(super) fn listen(&mut self, inbox: Option<InboxId>, is_interactive: bool) {
        let group = self.groups.entry(inbox).or_default();
        group.told = None;
        group.members.values_mut().for_each(|seen| *seen = None);
        group.is_interactive |= is_interactive;
    }

    /// Whether the user wants to be told at once, if they ask for this group.
    pub(super) fn is_interactive(&self, inbox: Option<InboxId>) -> Option<bool> {
        self.groups.get(&inbox).map(|group| group.is_interactive)
    }

    /// The mailboxes of this owner are waited for; whether that is new.
    pub(super) fn join(&mut self, inbox: Option<InboxId>, owner: Owner) -> bool {
        let group = self.groups.entry(inbox).or_default();
        let is_new = !group.members.contains_key(&owner);
        group.members.entry(owner).or_default();
        is_new
    }

    /// The mailboxes of this owner are no longer waited for.
    pub(super) fn leave(&mut self, owner: Owner) {
        for group in self.groups.values_mut() {
            group.members.remove(&owner);
        }
    }

    /// There is news from this owner's mailboxes.
    pub(super) fn on_news(&mut self, owner: Owner) {
        for group in self.groups.values_mut() {
            if let Some(seen) = group.members.get_mut(&owner) {
                *seen = None;
                group.told = None;
            }
        }
    }

    /// All mailboxes of an owner were seen empty, or failed.
    pub(super) fn on_caught_up(&mut self, caught_up: &CaughtUp) {
        for group in self.groups.values_mut() {
            if let Some(seen) = group.members.get_mut(&caught_up.owner) {
                *seen = Some(Seen {
                    answered: caught_up.answered,
                    mailboxes: caught_up.mailboxes,
                });
            }
        }
    }

    /// Tells the user what they have not heard.
    pub(super) fn tell(&mut self, cx: &mut Context<'_>, inboxes: &Inboxes) {
        for (&inbox, group) in &mut self.groups {
            let Some(seen) = group.news() else { continue };
            group.told = Some(seen);
            let inbox = inbox.and_then(|id| inboxes.name(id));
            cx.notify(Notice::CaughtUp {
                inbox: inbox.map(str::to_owned),
                answered: seen.answered,
                mailboxes: seen.mailboxes,
            });
        }
    }
}

impl Group {
    /// The sum over all members, once all were seen, if it was not told.
    fn news(&self) -> Option<Seen> {
        let mut sum = Seen {
            answered: 0,
            mailboxes: 0,
        };
        for seen in self.members.values() {
            let seen = (*seen)?;
            sum.answered += seen.answered;
            sum.mailboxes += seen.mailboxes;
        }
        (self.told != Some(sum)).then_some(sum)
    }
}
