//! Requests against a tape of memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::store::TapeId;
use crate::wire::{BodyError, Format, ReadLimits, msgpack};

/// A tape that keeps what it is given, or answers as it is told.
#[derive(Default)]
struct MemoryTape {
    batches: Mutex<Vec<Batch>>,
    reused: bool,
    fails: Option<AppendError>,
    hangs: bool,
}

#[async_trait]
impl Tape for MemoryTape {
    fn is_reused(&self, _: RequestKey, _: BodyHash) -> bool {
        self.reused
    }

    async fn append(&self, batch: Batch) -> Result<WaitToken, AppendError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if let Some(error) = &self.fails {
            return Err(error.clone());
        }
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch);
        Ok(WaitToken(BTreeMap::from([(TapeId(7), batches.len() as u64)])))
    }
}

const LIMITS: ReadLimits = ReadLimits { tick_bytes_max: 4_096, ticks_max: 1_000, depth_max: 8 };

struct Bench {
    tape: Arc<MemoryTape>,
    intake: Intake,
}

impl Bench {
    fn new(tape: MemoryTape) -> Self {
        Self::with_budget(tape, 1_000_000)
    }

    fn with_budget(tape: MemoryTape, in_flight_bytes_max: usize) -> Self {
        let tape = Arc::new(tape);
        let config = IntakeConfig { limits: LIMITS, in_flight_bytes_max, future_ms: 5_000, answer_ms: 4_000 };
        let keys = Arc::new(Keyring::from_secret([1; 32]));
        Self { intake: Intake::new(tape.clone(), keys, config), tape }
    }

    async fn post(&self, request: Request, body: &str) -> Result<Answer, TakeError> {
        let now = Nanos::parse(b"2024-01-03T15:00:00Z").unwrap();
        let mut taking = self.intake.begin(request, now)?;
        for piece in body.as_bytes().chunks(50) {
            taking.feed(piece)?;
        }
        taking.finish().await
    }

    fn batches(&self) -> Vec<Batch> {
        self.tape.batches.lock().unwrap().clone()
    }
}

fn request(name: RequestName, options: Options) -> Request {
    Request { account: "acme".to_owned(), name, format: Format::NdJson, options, expected_bytes: 0 }
}

fn plain() -> Request {
    request(RequestName::Body, Options::default())
}

fn line(price: &str) -> String {
    format!("{{\"T\":\"t\",\"S\":\"A\",\"p\":{price},\"s\":1,\"t\":\"2024-01-03T14:30:00Z\"}}\n")
}

fn lines(prices: &[&str]) -> String {
    prices.iter().map(|price| line(price)).collect()
}

#[tokio::test]
async fn good_ticks_go_on_and_bad_ones_are_named() {
    let bench = Bench::new(MemoryTape::default());
    let answer = bench.post(plain(), &lines(&["1", "0", "2", "\"3\"", "4"])).await.unwrap();
    assert_eq!((answer.received, answer.accepted), (5, 3));
    let refused: Vec<_> = answer.refused.iter().map(|(index, refusal)| (*index, &*refusal.field)).collect();
    assert_eq!(refused, [(1, "p"), (3, "p")]);
    let batches = bench.batches();
    let [batch] = batches.as_slice() else { panic!("one batch") };
    let indexes: Vec<u32> = batch.rows.iter().map(|row| row.origin.index).collect();
    assert_eq!(indexes, [0, 2, 4], "positions in the body, not among the good ones");
    assert!(batch.rows.iter().all(|row| row.origin.request == batch.request));
    assert!(answer.position.unwrap().starts_with(POSITION_PREFIX));
    assert_eq!(bench.intake.held_bytes(), 0);
}

#[tokio::test]
async fn the_name_of_a_request_is_its_key_or_its_body() {
    let bench = Bench::new(MemoryTape::default());
    let (one, two) = (line("1"), line("2"));
    let key = || request(RequestName::Key("k".to_owned()), Options::default());
    let mut other_account = plain();
    other_account.account = "other".to_owned();
    for (request, body) in [
        (plain(), &one),
        (plain(), &one),
        (plain(), &two),
        (key(), &one),
        (key(), &two),
        (other_account, &one),
    ] {
        bench.post(request, body).await.unwrap();
    }
    let batches = bench.batches();
    let request: Vec<_> = batches.iter().map(|batch| batch.request).collect();
    let body: Vec<_> = batches.iter().map(|batch| batch.body).collect();
    assert_eq!(request[0], request[1]);
    assert_ne!(request[0], request[2], "another body");
    assert_eq!(request[3], request[4], "one key");
    assert_ne!(request[0], request[3]);
    assert_ne!(request[0], request[5], "another account");
    assert_eq!((body[0], body[2]), (body[3], body[4]), "the body tells a key used twice");
    assert_ne!(body[3], body[4]);
}

#[tokio::test]
async fn numbered_lines_are_known_by_their_numbers() {
    let bench = Bench::new(MemoryTape::default());
    let lines_from = |first| {
        let name = RequestName::Lines { key: "import".to_owned(), digest: [5; 32], first };
        request(name, Options { backfill: true, ..Options::default() })
    };
    let whole = bench.post(lines_from(0), &lines(&["1", "0", "3"])).await.unwrap();
    let part = bench.post(lines_from(1), &lines(&["0", "3"])).await.unwrap();
    assert_eq!((whole.refused[0].0, part.refused[0].0), (1, 1));
    let batches = bench.batches();
    assert_eq!(batches[0].request, batches[1].request);
    assert_eq!((batches[0].body, batches[1].body), (BodyHash::LINES, BodyHash::LINES));
    assert_eq!(batches[0].rows[1], batches[1].rows[0], "the same tick in either grouping");
    assert!(batches[0].backfill && !batches[0].atomic);
    let error = bench.post(lines_from(u32::MAX - 1), &lines(&["1", "2"])).await.unwrap_err();
    assert!(matches!(error, TakeError::Numbering(line) if line == u64::from(u32::MAX)), "{error}");
}

#[tokio::test]
async fn atomic_is_all_or_nothing() {
    let bench = Bench::new(MemoryTape::default());
    let atomic = || request(RequestName::Body, Options { atomic: true, ..Options::default() });
    let error = bench.post(atomic(), &lines(&["1", "0"])).await.unwrap_err();
    let TakeError::NotAll(answer) = &error else { panic!("{error}") };
    assert_eq!((answer.received, answer.accepted, answer.refused.len()), (2, 1, 1));
    assert!(bench.batches().is_empty());
    bench.post(atomic(), &lines(&["1", "2"])).await.unwrap();
    assert!(bench.batches()[0].atomic);
}

#[tokio::test]
async fn nothing_is_stored_where_nothing_is_asked_or_good() {
    let bench = Bench::new(MemoryTape { fails: Some(AppendError::Unknown), ..MemoryTape::default() });
    let validate = request(RequestName::Body, Options { validate: true, ..Options::default() });
    let answer = bench.post(validate, &lines(&["1", "0"])).await.unwrap();
    assert_eq!((answer.accepted, answer.refused.len(), answer.position), (1, 1, None));
    let answer = bench.post(plain(), &lines(&["0"])).await.unwrap();
    assert_eq!((answer.received, answer.accepted, answer.position), (1, 0, None));
    assert_eq!(bench.post(plain(), "").await.unwrap(), Answer::default());
}

#[tokio::test]
async fn an_unreadable_body_stores_nothing() {
    let bench = Bench::new(MemoryTape::default());
    let error = bench.post(plain(), &format!("{}{{", line("1"))).await.unwrap_err();
    assert!(matches!(error, TakeError::Body(BodyError::Malformed { line: Some(2), .. })), "{error}");
    assert!(bench.batches().is_empty());
    assert_eq!(bench.intake.held_bytes(), 0);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let bench = Bench::new(MemoryTape { reused: true, ..MemoryTape::default() });
    let error = bench.post(plain(), &line("1")).await.unwrap_err();
    assert!(matches!(error, TakeError::KeyReused), "{error}");
    assert!(bench.batches().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_in_time_is_unknown() {
    let bench = Bench::new(MemoryTape { hangs: true, ..MemoryTape::default() });
    let begun = tokio::time::Instant::now();
    let error = bench.post(plain(), &line("1")).await.unwrap_err();
    assert!(matches!(error, TakeError::Append(AppendError::Unknown)), "{error}");
    assert_eq!(begun.elapsed().as_millis(), 4_000);
    assert_eq!(bench.intake.held_bytes(), 0);
}

#[tokio::test]
async fn the_tapes_refusal_is_handed_on() {
    let refusal = Refusal::Stopped("disk full".to_owned());
    let bench = Bench::new(MemoryTape { fails: Some(refusal.clone().into()), ..MemoryTape::default() });
    let error = bench.post(plain(), &line("1")).await.unwrap_err();
    assert!(
        matches!(error, TakeError::Append(AppendError::Refused(ref given)) if *given == refusal),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_budget_refuses_at_once_and_is_given_back() {
    let bench = Bench::with_budget(MemoryTape::default(), 10_000);
    let mut large = plain();
    large.expected_bytes = 9_999;
    let now = Nanos::parse(b"2024-01-03T15:00:00Z").unwrap();
    let held = bench.intake.begin(large, now).unwrap();
    bench.intake.begin(plain(), now).unwrap();
    let mut two = plain();
    two.expected_bytes = 2;
    assert!(matches!(bench.intake.begin(two, now).err().unwrap(), TakeError::Full(_)));
    drop(held);
    // Decoded ticks count, not the bytes that named them: a thousand refusals hold far more.
    let zeros: String = "0\n".repeat(900);
    let error = bench.post(plain(), &zeros).await.unwrap_err();
    assert!(matches!(error, TakeError::Full(_)), "{error}");
    assert_eq!(bench.intake.held_bytes(), 0);
    bench.post(plain(), &lines(&["1", "2"])).await.unwrap();
}

#[tokio::test]
async fn the_formats_make_the_same_ticks() {
    let bench = Bench::new(MemoryTape::default());
    let text = line("1.25");
    bench.post(plain(), &text).await.unwrap();
    let mut json = plain();
    json.format = Format::Json;
    bench.post(json, &format!("[{}]", text.trim())).await.unwrap();
    let tick = bench.batches()[0].rows[0].tick.clone();
    let mut map = Vec::new();
    msgpack::write_stream(&tick, &mut map);
    let mut request = plain();
    request.format = Format::MsgPack;
    let mut taking = bench.intake.begin(request, tick.time).unwrap();
    taking.feed(&map).unwrap();
    taking.finish().await.unwrap();
    let ticks: Vec<_> = bench.batches().into_iter().map(|batch| batch.rows[0].tick.clone()).collect();
    assert_eq!(ticks, vec![tick; 3]);
}
