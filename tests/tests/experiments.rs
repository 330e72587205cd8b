//! Each experiment in its small form, and its page in docs/experiments.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "reads the pages; a test fails by panicking"
)]

use std::fs;

use umbel_tests::experiments::{ALL, Scale};

/// Runs an experiment, and its page is whole. Returns the expectations that it does not meet.
fn unmet(name: &str) -> Vec<String> {
    let experiment = ALL
        .iter()
        .find(|experiment| experiment.name == name)
        .unwrap();
    let page = (experiment.run)(Scale::Small, 7);
    assert!(page.plot.to_svg().unwrap().ends_with("</svg>\n"));
    assert!(page.tables.iter().all(|table| {
        let columns = table.head.len();
        !table.rows.is_empty() && table.rows.iter().all(|row| row.len() == columns)
    }));
    let unmet = page.findings.iter().filter(|finding| !finding.is_met);
    unmet
        .map(|finding| format!("{}: {}", finding.expected, finding.measured))
        .collect()
}

/// Runs an experiment: all that it expects holds.
fn run(name: &str) {
    assert_eq!(unmet(name), Vec::<String>::new());
}

#[test] // §1.6
fn clock() {
    run("clock");
}

#[test]
fn sybil() {
    run("sybil");
}

#[test]
fn ghosts() {
    run("ghosts");
}

#[test] // §6.4(2)
fn year() {
    run("year");
}

#[test] // §8.3(9)
fn hostile_peers() {
    run("hostile-peers");
}

#[test] // §9.4(5), §10.5(6)
fn censor() {
    run("censor");
}

#[test] // §8.3
fn churn() {
    run("churn");
}

#[test] // §6.4(2)
fn discovery() {
    run("discovery");
}

#[test] // §8.3(9), §8.3(9c)
fn eclipse() {
    run("eclipse");
}

#[test] // §8.3(8)
fn scale() {
    run("scale");
}

#[test]
fn every_experiment_has_its_page_of_the_whole_form_and_its_test() {
    let tests = include_str!("experiments.rs");
    for experiment in ALL {
        let name = experiment.name;
        let page = fs::read_to_string(format!("../docs/experiments/{name}.md")).unwrap();
        let command = format!("--bin experiment -- {name} --seed ");
        assert!(
            page.contains(experiment.question) && page.contains(&command),
            "{name}"
        );
        let plot = fs::read_to_string(format!("../docs/experiments/{name}.svg")).unwrap();
        assert!(plot.starts_with("<svg"));
        assert!(tests.contains(&format!("run(\"{name}\")")), "{name}");
    }
}
