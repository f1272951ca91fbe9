//! Foreign clients against the real binary: unmodified SDKs of Python, Go and JavaScript.
#![expect(
    clippy::panic,
    unreachable_pub,
    reason = "tests say why they fail, and their helpers are no public API"
)]

#[path = "../servers/pytest.rs"]
mod pytest;

#[test]
fn unmodified_sdks() {
    pytest::run("tests/sdk");
}
