use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::market::synthetic::{Settings, SyntheticMarket};
use crate::market::table::rows;
use crate::market::{
    Conditions, Exchange, Kind, Origin, Price, SipTape, Status, Symbol, Tick, Trade, golden,
};

fn requests() -> Vec<RequestKey> {
    (1..=3).map(|number| RequestKey([number; 16])).collect()
}

/// What a frame gives back of rows.
fn as_frame(rows: &[Row], received: Nanos) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.iter_mut().for_each(|row| row.origin.received = received);
    rows.sort_by_key(|row| row.tick.series());
    rows
}

/// What a block gives back of rows.
fn as_block(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        if !row.needs_origin() {
            row.origin = Origin::UNKNOWN;
        }
    }
    rows
}

/// Rows of one request as a node takes them in: counted from 0, times going on.
fn arriving(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for (index, row) in (0_u32..).zip(&mut rows) {
        row.origin = Origin { index, request: requests()[0], received: Nanos(1) };
    }
    rows
}

/// The table as its columns say it, uncompressed: what hostile bytes are easily made of.
fn uncompressed(table: &[u8]) -> Vec<u8> {
    let mut source = bytes::Source::new(table);
    layout::take_head(None, &mut source).unwrap();
    let head = table.len() - source.rest().len();
    let columns = body::take(&mut bytes::Source::new(&table[head..])).unwrap();
    let mut out = table[..head].to_vec();
    out.push(0);
    out.extend_from_slice(&columns);
    out
}

fn answered(bytes: &[u8]) {
    let _ = peek(bytes);
    if let Ok(rows) = decode_frame(bytes, &requests(), Nanos(1)) {
        assert!(rows.len() <= ROWS_MAX);
    }
    if let Ok(rows) = decode_block(bytes) {
        assert!(rows.len() <= ROWS_MAX);
    }
}

proptest! {
    #[test]
    fn a_frame_comes_back_sorted_by_series(rows in rows::rows(60), received in rows::time()) {
        let bytes = encode_frame(&rows, &requests());
        prop_assert_eq!(decode_frame(&bytes, &requests(), received), Ok(as_frame(&rows, received)));
        prop_assert_eq!(decode_block(&bytes), Err(TableError::Form(1)));
    }

    #[test]
    fn who_sorted_the_rows_of_a_frame_does_not_matter(rows in rows::rows(60)) {
        let arrived = arriving(&rows);
        let sorted = as_frame(&arrived, Nanos(1));
        prop_assert_eq!(encode_frame(&sorted, &requests()), encode_frame(&arrived, &requests()));
    }

    #[test]
    fn a_block_comes_back(rows in rows::rows_of_one_series(60)) {
        let bytes = encode_block(&rows);
        prop_assert_eq!(decode_block(&bytes), Ok(as_block(&rows)));
        let times = || rows.iter().map(|row| row.tick.time);
        let head = peek(&bytes).unwrap();
        prop_assert_eq!(head.rows, rows.len());
        prop_assert_eq!(head.first, times().min().unwrap_or_default());
        prop_assert_eq!(head.last, times().max().unwrap_or_default());
    }

    #[test]
    fn rows_of_many_series_in_a_block_are_not_lost(rows in rows::rows(30)) {
        let mut sorted = as_block(&rows);
        sorted.sort_by_key(|row| row.tick.series());
        prop_assert_eq!(decode_block(&encode_block(&rows)), Ok(sorted));
    }

    #[test]
    fn a_table_cut_short_is_an_error(rows in rows::rows(8)) {
        for table in [encode_frame(&rows, &requests()), encode_block(&rows)] {
            for whole in [uncompressed_or_empty(&table), table] {
                for length in 0..whole.len() {
                    prop_assert!(decode_frame(&whole[..length], &requests(), Nanos(1)).is_err());
                    prop_assert!(decode_block(&whole[..length]).is_err());
                }
            }
        }
    }

    #[test]
    fn changed_bytes_are_answered(
        rows in rows::rows(30),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        extra in vec(any::<u8>(), 0..3),
    ) {
        for table in [encode_frame(&rows, &requests()), encode_block(&rows)] {
            for mut bytes in [uncompressed_or_empty(&table), table] {
                for (at, byte) in &changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                bytes.extend_from_slice(&extra);
                answered(&bytes);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(form in 1_u8..=2, rows in any::<u16>(), columns in vec(any::<u8>(), 0..200)) {
        answered(&columns);
        let mut bytes = vec![VERSION, form];
        bytes::put_number(u64::from(rows), &mut bytes);
        bytes.extend_from_slice(&[0; 9]);
        bytes.push(0);
        bytes.extend_from_slice(&columns);
        answered(&bytes);
    }
}

fn uncompressed_or_empty(table: &[u8]) -> Vec<u8> {
    if table.len() == 3 { table.to_vec() } else { uncompressed(table) }
}

fn trades(count: usize) -> Vec<Row> {
    let symbol: Symbol = "AAPL".parse().unwrap();
    (0..count as u64)
        .map(|at| {
            let event = Event::Trade(Trade {
                id: Some(at * 3),
                price: Price(150_000_000_000 + (at * at % 90).cast_signed() * 10_000_000),
                size: 100 * (1 + (at % 7) as u32),
                tape: SipTape::C,
                ..Trade::default()
            });
            Row {
                tick: Tick { symbol, time: Nanos((at * 1_000_003).cast_signed()), event },
                origin: Origin::UNKNOWN,
            }
        })
        .collect()
}

#[test]
fn every_bit_of_a_compressed_table_may_flip() {
    let table = encode_block(&trades(100));
    for at in 0..table.len() * 8 {
        let mut bytes = table.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        answered(&bytes);
    }
}

#[test]
fn extremes_come_back() {
    let symbol: Symbol = "A".parse().unwrap();
    let trade = |id, price, size| {
        let event = Event::Trade(Trade { id, price: Price(price), size, ..Trade::default() });
        Row { tick: Tick { symbol, time: Nanos(0), event }, origin: Origin::UNKNOWN }
    };
    let mut rows = vec![
        trade(Some(u64::MAX), i64::MIN, u32::MAX),
        trade(Some(0), i64::MAX, 0),
        trade(None, -1, 1),
        trade(Some(1 << 63), 0, 2),
    ];
    rows[1].tick.time = Nanos::MAX;
    rows[2].tick.time = Nanos::MIN;
    assert_eq!(decode_block(&encode_block(&rows)), Ok(rows));
}

#[test]
fn a_table_of_no_rows_is_three_bytes() {
    assert_eq!(encode_frame(&[], &requests()), [1, 1, 0]);
    assert_eq!(decode_frame(&[1, 1, 0], &[], Nanos(5)), Ok(Vec::new()));
    assert_eq!(decode_block(&encode_block(&[])), Ok(Vec::new()));
    assert_eq!(peek(&[1, 2, 0]), Ok(Peek { rows: 0, first: Nanos(0), last: Nanos(0) }));
}

#[test]
fn more_rows_than_the_limit_are_refused_by_their_count() {
    let rows = trades(ROWS_MAX);
    assert_eq!(decode_block(&encode_block(&rows)).unwrap().len(), ROWS_MAX);
    let refused = Err(TableError::TooLarge { count: ROWS_MAX as u64 + 1, most: ROWS_MAX });
    assert_eq!(decode_block(&encode_block(&trades(ROWS_MAX + 1))), refused);
}

#[test]
fn columns_that_decompress_to_more_than_they_say_are_refused() {
    let mut table = vec![VERSION, 2, 1];
    table.extend_from_slice(&[0; 9]);
    let head = table.len();
    for said in [1, 4096, BYTES_MAX, BYTES_MAX + 1] {
        table.truncate(head);
        table.push(1);
        bytes::put_count(said, &mut table);
        table.extend_from_slice(&zstd::bulk::compress(&vec![0; BYTES_MAX * 2], 1).unwrap());
        assert!(decode_block(&table).is_err());
    }
}

#[test]
fn texts_written_out_have_a_limit() {
    let status = Status { status_message: "x".repeat(255).into(), ..Status::default() };
    let tick = Tick { symbol: "A".parse().unwrap(), time: Nanos(0), event: Event::Status(Box::new(status)) };
    let rows = vec![Row { tick, origin: Origin::UNKNOWN }; BYTES_MAX / 255 + 1];
    let (_, allowed) = rows.split_first().unwrap();
    assert_eq!(decode_block(&encode_block(allowed)).unwrap(), allowed);
    assert_eq!(decode_block(&encode_block(&rows)), Err(TableError::TooManyBytes));
}

#[test]
fn a_row_counts_what_it_holds_apart() {
    let [small, large] = ["", "0123456789"].map(|text| {
        let event = Event::Status(Box::new(Status { reason_code: text.into(), ..Status::default() }));
        let tick = Tick { symbol: "A".parse().unwrap(), time: Nanos(0), event };
        row_bytes(&Row { tick, origin: Origin::UNKNOWN })
    });
    assert_eq!(large, small + 10);
    assert_eq!(row_bytes(&trades(1)[0]), size_of::<Row>());
}

/// A thousand ticks of a synthetic market, in one request.
fn synthetic(symbols: u32, kind: Option<Kind>) -> Vec<Row> {
    let settings = Settings { symbols, ticks_per_second: 100_000, ..Settings::default() };
    let ticks = SyntheticMarket::new(settings).filter(|tick| kind.is_none_or(|kind| tick.kind() == kind));
    let rows: Vec<Row> = ticks.take(1000).map(|tick| Row { tick, origin: Origin::UNKNOWN }).collect();
    arriving(&rows)
}

#[test]
fn tables_are_small() {
    let frame = encode_frame(&synthetic(8_000, None), &requests()).len();
    assert!(frame <= 20_000, "{frame} bytes for 1,000 ticks of 8,000 symbols");
    let block = encode_block(&synthetic(1, Some(Kind::Trade))).len();
    assert!(block <= 7_000, "{block} bytes for 1,000 trades of one symbol");
    let block = encode_block(&synthetic(1, Some(Kind::Quote))).len();
    assert!(block <= 10_000, "{block} bytes for 1,000 quotes of one symbol");
}

fn golden_frame() -> Vec<Row> {
    let ticks = golden::ticks().into_iter().map(|(_, tick)| Row { tick, origin: Origin::UNKNOWN });
    arriving(&ticks.collect::<Vec<_>>())
}

fn golden_block() -> Vec<Row> {
    let trade = |nanos: i64, id, cents: i64, index| {
        let event = Event::Trade(Trade {
            id,
            exchange: Exchange(b'Q'),
            price: Price(cents * 10_000_000),
            size: 100,
            conditions: Conditions::from_codes(b"@").unwrap(),
            tape: SipTape::C,
        });
        let time = Nanos(1_704_292_200_000_000_000 + nanos);
        let received = Nanos(1_704_292_201_000_000_000);
        let origin = Origin { received, index, request: RequestKey::of_idempotency_key("acct_1", "batch-7") };
        Row { tick: Tick { symbol: "AAPL".parse().unwrap(), time, event }, origin }
    };
    let mut rows =
        vec![trade(0, Some(7), 10_000, 0), trade(0, None, 10_001, 4), trade(3_000_000, Some(9), 9_999, 0)];
    rows.iter_mut().filter(|row| !row.needs_origin()).for_each(|row| row.origin = Origin::UNKNOWN);
    rows
}

#[test]
fn golden_tables() {
    let block = golden::block("table-block");
    assert_eq!(decode_block(&block).unwrap(), golden_block());
    assert_eq!(encode_block(&golden_block()), block);

    let frame = golden::block("table-frame");
    let mut sorted = golden_frame();
    sorted.sort_by_key(|row| row.tick.series());
    assert_eq!(decode_frame(&frame, &requests(), Nanos(1)).unwrap(), sorted);
    assert_eq!(uncompressed(&encode_frame(&golden_frame(), &requests())), frame);

    let compressed = golden::block("table-frame-compressed");
    assert_eq!(decode_frame(&compressed, &requests(), Nanos(1)).unwrap(), sorted);
}
