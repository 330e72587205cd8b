//! Answers to a sender when the profile can't be written, and what links tell the driver.

use tempfile::TempDir;
use umbel_proto::cell::Command;
use umbel_proto::ids::RelayId;
use umbel_proto::inbox::address::InboxIdentity;
use umbel_proto::link::Hello;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;

use super::super::link::queue;
use super::*;
use crate::store::Profile;
use crate::testing::profile;

const ID: MessageId = MessageId([1; 16]);

/// A driver that makes no links and whose disk is full, and what to ask it with.
fn driver_on_a_full_disk(dir: &TempDir) -> (Driver, mpsc::Sender<Request>) {
    let path = profile(dir);
    let open = Profile::load(&path).unwrap().open().unwrap();
    open.database.limit_to_present_size();
    let snapshot = open.database.snapshot(Clock::wall()).unwrap();
    let (clock, params) = (Clock::start(), Arc::new(open.network.params.clone()));
    let network = open.network.id;
    let (dir, seeds) = (open.dir, open.seeds.clone());
    let core = Core::new(
        open.network,
        open.seeds,
        None,
        snapshot,
        clock.moment(),
        &mut rand::rng(),
    )
    .unwrap();
    let (store, _thread) = Store::start(open.database).unwrap();
    let (sender, requests) = mpsc::channel(1);
    let (notices, _) = broadcast::channel(16);
    let (settle, _) = mpsc::channel(1);
    let first = Vec::new();
    let is_online = false;
    let parts = Parts {
        core,
        clock,
        network,
        params,
        store,
        requests,
        first,
        notices,
        settle,
        is_online,
        dir,
        seeds,
        network_seeds: Vec::new(),
        seed_faults: SeedFaults::default(),
    };
    (Driver::new(parts), sender)
}

#[tokio::test] // §10.5(1)
async fn a_message_that_no_holder_was_asked_for_is_unsent_on_a_full_disk() {
    let dir = TempDir::new().unwrap();
    let (driver, requests) = driver_on_a_full_disk(&dir);
    let running = tokio::spawn(driver.run());
    let (done, result) = oneshot::channel();
    let address = *InboxIdentity::from_seed(&[3; 32]).address();
    assert!(
        requests
            .send(Request::Send {
                id: ID,
                to: Recipient::OneWay(address),
                body: vec![7; 120_000],
                life: None,
                done
            })
            .await
            .is_ok()
    );
    assert_eq!(
        result.await,
        Ok(Err(SendError::Store(StoreFault::DiskFull)))
    );
    drop(requests);
    running.await.unwrap();
}

#[tokio::test] // §10.5(1)
async fn a_message_that_holders_were_asked_to_take_is_sent_or_in_doubt() {
    let dir = TempDir::new().unwrap();
    let (mut driver, _requests) = driver_on_a_full_disk(&dir);
    let fault = StoreFault::DiskFull;
    for (notice, expected) in [
        (
            Notice::Unsaved {
                id: ID,
                may_be_out: true,
            },
            Some(Err(SendError::InDoubt { id: ID, fault })),
        ),
        (
            Notice::Held {
                id: ID,
                holders: 1,
                wanted: 2,
            },
            None,
        ),
        (
            Notice::Held {
                id: ID,
                holders: 2,
                wanted: 2,
            },
            Some(Ok(())),
        ),
    ] {
        let (done, mut result) = oneshot::channel();
        driver.sends.insert(
            ID,
            Sending {
                done,
                fault: Some(fault),
            },
        );
        driver.on_notice(notice);
        assert_eq!(result.try_recv().ok(), expected);
    }
}

#[tokio::test] // §2.6(4)
async fn a_link_that_is_ending_is_left_to_send_what_waits() {
    let dir = TempDir::new().unwrap();
    let (mut driver, _requests) = driver_on_a_full_disk(&dir);
    let task = driver.tasks.spawn(std::future::pending());
    let (queue, cells) = queue(1);
    let link = LinkId(1);
    driver.links.insert(
        link,
        Link {
            relay: RelayId([7; 32]),
            queue: Some(queue),
            task: task.clone(),
            is_up: true,
        },
    );
    let padding = || Cell::new(None, Command::Padding);
    driver.queue_cell(link, padding());
    drop(cells); // its task takes no more
    driver.queue_cell(link, padding());
    assert!(driver.links.contains_key(&link) && driver.lost.is_empty());
    task.abort();
    driver.tasks.join_next().await;
    driver.queue_cell(link, padding());
    assert_eq!(driver.lost, [link], "no task is left to report its end");
}

#[tokio::test] // §2.4(8)
async fn other_parameters_are_told_once_an_hour() {
    let dir = TempDir::new().unwrap();
    let (mut driver, _requests) = driver_on_a_full_disk(&dir);
    let mut told = driver.parts.notices.subscribe();
    let mut is_told = || {
        let is_warning = |told| {
            matches!(
                told,
                Told::Notice(Notice::Warning(Warning::OtherParameters))
            )
        };
        told.try_recv().is_ok_and(is_warning)
    };
    let network = Network::local();
    let same = Hello::of_relay(&network, WallTime(0), vec![1]);
    let silent = Hello::of_client(network.id, WallTime(0));
    let other = Hello::of_relay(
        &Network {
            params: Params::DEFAULT,
            ..network
        },
        WallTime(0),
        vec![1],
    );
    let moment = driver.parts.clock.moment();
    driver.compare_parameters(moment, &same);
    driver.compare_parameters(moment, &silent);
    assert!(!is_told());
    driver.compare_parameters(moment, &other);
    assert!(is_told());
    driver.compare_parameters(moment, &other);
    assert!(!is_told());
    let later = Moment {
        now: moment.now + Duration::from_secs(3600),
        ..moment
    };
    driver.compare_parameters(later, &other);
    assert!(is_told());
}
