//! A client of the stream over WebSocket, in Alpaca's protocol with what this service adds.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::node::{Key, Node};

/// What is waited for comes by then, or never.
const NEVER: Duration = Duration::from_secs(60);
/// Of a client that stalls: segments and a window so small that the system holds little for it.
const NARROW_SEGMENT: u32 = 1_400;
const NARROW_WINDOW: u32 = 8 * 1024;

/// Where a node is, for clients that outlive its process.
#[derive(Clone)]
pub struct Door {
    address: String,
    key: Key,
}

impl Door {
    pub fn of(node: &Node) -> Self {
        let address = node.http.strip_prefix("http://").expect("plain HTTP").to_owned();
        Self { address, key: node.read.clone() }
    }
}

/// How a connection is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// As the system makes them.
    Wide,
    /// One that is soon full.
    Narrow,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "T")]
    kind: &'a str,
    i: Option<u64>,
    #[serde(rename = "as")]
    size: Option<u64>,
    v: Option<u64>,
    cursor: Option<String>,
    code: Option<u64>,
}

/// One connection, and all that came of it.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    /// The numbers of the ticks, in the order they came.
    pub ids: Vec<u64>,
    /// The shares of the bars.
    pub bars: Vec<u64>,
    /// The last cursor.
    pub cursor: Option<String>,
    pub errors: Vec<u64>,
    pub gaps: usize,
    pub acks: usize,
    /// The connection is over: with the node's code, or 0 where it was cut.
    pub closed: Option<u16>,
}

impl Client {
    /// Connects and subscribes; answers once that is acknowledged.
    pub async fn subscribe(door: &Door, pipe: Pipe, query: &str, channels: &Value) -> Self {
        let mut client = Self::connect(door, pipe, query).await;
        let mut asked = channels.clone();
        asked["action"] = "subscribe".into();
        let asked = Message::Text(asked.to_string().into());
        futures::SinkExt::send(&mut client.socket, asked).await.expect("a subscription");
        client.until("the acknowledgement", |client| client.acks == 1).await;
        client
    }

    /// Connects, and asks for nothing yet.
    pub async fn connect(door: &Door, pipe: Pipe, query: &str) -> Self {
        let tcp = TcpSocket::new_v4().expect("a socket");
        if pipe == Pipe::Narrow {
            tcp.set_recv_buffer_size(NARROW_WINDOW).expect("a small window");
            SockRef::from(&tcp).set_tcp_mss(NARROW_SEGMENT).expect("small segments");
        }
        let tcp = tcp.connect(door.address.parse().expect("an address")).await.expect("a connection");
        let mut request =
            format!("ws://{}/v2/sip{query}", door.address).into_client_request().expect("a request");
        let headers = request.headers_mut();
        headers.insert("APCA-API-KEY-ID", door.key.id.parse().expect("a header"));
        headers.insert("APCA-API-SECRET-KEY", door.key.secret.parse().expect("a header"));
        let (socket, _) = tokio_tungstenite::client_async(request, tcp).await.expect("a stream");
        Self {
            socket,
            ids: Vec::new(),
            bars: Vec::new(),
            cursor: None,
            errors: Vec::new(),
            gaps: 0,
            acks: 0,
            closed: None,
        }
    }

    /// Reads until this holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let facts = (self.ids.len(), &self.errors, self.closed);
            assert!(self.closed.is_none(), "the stream ended before {what}: {facts:?}");
            self.hear(what).await;
        }
    }

    /// Reads until the connection is over.
    pub async fn until_closed(&mut self) {
        while self.closed.is_none() {
            self.hear("the end").await;
        }
    }

    /// Reads the next message.
    pub async fn next(&mut self) {
        self.hear("the next message").await;
    }

    async fn hear(&mut self, what: &str) {
        let heard = tokio::time::timeout(NEVER, self.socket.next()).await;
        match heard.unwrap_or_else(|_| panic!("never: {what}, after {} ticks", self.ids.len())) {
            Some(Ok(Message::Text(text))) => self.take(&text),
            Some(Ok(Message::Close(frame))) => {
                self.closed = Some(frame.map_or(0, |CloseFrame { code, .. }| code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.closed = Some(0),
        }
    }

    fn take(&mut self, text: &Utf8Bytes) {
        let said: Vec<Said<'_>> = serde_json::from_str(text).expect("an array of messages");
        for said in said {
            match said.kind {
                "t" => self.ids.extend(said.i),
                "b" => self.bars.extend(said.v),
                "q" => self.ids.extend(said.size),
                "hb" => self.cursor = said.cursor.or(self.cursor.take()),
                "error" => self.errors.extend(said.code),
                "gap" => self.gaps += 1,
                "subscription" => self.acks += 1,
                _ => {}
            }
        }
    }
}
