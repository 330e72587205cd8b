//! Inboxes that are not yet as they should be when a command has done what was asked: a mailbox is
//! missing or being replaced, or the descriptor is being published.
//!
//! Publishing is worth a short wait: what a command leaves half published, the next one has to go on
//! with, and until then nobody may find the inbox.

use std::collections::BTreeSet;

use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::Notice;
use umbel_client::display;
use umbel_client::{ClientClosed, NoticeGap, Notices};
use umbel_proto::time::Duration;

use super::failure::Failure;
use super::session::Session;

/// How long a command waits at its end until mailboxes are replaced and published.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits for a descriptor to be published, if it is due: its turn comes within 3 s, and
/// each position within 2 s more.
const PUBLISHING: Duration = Duration::from_secs(10);

/// The inboxes that are not yet as they should be.
pub(super) struct Mending {
    inboxes: BTreeSet<String>,
    unpublished: BTreeSet<String>,
}

impl Mending {
    /// These inboxes may be published while the command runs.
    pub(super) fn new(unpublished: BTreeSet<String>) -> Self {
        Self {
            inboxes: BTreeSet::new(),
            unpublished,
        }
    }

    /// Hears what a notice says of it.
    pub(super) fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Mending { inbox } => {
                self.inboxes.insert(inbox.clone());
            }
            Notice::InboxReady { name, .. } => {
                self.inboxes.remove(name);
                self.unpublished.remove(name);
            }
            _ => {}
        }
    }

    /// Waits for a moment until each is; says which is not. Until then senders find holders that
    /// are gone.
    pub(super) async fn wait(
        &mut self,
        session: &Session,
        notices: &mut Notices,
        ends_at: Option<Instant>,
    ) -> Result<(), Failure> {
        let began_at = Instant::now();
        while let Some(patience) = self.patience() {
            let patient_until = began_at + patience;
            let until = ends_at.map_or(patient_until, |at| at.min(patient_until));
            match timeout_at(until, notices.next()).await {
                Ok(Ok(notice)) => {
                    session.show_notice(&notice);
                    self.take(&notice);
                }
                Ok(Err(NoticeGap::Missed(_))) => {}
                Ok(Err(NoticeGap::Closed)) => return Err(ClientClosed.into()),
                Err(_elapsed) => break,
            }
        }
        for inbox in &self.inboxes {
            let name = display::name(inbox);
            session.warn(&format!(
                "\"{name}\" still lacks a mailbox: the next `umbel receive` tries again"
            ));
        }
        Ok(())
    }

    /// How long a command stays for what is not done yet, if anything.
    fn patience(&self) -> Option<Duration> {
        match (self.inboxes.is_empty(), self.unpublished.is_empty()) {
            (false, _) => Some(PATIENCE),
            (true, false) => Some(PUBLISHING),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(name: &str) -> Notice {
        Notice::InboxReady {
            name: name.to_owned(),
            mailboxes: 3,
            positions: 6,
        }
    }

    #[test]
    fn an_inbox_is_mended_once_it_is_published_again() {
        let mut mending = Mending::new(BTreeSet::new());
        mending.take(&ready("main"));
        assert_eq!(mending.patience(), None);
        mending.take(&Notice::Mending {
            inbox: "main".to_owned(),
        });
        mending.take(&ready("other"));
        assert_eq!(mending.patience(), Some(PATIENCE));
        mending.take(&ready("main"));
        assert_eq!(mending.patience(), None);
    }

    #[test]
    fn what_is_published_is_waited_for_a_moment() {
        let mut mending = Mending::new(["main", "other"].map(str::to_owned).into());
        mending.take(&ready("main"));
        assert_eq!(mending.patience(), Some(PUBLISHING));
        mending.take(&ready("other"));
        assert_eq!(mending.patience(), None);
    }
}
