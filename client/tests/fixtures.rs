//! Profiles of formats 1 and 5 open, and everything in them is as it was
//! (`client/tests/fixtures/README.md`). A format gets one when it is released.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and uses real files"
)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use umbel_client::{Client, Passphrase, Profile, Reach};

/// What a fixture holds: profiles of two users, and what they wrote.
struct Fixture {
    folder: &'static str,
    help: &'static str,
    tips: &'static str,
    desk: &'static str,
    /// The outbox of the profile with a key file: ids, and how many holders have each.
    outbox: &'static [(&'static str, usize)],
    /// Texts of messages in its inbox `help` that were read, besides `read: the first`.
    also_read: &'static [&'static str],
    /// How many messages wait in the outbox of the profile with a passphrase.
    outbox_len_of_desk: usize,
}

/// Profile format 1.
const OF_7E4259E: Fixture = Fixture {
    folder: "profile-7e4259e",
    help: "umbel1qy3gqjds4h84j4js2sm0jn9cfunphg275l3dfw6yxw6krzzw56tuuksv7m6",
    tips: "umbel1q9r7z7wtxzcjuam9ezxryrx6x2vdlflr5uznxlftj0cx9cr7elkm5ne6nzq",
    desk: "umbel1qxm40vvqgyfr7vj8q2wved87xnqkgz48vy25vql6tspg6y5fc4g0xhdkh9j",
    outbox: &[
        ("28a1be213ff0112b53bc4038b75b6cf1", 1),
        ("8fc65c0db537792515a1120b7c4b8175", 0),
    ],
    also_read: &["unread 0"],
    outbox_len_of_desk: 0,
};

/// Profile format 5.
const OF_E8343FD: Fixture = Fixture {
    folder: "profile-e8343fd",
    help: "umbel1q9trlrqdfd7q8y5q8n2vv436rtu5mdg9rqdhduxxh374cgvpq382xtjzx8z",
    tips: "umbel1qx53ehq6v56kfpjuaza5cm9su5hn4jqpdcna8s5tldpgsy0mr759gf2anuj",
    desk: "umbel1qxe8ujce9xz4nlh5gyhlv3f227fh52h8y5r340aqja0fyjyerde2wh8dw9d",
    outbox: &[
        ("c7327a043c3ce52934c1ad30bbaa730c", 1),
        ("dc2c8b6318970e34b311fe226393b042", 1),
        ("88a48a22d647f756cfe7b3e8accf580d", 0),
    ],
    also_read: &[],
    outbox_len_of_desk: 1,
};

/// A copy of a fixture, which no test writes to.
fn copy(fixture: &Fixture, profile: &str) -> (TempDir, PathBuf) {
    let from = Path::new("tests/fixtures")
        .join(fixture.folder)
        .join(profile);
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
fn copy_with_key_file(fixture: &Fixture) -> (TempDir, PathBuf) {
    let (folder, dir) = copy(fixture, "key-file");
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
        .map(|message| {
            (
                message.inbox.unwrap_or_default(),
                String::from_utf8(message.body.into_bytes()).unwrap(),
            )
        })
        .collect()
}

async fn assert_whole(fixture: &Fixture) {
    let (_folder, dir) = copy_with_key_file(fixture);
    // Twice: the second opening reads what the first has upgraded.
    for _ in 0..2 {
        let client = open(&dir, None).await;
        assert_eq!(
            address(&client, "help").await.as_deref(),
            Some(fixture.help)
        );
        assert_eq!(
            address(&client, "tips").await.as_deref(),
            Some(fixture.tips)
        );
        let status = client.status().await.unwrap();
        let inboxes = status.inboxes.iter();
        let inboxes: Vec<_> = inboxes
            .map(|inbox| (inbox.name.as_str(), inbox.mailboxes))
            .collect();
        assert_eq!(inboxes, [("help", 3), ("tips", 3)]);

        let outbox = status.outbox.iter();
        let mut held: Vec<_> = outbox
            .map(|entry| (entry.id.to_string(), entry.holders))
            .collect();
        let of = |&(id, holders): &(&str, usize)| (id.to_owned(), holders);
        let mut wanted: Vec<_> = fixture.outbox.iter().map(of).collect();
        held.sort();
        wanted.sort();
        assert_eq!(held, wanted);

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
        let mut read: Vec<_> = texts(&client, false)
            .await
            .into_iter()
            .filter(|message| !unread.contains(message))
            .collect();
        let mut wanted = vec![of("help", "read: the first"), of("tips", "read: a tip")];
        wanted.extend(fixture.also_read.iter().map(|text| of("help", text)));
        read.sort();
        wanted.sort();
        assert_eq!(read, wanted);
        client.close().await;
    }
}

async fn assert_opens_by_passphrase(fixture: &Fixture) {
    let (_folder, dir) = copy(fixture, "passphrase");
    let client = open(&dir, Some("correct horse battery staple")).await;
    assert_eq!(
        address(&client, "desk").await.as_deref(),
        Some(fixture.desk)
    );
    let outbox = client.status().await.unwrap().outbox;
    assert_eq!(outbox.len(), fixture.outbox_len_of_desk);
    assert_eq!(
        texts(&client, true).await,
        [("desk".to_owned(), "for the desk, too".to_owned())]
    );
    assert_eq!(texts(&client, false).await.len(), 2);
    client.close().await;
}

#[tokio::test]
async fn a_profile_of_7e4259e_keeps_its_inboxes_messages_and_outbox() {
    assert_whole(&OF_7E4259E).await;
}

#[tokio::test]
async fn a_profile_of_7e4259e_opens_by_its_passphrase() {
    assert_opens_by_passphrase(&OF_7E4259E).await;
}

#[tokio::test]
async fn a_profile_of_e8343fd_keeps_its_inboxes_messages_and_outbox() {
    assert_whole(&OF_E8343FD).await;
}

#[tokio::test]
async fn a_profile_of_e8343fd_opens_by_its_passphrase() {
    assert_opens_by_passphrase(&OF_E8343FD).await;
}
