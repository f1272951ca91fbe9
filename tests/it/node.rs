//! A real node as a child process, and a client of its public door.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

/// An API key as the node wrote it to its ready file.
#[derive(Clone, Debug, Default)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

/// `tapeline serve` in a folder of its own.
pub struct Node {
    pub folder: PathBuf,
    flags: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// A program, with its arguments, that starts the node.
    pub prefix: Vec<String>,
    child: Option<Child>,
    pub http: String,
    pub admin: String,
    pub read: Key,
    pub write: Key,
    pub client: reqwest::Client,
}

/// A client that goes straight to where it is sent.
pub fn client() -> reqwest::Client {
    // The process needs one TLS provider; whoever comes first installs it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client =
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(4).timeout(Duration::from_secs(60));
    client.build().expect("a client can be built")
}

/// The binary with a subcommand, and no key from the environment of the test.
pub fn tapeline(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
    command
        .arg(subcommand)
        .env_remove("TAPELINE_KEY_ID")
        .env_remove("TAPELINE_SECRET")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// An answer: status, headers, and the body as JSON.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub json: Value,
}

impl Answer {
    pub fn count(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("no count {field} in {}", self.json))
    }
}

impl Node {
    /// A node that has not been started yet.
    pub fn new(folder: &Path, flags: &[&str]) -> Self {
        Self {
            folder: folder.to_path_buf(),
            flags: flags.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            prefix: Vec::new(),
            child: None,
            http: String::new(),
            admin: String::new(),
            read: Key::default(),
            write: Key::default(),
            client: client(),
        }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        if let Err(problem) = self.try_start().await {
            panic!("the node did not start: {problem}");
        }
    }

    /// Starts it; answers what it printed where it ended instead.
    pub async fn try_start(&mut self) -> Result<(), String> {
        let ready = self.folder.join("ready.json");
        self.start_until(&ready).await
    }

    /// Starts it and waits until its doors are open, ready or not.
    pub async fn start_unready(&mut self) -> Result<(), String> {
        let node_file = self.folder.join("data/node.json");
        let _ = std::fs::remove_file(&node_file);
        self.start_until(&node_file).await
    }

    async fn start_until(&mut self, file: &Path) -> Result<(), String> {
        if !self.has_store() {
            crate::stack::prepare(&self.folder).await;
        }
        let ready = self.folder.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log_path = self.folder.join("node.log");
        let log = std::fs::File::options().create(true).append(true).open(&log_path).expect("log file");
        let mut child = self
            .command("serve")
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.flags)
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut waited = 0;
        let facts = loop {
            if let Some(facts) =
                std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
            {
                break facts;
            }
            if child.try_wait().expect("a child").is_some() || waited > 6000 {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(log
                    .lines()
                    .rev()
                    .take(40)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                    .join("\n"));
            }
            waited += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.http = facts["http"].as_str().expect("http address").to_owned();
        self.admin = facts["admin"].as_str().expect("admin address").to_owned();
        let key = |name: &str| -> Option<Key> {
            let key = facts["keys"].get(name)?;
            Some(Key { id: key["id"].as_str()?.to_owned(), secret: key["secret"].as_str()?.to_owned() })
        };
        if let (Some(read), Some(write)) = (key("read"), key("write")) {
            (self.read, self.write) = (read, write);
        }
        self.child = Some(child);
        Ok(())
    }

    /// A subcommand on the node's data folder.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = match self.prefix.split_first() {
            None => tapeline(subcommand),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .arg(env!("CARGO_BIN_EXE_tapeline"))
                    .arg(subcommand)
                    .kill_on_drop(true);
                command
            }
        };
        command.arg("--data").arg(self.folder.join("data"));
        if !self.has_store() {
            command.envs(crate::stack::environment(&self.folder));
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Its environment says where it stores.
    fn has_store(&self) -> bool {
        self.environment.iter().any(|(key, _)| key == "TAPELINE__STORE__BACKEND")
    }

    /// What the node has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the node can be killed");
        }
    }

    /// kill -9 while others still use the node; `kill` then reaps it.
    pub fn kill_now(&self) {
        if let Some(pid) = self.pid() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                .expect("the node can be killed");
        }
    }

    /// The token of this boot, from the node file.
    pub fn admin_token(&self) -> String {
        let file = std::fs::read(self.folder.join("data/node.json")).expect("the node file");
        let file: Value = serde_json::from_slice(&file).expect("JSON");
        file["admin_token"].as_str().expect("a token").to_owned()
    }

    /// The node's process id, where it runs.
    pub fn pid(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(i32::try_from(self.child.as_ref()?.id()?).ok()?)
    }

    /// SIGTERM, and waits for the end; answers the exit status.
    pub async fn stop(&mut self) -> Option<i32> {
        let pid = self.pid()?;
        let mut child = self.child.take()?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .expect("the node can be told to stop");
        child.wait().await.expect("the node ends").code()
    }

    /// A metric, with its labels where it has any; none where it has no value yet.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.client.get(format!("{}/metrics", self.admin)).send().await.expect("metrics");
        let text = text.text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(value.parse().expect("a number"))
    }

    /// How far the node follows each tape, and how far the history of each region is.
    pub async fn status(&self) -> Value {
        let request = self.client.get(format!("{}/v1/status", self.admin));
        let got = answer(request.bearer_auth(self.admin_token())).await;
        assert_eq!(got.status, 200, "{}", got.json);
        got.json
    }

    /// A GET with the reading key.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.http));
        answer(
            request.header("APCA-API-KEY-ID", &self.read.id).header("APCA-API-SECRET-KEY", &self.read.secret),
        )
        .await
    }

    /// A POST of ticks with the writing key, ready to get more headers.
    pub fn post(
        &self,
        query: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/v1/ticks{query}", self.http))
            .header("APCA-API-KEY-ID", &self.write.id)
            .header("APCA-API-SECRET-KEY", &self.write.secret)
            .header("Content-Type", content_type)
            .body(body)
    }

    /// Posts ticks as one JSON array.
    pub async fn post_ticks(&self, ticks: &[Value], query: &str, key: Option<&str>) -> Answer {
        let mut request = self.post(query, "application/json", serde_json::to_vec(ticks).expect("JSON"));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        answer(request).await
    }

    /// All ticks of a kind of a symbol, page by page.
    pub async fn history(&self, kind: &str, symbol: &str, more: &str) -> Vec<Value> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = self
                .get(&format!("/v2/stocks/{kind}?symbols={symbol}&limit=10000&start=1970-01-02{more}{token}"))
                .await;
            assert_eq!(page.status, 200, "{}", page.json);
            all.extend(page.json[kind][symbol].as_array().cloned().unwrap_or_default());
            match page.json["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return all,
            }
        }
    }
}

/// Sends a request and reads the answer as JSON; a connection that breaks is status 0.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            return Answer {
                status: 0,
                headers: reqwest::header::HeaderMap::default(),
                json: Value::String(format!("{error:?}")),
            };
        }
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    match response.bytes().await {
        Ok(body) => {
            let json = serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
            Answer { status, headers, json }
        }
        Err(error) => Answer { status: 0, headers, json: Value::String(format!("{error:?}")) },
    }
}

/// A trade with an exchange's number.
pub fn trade(symbol: &str, id: u64, nanos: i64) -> Value {
    let time = tapeline::market::Nanos(nanos).to_string();
    let price: f64 = format!("{}.{:02}", 100 + id % 1000 / 100, id % 100).parse().expect("a price");
    serde_json::json!({"T": "t", "S": symbol, "i": id, "x": "V", "p": price, "s": 1 + id % 500, "c": ["@"], "z": "C", "t": time})
}

/// A quote, which has no number of the exchange: its request and index are its identity.
pub fn quote(symbol: &str, size: u64, nanos: i64) -> Value {
    let time = tapeline::market::Nanos(nanos).to_string();
    serde_json::json!({"T": "q", "S": symbol, "ax": "Q", "ap": 10.02, "as": size, "bx": "Q", "bp": 10.01, "bs": 100, "c": ["R"], "z": "C", "t": time})
}
