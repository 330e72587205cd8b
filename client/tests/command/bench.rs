//! `umbel bench`, which becomes another program.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::ended::{code, stderr, stdout};
use crate::place::json_error;

/// `umbel` in a directory of its own, where `umbel-bench` is the program `bench` or is not there.
fn umbel_beside(bench: Option<&str>) -> (TempDir, PathBuf) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let umbel = dir.path().join("umbel");
    std::fs::hard_link(env!("CARGO_BIN_EXE_umbel"), &umbel).unwrap();
    if let Some(program) = bench {
        std::os::unix::fs::symlink(program, dir.path().join("umbel-bench")).unwrap();
    }
    (dir, umbel)
}

#[test]
fn bench_becomes_the_umbel_bench_beside_it() {
    let (_dir, umbel) = umbel_beside(Some("/bin/echo"));
    for (words, passed) in [
        (&["bench"][..], ""),
        (&["bench", "--help", "--quick"], "--help --quick"),
        (&["bench", "-h"], "-h"),
        (
            &["bench", "--quick", "--only", "cpu,bulk", "--json"],
            "--quick --only cpu,bulk --json",
        ),
        (
            &["--json", "-v", "bench", "--quick"],
            "--json --verbose --quick",
        ),
        (
            &["--profile", "p", "bench", "--json", "--ports", "7000"],
            "--json --ports 7000",
        ),
    ] {
        let output = Command::new(&umbel).args(words).output().unwrap();
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
        assert_eq!(stdout(&output).trim_end(), passed, "{words:?}");
    }
    let (_dir, umbel) = umbel_beside(Some("/bin/sh"));
    let output = Command::new(umbel)
        .args(["bench", "-c", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 7, "{output:?}");
}

#[test]
fn bench_says_how_to_build_what_is_not_there() {
    let (_dir, umbel) = umbel_beside(None);
    let output = Command::new(&umbel).args(["bench"]).output().unwrap();
    assert_eq!(code(&output), 127);
    assert!(stderr(&output).starts_with("error: there is no umbel-bench in "));
    assert!(
        stderr(&output).contains("\n  hint: build it with `cargo build --release --workspace`")
    );
    let output = Command::new(&umbel)
        .args(["--json", "bench"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 127);
    json_error(&output);
}
