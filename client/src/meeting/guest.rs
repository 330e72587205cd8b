//! A process beside the one that drives the profile: passes on its user's requests and the notices
//! for that user, until it can drive itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxAddress;
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::ask::{Ask, Reply, decode, encode};
use super::{Ground, Told};
use crate::client::{CreateInboxError, SendError, StopReason};
use crate::core::io::{Notice, Snapshot, StoreFault, Warning};
use crate::core::{Core, OUTBOX_HEAD_LEN, new_outbox_state, outbox_has_room};
use crate::net::driver::{Done, Request};
use crate::store::{
    AskId, DatabaseError, Entered, GuestId, Heard, HostBeat, Lock, Presence, Store, StoreClosed,
};

/// How often it is looked at what the host answered.
const LOOK: Duration = Duration::from_millis(40);
/// How often the host is given a sign of life.
const BEAT: Duration = Duration::from_secs(2);
/// A host that gives no sign of life for so long hangs, or was stopped.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// See the module.
pub(super) struct Guest {
    ground: Arc<Ground>,
    store: Store,
    requests: mpsc::Receiver<Request>,
    notices: broadcast::Sender<Told>,
    stop_reason: Arc<OnceLock<StopReason>>,
    /// Shows a driver that there are guests.
    presence: Option<Presence>,
    id: GuestId,
    seq: i64,
    /// The store's last count of changes by others.
    version: Option<i64>,
    host: Option<HostBeat>,
    host_heard_at: Instant,
    is_silence_told: bool,
    beat_at: Instant,
    /// Asks without an answer yet.
    pending: BTreeMap<AskId, Pending>,
    /// Asked again of every new driver: the inboxes listened to (`None`: contacts of none), and
    /// whether interactively.
    listens: BTreeMap<Option<String>, bool>,
}

/// An ask to the host.
enum Pending {
    /// To take care of this message, which is in the outbox.
    Adopt(MessageId),
    /// A request of this process's user.
    Request(Request),
}

/// How being a guest ends.
pub(super) enum GuestEnd {
    /// The user is done, or the host hangs.
    Stopped,
    /// This process drives the profile now.
    Took {
        /// The core, and its clock.
        restored: Box<(Core, Clock)>,
        /// Where requests come from.
        requests: mpsc::Receiver<Request>,
        /// Earlier asks that are not done.
        first: Vec<Request>,
    },
}

impl Guest {
    pub(super) fn new(
        ground: Arc<Ground>,
        store: Store,
        requests: mpsc::Receiver<Request>,
        notices: broadcast::Sender<Told>,
        stop_reason: Arc<OnceLock<StopReason>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            ground,
            store,
            requests,
            notices,
            stop_reason,
            presence: None,
            id: GuestId(0),
            seq: 0,
            version: None,
            host: None,
            host_heard_at: now,
            is_silence_told: false,
            beat_at: now,
            pending: BTreeMap::new(),
            listens: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) -> GuestEnd {
        match self.attend().await {
            Ok(Some(lock)) => self.take_over(lock).await,
            Ok(None) => {
                let id = self.id;
                drop(self.store.call(move |database| database.leave(id)).await);
                GuestEnd::Stopped
            }
            // Nothing more is written: that is what failed, or may wait for long.
            Err(End::Silence) => self.stop(StopReason::Unresponsive {
                pid: self.ground.lock_file.driver(),
            }),
            Err(End::Store(fault)) => self.stop(StopReason::Store(fault)),
            Err(End::OtherRelease) => {
                let id = self.id;
                let end = self.stop(StopReason::OtherRelease {
                    pid: self.ground.lock_file.driver(),
                });
                drop(self.store.call(move |database| database.leave(id)).await);
                end
            }
        }
    }

    /// A message that is not stored yet was not sent: its sender hears that, and not that it is
    /// safe.
    fn stop(&mut self, reason: StopReason) -> GuestEnd {
        // Nobody else sets it; an asker that finds the requests closed looks for it.
        let _ = self.stop_reason.set(reason);
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Send { done, .. } = request {
                let _ = done.send(Err(unsent(reason)));
            }
        }
        GuestEnd::Stopped
    }

    /// Until the lock is free, or the user is done.
    async fn attend(&mut self) -> Result<Option<Lock>, End> {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.enter().await?;
        loop {
            // In no order: looks that take longer than the time between two would leave no room for
            // what the user asks.
            tokio::select! {
                _ = ticks.tick() => {
                    match self.ground.lock_file.try_take() {
                        Ok(Some(lock)) => return Ok(Some(lock)),
                        Ok(None) => self.look().await?,
                        Err(error) => {
                            tracing::warn!(%error, "the lock can't be looked at");
                            self.look().await?;
                        }
                    }
                }
                request = self.requests.recv() => match request {
                    None | Some(Request::Stop) => return Ok(None),
                    Some(request) => self.on_request(request).await?,
                },
            }
        }
    }

    /// Registers, anew if the host has forgotten this process.
    async fn enter(&mut self) -> Result<(), End> {
        if self.presence.is_none() {
            // Without it a driver may forget this process, which then registers anew.
            self.presence = self.ground.lock_file.be_present().unwrap_or_default();
        }
        let Entered { guest, seq, host } =
            done(self.store.call(|database| database.enter()).await)?;
        self.id = guest;
        self.seq = seq;
        self.host = host;
        self.host_heard_at = Instant::now();
        Ok(())
    }

    async fn on_request(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Send {
                id,
                to,
                body,
                life,
                done,
            } => {
                let params = &self.ground.network.params;
                let state = new_outbox_state(to, body, life, params, Clock::wall());
                let result = self.send(id, state).await?;
                let is_queued = result.is_ok();
                let _ = done.send(result);
                if is_queued {
                    self.tell(Told::Notice(Notice::Queued(id)));
                }
                Ok(())
            }
            Request::CreateInbox {
                name,
                is_again,
                done,
            } => self.create_inbox(name, is_again, done).await,
            Request::Listen {
                name,
                is_interactive,
                done,
            } => {
                self.listens.insert(name.clone(), is_interactive);
                self.ask(Request::Listen {
                    name,
                    is_interactive,
                    done,
                })
                .await
            }
            // Nobody is hosted here.
            Request::Settle { done } => {
                let _ = done.send(());
                Ok(())
            }
            request => self.ask(request).await,
        }
    }

    /// Asks the driver to make an inbox, unless the profile has one of that name.
    async fn create_inbox(
        &mut self,
        name: String,
        is_again: bool,
        done: Done<InboxAddress, CreateInboxError>,
    ) -> Result<(), End> {
        let (wanted, id) = (name.clone(), self.id);
        let ask = encode(&Ask::CreateInbox { name: name.clone() });
        let found = self.store.call(move |database| {
            if database.has_inbox(&wanted)? {
                Ok(None)
            } else {
                database.ask(id, &ask).map(Some)
            }
        });
        match self::done(found.await)? {
            // It counts whether it existed before the request, no matter who makes it.
            None => drop(done.send(Err(CreateInboxError::Exists))),
            Some(ask) => {
                let request = Request::CreateInbox {
                    name,
                    is_again,
                    done,
                };
                self.pending.insert(ask, Pending::Request(request));
            }
        }
        Ok(())
    }

    /// The message is safe before anyone is asked to do something about it.
    async fn send(
        &mut self,
        id: MessageId,
        state: zeroize::Zeroizing<Vec<u8>>,
    ) -> Result<Result<(), SendError>, End> {
        let (guest, ask) = (self.id, encode(&Ask::Adopt { id }));
        let asked = self.store.call(move |database| {
            let has_room = |heads: &[Vec<u8>]| outbox_has_room(heads, &state);
            database.ask_with_message(guest, &ask, id, &state, OUTBOX_HEAD_LEN, has_room)
        });
        match asked.await {
            Ok(Ok(Some(ask))) => {
                self.pending.insert(ask, Pending::Adopt(id));
                Ok(Ok(()))
            }
            Ok(Ok(None)) => Ok(Err(SendError::OutboxFull)),
            Ok(Err(error)) if error.is_busy() => Ok(Err(unsent(StopReason::Unresponsive {
                pid: self.ground.lock_file.driver(),
            }))),
            Ok(Err(error)) => Ok(Err(SendError::Store(error.fault()))),
            Err(StoreClosed) => Ok(Err(SendError::Store(StoreFault::Failed))),
        }
    }

    async fn ask(&mut self, request: Request) -> Result<(), End> {
        self.ask_for(Pending::Request(request)).await
    }

    async fn ask_for(&mut self, pending: Pending) -> Result<(), End> {
        let Some(ask) = to_ask(&pending) else {
            return Ok(());
        };
        let (guest, ask) = (self.id, encode(&ask));
        let ask = done(
            self.store
                .call(move |database| database.ask(guest, &ask))
                .await,
        )?;
        self.pending.insert(ask, pending);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), End> {
        let (version, guest, seq) = (self.version, self.id, self.seq);
        let heard = self.store.call(move |database| {
            let now = database.data_version()?;
            if version == Some(now) {
                Ok(None)
            } else {
                database.hear(guest, seq).map(|heard| Some((now, heard)))
            }
        });
        if let Some((version, heard)) = done(heard.await)? {
            // There may be more than was read.
            self.version = if heard.notices.is_empty() {
                Some(version)
            } else {
                None
            };
            self.on_heard(heard).await?;
        }
        if self.beat_at + BEAT <= Instant::now() {
            self.beat_at = Instant::now();
            let (guest, answered) = (self.id, self.pending.keys().next().copied());
            done(
                self.store
                    .call(move |database| database.beat(guest, answered))
                    .await,
            )?;
        }
        self.look_for_silence()
    }

    fn look_for_silence(&mut self) -> Result<(), End> {
        if self.host_heard_at + SILENCE_MAX > Instant::now() {
            self.is_silence_told = false;
            return Ok(());
        }
        let is_waiting = !self.pending.is_empty()
            || !self.listens.values().any(|is_interactive| *is_interactive);
        if is_waiting {
            return Err(End::Silence);
        }
        if !self.is_silence_told {
            self.is_silence_told = true;
            let pid = self.ground.lock_file.driver();
            self.tell(Told::Notice(Notice::Warning(Warning::Unresponsive { pid })));
        }
        Ok(())
    }

    async fn on_heard(&mut self, heard: Heard) -> Result<(), End> {
        if heard.host != self.host {
            self.host_heard_at = Instant::now();
        }
        let is_new_driver = match (self.host, heard.host) {
            (Some(before), Some(now)) => before.generation != now.generation,
            _ => false,
        };
        self.host = heard.host;
        self.seq = heard.seq;
        if heard.has_gap {
            self.tell(Told::Gap);
        }
        for notice in &heard.notices {
            self.tell(
                decode::<Option<Notice>>(notice)
                    .flatten()
                    .map_or(Told::Gap, Told::Notice),
            );
        }
        for (ask, answer) in heard.answers {
            let Some(pending) = self.pending.remove(&ask) else {
                continue;
            };
            if let Err(pending) = answer_pending(pending, decode(&answer).unwrap_or(Reply::Unknown))
            {
                // The asker hears why this process ends before it hears that it does.
                self.pending.insert(ask, pending);
                return Err(End::OtherRelease);
            }
        }
        if !heard.is_known {
            self.enter().await?;
            for pending in std::mem::take(&mut self.pending).into_values() {
                self.ask_for(pending).await?;
            }
        }
        if is_new_driver || !heard.is_known {
            self.ask_again().await?;
        }
        Ok(())
    }

    /// A new driver knows neither the requests to the one before it nor the last results, which
    /// were reported to nobody.
    async fn ask_again(&mut self) -> Result<(), End> {
        for request in self.listen_requests() {
            self.ask(request).await?;
        }
        self.ask(Request::Flush).await?;
        self.tell(Told::Gap);
        Ok(())
    }

    fn listen_requests(&self) -> Vec<Request> {
        let to_request = |(name, &is_interactive): (&Option<String>, &bool)| {
            let (done, _) = oneshot::channel();
            Request::Listen {
                name: name.clone(),
                is_interactive,
                done,
            }
        };
        self.listens.iter().map(to_request).collect()
    }

    /// The driver is gone: this process is the driver from now on.
    async fn take_over(mut self, lock: Lock) -> GuestEnd {
        // Its last words; without them it is seen in the profile what it did.
        if self.look().await.is_err() {
            tracing::debug!("the last words of the driver that ended are missing");
        }
        tracing::debug!("takes over from a driver that ended");
        let (id, since, ground) = (
            self.id,
            self.ground.received_since(),
            Arc::clone(&self.ground),
        );
        self.presence = None;
        let snapshot = self.store.call(move |database| {
            database.keep(lock);
            // With the last guest it is forgotten.
            let left = database.left()?;
            database.leave(id)?;
            ground.forget_killed_guests(database);
            Ok(Snapshot {
                left,
                ..database.snapshot(since)?
            })
        });
        let restored = match snapshot.await {
            Ok(Ok(snapshot)) => self.ground.restore(snapshot),
            Ok(Err(error)) => {
                tracing::error!(%error, "the profile can't be read");
                return GuestEnd::Stopped;
            }
            Err(StoreClosed) => return GuestEnd::Stopped,
        };
        let Ok(restored) = restored else {
            tracing::error!("the profile is damaged");
            return GuestEnd::Stopped;
        };
        let mut first = self.listen_requests();
        first.extend(std::mem::take(&mut self.pending).into_values().map(
            |pending| match pending {
                // The driver that ended may have made it.
                Pending::Request(Request::CreateInbox { name, done, .. }) => Request::CreateInbox {
                    name,
                    is_again: true,
                    done,
                },
                Pending::Request(request) => request,
                // It is in the outbox that was restored.
                Pending::Adopt(_) => Request::Flush,
            },
        ));
        self.tell(Told::Gap);
        GuestEnd::Took {
            restored: Box::new(restored),
            requests: self.requests,
            first,
        }
    }

    /// Nobody may be listening.
    fn tell(&self, told: Told) {
        drop(self.notices.send(told));
    }
}

/// Why a guest can't continue.
#[derive(Debug)]
enum End {
    /// The process that has the profile's network does not answer.
    Silence,
    /// The profile can't be read or written.
    Store(StoreFault),
    /// The process that has the profile's network is of another release, which this one can't
    /// understand.
    OtherRelease,
}

fn unsent(reason: StopReason) -> SendError {
    match reason {
        StopReason::Unresponsive { pid } => SendError::Unresponsive { pid },
        StopReason::Store(fault) => SendError::Store(fault),
        StopReason::OtherRelease { pid } => SendError::OtherRelease { pid },
        StopReason::ProfileLost => SendError::Closed,
    }
}

/// A store operation's result for a guest.
fn done<T>(result: Result<Result<T, DatabaseError>, StoreClosed>) -> Result<T, End> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the other umbel can't be asked");
            // A process that was stopped while it wrote keeps all others waiting.
            Err(if error.is_busy() {
                End::Silence
            } else {
                End::Store(error.fault())
            })
        }
        Err(StoreClosed) => Err(End::Store(StoreFault::Failed)),
    }
}

fn to_ask(pending: &Pending) -> Option<Ask> {
    let request = match pending {
        Pending::Adopt(id) => return Some(Ask::Adopt { id: *id }),
        Pending::Request(request) => request,
    };
    Some(match request {
        Request::Cancel { id, .. } => Ask::Cancel { id: *id },
        Request::Flush => Ask::Flush,
        Request::CreateInbox { name, .. } => Ask::CreateInbox { name: name.clone() },
        Request::Listen {
            name,
            is_interactive,
            ..
        } => Ask::Listen {
            name: name.clone(),
            is_interactive: *is_interactive,
        },
        Request::InboxAddress { name, .. } => Ask::InboxAddress { name: name.clone() },
        Request::Status { .. } => Ask::Status,
        Request::Left { .. } => Ask::Left,
        Request::Block {
            contact,
            is_blocked,
            ..
        } => Ask::Block {
            contact: *contact,
            is_blocked: *is_blocked,
        },
        Request::RemoveContact { contact, .. } => Ask::RemoveContact(*contact),
        Request::Send { .. } | Request::Adopt { .. } | Request::Settle { .. } | Request::Stop => {
            return None;
        }
    })
}

/// The asker may have stopped waiting. Gives back a request that this does not answer.
fn answer_pending(pending: Pending, reply: Reply) -> Result<(), Pending> {
    match (pending, reply) {
        (Pending::Request(Request::Cancel { done, .. }), Reply::Cancelled(result)) => {
            let _ = done.send(result);
        }
        (Pending::Request(Request::CreateInbox { done, .. }), Reply::Created(result)) => {
            let _ = done.send(result);
        }
        (Pending::Request(Request::Listen { done, .. }), Reply::Listening(result)) => {
            let _ = done.send(result);
        }
        (Pending::Request(Request::InboxAddress { done, .. }), Reply::Address(address)) => {
            let _ = done.send(address);
        }
        (Pending::Request(Request::Status { done }), Reply::Status(status)) => {
            let _ = done.send(status);
        }
        (Pending::Request(Request::Left { done }), Reply::Left(notices)) => {
            let _ = done.send(notices);
        }
        (
            Pending::Request(Request::Block { done, .. } | Request::RemoveContact { done, .. }),
            Reply::Changed(result),
        ) => {
            let _ = done.send(result);
        }
        (Pending::Request(Request::Flush) | Pending::Adopt(_), Reply::Done) => {}
        (pending, _) => return Err(pending),
    }
    Ok(())
}
