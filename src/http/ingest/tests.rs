//! Sessions against a tape that appends when it is told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::session::Parts;
use super::*;
use crate::config::Config;
use crate::http::Clock;
use crate::http::openapi::testing::assert_documented;
use crate::ingest::{AppendError, Batch, Durable, Intake, IntakeConfig, Memory, Share, Tape};
use crate::market::{Nanos, RequestKey, Row};
use crate::seal::Keyring;
use crate::store::TapeId;
use crate::tape::{BodyHash, Refusal, Remembered, WaitToken};
use crate::telemetry::Metrics;
use crate::wire::ReadLimits;

const WINDOW: usize = 256 * 1024;
const BUDGET: usize = 8 << 20;

/// Appends wait until there is a permit for each.
struct HeldTape {
    permits: Semaphore,
    batches: Mutex<Vec<Batch>>,
    fails: Mutex<Option<AppendError>>,
}

#[async_trait]
impl Tape for HeldTape {
    fn memory(&self, _: RequestKey) -> Memory {
        Memory::default()
    }

    fn remembered(&self, _: RequestKey, _: BodyHash) -> Remembered {
        Remembered::Nothing
    }

    fn check_one_frame(&self, _: &[Row]) -> Result<(), Refusal> {
        Ok(())
    }

    async fn append(&self, batch: Batch) -> Result<Durable, AppendError> {
        self.batches.lock().push(batch);
        self.permits.acquire().await.unwrap().forget();
        match self.fails.lock().take() {
            Some(error) => Err(error),
            None => Ok(WaitToken(BTreeMap::from([(TapeId(7), 1)])).into()),
        }
    }
}

struct World {
    tape: Arc<HeldTape>,
    intake: Arc<Intake>,
    draining: CancellationToken,
    admitted: Arc<AtomicBool>,
    send: Option<mpsc::Sender<Result<Bytes, axum::Error>>>,
    said: mpsc::Receiver<Said>,
    session: JoinHandle<&'static str>,
}

/// A connection whose first line has the number 100.
fn world(permits: usize) -> World {
    let tape =
        HeldTape { permits: Semaphore::new(permits), batches: Mutex::default(), fails: Mutex::default() };
    let tape = Arc::new(tape);
    let config = IntakeConfig {
        limits: ReadLimits { tick_bytes_max: 4_096, ticks_max: 10_000, depth_max: 8 },
        verdicts_max: 2,
        in_flight_bytes_max: BUDGET,
        future_ms: 5_000,
        answer_ms: 4_000,
    };
    let intake =
        Arc::new(Intake::new(Arc::clone(&tape) as _, Arc::new(Keyring::from_secret([1; 32])), config));
    let (draining, admitted) = (CancellationToken::new(), Arc::new(AtomicBool::new(true)));
    let (send, mut sent) = mpsc::channel(1);
    let (say, said) = mpsc::channel(SAID_MAX);
    let share = intake.share().unwrap();
    let (of_intake, of_drain, of_admitted) = (Arc::clone(&intake), draining.clone(), Arc::clone(&admitted));
    let session = tokio::spawn(async move {
        let config = Config::with(&[&format!("ingest.window_bytes_max={WINDOW}")]).unwrap().ingest;
        let metrics = Metrics::new().unwrap();
        let clock: Clock = Arc::new(|| Nanos::parse(b"2024-01-03T15:00:00Z").unwrap());
        let parts = Parts {
            intake: &of_intake,
            config: &config,
            metrics: &metrics,
            clock: &clock,
            account: "acme",
            is_admitted: Box::new(|| of_admitted.load(Ordering::Relaxed)),
            stall: Duration::from_secs(30),
        };
        let stream = Stream { key: "feed".to_owned(), first: 100, backfill: false };
        let body = stream::poll_fn(move |cx| sent.poll_recv(cx));
        Session::new(parts, stream, share, say).run(body, &of_drain).await
    });
    World { tape, intake, draining, admitted, send: Some(send), said, session }
}

fn line(size: u64) -> String {
    format!(
        "{{\"T\":\"q\",\"S\":\"A\",\"ap\":2,\"as\":{size},\"bp\":1,\"bs\":1,\"t\":\"2024-01-03T14:30:00Z\"}}\n"
    )
}

impl World {
    async fn send(&self, text: &str) {
        self.send.as_ref().unwrap().send(Ok(Bytes::from(text.to_owned()))).await.unwrap();
    }

    /// The next line of the answer.
    async fn said(&mut self) -> Value {
        let said = self.said.recv().await.expect("a line");
        assert_eq!(said.line.last(), Some(&b'\n'));
        serde_json::from_slice(&said.line).unwrap()
    }

    async fn acknowledged(&mut self) -> (u64, u64, u64) {
        let said = self.said().await;
        let number = |name: &str| said[name].as_u64().unwrap_or_else(|| panic!("{said}"));
        (number("first"), number("last"), number("accepted"))
    }

    /// How the session ended, which gave everything back.
    async fn ended(self) -> &'static str {
        let Self { session, mut said, intake, send, .. } = self;
        let end = session.await.unwrap();
        assert!(said.recv().await.is_none());
        drop(send);
        assert_eq!(intake.held_bytes(), 0);
        end
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_roll_while_the_body_comes() {
    let mut world = world(100);
    world.send(&line(1)).await;
    let said = world.said().await;
    assert!(said["position"].as_str().unwrap().starts_with("w1."), "{said}");
    assert_eq!((&said["first"], &said["last"], &said["accepted"]), (&json!(100), &json!(100), &json!(1)));
    world.send(&line(2)[..30]).await;
    world.send(&format!("{}\n{}", &line(2)[30..], line(3))).await;
    assert_eq!(world.acknowledged().await, (101, 103, 2), "an empty line has a number");
    let bad = line(5).replace("\"ap\":2", "\"ap\":-2");
    world.send(&[line(4), bad.clone(), bad.clone(), bad].concat()).await;
    let said = world.said().await;
    assert_eq!(
        (&said["last"], &said["accepted"], &said["refused_omitted"]),
        (&json!(107), &json!(1), &json!(1))
    );
    assert_eq!((&said["refused"][1]["line"], &said["refused"][1]["field"]), (&json!(106), &json!("ap")));
    world.send("\n").await;
    assert_eq!(world.acknowledged().await, (108, 108, 0), "what keeps it alive is answered too");
    world.send(line(6).trim_end()).await;
    world.send = None;
    assert_eq!(world.acknowledged().await, (109, 109, 1), "the last line needs no end");
    assert_eq!(world.said().await, json!({"bye": "end", "resume_from": 110}));
    let batches = world.tape.batches.lock().clone();
    let indexes: Vec<u32> =
        batches.iter().flat_map(|batch| &batch.rows).map(|row| row.origin.index).collect();
    assert_eq!(indexes, [100, 101, 103, 104, 109]);
    assert!(batches.iter().all(|batch| batch.request == RequestKey::of_stream("acme", "feed")));
    assert_eq!(world.ended().await, "end");
}

#[tokio::test(start_paused = true)]
async fn above_the_window_nothing_more_is_read() {
    let mut world = world(0);
    let piece: String = (0..500).map(line).collect();
    let mut sent = 0;
    let send = world.send.clone().unwrap();
    while tokio::time::timeout(Duration::from_secs(1), send.send(Ok(Bytes::from(piece.clone()))))
        .await
        .is_ok()
    {
        sent += 1;
    }
    let window = WINDOW / piece.len();
    assert!((window..=window + 3).contains(&sent), "{sent} pieces of {} bytes", piece.len());
    world.tape.permits.add_permits(1_000);
    let (mut next, behind) = (100, 100 + sent as u64 * 500);
    while next < behind {
        let (first, last, accepted) = world.acknowledged().await;
        assert_eq!((first, accepted), (next, last + 1 - first), "in order, without a hole");
        next = last + 1;
    }
    let order: Vec<u32> =
        world.tape.batches.lock().iter().filter_map(|batch| Some(batch.rows.first()?.origin.index)).collect();
    assert!(order.is_sorted() && order.len() > 1, "{order:?}");
    drop(send);
    world.send = None;
    assert_eq!(world.said().await["resume_from"], next);
    assert_eq!(world.ended().await, "end");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_told_behind_what_is() {
    let mut world = world(1);
    world.send(&line(1)).await;
    assert_eq!(world.acknowledged().await.1, 100);
    *world.tape.fails.lock() = Some(AppendError::Unknown);
    world.send(&line(2)).await;
    world.tape.permits.add_permits(1);
    let said = world.said().await;
    assert_eq!((&said["outcome"], &said["resume_from"]), (&json!("unknown"), &json!(101)));
    assert_eq!(said["error"]["reason"], "unknown");
    assert_eq!(world.ended().await, "error");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_read_is_named_and_what_came_before_is_acknowledged() {
    let long = format!("{{\"T\":\"{}\"}}\n", "x".repeat(5_000));
    let cases = [
        (format!("{}{}nothing\n", line(2), line(3)), "unreadable", 103),
        (format!("{}{long}", line(2)), "tick_bytes", 102),
        ("x".repeat(5_000), "tick_bytes", 101),
    ];
    for (text, reason, at) in cases {
        let mut world = world(0);
        world.send(&line(1)).await;
        world.send(&text).await;
        // It is found while the first batch is still under way.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.tape.permits.add_permits(1);
        assert_eq!(world.acknowledged().await, (100, 100, 1));
        let said = world.said().await;
        assert_eq!(
            (&said["error"]["reason"], &said["error"]["line"]),
            (&json!(reason), &json!(at)),
            "{said}"
        );
        assert_eq!((&said["resume_from"], &said["outcome"]), (&json!(101), &Value::Null));
        assert_eq!(world.ended().await, "error");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_and_an_empty_line_puts_that_off() {
    let mut world = world(10);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(110)).await;
        world.send("\n").await;
        world.acknowledged().await;
    }
    let begun = tokio::time::Instant::now();
    assert_eq!(world.said().await, json!({"bye": "idle", "resume_from": 103}));
    assert_eq!(begun.elapsed(), Duration::from_secs(120));
    assert_eq!(world.ended().await, "idle");
}

#[tokio::test(start_paused = true)]
async fn a_drain_acknowledges_what_is_under_way_and_says_where_to_resume() {
    let mut world = world(0);
    world.send(&line(1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.send(&line(2)[..20]).await;
    world.draining.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.tape.permits.add_permits(1);
    assert_eq!(world.acknowledged().await, (100, 100, 1));
    assert_eq!(world.said().await, json!({"bye": "draining", "resume_from": 101}));
    assert_eq!(world.ended().await, "draining");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_revoked_sends_nothing_more() {
    let mut world = world(10);
    world.send(&line(1)).await;
    world.acknowledged().await;
    world.admitted.store(false, Ordering::Relaxed);
    world.send(&line(2)).await;
    let said = world.said().await;
    assert_eq!((&said["error"]["code"], &said["resume_from"]), (&json!(40_100_000), &json!(101)));
    assert_eq!(world.tape.batches.lock().len(), 1);
    assert_eq!(world.ended().await, "error");
}

#[tokio::test(start_paused = true)]
async fn without_memory_it_waits_and_then_says_so() {
    for comes in [true, false] {
        let mut world = world(10);
        let mut others: Share = world.intake.share().unwrap();
        others.grow(BUDGET - world.intake.held_bytes() + 1).unwrap();
        world.send(&line(1)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if comes {
            drop(others);
            assert_eq!(world.acknowledged().await, (100, 100, 1));
            world.send = None;
            assert_eq!(world.said().await["bye"], "end");
            assert_eq!(world.ended().await, "end");
        } else {
            let said = world.said().await;
            assert_eq!((&said["error"]["reason"], &said["resume_from"]), (&json!("overloaded"), &json!(100)));
            drop(others);
            assert_eq!(world.ended().await, "error");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_no_acknowledgement_or_goes_away_is_cut() {
    let mut world = world(1_000);
    let begun = tokio::time::Instant::now();
    for size in 0..=SAID_MAX as u64 {
        world.send(&line(size)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let end = (&mut world.session).await.unwrap();
    assert_eq!(end, "stalled");
    assert!(begun.elapsed() >= Duration::from_secs(30));
    let world = self::world(0);
    world.send(&line(1)).await;
    drop(world.said);
    assert_eq!(world.session.await.unwrap(), "gone");
}

#[test]
fn what_a_request_says_is_checked() {
    type Headers = &'static [(&'static str, &'static str)];
    let read = |query: &str, headers: Headers| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        asked(Some(query), &map)
    };
    const LINES: Headers = &[("content-type", "application/x-ndjson; charset=utf-8")];
    let stream = read("key=a%20b&first=7&backfill=true", LINES).unwrap();
    assert_eq!(stream, Stream { key: "a b".to_owned(), first: 7, backfill: true });
    assert_eq!(read("key=a", LINES).unwrap().first, 0);
    let cases: [(&str, Headers, u16, &str); 7] = [
        ("", LINES, 400, "key"),
        ("key=%C3%A4", LINES, 400, "key"),
        ("key=a&first=-1", LINES, 400, "first"),
        ("key=a&first=4294967295", LINES, 400, "first"),
        ("key=a", &[], 415, "Content-Type"),
        ("key=a", &[("content-type", "application/json")], 415, "Content-Type"),
        (
            "key=a",
            &[("content-type", "application/x-ndjson"), ("content-encoding", "gzip")],
            415,
            "Content-Encoding",
        ),
    ];
    for (query, headers, status, field) in cases {
        let error = read(query, headers).unwrap_err();
        let body: Value = serde_json::from_str(&error.body()).unwrap();
        assert_eq!((error.status().as_u16(), &body["field"]), (status, &json!(field)), "{query}");
        assert_documented("post", "/v1/ingest", status, &body);
    }
    let one = Config::with(&["ingest.streams_max=1"]).unwrap().ingest;
    let producers = Producers::new(&one, CancellationToken::new());
    let place = producers.place().unwrap();
    assert_eq!(producers.place().unwrap_err().reason(), Some("streams_max"));
    drop(place);
    assert!(producers.place().is_ok());
    producers.draining.cancel();
    assert_eq!(producers.place().unwrap_err().reason(), Some("draining"));
}
