//! Runs pytest on a folder of tests, by the virtual environment that `make test` makes.

use std::path::Path;
use std::process::Command;

/// Runs the tests below `folder` against the binary, and fails where one of them does.
pub(super) fn run(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make test`, which makes it", python.display());
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", folder])
        .current_dir(root)
        .env("TAPELINE_BINARY", env!("CARGO_BIN_EXE_tapeline"))
        .status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "pytest: {status:?}");
}
