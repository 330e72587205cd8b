//! Inboxes whose mailboxes are being replaced while a command runs.

use std::collections::BTreeSet;

use tokio::time::{Instant, timeout_at};
use umbel_client::core::io::Notice;
use umbel_client::{ClientClosed, NoticeGap, Notices};
use umbel_proto::time::Duration;

use super::failure::Failure;
use super::output;
use super::session::Session;

/// How long a command waits at its end until mailboxes are replaced and published.
const PATIENCE: Duration = Duration::from_secs(20);

/// The inboxes that are not yet as they should be.
#[derive(Default)]
pub(super) struct Mending {
    inboxes: BTreeSet<String>,
}

impl Mending {
    /// Hears what a notice says of it.
    pub(super) fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Mending { inbox } => {
                self.inboxes.insert(inbox.clone());
            }
            Notice::InboxReady { name, .. } => {
                self.inboxes.remove(name);
            }
            _ => {}
        }
    }

    /// Waits for a moment until each is; says which is not. Until then senders find holders that are gone.
    pub(super) async fn wait(
        &mut self,
        session: &Session,
        notices: &mut Notices,
        ends_at: Option<Instant>,
    ) -> Result<(), Failure> {
        let patient_until = Instant::now() + PATIENCE;
        let until = ends_at.map_or(patient_until, |at| at.min(patient_until));
        while !self.inboxes.is_empty() {
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
            let name = output::printable(inbox);
            session.warn(&format!("a mailbox of \"{name}\" is not replaced yet: the next `umbel receive` tries again"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_mended_once_it_is_published_again() {
        let mut mending = Mending::default();
        let ready = |name: &str| Notice::InboxReady { name: name.to_owned(), mailboxes: 3, positions: 6 };
        mending.take(&ready("main"));
        assert!(mending.inboxes.is_empty());
        mending.take(&Notice::Mending { inbox: "main".to_owned() });
        mending.take(&ready("other"));
        assert_eq!(mending.inboxes.len(), 1);
        mending.take(&ready("main"));
        assert!(mending.inboxes.is_empty());
    }
}
