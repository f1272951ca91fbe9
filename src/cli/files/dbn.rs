//! Databento DBN, versions 1 to 3: what becomes of a record.
//!
//! | schema | tick |
//! |---|---|
//! | trades | trade; its id is the venue's sequence, where the record before has not the same |
//! | mbp-1, tbbo, bbo-1s, bbo-1m | quote: the best bid and ask, at the time of the event |
//! | ohlcv-1m | minute bar, without number of trades and average price, which the file has not |
//! | ohlcv-1d | daily bar of the same date in New York |
//!
//! Prices are 1e-9 dollars on both sides. A side without a price is empty. The exchange is that
//! of the record's publisher, and a blank for consolidated data sets. Sale conditions and tapes
//! are not in the files, and none are made up.

use std::io::Read;

use chrono::DateTime;
use dbn::decode::{DbnDecoder, DbnMetadata, DecodeRecordRef};
use dbn::{
    BboMsg, BidAskPair, Mbp1Msg, OhlcvMsg, Record, RecordRef, Schema, SymbolIndex, SymbolMappingMsg,
    TradeMsg, TsSymbolMap, UNDEF_PRICE, UNDEF_TIMESTAMP, Venue,
};

use super::{Decoded, Refused};
use crate::market::{Bar, Event, Exchange, Nanos, Price, Quote, Symbol, Tick, Trade, calendar};
use crate::wire::json;

/// What can be read, for messages.
const READABLE: &str = "trades, mbp-1, tbbo, bbo-1s, bbo-1m, ohlcv-1m, ohlcv-1d";

/// The records of a file, each as a line of NDJSON.
pub(super) struct Records<R> {
    decoder: DbnDecoder<R>,
    symbols: TsSymbolMap,
    /// The series, time and sequence of the last trade.
    last_trade: Option<(u32, u64, u32)>,
}

impl<R: Read> Records<R> {
    pub(super) fn new(reader: R) -> Result<Self, String> {
        let decoder = DbnDecoder::new(reader).map_err(|error| format!("is no DBN file: {error}"))?;
        let metadata = decoder.metadata();
        if let Some(schema) = metadata.schema.filter(|schema| !is_readable(*schema)) {
            return Err(format!("schema {schema} has no ticks that can be kept; schemas are {READABLE}"));
        }
        let symbols = TsSymbolMap::from_metadata(metadata)
            .map_err(|error| format!("its symbols cannot be read: {error}"))?;
        Ok(Self { decoder, symbols, last_trade: None })
    }
}

fn is_readable(schema: Schema) -> bool {
    use Schema::{Bbo1M, Bbo1S, Mbp1, Ohlcv1D, Ohlcv1M, Tbbo, Trades};
    matches!(schema, Trades | Mbp1 | Tbbo | Bbo1S | Bbo1M | Ohlcv1M | Ohlcv1D)
}

impl<R: Read> Iterator for Records<R> {
    type Item = Result<Decoded, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.decoder.decode_record_ref() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error.to_string())),
        };
        Some(Ok(line(record, &mut self.symbols, &mut self.last_trade)))
    }
}

fn line(record: RecordRef<'_>, symbols: &mut TsSymbolMap, last: &mut Option<(u32, u64, u32)>) -> Decoded {
    let refused = |why: String| Refused::new(format!("{:?}", record.header()), why);
    if record.get::<SymbolMappingMsg>().is_some() {
        symbols.on_record(record).map_err(|error| refused(error.to_string()))?;
        return Err(refused("names a symbol and is no tick".to_owned()));
    }
    let instrument = record.header().instrument_id;
    let symbol = symbols
        .get_for_rec(&record)
        .ok_or_else(|| refused(format!("instrument {instrument} has no symbol in this file at its time")))?;
    let symbol: Symbol = symbol.parse().map_err(|error| refused(format!("symbol {symbol} {error}")))?;
    let exchange = exchange_of(&record);
    let (time, event) = if let Some(trade) = record.get::<TradeMsg>() {
        trade_of(trade, exchange, last).map_err(refused)?
    } else if let Some(quote) = record.get::<Mbp1Msg>() {
        let [level] = &quote.levels;
        (quote.hd.ts_event, quote_of(level, exchange))
    } else if let Some(quote) = record.get::<BboMsg>() {
        let [level] = &quote.levels;
        let time = if quote.hd.ts_event == UNDEF_TIMESTAMP { quote.ts_recv } else { quote.hd.ts_event };
        (time, quote_of(level, exchange))
    } else if let Some(bar) = record.get::<OhlcvMsg>() {
        bar_of(bar).map_err(refused)?
    } else {
        let rtype = record.header().rtype;
        return Err(refused(format!("a record of type {rtype} is no tick; schemas are {READABLE}")));
    };
    let time = i64::try_from(time).map(Nanos).map_err(|_| refused("has no time".to_owned()))?;
    let time = if matches!(event, Event::DayBar(_)) { new_york_midnight(time) } else { time };
    let mut line = Vec::with_capacity(160);
    json::write_stream(&Tick { symbol, time, event }, &mut line);
    Ok(line)
}

/// Midnight in New York of the UTC date, which names the day of a daily bar.
fn new_york_midnight(time: Nanos) -> Nanos {
    calendar::new_york_midnight(DateTime::from_timestamp_nanos(time.0).date_naive())
}

fn trade_of(
    trade: &TradeMsg,
    exchange: Exchange,
    last: &mut Option<(u32, u64, u32)>,
) -> Result<(u64, Event), String> {
    let price = defined(trade.price).ok_or("has no price")?;
    let place = (trade.hd.instrument_id, trade.hd.ts_event, trade.sequence);
    // One message of a venue can hold several trades: their common number would make them one.
    let repeated = last.replace(place) == Some(place);
    let id = (trade.sequence != 0 && !repeated).then(|| u64::from(trade.sequence));
    Ok((trade.hd.ts_event, Event::Trade(Trade { id, exchange, price, size: trade.size, ..Trade::default() })))
}

fn quote_of(level: &BidAskPair, exchange: Exchange) -> Event {
    let side = |price, size| match defined(price) {
        Some(price) => (exchange, price, size),
        None => (Exchange::BLANK, Price(0), 0),
    };
    let (ask_exchange, ask_price, ask_size) = side(level.ask_px, level.ask_sz);
    let (bid_exchange, bid_price, bid_size) = side(level.bid_px, level.bid_sz);
    Event::Quote(Quote {
        ask_exchange,
        ask_price,
        ask_size,
        bid_exchange,
        bid_price,
        bid_size,
        ..Quote::default()
    })
}

fn bar_of(bar: &OhlcvMsg) -> Result<(u64, Event), String> {
    let price = |price| defined(price).ok_or_else(|| "has no price".to_owned());
    let (open, high, low, close) = (price(bar.open)?, price(bar.high)?, price(bar.low)?, price(bar.close)?);
    let folded = Bar { open, high, low, close, volume: bar.volume, ..Bar::default() };
    let event = match bar.hd.rtype().map_err(|error| error.to_string())? {
        dbn::RType::Ohlcv1M => Event::MinuteBar(folded),
        dbn::RType::Ohlcv1D => Event::DayBar(folded),
        other => return Err(format!("a bar of type {other:?} is neither of a minute nor of a day")),
    };
    Ok((bar.hd.ts_event, event))
}

fn defined(price: i64) -> Option<Price> {
    (price != UNDEF_PRICE).then_some(Price(price))
}

/// The code of the exchange where a record's publisher names one.
fn exchange_of(record: &RecordRef<'_>) -> Exchange {
    let Ok(publisher) = record.publisher() else { return Exchange::BLANK };
    Exchange(match publisher.venue() {
        Venue::Xase => b'A',
        Venue::Xbos => b'B',
        Venue::Xcis => b'C',
        Venue::Finn | Venue::Finc | Venue::Finy | Venue::Xadf => b'D',
        Venue::Eprl => b'H',
        Venue::Edga => b'J',
        Venue::Edgx => b'K',
        Venue::Ltse => b'L',
        Venue::Xchi => b'M',
        Venue::Xnys => b'N',
        Venue::Arcx => b'P',
        Venue::Xnas => b'Q',
        Venue::Memx => b'U',
        Venue::Iexg => b'V',
        Venue::Xpsx => b'X',
        Venue::Baty => b'Y',
        Venue::Bats => b'Z',
        _ => return Exchange::BLANK,
    })
}

#[cfg(test)]
mod tests {
    use dbn::encode::{DbnEncoder, EncodeRecord};
    use dbn::{
        Dataset, FlagSet, MappingInterval, MetadataBuilder, Publisher, RecordHeader, SType, SymbolMapping,
        rtype,
    };

    use super::*;

    /// 2024-01-03T14:30:00Z.
    const TIME: u64 = 1_704_292_200_000_000_000;
    const DAY: u64 = 86_400_000_000_000;

    fn metadata(schema: Schema, mappings: Vec<SymbolMapping>) -> dbn::Metadata {
        MetadataBuilder::new()
            .dataset(Dataset::XnasItch.to_string())
            .schema(Some(schema))
            .start(TIME)
            .end(std::num::NonZeroU64::new(TIME + DAY))
            .stype_in(Some(SType::RawSymbol))
            .stype_out(SType::InstrumentId)
            .symbols(vec!["BRK.B".to_owned()])
            .mappings(mappings)
            .build()
    }

    fn encoder(schema: Schema) -> DbnEncoder<Vec<u8>> {
        let times = metadata(schema, Vec::new());
        let (start_date, end_date) = (times.start().date(), times.end().unwrap().date());
        let interval = MappingInterval { start_date, end_date, symbol: "7".to_owned() };
        let mapping = SymbolMapping { raw_symbol: "BRK.B".to_owned(), intervals: vec![interval] };
        DbnEncoder::new(Vec::new(), &metadata(schema, vec![mapping])).unwrap()
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let records = Records::new(bytes).unwrap();
        records
            .map(|decoded| match decoded.unwrap() {
                Ok(line) => String::from_utf8(line).unwrap(),
                Err(refused) => format!("refused: {}", refused.why),
            })
            .collect()
    }

    fn trade(instrument: u32, sequence: u32, price: i64) -> TradeMsg {
        TradeMsg {
            hd: RecordHeader::new::<TradeMsg>(rtype::MBP_0, Publisher::XnasItchXnas as u16, instrument, TIME),
            price,
            size: 36,
            action: 0,
            side: 0,
            flags: FlagSet::empty(),
            depth: 0,
            ts_recv: TIME,
            ts_in_delta: 0,
            sequence,
        }
    }

    #[test]
    fn trades_have_the_sequence_as_id_where_it_tells_them_apart() {
        let mut encoder = encoder(Schema::Trades);
        for record in [
            trade(7, 5, 521_000_000_000),
            trade(7, 6, 521_250_000_000),
            trade(7, 6, 521_250_000_000),
            trade(7, 0, 1),
            trade(8, 1, 1),
            trade(7, 8, UNDEF_PRICE),
        ] {
            encoder.encode_record(&record).unwrap();
        }
        let head = r#"{"T":"t","S":"BRK.B","#;
        let tail = r#""t":"2024-01-03T14:30:00Z"}"#;
        let found = lines(encoder.get_ref());
        assert_eq!(found.len(), 6);
        assert_eq!(found[0], format!(r#"{head}"i":5,"x":"Q","p":521,"s":36,"c":[],{tail}"#));
        assert_eq!(found[1], format!(r#"{head}"i":6,"x":"Q","p":521.25,"s":36,"c":[],{tail}"#));
        assert_eq!(found[2], format!(r#"{head}"x":"Q","p":521.25,"s":36,"c":[],{tail}"#));
        assert!(!found[3].contains("\"i\""));
        assert!(
            found[4].contains("instrument 8 has no symbol") && found[5].contains("no price"),
            "{found:?}"
        );
    }

    #[test]
    fn quotes_leave_a_side_without_a_price_empty() {
        let level = BidAskPair {
            bid_px: 512_010_000_000,
            ask_px: UNDEF_PRICE,
            bid_sz: 3,
            ask_sz: 9,
            bid_ct: 0,
            ask_ct: 0,
        };
        let quote = Mbp1Msg {
            hd: RecordHeader::new::<Mbp1Msg>(rtype::MBP_1, Publisher::EqusMiniEqus as u16, 7, TIME),
            price: 0,
            size: 0,
            action: 0,
            side: 0,
            flags: FlagSet::empty(),
            depth: 0,
            ts_recv: TIME,
            ts_in_delta: 0,
            sequence: 0,
            levels: [level],
        };
        let mut encoder = encoder(Schema::Mbp1);
        encoder.encode_record(&quote).unwrap();
        assert_eq!(
            lines(encoder.get_ref()),
            [concat!(
                r#"{"T":"q","S":"BRK.B","bx":" ","bp":512.01,"bs":3,"ax":" ","ap":0,"as":0,"#,
                r#""c":[],"t":"2024-01-03T14:30:00Z"}"#
            )]
        );
    }

    #[test]
    fn daily_bars_begin_at_midnight_in_new_york() {
        let bar = |kind, ts_event| OhlcvMsg {
            hd: RecordHeader::new::<OhlcvMsg>(kind, Publisher::XnasItchXnas as u16, 7, ts_event),
            open: 2_000_000_000,
            high: 4_000_000_000,
            low: 1_000_000_000,
            close: 3_000_000_000,
            volume: 5_000_000_000,
        };
        let mut encoder = encoder(Schema::Ohlcv1D);
        encoder.encode_record(&bar(rtype::OHLCV_1D, TIME - TIME % DAY)).unwrap();
        encoder.encode_record(&bar(rtype::OHLCV_1M, TIME)).unwrap();
        encoder.encode_record(&bar(rtype::OHLCV_1H, TIME)).unwrap();
        let found = lines(encoder.get_ref());
        let fields = r#""S":"BRK.B","o":2,"h":4,"l":1,"c":3,"v":5000000000,"#;
        assert!(found[0].starts_with(&format!(r#"{{"T":"d",{fields}"#)), "{found:?}");
        assert!(found[0].ends_with(r#""t":"2024-01-03T05:00:00Z"}"#), "{found:?}");
        assert!(found[1].starts_with(&format!(r#"{{"T":"b",{fields}"#)), "{found:?}");
        assert!(
            found[1].ends_with(r#""t":"2024-01-03T14:30:00Z"}"#) && found[2].starts_with("refused"),
            "{found:?}"
        );
    }

    #[test]
    fn schemas_without_ticks_are_named() {
        let why = Records::new(encoder(Schema::Mbo).get_ref().as_slice()).err().unwrap();
        assert!(why.contains("mbo") && why.contains(READABLE), "{why}");
        assert!(Records::new(b"DBN\x03rubbish".as_slice()).is_err());
    }
}
