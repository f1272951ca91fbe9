//! Posting the lines of a file by their numbers, for `import` and `replay`.
//!
//! Both send the same three headers: the key `file`, the SHA-256 of the decompressed file and
//! the number of the first line of the body. The node names a tick without an exchange's id by
//! these and the line's own number, so that whatever is sent twice, by either of them, in other
//! pieces or after a crash, is one tick.
//!
//! A batch is at most 4,096 lines or 512 KiB; a line that holds no tick is sent empty, so that
//! those behind it keep their numbers. A batch that the node finds too large is cut in halves.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::CliError;
use super::client::{ClientError, Connection};
use super::files::{Entries, Entry, FileError, TickFile};
use super::progress::Progress;

/// The key of the lines of a file; with its digest it names the file.
const LINES_KEY: &str = "file";
/// The most lines of one request.
const BATCH_LINES_MAX: usize = 4_096;
/// The most bytes of one request before compression, unless one line has more.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Fast, and five to ten times smaller.
const ZSTD_LEVEL: i32 = 1;
/// A body that would shrink to less than one part in so many is sent as it is, for a node takes
/// it for a bomb.
const ZSTD_RATIO_MAX: usize = 100;
/// How many refusals are shown; all are in the file of `--refused`.
const REFUSALS_SHOWN: usize = 20;
/// Batches that wait for the node behind the reader.
const QUEUE_BATCHES: usize = 2;

/// Why posting a file ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node, at a batch.
    #[error("{unit} {first} to {last}: {source}")]
    Node {
        /// What an entry of the file is called.
        unit: &'static str,
        /// The first of the batch, counted from 1.
        first: u64,
        /// The last of the batch.
        last: u64,
        /// What went wrong.
        source: ClientError,
    },
    /// The connection could not be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The list of refused lines or standard output cannot be written.
    #[error("{what}: {source}")]
    Output {
        /// What was written.
        what: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// All of the file was posted, and the node or this program has refused some of it.
    #[error("{refused} of {entries} {unit} were refused")]
    Partly {
        /// How many were refused.
        refused: u64,
        /// Of how many.
        entries: u64,
        /// What an entry of the file is called.
        unit: &'static str,
    },
    /// A task of this program ended early.
    #[error("the reader of the file ended early")]
    Reader,
}

impl From<PostError> for CliError {
    fn from(error: PostError) -> Self {
        let failed = Self::failed(error.to_string());
        match error {
            PostError::Node { .. } => {
                failed.next("the same command again goes on, and what was taken already is not taken twice")
            }
            _ => failed,
        }
    }
}

/// Entries of a file that are posted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.text.len() + 1;
        self.entries.push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_LINES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// The entries of a file in batches, read by a thread of their own. It ends when the
/// receiver is dropped.
pub(super) fn batches(entries: Entries) -> mpsc::Receiver<Result<Batch, FileError>> {
    let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
    tokio::task::spawn_blocking(move || {
        let mut batch = Batch::default();
        for entry in entries {
            match entry {
                Ok(entry) => batch.push(entry),
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
            if batch.is_full() && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
        }
        if !batch.is_empty() {
            let _ = sender.blocking_send(Ok(batch));
        }
    });
    receiver
}

/// Reads a file once on a thread of its own, for its digest; that takes its time, and is shown.
pub(super) async fn open(args: super::files::FileArgs) -> Result<TickFile, PostError> {
    let read = move || {
        let progress = Progress::new("reading", "MiB", Some(0));
        TickFile::open(args, |done, total| progress.set_of(done >> 20, done, total))
    };
    Ok(tokio::task::spawn_blocking(read).await.map_err(|_| PostError::Reader)??)
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) entries: u64,
    pub(super) accepted: u64,
    pub(super) refused: Vec<Refusal>,
    /// How far the file had been read with this batch.
    pub(super) bytes_read: u64,
}

/// One entry that was refused, by this program or by the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// From 0.
    pub(super) number: u32,
    pub(super) why: String,
    pub(super) verdict: Option<Verdict>,
    pub(super) text: Vec<u8>,
}

/// The node's verdict on a refused tick.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Verdict {
    #[serde(skip_serializing)]
    index: u32,
    field: String,
    #[serde(default)]
    value: serde_json::Value,
    why: String,
    #[serde(default)]
    expected: String,
}

impl Verdict {
    fn sentence(&self) -> String {
        let value = match &self.value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        let subject = [self.field.as_str(), value.as_str()].join(" ");
        format!("{} {}: {}", subject.trim_end(), self.why, self.expected)
    }
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    #[serde(default)]
    verdicts: Vec<Verdict>,
    /// Refusals that are not among the verdicts.
    #[serde(default)]
    verdicts_omitted: u64,
}

/// Posts batches of one file.
#[derive(Clone, Debug)]
pub(super) struct Poster {
    connection: Connection,
    digest: String,
    path: &'static str,
    unit: &'static str,
}

impl Poster {
    /// `backfill`: history takes the ticks, live streams and latest values do not.
    pub(super) fn new(connection: Connection, file: &TickFile, backfill: bool) -> Self {
        let path = if backfill { "/v1/ticks?backfill=true" } else { "/v1/ticks" };
        Self { connection, digest: file.digest_hex(), path, unit: file.unit() }
    }

    /// Posts a batch until it is taken. `on_wait` is told why it is not yet.
    pub(super) async fn post(&self, batch: &Batch, on_wait: impl Fn(&str)) -> Result<Outcome, PostError> {
        let mut outcome = Outcome {
            entries: batch.entries.len() as u64,
            bytes_read: batch.entries.last().map_or(0, |entry| entry.bytes_read),
            ..Outcome::default()
        };
        for entry in &batch.entries {
            if let Some(why) = &entry.refused {
                let (number, text) = (entry.number, entry.text.clone());
                outcome.refused.push(Refusal { number, why: why.clone(), verdict: None, text });
            }
        }
        let mut parts = vec![batch.entries.as_slice()];
        while let Some(part) = parts.pop() {
            match self.post_part(part, &on_wait).await {
                // Each refused entry is told: halves are posted until all are, which stores
                // nothing twice, since the entries keep their numbers.
                Ok(Some(answer)) if answer.verdicts_omitted > 0 && part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Ok(Some(answer)) => take(answer, part, &mut outcome),
                Ok(None) => {}
                Err(ClientError::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(source) => {
                    let number = |entry: Option<&Entry>| entry.map_or(0, |entry| u64::from(entry.number) + 1);
                    let (first, last) = (number(part.first()), number(part.last()));
                    return Err(PostError::Node { unit: self.unit, first, last, source });
                }
            }
        }
        outcome.refused.sort_by_key(|refusal| refusal.number);
        Ok(outcome)
    }

    /// Posts entries as one body; `None` where none of them holds a tick.
    async fn post_part(
        &self,
        part: &[Entry],
        on_wait: &impl Fn(&str),
    ) -> Result<Option<Answer>, ClientError> {
        let Some(first) = part.first().filter(|_| part.iter().any(|entry| entry.refused.is_none())) else {
            return Ok(None);
        };
        let mut body = Vec::with_capacity(BATCH_BYTES_MAX);
        for entry in part {
            if entry.refused.is_none() {
                body.extend_from_slice(&entry.text);
            }
            body.push(b'\n');
        }
        let plain = bytes::Bytes::from(body);
        let compressed = zstd::bulk::compress(&plain, ZSTD_LEVEL).ok().map(bytes::Bytes::from);
        let compressed = compressed.filter(|bytes| bytes.len() * ZSTD_RATIO_MAX > plain.len());
        let make = || {
            let request = self
                .connection
                .request(Method::POST, self.path)
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .header("Tapeline-Lines-Key", LINES_KEY)
                .header("Tapeline-Lines-Digest", &self.digest)
                .header("Tapeline-Lines-First", first.number);
            match &compressed {
                Some(bytes) => request.header(header::CONTENT_ENCODING, "zstd").body(bytes.clone()),
                None => request.body(plain.clone()),
            }
        };
        let (_, answer) = self.connection.send(make, |why| on_wait(why)).await?;
        serde_json::from_slice(&answer).map(Some).map_err(|error| ClientError::Answer(error.to_string()))
    }
}

fn take(answer: Answer, part: &[Entry], outcome: &mut Outcome) {
    outcome.accepted += answer.accepted;
    let first = part.first().map_or(0, |entry| entry.number);
    for verdict in answer.verdicts {
        let number = verdict.index;
        let entry = number.checked_sub(first).and_then(|at| part.get(usize::try_from(at).ok()?));
        let text = entry.map(|entry| entry.text.clone()).unwrap_or_default();
        outcome.refused.push(Refusal { number, why: verdict.sentence(), verdict: Some(verdict), text });
    }
}

/// Adds up what became of a file.
pub(super) struct Tally {
    unit: &'static str,
    pub(super) entries: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) bytes_read: u64,
    shown: Vec<String>,
    list: Option<(PathBuf, BufWriter<File>)>,
}

impl Tally {
    /// `list`: the file that gets every refusal, one JSON object a line.
    pub(super) fn new(unit: &'static str, list: Option<&Path>) -> Result<Self, PostError> {
        let open = |path: &Path| {
            let file = File::create(path).map_err(|source| output(path, source))?;
            Ok::<_, PostError>((path.to_owned(), BufWriter::new(file)))
        };
        let list = list.map(open).transpose()?;
        Ok(Self { unit, entries: 0, accepted: 0, refused: 0, bytes_read: 0, shown: Vec::new(), list })
    }

    /// Adds the outcome of a batch.
    pub(super) fn add(&mut self, outcome: &Outcome) -> Result<(), PostError> {
        self.entries += outcome.entries;
        self.accepted += outcome.accepted;
        self.refused += outcome.refused.len() as u64;
        self.bytes_read = self.bytes_read.max(outcome.bytes_read);
        let one = self.unit.trim_end_matches('s');
        for refusal in &outcome.refused {
            if self.shown.len() < REFUSALS_SHOWN {
                self.shown.push(format!("{one} {}: {}", u64::from(refusal.number) + 1, refusal.why));
            }
            if let Some((path, list)) = &mut self.list {
                writeln!(list, "{}", listed(one, refusal)).map_err(|source| output(path, source))?;
            }
        }
        Ok(())
    }

    /// Writes the summary; ends the list.
    pub(super) fn finish(
        mut self,
        verb: &str,
        took: std::time::Duration,
        out: &mut dyn Write,
    ) -> Result<(), PostError> {
        if let Some((path, list)) = &mut self.list {
            list.flush().map_err(|source| output(path, source))?;
        }
        let text = self.summary(verb, took);
        out.write_all(text.as_bytes()).or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(PostError::Output { what: "standard output".to_owned(), source: error }),
        })?;
        let Self { refused, entries, unit, .. } = self;
        if refused > 0 { Err(PostError::Partly { refused, entries, unit }) } else { Ok(()) }
    }

    fn summary(&self, verb: &str, took: std::time::Duration) -> String {
        let Self { unit, entries, accepted, refused, .. } = self;
        let rate = super::progress::rate(*entries, took, unit);
        let mut text = format!("{verb} {entries} {unit} in {} ms ({rate})\n", took.as_millis());
        text.push_str(&format!("accepted {accepted}, refused {refused}\n"));
        for line in &self.shown {
            text.push_str(&format!("  {line}\n"));
        }
        let more = refused.saturating_sub(self.shown.len() as u64);
        if more > 0 {
            let all = match &self.list {
                Some((path, _)) => format!("all are in {}", path.display()),
                None => "--refused FILE lists all".to_owned(),
            };
            text.push_str(&format!("  and {more} more; {all}\n"));
        }
        text
    }
}

/// A refusal as one JSON object.
fn listed(one: &str, refusal: &Refusal) -> String {
    let mut object = serde_json::Map::new();
    object.insert(one.to_owned(), (u64::from(refusal.number) + 1).into());
    match refusal.verdict.as_ref().map(serde_json::to_value) {
        Some(Ok(serde_json::Value::Object(verdict))) => object.extend(verdict),
        _ => {
            object.insert("why".to_owned(), refusal.why.clone().into());
        }
    }
    object.insert("text".to_owned(), String::from_utf8_lossy(&refusal.text).into());
    serde_json::Value::Object(object).to_string()
}

fn output(path: &Path, source: std::io::Error) -> PostError {
    PostError::Output { what: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stub::{Reply, Stub};

    fn entry(number: u32, text: &str, refused: Option<&str>) -> Entry {
        let refused = refused.map(str::to_owned);
        Entry { number, text: text.into(), refused, bytes_read: u64::from(number) * 10 }
    }

    fn batch(entries: &[Entry]) -> Batch {
        let mut batch = Batch::default();
        entries.iter().cloned().for_each(|entry| batch.push(entry));
        batch
    }

    fn poster(stub: &Stub) -> Poster {
        let (digest, path) = ("ab".repeat(32), "/v1/ticks?backfill=true");
        Poster { connection: stub.connection(), digest, path, unit: "lines" }
    }

    #[tokio::test]
    async fn lines_keep_their_numbers_and_refusals_are_told_by_them() {
        let stub = Stub::start(|request| {
            assert_eq!(request.text(), "one\n\nthree\n");
            assert_eq!(request.header("tapeline-lines-first"), "7");
            assert_eq!(request.header("tapeline-lines-key"), "file");
            assert_eq!(request.header("tapeline-lines-digest"), "ab".repeat(32));
            assert_eq!(request.header("apca-api-key-id"), "id");
            assert!(request.line.starts_with("POST /v1/ticks?backfill=true "), "{}", request.line);
            let verdict =
                r#"{"index":9,"field":"p","value":"0","why":"is not above zero","expected":"a price"}"#;
            Reply::json(
                200,
                &format!(r#"{{"accepted":1,"refused":1,"position":"x","verdicts":[{verdict}]}}"#),
            )
        })
        .await;
        let entries = [entry(7, "one", None), entry(8, "junk", Some("is no JSON")), entry(9, "three", None)];
        let outcome = poster(&stub).post(&batch(&entries), |_| ()).await.unwrap();
        assert_eq!((outcome.entries, outcome.accepted, outcome.bytes_read), (3, 1, 90));
        let refused: Vec<_> = outcome
            .refused
            .iter()
            .map(|refusal| (refusal.number, refusal.why.as_str(), refusal.text.clone()))
            .collect();
        assert_eq!(
            refused,
            [(8, "is no JSON", b"junk".to_vec()), (9, "p 0 is not above zero: a price", b"three".to_vec())]
        );
        let json: serde_json::Value = serde_json::from_str(&listed("line", &outcome.refused[1])).unwrap();
        assert_eq!(json["line"], 10);
        assert_eq!((&json["field"], &json["text"]), (&"p".into(), &"three".into()));
    }

    #[tokio::test]
    async fn later_is_asked_again_with_the_same_body_and_numbers() {
        let mut seen = Vec::new();
        let stub = Stub::start(move |request| {
            seen.push((request.text(), request.header("tapeline-lines-first")));
            assert!(seen.iter().all(|one| *one == seen[0]));
            match seen.len() {
                1 => Reply::json(503, r#"{"code":1,"message":"later","outcome":"unknown"}"#)
                    .with("Retry-After", "3"),
                2 => Reply::json(429, r#"{"code":1,"message":"too many requests."}"#),
                3 => Reply::cut(),
                _ => Reply::json(200, r#"{"accepted":1,"refused":0}"#),
            }
        })
        .await;
        let waits = std::cell::RefCell::new(Vec::new());
        let batch = batch(&[entry(0, "one", None)]);
        let outcome =
            poster(&stub).post(&batch, |why| waits.borrow_mut().push(why.to_owned())).await.unwrap();
        assert_eq!(outcome.accepted, 1);
        let waits = waits.into_inner();
        assert!(waits.len() == 3 && waits[0].contains("later") && waits[1].contains("429"), "{waits:?}");
    }

    #[tokio::test]
    async fn what_an_answer_does_not_list_is_asked_for_in_parts() {
        let stub = Stub::start(move |request| {
            let first: u32 = request.header("tapeline-lines-first").parse().unwrap();
            let lines = request.text().lines().count();
            let verdict = format!(r#"{{"index":{first},"field":"p","value":"0","why":"w","expected":"e"}}"#);
            let omitted = lines - 1;
            Reply::json(
                200,
                &format!(r#"{{"accepted":0,"verdicts":[{verdict}],"verdicts_omitted":{omitted}}}"#),
            )
        })
        .await;
        let entries: Vec<Entry> = (0..5).map(|number| entry(number, "x", None)).collect();
        let outcome = poster(&stub).post(&batch(&entries), |_| ()).await.unwrap();
        let numbers: Vec<u32> = outcome.refused.iter().map(|refusal| refusal.number).collect();
        assert_eq!((outcome.accepted, numbers), (0, vec![0, 1, 2, 3, 4]));
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_cut_and_keeps_its_numbers() {
        let stub = Stub::start(|request| {
            let lines = request.text().lines().count();
            if lines > 2 {
                return Reply::json(413, r#"{"code":1,"message":"too large"}"#);
            }
            let firsts = ["0", "2", "3"];
            assert!(firsts.contains(&request.header("tapeline-lines-first").as_str()));
            Reply::json(200, &format!(r#"{{"accepted":{lines},"refused":0}}"#))
        })
        .await;
        let entries: Vec<Entry> = (0..5).map(|number| entry(number, "x", None)).collect();
        let outcome = poster(&stub).post(&batch(&entries), |_| ()).await.unwrap();
        assert_eq!(outcome.accepted, 5);
    }

    #[tokio::test]
    async fn what_will_not_change_ends_at_once_and_says_where() {
        let stub = Stub::start(|_| Reply::json(403, r#"{"code":1,"message":"no scope ticks:write"}"#)).await;
        let entries = [entry(4, "x", None), entry(5, "y", None)];
        let error = poster(&stub).post(&batch(&entries), |_| ()).await.unwrap_err().to_string();
        assert!(error.contains("lines 5 to 6") && error.contains("403: no scope"), "{error}");
        let empty = poster(&stub).post(&batch(&[entry(0, "", Some("is empty"))]), |_| ()).await.unwrap();
        assert_eq!((empty.entries, empty.accepted, empty.refused.len()), (1, 0, 1));
    }

    #[tokio::test]
    async fn patience_ends() {
        let stub = Stub::start(|_| Reply::json(503, r#"{"code":1,"message":"full"}"#)).await;
        let error = poster(&stub).post(&batch(&[entry(0, "x", None)]), |_| ()).await.unwrap_err().to_string();
        assert!(error.contains("gave up") && error.contains("full"), "{error}");
    }

    #[test]
    fn the_summary_shows_the_first_refusals_and_says_where_all_are() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("refused.ndjson");
        let refused: Vec<Refusal> = (0..25)
            .map(|number| Refusal { number, why: "is empty".to_owned(), verdict: None, text: Vec::new() })
            .collect();
        let outcome = Outcome { entries: 30, accepted: 5, refused, bytes_read: 1 };
        let mut tally = Tally::new("records", Some(&list)).unwrap();
        tally.add(&outcome).unwrap();
        let mut out = Vec::new();
        let took = std::time::Duration::from_secs(2);
        let partly = tally.finish("imported", took, &mut out).unwrap_err().to_string();
        assert_eq!(partly, "25 of 30 records were refused");
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("imported 30 records in 2000 ms (15 records/s)\naccepted 5,"), "{text}");
        assert!(text.contains("  record 20: is empty\n  and 5 more; all are in "), "{text}");
        assert_eq!(std::fs::read_to_string(&list).unwrap().lines().count(), 25);

        let whole = Tally::new("lines", None).unwrap();
        whole.finish("imported", took, &mut Vec::new()).unwrap();
    }
}
