//! The door: what it reads from a request, and how it answers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::body::to_bytes;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::IntoResponse as _;
use futures::stream;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::http::inflate::Coding;
use crate::http::openapi::testing::assert_documented;
use crate::http::{ApiError, ApiResult};
use crate::ingest::{Ack, AppendError, Batch, Durable, IntakeConfig, Memory, RequestName, Tape};
use crate::market::{RequestKey, Row};
use crate::seal::Keyring;
use crate::store::TapeId;
use crate::tape::{BodyHash, Refusal as TapeRefusal, Remembered, WaitToken};
use crate::wire::{Format, ReadLimits};

/// A frame of the tests' tape.
const FRAME_BYTES_MAX: usize = 1_000;

#[derive(Default)]
struct MemoryTape {
    batches: Mutex<Vec<Batch>>,
    remembered: Remembered,
    fails: Option<AppendError>,
}

#[async_trait]
impl Tape for MemoryTape {
    fn memory(&self, _: RequestKey) -> Memory {
        Memory::default()
    }

    fn remembered(&self, _: RequestKey, _: BodyHash) -> Remembered {
        self.remembered
    }

    fn check_one_frame(&self, rows: &[Row]) -> Result<(), TapeRefusal> {
        crate::tape::check_one_frame(rows, FRAME_BYTES_MAX)
    }

    async fn append(&self, batch: Batch) -> Result<Durable, AppendError> {
        if let Some(error) = &self.fails {
            return Err(error.clone());
        }
        self.batches.lock().unwrap().push(batch);
        Ok(WaitToken(BTreeMap::from([(TapeId(7), 1)])).into())
    }
}

type Headers<'h> = &'h [(&'h str, &'h str)];

fn read(uri: &str, headers: Headers<'_>) -> ApiResult<Ask> {
    read_in(1, uri, headers)
}

fn read_in(regions: usize, uri: &str, headers: Headers<'_>) -> ApiResult<Ask> {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        })
        .collect();
    Ask::read(&uri.parse().unwrap(), &headers, regions)
}

const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

async fn body(error: ApiError) -> (StatusCode, Option<String>, Value) {
    let response = error.into_response();
    let status = response.status();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let bytes = to_bytes(response.into_body(), 1_000_000).await.unwrap();
    (status, retry, serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn all_regions_are_the_only_one_where_there_is_one() {
    let asked = |regions, query| read_in(regions, query, &[JSON]).unwrap().options.ack;
    assert_eq!([asked(1, "/"), asked(1, "/?ack=global")], [Ack::Region; 2]);
    assert_eq!([asked(2, "/"), asked(2, "/?ack=region")], [Ack::Region; 2]);
    assert_eq!(asked(2, "/?ack=global"), Ack::Global);
}

/// Posts a body, in pieces, to a tape.
async fn post_to(
    tape: MemoryTape,
    (uri, headers): (&str, Headers<'_>),
    bytes: &[u8],
) -> Result<TicksAnswer, (StatusCode, Option<String>, Value)> {
    let sets =
        ["http.body_bytes_max=4096", "http.body_decompressed_bytes_max=65536", "http.body_ratio_max=60"];
    let http = Config::with(&sets).unwrap().http;
    let limits = ReadLimits { tick_bytes_max: 1_024, ticks_max: 100, depth_max: 8 };
    let intake = IntakeConfig {
        limits,
        verdicts_max: 5,
        in_flight_bytes_max: 200_000,
        future_ms: 5_000,
        answer_ms: 4_000,
    };
    let intake = Intake::new(Arc::new(tape), Arc::new(Keyring::from_secret([1; 32])), intake);
    let now = Nanos::parse(b"2024-01-03T15:00:00Z").unwrap();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        bytes.chunks(100).map(|piece| Ok(piece.to_vec())).collect();
    let stream = Body::from_stream(stream::iter(pieces));
    let taken = match read(uri, headers) {
        Ok(ask) => take(&intake, &http, now, "acme", ask, stream).await,
        Err(error) => Err(Failure::Asked(error)),
    };
    let answered = match taken {
        Ok(answer) => Ok(answer.into()),
        Err(failure) => Err(body(failure.into()).await),
    };
    assert_eq!(intake.held_bytes(), 0);
    let documented = |status, body: &Value| assert_documented("post", "/v1/ticks", status, body);
    match &answered {
        Ok(answer) => documented(200, &serde_json::to_value(answer).unwrap()),
        Err((status, _, body)) => documented(status.as_u16(), body),
    }
    answered
}

async fn post(
    uri: &str,
    headers: Headers<'_>,
    bytes: &[u8],
) -> Result<TicksAnswer, (StatusCode, Option<String>, Value)> {
    post_to(MemoryTape::default(), (uri, headers), bytes).await
}

fn line(price: &str) -> String {
    format!("{{\"T\":\"t\",\"S\":\"A\",\"p\":{price},\"s\":1,\"t\":\"2024-01-03T14:30:00Z\"}}\n")
}

#[test]
fn what_a_request_may_say() {
    let ask = read("/v1/ticks", &[JSON]).unwrap();
    let plain = Ask {
        options: crate::ingest::Options::default(),
        format: Format::Json,
        coding: Coding::Identity,
        name: RequestName::Body,
        announced_bytes: 0,
    };
    assert_eq!(ask, plain);
    let ask = read(
        "/v1/ticks?atomic=true&backfill=true&validate=false&ack=global",
        &[
            ("content-type", "Application/MsgPack; v=1"),
            ("content-encoding", "zstd"),
            ("idempotency-key", " a b "),
            ("content-length", "12"),
        ],
    )
    .unwrap();
    assert!(ask.options.atomic && ask.options.backfill && !ask.options.validate);
    assert_eq!((ask.options.ack, ask.format, ask.coding), (Ack::Region, Format::MsgPack, Coding::Zstd));
    assert_eq!((ask.name, ask.announced_bytes), (RequestName::Key("a b".to_owned()), 12));
    let numbered = [
        LINES,
        ("tapeline-lines-key", "k"),
        ("tapeline-lines-digest", DIGEST),
        ("tapeline-lines-first", "4294967295"),
    ];
    let RequestName::Lines { key, digest, first } = read("/", &numbered).unwrap().name else {
        panic!("lines")
    };
    assert_eq!((key.as_str(), digest[0], digest[31], first), ("k", 0, 0xff, u32::MAX));
}

#[tokio::test]
async fn what_a_request_may_not_say() {
    let long = "k".repeat(256);
    let cases: &[(&str, Headers<'_>, u16, &str)] = &[
        ("/?atomic=yes", &[JSON], 400, "invalid value for atomic: must be true or false"),
        ("/?ack=all", &[JSON], 400, "invalid value for ack: must be region or global"),
        ("/?sync=true&wait=1", &[JSON], 400, "unexpected parameter(s): sync, wait"),
        ("/?atomic=", &[JSON], 400, "invalid value for atomic: must be true or false"),
        ("/?atomic=+true", &[JSON], 400, "invalid value for atomic: must be true or false"),
        ("/?atomic=true&atomic=true", &[JSON], 400, "invalid value for atomic: must be given once"),
        ("/?atomic=%ff", &[JSON], 400, "percent-encoded UTF-8"),
        ("/", &[], 415, "Content-Type must be application/json, application/x-ndjson or application/msgpack"),
        ("/", &[("content-type", "text/csv")], 415, "Content-Type must be"),
        ("/", &[JSON, JSON], 400, "invalid value for content-type: must be given once"),
        ("/", &[JSON, ("content-encoding", "br")], 415, "Content-Encoding must be gzip or zstd"),
        ("/", &[JSON, ("idempotency-key", "")], 400, "must be 1 to 255 printable ASCII characters"),
        ("/", &[JSON, ("idempotency-key", &long)], 400, "must be 1 to 255 printable ASCII characters"),
        (
            "/",
            &[JSON, ("idempotency-key", "ü")],
            400,
            "invalid value for idempotency-key: must be printable ASCII",
        ),
        ("/", &[JSON, ("idempotency-key", "a"), ("tapeline-lines-key", "b")], 400, "not by both"),
        (
            "/",
            &[LINES, ("tapeline-lines-key", "b"), ("tapeline-lines-first", "0")],
            400,
            "numbered lines need all of",
        ),
        (
            "/",
            &[
                LINES,
                ("tapeline-lines-key", "b"),
                ("tapeline-lines-digest", "00"),
                ("tapeline-lines-first", "0"),
            ],
            400,
            "a SHA-256 of 64 hexadecimal digits",
        ),
        (
            "/",
            &[
                LINES,
                ("tapeline-lines-key", "b"),
                ("tapeline-lines-digest", DIGEST),
                ("tapeline-lines-first", "+1"),
            ],
            400,
            "a number from 0 to 4294967295",
        ),
    ];
    for (uri, headers, status, message) in cases {
        let (given, retry, body) = body(read(uri, headers).expect_err(message)).await;
        assert_eq!((given.as_u16(), retry), (*status, None), "{uri} {headers:?}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
}

#[tokio::test]
async fn a_body_that_can_be_read_is_answered_with_verdicts() {
    let lines = [line("1"), line("-2"), line("3")].concat();
    let answer = post("/v1/ticks", &[LINES], lines.as_bytes()).await.unwrap();
    let mut shown = serde_json::to_value(&answer).unwrap();
    assert!(shown["position"].as_str().unwrap().starts_with("w1."));
    shown["position"] = Value::Null;
    let expected = json!({
        "received": 3, "accepted": 2, "refused": 1, "position": null,
        "verdicts": [
            {"index": 1, "field": "p", "value": "-2", "why": "is not above zero", "expected": "a price above 0"},
        ],
        "verdicts_omitted": 0,
    });
    assert_eq!(shown, expected);
    let none = post("/v1/ticks", &[LINES], line("0").as_bytes()).await.unwrap();
    assert_eq!((none.received, none.accepted, none.refused, none.position), (1, 0, 1, None));
    let checked = post("/v1/ticks?validate=true", &[LINES], lines.as_bytes()).await.unwrap();
    assert_eq!((checked.accepted, checked.refused, checked.position), (2, 1, None));
    assert_eq!(serde_json::to_value(checked.would).unwrap(), json!({"status": 200}));
}

#[tokio::test]
async fn of_many_verdicts_the_first_are_listed() {
    let zeros = line("0").repeat(12);
    let answer = post("/v1/ticks", &[LINES], zeros.as_bytes()).await.unwrap();
    assert_eq!((answer.refused, answer.verdicts.len(), answer.verdicts_omitted), (12, 5, 7));
    let (status, _, body) = post("/?atomic=true", &[LINES], zeros.as_bytes()).await.unwrap_err();
    assert_eq!((status.as_u16(), body["verdicts"].as_array().unwrap().len()), (422, 5));
    assert_eq!(body["verdicts_omitted"], 7);
}

#[tokio::test]
async fn a_question_is_answered_with_what_a_request_would_be() {
    let bad = [line("1"), line("0")].concat();
    let many = line("1").repeat(50);
    let reused = || MemoryTape { remembered: Remembered::OtherBody, ..MemoryTape::default() };
    let refused =
        json!({"status": 422, "reason": "refused", "message": "1 of 2 ticks are refused, so none is stored"});
    let other_body = json!({"status": 422, "reason": "key_reused", "message": "this Idempotency-Key came with another body before"});
    for (tape, uri, body, expected) in [
        (MemoryTape::default(), "/?validate=true", &bad, json!({"status": 200})),
        (MemoryTape::default(), "/?validate=true&atomic=true", &bad, refused),
        (
            MemoryTape::default(),
            "/?validate=true&atomic=true",
            &many,
            json!({"status": 413, "reason": "frame_bytes"}),
        ),
        (reused(), "/?validate=true", &bad, other_body),
    ] {
        let answer = post_to(tape, (uri, &[LINES]), body.as_bytes()).await.unwrap();
        let mut would = serde_json::to_value(answer.would).unwrap();
        if would["status"] == 413 {
            assert!(would["message"].as_str().unwrap().contains("expected at most 1000"), "{would}");
            would.as_object_mut().unwrap().remove("message");
        }
        assert_eq!(would, expected, "{uri}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_the_same_bodies() {
    let text = format!("[{}]", line("1").trim());
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    for (coding, bytes) in [("identity", text.into_bytes()), ("gzip", gzip), ("zstd", zstd)] {
        let answer = post("/", &[JSON, ("content-encoding", coding)], &bytes).await.unwrap();
        assert_eq!((answer.received, answer.accepted), (1, 1), "{coding}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_or_is_too_large() {
    let bad_line = format!("{}{{]\n", line("1"));
    let many = "0,".repeat(101);
    let bomb = zstd::encode_all(&vec![b' '; 60_000][..], 3).unwrap();
    let (long_tick, large) = (" ".repeat(2_000), "0".repeat(5_000));
    let long_tick = format!("[{{\"T\":{long_tick}\"t\"}}]");
    let zstd: Headers<'_> = &[JSON, ("content-encoding", "zstd")];
    let cases: &[(Headers<'_>, &[u8], u16, &str, Value)] = &[
        (&[LINES], bad_line.as_bytes(), 400, "unreadable", json!({"line": 2})),
        (&[JSON], b"[{}", 400, "unreadable", json!({"byte": 3})),
        (&[JSON], b"{}", 400, "unreadable", json!({"byte": 0})),
        (&[JSON], b"[\"\xff\"]", 400, "unreadable", json!({"byte": 2})),
        (zstd, b"not zstd", 400, "unreadable", json!({})),
        (
            zstd,
            &bomb,
            413,
            "decompressed_bytes",
            json!({"message": "the body grows to more than 60 times its size as sent"}),
        ),
        (
            &[JSON],
            &[b"[", many.as_bytes()].concat(),
            413,
            "ticks_max",
            json!({"message": "the body holds more than 100 ticks"}),
        ),
        (
            &[JSON],
            long_tick.as_bytes(),
            413,
            "tick_bytes",
            json!({"message": "tick 0 is longer than 1024 bytes"}),
        ),
        (&[LINES], large.as_bytes(), 413, "tick_bytes", json!({})),
        (
            &[LINES, ("content-length", "4097")],
            b"",
            413,
            "body_bytes",
            json!({"message": "the body is larger than 4096 bytes"}),
        ),
    ];
    for (headers, bytes, status, reason, fields) in cases {
        let (given, retry, body) = post("/", headers, bytes).await.unwrap_err();
        assert_eq!((given.as_u16(), retry), (*status, None), "{body}");
        assert_eq!(body["reason"].as_str().unwrap_or_default(), *reason, "{body}");
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&body[name], value, "{body}");
        }
    }
}

#[tokio::test]
async fn atomic_with_a_bad_tick_is_422_with_the_verdicts() {
    let lines = [line("1"), line("0")].concat();
    let (status, _, body) = post("/?atomic=true", &[LINES], lines.as_bytes()).await.unwrap_err();
    assert_eq!((status.as_u16(), &body["reason"]), (422, &json!("refused")));
    assert_eq!(body["message"], "1 of 2 ticks are refused, so none is stored");
    assert_eq!((&body["verdicts"][0]["index"], &body["verdicts"][0]["field"]), (&json!(1), &json!("p")));
}

#[tokio::test]
async fn what_the_tape_says() {
    let refused = |refusal: TapeRefusal| MemoryTape { fails: Some(refusal.into()), ..MemoryTape::default() };
    let unknown = MemoryTape { fails: Some(AppendError::Unknown), ..MemoryTape::default() };
    let here = MemoryTape { fails: Some(AppendError::RegionOnly), ..MemoryTape::default() };
    let reused = MemoryTape { remembered: Remembered::OtherBody, ..MemoryTape::default() };
    let cases = [
        (unknown, 503, "unknown", Some("1")),
        (here, 503, "unknown", Some("1")),
        (reused, 422, "key_reused", None),
        (refused(TapeRefusal::Full { queued: 2, max: 1 }), 503, "overloaded", Some("1")),
        (refused(TapeRefusal::Stopped("the disk /data is full".to_owned())), 503, "store", Some("5")),
        (refused(TapeRefusal::Draining), 503, "draining", Some("1")),
        (refused(TapeRefusal::TooLarge { bytes: 300_000, max: 262_144 }), 413, "frame_bytes", None),
    ];
    for (tape, status, reason, retry) in cases {
        let (given, after, body) = post_to(tape, ("/", &[LINES]), line("1").as_bytes()).await.unwrap_err();
        assert_eq!((given.as_u16(), after.as_deref()), (status, retry), "{body}");
        assert_eq!(body["reason"].as_str().unwrap_or_default(), reason, "{body}");
        assert_eq!(body["outcome"] == "unknown", reason == "unknown", "{body}");
        assert!(reason != "store" || body["message"] == "the disk /data is full", "{body}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_stores_nothing() {
    let tape = Arc::new(MemoryTape::default());
    let config = IntakeConfig {
        limits: ReadLimits::default(),
        verdicts_max: 5,
        in_flight_bytes_max: 200_000,
        future_ms: 0,
        answer_ms: 1,
    };
    let intake = Intake::new(tape.clone(), Arc::new(Keyring::from_secret([1; 32])), config);
    let pieces = vec![Ok(line("1").into_bytes()), Err(std::io::Error::other("reset by peer"))];
    let http = Config::with(&[]).unwrap().http;
    let ask = read("/", &[LINES]).unwrap();
    let now = Nanos::parse(b"2024-01-03T15:00:00Z").unwrap();
    let taken = take(&intake, &http, now, "acme", ask, Body::from_stream(stream::iter(pieces))).await;
    let (status, _, body) = body(taken.unwrap_err().into()).await;
    assert_eq!((status.as_u16(), &body["reason"]), (400, &json!("body_cut")));
    assert!(tape.batches.lock().unwrap().is_empty());
    assert_eq!(intake.held_bytes(), 0);
}
