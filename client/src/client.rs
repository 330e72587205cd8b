//! The handle that programs hold: asks the driver, reads what is stored, hears notices.

mod conversations;
mod error;

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rand::Rng;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use umbel_proto::ids::{MessageId, NetworkId, RelayId};
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::Duration;
use umbel_relay::shell::{Clock, DialFault};

use crate::core::Core;
use crate::core::io::{Cancelled, Notice, OutboxEntry, Recipient, Status, StoreFault};
use crate::meeting::{Ground, Member, Told};
use crate::net::driver::{Request, SeedFaults};
use crate::store::{
    Claim, Database, DatabaseError, OpenProfile, Profile, ProfileError, Store, StoredMessage,
};

pub use error::{
    CancelError, ClientClosed, CreateInboxError, ListenError, OpenError, ReadError, SendError,
    StopReason, check_life,
};

/// Requests waiting for the driver; beyond that the asker waits too.
const REQUESTS_MAX: usize = 64;
/// Notices kept for a listener that is behind. It misses the oldest beyond them, and learns how
/// many.
const NOTICES_MAX: usize = 4096;
/// How long a message that is being shown is kept from other processes.
const CLAIM: Duration = Duration::from_secs(10);
/// Longest name of an inbox, bytes.
const INBOX_NAME_LEN_MAX: usize = 64;

/// Whether a client may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Make links.
    Online,
    /// Make none: only look at, or add to, what is stored.
    Offline,
}

/// A message that is durable in the outbox, or that enough holders have. Its fate follows in
/// notices: `Held`, `Deferred`, `Failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Names it in notices.
    pub id: MessageId,
}

/// An open profile and the task that works for it. Dropping it stops the task as well, but does not
/// wait for it.
#[expect(missing_debug_implementations, reason = "holds an open profile")]
pub struct Client {
    requests: mpsc::Sender<Request>,
    /// Hears from the very beginning; the first to ask for notices gets it.
    first_notices: Mutex<Option<broadcast::Receiver<Told>>>,
    /// Weak, so that listeners hear it when the driver is gone.
    notices: broadcast::WeakSender<Told>,
    store: Store,
    member: JoinHandle<()>,
    thread: std::thread::JoinHandle<()>,
    stop_reason: Arc<OnceLock<StopReason>>,
    seed_faults: SeedFaults,
    /// The longest life of a message.
    life_max: Duration,
    network: NetworkId,
    /// Names this client among those that print messages.
    claimer: i64,
}

impl Client {
    /// Opens a profile and begins to make links.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(profile: Profile) -> Result<Self, OpenError> {
        Self::open_with(profile, Reach::Online).await
    }

    /// Opens a profile.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(profile: Profile, reach: Reach) -> Result<Self, OpenError> {
        let life_max = profile.network().params.record_life;
        let network = profile.network().id;
        // Stretching a passphrase takes a good part of a second.
        let opening = tokio::task::spawn_blocking(|| begin(profile));
        let (ground, database, restored) = opening
            .await
            .map_err(|error| OpenError::Thread(io::Error::other(error)))??;
        let (store, thread) = Store::start(database).map_err(OpenError::Thread)?;
        let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
        let (notice_sender, first_notices) = broadcast::channel(NOTICES_MAX);
        let notices = notice_sender.downgrade();
        let first_notices = Mutex::new(Some(first_notices));
        let stop_reason = Arc::new(OnceLock::new());
        let seed_faults = SeedFaults::default();
        let member = Member {
            ground: Arc::new(ground),
            store: store.clone(),
            requests: request_queue,
            asker: requests.downgrade(),
            notices: notice_sender,
            is_online: reach == Reach::Online,
            seed_faults: seed_faults.clone(),
            stop_reason: Arc::clone(&stop_reason),
        };
        let member = tokio::spawn(member.run(restored));
        Ok(Self {
            requests,
            first_notices,
            notices,
            store,
            member,
            thread,
            stop_reason,
            seed_faults,
            life_max,
            network,
            claimer: rand::random(),
        })
    }

    /// Takes a message into the outbox, whose reader can't answer. Returns once it is durable there;
    /// from then on it is tried until enough holders have it, now and each time this profile is opened.
    /// Returns, too, should they have it before.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, address: InboxAddress, body: Vec<u8>) -> Result<Sent, SendError> {
        self.send_for(address, body, None).await
    }

    /// Like [`Client::send`]; the message expires if too few relays take it for so long, which
    /// [`check_life`] bounds. Without a length it is tried for as long as relays keep it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_for(
        &self,
        address: InboxAddress,
        body: Vec<u8>,
        life: Option<Duration>,
    ) -> Result<Sent, SendError> {
        self.send_to(Recipient::OneWay(address), body, life).await
    }

    /// Like [`Client::send_for`], to a contact, or to the owner of an address, with whom a conversation
    /// begins: the message stays in the outbox until its reader has it (`Acknowledged`) or its life is
    /// over.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_to(
        &self,
        to: Recipient,
        body: Vec<u8>,
        life: Option<Duration>,
    ) -> Result<Sent, SendError> {
        if body.len() > to.body_len_max() {
            return Err(SendError::TooLong);
        }
        if let Some(life) = life {
            check_life(life, self.life_max)?;
        }
        let id = random_message_id();
        let request = |done| Request::Send {
            id,
            to,
            body,
            life,
            done,
        };
        self.ask(request)
            .await
            .map_err(|ClientClosed| SendError::Closed)?
            .map(|()| Sent { id })
    }

    /// The messages in the outbox, in the order they were sent.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn outbox(&self) -> Result<Vec<OutboxEntry>, ClientClosed> {
        Ok(self.status().await?.outbox)
    }

    /// Takes a message back: it leaves the outbox for good. Says who may still have it;
    /// `None` if it is not in the outbox.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(&self, id: MessageId) -> Result<Option<Cancelled>, CancelError> {
        self.ask(|done| Request::Cancel { id, done })
            .await
            .map_err(|ClientClosed| CancelError::Closed)?
    }

    /// Tries everything in the outbox again, now.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn flush(&self) -> Result<(), ClientClosed> {
        self.requests
            .send(Request::Flush)
            .await
            .map_err(|_| ClientClosed)
    }

    /// Makes an inbox. Returns its address once its keys are durable here; it takes mail from the
    /// notice `InboxReady` on, and is made ready the next time should that not come.
    ///
    /// # Errors
    /// See [`CreateInboxError`].
    pub async fn create_inbox(&self, name: &str) -> Result<InboxAddress, CreateInboxError> {
        let is_clean = !name.chars().any(char::is_control) && name.trim() == name;
        if name.is_empty() || name.len() > INBOX_NAME_LEN_MAX || !is_clean {
            return Err(CreateInboxError::Name);
        }
        let name = name.to_owned();
        self.ask(|done| Request::CreateInbox {
            name,
            is_again: false,
            done,
        })
        .await
        .map_err(|ClientClosed| CreateInboxError::Closed)?
    }

    /// Fetches for this inbox, and from the contacts that belong to it, from now on: by polling, or interactively, which is quicker and shows
    /// the holders when the owner is there.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn listen(&self, inbox: &str, is_interactive: bool) -> Result<(), ListenError> {
        let name = Some(inbox.to_owned());
        let request = |done| Request::Listen {
            name,
            is_interactive,
            done,
        };
        self.ask(request)
            .await
            .map_err(|ClientClosed| ListenError::Closed)?
    }

    /// Notices from now on; for the first caller, all notices since the profile was
    /// opened.
    pub fn notices(&self) -> Notices {
        let first = self
            .first_notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Notices(first.or_else(|| self.notices.upgrade().map(|sender| sender.subscribe())))
    }

    /// The address of one of the own inboxes; `None` when there is none of this name.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn inbox_address(&self, inbox: &str) -> Result<Option<InboxAddress>, ClientClosed> {
        let name = inbox.to_owned();
        self.ask(|done| Request::InboxAddress { name, done }).await
    }

    /// How things stand.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn status(&self) -> Result<Status, ClientClosed> {
        self.ask(|done| Request::Status { done }).await
    }

    /// The last notice of each of the last 10,000 messages that left the outbox, oldest first:
    /// `Held`, `Expired`, `Cancelled` or `Failed`. For a caller who missed notices; as far as the
    /// process that has the profile's network knows.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn left(&self) -> Result<Vec<Notice>, ClientClosed> {
        self.ask(|done| Request::Left { done }).await
    }

    /// Messages that are kept, oldest first: of one inbox or of all, those that came after place
    /// `after` (0: all), a page at a time. The page after the last is empty.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn messages(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        self.page(inbox, after, false).await
    }

    /// Like [`Client::messages`], without those that are marked read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn unread(
        &self,
        inbox: Option<&str>,
        after: i64,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        self.page(inbox, after, true).await
    }

    /// Marks a message read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn mark_read(&self, message: &StoredMessage) -> Result<(), ReadError> {
        let result = self
            .store
            .mark_read(message.seq)
            .await
            .map_err(|_| ReadError::Closed)?;
        result.map_err(ReadError::Database)
    }

    /// How many unread messages each inbox has; inboxes without any are left out. "": those of contacts
    /// that belong to no inbox.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn unread_counts(&self) -> Result<Vec<(String, u64)>, ReadError> {
        let result = self
            .store
            .unread_counts()
            .await
            .map_err(|_| ReadError::Closed)?;
        result.map_err(ReadError::Database)
    }

    /// Takes an unread message to show it. No other process takes it for ten seconds, in which the
    /// caller marks it read. If the caller dies or takes longer, the message is shown again.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn claim(&self, message: &StoredMessage) -> Result<Claim, ReadError> {
        let (seq, claimer) = (message.seq, self.claimer);
        let now = Clock::wall().as_secs().cast_signed();
        let until = now + CLAIM.as_secs().cast_signed();
        let claimed = self
            .store
            .call(move |database| database.claim(seq, claimer, now, until))
            .await;
        claimed
            .map_err(|_| ReadError::Closed)?
            .map_err(ReadError::Database)
    }

    /// Gives back a message that was claimed and stays unread.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn release(&self, message: &StoredMessage) -> Result<(), ReadError> {
        let (seq, claimer) = (message.seq, self.claimer);
        let released = self
            .store
            .call(move |database| database.release(seq, claimer))
            .await;
        released
            .map_err(|_| ReadError::Closed)?
            .map_err(ReadError::Database)
    }

    /// The seeds in whose place another answered, or something else was found than that nobody
    /// does. Empty while another process has the profile's network.
    pub fn seed_faults(&self) -> Vec<(RelayId, DialFault)> {
        self.seed_faults.all()
    }

    /// Why this client closed by itself, if it did.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop_reason.get().copied()
    }

    /// Ends in order: destroys its circuits, ends its links, closes the profile. Waits a moment for
    /// requests of this profile's other processes; one of them then takes its place.
    pub async fn close(self) {
        let (done, settled) = oneshot::channel();
        if self.requests.send(Request::Settle { done }).await.is_ok() {
            // Without an answer there is nothing to wait for.
            drop(settled.await);
        }
        self.close_at_once().await;
    }

    /// Like [`Client::close`], but stays for nobody.
    pub async fn close_at_once(self) {
        let Self {
            requests,
            store,
            member,
            thread,
            ..
        } = self;
        // Whatever fails here has ended already, which is what is wanted.
        drop(requests.send(Request::Stop).await);
        drop(member.await);
        drop((requests, store));
        drop(tokio::task::spawn_blocking(move || drop(thread.join())).await);
    }

    async fn page(
        &self,
        inbox: Option<&str>,
        after: i64,
        is_unread: bool,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let found = self
            .store
            .messages(inbox.map(str::to_owned), after, is_unread)
            .await;
        found
            .map_err(|_| ReadError::Closed)?
            .map_err(ReadError::Database)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, ClientClosed> {
        let (done, answer) = oneshot::channel();
        self.requests
            .send(request(done))
            .await
            .map_err(|_| ClientClosed)?;
        answer.await.map_err(|_| ClientClosed)
    }
}

/// A client's notices to its user, as they happen. A listener that is far behind misses the oldest
/// notices.
#[derive(Debug)]
pub struct Notices(Option<broadcast::Receiver<Told>>);

/// There is a gap in the notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeGap {
    /// This many were missed, or an unknown number if it is 0: look at what is stored.
    Missed(u64),
    /// The client was closed.
    Closed,
}

impl Notices {
    /// The next notice. Nothing is lost if the future is dropped before it is done.
    ///
    /// # Errors
    /// There is a gap.
    pub async fn next(&mut self) -> Result<Notice, NoticeGap> {
        let receiver = self.0.as_mut().ok_or(NoticeGap::Closed)?;
        match receiver.recv().await {
            Ok(Told::Notice(notice)) => Ok(notice),
            Ok(Told::Gap) => Err(NoticeGap::Missed(0)),
            Err(broadcast::error::RecvError::Lagged(count)) => Err(NoticeGap::Missed(count)),
            Err(broadcast::error::RecvError::Closed) => Err(NoticeGap::Closed),
        }
    }
}

/// An open profile, and the core if this process holds the lock.
type Begun = (Ground, Database, Option<(Core, Clock)>);

/// Opens a profile, and takes its lock if that is free.
fn begin(profile: Profile) -> Result<Begun, OpenError> {
    let (ground, mut database) = to_ground(profile.open()?);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            ProfileError::Database(DatabaseError::Unwritable(StoreFault::ReadOnly)).into()
        }
        _ => OpenError::Lock(ground.lock_file.path().to_owned(), error),
    };
    let Some(lock) = ground.lock_file.try_take().map_err(failed)? else {
        return Ok((ground, database, None));
    };
    database.keep(lock);
    ground.forget_killed_guests(&mut database);
    let restored = restore(&ground, &database)?;
    Ok((ground, database, Some(restored)))
}

pub(crate) fn to_ground(profile: OpenProfile) -> (Ground, Database) {
    let OpenProfile {
        dir,
        network,
        seeds,
        own_relay,
        database,
        lock_file,
        watched,
    } = profile;
    (
        Ground {
            dir,
            network,
            seeds,
            own_relay,
            lock_file,
            watched,
        },
        database,
    )
}

/// A core that continues where the profile's last one stopped.
pub(crate) fn restore(ground: &Ground, database: &Database) -> Result<(Core, Clock), OpenError> {
    let snapshot = database
        .snapshot(ground.received_since())
        .map_err(ProfileError::Database)?;
    ground.restore(snapshot).map_err(OpenError::Snapshot)
}

fn random_message_id() -> MessageId {
    let mut id = [0; MessageId::LEN];
    rand::rng().fill_bytes(&mut id);
    MessageId(id)
}
