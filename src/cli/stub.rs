//! A node that answers as a test tells it, for the tests of the clients.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Client;
use super::client::Connection;

/// A request as it came.
pub(super) struct Request {
    pub(super) line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A header by its lower-case name.
    pub(super) fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The body, decompressed.
    pub(super) fn text(&self) -> String {
        let bytes = if self.header("content-encoding") == "zstd" {
            zstd::decode_all(self.body.as_slice()).unwrap()
        } else {
            self.body.clone()
        };
        String::from_utf8(bytes).unwrap()
    }
}

/// An answer; without bytes the connection is cut.
pub(super) struct Reply {
    head: String,
    body: Vec<u8>,
    cut: bool,
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Self {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        Self { head, body: body.into(), cut: false }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn cut() -> Self {
        Self { head: String::new(), body: Vec::new(), cut: true }
    }
}

/// The node.
pub(super) struct Stub {
    url: String,
}

type Answerer = Arc<Mutex<dyn FnMut(&Request) -> Reply + Send>>;

impl Stub {
    /// Starts it on a free port; it lives as long as the test's runtime.
    pub(super) async fn start(answer: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Answerer = Arc::new(Mutex::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer)));
            }
        });
        Self { url }
    }

    /// The address and a key.
    pub(super) fn client(&self) -> Client {
        // Another test may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Client { url: self.url.clone(), key_id: "id".to_owned(), secret: "secret".into(), ca: None }
    }

    /// The address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// A connection that hurries.
    pub(super) fn connection(&self) -> Connection {
        Connection::new(self.client(), 60).unwrap().hurried()
    }
}

async fn serve(mut stream: TcpStream, answer: Answerer) {
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes).await {
        // A failed assertion in the test's answer cuts the connection and poisons the lock.
        let reply = (answer.lock().unwrap())(&request);
        if reply.cut {
            return;
        }
        let head = format!("{}\r\n", reply.head);
        if stream.write_all(&[head.as_bytes(), &reply.body].concat()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut lines = head.lines();
            let line = lines.next().unwrap().to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                bytes.drain(..end + 4 + length);
                return Some(Request { line, headers, body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
