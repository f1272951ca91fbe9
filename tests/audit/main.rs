//! A region whose processes are killed and stopped under load, audited by what its clients wrote down.
#![expect(
    clippy::panic,
    unreachable_pub,
    reason = "tests say why they fail, and their helpers are no public API"
)]

#[path = "../servers/pytest.rs"]
mod pytest;

#[test]
fn clients_saw_what_was_promised() {
    pytest::run("tests/audit");
}
