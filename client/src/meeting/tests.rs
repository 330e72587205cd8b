//! Several clients on one profile, without a network.

use std::path::Path;

use tempfile::TempDir;
use umbel_proto::ids::MessageId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::network::Network;
use umbel_proto::time::Duration;
use umbel_relay::shell::Clock;

use super::ask::{Ask, Reply, decode, encode};
use crate::core::io::{Notice, Recipient};
use crate::core::new_outbox_state;
use crate::store::{AskId, Asked, Database, Said};
use crate::testing::profile;
use crate::{
    Claim, Client, ClientClosed, CreateInboxError, Library, ListenError, NoticeGap, Profile, Reach,
    SendError, StopReason,
};

async fn client(path: &Path) -> Client {
    Client::open_with(Profile::load(path).unwrap(), Reach::Offline)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_guest_is_answered_as_if_it_drove_the_profile_itself() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (driver, guest) = (client(&path).await, client(&path).await);
    let address = guest.create_inbox("main").await.unwrap();
    assert_eq!(driver.inbox_address("main").await, Ok(Some(address)));
    assert_eq!(guest.inbox_address("main").await, Ok(Some(address)));
    assert_eq!(
        guest.create_inbox("main").await,
        Err(CreateInboxError::Exists)
    );
    assert_eq!(guest.listen("main", false).await, Ok(()));
    assert_eq!(
        guest.listen("other", false).await,
        Err(ListenError::NoInbox)
    );
    assert_eq!(guest.status().await.unwrap().inboxes.len(), 1);
    let library = Library::open(Profile::load(&path).unwrap()).unwrap();
    assert_eq!(library.inbox_address("main"), Some(address));
    guest.close().await;
    driver.close().await;
}

#[tokio::test]
async fn the_next_driver_knows_what_became_of_messages_under_the_one_before() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (driver, guest) = (client(&path).await, client(&path).await);
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let id = guest.send(address, b"hello".to_vec()).await.unwrap().id;
    let cancelled = guest.cancel(id).await.unwrap().expect("it waits");
    driver.close().await;
    assert_eq!(guest.left().await.unwrap(), [Notice::Cancelled(cancelled)]);
    guest.close().await;
}

#[tokio::test]
async fn a_life_that_relays_do_not_promise_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (driver, guest) = (client(&path).await, client(&path).await);
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let max = Network::local().params.record_life;
    for client in [&driver, &guest] {
        let send = |life| client.send_for(address, b"hello".to_vec(), Some(life));
        for life in [Duration::ZERO, max + Duration::from_secs(1), Duration::MAX] {
            assert_eq!(send(life).await, Err(SendError::Life { max }));
        }
        assert!(send(max).await.is_ok());
    }
    guest.close().await;
    driver.close().await;
}

#[tokio::test]
async fn a_guests_message_is_with_the_driver_and_can_be_taken_back() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (driver, guest) = (client(&path).await, client(&path).await);
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let sent = guest.send(address, b"hello".to_vec()).await.unwrap();
    assert_eq!(
        guest
            .outbox()
            .await
            .unwrap()
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>(),
        [sent.id]
    );
    assert_eq!(driver.outbox().await.unwrap().len(), 1);
    assert!(guest.cancel(sent.id).await.unwrap().is_some());
    assert!(driver.outbox().await.unwrap().is_empty());
    guest.close().await;
    driver.close().await;
    let library = Library::open(Profile::load(&path).unwrap()).unwrap();
    assert!(library.status().outbox.is_empty(), "nothing brings it back");
}

#[tokio::test]
async fn a_guest_continues_when_the_driver_ends() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (driver, guest, other) = (
        client(&path).await,
        client(&path).await,
        client(&path).await,
    );
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let sent = guest.send(address, b"hello".to_vec()).await.unwrap();
    assert_eq!(guest.create_inbox("main").await.map(|_| ()), Ok(()));
    driver.close_at_once().await;
    for client in [&guest, &other] {
        assert_eq!(
            client
                .outbox()
                .await
                .unwrap()
                .iter()
                .map(|entry| entry.id)
                .collect::<Vec<_>>(),
            [sent.id]
        );
        assert!(client.inbox_address("main").await.unwrap().is_some());
    }
    guest.close_at_once().await;
    assert_eq!(other.outbox().await.unwrap().len(), 1);
    other.close().await;
}

#[tokio::test]
async fn one_of_two_shows_a_message() {
    use crate::core::io::StoreOp;
    use umbel_proto::time::WallTime;

    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let (first, second) = (client(&path).await, client(&path).await);
    let mut open = Profile::load(&path).unwrap().open().unwrap();
    let (inbox, id, received_at) = (Some("main".to_owned()), MessageId([1; 16]), WallTime(1));
    let results = open.database.apply(&[StoreOp::PutMessage {
        inbox,
        id,
        body: b"hello".to_vec(),
        received_at,
        letter: None,
    }]);
    assert!(results.iter().all(Result::is_ok));
    let message = first.unread(None, 0).await.unwrap().pop().unwrap();
    assert_eq!(first.claim(&message).await.unwrap(), Claim::Ours);
    assert_eq!(first.claim(&message).await.unwrap(), Claim::Ours);
    assert_eq!(second.claim(&message).await.unwrap(), Claim::Theirs);
    first.mark_read(&message).await.unwrap();
    assert_eq!(second.claim(&message).await.unwrap(), Claim::Read);
    second.close().await;
    first.close().await;
}

/// The next ask that is not answered, as a host sees it.
async fn next_ask(host: &mut Database) -> Asked {
    loop {
        if let Some(asked) = host.attend(AskId(0)).unwrap().asks.pop() {
            return asked;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_driver_of_another_release_is_why_a_guest_ends() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let mut other = Profile::load(&path).unwrap().open().unwrap();
    let _lock = other.lock_file.try_take().unwrap();
    for reply in [encode(&Reply::Unknown), encode(&Reply::Done), vec![0xff, 0]] {
        let guest = client(&path).await;
        let answer = async {
            let Asked { id, .. } = next_ask(&mut other.database).await;
            other
                .database
                .say(
                    1,
                    &Said {
                        answers: vec![(id, reply)],
                        ..Said::default()
                    },
                )
                .unwrap();
        };
        assert_eq!(tokio::join!(guest.status(), answer).0, Err(ClientClosed));
        assert_eq!(
            guest.stop_reason(),
            Some(StopReason::OtherRelease {
                pid: Some(std::process::id())
            })
        );
        guest.close().await;
    }
}

#[tokio::test]
async fn a_guest_that_the_host_forgot_asks_again_for_what_was_not_done() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let mut host = Profile::load(&path).unwrap().open().unwrap();
    let _lock = host.lock_file.try_take().unwrap();
    let guest = client(&path).await;
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let sent = guest.send(address, b"hello".to_vec()).await.unwrap();
    let adopt = Some(Ask::Adopt { id: sent.id });
    let Asked {
        guest: id, request, ..
    } = next_ask(&mut host.database).await;
    assert_eq!(decode(&request), adopt);
    host.database
        .say(
            1,
            &Said {
                gone: vec![id],
                ..Said::default()
            },
        )
        .unwrap();
    let is_adopt = |asked: &Asked| decode(&asked.request) == adopt;
    while !host
        .database
        .attend(AskId(0))
        .unwrap()
        .asks
        .iter()
        .any(is_adopt)
    {
        tokio::task::yield_now().await;
    }
    guest.close_at_once().await;
}

#[tokio::test]
async fn the_next_driver_forgets_killed_guests_but_not_their_messages() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let mut killed = Profile::load(&path).unwrap().open().unwrap();
    let guests = |database: &mut Database| database.attend(AskId(0)).unwrap().guests.len();
    let (id, state) = (MessageId([5; 16]), outgoing());
    let guest = killed.database.enter().unwrap().guest;
    let adopt = encode(&Ask::Adopt { id });
    assert!(
        killed
            .database
            .ask_with_message(guest, &adopt, id, &state, 0, |_| true)
            .unwrap()
            .is_some()
    );
    killed.database.enter().unwrap();

    // One that is alive keeps them all from being forgotten.
    let alive = killed.lock_file.be_present().unwrap();
    client(&path).await.close_at_once().await;
    assert_eq!(guests(&mut killed.database), 2);
    drop(alive);
    let driver = client(&path).await;
    assert_eq!(guests(&mut killed.database), 0);
    assert_eq!(
        driver
            .outbox()
            .await
            .unwrap()
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>(),
        [id]
    );
    driver.close_at_once().await;
}

fn outgoing() -> zeroize::Zeroizing<Vec<u8>> {
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    new_outbox_state(
        Recipient::OneWay(address),
        b"hello".to_vec(),
        None,
        &Network::local().params,
        Clock::wall(),
    )
}

#[tokio::test]
async fn a_message_that_a_stopped_writer_blocks_is_reported_unsent() {
    let dir = TempDir::new().unwrap();
    let path = profile(&dir);
    let stopped = Profile::load(&path).unwrap().open().unwrap();
    let _lock = stopped.lock_file.try_take().unwrap();
    stopped.database.hold();
    let guest = client(&path).await;
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    let pid = Some(std::process::id());
    assert_eq!(
        guest.send(address, b"hello".to_vec()).await,
        Err(SendError::Unresponsive { pid })
    );
    guest.close().await;
}

#[tokio::test]
async fn a_driver_and_a_guest_stop_when_their_database_is_gone() {
    for is_replaced in [false, true] {
        let dir = TempDir::new().unwrap();
        let path = profile(&dir);
        let clients = [client(&path).await, client(&path).await];
        let (database, copy) = (path.join("profile.db"), path.join("copy"));
        std::fs::copy(&database, &copy).unwrap();
        if is_replaced {
            std::fs::rename(&copy, &database).unwrap();
        } else {
            std::fs::remove_file(&database).unwrap();
        }
        for client in clients {
            let mut notices = client.notices();
            while notices.next().await != Err(NoticeGap::Closed) {}
            assert_eq!(client.status().await.err(), Some(ClientClosed));
            assert_eq!(client.stop_reason(), Some(StopReason::ProfileLost));
            client.close().await;
        }
    }
}
