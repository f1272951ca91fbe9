//! How fast `/v1/feed` of 100 symbols is, beside a Redis MGET of 100 values and the same JSON.
//!
//! `cargo run --release --example feed_speed` (with `redis-server` on the path)
//!
//! Both are asked over one connection, one request after the other. Redis holds the object of
//! each symbol as text; its client puts the values into the same answer. The node checks the key,
//! counts rates and metrics, and encodes each object anew.

#![expect(clippy::print_stdout, reason = "a program that prints its result")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "its input is its own")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret as _;
use tapeline::access::{Actor, KeyAsk, Scope};
use tapeline::config::Config;
use tapeline::ingest::{Options, Request, RequestName};
use tapeline::market::Nanos;
use tapeline::node::{Listeners, Node};
use tapeline::wire::Format;

const SYMBOLS: usize = 100;
const ROUNDS: u32 = 3_000;

fn symbols() -> Vec<String> {
    (0..SYMBOLS).map(|number| format!("SYM{number:03}")).collect()
}

fn now() -> Nanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Nanos(i64::try_from(since.as_nanos()).unwrap())
}

/// A node with a trade and a quote of each symbol; answers the headers that show its key.
async fn node(folder: &str) -> (Node, String) {
    let data = format!("node.data={folder}");
    let sets = [&*data, "http.listen=127.0.0.1:0", "http.admin_listen=127.0.0.1:0", RATE, BURST];
    let config = Arc::new(Config::with(&sets).unwrap());
    let listeners = Listeners::bind(&config).unwrap();
    let node = Node::start(config, listeners).await.unwrap();
    node.ready().await;
    let mut lines = String::new();
    for (number, symbol) in symbols().into_iter().enumerate() {
        let at = now();
        lines += &format!(
            "{{\"T\":\"t\",\"S\":\"{symbol}\",\"i\":{number},\"x\":\"V\",\"p\":181.47,\"s\":100,\"c\":[\"@\"],\"z\":\"C\",\"t\":\"{at}\"}}\n\
             {{\"T\":\"q\",\"S\":\"{symbol}\",\"ax\":\"V\",\"ap\":181.48,\"as\":3,\"bx\":\"Q\",\"bp\":181.46,\"bs\":2,\"c\":[\"R\"],\"z\":\"C\",\"t\":\"{at}\"}}\n"
        );
    }
    let (account, name) = ("bench".to_owned(), RequestName::Body);
    let options = Options::default();
    let request = Request { account, name, format: Format::NdJson, options, expected_bytes: 0 };
    let mut taking = node.intake().begin(request, now()).unwrap();
    taking.feed(lines.as_bytes()).unwrap();
    assert_eq!(taking.finish().await.unwrap().refused, 0);
    let ask = KeyAsk {
        label: String::new(),
        scopes: vec![Scope::MarketDataRead],
        account: None,
        requests_per_minute: None,
        expires: None,
    };
    let key = node.gate().keys.create(ask, &Actor::node(), now()).await.unwrap();
    let (id, secret) = (key.row.id, key.secret.expose_secret().to_owned());
    (node, format!("apca-api-key-id: {id}\r\napca-api-secret-key: {secret}\r\n"))
}

const RATE: &str = "access.requests_per_minute=10000000";
const BURST: &str = "access.requests_burst=10000000";

struct Http {
    stream: BufReader<TcpStream>,
    headers: String,
}

impl Http {
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let (headers, length) = (&self.headers, body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        body
    }
}

struct Redis {
    stream: BufReader<TcpStream>,
    _child: Killed,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = ["--port", &port.to_string(), "--save", "", "--appendonly", "no"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().unwrap();
        let child = Killed(child);
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_nodelay(true).unwrap();
                return Self { stream: BufReader::new(stream), _child: child };
            }
            std::thread::yield_now();
        }
    }

    fn send(&mut self, words: &[&str]) {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(command.as_bytes()).unwrap();
    }

    fn number(&mut self) -> usize {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line[1..].trim().parse().unwrap_or(0)
    }

    /// The same answer, put together from the values.
    fn feed(&mut self, words: &[&str]) -> Vec<u8> {
        self.send(words);
        let count = self.number();
        let mut out = format!("{{\"as_of\":\"{}\",\"symbols\":{{", now()).into_bytes();
        for at in 0..count {
            let length = self.number();
            out.extend_from_slice(
                format!("{}\"{}\":", if at > 0 { "," } else { "" }, words[at + 1]).as_bytes(),
            );
            let from = out.len();
            out.resize(from + length + 2, 0);
            self.stream.read_exact(&mut out[from..]).unwrap();
            out.truncate(from + length);
        }
        out.extend_from_slice(b"}}");
        out
    }
}

fn timed(mut once: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            once();
        }
        best = best.min(begun.elapsed().as_secs_f64() / f64::from(ROUNDS) * 1e6);
    }
    best
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = std::env::temp_dir().join(format!("tapeline-feed-speed-{}", std::process::id()));
    let (node, headers) = runtime.block_on(node(folder.to_str().unwrap()));
    let stream = TcpStream::connect(node.http()).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut http = Http { stream: BufReader::new(stream), headers };
    let list = symbols().iter().map(|symbol| format!("\"{symbol}\"")).collect::<Vec<_>>().join(",");
    let body = format!("{{\"symbols\":[{list}],\"kinds\":[\"trades\",\"quotes\"]}}");
    http.ask("POST", "/v1/subscriptions", &body);
    let feed = http.ask("GET", "/v1/feed", "");
    let json: serde_json::Value = serde_json::from_slice(&feed).unwrap();
    assert_eq!(json["symbols"].as_object().unwrap().len(), SYMBOLS);
    let mut redis = Redis::start();
    for (symbol, object) in json["symbols"].as_object().unwrap() {
        redis.send(&["SET", symbol, &object.to_string()]);
        redis.number();
    }
    let symbols = symbols();
    let words: Vec<&str> = std::iter::once("MGET").chain(symbols.iter().map(String::as_str)).collect();
    assert_eq!(redis.feed(&words).len(), feed.len());
    let ours = timed(|| assert!(!http.ask("GET", "/v1/feed", "").is_empty()));
    let theirs = timed(|| assert!(!redis.feed(&words).is_empty()));
    println!(
        "feed of {SYMBOLS} symbols, {} bytes: {ours:.0} µs; Redis MGET and JSON: {theirs:.0} µs; {:.2}x",
        feed.len(),
        theirs / ours
    );
    runtime.block_on(node.drain());
    let _ = std::fs::remove_dir_all(folder);
}
