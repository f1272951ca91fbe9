//! `tapeline query`: history as a table, CSV or NDJSON.

use std::collections::BTreeMap;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};

use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{ClientError, Connection, RETRY_S_DEFAULT};
use super::progress::Progress;
use super::{CliError, ClientArgs, Use};
use crate::bars::Timeframe;

/// Ticks of one page, the most that a node gives.
const PAGE_LIMIT: u64 = 10_000;
/// Rows of a table that share the widths of their columns.
const TABLE_ROWS: usize = 1_000;
/// The header by which a node says that a page has a gap.
const INCOMPLETE: &str = "x-tapeline-incomplete";
/// The same for people.
const INCOMPLETE_WORDS: &str =
    "warning: this node has lost ticks of the time asked for, so that some may be missing here";

/// Print trades, quotes or bars from history
///
/// Prices and times are printed as the node keeps them, digit by digit. On a terminal the
/// output is a table, else NDJSON in the form that `tapeline import` takes; only bars of other
/// lengths than a minute and a day are no ticks and have no kind `T`, and what history marks
/// (`u`) is refused there.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct QueryArgs {
    /// What to print
    #[arg(value_enum)]
    kind: QueryKind,
    /// Symbols
    #[arg(value_name = "SYMBOL", required = true, value_delimiter = ',')]
    symbols: Vec<String>,
    /// First time: RFC 3339 or a date [default: the beginning of the current day]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Last time, included [default: now]
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// Length of bars: 1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week, 1Month …
    #[arg(long, value_name = "LENGTH", default_value = "1Min")]
    timeframe: String,
    /// Print so many at most, over all symbols
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Newest first
    #[arg(long)]
    desc: bool,
    /// How to print [default: table on a terminal, else ndjson]
    #[arg(long, value_enum)]
    format: Option<OutputFormat>,
    #[command(flatten)]
    client: ClientArgs,
    /// How long a node that is away or overloaded is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_S_DEFAULT)]
    retry_s: u64,
}

const HELP: &str = "\
Examples:
  tapeline query trades AAPL --start 2024-01-03 --end 2024-01-04
  tapeline query bars AAPL,MSFT --timeframe 1Day --start 2023-01-01 --format csv > days.csv
  tapeline query quotes AAPL --start 2024-01-03T14:30:00Z --desc --limit 20
  tapeline query trades AAPL --start 2024-01-03 --format ndjson | jq .p";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum QueryKind {
    Trades,
    Quotes,
    Bars,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    /// Columns for people
    Table,
    /// Comma-separated values under a header
    Csv,
    /// One JSON object a line
    Ndjson,
}

impl QueryKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Trades => "trades",
            Self::Quotes => "quotes",
            Self::Bars => "bars",
        }
    }

    /// The fields in the order of the columns.
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Trades => &["t", "x", "p", "s", "c", "i", "z", "u"],
            Self::Quotes => &["t", "bx", "bp", "bs", "ax", "ap", "as", "c", "z"],
            Self::Bars => &["t", "o", "h", "l", "c", "v", "n", "vw"],
        }
    }
}

/// Why a query ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// The node.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// A page; what is not known is left alone, and numbers keep their digits.
#[derive(Deserialize)]
struct Page {
    #[serde(alias = "trades", alias = "quotes", alias = "bars")]
    ticks: BTreeMap<String, Vec<Box<RawValue>>>,
    next_page_token: Option<String>,
}

impl From<QueryError> for CliError {
    fn from(error: QueryError) -> Self {
        Self::failed(error.to_string())
    }
}

/// Prints what is asked for. A reader that goes away (`| head`) ends it without an error.
///
/// # Errors
/// [`CliError`] where the node does not answer or the output cannot be written.
pub(super) async fn run(args: QueryArgs) -> Result<(), CliError> {
    let connection =
        Connection::new(args.client.client(Use::Read)?, args.retry_s).map_err(QueryError::from)?;
    let mut out = BufWriter::new(std::io::stdout());
    Ok(query(args, connection, &mut out).await?)
}

async fn query(args: QueryArgs, connection: Connection, out: &mut dyn Write) -> Result<(), QueryError> {
    let default = if std::io::stdout().is_terminal() { OutputFormat::Table } else { OutputFormat::Ndjson };
    let mut printer = Printer::new(args.kind, &args.timeframe, args.format.unwrap_or(default));
    match print(&args, &connection, &mut printer, out).await {
        Err(QueryError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn print(
    args: &QueryArgs,
    connection: &Connection,
    printer: &mut Printer,
    out: &mut dyn Write,
) -> Result<(), QueryError> {
    let progress = Progress::beside_output("querying", args.kind.name(), args.limit);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut token: Option<String> = None;
    let mut printed = 0_u64;
    let mut told_incomplete = false;
    while left > 0 {
        let path = path(args, connection, left.min(PAGE_LIMIT), token.as_deref())?;
        let make = || connection.request(Method::GET, &path);
        let (headers, body) = connection.send(make, |why| progress.waiting(why)).await?;
        let page: Page =
            serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))?;
        if headers.contains_key(INCOMPLETE) && !std::mem::replace(&mut told_incomplete, true) {
            progress.note(INCOMPLETE_WORDS);
        }
        for (symbol, ticks) in &page.ticks {
            for tick in ticks.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                printer.print(symbol, tick, out)?;
                left -= 1;
                printed += 1;
            }
        }
        progress.set(printed, printed);
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    progress.finish();
    if printed == 0 {
        progress.note(&nothing(args));
    }
    printer.finish(out)?;
    Ok(out.flush()?)
}

/// That nothing was found, and where else it may be.
fn nothing(args: &QueryArgs) -> String {
    let (what, symbols) = (args.kind.name(), args.symbols.join(", "));
    let since = args.start.as_deref().map_or("today".to_owned(), |start| format!("since {start}"));
    let next = if args.start.is_none() { "; --start DATE asks for more" } else { "" };
    format!("no {what} of {symbols} {since}{next}")
}

/// The path and query of a page.
fn path(
    args: &QueryArgs,
    connection: &Connection,
    limit: u64,
    token: Option<&str>,
) -> Result<String, ClientError> {
    let failed = |why: String| ClientError::Url { url: connection.url().to_owned(), why };
    let mut url = Url::parse(connection.url()).map_err(|error| failed(error.to_string()))?;
    url.set_path(&format!("/v2/stocks/{}", args.kind.name()));
    let mut query = url.query_pairs_mut();
    query.append_pair("symbols", &args.symbols.join(",")).append_pair("limit", &limit.to_string());
    if args.kind == QueryKind::Bars {
        query.append_pair("timeframe", &args.timeframe);
    }
    for (name, value) in
        [("start", args.start.as_deref()), ("end", args.end.as_deref()), ("page_token", token)]
    {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if args.desc {
        query.append_pair("sort", "desc");
    }
    drop(query);
    Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
}

/// Writes ticks in one of the formats.
struct Printer {
    kind: QueryKind,
    format: OutputFormat,
    /// How a line of NDJSON begins: with the kind `T`, where it is one that can be posted.
    opening: &'static str,
    begun: bool,
    rows: Vec<Vec<String>>,
}

impl Printer {
    fn new(kind: QueryKind, timeframe: &str, format: OutputFormat) -> Self {
        let opening = match (kind, Timeframe::parse(timeframe)) {
            (QueryKind::Trades, _) => r#"{"T":"t","S":"#,
            (QueryKind::Quotes, _) => r#"{"T":"q","S":"#,
            (QueryKind::Bars, Ok(Timeframe::Minutes(1))) => r#"{"T":"b","S":"#,
            (QueryKind::Bars, Ok(Timeframe::Day)) => r#"{"T":"d","S":"#,
            (QueryKind::Bars, _) => r#"{"S":"#,
        };
        Self { kind, format, opening, begun: false, rows: Vec::new() }
    }

    fn print(&mut self, symbol: &str, tick: &RawValue, out: &mut dyn Write) -> std::io::Result<()> {
        match self.format {
            OutputFormat::Ndjson => {
                let fields = tick.get().trim_start().strip_prefix('{').unwrap_or_default();
                let comma = if fields.trim_start().starts_with('}') { "" } else { "," };
                writeln!(out, "{}\"{symbol}\"{comma}{fields}", self.opening)
            }
            OutputFormat::Csv => {
                let mut row = csv::Writer::from_writer(Vec::new());
                if !std::mem::replace(&mut self.begun, true) {
                    row.write_record(self.header())?;
                }
                row.write_record(self.cells(symbol, tick, "|")?)?;
                let row = row.into_inner().map_err(csv::IntoInnerError::into_error)?;
                out.write_all(&row)
            }
            OutputFormat::Table => {
                self.rows.push(self.cells(symbol, tick, "")?);
                if self.rows.len() >= TABLE_ROWS { self.finish(out) } else { Ok(()) }
            }
        }
    }

    /// Writes the rows of a table that are left.
    fn finish(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        if self.format != OutputFormat::Table || (self.rows.is_empty() && self.begun) {
            return Ok(());
        }
        self.begun = true;
        let mut table = comfy_table::Table::new();
        table
            .load_preset(comfy_table::presets::NOTHING)
            .set_header(self.header())
            .add_rows(self.rows.drain(..));
        writeln!(out, "{}", table.trim_fmt())
    }

    fn header(&self) -> Vec<&'static str> {
        let mut names = vec!["S"];
        names.extend_from_slice(self.kind.fields());
        names
    }

    fn cells(&self, symbol: &str, tick: &RawValue, between: &str) -> std::io::Result<Vec<String>> {
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(tick.get())?;
        let cell = |name: &&str| fields.get(name).map(|value| cell(value, between)).unwrap_or_default();
        Ok(std::iter::once(symbol.to_owned()).chain(self.kind.fields().iter().map(cell)).collect())
    }
}

/// A field as text: numbers as they are, texts without quotes, conditions with `between` between.
fn cell(value: &RawValue, between: &str) -> String {
    if let Ok(text) = serde_json::from_str::<String>(value.get()) {
        return text;
    }
    match serde_json::from_str::<Vec<String>>(value.get()) {
        Ok(codes) => codes.join(between),
        Err(_) if value.get() == "null" => String::new(),
        Err(_) => value.get().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::stub::{Reply, Stub};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        query: QueryArgs,
    }

    fn args(words: &[&str]) -> QueryArgs {
        Line::try_parse_from([&["query"], words].concat()).unwrap().query
    }

    const FIRST: &str = r#"{"trades":{"A":[{"t":"2024-01-03T14:30:00Z","x":"Q","p":100.000000001,"s":1,"c":["@","I"],"i":9,"z":"C"}],
        "B":[{"t":"2024-01-03T14:30:01Z","x":" ","p":7,"s":2,"c":[],"z":"A","u":"canceled"}]},"next_page_token":"n/1="}"#;
    const LAST: &str = r#"{"trades":{"B":[{"t":"2024-01-03T14:30:02Z","x":"N","p":8,"s":3,"c":null,"i":1,"z":"A"}]},"next_page_token":null}"#;

    async fn two_pages() -> Stub {
        Stub::start(|request| {
            assert!(
                request.line.starts_with("GET /v2/stocks/trades?symbols=A%2CB&limit="),
                "{}",
                request.line
            );
            assert!(request.line.contains("&start=2024-01-03T14%3A30%3A00%2B01%3A00"), "{}", request.line);
            match request.line.contains("page_token=n%2F1%3D") {
                true => Reply::json(200, LAST),
                false => Reply::json(200, FIRST),
            }
        })
        .await
    }

    async fn output(words: &[&str], stub: &Stub) -> String {
        let mut out = Vec::new();
        let args = args(&[&["trades", "A,B", "--start", "2024-01-03T14:30:00+01:00"], words].concat());
        query(args, stub.connection(), &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn all_pages_in_every_format_with_all_digits() {
        let stub = two_pages().await;
        assert_eq!(
            output(&["--format", "csv"], &stub).await,
            "S,t,x,p,s,c,i,z,u\nA,2024-01-03T14:30:00Z,Q,100.000000001,1,@|I,9,C,\n\
             B,2024-01-03T14:30:01Z, ,7,2,,,A,canceled\nB,2024-01-03T14:30:02Z,N,8,3,,1,A,\n"
        );
        let lines = output(&["--format", "ndjson"], &stub).await;
        assert_eq!(
            lines.lines().next().unwrap(),
            r#"{"T":"t","S":"A","t":"2024-01-03T14:30:00Z","x":"Q","p":100.000000001,"s":1,"c":["@","I"],"i":9,"z":"C"}"#
        );
        assert!(
            lines.lines().count() == 3
                && lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        let table = output(&["--format", "table"], &stub).await;
        assert!(table.lines().count() == 4 && table.contains("100.000000001"), "{table}");
        assert_eq!(output(&["--format", "csv", "--limit", "2"], &stub).await.lines().count(), 3);
        assert_eq!(output(&["--format", "csv", "--limit", "1"], &stub).await.lines().count(), 2);
    }

    #[tokio::test]
    async fn nothing_found_is_an_empty_table_and_an_error_is_told() {
        let stub = Stub::start(|request| match request.line.contains("timeframe=1Day&") {
            true => Reply::json(200, r#"{"bars":{},"next_page_token":null}"#),
            false => Reply::json(400, r#"{"code":40000000,"message":"invalid timeframe"}"#),
        })
        .await;
        let of = |timeframe| args(&["bars", "A", "--timeframe", timeframe, "--desc", "--format", "table"]);
        let mut out = Vec::new();
        query(of("1Day"), stub.connection(), &mut out).await.unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap().split_whitespace().collect::<Vec<_>>().join(" "),
            "S t o h l c v n vw"
        );
        let error = query(of("2Day"), stub.connection(), &mut Vec::new()).await.unwrap_err().to_string();
        assert!(error.contains("400: invalid timeframe"), "{error}");
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_no_error() {
        let stub = two_pages().await;
        for format in ["csv", "ndjson", "table"] {
            let args = args(&["trades", "A,B", "--start", "2024-01-03T14:30:00+01:00", "--format", format]);
            query(args, stub.connection(), &mut Closed).await.unwrap();
        }
    }

    #[test]
    fn only_bars_that_are_ticks_have_a_kind() {
        for (timeframe, opening) in [("1Day", "{\"T\":\"d\""), ("1T", "{\"T\":\"b\""), ("5Min", "{\"S\"")] {
            let printer = Printer::new(QueryKind::Bars, timeframe, OutputFormat::Ndjson);
            assert!(printer.opening.starts_with(opening), "{timeframe}");
        }
    }

    #[test]
    fn what_is_asked_for_is_needed() {
        assert!(Line::try_parse_from(["query", "trades"]).is_err());
        assert!(Line::try_parse_from(["query", "trades", "A", "--limit", "0"]).is_err());
    }
}
