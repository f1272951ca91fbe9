//! Foreign clients against the real binary: unmodified SDKs of Python, Go and JavaScript.

#[path = "../servers/pytest.rs"]
mod pytest;

#[test]
fn unmodified_sdks() {
    pytest::run("tests/sdk");
}
