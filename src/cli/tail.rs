//! `tapeline tail`: follows symbols live, as NDJSON.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{ClientError, Connection, RETRY_S_DEFAULT};
use super::progress::Progress;
use super::{CliError, ClientArgs, Use};
use crate::live::Channel;

/// A stream that gives nothing for so long, not even a heartbeat, is opened again.
const SILENCE: Duration = Duration::from_secs(60);
/// A line longer than this is no event.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// Follow symbols live and print each tick as it becomes durable
///
/// Each line is a tick in the form that `tapeline import` takes, with when the node received it
/// (`r`) and its tick id (`id`). Where the connection breaks it goes on where it was; what is lost
/// to a stream is said on standard error.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct TailArgs {
    /// Symbols, or * for all
    #[arg(value_name = "SYMBOL", required = true, value_delimiter = ',')]
    symbols: Vec<String>,
    /// What of them: trades, quotes, bars, updatedBars, dailyBars, statuses, lulds
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "trades", value_parser = kind)]
    kinds: Vec<String>,
    /// Begin with what was received since this time, some minutes back
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End after so many ticks
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
    /// How long a node that is away or overloaded is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_S_DEFAULT)]
    retry_s: u64,
}

const HELP: &str = "\
Examples:
  tapeline tail AAPL
  tapeline tail AAPL,MSFT --kinds trades,quotes,bars --ready-file ready.json
  tapeline tail '*' --kinds bars --since 2024-01-03T14:30:00Z | jq .c";

fn kind(text: &str) -> Result<String, String> {
    let names = Channel::ASKED.map(Channel::name);
    if names.contains(&text) { Ok(text.to_owned()) } else { Err(format!("one of {}", names.join(", "))) }
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
enum TailError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    #[error("the node has ended the stream: {0}")]
    Ended(String),
}

impl From<TailError> for CliError {
    fn from(error: TailError) -> Self {
        Self::failed(error.to_string())
    }
}

/// Prints until it is stopped. A reader that goes away (`| head`) ends it without an error.
///
/// # Errors
/// [`CliError`] where the node does not answer or the output cannot be written.
pub(super) async fn run(args: TailArgs) -> Result<(), CliError> {
    let client = args.client.clone().client(Use::Read)?;
    let connection = Connection::new(client, args.retry_s).map_err(TailError::from)?;
    let progress = Progress::beside_output("following", "ticks", args.limit);
    let mut tail = Tail::new(args, progress);
    let mut out = io::stdout();
    let followed = tokio::select! {
        followed = tail.follow(&connection, &mut out) => followed,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    tail.progress.finish();
    match followed {
        Err(TailError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Ticks that are told apart behind a cut, at most; more are printed again.
const REPEATED_MAX: usize = 262_144;

struct Tail {
    args: TailArgs,
    printed: u64,
    cursor: Option<String>,
    /// Digests of what came with the cursor and after it: that comes again behind a cut.
    since_cursor: HashSet<[u8; 32]>,
    /// What may come again on this connection.
    repeated: HashSet<[u8; 32]>,
    progress: Progress,
}

/// An event under way.
#[derive(Default)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

#[derive(Deserialize)]
struct GapOut {
    from: String,
    to: String,
}

impl Tail {
    fn new(args: TailArgs, progress: Progress) -> Self {
        let (since_cursor, repeated) = Default::default();
        Self { args, printed: 0, cursor: None, since_cursor, repeated, progress }
    }

    fn path(&self) -> String {
        let symbols = self.args.symbols.join(",").replace('/', "%2F");
        let mut path = String::from("/v1/stream?");
        for kind in &self.args.kinds {
            path.push_str(&format!("{kind}={symbols}&"));
        }
        if let Some(since) = &self.args.since {
            path.push_str(&format!("since={}", since.replace('+', "%2B")));
        }
        path
    }

    fn is_done(&self) -> bool {
        self.args.limit.is_some_and(|limit| self.printed >= limit)
    }

    async fn follow(&mut self, connection: &Connection, out: &mut impl Write) -> Result<(), TailError> {
        let path = self.path();
        loop {
            let cursor = self.cursor.clone();
            let make = || {
                let request = connection.request(Method::GET, &path).timeout(Duration::MAX);
                match cursor.as_deref().and_then(|cursor| HeaderValue::from_str(cursor).ok()) {
                    Some(cursor) => request.header("Last-Event-ID", cursor),
                    None => request,
                }
            };
            let response = connection.open(make, |why| self.progress.waiting(why)).await?;
            let came = std::mem::take(&mut self.since_cursor);
            self.repeated.extend(came.into_iter().take(REPEATED_MAX.saturating_sub(self.repeated.len())));
            self.read(response, out).await?;
            if self.is_done() {
                return Ok(out.flush()?);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads one connection to its end.
    async fn read(&mut self, mut response: reqwest::Response, out: &mut impl Write) -> Result<(), TailError> {
        let (mut rest, mut event) = (Vec::new(), Event::default());
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, response.chunk()).await {
            rest.extend_from_slice(&chunk);
            let mut begun = 0;
            while let Some(length) = rest.get(begun..).and_then(|rest| memchr::memchr(b'\n', rest)) {
                let line = rest.get(begun..begun + length).unwrap_or_default();
                let line = String::from_utf8_lossy(line).into_owned();
                begun += length + 1;
                self.line(&line, &mut event, out)?;
                if self.is_done() {
                    return Ok(());
                }
            }
            rest.drain(..begun);
            out.flush()?;
            if rest.len() > LINE_BYTES_MAX {
                return Err(ClientError::Answer("a line without an end".to_owned()).into());
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str, event: &mut Event, out: &mut impl Write) -> Result<(), TailError> {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.name),
            "data" => value.clone_into(&mut event.data),
            "" if line.is_empty() => return self.event(&std::mem::take(event), out),
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, out: &mut impl Write) -> Result<(), TailError> {
        let bad = |error: serde_json::Error| ClientError::Answer(error.to_string());
        // The cursor of who has had all of this event: one that was cut off moves nothing.
        if let Some(id) = &event.id {
            self.cursor = Some(id.clone());
            self.since_cursor.clear();
        }
        match event.name.as_str() {
            "" if event.data.is_empty() => {}
            "" => {
                let ticks: Vec<Box<RawValue>> = serde_json::from_str(&event.data).map_err(bad)?;
                for tick in ticks {
                    if self.is_done() {
                        break;
                    }
                    let digest = *blake3::hash(tick.get().as_bytes()).as_bytes();
                    self.since_cursor.insert(digest);
                    // Received once and with an id of its own, a tick is told in the same bytes again.
                    if !self.repeated.remove(&digest) {
                        writeln!(out, "{tick}")?;
                        self.printed += 1;
                    }
                }
                self.progress.set(self.printed, self.printed);
            }
            "gap" => {
                let gap: GapOut = serde_json::from_str(&event.data).map_err(bad)?;
                let (from, to) = (gap.from, gap.to);
                self.progress.note(&format!(
                    "warning: a stream no longer reaches what came from {from} to {to}; `tapeline query` does"
                ));
            }
            "end" if event.data.contains("revoked") => {
                return Err(TailError::Ended("the key is no longer good".to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::cli::stub::{Reply, Stub};

    const FIRST: &str = "retry: 1000\nid: c1.one\nevent: connected\ndata: {}\n\n\
        id: c1.two\ndata: [{\"T\":\"t\",\"S\":\"A\",\"p\":1.10}]\n\n: heartbeat\n\n\
        data: [{\"T\":\"t\",\"S\":\"A\",\"p\":1.20}]\n\n";
    const SECOND: &str = "event: gap\ndata: {\"from\":\"a\",\"to\":\"b\",\"reason\":\"too_old\"}\n\n\
        data: [{\"T\":\"t\",\"S\":\"A\",\"p\":1.20},{\"T\":\"t\",\"S\":\"A\",\"p\":2}]\n\n\
        data: [{\"T\":\"t\",\"S\":\"A\",\"p\":3}]\n\n";

    #[tokio::test]
    async fn it_goes_on_where_a_stream_broke_off() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        let stub = Stub::start(move |request| {
            let mut asked = told.lock().unwrap();
            asked.push((request.line.clone(), request.header("last-event-id")));
            match asked.len() {
                1 => Reply::json(200, FIRST),
                2 => Reply::json(503, "{}"),
                _ => Reply::json(200, SECOND),
            }
        });
        let stub = stub.await;
        let args = TailArgs {
            symbols: vec!["A".to_owned(), "B".to_owned()],
            kinds: vec!["trades".to_owned(), "quotes".to_owned()],
            since: None,
            limit: Some(3),
            client: ClientArgs::default(),
            retry_s: 60,
        };
        let progress = Progress::beside_output("following", "ticks", Some(3));
        let mut tail = Tail::new(args, progress);
        let mut out = Vec::new();
        tail.follow(&stub.connection(), &mut out).await.unwrap();
        let lines = String::from_utf8(out).unwrap();
        let prices = lines.lines().map(|line| line.rsplit_once(':').unwrap().1).collect::<Vec<_>>();
        assert_eq!(prices, ["1.10}", "1.20}", "2}"], "what comes again is not printed again");
        let asked = asked.lock().unwrap();
        assert!(asked[0].0.contains("/v1/stream?trades=A,B&quotes=A,B&"), "{asked:?}");
        let cursors: Vec<&str> = asked.iter().map(|(_, cursor)| cursor.as_str()).collect();
        assert_eq!(cursors, ["", "c1.two", "c1.two"]);
    }
}
