//! `umbel-relay status` and `umbel-relay why`: what a running relay says of itself and of others, for
//! people, or as the JSON that it answered.
//!
//! The relay may be of another version: a key that is missing is left out, others are not looked at.

use std::path::Path;

use serde_json::Value;
use umbel_proto::ids::{Peer, RelayId};
use umbel_proto::time::{Duration, in_words};
use umbel_relay::operator::{Question, ask};

use crate::failure::Failure;
use crate::say;

/// Where a row's text begins.
const INDENT: usize = 12;

/// Asks the relay in `data_dir`, and prints the answer.
pub(crate) fn report(data_dir: &Path, question: Question, is_json: bool) -> Result<(), Failure> {
    let rows = match question {
        Question::Status => status_rows,
        Question::Why { .. } => why_rows,
    };
    let answer = ask(data_dir, question)?;
    if is_json {
        return say(&answer);
    }
    let object: Value = serde_json::from_str(&answer).map_err(|error| {
        Failure::failed(
            format!("the relay answers what this version can't read: {error}"),
            "ask with the `umbel-relay` of the relay's own version",
        )
    })?;
    say(&for_people(&object, rows))
}

/// A relay's id, alone or in its peer line.
pub(crate) fn parse_relay(text: &str) -> Result<RelayId, String> {
    let of_peer = || text.parse().map(|peer: Peer| peer.id);
    text.parse().or_else(|_| of_peer()).map_err(|_| {
        "a relay's id has 52 characters: those before the @ of ID@HOST:PORT".to_owned()
    })
}

type Rows = fn(&Value) -> Vec<(&'static str, String)>;

/// A sentence, then a row for each thing that the answer says.
fn for_people(object: &Value, rows: Rows) -> String {
    let mut lines = vec![text(&object["health"])];
    for (name, row) in rows(object) {
        if !row.is_empty() {
            lines.push(format!("  {name:INDENT$}{row}"));
        }
    }
    lines.join("\n")
}

fn status_rows(object: &Value) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("relay", text(&object["relay"])),
        ("network", text(&object["network"])),
        ("version", version(object)),
        ("listening", text(&object["listening"])),
        ("advertised", list(&object["advertised"])),
        ("reachable", verdict(&object["reachable"])),
    ];
    rows.extend(receipt_rows(object));
    let (memory, handshakes) = (&object["memory"], &object["handshakes"]);
    rows.extend([
        ("selectable", verdict(&object["selectable"])),
        ("relays", text(&object["relays"])),
        ("newer", newer(&object["peers_newer"])),
        ("links", text(&object["links"])),
        ("circuits", at_least(&object["circuits"])),
        (
            "handshakes",
            joined(&[
                ("answered", at_least(&handshakes["answered"])),
                ("refused", at_least(&handshakes["refused"])),
            ]),
        ),
        ("queues", at_least(&object["queues"])),
        (
            "memory",
            joined(&[
                ("waiting for others, at most", mib(&memory["used"])),
                ("may wait", mib(&memory["budget"])),
                ("in all, at most", mib(&memory["process"])),
            ]),
        ),
        ("clock", clock(&object["clock_off_s"])),
    ]);
    rows
}

fn why_rows(object: &Value) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("relay", text(&object["relay"])),
        ("version", text(&object["version"])),
        ("advertised", list(&object["advertised"])),
        ("linked", yes(&object["linked"]).to_owned()),
        ("seed", yes(&object["seed"]).to_owned()),
        ("first seen", text(&object["first_seen"])),
        ("issued", text(&object["issued_at"])),
        ("expires", text(&object["expires_at"])),
    ];
    rows.extend(receipt_rows(object));
    rows.extend([
        ("selectable", verdict(&object["selectable"])),
        ("checked", checked(&object["checked"])),
        ("dialled", text(&object["dialled"]["why"])),
    ]);
    rows
}

fn receipt_rows(object: &Value) -> impl Iterator<Item = (&'static str, String)> {
    let receipts = object["receipts"].as_array().into_iter().flatten();
    let names = ["receipts"].into_iter().chain(std::iter::repeat(""));
    names.zip(receipts.map(|it| {
        format!(
            "{} in {}, dialled at {}, until {}",
            text(&it["issuer"]),
            text(&it["group"]),
            text(&it["at"]),
            text(&it["expires"])
        )
    }))
}

/// Whether something holds, and why.
fn verdict(object: &Value) -> String {
    match text(&object["why"]) {
        why if why.is_empty() => yes(&object["is"]).to_owned(),
        why => format!("{}: {why}", yes(&object["is"])),
    }
}

fn version(object: &Value) -> String {
    let up = object["uptime_s"].as_u64().map(Duration::from_secs);
    let up = up.map_or_else(String::new, |up| format!(", up {}", in_words(up)));
    text(&object["version"]) + &up
}

/// How an issuer's receipts fared.
fn checked(object: &Value) -> String {
    joined(&[
        ("receipts of it found true:", text(&object["found"])),
        ("missed:", text(&object["missed"])),
        (
            "count for nothing here until",
            text(&object["barred_until"]),
        ),
    ])
}

fn newer(count: &Value) -> String {
    match count.as_u64() {
        None | Some(0) => String::new(),
        Some(count) => {
            format!("{count} of these say that they run a later version: look for an update")
        }
    }
}

fn clock(off: &Value) -> String {
    let Some(off) = off.as_i64() else {
        return "compared with nobody's yet".to_owned();
    };
    let by = in_words(Duration::from_secs(off.unsigned_abs()));
    match off.signum() {
        0 => "as other relays have it".to_owned(),
        1 => format!("{by} ahead of other relays'"),
        _ => format!("{by} behind other relays'"),
    }
}

/// A sum that is the least of a range.
fn at_least(least: &Value) -> String {
    match least.as_u64() {
        None => String::new(),
        Some(0) => "under 16".to_owned(),
        Some(least) => format!("{least} or more"),
    }
}

fn mib(bytes: &Value) -> String {
    bytes
        .as_u64()
        .map_or_else(String::new, |bytes| format!("{} MiB", bytes >> 20))
}

/// What is there of these, each after its name.
fn joined(parts: &[(&str, String)]) -> String {
    let there = parts.iter().filter(|(_, part)| !part.is_empty());
    let parts: Vec<String> = there.map(|(name, part)| format!("{name} {part}")).collect();
    parts.join("; ")
}

fn yes(is: &Value) -> &'static str {
    match is.as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    }
}

fn list(items: &Value) -> String {
    let items = items.as_array().into_iter().flatten();
    let items: Vec<String> = items.map(text).collect();
    items.join(", ")
}

/// A string or a number as it is; nothing of what is not there.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_version_is_printed_as_far_as_it_goes() {
        let older =
            serde_json::json!({ "health": "in use: 3 relays reach this one", "circuits": 0 });
        let printed = for_people(&older, status_rows);
        assert_eq!(
            printed,
            "in use: 3 relays reach this one\n  circuits    under 16\n  clock       compared with nobody's yet"
        );
        let later = serde_json::json!({
            "health": "in use",
            "relays": 12,
            "receipts": [{ "issuer": "a", "group": "20.1.0.0/16", "at": "now", "expires": "then", "new": 1 }],
            "selectable": { "is": false, "why": "too young", "new": [] },
            "clock_off_s": -90,
            "new": {},
        });
        let printed = for_people(&later, status_rows);
        for row in [
            "  receipts    a in 20.1.0.0/16, dialled at now, until then",
            "  selectable  no: too young",
            "  relays      12",
            "  clock       90 seconds behind other relays'",
        ] {
            assert!(
                printed.lines().any(|line| line == row),
                "{row} in {printed}"
            );
        }
    }

    #[test]
    fn a_relay_is_named_by_its_id_or_its_peer_line() {
        let id = RelayId([7; 32]).to_string();
        assert_eq!(parse_relay(&id), Ok(RelayId([7; 32])));
        let peer = format!("{id}@127.0.0.1:9000");
        assert_eq!(parse_relay(&peer), Ok(RelayId([7; 32])));
        assert!(parse_relay("x").is_err());
    }
}
