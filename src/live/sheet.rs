//! Sheets: the latest trades and quotes that a node knows, for one that starts (`docs/FORMATS.md`, section
//! 12).
//!
//! A sheet is as of a Position. Who follows the tapes from there, or from before it, and takes each tick
//! that comes on top of the sheet, knows the latest of its symbols without reading history.

use super::latest::{Newer, Quoted, Traded};
use crate::market::{Event, Nanos, Ordinal, Origin, Place, Row, Symbol, Tick, TickId, table};
use crate::tape::{CodecError, Fields, Position, put_text, put_varint, version};

const SHEET_VERSION: u8 = 1;
const INDEX_VERSION: u8 = 1;
const FLAG_TRADE_KNOWN: u8 = 1;
const FLAG_TRADE: u8 = 2;
const FLAG_QUOTE_KNOWN: u8 = 4;
const FLAG_QUOTE: u8 = 8;
const FLAGS_MAX: u8 = 15;
const ORDER_NUMBERED: u8 = 0;
const ORDER_ARRIVED: u8 = 1;

/// What a node knows of a symbol: of each series nothing, or the newest, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The symbol.
    pub symbol: Symbol,
    /// The latest trade that sets a price.
    pub trade: Option<Option<Traded>>,
    /// The latest quote.
    pub quote: Option<Option<Quoted>>,
}

/// What a node knew of the symbols of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// All ticks up to there are in it.
    pub position: Position,
    /// When it was made, by the clock of the node that made it.
    pub at: Nanos,
    /// Symbols, ascending.
    pub symbols: Vec<Known>,
}

/// Why bytes are no sheet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// A field.
    #[error(transparent)]
    Field(#[from] CodecError),
    /// The table of its ticks.
    #[error(transparent)]
    Table(#[from] table::TableError),
    /// A symbol is none, or the table does not hold what the list says.
    #[error("the list and the table of a sheet do not fit")]
    NotOne,
}

impl Sheet {
    /// The bytes of a sheet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![SHEET_VERSION];
        out.extend_from_slice(&self.at.0.to_be_bytes());
        let position = self.position.encode();
        put_varint(position.len() as u64, &mut out);
        out.extend_from_slice(&position);
        put_varint(self.symbols.len() as u64, &mut out);
        let mut rows = Vec::with_capacity(2 * self.symbols.len());
        for known in &self.symbols {
            put_text(known.symbol.as_str(), &mut out);
            let (trade, quote) = (known.trade.iter().flatten().next(), known.quote.iter().flatten().next());
            let flags = [
                (known.trade.is_some(), FLAG_TRADE_KNOWN),
                (trade.is_some(), FLAG_TRADE),
                (known.quote.is_some(), FLAG_QUOTE_KNOWN),
                (quote.is_some(), FLAG_QUOTE),
            ];
            out.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
            if let Some(trade) = trade {
                rows.push(row(known.symbol, trade, Event::Trade(trade.what), &mut out));
            }
            if let Some(quote) = quote {
                rows.push(row(known.symbol, quote, Event::Quote(quote.what), &mut out));
            }
        }
        out.extend_from_slice(&table::encode_block(&rows));
        out
    }

    /// Reads the bytes of a sheet.
    ///
    /// # Errors
    /// [`SheetError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, SheetError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, SHEET_VERSION)?;
        let at = Nanos(i64::from_be_bytes(fields.array("at")?));
        let length = fields.count(bytes.len(), "length of the position")?;
        let position = Position::decode(fields.bytes(length, "position")?)?;
        let count = fields.count(table::ROWS_MAX, "symbols")?;
        let mut listed = Vec::with_capacity(count);
        for _ in 0..count {
            let symbol = Symbol::parse(fields.text("symbol")?.as_bytes()).map_err(|_| SheetError::NotOne)?;
            let flags = fields.byte("flags")?;
            let known = [(FLAG_TRADE, FLAG_TRADE_KNOWN), (FLAG_QUOTE, FLAG_QUOTE_KNOWN)];
            if flags > FLAGS_MAX || known.iter().any(|(of, needs)| flags & of != 0 && flags & needs == 0) {
                return Err(
                    CodecError::invalid("flags", u64::from(flags), "flags that fit each other").into()
                );
            }
            let mut place = |flag| (flags & flag != 0).then(|| read_place(&mut fields)).transpose();
            listed.push((symbol, flags, place(FLAG_TRADE)?, place(FLAG_QUOTE)?));
        }
        let mut rows = table::decode_block(fields.rest())?.into_iter();
        let mut symbols = Vec::with_capacity(count);
        for (symbol, flags, trade, quote) in listed {
            let mut next = |place: Option<(Ordinal, TickId)>| -> Result<Option<Newer<Event>>, SheetError> {
                let Some((order, id)) = place else { return Ok(None) };
                let tick = rows.next().ok_or(SheetError::NotOne)?.tick;
                if tick.symbol != symbol {
                    return Err(SheetError::NotOne);
                }
                let place = Place { time: tick.time, order, id };
                Ok(Some(Newer { place, time: tick.time, what: tick.event }))
            };
            let trade = next(trade)?.map(|newer| match newer.what {
                Event::Trade(what) => Ok(Newer { place: newer.place, time: newer.time, what }),
                _ => Err(SheetError::NotOne),
            });
            let quote = next(quote)?.map(|newer| match newer.what {
                Event::Quote(what) => Ok(Newer { place: newer.place, time: newer.time, what }),
                _ => Err(SheetError::NotOne),
            });
            let (trade, quote) = (trade.transpose()?, quote.transpose()?);
            symbols.push(Known {
                symbol,
                trade: (flags & FLAG_TRADE_KNOWN != 0).then_some(trade),
                quote: (flags & FLAG_QUOTE_KNOWN != 0).then_some(quote),
            });
        }
        if rows.next().is_some() {
            return Err(SheetError::NotOne);
        }
        Ok(Self { position, at, symbols })
    }
}

/// Appends the place of a tick, but for its time; answers the tick's row.
fn row<T>(symbol: Symbol, newer: &Newer<T>, event: Event, out: &mut Vec<u8>) -> Row {
    match newer.place.order {
        Ordinal::Numbered(number) => {
            out.push(ORDER_NUMBERED);
            put_varint(number, out);
        }
        Ordinal::Arrived(received, index) => {
            out.push(ORDER_ARRIVED);
            out.extend_from_slice(&received.0.to_be_bytes());
            put_varint(u64::from(index), out);
        }
    }
    out.extend_from_slice(&newer.place.id.0);
    Row { tick: Tick { symbol, time: newer.time, event }, origin: Origin::UNKNOWN }
}

fn read_place(fields: &mut Fields<'_>) -> Result<(Ordinal, TickId), CodecError> {
    let order = match fields.byte("order")? {
        ORDER_NUMBERED => Ordinal::Numbered(fields.varint("number")?),
        ORDER_ARRIVED => {
            let received = Nanos(i64::from_be_bytes(fields.array("received")?));
            Ordinal::Arrived(received, fields.varint32("index")?)
        }
        other => return Err(CodecError::invalid("order", u64::from(other), "0 or 1")),
    };
    Ok((order, TickId(fields.array("id")?)))
}

/// Who keeps the sheets of a region, so that not every node writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SheetIndex {
    /// The process that has written them.
    pub by: u64,
    /// When.
    pub at: Nanos,
    /// How many symbols it knows.
    pub symbols: u64,
}

impl SheetIndex {
    /// The bytes of an index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![INDEX_VERSION];
        out.extend_from_slice(&self.by.to_be_bytes());
        out.extend_from_slice(&self.at.0.to_be_bytes());
        put_varint(self.symbols, &mut out);
        out
    }

    /// Reads the bytes of an index.
    ///
    /// # Errors
    /// [`CodecError`] names the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes);
        version(&mut fields, INDEX_VERSION)?;
        let by = fields.fixed("by")?;
        let at = Nanos(i64::from_be_bytes(fields.array("at")?));
        let symbols = fields.varint("symbols")?;
        fields.end()?;
        Ok(Self { by, at, symbols })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::testing::{of, quote_at, time, trade_at};
    use crate::live::Latest;
    use crate::market::golden;
    use crate::store::TapeId;
    use crate::tape::Progress;
    use proptest::prelude::*;

    const AT: &str = "2024-01-05T15:00:00Z";

    fn quoted(symbol: &str) -> Row {
        of(symbol, quote_at(time(AT).0, 7, 300, 5))
    }

    /// Of one symbol both, of one a quote and no trade, of one a trade alone.
    fn sheet() -> Sheet {
        let mut latest = Latest::new(10);
        let asks = [("A", true, true), ("B", true, true), ("C", true, false)];
        let rows = [
            ("A", of("A", trade_at(time(AT), 300, "10.5", 100))),
            ("A", quoted("A")),
            ("B", quoted("B")),
            ("C", of("C", trade_at(time(AT), 1, "99", 5))),
        ];
        for (name, trade, quote) in asks {
            let symbol = name.parse().unwrap();
            let trade = trade.then(|| latest.trade(symbol).unwrap_err());
            let quote = quote.then(|| latest.quote(symbol).unwrap_err());
            rows.iter().filter(|(of, _)| *of == name).for_each(|(_, row)| latest.apply(row));
            trade.into_iter().for_each(|load| latest.trade_loaded(symbol, load, None));
            quote.into_iter().for_each(|load| latest.quote_loaded(symbol, load, None));
        }
        let mut position = Position::default();
        position.tapes.insert(TapeId(7), Progress::at(301));
        Sheet {
            position,
            at: Nanos(1_000),
            symbols: latest.known(&["A", "B", "C"].map(|name| name.parse().unwrap())),
        }
    }

    #[test]
    fn the_golden_sheet() {
        let (sheet, bytes) = (sheet(), golden::block("sheet"));
        assert_eq!(sheet.encode(), bytes);
        assert_eq!(Sheet::decode(&bytes), Ok(sheet));
        let index = SheetIndex { by: 7, at: Nanos(1_000), symbols: 300 };
        assert_eq!(index.encode(), golden::block("sheet-index"));
        assert_eq!(SheetIndex::decode(&index.encode()), Ok(index));
    }

    #[test]
    fn who_takes_a_sheet_knows_what_it_says_and_what_comes_on_top() {
        let mut latest = Latest::new(10);
        sheet().symbols.into_iter().for_each(|known| latest.warm(known));
        let symbol = |name: &str| name.parse::<Symbol>().unwrap();
        let size = |latest: &mut Latest, name| latest.trade(symbol(name)).unwrap().unwrap().what.size;
        assert_eq!(size(&mut latest, "A"), 100);
        assert!(latest.quote(symbol("A")).unwrap().is_some());
        assert_eq!(latest.trade(symbol("B")), Ok(None), "there is none, and nobody need read");
        assert!(latest.quote(symbol("C")).is_err(), "of that nothing was known");
        // The same again changes nothing, an older one neither, a newer one does.
        let at = time(AT);
        for (row, expected) in [
            (trade_at(at, 300, "10.5", 100), 100),
            (trade_at(at.plus(-1), 301, "10", 1), 100),
            (trade_at(at.plus(1), 302, "11", 2), 2),
        ] {
            latest.apply(&of("A", row));
            assert_eq!(size(&mut latest, "A"), expected);
        }
        // Who knows more already does not take less.
        sheet().symbols.into_iter().for_each(|known| latest.warm(known));
        assert_eq!(size(&mut latest, "A"), 2);
    }

    #[test]
    fn a_list_that_does_not_fit_its_table_is_refused() {
        let mut sheet = sheet();
        let whole = sheet.encode();
        assert!(Sheet::decode(&whole[..whole.len() - 1]).is_err());
        sheet.symbols.truncate(1);
        let (short, table) = (sheet.encode(), table::encode_block(&[]));
        let list = short.len() - table::encode_block(&rows_of(&sheet)).len();
        let empty = [&short[..list], &table[..]].concat();
        assert_eq!(Sheet::decode(&empty), Err(SheetError::NotOne));
    }

    fn rows_of(sheet: &Sheet) -> Vec<Row> {
        let mut rows = Vec::new();
        for known in &sheet.symbols {
            let (trade, quote) = (known.trade.iter().flatten().next(), known.quote.iter().flatten().next());
            rows.extend(
                trade.map(|trade| row(known.symbol, trade, Event::Trade(trade.what), &mut Vec::new())),
            );
            rows.extend(
                quote.map(|quote| row(known.symbol, quote, Event::Quote(quote.what), &mut Vec::new())),
            );
        }
        rows
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0_usize..400, with in any::<u8>()) {
            let mut bytes = sheet().encode();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= with;
            }
            if let Ok(found) = Sheet::decode(&bytes) {
                prop_assert_eq!(Sheet::decode(&found.encode()), Ok(found));
            }
        }
    }
}
