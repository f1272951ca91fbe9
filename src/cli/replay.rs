//! `tapeline replay`: a file of ticks as if they happened now.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Connection, RETRY_S_DEFAULT};
use super::files::{Entry, FILES_HELP, FileArgs, TickFile};
use super::posting::{Batch, PostError, Poster, Tally, batches, open};
use super::progress::Progress;
use super::{CliError, ClientArgs, Use};
use crate::market::{Nanos, Price};
use crate::wire::{ReadLimits, json};

/// Lines that are due within this time of each other go in one request.
const TOGETHER: Duration = Duration::from_millis(20);

/// Replay a file of ticks as live ticks, at recorded or multiplied speed
///
/// Each tick keeps its recorded time and is posted, in the order of the file, when as much time
/// has passed since the first as in the recording. A line whose time is before that of the line
/// in front of it goes with that one. Latest values and history get the ticks; a file
/// that was imported or replayed before adds nothing to history.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    client: ClientArgs,
    /// How long a node that is away or overloaded is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_S_DEFAULT)]
    retry_s: u64,
    /// How many times faster than recorded, such as 1, 0.5 or 100
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    speed: Speed,
    /// Pauses of the recording are cut to this many seconds of it
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pause_max_s: u32,
    /// File that gets every refused line, one JSON object a line
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
}

fn help() -> String {
    format!(
        "Examples:
  tapeline replay trades.ndjson.gz
  tapeline replay trades.ndjson.gz --speed 100 --pause-max-s 60
  tapeline replay xnas-itch.trades.dbn.zst --speed 0.5 --ready-file ready.json

{FILES_HELP}"
    )
}

/// How many times faster than recorded, in units of 1e-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speed(i64);

fn speed(text: &str) -> Result<Speed, String> {
    let Price(units) = Price::parse(text.as_bytes()).map_err(|error| format!("{error}"))?;
    if units > 0 { Ok(Speed(units)) } else { Err("is not above zero".to_owned()) }
}

/// When the ticks of a recording are due, from the first.
#[derive(Clone, Debug)]
struct Schedule {
    speed: Speed,
    pause_max: i64,
    /// The latest time of the recording so far.
    latest: Option<Nanos>,
    /// How much of the recording has passed, in its nanoseconds, pauses cut.
    passed: i64,
}

impl Schedule {
    const fn new(speed: Speed, pause_max_s: u32) -> Self {
        Self { speed, pause_max: pause_max_s as i64 * Nanos::SECOND, latest: None, passed: 0 }
    }

    /// When a tick of this time is due, after the first.
    fn due(&mut self, time: Nanos) -> Duration {
        let latest = self.latest.map_or(time, |latest| latest.max(time));
        let gap = self.latest.map_or(0, |before| latest.0.saturating_sub(before.0));
        self.passed = self.passed.saturating_add(gap.min(self.pause_max));
        self.latest = Some(latest);
        let nanos = i128::from(self.passed) * i128::from(Price::ONE) / i128::from(self.speed.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Replays a file; the summary goes to standard output.
///
/// # Errors
/// [`CliError`] where the file cannot be read, or the node does not take all of it.
pub(super) async fn run(args: ReplayArgs) -> Result<(), CliError> {
    let connection =
        Connection::new(args.client.client(Use::Write)?, args.retry_s).map_err(PostError::from)?;
    Ok(replay(args, connection, &mut std::io::stdout()).await?)
}

async fn replay(args: ReplayArgs, connection: Connection, out: &mut dyn Write) -> Result<(), PostError> {
    let file = open(args.file).await?;
    let depth_max = ReadLimits::default().depth_max;
    let mut schedule = Schedule::new(args.speed, args.pause_max_s);
    let (entries, length) = extent(&file, schedule.clone(), depth_max).await?;
    let steps = if length >= TIMED { Steps::Time } else { Steps::Entries };
    let mut replay = Replay {
        poster: Poster::new(connection, &file, false),
        tally: Tally::new(file.unit(), args.refused.as_deref())?,
        progress: Progress::new("replaying", file.unit(), Some(steps.of(entries, length))),
        steps,
    };
    let begun = Instant::now();
    // Lines that wait, and when the first of them is due.
    let (mut waiting, mut waiting_due) = (Batch::default(), Duration::ZERO);
    let mut read = batches(file.entries()?);
    while let Some(batch) = read.recv().await {
        for entry in batch?.into_entries() {
            // A line without a time goes with the one in front of it.
            let due = time_of(&entry, depth_max).map_or(waiting_due, |time| schedule.due(time));
            // What is overdue, because the node was slow, goes in larger pieces.
            let together = begun.elapsed().max(waiting_due + TOGETHER);
            if waiting.is_full() || (!waiting.is_empty() && due > together) {
                replay.post(std::mem::take(&mut waiting), begun, waiting_due).await?;
            }
            if waiting.is_empty() {
                waiting_due = due;
            }
            waiting.push(entry);
        }
    }
    if !waiting.is_empty() {
        replay.post(waiting, begun, waiting_due).await?;
    }
    replay.tally.finish("replayed", replay.progress.finish(), out)
}

/// How many entries a file has, and how long its replay takes at this speed.
async fn extent(
    file: &TickFile,
    mut schedule: Schedule,
    depth_max: usize,
) -> Result<(u64, Duration), PostError> {
    let (mut entries, mut length) = (0, Duration::ZERO);
    let mut read = batches(file.entries()?);
    while let Some(batch) = read.recv().await {
        for entry in batch?.into_entries() {
            entries += 1;
            length = time_of(&entry, depth_max).map_or(length, |time| schedule.due(time));
        }
    }
    Ok((entries, length))
}

/// What the progress of a replay is measured in: time, unless it takes next to none.
#[derive(Clone, Copy, Debug)]
enum Steps {
    Time,
    Entries,
}

/// A replay that takes less is measured in entries.
const TIMED: Duration = Duration::from_secs(5);

impl Steps {
    fn of(self, entries: u64, due: Duration) -> u64 {
        match self {
            Self::Time => u64::try_from(due.as_millis()).unwrap_or(u64::MAX),
            Self::Entries => entries,
        }
    }
}

struct Replay {
    poster: Poster,
    tally: Tally,
    progress: Progress,
    steps: Steps,
}

impl Replay {
    /// Posts lines when they are due, one batch after the other, so that they stay in order.
    async fn post(&mut self, batch: Batch, begun: Instant, due: Duration) -> Result<(), PostError> {
        tokio::time::sleep_until(begun + due).await;
        let outcome = self.poster.post(&batch, |why| self.progress.waiting(why)).await?;
        self.tally.add(&outcome)?;
        self.progress.set(self.tally.entries, self.steps.of(self.tally.entries, due));
        Ok(())
    }
}

fn time_of(entry: &Entry, depth_max: usize) -> Option<Nanos> {
    if entry.refused.is_some() {
        return None;
    }
    json::read_tick(&entry.text, depth_max).ok()?.ok().map(|tick| tick.time)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use clap::Parser;

    use super::*;
    use crate::cli::stub::{Reply, Stub};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        replay: ReplayArgs,
    }

    #[test]
    fn due_times_follow_the_recording_and_the_speed() {
        let due = |speed_text: &str, pause_max_s, times: &[i64]| {
            let mut schedule = Schedule::new(speed(speed_text).unwrap(), pause_max_s);
            let due = times.iter().map(|millis| schedule.due(Nanos(1_000_000 * millis)).as_millis());
            due.collect::<Vec<_>>()
        };
        let times = [5_000, 5_500, 5_200, 5_600, 65_600, 65_700];
        assert_eq!(due("1", 86_400, &times), [0, 500, 500, 600, 60_600, 60_700]);
        assert_eq!(due("100", 86_400, &times), [0, 5, 5, 6, 606, 607]);
        assert_eq!(due("0.5", 1, &times), [0, 1_000, 1_000, 1_200, 3_200, 3_400]);
        assert_eq!(due("1", 86_400, &[i64::MAX / 2_000_000]), [0]);
    }

    #[test]
    fn speeds_are_above_zero() {
        assert_eq!(speed("2.5"), Ok(Speed(2_500_000_000)));
        for text in ["0", "-1", "fast", ""] {
            assert!(speed(text).is_err(), "{text}");
        }
        let error = Line::try_parse_from(["replay", "x", "--speed", "0"]).unwrap_err().to_string();
        assert!(error.contains("not above zero"), "{error}");
    }

    #[tokio::test]
    async fn lines_go_live_in_order_with_the_numbers_of_an_import() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticks.ndjson");
        let tick = |second: u32| {
            format!(
                r#"{{"T":"t","S":"A","i":{second},"x":"Q","p":1,"s":1,"t":"2024-01-03T14:30:{second:02}Z"}}"#
            )
        };
        let text = format!("{}\n{}\nnonsense\n{}\n", tick(1), tick(2), tick(40));
        std::fs::write(&path, text).unwrap();
        let seen: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
        let taken = Arc::clone(&seen);
        let stub = Stub::start(move |request| {
            assert!(request.line.starts_with("POST /v1/ticks HTTP"), "no backfill: {}", request.line);
            assert_eq!(request.header("tapeline-lines-key"), "file");
            let lines = request.text().lines().count();
            taken.lock().unwrap().push((request.header("tapeline-lines-first"), lines));
            Reply::json(200, r#"{"accepted":1,"refused":0}"#)
        })
        .await;
        let line = Line::try_parse_from([
            "replay",
            path.to_str().unwrap(),
            "--speed",
            "1000",
            "--pause-max-s",
            "30",
        ])
        .unwrap();
        let mut out = Vec::new();
        let partly = replay(line.replay, stub.connection(), &mut out).await.unwrap_err();
        assert!(matches!(partly, PostError::Partly { refused: 1, entries: 4, .. }), "{partly}");
        // The last is due 300 ms after the others, which go together.
        assert_eq!(*seen.lock().unwrap(), [("0".to_owned(), 3), ("3".to_owned(), 1)]);
        assert!(String::from_utf8(out).unwrap().contains("replayed 4 lines"));
    }
}
