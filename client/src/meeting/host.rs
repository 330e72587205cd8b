//! Beside the driver: does for guests what a local user would do, and sends them notices.
//!
//! As long as there are no guests it writes nothing. It looks for new ones as rarely as it can
//! without a user noticing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::pin::Pin;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use umbel_proto::ids::MessageId;
use umbel_proto::time::Duration;

use super::Told;
use super::ask::{Ask, Reply, decode, encode};
use crate::core::io::{Cancelled, Notice, Warning};
use crate::net::driver::Request;
use crate::store::{AskId, Asked, Attended, GuestId, Said, Store};

/// How often it is looked at what guests ask.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked whether there are guests.
const LOOK_FOR_GUESTS: Duration = Duration::from_millis(100);
/// How often guests are given a sign of life.
const BEAT: Duration = Duration::from_secs(2);
/// A guest that gave no sign of life for so long is forgotten.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a driver that could end stays for work that guests have in progress.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Host {
    store: Store,
    asker: mpsc::WeakSender<Request>,
    notices: broadcast::Receiver<Told>,
    /// Those who want to end once no guest has anything in progress.
    settling: mpsc::Receiver<oneshot::Sender<()>>,
    generation: i64,
    /// The store's last count of changes by others.
    version: Option<i64>,
    looked_at: Instant,
    last_ask: AskId,
    /// The last sign of life of each guest, and when it came.
    guests: BTreeMap<GuestId, (i64, Instant)>,
    answering: JoinSet<(AskId, Option<Reply>)>,
    /// Guests' messages of whose first attempt nothing was heard yet.
    under_way: BTreeSet<MessageId>,
    said: Said,
    said_at: Instant,
    /// Why no relay can be drawn, as long as that is so: a guest that comes later has to hear it, too.
    hindrances: Hindrances,
}

/// Why the client has no view that it can use.
#[derive(Default)]
struct Hindrances {
    waits: Option<Notice>,
    clock: Option<Notice>,
    dispute: Option<Notice>,
}

impl Hindrances {
    fn take(&mut self, notice: &Notice) {
        let place = match notice {
            Notice::Ready { .. } => return *self = Self::default(),
            Notice::WaitingForView { .. } => &mut self.waits,
            Notice::Warning(Warning::Clock { .. }) => &mut self.clock,
            Notice::Warning(Warning::SeedsDisagree) => &mut self.dispute,
            _ => return,
        };
        *place = Some(notice.clone());
    }

    /// The notices that a guest who comes now has missed. If there is a view, none: earlier warnings may
    /// be out of date.
    fn missed(&self) -> impl Iterator<Item = &Notice> {
        let all = [&self.waits, &self.clock, &self.dispute];
        let stand = all.into_iter().flatten();
        stand.filter(|_| self.waits.is_some())
    }
}

enum Wake {
    Look,
    Told(Result<Told, broadcast::error::RecvError>),
    Answered(AskId, Option<Reply>),
    Settle(oneshot::Sender<()>),
}

impl Host {
    pub(super) fn new(
        store: Store,
        asker: mpsc::WeakSender<Request>,
        notices: broadcast::Receiver<Told>,
        settling: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        Self {
            store,
            asker,
            notices,
            settling,
            generation: rand::random(),
            version: None,
            looked_at: Instant::now(),
            last_ask: AskId(0),
            guests: BTreeMap::new(),
            answering: JoinSet::new(),
            under_way: BTreeSet::new(),
            said: Said::default(),
            said_at: Instant::now(),
            hindrances: Hindrances::default(),
        }
    }

    /// Serves guests until the driver ends.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settling: Option<(oneshot::Sender<()>, Instant)> = None;
        loop {
            let wake = tokio::select! {
                told = self.notices.recv() => Wake::Told(told),
                Some(Ok((ask, reply))) = self.answering.join_next() => Wake::Answered(ask, reply),
                Some(done) = self.settling.recv() => Wake::Settle(done),
                _ = ticks.tick() => Wake::Look,
            };
            match wake {
                Wake::Told(Err(broadcast::error::RecvError::Closed)) => break,
                Wake::Told(told) => self.on_told(told.unwrap_or(Told::Gap)),
                Wake::Answered(ask, reply) => self.on_answered(ask, reply),
                Wake::Settle(done) => {
                    self.look().await;
                    settling = Some((done, Instant::now() + SETTLE_MAX));
                }
                Wake::Look
                    if self.guests.is_empty()
                        && self.looked_at + LOOK_FOR_GUESTS > Instant::now() =>
                {
                    continue;
                }
                Wake::Look => self.look().await,
            }
            while let Ok(told) = self.notices.try_recv() {
                self.on_told(told);
            }
            self.speak().await;
            let is_settled = self.under_way.is_empty() && self.answering.is_empty();
            if let Some((done, _)) =
                settling.take_if(|(_, until)| is_settled || *until <= Instant::now())
            {
                let _ = done.send(());
            }
        }
        while let Some(Ok((ask, reply))) = self.answering.join_next().await {
            self.on_answered(ask, reply);
        }
        self.speak().await;
    }

    /// A notice that nobody listens for needs no place.
    fn on_told(&mut self, told: Told) {
        if let Told::Notice(notice) = &told {
            self.hindrances.take(notice);
        }
        if self.guests.is_empty() {
            return;
        }
        if let Told::Notice(
            Notice::Held { id, .. }
            | Notice::Deferred { id, .. }
            | Notice::Failed { id, .. }
            | Notice::Expired { id, .. }
            | Notice::Cancelled(Cancelled { id, .. })
            | Notice::Acknowledged(id)
            | Notice::Unsaved { id, .. },
        ) = &told
        {
            self.under_way.remove(id);
        }
        match told {
            // Everything is out of reach, so that nothing gets on.
            Told::Notice(Notice::Unreachable) => {
                self.under_way.clear();
                self.said.notices.push(encode(&Some(Notice::Unreachable)));
            }
            // Of circuits there are many a second, and no guest acts on one.
            Told::Notice(Notice::HopBuilt { .. }) => {}
            Told::Notice(notice) => self.said.notices.push(encode(&Some(notice))),
            Told::Gap => self.said.notices.push(encode(&None::<Notice>)),
        }
    }

    fn on_answered(&mut self, ask: AskId, reply: Option<Reply>) {
        // The next driver does the work that this one did not get to.
        if let Some(reply) = reply {
            self.said.answers.push((ask, encode(&reply)));
        }
    }

    async fn look(&mut self) {
        self.looked_at = Instant::now();
        let (version, last_ask) = (self.version, self.last_ask);
        let found = self.store.call(move |database| {
            let now = database.data_version()?;
            if version == Some(now) {
                Ok(None)
            } else {
                database.attend(last_ask).map(|found| Some((now, found)))
            }
        });
        match found.await {
            Ok(Ok(Some((version, found)))) => {
                self.version = Some(version);
                self.on_attended(found).await;
            }
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "guests can't be heard"),
        }
        let now = Instant::now();
        let is_silent = |heard_at: Instant| heard_at + SILENCE_MAX <= now;
        let silent: Vec<GuestId> = self
            .guests
            .iter()
            .filter(|(_, (_, heard_at))| is_silent(*heard_at))
            .map(|(&guest, _)| guest)
            .collect();
        for guest in silent {
            self.guests.remove(&guest);
            self.said.gone.push(guest);
        }
    }

    async fn on_attended(&mut self, found: Attended) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.guests);
        if before.is_empty() && !found.guests.is_empty() {
            // Guests learn at once that there is a driver.
            self.said_at = now.checked_sub(BEAT).unwrap_or(now);
        }
        let is_new = |(guest, _): &(GuestId, i64)| !before.contains_key(guest);
        if found.guests.iter().any(is_new) {
            // Those who have heard it hear it again.
            let missed = self.hindrances.missed();
            self.said
                .notices
                .extend(missed.map(|it| encode(&Some(it.clone()))));
        }
        for (guest, beat) in found.guests {
            let heard_at = before
                .get(&guest)
                .filter(|(last, _)| *last == beat)
                .map_or(now, |&(_, at)| at);
            self.guests.insert(guest, (beat, heard_at));
        }
        for Asked {
            id,
            guest,
            request,
            is_begun,
        } in found.asks
        {
            self.last_ask = id;
            if !self.guests.contains_key(&guest) {
                continue;
            }
            let ask = decode::<Ask>(&request);
            if let Some(Ask::Adopt { id }) = ask {
                self.under_way.insert(id);
            }
            self.said.begun.push(id);
            if let Some(pending) = pass_on(&self.store, &self.asker, ask, is_begun).await {
                self.answering.spawn(async move { (id, pending.await) });
            }
        }
    }

    async fn speak(&mut self) {
        let is_due = !self.guests.is_empty() && self.said_at + BEAT <= Instant::now();
        if self.said.is_empty() && !is_due {
            return;
        }
        self.said_at = Instant::now();
        let (generation, said) = (self.generation, std::mem::take(&mut self.said));
        let told = self.store.call(move |database| {
            let result = database.say(generation, &said);
            Ok((result, said))
        });
        if let Ok(Ok((Err(error), unsaid))) = told.await {
            tracing::warn!(%error, "guests can't be told");
            // Notices may be missed, and that is seen; answers are waited for.
            self.said.answers = unsaid.answers;
            self.said.notices.push(encode(&None::<Notice>));
        }
    }
}

/// The driver's answer; `None` if it ends first.
type Pending = Pin<Box<dyn Future<Output = Option<Reply>> + Send>>;

/// Asks the driver as a local user would: in the order in which guests asked, since what one asks
/// builds on what it asked before. `None` if the driver ended.
async fn pass_on(
    store: &Store,
    asker: &mpsc::WeakSender<Request>,
    ask: Option<Ask>,
    is_begun: bool,
) -> Option<Pending> {
    let Some(ask) = ask else {
        return Some(Box::pin(ready(Some(Reply::Unknown))));
    };
    let asker = asker.upgrade()?;
    match ask {
        Ask::Adopt { id } => {
            let state = store
                .call(move |database| database.outgoing(id))
                .await
                .ok()?
                .ok()?;
            if let Some(state) = state {
                asker.send(Request::Adopt { id, state }).await.ok()?;
            }
            Some(Box::pin(ready(Some(Reply::Done))))
        }
        Ask::Flush => {
            asker.send(Request::Flush).await.ok()?;
            Some(Box::pin(ready(Some(Reply::Done))))
        }
        Ask::Cancel { id } => {
            let cancel = |done| Request::Cancel { id, done };
            request(&asker, cancel, Reply::Cancelled).await
        }
        Ask::CreateInbox { name } => {
            let create = |done| Request::CreateInbox {
                name,
                is_again: is_begun,
                done,
            };
            request(&asker, create, Reply::Created).await
        }
        Ask::Listen {
            name,
            is_interactive,
        } => {
            let listen = |done| Request::Listen {
                name,
                is_interactive,
                done,
            };
            request(&asker, listen, Reply::Listening).await
        }
        Ask::InboxAddress { name } => {
            let address = |done| Request::InboxAddress { name, done };
            request(&asker, address, Reply::Address).await
        }
        Ask::Block {
            contact,
            is_blocked,
        } => {
            let block = |done| Request::Block {
                contact,
                is_blocked,
                done,
            };
            request(&asker, block, Reply::Changed).await
        }
        Ask::RemoveContact(contact) => {
            let remove = |done| Request::RemoveContact { contact, done };
            request(&asker, remove, Reply::Changed).await
        }
        Ask::Status => request(&asker, |done| Request::Status { done }, Reply::Status).await,
        Ask::Left => request(&asker, |done| Request::Left { done }, Reply::Left).await,
    }
}

async fn request<T: Send + 'static>(
    asker: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
    to_reply: fn(T) -> Reply,
) -> Option<Pending> {
    let (done, answer) = oneshot::channel();
    asker.send(request(done)).await.ok()?;
    Some(Box::pin(async move { answer.await.ok().map(to_reply) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_hears_why_there_is_no_view_for_as_long_as_there_is_none() {
        let mut hindrances = Hindrances::default();
        let waits = Notice::WaitingForView { last_known: 3 };
        let clock = |seconds| Notice::Warning(Warning::Clock { seconds });
        let mut hear = |notices: &[Notice]| {
            notices.iter().for_each(|notice| hindrances.take(notice));
            hindrances.missed().cloned().collect::<Vec<_>>()
        };
        assert_eq!(hear(&[clock(7200)]), [], "there is a view");
        let told = hear(&[waits.clone(), clock(9000), Notice::Unreachable]);
        assert_eq!(told, [waits.clone(), clock(9000)]);
        let disputed = Notice::Warning(Warning::SeedsDisagree);
        let told = hear(std::slice::from_ref(&disputed));
        assert_eq!(told, [waits.clone(), clock(9000), disputed]);
        assert_eq!(hear(&[Notice::Ready { relays: 9 }, waits.clone()]), [waits]);
    }
}
