//! A real Redis of a test's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// `redis-server` on loopback, with nothing on the disk; it ends with the pipe to it, however this
/// process ends.
pub struct RedisServer {
    /// Where it is, such as `redis://127.0.0.1:7001/0`.
    pub url: String,
    launcher: Child,
    /// What the launcher is told, until it is dropped.
    told: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

/// Runs the server until standard input ends, and answers each line of it.
const LAUNCHER: &str = r#"
begin() {
    redis-server --port "$0" --bind 127.0.0.1 --save "" --appendonly no --loglevel warning --dir / </dev/null >/dev/null 2>&1 &
    server=$!
    until redis-cli -p "$0" ping >/dev/null 2>&1; do
        kill -0 $server || exit 1
        sleep 0.05
    done
}
begin
echo begun
while read -r word; do
    case $word in
        stop) kill -STOP $server ;;
        cont) kill -CONT $server ;;
        replace) kill -KILL $server; wait $server 2>/dev/null; begin ;;
    esac
    echo done
done
kill -KILL $server
"#;

impl RedisServer {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let mut launcher = Command::new("sh")
            .args(["-c", LAUNCHER])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let told = launcher.stdin.take();
        let says = BufReader::new(launcher.stdout.take().expect("a pipe"));
        let mut server = Self { url: format!("redis://127.0.0.1:{port}/0"), launcher, told, says };
        server.hear();
        server
    }

    fn hear(&mut self) {
        let mut line = String::new();
        let heard = self.says.read_line(&mut line).expect("a line");
        assert!(heard > 0, "redis-server does not run; `make test` installs it by scripts/redis-env");
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.told.as_mut().expect("a pipe"), "{word}").expect("the launcher listens");
        self.hear();
    }

    /// Runs a command of `redis-cli` on it.
    pub fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-u", &self.url]).args(words).output();
        let output = output.expect("redis-cli runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !said.contains("ERR"), "{words:?}: {said}");
        said
    }

    /// It hangs.
    pub fn stop(&mut self) {
        self.tell("stop");
    }

    /// It goes on.
    pub fn cont(&mut self) {
        self.tell("cont");
    }

    /// kill -9; an empty one takes its place.
    pub fn replace(&mut self) {
        self.tell("replace");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.told.take());
        let _ = self.launcher.wait();
    }
}
