//! What every request passes, tried on routes of the tests' own.

mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::auth::{Producer, Subscriber};
use super::layers::{Door, guarded};
use super::*;
use crate::access::testing::{keys_over, moved_clock, tickets_over};
use crate::access::{Actor, KeyAsk, NewKey, Scope};
use crate::store::memory::MemoryStore;
use crate::telemetry::Status;

const NOW: Nanos = Nanos(1_704_292_200_000_000_000);
const TOKEN: &str = "token-of-this-boot";

struct World {
    gate: Arc<Gate>,
    now_ms: Arc<AtomicU64>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

async fn world(sets: &[&str]) -> World {
    let (now_ms, mono) = moved_clock();
    let records = Arc::new(MemoryStore::default());
    let (keys, audit) = keys_over(&records, sets, mono.clone()).await;
    let tickets = tickets_over(&records, &keys, sets);
    let gate = Gate::new(GateParts {
        config: Arc::new(Config::with(sets).unwrap()),
        metrics: Arc::new(Metrics::new().unwrap()),
        health: Arc::new(Health::starting(&["store"])),
        keys,
        tickets,
        audit,
        clock: Arc::new(|| NOW),
        mono,
        admin_token: TOKEN.into(),
    });
    World { gate: Arc::new(gate), now_ms }
}

impl World {
    async fn key(&self, scopes: &[Scope]) -> NewKey {
        let ask = KeyAsk {
            label: String::new(),
            scopes: scopes.to_vec(),
            account: None,
            requests_per_minute: None,
            expires: None,
        };
        self.gate.keys.create(ask, &Actor::node(), NOW).await.unwrap()
    }

    fn routes() -> Router {
        Router::new()
            .route("/v2/read", get(async |_: Subscriber| "ok"))
            .route("/v1/read", get(async |_: Subscriber| "ok"))
            .route("/v1/write", post(async |_: Producer| "ok"))
            .route("/open/{name}", get(async || axum::Json(json!({"ok": "x".repeat(100)}))))
            .route("/number/{number}", get(async |_: Path<u32>| "ok"))
            .route("/plain", get(async || (StatusCode::IM_A_TEAPOT, "short and stout")))
            .route("/panic", get(async || -> &'static str { panic!("out of luck") }))
            .route("/slow", post(async || std::future::pending::<&'static str>().await))
            .route("/body", post(body))
    }

    async fn public(&self, request: Request) -> Answer {
        Self::ask(guarded(Self::routes(), Arc::clone(&self.gate), Door::Public), request).await
    }

    async fn admin(&self, method: &str, path: &str, bearer: &str, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Self::ask(admin_router(Arc::clone(&self.gate), Router::new()), request).await
    }

    async fn ask(router: Router, request: Request) -> Answer {
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

async fn body(body: Body) -> ApiResult<&'static str> {
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(_) => Ok("ok"),
        Err(error) => Err(limits::body_error(&error)),
    }
}

fn ask(method: &str, path: &str) -> Request {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

fn with_key(mut request: Request, key: &NewKey) -> Request {
    let headers = request.headers_mut();
    headers.insert("apca-api-key-id", key.row.id.parse().unwrap());
    headers.insert("apca-api-secret-key", key.secret.expose_secret().parse().unwrap());
    request
}

fn from(mut request: Request, address: &str) -> Request {
    let address: SocketAddr = address.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(address));
    request
}

#[tokio::test]
async fn every_failure_is_the_one_envelope() {
    let world = world(&[]).await;
    let cases = [
        ("GET", "/nothing", 404, "there is no /nothing"),
        ("GET", "/v2/nothing", 404, "there is no /v2/nothing"),
        ("DELETE", "/v1/read", 405, "DELETE is not offered for /v1/read"),
        ("GET", "/number/x", 400, "Cannot parse"),
        ("GET", "/plain", 418, "short and stout"),
        ("GET", "/panic", 500, "internal error; the log of the node has the details"),
        ("GET", "/v1/read", 401, "a valid key is needed"),
        ("GET", "/v2/read", 403, "forbidden."),
    ];
    for (method, path, status, message) in cases {
        let answer = world.public(ask(method, path)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let json = answer.json();
        assert_eq!(json["code"].as_u64().unwrap() / 100_000, u64::from(status), "{path}");
        let text = json["message"].as_str().unwrap();
        assert!(text.contains(message) && !text.contains("luck"), "{path}: {text}");
        assert_eq!(answer.header("retry-after"), None, "{path}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{path}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET,HEAD"), "{path}");
    }
    assert_eq!(world.gate.metrics.http_panics.get(), 1);
}

#[tokio::test]
async fn every_answer_has_its_headers() {
    let world = world(&["http.source_requests_per_minute=600"]).await;
    let key = world.key(&[Scope::MarketDataRead]).await;
    let requests = [
        (ask("GET", "/open/x"), "600", "599"),
        (ask("GET", "/nothing"), "600", "598"),
        (with_key(ask("GET", "/v1/read"), &key), "10000", "9999"),
        (with_key(ask("GET", "/nothing"), &key), "10000", "9998"),
        (with_key(ask("POST", "/v1/write"), &key), "10000", "9997"),
    ];
    for (request, limit, remaining) in requests {
        let answer = world.public(request).await;
        for name in ["x-request-id", "x-content-type-options", "referrer-policy"] {
            assert!(answer.header(name).is_some_and(|value| !value.is_empty()), "{name}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-ratelimit-limit"), Some(limit));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(remaining));
        let reset: i64 = answer.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!(reset > NOW.0 / 1_000_000_000 && reset < NOW.0 / 1_000_000_000 + 60, "{reset}");
    }
    let mut request = ask("GET", "/open/x");
    request.headers_mut().insert("x-request-id", "my-own.id_1".parse().unwrap());
    assert_eq!(world.public(request).await.header("x-request-id"), Some("my-own.id_1"));
    let mut request = ask("GET", "/open/x");
    request.headers_mut().insert("x-request-id", "no id {}".parse().unwrap());
    let made = world.public(request).await.header("x-request-id").unwrap().to_owned();
    assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let world = world(&[]).await;
    let reader = world.key(&[Scope::MarketDataRead]).await;
    let writer = world.key(&[Scope::TicksWrite]).await;
    let cases = [
        (&reader, "GET", "/v1/read", 200),
        (&reader, "GET", "/v2/read", 200),
        (&reader, "POST", "/v1/write", 403),
        (&writer, "POST", "/v1/write", 200),
        (&writer, "GET", "/v2/read", 403),
    ];
    for (key, method, path, status) in cases {
        let answer = world.public(with_key(ask(method, path), key)).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        if status == 403 {
            assert_eq!(answer.json()["reason"], "scope");
        }
    }
    world.gate.keys.revoke(&reader.row.id, &Actor::node(), NOW).await.unwrap();
    for (path, status) in [("/v1/read", 401), ("/v2/read", 403), ("/open/x", 401)] {
        let answer = world.public(with_key(ask("GET", path), &reader)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn a_key_and_an_address_have_their_rates() {
    let sets =
        ["access.requests_per_minute=60", "access.requests_burst=2", "http.source_requests_per_minute=3"];
    let world = world(&sets).await;
    let key = world.key(&[Scope::MarketDataRead]).await;
    for status in [200, 200, 429] {
        let answer = world.public(from(with_key(ask("GET", "/v2/read"), &key), "192.0.2.1:1")).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("retry-after"), (status == 429).then_some("1"));
        assert_eq!(answer.header("x-ratelimit-limit"), Some("60"));
        if status == 429 {
            assert_eq!(answer.json()["message"], "too many requests.");
            assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
        }
    }
    // The address has used its three, whatever key comes; another address has not.
    let answer = world.public(from(ask("GET", "/open/x"), "192.0.2.1:2")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("20")));
    assert_eq!(world.public(from(ask("GET", "/open/x"), "192.0.2.2:1")).await.status.as_u16(), 200);
    world.now_ms.fetch_add(20_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.public(from(ask("GET", "/open/x"), "192.0.2.1:3")).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn time_and_number_of_requests_are_bounded() {
    let world = world(&["http.requests_in_flight_max=1"]).await;
    let mut slow = Box::pin(world.public(ask("POST", "/slow")));
    assert!(futures::poll!(&mut slow).is_pending());
    let refused = world.public(ask("GET", "/open/x")).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["reason"], "overloaded");
    let slow = slow.await;
    assert_eq!(slow.status.as_u16(), 504);
    assert_eq!(slow.json()["outcome"], "unknown", "it may have been done");
    assert_eq!(world.public(ask("GET", "/open/x")).await.status.as_u16(), 200, "its place is free");
    assert_eq!(world.gate.metrics.http_in_flight.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_has_its_time_and_its_size() {
    let world = world(&["http.body_bytes_max=2000", "http.body_decompressed_bytes_max=2000"]).await;
    // A byte each second: the deadline counts from the first, not from the last.
    let drops = futures::stream::unfold((), async |()| {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
    });
    let request = Request::post("/body").body(Body::from_stream(drops)).unwrap();
    let answer = world.public(request).await;
    assert_eq!(answer.status.as_u16(), 408, "{:?}", answer.body);
    assert_eq!(answer.json()["reason"], "body_time");
    let request = Request::post("/body").header("content-length", "2001").body(Body::empty()).unwrap();
    let answer = world.public(request).await;
    assert_eq!(answer.status.as_u16(), 413);
    assert!(answer.json()["message"].as_str().unwrap().contains("2000 bytes"));
    let broken = futures::stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("cut"))]);
    let request = Request::post("/body").body(Body::from_stream(broken)).unwrap();
    assert_eq!(world.public(request).await.json()["reason"], "body_cut");
}

#[tokio::test]
async fn the_admin_door_is_open_to_whoever_can_read_the_node_file_and_to_admin_keys() {
    let world = world(&[]).await;
    let reader = world.key(&[Scope::MarketDataRead]).await;
    let admin = world.key(&[Scope::Admin]).await;
    let bearer = |key: &NewKey| format!("{}.{}", key.row.id, key.secret.expose_secret());
    for (token, status) in [
        (String::new(), 401),
        ("wrong".to_owned(), 401),
        (format!("{}.wrong", admin.row.id), 401),
        (bearer(&reader), 403),
        (bearer(&admin), 200),
        (TOKEN.to_owned(), 200),
    ] {
        let answer = world.admin("GET", "/admin/keys", &token, "").await;
        assert_eq!(answer.status.as_u16(), status, "{token}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{:?}", answer.body);
    }
    assert_eq!(world.admin("GET", "/livez", "", "").await.json()["status"], "ok");
    let metrics = world.admin("GET", "/metrics", "", "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = "tapeline_http_requests_total{method=\"GET\",route=\"/admin/keys\",status=\"401\"} 3";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn readiness_says_why_not() {
    let world = world(&[]).await;
    let starting = world.admin("GET", "/readyz", "", "").await;
    assert_eq!((starting.status.as_u16(), starting.header("retry-after")), (503, Some("1")));
    assert_eq!(
        starting.json()["checks"][0],
        json!({"name": "store", "status": "fail", "reason": "starting"})
    );
    world.gate.health.set("store", Status::Warn, "4 % of the disk free");
    let ready = world.admin("GET", "/readyz", "", "").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (200, &json!("ready")));
    assert_eq!(ready.json()["checks"][0]["reason"], "4 % of the disk free");
}

#[tokio::test]
async fn keys_are_made_rotated_and_revoked_through_the_admin_door() {
    let world = world(&[]).await;
    let body = r#"{"label": "feed", "scopes": ["ticks:write"]}"#;
    let made = world.admin("POST", "/admin/keys", TOKEN, body).await;
    assert_eq!(made.status.as_u16(), 201, "{:?}", made.body);
    let made = made.json();
    let path = format!("/admin/keys/{}", made["id"].as_str().unwrap());
    let rotated = world.admin("POST", &format!("{path}/rotate"), TOKEN, r#"{"grace_ms": 1000}"#).await.json();
    assert_eq!(rotated["account"], made["account"]);
    assert_ne!(rotated["secret"], made["secret"]);
    let revoked = world.admin("DELETE", &path, TOKEN, "").await.json();
    assert!(revoked["revoked"].is_string() && revoked["secret"].is_null(), "{revoked}");
    let entries = world.admin("GET", "/admin/audit?day=2024-01-03", TOKEN, "").await.json();
    let actions: Vec<&str> =
        entries["entries"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["key.create", "key.create", "key.expire", "key.revoke"]);
    assert_eq!(entries["entries"][0]["who"], "operator");
    for (method, path, body, status, field) in [
        ("POST", "/admin/keys", r#"{"scopes": ["root"]}"#, 400, "scopes"),
        ("POST", "/admin/keys", r#"{"scopes": []}"#, 400, "scopes"),
        ("POST", "/admin/keys", r#"{"scopes": ["admin"], "expires": "soon"}"#, 400, "expires"),
        ("POST", "/admin/keys", "{", 400, ""),
        ("POST", "/admin/keys", r#"{"scope": ["admin"]}"#, 400, ""),
        ("DELETE", "/admin/keys/TLNONE", "", 404, ""),
        ("GET", "/admin/audit?day=today", "", 400, "day"),
        ("GET", "/admin/audit?dag=2024-01-03", "", 400, "dag"),
        ("GET", "/admin/nothing", "", 404, ""),
    ] {
        let answer = world.admin(method, path, TOKEN, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {:?}", answer.body);
        assert_eq!(answer.json()["field"].as_str().unwrap_or_default(), field, "{path} {body}");
    }
}

#[tokio::test]
async fn answers_are_compressed_where_it_pays() {
    let world = world(&["http.compress_bytes_min=100"]).await;
    let mut request = ask("GET", "/open/x");
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let answer = world.public(request).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(world.public(ask("GET", "/open/x")).await.header("content-encoding"), None);
}

#[derive(Clone, Default)]
struct Memory(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_log_line_names_the_request_and_never_a_secret() {
    let memory = Memory::default();
    let writer = memory.clone();
    let config = Config::with(&["telemetry.log_format=json", "telemetry.log_level=trace"]).unwrap();
    let subscriber = crate::telemetry::logs::subscriber(&config.telemetry, move || writer.clone()).unwrap();
    let _logs = tracing::subscriber::set_default(subscriber);
    // Where there is one subscriber alone, a place that another test's thread reaches first is silent.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let world = world(&[]).await;
    let key = world.key(&[Scope::MarketDataRead]).await;
    let secret = key.secret.expose_secret().to_owned();
    world.public(with_key(ask("GET", "/open/some-name"), &key)).await;
    world.public(with_key(ask("GET", "/panic"), &key)).await;
    for value in [format!("Bearer {}.{secret}", key.row.id), format!("Bearer {secret}"), secret.clone()] {
        let mut request = ask("GET", "/v1/read");
        request.headers_mut().insert("authorization", value.parse().unwrap());
        world.public(request).await;
    }
    world.admin("POST", "/admin/keys", TOKEN, r#"{"scopes": ["admin"]}"#).await;
    let text = String::from_utf8(memory.0.lock().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("/open/{name}")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["message"], &line["status"]), (&json!("request"), &json!(200)));
    assert_eq!((&line["method"], &line["key_id"]), (&json!("GET"), &json!(key.row.id)));
    assert!(line["duration_ms"].is_number() && line["request_id"].is_string(), "{line}");
    assert!(text.contains("a handler panicked: out of luck"), "{text}");
    assert!(!text.contains(&secret) && !text.contains(TOKEN), "{text}");
}

#[tokio::test]
async fn a_ticket_is_given_for_a_key_and_a_cookie_where_it_is_asked_for() {
    for (sets, secure) in [(&[][..], false), (&["http.tls_cert=c", "http.tls_key=k"], true)] {
        let world = world(sets).await;
        let reader = world.key(&[Scope::MarketDataRead]).await;
        let routes = ticket::routes(Arc::clone(&world.gate))
            .route("/udf/config", get(async |_: Subscriber| "chart").post(async |_: Subscriber| "changed"));
        let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::from(body.to_owned())).unwrap();
            let router = guarded(routes.clone(), Arc::clone(&world.gate), Door::Public);
            let response = router.oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            Answer { status: parts.status, headers: parts.headers, body }
        };
        let bearer = format!("Bearer {}.{}", reader.row.id, reader.secret.expose_secret());
        let key = [("authorization", bearer.as_str())];
        let plain = send("POST", "/v1/stream/ticket", &key, "").await;
        assert_eq!((plain.status, plain.header("set-cookie")), (StatusCode::OK, None));
        openapi::testing::assert_documented("post", "/v1/stream/ticket", 200, &plain.json());
        let ticket = plain.json()["ticket"].as_str().unwrap().to_owned();
        assert!(world.gate.tickets.redeem(&ticket, NOW).await.is_ok());
        assert!(world.gate.tickets.redeem(&ticket, NOW).await.is_err());
        let with_cookie = send("POST", "/v1/stream/ticket", &key, r#"{"cookie":true}"#).await;
        let set = with_cookie.header("set-cookie").unwrap();
        let (cookie, how) = set.split_once("; ").unwrap();
        assert!(how.starts_with("Path=/udf; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
        assert_eq!(how.ends_with("; Secure"), secure, "{set}");
        let chart = send("GET", "/udf/config", &[("cookie", cookie)], "").await;
        assert_eq!((chart.status, &chart.body[..]), (StatusCode::OK, &b"chart"[..]));
        assert_eq!(
            chart.header("x-ratelimit-limit"),
            plain.header("x-ratelimit-limit"),
            "the rate of the key"
        );
        for (method, path) in [("POST", "/udf/config"), ("POST", "/v1/stream/ticket")] {
            assert_eq!(send(method, path, &[("cookie", cookie)], "").await.status, StatusCode::UNAUTHORIZED);
        }
        let forged = send("GET", "/udf/config", &[("cookie", "tapeline_udf=u1.AAAA")], "").await;
        assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
        let wrong = send("POST", "/v1/stream/ticket", &key, r#"{"cookies":true}"#).await;
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
        openapi::testing::assert_documented("post", "/v1/stream/ticket", 400, &wrong.json());
        let nobody = send("POST", "/v1/stream/ticket", &[], "").await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_and_no_others() {
    let world = world(&["http.cors_origins=https://charts.example"]).await;
    let reader = world.key(&[Scope::MarketDataRead]).await;
    let bearer = format!("Bearer {}.{}", reader.row.id, reader.secret.expose_secret());
    let send = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/v2/read");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router = guarded(World::routes(), Arc::clone(&world.gate), Door::Public);
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        Answer { status: response.status(), headers: response.headers().clone(), body: Bytes::new() }
    };
    let asks = ("access-control-request-method", "GET");
    let asked = send("OPTIONS", &[("origin", "https://charts.example"), asks]).await;
    assert_eq!(asked.status, StatusCode::OK, "without a key: browsers send none");
    assert_eq!(asked.header("access-control-allow-origin"), Some("https://charts.example"));
    assert_eq!(asked.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(asked.header("access-control-max-age"), Some("600"));
    assert!(asked.header("access-control-allow-headers").unwrap().contains("apca-api-key-id"));
    assert!(asked.header("x-request-id").is_some());
    let read = send("GET", &[("origin", "https://charts.example"), ("authorization", &bearer)]).await;
    assert_eq!(
        (read.status, read.header("access-control-allow-credentials")),
        (StatusCode::OK, Some("true"))
    );
    assert!(read.header("access-control-expose-headers").unwrap().contains("x-ratelimit-remaining"));
    let denied = send("GET", &[("origin", "https://charts.example")]).await;
    assert_eq!(denied.header("access-control-allow-origin"), Some("https://charts.example"), "errors too");
    for other in ["https://evil.example", "null"] {
        for (method, more) in [("OPTIONS", asks), ("GET", ("authorization", bearer.as_str()))] {
            let answer = send(method, &[("origin", other), more]).await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{method} {other}");
        }
    }
}
