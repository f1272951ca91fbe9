//! What the tests of the tape are made of.

use std::sync::Arc;

use super::{BodyHash, Delivery, Frame, Mono, Now, Piece, Region};
use crate::market::{Event, Exchange, Nanos, Origin, Price, RequestKey, Row, SipTape, Symbol, Tick, Trade};
use crate::store::TapeId;

pub(crate) fn region(name: &str) -> Region {
    Region::parse(name).unwrap()
}

/// So many milliseconds after the start, by both clocks.
pub(crate) fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Nanos(i64::try_from(ms).unwrap() * 1_000_000) }
}

/// A trade of `AAPL` or another symbol, at a position of a body.
pub(crate) fn row(symbol: &str, index: u32) -> Row {
    let trade = Trade {
        id: Some(u64::from(index) + 1),
        exchange: Exchange(b'V'),
        price: Price(100_000_000_000 + i64::from(index)),
        size: 100,
        tape: SipTape::default(),
        ..Trade::default()
    };
    let time = Nanos(1_000_000 + i64::from(index));
    let tick = Tick { symbol: Symbol::parse(symbol.as_bytes()).unwrap(), time, event: Event::Trade(trade) };
    Row { tick, origin: Origin { received: Nanos(0), index, request: RequestKey([7; 16]) } }
}

/// A delivery of a frame with these rows, of one request and all of them new.
pub(crate) fn delivery(tape: u64, seq: u64, rows: Vec<Row>) -> Delivery {
    let request = rows.first().map_or(RequestKey::default(), |row| row.origin.request);
    let count = u32::try_from(rows.len()).unwrap();
    let new = vec![Piece { request, body: BodyHash([1; 16]), first: 0, count, backfill: false }];
    Delivery { frame: Arc::new(Frame { rows, ..Frame::clone(&frame(tape, seq, 0, &[])) }), new }
}

/// A frame of one trade a symbol.
pub(crate) fn frame(tape: u64, seq: u64, low: u64, symbols: &[&str]) -> Arc<Frame> {
    let first = u32::try_from(seq * 100).unwrap();
    let rows: Vec<Row> = symbols.iter().zip(first..).map(|(symbol, index)| row(symbol, index)).collect();
    let count = u32::try_from(rows.len()).unwrap();
    let piece =
        Piece { request: RequestKey([7; 16]), body: BodyHash([1; 16]), first, count, backfill: false };
    Arc::new(Frame {
        tape: TapeId(tape),
        seq,
        low,
        home: region("a"),
        received: Nanos(0),
        fin: false,
        pieces: if rows.is_empty() { Vec::new() } else { vec![piece] },
        rows,
    })
}
