//! Real Cassandra nodes of `scripts/cassandra`, for tests of the store and of whole nodes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// A cluster of `scripts/cassandra`; it ends with the pipe to it, however this process ends.
pub struct Cluster {
    _child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    pub nodes: Vec<String>,
    /// What it said when it was ready.
    pub facts: serde_json::Value,
}

impl Cluster {
    /// Starts a cluster with these words for the launcher.
    pub fn start(words: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cassandra");
        let mut child = Command::new(script)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/cassandra runs");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let facts: serde_json::Value = serde_json::from_str(&line)
            .expect("nodes; `make test` fetches Cassandra by scripts/cassandra-env");
        let nodes = facts["nodes"].as_array().expect("nodes");
        let nodes = nodes.iter().map(|node| node.as_str().expect("an address").to_owned()).collect();
        Self { _child: child, pipes: Mutex::new((stdin, stdout)), nodes, facts }
    }

    /// Has the launcher do something.
    pub fn ask(&self, line: &str) {
        let mut pipes = self.pipes.lock().expect("one at a time");
        writeln!(pipes.0, "{line}").expect("the launcher listens");
        let mut answer = String::new();
        pipes.1.read_line(&mut answer).expect("an answer");
        assert!(!answer.contains("\"error\""), "{line}: {answer}");
    }
}
