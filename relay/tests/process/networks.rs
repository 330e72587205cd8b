//! Network files that people make themselves: `umbel-relay network`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use umbel_proto::network::{Network, Params};

use super::processes::{Process, assert_failed, command, run};
use super::sockets::folder;

/// Seeds in three address groups.
const SEEDS: [&str; 3] = [
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@8.1.0.1:7443",
    "baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@9.1.0.1:7443",
    "caaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@[2600::1]:7443",
];

fn network(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbel-relay"));
    command.arg("network").args(args).output().unwrap()
}

/// Makes the file of a network with these seeds.
fn new(file: &Path, seeds: &[&str]) -> Output {
    let out = ["new", "--name", "ours", "--out", file.to_str().unwrap()];
    let seeds = seeds.iter().flat_map(|seed| ["--seed", seed]);
    network(&out.into_iter().chain(seeds).collect::<Vec<_>>())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test] // §8.6(3)
fn a_new_network_is_one_file_that_init_takes_and_that_check_finds_sound() {
    let dir = folder();
    let file = dir.path().join("ours.toml");
    let made = new(&file, &SEEDS);
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let next = text(&made.stdout);
    assert_eq!(next.lines().count(), 3, "{next}");
    for command in ["umbel-relay init --network ", "umbel init --network "] {
        let line = format!("{command}{}", file.display());
        assert!(next.contains(&line), "{next}");
    }
    let written = fs::read_to_string(&file).unwrap();
    let read = Network::from_toml(&written).unwrap();
    assert_eq!(read.params, Params::NEW);
    assert_eq!((read.name.as_str(), read.seeds.len()), ("ours", 3));

    let file_text = file.to_str().unwrap();
    let relay = dir.path().join("relay");
    assert!(
        command(&["init", "--network", file_text], &relay)
            .status
            .success()
    );
    let checked = network(&["check", file_text]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let said = text(&checked.stdout);
    let (hash, verdict) = said.split_once('\n').unwrap();
    let hash = hash.strip_prefix("hash: ").unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit()));
    assert_eq!(verdict, "The network \"ours\" with 3 seeds is sound.\n");

    let again = new(&file, &SEEDS);
    assert_failed(&again, 1, "nothing is overwritten");
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    let other = dir.path().join("other.toml");
    assert!(new(&other, &SEEDS).status.success());
    let other = Network::from_toml(&fs::read_to_string(&other).unwrap()).unwrap();
    assert_ne!(other.id, read.id);
}

#[test] // §8.2(4)
fn too_few_seeds_are_a_warning_with_the_price() {
    let dir = folder();
    for (index, seeds) in [&SEEDS[..0], &SEEDS[..2]].into_iter().enumerate() {
        let made = new(&dir.path().join(index.to_string()), seeds);
        assert!(made.status.success(), "{made:?}");
        let warned = text(&made.stderr);
        let groups = format!(
            "warning: seeds: in {} of the 3 distinct address groups",
            seeds.len()
        );
        assert!(warned.contains(&groups), "{warned}");
    }
    let refused = network(&["new", "--name", "Ours!", "--out", "x"]);
    assert_failed(&refused, 2, "must be 1 to 32 of a-z, 0-9 and -");
}

#[test] // §8.6(5), §8.6(8)
fn check_says_what_is_weak_and_what_init_would_refuse() {
    let dir = folder();
    let file = dir.path().join("weak.toml");
    let file_text = file.to_str().unwrap();
    let of_local = Network::local().to_toml();
    fs::write(&file, format!("{of_local}[optional]\ncontact = \"x\"\n")).unwrap();
    let weak = network(&["check", file_text]);
    assert_eq!(weak.status.code(), Some(3), "{weak:?}");
    let said = text(&weak.stdout);
    assert!(
        said.contains("weak: receipts_min: 0 weakens anonymity: "),
        "{said}"
    );
    assert!(said.contains("ignored: optional.contact"), "{said}");
    assert!(said.ends_with("points are weak.\n"), "{said}");

    let json = network(&["check", file_text, "--json"]);
    assert_eq!(json.status.code(), Some(3), "{json:?}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["network"], "local");
    assert_eq!(json["is_sound"], false);
    let hash = json["file_hash"].as_str().unwrap();
    assert!(said.contains(&format!("hash: {hash}\n")), "{said}");
    fs::write(
        &file,
        format!("# of ours\n{}", fs::read_to_string(&file).unwrap()),
    )
    .unwrap();
    let copy = network(&["check", file_text, "--json"]);
    let copy: serde_json::Value = serde_json::from_slice(&copy.stdout).unwrap();
    assert_eq!(copy["file_hash"], hash, "comments are no part of it");
    assert_eq!(json["ignored"], serde_json::json!(["contact"]));
    let lines = said
        .lines()
        .filter(|line| line.starts_with("weak: "))
        .count();
    let points = json["weak"].as_array().unwrap();
    assert_eq!(points.len(), lines);
    assert!(
        points
            .iter()
            .all(|point| point["key"].is_string() && point["why"].is_string())
    );

    fs::write(&file, of_local.replace("receipts_min", "receipt_min")).unwrap();
    assert_failed(
        &network(&["check", file_text]),
        2,
        "did you mean receipts_min?",
    );
    assert_failed(&network(&["check", "/nowhere"]), 2, "can't read /nowhere");
}

#[test] // §2.4(8)
fn relays_that_run_one_network_by_other_parameters_say_so_and_stay_linked() {
    let dir = folder();
    let of_local = Network::local().to_toml();
    let other = of_local.replace("record_life = \"14d\"", "record_life = \"13d\"");
    assert_ne!(other, of_local);
    let dirs = [("a", &of_local), ("b", &of_local), ("c", &other)].map(|(name, text)| {
        let file = dir.path().join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        let relay = dir.path().join(name);
        let made = command(&["init", "--network", file.to_str().unwrap()], &relay);
        assert!(made.status.success(), "{made:?}");
        relay
    });
    let listen = ["--listen", "127.0.0.1:0"];
    let first = Process::spawn(run(&listen, &dirs[0]));
    let joined = [&listen[..], &["--seed", &first.peer]].concat();
    let same = Process::spawn(run(&joined, &dirs[1]));
    let differs = Process::spawn(run(&joined, &dirs[2]));
    let said = "runs this network with other parameters";
    let id = |peer: &str| peer.split_once('@').unwrap().0.to_owned();
    let line = differs.log_with(said);
    assert!(
        line.contains("WARN") && line.contains("network.toml"),
        "{line}"
    );
    let line = first.log_with(said);
    assert!(
        line.contains(&id(&differs.peer)),
        "the third, not the second: {line}"
    );
    drop(same);
}
