//! A profile of each released format opens, and everything in it is as it was
//! (`client/tests/fixtures/README.md`).

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and uses real files"
)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use umbel_client::core::io::OutboxEntry;
use umbel_client::{Client, Passphrase, Profile, Reach};

const HELP: &str = "umbel1qy3gqjds4h84j4js2sm0jn9cfunphg275l3dfw6yxw6krzzw56tuuksv7m6";
const TIPS: &str = "umbel1q9r7z7wtxzcjuam9ezxryrx6x2vdlflr5uznxlftj0cx9cr7elkm5ne6nzq";
const DESK: &str = "umbel1qxm40vvqgyfr7vj8q2wved87xnqkgz48vy25vql6tspg6y5fc4g0xhdkh9j";

/// A copy of a fixture, which no test writes to.
fn copy(fixture: &str) -> (TempDir, PathBuf) {
    let from = Path::new("tests/fixtures").join(fixture);
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("profile");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    (folder, to)
}

/// A copy of the profile whose key file is beside its database, with the key's new path in
/// `profile.toml`.
fn copy_with_key_file() -> (TempDir, PathBuf) {
    let (folder, dir) = copy("profile-7e4259e/key-file");
    let config = dir.join("profile.toml");
    let text = fs::read_to_string(&config).unwrap();
    let lines = text.lines().map(|line| {
        if line.starts_with("path = ") {
            format!("path = {:?}", dir.join("key"))
        } else {
            line.to_owned()
        }
    });
    fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    (folder, dir)
}

async fn open(dir: &Path, passphrase: Option<&str>) -> Client {
    let mut profile = Profile::load(dir).unwrap();
    assert_eq!(profile.needs_passphrase(), passphrase.is_some());
    if let Some(passphrase) = passphrase {
        profile.set_passphrase(Passphrase::new(passphrase.to_owned()).unwrap());
    }
    Client::open_with(profile, Reach::Offline).await.unwrap()
}

async fn address(client: &Client, inbox: &str) -> Option<String> {
    client
        .inbox_address(inbox)
        .await
        .unwrap()
        .map(|address| address.to_text())
}

/// The inbox and the text of every message kept, or of those not yet read, in the order they came.
async fn texts(client: &Client, is_unread: bool) -> Vec<(String, String)> {
    let page = if is_unread {
        client.unread(None, 0).await
    } else {
        client.messages(None, 0).await
    };
    page.unwrap()
        .into_iter()
        .map(|message| (message.inbox, String::from_utf8(message.body).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_profile_of_7e4259e_keeps_its_inboxes_messages_and_outbox() {
    let (_folder, dir) = copy_with_key_file();
    // Twice: the second opening reads what the first has upgraded.
    for _ in 0..2 {
        let client = open(&dir, None).await;
        assert_eq!(address(&client, "help").await.as_deref(), Some(HELP));
        assert_eq!(address(&client, "tips").await.as_deref(), Some(TIPS));
        let status = client.status().await.unwrap();
        let inboxes = status.inboxes.iter();
        let inboxes: Vec<_> = inboxes
            .map(|inbox| (inbox.name.as_str(), inbox.mailboxes))
            .collect();
        assert_eq!(inboxes, [("help", 3), ("tips", 3)]);

        let held: Vec<_> = status
            .outbox
            .iter()
            .map(|entry| (entry.id.to_string(), entry.holders))
            .collect();
        let half_held = ("28a1be213ff0112b53bc4038b75b6cf1".to_owned(), 1);
        assert_eq!(
            held,
            [
                half_held,
                ("8fc65c0db537792515a1120b7c4b8175".to_owned(), 0)
            ]
        );

        let mut unread = texts(&client, true).await;
        unread.sort();
        let of = |inbox: &str, text: &str| (inbox.to_owned(), text.to_owned());
        assert_eq!(
            unread,
            [
                of("help", "unread 1"),
                of("help", "unread 2"),
                of("tips", "unread tip")
            ]
        );
        let read: Vec<_> = texts(&client, false)
            .await
            .into_iter()
            .filter(|message| !unread.contains(message))
            .collect();
        assert_eq!(read.len(), 3);
        for message in [
            of("help", "read: the first"),
            of("tips", "read: a tip"),
            of("help", "unread 0"),
        ] {
            assert!(read.contains(&message), "{message:?}");
        }
        client.close().await;
    }
}

#[tokio::test]
async fn a_profile_of_7e4259e_opens_by_its_passphrase() {
    let (_folder, dir) = copy("profile-7e4259e/passphrase");
    let client = open(&dir, Some("correct horse battery staple")).await;
    assert_eq!(address(&client, "desk").await.as_deref(), Some(DESK));
    assert_eq!(
        client.status().await.unwrap().outbox,
        Vec::<OutboxEntry>::new()
    );
    assert_eq!(
        texts(&client, true).await,
        [("desk".to_owned(), "for the desk, too".to_owned())]
    );
    assert_eq!(texts(&client, false).await.len(), 2);
    client.close().await;
}
