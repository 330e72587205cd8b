//! The commands that tests run as processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds both commands once, in the profile that the tests were built in, and says where they are.
pub(crate) fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test
            .parent()
            .and_then(Path::parent)
            .expect("target/PROFILE/deps/test")
            .to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--locked",
            "--bins",
            "-p",
            "umbel-relay",
            "-p",
            "umbel-client",
        ]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.env("CARGO_TARGET_DIR", folder.parent().expect("target/PROFILE"));
        let status = build.current_dir("..").status().expect("cargo runs");
        assert!(status.success(), "the commands build");
        folder
    })
}
