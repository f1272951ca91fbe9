//! The doors behind real sockets: clients that do not read, that stay, that send too much.

use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// More than any socket holds.
const LARGE_BYTES: usize = 64 << 20;
const REQUEST: &str = "GET /large HTTP/1.1\r\nhost: x\r\n\r\n";

struct Door {
    address: SocketAddr,
    metrics: Arc<Metrics>,
}

/// The routes behind everything that guards them, on a port of their own.
async fn door(sets: &[&str]) -> Door {
    let gate = world(sets).await.gate;
    let (config, metrics) = (gate.config.http.clone(), Arc::clone(&gate.metrics));
    let large = Bytes::from(vec![b'x'; LARGE_BYTES]);
    let routes = Router::new()
        .route("/large", get(move || std::future::ready(large.clone())))
        .route("/small", get(async || "ok"));
    let router = guarded(routes, gate, super::Door::Public);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counted = Arc::clone(&metrics);
    tokio::spawn(async move {
        server::serve(listener, router, &config, counted, axum_server::Handle::new(), None).await
    });
    Door { address, metrics }
}

impl Door {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back until the connection is closed.
    async fn exchange(&self, sent: &str) -> String {
        let mut stream = self.connect().await;
        // What is refused before it was sent to the end may be cut off.
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    fn closed(&self, reason: &str) -> u64 {
        self.metrics.http_connections_closed.with_label_values(&[reason]).get()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), waited).await.is_ok(), "never: {what}");
    }
}

/// An HTTP/2 client that gives its streams this window and answers pings.
async fn http2(door: &Door, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = door.connect().await;
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn http2_request(path: &str) -> axum::http::Request<()> {
    Request::get(format!("http://x{path}")).body(()).unwrap()
}

#[tokio::test]
async fn an_answer_that_is_not_read_stays_in_flight() {
    let door = door(&["http.requests_in_flight_max=1"]).await;
    let mut stalled = door.connect().await;
    stalled.write_all(REQUEST.as_bytes()).await.unwrap();
    stalled.read_exact(&mut [0; 12]).await.unwrap();
    let refused = door.exchange("GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    drop(stalled);
    door.until("its place is given back", |door| door.metrics.http_in_flight.get() == 0).await;
    let mut client = http2(&door, 0).await;
    let (answer, _) = client.send_request(http2_request("/small"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let refused = door.exchange("GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_closed_and_counted() {
    let door = door(&["http.write_stall_ms=100"]).await;
    let mut stalled = door.connect().await;
    stalled.write_all(REQUEST.as_bytes()).await.unwrap();
    door.until("the socket is closed", |door| door.closed("write_stall") == 1).await;
    let mut client = http2(&door, 0).await;
    let (answer, _) = client.send_request(http2_request("/small"), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert!(body.data().await.is_none_or(|piece| piece.is_err()), "its stream has no window");
    door.until("the other too", |door| door.closed("write_stall") == 2).await;
    door.until("both are gone", |door| {
        (door.metrics.http_connections.get(), door.metrics.http_in_flight.get()) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn a_large_answer_is_served_to_the_end() {
    let door = door(&[]).await;
    let mut reader = door.connect().await;
    reader.write_all(REQUEST.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 8 << 20];
    while let Ok(count @ 1..) = reader.read(&mut piece).await {
        bytes.extend_from_slice(&piece[..count]);
        tokio::task::yield_now().await;
    }
    assert!(bytes.len() > LARGE_BYTES, "{}", bytes.len());
    assert_eq!(door.closed("write_stall"), 0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let door = door(&["http.header_read_ms=100"]).await;
    let mut client = http2(&door, 65_535).await;
    let (answer, _) = client.send_request(http2_request("/small"), true).unwrap();
    assert_eq!(answer.await.unwrap().into_body().data().await.unwrap().unwrap(), "ok");
    door.until("it is closed", |door| door.metrics.http_connections.get() == 0).await;
    assert_eq!((door.closed("idle"), door.closed("write_stall")), (1, 0));
}

#[tokio::test]
async fn a_long_uri_and_large_headers_are_refused_in_the_envelope() {
    let sets = ["http.uri_bytes_max=2000", "http.header_bytes_max=8192", "http.headers_max=16"];
    let door = door(&sets).await;
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n")
    };
    let long = |bytes: usize| format!("/small?{}", "s".repeat(bytes));
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    let large = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    // Each limit of ours, and far beyond it, where the protocol layer answers first.
    let cases = [
        (get("/small", ""), 200, "", true),
        (get(&long(2_000), ""), 414, "uri_bytes", true),
        (get(&long(60_000), ""), 414, "uri_bytes", true),
        (get(&long(70_000), ""), 414, "uri_bytes", false),
        (get("/small", &many(20)), 431, "headers", true),
        (get("/small", &many(200)), 431, "header_bytes", false),
        (get("/small", &large(9_000)), 431, "header_bytes", true),
        (get("/small", &large(300_000)), 431, "header_bytes", false),
        ("no HTTP\r\n\r\n".to_owned(), 400, "no_http", false),
    ];
    for (sent, status, reason, is_ours) in cases {
        let answer = door.exchange(&sent).await;
        let begin = &sent[..sent.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{begin}: {answer}");
        assert!(answer.contains("\r\nx-request-id: "), "{begin}: {answer}");
        assert_eq!(answer.contains("\r\nx-ratelimit-limit: "), is_ours, "{begin}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        if status != 200 {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (&body["reason"], &body["code"]),
                (&json!(reason), &json!(status * 100_000)),
                "{begin}"
            );
        }
    }
}
