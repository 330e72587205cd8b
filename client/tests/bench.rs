//! `umbel bench` measures everything it says it does. How fast anything is, is not for tests to say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail")]

use std::process::{Command, Stdio};

use serde_json::Value;

const ROWS: [(&str, &str); 25] = [
    ("aead_2kib", "ns"),
    ("cell_forward", "ns"),
    ("cell_forward_ratio", "ratio"),
    ("cell_backward", "ns"),
    ("cell_backward_ratio", "ratio"),
    ("handshakes", "1/s"),
    ("circuit_build", "ms"),
    ("bulk", "MB/s"),
    ("bulk_cpu", "s/GB"),
    ("message_latency", "ms"),
    ("message_held", "ms"),
    ("message_cells", "cells"),
    ("message_wire", "KiB"),
    ("message_cold", "ms"),
    ("relay_start", "KiB"),
    ("idle_link", "KiB"),
    ("idle_circuit", "KiB"),
    ("delay_connect_echo", "ms"),
    ("delay_echo", "ms"),
    ("delay_stream", "MB/s"),
    ("delay_circuit_build", "ms"),
    ("delay_bulk", "MB/s"),
    ("delay_message_latency", "ms"),
    ("delay_message_held", "ms"),
    ("delay_message_cold", "ms"),
];
/// Rows that may have no value: there need be no relay's program beside the command.
const OPTIONAL: [&str; 1] = ["relay_start"];

#[test]
fn every_figure_is_measured_and_explained() {
    let output = Command::new(env!("CARGO_BIN_EXE_umbel"))
        .args(["bench", "--quick", "--json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = rows.iter().map(|row| (row["name"].as_str().unwrap(), row["unit"].as_str().unwrap())).collect();
    assert_eq!(names, ROWS);
    for row in &rows {
        assert!(row["note"].as_str().is_some_and(|note| !note.is_empty()), "{row}");
        let is_measured = row["value"].as_f64().is_some_and(f64::is_finite) && row["samples"].as_u64() > Some(0);
        assert!(is_measured || OPTIONAL.contains(&row["name"].as_str().unwrap()), "{row}");
        if let (Some(min), Some(p50), Some(p99)) = (row["min"].as_f64(), row["p50"].as_f64(), row["p99"].as_f64()) {
            assert!(0.0 <= min && min <= p50 && p50 <= p99, "{row}");
        }
    }
}
