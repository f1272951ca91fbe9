//! Foreign clients against the real binary: unmodified SDKs of Python, Go and JavaScript, run by
//! pytest from the virtual environment that `make test` makes.

use std::path::Path;
use std::process::Command;

#[test]
fn unmodified_sdks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    if !python.exists() {
        panic!("{} is missing: run `make test`, which makes it", python.display());
    }
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/sdk"])
        .current_dir(root)
        .env("TAPELINE_BINARY", env!("CARGO_BIN_EXE_tapeline"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!("pytest: {other:?}"),
    }
}
