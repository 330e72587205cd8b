//! `umbel-bench` measures everything it says it does, and `umbel bench` runs it. Tests do not judge
//! how fast anything is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail"
)]

#[path = "fleet/binaries.rs"]
mod binaries;

use std::process::{Command, Stdio};

use binaries::binaries;
use serde_json::Value;

/// The benchmark, beside the commands that it runs.
const UMBEL_BENCH: &str = env!("CARGO_BIN_EXE_umbel-bench");

/// Rows of each group, in the order in which they are measured.
const ROWS: [(&str, &[(&str, &str)]); 11] = [
    (
        "limit",
        &[
            ("limit_layer", "s/GB"),
            ("limit_keystream", "s/GB"),
            ("limit_tls", "s/GB"),
        ],
    ),
    (
        "cpu",
        &[
            ("aead_2kib", "ns"),
            ("cell_forward", "ns"),
            ("cell_forward_ratio", "ratio"),
            ("cell_backward", "ns"),
            ("cell_backward_ratio", "ratio"),
            ("handshakes", "1/s"),
        ],
    ),
    (
        "circuit",
        &[
            ("circuit_build", "ms"),
            ("circuits_together", "1/s"),
            ("circuit_cpu_hop", "ms"),
            ("circuit_cpu_client", "ms"),
        ],
    ),
    (
        "bulk",
        &[
            ("tls_chain", "MB/s"),
            ("tls_chain_cpu", "s/GB"),
            ("bulk", "MB/s"),
            ("bulk_ratio", "ratio"),
            ("bulk_cpu_guard", "s/GB"),
            ("bulk_cpu_middle", "s/GB"),
            ("bulk_cpu_ratio", "ratio"),
            ("bulk_cpu_last", "s/GB"),
            ("bulk_cpu_client", "s/GB"),
            ("bulk_up", "MB/s"),
            ("bulk_up_cpu_middle", "s/GB"),
            ("tls_chain_4", "MB/s"),
            ("bulk_4", "MB/s"),
            ("bulk_4_ratio", "ratio"),
            ("bulk_4_cpu_middle", "s/GB"),
        ],
    ),
    (
        "scaling",
        &[
            ("scaling_cores", "ratio"),
            ("plane_scaling", "ratio"),
            ("relay_cpu_1", "s/GB"),
            ("relay_cpu_2", "s/GB"),
            ("relay_busy_2", "ratio"),
            ("relay_cpu_scaling", "ratio"),
        ],
    ),
    (
        "fairness",
        &[
            ("quiet_alone", "ms"),
            ("quiet_beside_bulk", "ms"),
            ("quiet_bulk", "MB/s"),
            ("quiet_same_link", "ms"),
        ],
    ),
    (
        "flood",
        &[
            ("flood_creates", "1/s"),
            ("flood_bulk_before", "MB/s"),
            ("flood_bulk", "MB/s"),
            ("flood_quiet_before", "ms"),
            ("flood_quiet", "ms"),
        ],
    ),
    (
        "message",
        &[
            ("message_latency", "ms"),
            ("message_held", "ms"),
            ("message_round_trip", "ms"),
            ("message_side", "KiB"),
            ("message_sender_link", "KiB"),
            ("message_reader_link", "KiB"),
            ("message_cells", "cells"),
            ("message_wire", "KiB"),
            ("message_cold", "ms"),
            ("message_cold_send", "ms"),
            ("client_fresh", "ms"),
            ("message_cpu", "ms"),
        ],
    ),
    (
        "delay",
        &[
            ("delay_connect_echo", "ms"),
            ("delay_echo", "ms"),
            ("delay_stream", "MB/s"),
            ("delay_circuit_build", "ms"),
            ("delay_bulk", "MB/s"),
            ("delay_message_latency", "ms"),
            ("delay_message_held", "ms"),
            ("delay_message_round_trip", "ms"),
            ("delay_message_cold", "ms"),
            ("delay_message_cold_send", "ms"),
            ("delay_client_fresh", "ms"),
        ],
    ),
    (
        "mailbox",
        &[
            ("deposits", "1/s"),
            ("deposit_latency", "ms"),
            ("deposit_p99", "ms"),
            ("deposit_cpu", "us"),
            ("fetches", "1/s"),
            ("fetch_latency", "ms"),
            ("fetch_cpu", "us"),
            ("overload", "1/s"),
            ("overload_latency", "ms"),
            ("overload_cpu", "us"),
            ("deposits_many", "1/s"),
            ("deposit_latency_many", "ms"),
            ("deposit_p99_many", "ms"),
            ("deposit_cpu_many", "us"),
            ("holder_start", "ms"),
            ("holder_memory", "KiB"),
            ("fetches_many", "1/s"),
            ("fetch_latency_many", "ms"),
            ("fetch_cpu_many", "us"),
        ],
    ),
    (
        "memory",
        &[
            ("relay_start", "KiB"),
            ("idle_link", "KiB"),
            ("client_ready", "KiB"),
            ("idle_circuit", "KiB"),
        ],
    ),
];

#[test]
fn every_figure_is_measured_and_explained() {
    let all = ROWS.map(|(_, rows)| rows).concat();
    binaries();
    let mut bench = Command::new(UMBEL_BENCH);
    check(&all, bench.args(["--quick", "--json"]));
}

#[test]
fn umbel_runs_it_to_measure_a_group_alone() {
    let umbel = binaries().join("umbel");
    let (group, rows) = ROWS[0];
    let mut bench = Command::new(umbel);
    check(
        rows,
        bench.args(["--json", "bench", "--quick", "--only", group]),
    );
}

#[test]
fn umbel_shows_its_help() {
    let help = |mut command: Command| {
        let output = command.arg("--help").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut umbel = Command::new(binaries().join("umbel"));
    umbel.arg("bench");
    let shown = help(umbel);
    assert!(shown.contains("Usage: umbel-bench"), "{shown}");
    assert_eq!(shown, help(Command::new(UMBEL_BENCH)));
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    for wrong in [&["--only", "nothing"][..], &["--frobnicate"]] {
        let output = Command::new(UMBEL_BENCH)
            .args(wrong)
            .arg("--json")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(
            (&said["exit"], &said["exit_code"]),
            (&"usage".into(), &2.into())
        );
        assert!(
            said["error"]
                .as_str()
                .unwrap()
                .contains(wrong.last().unwrap())
        );
    }
}

fn check(expected: &[(&str, &str)], bench: &mut Command) {
    let output = bench
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = rows
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["unit"].as_str().unwrap()))
        .collect();
    assert_eq!(names, expected);
    for row in &rows {
        assert!(
            row["note"].as_str().is_some_and(|note| !note.is_empty()),
            "{row}"
        );
        assert!(
            row["value"].as_f64().is_some_and(f64::is_finite) && row["samples"].as_u64() > Some(0),
            "{row}"
        );
        if let (Some(min), Some(p50), Some(p99)) = (
            row["min"].as_f64(),
            row["p50"].as_f64(),
            row["p99"].as_f64(),
        ) {
            assert!(0.0 <= min && min <= p50 && p50 <= p99, "{row}");
        }
    }
}
