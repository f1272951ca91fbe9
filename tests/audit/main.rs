//! A region whose processes are killed and stopped under load, audited by what its clients wrote down.

#[path = "../servers/pytest.rs"]
mod pytest;

#[test]
fn clients_saw_what_was_promised() {
    pytest::run("tests/audit");
}
