//! Bytes and nanoseconds a tick of tables and of the encodings that were considered for them.
//!
//! `cargo run --release --example table_sizes -- FOLDER` reads `taq_xxx.ndjson.gz`,
//! `taq_multi.ndjson.gz` and `itch.ndjson.gz` (ticks in Alpaca's stream form, one a line)
//! from FOLDER. Blocks are 1,000 trades of one symbol; frames are 1,000 ticks, drawn from the
//! same files, of 8,000 symbols with Zipf(0.8) weights. Times are sums of the best of seven runs of each.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]
#![expect(clippy::cast_precision_loss, reason = "statistics")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tapeline::market::table;
use tapeline::market::{
    Conditions, Event, Exchange, Kind, Nanos, Origin, Price, Quote, RequestKey, Row, SipTape, Symbol, Tick,
    Trade,
};

const ROWS: usize = 1000;
const SYMBOLS: u32 = 8000;
const FRAMES: usize = 50;
const REQUEST: RequestKey = RequestKey([1; 16]);

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: table_sizes FOLDER")?;
    let folder = Path::new(&folder);
    let xxx = load(&folder.join("taq_xxx.ndjson.gz"))?;
    let multi = load(&folder.join("taq_multi.ndjson.gz"))?;
    let itch = load(&folder.join("itch.ndjson.gz"))?;

    println!("{:24} {:26} {:>8} {:>12} {:>12}", "data", "encoding", "B/tick", "ns/tick in", "ns/tick out");
    for (name, kind, rows) in [
        ("XXX", Kind::Trade, &xxx),
        ("ETF", Kind::Trade, &multi),
        ("BBB", Kind::Trade, &multi),
        ("AAA", Kind::Trade, &multi),
        ("AAPL", Kind::Trade, &itch),
        ("XXX", Kind::Quote, &xxx),
        ("AAPL", Kind::Quote, &itch),
    ] {
        let of_series: Vec<Row> = rows
            .iter()
            .filter(|row| row.tick.symbol.as_str() == name && row.tick.kind() == kind)
            .cloned()
            .collect();
        let blocks: Vec<Vec<Row>> = of_series.chunks_exact(ROWS).map(<[Row]>::to_vec).collect();
        let data = format!("{name} {} block", kind.plural());
        measure(
            &data,
            "table",
            &blocks,
            |rows| Ok(table::encode_block(rows)),
            |bytes, _| Ok(table::decode_block(bytes)?.len()),
        )?;
        if kind == Kind::Trade {
            let blocks: Vec<Columns> = blocks.iter().map(|rows| trade_columns(rows)).collect();
            candidates(&data, &blocks)?;
        }
    }

    let frames = zipf_frames(&[xxx, itch].concat())?;
    let distinct: usize = frames.iter().map(|rows| series_of(rows)).sum();
    println!("({} series a frame)", distinct / FRAMES);
    let received = Nanos(0);
    measure(
        "Zipf frame",
        "table",
        &frames,
        |rows| Ok(table::encode_frame(rows, &[REQUEST])),
        |bytes, _| Ok(table::decode_frame(bytes, &[REQUEST], received)?.len()),
    )?;
    let frames: Vec<Columns> = frames.iter().map(|rows| frame_columns(rows)).collect();
    candidates("Zipf frame", &frames)
}

/// Times one encoding over all blocks and prints its line.
fn measure<T>(
    data: &str,
    encoding: &str,
    blocks: &[T],
    mut encode: impl FnMut(&T) -> Result<Vec<u8>>,
    mut decode: impl FnMut(&[u8], &T) -> Result<usize>,
) -> Result<()> {
    let ticks = (blocks.len() * ROWS) as f64;
    let encoded: Vec<Vec<u8>> = blocks.iter().map(&mut encode).collect::<Result<_>>()?;
    let bytes: usize = encoded.iter().map(Vec::len).sum();
    let (mut nanos_in, mut nanos_out) = (0, 0);
    for (bytes, block) in encoded.iter().zip(blocks) {
        // The best run of each block: others may be using the machine.
        let (mut best_in, mut best_out) = (u128::MAX, u128::MAX);
        for _ in 0..7 {
            let start = Instant::now();
            std::hint::black_box(encode(block)?);
            best_in = best_in.min(start.elapsed().as_nanos());
            let start = Instant::now();
            ensure!(decode(bytes, block)? == ROWS, "rows are missing");
            best_out = best_out.min(start.elapsed().as_nanos());
        }
        nanos_in += best_in;
        nanos_out += best_out;
    }
    let (nanos_in, nanos_out) = (nanos_in as f64 / ticks, nanos_out as f64 / ticks);
    println!("{data:24} {encoding:26} {:8.2} {nanos_in:12.1} {nanos_out:12.1}", bytes as f64 / ticks);
    Ok(())
}

/// Columns as numbers: what the candidates compete on.
type Columns = Vec<Vec<u64>>;

fn candidates(data: &str, blocks: &[Columns]) -> Result<()> {
    measure(
        data,
        "varint",
        blocks,
        |columns| Ok(varints(columns)),
        |bytes, columns| read_varints(bytes, columns.iter().map(Vec::len).sum()),
    )?;
    for level in [-1, 1, 3] {
        measure(
            data,
            &format!("varint + zstd {level}"),
            blocks,
            |columns| Ok(zstd::bulk::compress(&varints(columns), level)?),
            |bytes, columns| {
                let plain = zstd::bulk::decompress(bytes, 1 << 20)?;
                read_varints(&plain, columns.iter().map(Vec::len).sum())
            },
        )?;
    }
    measure(
        data,
        "byte planes + zstd 1",
        blocks,
        |columns| Ok(zstd::bulk::compress(&planes(columns), 1)?),
        |bytes, _| {
            std::hint::black_box(zstd::bulk::decompress(bytes, 1 << 20)?);
            Ok(ROWS)
        },
    )?;
    for level in [1, 4, 8] {
        let config = pco::ChunkConfig::default()
            .with_compression_level(level)
            .with_mode_spec(pco::ModeSpec::Classic)
            .with_delta_spec(pco::DeltaSpec::NoOp);
        measure(
            data,
            &format!("pco {level} a column"),
            blocks,
            |columns| {
                let mut out = Vec::new();
                for column in columns.iter().filter(|column| !column.is_empty()) {
                    let part = pco::standalone::simple_compress(column, &config)?;
                    out.extend_from_slice(&u32::try_from(part.len())?.to_le_bytes());
                    out.extend_from_slice(&part);
                }
                Ok(out)
            },
            |mut bytes, _| {
                while let Some((length, rest)) = bytes.split_first_chunk() {
                    let length = usize::try_from(u32::from_le_bytes(*length))?;
                    let (part, rest) = rest.split_at_checked(length).context("cut short")?;
                    std::hint::black_box(pco::standalone::simple_decompress::<u64>(part)?);
                    bytes = rest;
                }
                Ok(ROWS)
            },
        )?;
    }
    Ok(())
}

fn varints(columns: &Columns) -> Vec<u8> {
    let mut out = Vec::new();
    for number in columns.iter().flatten() {
        let mut number = *number;
        while number >= 0x80 {
            out.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        out.push(number.to_le_bytes()[0]);
    }
    out
}

fn read_varints(bytes: &[u8], count: usize) -> Result<usize> {
    let (mut read, mut value, mut place, mut sum) = (0, 0_u64, 0_u32, 0_u64);
    for byte in bytes {
        value |= u64::from(byte & 0x7f) << place;
        place += 7;
        if byte & 0x80 == 0 {
            sum ^= std::mem::take(&mut value);
            place = 0;
            read += 1;
        }
    }
    std::hint::black_box(sum);
    ensure!(read == count, "numbers are missing");
    Ok(ROWS)
}

fn planes(columns: &Columns) -> Vec<u8> {
    let mut out = Vec::new();
    for column in columns {
        let most = column.iter().max().copied().unwrap_or_default();
        for shift in (0..most.checked_ilog2().map_or(0, |bits| bits + 1)).step_by(8) {
            out.extend(column.iter().map(|number| (number >> shift).to_le_bytes()[0]));
        }
    }
    out
}

fn trade_columns(rows: &[Row]) -> Columns {
    let mut columns = vec![differences(&on_grid(rows.iter().map(|row| row.tick.time.0.cast_unsigned())))];
    columns.extend(trade_fields(rows, true));
    columns
}

/// The columns of a frame: series, times and indexes as they arrived, fields sorted by series.
fn frame_columns(rows: &[Row]) -> Columns {
    let mut series: Vec<_> = rows.iter().map(|row| row.tick.series()).collect();
    series.sort_unstable();
    series.dedup();
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| row.tick.series());
    let number = |row: &Row| series.binary_search(&row.tick.series()).unwrap_or_default() as u64;
    let letters = series.iter().flat_map(|series| series.symbol.as_str().bytes()).map(u64::from);
    let mut columns = vec![
        letters.collect(),
        rows.iter().map(number).collect(),
        differences(&on_grid(rows.iter().map(|row| row.tick.time.0.cast_unsigned()))),
        differences(&rows.iter().map(|row| u64::from(row.origin.index)).collect::<Vec<_>>()),
    ];
    columns.extend(trade_fields(&sorted, false));
    columns.extend(quote_fields(&sorted));
    columns
}

fn trade_fields(rows: &[Row], near: bool) -> Columns {
    let trades: Vec<Trade> = rows
        .iter()
        .filter_map(|row| match row.tick.event {
            Event::Trade(trade) => Some(trade),
            _ => None,
        })
        .collect();
    let ids: Vec<u64> = trades.iter().map(|trade| trade.id.unwrap_or_default()).collect();
    let prices = on_grid(trades.iter().map(|trade| trade.price.0.cast_unsigned()));
    vec![
        if near { differences(&ids) } else { ids },
        if near { differences(&prices) } else { prices },
        on_grid(trades.iter().map(|trade| u64::from(trade.size))),
        numbered(trades.iter().map(|trade| u64::from(trade.exchange.0))),
        numbered(trades.iter().map(|trade| trade.conditions.to_bits())),
        numbered(trades.iter().map(|trade| u64::from(trade.tape.to_byte()))),
    ]
}

fn quote_fields(rows: &[Row]) -> Columns {
    let quotes: Vec<Quote> = rows
        .iter()
        .filter_map(|row| match row.tick.event {
            Event::Quote(quote) => Some(quote),
            _ => None,
        })
        .collect();
    vec![
        on_grid(quotes.iter().map(|quote| quote.bid_price.0.cast_unsigned())),
        on_grid(quotes.iter().map(|quote| zigzag(quote.ask_price.0.wrapping_sub(quote.bid_price.0)))),
        on_grid(quotes.iter().map(|quote| u64::from(quote.bid_size))),
        on_grid(quotes.iter().map(|quote| u64::from(quote.ask_size))),
        numbered(quotes.iter().map(|quote| u64::from(quote.bid_exchange.0))),
        numbered(quotes.iter().map(|quote| u64::from(quote.ask_exchange.0))),
        numbered(quotes.iter().map(|quote| quote.conditions.to_bits())),
        numbered(quotes.iter().map(|quote| u64::from(quote.tape.to_byte()))),
    ]
}

fn on_grid(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let values: Vec<u64> = values.collect();
    let mut grid = 0;
    for value in &values {
        let (mut a, mut b) = (grid, *value);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        grid = a;
    }
    values.into_iter().map(|value| value / grid.max(1)).collect()
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn differences(values: &[u64]) -> Vec<u64> {
    let mut before = 0;
    let difference = |value: &u64| {
        let difference = value.wrapping_sub(before).cast_signed();
        before = *value;
        zigzag(difference)
    };
    values.iter().map(difference).collect()
}

fn numbered(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut known = Vec::new();
    let number = |value| {
        let at = known.iter().position(|known| *known == value).unwrap_or_else(|| {
            known.push(value);
            known.len() - 1
        });
        at as u64
    };
    values.map(number).collect()
}

fn series_of(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.tick.series()).collect::<std::collections::HashSet<_>>().len()
}

/// Frames of many symbols: exchanges, sizes, conditions, spreads and moves of real ticks, each
/// symbol at a price level, an id range and a tape of its own, at 1 to 20 µs from tick to tick.
fn zipf_frames(ticks: &[Row]) -> Result<Vec<Vec<Row>>> {
    let mut random = StdRng::seed_from_u64(7);
    let weights: Vec<f64> = (1..=SYMBOLS).map(|rank| f64::from(rank).powf(-0.8)).collect();
    let total: f64 = weights.iter().sum();
    let mut symbols = Vec::new();
    for number in 0..SYMBOLS {
        // One to four letters, as listed symbols have, in no order of rank.
        let mut text = Vec::new();
        let mut rest = (number.wrapping_mul(2_654_435_761)) % 475_254;
        while text.len() < 4 && (rest > 0 || text.is_empty()) {
            text.push(b'A' + u8::try_from(rest % 26)?);
            rest /= 26;
        }
        let level = (random.random::<f64>() * 6.0 - 3.0).exp2();
        let tape = SipTape::parse(&[b'A' + random.random_range(0..3)])?;
        symbols.push((Symbol::parse(&text)?, level, random.random_range(0_u64..60_000), tape));
    }
    let mut time = 1_704_292_200_000_000_000;
    let mut at = random.random_range(0..ticks.len());
    let mut frames = Vec::new();
    for _ in 0..FRAMES {
        let mut rows = Vec::with_capacity(ROWS);
        for index in 0..ROWS {
            let mut left = random.random::<f64>() * total;
            let rank = weights.iter().position(|weight| {
                left -= weight;
                left <= 0.0
            });
            let (symbol, level, id, tape) =
                symbols.get_mut(rank.unwrap_or_default()).context("a rank has no symbol")?;
            time += random.random_range(1_000..20_000);
            at = (at + 7) % ticks.len();
            let mut event = ticks.get(at).context("no ticks")?.tick.event.clone();
            match &mut event {
                Event::Trade(trade) => {
                    *id += random.random_range(1..40);
                    (trade.id, trade.tape) = (Some(*id), *tape);
                    trade.price = scaled(trade.price, *level);
                }
                Event::Quote(quote) => {
                    let spread = quote.ask_price.0 - quote.bid_price.0;
                    quote.bid_price = scaled(quote.bid_price, *level);
                    quote.ask_price = Price(quote.bid_price.0 + spread);
                    quote.tape = *tape;
                }
                _ => {}
            }
            let origin = Origin { received: Nanos(0), index: u32::try_from(index)?, request: REQUEST };
            rows.push(Row { tick: Tick { symbol: *symbol, time: Nanos(time), event }, origin });
        }
        frames.push(rows);
    }
    Ok(frames)
}

/// A price at another level, on the grid of cents if it was on it, of 1/100 cents otherwise.
#[expect(clippy::cast_possible_truncation, reason = "prices of a few thousand dollars")]
fn scaled(price: Price, level: f64) -> Price {
    let grid = if price.0 % 10_000_000 == 0 { 10_000_000 } else { 100_000 };
    Price(((price.0 / grid) as f64 * level) as i64 * grid)
}

fn load(path: &Path) -> Result<Vec<Row>> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    GzDecoder::new(file).read_to_string(&mut text)?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let tick: Value = serde_json::from_str(line)?;
        let of = |name: &str| tick.get(name).cloned().unwrap_or_default();
        let text = |name: &str| match of(name) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let price = |name: &str| Price::parse(text(name).as_bytes());
        let size = |name: &str| u32::try_from(of(name).as_u64().unwrap_or_default());
        let exchange = |name: &str| Exchange::parse(text(name).as_bytes());
        let mut conditions = Conditions::default();
        for code in of("c").as_array().into_iter().flatten().filter_map(Value::as_str) {
            conditions = conditions.with(code.as_bytes())?;
        }
        let tape = SipTape::parse(text("z").as_bytes()).unwrap_or_default();
        let event = match text("T").as_str() {
            "t" => Event::Trade(Trade {
                id: of("i").as_u64(),
                exchange: exchange("x")?,
                price: price("p")?,
                size: size("s")?,
                conditions,
                tape,
            }),
            "q" => Event::Quote(Quote {
                ask_exchange: exchange("ax")?,
                ask_price: price("ap")?,
                ask_size: size("as")?,
                bid_exchange: exchange("bx")?,
                bid_price: price("bp")?,
                bid_size: size("bs")?,
                conditions,
                tape,
            }),
            _ => continue,
        };
        let tick = Tick {
            symbol: Symbol::parse(text("S").as_bytes())?,
            time: Nanos::parse(text("t").as_bytes())?,
            event,
        };
        // As if each thousand lines had come in one request, a second after the last.
        let received = Nanos(1_704_292_200_000_000_000).plus(Nanos::SECOND * i64::try_from(number / ROWS)?);
        let origin = Origin { received, index: u32::try_from(number)?, request: REQUEST };
        rows.push(Row { tick, origin });
    }
    Ok(rows)
}
