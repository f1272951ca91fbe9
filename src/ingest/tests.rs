//! Requests against a tape of memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::{pending, ready};

use super::*;
use crate::market::Nanos;
use crate::seal::Keyring;
use crate::store::TapeId;
use crate::wire::{BodyError, Format, ReadLimits, msgpack};

/// A frame of the tests' tape.
const FRAME_BYTES_MAX: usize = 1_000;

/// A tape that keeps what it is given, or answers as it is told.
#[derive(Default)]
struct MemoryTape {
    batches: Mutex<Vec<Batch>>,
    remembered: Remembered,
    fails: Option<AppendError>,
    hangs: bool,
    /// What becomes of it in the other regions: known at once, or never.
    elsewhere: Option<Option<bool>>,
}

#[async_trait]
impl Tape for MemoryTape {
    fn memory(&self, request: RequestKey) -> Memory {
        let batches = self.batches.lock().unwrap();
        let known = batches.iter().find(|batch| batch.request == request);
        let receipt = known.map(|batch| Receipt {
            body: batch.body,
            delivered: batch.rows.iter().map(|row| row.origin.index..row.origin.index + 1).collect(),
        });
        Memory { receipt, reaches_back_ms: 5 }
    }

    fn remembered(&self, _: RequestKey, _: BodyHash) -> Remembered {
        self.remembered
    }

    fn check_one_frame(&self, rows: &[Row]) -> Result<(), Refusal> {
        crate::tape::check_one_frame(rows, FRAME_BYTES_MAX)
    }

    async fn append(&self, batch: Batch) -> Result<Durable, AppendError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if let Some(error) = &self.fails {
            return Err(error.clone());
        }
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch);
        let position = WaitToken(BTreeMap::from([(TapeId(7), batches.len() as u64)]));
        let everywhere = self.elsewhere.map(|known| match known {
            Some(everywhere) => ready(everywhere).boxed(),
            None => pending().boxed(),
        });
        Ok(Durable { position, everywhere })
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
        let config = IntakeConfig {
            limits: LIMITS,
            verdicts_max: 10,
            in_flight_bytes_max,
            future_ms: 5_000,
            answer_ms: 4_000,
        };
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
    let told: Vec<_> = answer.verdicts.iter().map(|(index, refusal)| (*index, &*refusal.field)).collect();
    assert_eq!((answer.refused, told), (2, vec![(1, "p"), (3, "p")]));
    assert!(bench.intake.held_bytes() > 0, "what the answer holds counts until it is sent");
    let batches = bench.batches();
    let [batch] = batches.as_slice() else { panic!("one batch") };
    let indexes: Vec<u32> = batch.rows.iter().map(|row| row.origin.index).collect();
    assert_eq!(indexes, [0, 2, 4], "positions in the body, not among the good ones");
    assert!(batch.rows.iter().all(|row| row.origin.request == batch.request));
    assert!(answer.position.as_deref().unwrap().starts_with(POSITION_PREFIX));
    drop(answer);
    assert_eq!(bench.intake.held_bytes(), 0);
}

#[tokio::test]
async fn a_standing_says_what_is_stored_and_what_may_be() {
    let key = || request(RequestName::Key("k".to_owned()), Options::default());
    let bench = Bench::new(MemoryTape::default());
    let unseen = Standing { stored: Vec::new(), is_open: false, reaches_back_ms: 5 };
    assert_eq!(bench.intake.standing("acme", "k", KeyOf::Request), unseen);
    bench.post(key(), &lines(&["1", "0", "2"])).await.unwrap();
    let stored = Standing { stored: vec![0..1, 2..3], ..unseen.clone() };
    assert_eq!(bench.intake.standing("acme", "k", KeyOf::Request), stored);
    assert_eq!(bench.intake.standing("other", "k", KeyOf::Request), unseen, "another account has none");
    assert_eq!(bench.intake.standing("acme", "k", KeyOf::Stream), unseen, "nor has a stream of the name");
    let stream = RequestName::Stream { key: "k".to_owned(), first: 7 };
    bench.post(request(stream, Options::default()), &line("1")).await.unwrap();
    assert_eq!(bench.intake.standing("acme", "k", KeyOf::Stream).stored.first(), Some(&(7..8)));
    for (error, is_open) in [(AppendError::Unknown, true), (AppendError::Refused(Refusal::Draining), false)] {
        let bench = Bench::new(MemoryTape { fails: Some(error), ..MemoryTape::default() });
        bench.post(key(), &line("1")).await.unwrap_err();
        assert_eq!(bench.intake.standing("acme", "k", KeyOf::Request).is_open, is_open);
    }
    let bench = Bench::new(MemoryTape { hangs: true, ..MemoryTape::default() });
    let body = line("1");
    let mut post = Box::pin(bench.post(key(), &body));
    assert!(futures::poll!(&mut post).is_pending());
    assert!(bench.intake.standing("acme", "k", KeyOf::Request).is_open, "under way");
    drop(post);
    assert!(bench.intake.standing("acme", "k", KeyOf::Request).is_open, "nobody waited for its end");
}

#[tokio::test]
async fn the_name_of_a_request_is_its_key_or_its_body() {
    // Both bodies of the key are known, as where two nodes took them at once.
    let bench = Bench::new(MemoryTape { remembered: Remembered::ThisBody, ..MemoryTape::default() });
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
    assert_eq!((whole.verdicts[0].0, part.verdicts[0].0), (1, 1));
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
    assert_eq!((answer.received, answer.accepted, answer.refused), (2, 1, 1));
    assert!(bench.batches().is_empty());
    bench.post(atomic(), &lines(&["1", "2"])).await.unwrap();
    assert!(bench.batches()[0].atomic);
}

#[tokio::test]
async fn nothing_is_stored_where_nothing_is_asked_or_good() {
    let bench = Bench::new(MemoryTape { fails: Some(AppendError::Unknown), ..MemoryTape::default() });
    let validate = request(RequestName::Body, Options { validate: true, ..Options::default() });
    let answer = bench.post(validate, &lines(&["1", "0"])).await.unwrap();
    assert_eq!((answer.accepted, answer.refused, &answer.position), (1, 1, &None));
    let answer = bench.post(plain(), &lines(&["0"])).await.unwrap();
    assert_eq!((answer.received, answer.accepted, &answer.position), (1, 0, &None));
    let nothing = bench.post(plain(), "").await.unwrap();
    assert_eq!((nothing.received, nothing.refused, &nothing.position), (0, 0, &None));
}

#[tokio::test]
async fn a_question_is_answered_with_what_would_become_of_the_request() {
    let ask = |atomic| request(RequestName::Body, Options { atomic, validate: true, ..Options::default() });
    let many = lines(&["1"; 100]);
    let bad = lines(&["1", "0"]);
    let bench = Bench::new(MemoryTape::default());
    for (atomic, body, fate) in [
        (false, &bad, Fate::Stored),
        (true, &bad, Fate::NotAll),
        (false, &many, Fate::Stored),
        (true, &line("1"), Fate::Stored),
    ] {
        let answer = bench.post(ask(atomic), body).await.unwrap();
        assert_eq!((answer.fate, answer.position), (Some(fate), None));
        // And so it becomes.
        let real = request(RequestName::Body, Options { atomic, ..Options::default() });
        let stored = bench.post(real, body).await.map(|answer| answer.position.is_some());
        assert_eq!(stored.is_ok(), !(atomic && *body == bad), "{atomic} {body}");
    }
    let answer = bench.post(ask(true), &many).await.unwrap();
    let Some(Fate::TooLarge(Refusal::TooLarge { bytes, max })) = answer.fate else { panic!("{answer:?}") };
    assert!(bytes > max && max == FRAME_BYTES_MAX && answer.accepted == 100);
    let bench = Bench::new(MemoryTape { remembered: Remembered::OtherBody, ..MemoryTape::default() });
    assert_eq!(bench.post(ask(false), &line("1")).await.unwrap().fate, Some(Fate::KeyReused));
    assert!(bench.batches().is_empty());
}

#[tokio::test]
async fn of_many_bad_ticks_the_first_are_told_and_all_are_counted() {
    let bench = Bench::with_budget(MemoryTape::default(), 20_000);
    let zeros = lines(&["0"; 300]);
    for validate in [false, true] {
        let options = Options { validate, ..Options::default() };
        let answer = bench.post(request(RequestName::Body, options), &zeros).await.unwrap();
        assert_eq!((answer.received, answer.accepted, answer.refused), (300, 0, 300));
        let told: Vec<u32> = answer.verdicts.iter().map(|(index, _)| *index).collect();
        assert_eq!(told, (0..10).collect::<Vec<_>>());
        assert!((1_000..20_000).contains(&bench.intake.held_bytes()), "{}", bench.intake.held_bytes());
        drop(answer);
        assert_eq!(bench.intake.held_bytes(), 0);
    }
}

#[tokio::test]
async fn the_texts_of_a_tick_count() {
    let text = "m".repeat(255);
    let status = format!(
        "{{\"T\":\"s\",\"S\":\"A\",\"sc\":\"{text}\",\"sm\":\"{text}\",\"rc\":\"{text}\",\"rm\":\"{text}\",\
         \"t\":\"2024-01-03T14:30:00Z\"}}\n"
    );
    let held = |body: String| {
        let bench = Bench::with_budget(MemoryTape::default(), 10_000_000);
        let mut taking = bench.intake.begin(plain(), Nanos::parse(b"2024-01-03T15:00:00Z").unwrap()).unwrap();
        taking.feed(body.as_bytes()).unwrap();
        bench.intake.held_bytes()
    };
    let (trades, statuses) = (held(lines(&["1"; 500])), held(status.repeat(500)));
    assert!(statuses - trades > 500 * 4 * 255 - 2 * 64 * 1024, "{trades} {statuses}");
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
    let bench = Bench::new(MemoryTape { remembered: Remembered::OtherBody, ..MemoryTape::default() });
    let error = bench.post(plain(), &line("1")).await.unwrap_err();
    assert!(matches!(error, TakeError::KeyReused), "{error}");
    assert!(bench.batches().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_with_two_bodies_at_once_is_refused_and_the_same_body_goes_on() {
    let bench = Bench::new(MemoryTape { hangs: true, ..MemoryTape::default() });
    let key = || request(RequestName::Key("k".to_owned()), Options::default());
    let (one, other) = (line("1"), line("2"));
    let mut first = Box::pin(bench.post(key(), &one));
    assert!(futures::poll!(&mut first).is_pending());
    let error = bench.post(key(), &other).await.unwrap_err();
    assert!(matches!(error, TakeError::KeyReused), "{error}");
    let mut same = Box::pin(bench.post(key(), &one));
    assert!(futures::poll!(&mut same).is_pending(), "a repetition is appended too");
    for request in [first, same] {
        assert!(matches!(request.await.unwrap_err(), TakeError::Append(AppendError::Unknown)));
    }
    let error = bench.post(key(), &other).await.unwrap_err();
    assert!(matches!(error, TakeError::KeyReused), "the first may be stored yet: {error}");
}

#[tokio::test]
async fn a_key_is_free_again_where_nothing_was_stored_and_each_remembered_body_may_be_repeated() {
    let key = || request(RequestName::Key("k".to_owned()), Options::default());
    let full = Refusal::Full { queued: 2, max: 1 };
    let bench = Bench::new(MemoryTape { fails: Some(full.into()), ..MemoryTape::default() });
    for body in [line("1"), line("2")] {
        let error = bench.post(key(), &body).await.unwrap_err();
        assert!(matches!(error, TakeError::Append(AppendError::Refused(_))), "{error}");
    }
    let bench = Bench::new(MemoryTape { remembered: Remembered::ThisBody, ..MemoryTape::default() });
    for body in [line("1"), line("2"), line("1")] {
        bench.post(key(), &body).await.unwrap();
    }
}

/// Where all regions are asked for, the answer waits for them, and says where that is not known in time.
#[tokio::test(start_paused = true)]
async fn all_regions_are_waited_for() {
    for (known, waits_ms) in [(Some(true), 0), (Some(false), 0), (None, 4_000)] {
        let bench = Bench::new(MemoryTape { elsewhere: Some(known), ..MemoryTape::default() });
        let begun = tokio::time::Instant::now();
        let global = request(RequestName::Body, Options { ack: Ack::Global, ..Options::default() });
        match bench.post(global, &line("1")).await {
            Ok(answer) => assert!(known == Some(true) && answer.position.is_some()),
            Err(TakeError::Append(AppendError::RegionOnly)) => assert_ne!(known, Some(true)),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(begun.elapsed().as_millis(), waits_ms);
        assert_eq!(bench.batches()[0].ack, Ack::Global);
    }
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
    // Decoded ticks count, not the bytes that named them.
    let error = bench.post(plain(), &lines(&["1"; 100])).await.unwrap_err();
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
