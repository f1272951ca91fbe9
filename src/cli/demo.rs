//! `tapeline demo`: a node with a synthetic market running live.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::time::{MissedTickBehavior, interval};

use super::serve::{Running, Stop, configured, shown};
use super::{CliError, DemoArgs, print};
use crate::config::Config;
use crate::http::Clock;
use crate::ingest::{Intake, Options, Request, RequestName, TakeError};
use crate::market::synthetic::{Profile, Settings, SyntheticMarket};
use crate::market::{Nanos, Symbol, Tick};
use crate::node::PairAccount;
use crate::wire::Format;
use crate::wire::json::write_line;

/// How often the market's ticks are posted.
const PULSE: Duration = Duration::from_millis(100);
/// At the start, history of this span before now is made, so that there is something to read.
const PAST: i64 = 30 * Nanos::MINUTE;
/// Ticks of one request of that history.
const PAST_BATCH: usize = 20_000;
/// Ticks a second of that history, over all symbols.
const PAST_TICKS_PER_SECOND: u32 = 100;

/// Defaults of the demo's own, below file, environment and flags: a folder of its own, and a
/// terminal that is left to what it prints.
const DEFAULTS: &[(&str, &str)] = &[("node.data", "tapeline-demo"), ("telemetry.log_level", "warn")];
/// The file that marks a data folder as the demo's.
const MARK: &str = "DEMO";
const MARK_TEXT: &str = "tapeline demo made this folder: the ticks in it are invented.\n";

/// The file that says that the past was begun: another one would lie over the ticks that are there.
const PAST_MARK: &str = "DEMO-PAST";

/// Runs `tapeline demo`.
pub(super) async fn run(args: DemoArgs) -> Result<(), CliError> {
    let stop = Stop::listen()?;
    let config = configured(args.node.load_for("demo", DEFAULTS)?)?;
    claim(&config.node.data)?;
    let of = PairAccount::Demo;
    let Some(running) = Running::start(Arc::clone(&config), of, args.ready_file, stop).await? else {
        return Ok(());
    };
    let (intake, clock) = (Arc::clone(running.node.intake()), Arc::clone(&running.node.gate().clock));
    let now = clock();
    let mut past = Market::new(&config, now.plus(-PAST), PAST_TICKS_PER_SECOND);
    let symbols: Vec<Symbol> = past.ticks.symbols().take(2).collect();
    let greeting = greeting(&running, &config, &symbols);
    let market = async move {
        if begins_past(&config.node.data)? {
            past.post_until(&intake, now, true, PAST_BATCH).await;
        }
        print(&greeting)?;
        Market::new(&config, clock(), config.demo.ticks_per_second).run(intake, clock).await
    };
    running.until_stopped(Box::pin(market)).await
}

/// Marks a data folder as the demo's. Invented ticks must not come among real ones: a store that
/// the demo has not made is left alone.
fn claim(data: &Path) -> Result<(), CliError> {
    let mark = data.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    if data.join("store").exists() {
        let message = format!("{} holds the ticks of a node that is no demo", data.display());
        return Err(CliError::usage(message)
            .next("name another folder with --data; without it the demo's is ./tapeline-demo"));
    }
    let marked = std::fs::create_dir_all(data).and_then(|()| std::fs::write(&mark, MARK_TEXT));
    marked.map_err(|error| unwritable(data, &error))
}

/// Whether the past is still to be made, and from now on it is not: a start that got no further
/// than its ports leaves it to the next one, one that was cut short leaves a shorter past.
fn begins_past(data: &Path) -> Result<bool, CliError> {
    let made = std::fs::File::options().write(true).create_new(true).open(data.join(PAST_MARK));
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(unwritable(data, &error)),
    }
}

fn unwritable(data: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("the data folder {}: {error}", data.display()))
}

fn greeting(running: &Running, config: &Config, symbols: &[Symbol]) -> String {
    let mut text = format!(
        "Tapeline demo: {} synthetic symbols, {} ticks/s, state in {}\n\naddress    {}\nadmin      http://{}\n",
        config.demo.symbols,
        config.demo.ticks_per_second,
        config.node.data.display(),
        running.node.url(),
        running.node.admin(),
    );
    let Some(keys) = &running.keys else { return text };
    text.push_str(&shown(keys));
    let (first, second) =
        (symbols.first().map_or("A", Symbol::as_str), symbols.get(1).map_or("B", Symbol::as_str));
    let headers =
        |id: &str, secret: &str| format!("-H 'APCA-API-KEY-ID: {id}' -H 'APCA-API-SECRET-KEY: {secret}'");
    let read = headers(&keys.read.id, keys.read.secret.expose_secret());
    let write = headers(&keys.write.id, keys.write.secret.expose_secret());
    let base = running.node.url();
    text.push_str(&format!(
        "\nPaste any of these:\n\n\
         curl -s {read} '{base}/v2/stocks/trades?symbols={first},{second}&sort=desc&limit=4'\n\n\
         curl -s {read} '{base}/v2/stocks/{first}/bars?timeframe=1Min&sort=desc&limit=5'\n\n\
         curl -s {write} -H 'Content-Type: application/x-ndjson' '{base}/v1/ticks' \
         -d '{{\"T\":\"t\",\"S\":\"MINE\",\"t\":\"'$(date -u +%Y-%m-%dT%H:%M:%SZ)'\",\"p\":12.5,\"s\":100,\"x\":\"V\",\"c\":[\"@\"],\"z\":\"C\",\"i\":1}}'\n\n\
         Stop it with Ctrl-C; each start makes new keys and revokes these.\n"
    ));
    text
}

/// A synthetic market that posts its ticks through the node's own door.
struct Market {
    ticks: SyntheticMarket,
    next: Option<Tick>,
    /// Names the requests of this start, so that those of another are not taken for them.
    name: String,
    posted: u64,
}

impl Market {
    fn new(config: &Config, start: Nanos, ticks_per_second: u32) -> Self {
        let ticks = SyntheticMarket::new(Settings {
            seed: config.demo.seed,
            symbols: u32::try_from(config.demo.symbols).unwrap_or(u32::MAX),
            start,
            ticks_per_second,
            profile: Profile::Steady,
        });
        Self { ticks, next: None, name: format!("demo from {start}"), posted: 0 }
    }

    /// Posts what has happened by then, a request at a time.
    async fn post_until(&mut self, intake: &Intake, until: Nanos, backfill: bool, batch: usize) {
        loop {
            let mut body = Vec::new();
            let mut count = 0;
            while count < batch {
                let Some(tick) = self.next.take().or_else(|| self.ticks.next()) else { break };
                if tick.time > until {
                    self.next = Some(tick);
                    break;
                }
                write_line(&tick, &mut body);
                count += 1;
            }
            if count == 0 {
                return;
            }
            if let Err(error) = self.post(intake, &body, until, backfill).await {
                tracing::warn!(%error, ticks = count, "the demo's ticks were not taken");
            }
        }
    }

    async fn post(
        &mut self,
        intake: &Intake,
        body: &[u8],
        now: Nanos,
        backfill: bool,
    ) -> Result<(), TakeError> {
        self.posted += 1;
        let request = Request {
            account: "demo-market".to_owned(),
            name: RequestName::Key(format!("{} {}", self.name, self.posted)),
            format: Format::NdJson,
            options: Options { backfill, ..Options::default() },
            expected_bytes: body.len(),
        };
        let mut taking = intake.begin(request, now)?;
        taking.feed(body)?;
        taking.finish().await.map(|_| ())
    }

    /// Posts each pulse what has happened since the last.
    async fn run(mut self, intake: Arc<Intake>, clock: Clock) -> Result<(), CliError> {
        let mut pulses = interval(PULSE);
        pulses.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            pulses.tick().await;
            self.post_until(&intake, clock(), false, PAST_BATCH).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArgs,
    }

    fn data_of(words: &[&str]) -> (String, String) {
        let args = Line::try_parse_from([&["demo"], words].concat()).unwrap().demo;
        let config = args.node.load_for("demo", DEFAULTS).unwrap().config;
        (config.node.data.display().to_string(), config.telemetry.log_level)
    }

    fn pair<'a>(data: &'a str, level: &'a str) -> (String, String) {
        (data.to_owned(), level.to_owned())
    }

    #[test]
    fn the_demo_has_defaults_of_its_own_and_heeds_every_other_layer() {
        assert_eq!(data_of(&[]), pair("tapeline-demo", "warn"));
        assert_eq!(data_of(&["--data", "x"]), pair("x", "warn"));
        assert_eq!(
            data_of(&["--set", "node.data=x", "--set", "telemetry.log_level=debug"]),
            pair("x", "debug")
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let words = ["--config", file.to_str().unwrap()];
        std::fs::write(&file, "[demo]\nsymbols = 5\n").unwrap();
        assert_eq!(data_of(&words), pair("tapeline-demo", "warn"), "not the folder of serve");
        std::fs::write(&file, "[node]\ndata = \"y\"\n[telemetry]\nlog_level = \"info\"\n").unwrap();
        assert_eq!(data_of(&words), pair("y", "info"));
        assert_eq!(data_of(&[&words[..], &["--set", "node.data=z"]].concat()), pair("z", "info"));
    }

    #[test]
    fn a_store_that_the_demo_has_not_made_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        claim(&ours).unwrap();
        std::fs::create_dir(ours.join("store")).unwrap();
        claim(&ours).unwrap();
        std::fs::create_dir_all(theirs.join("store")).unwrap();
        let error = claim(&theirs).unwrap_err().to_string();
        assert!(error.contains("theirs") && error.contains("--data"), "{error}");
        assert!(!theirs.join(MARK).exists());
    }

    #[test]
    fn the_past_is_made_once_and_not_lost_to_a_start_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path()).unwrap();
        claim(folder.path()).unwrap();
        assert!(begins_past(folder.path()).unwrap(), "no start has come so far");
        assert!(!begins_past(folder.path()).unwrap());
    }
}
