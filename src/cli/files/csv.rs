//! CSV: rows under a header that names the fields.

use std::io::Read;

use chrono::NaiveDate;

use super::columns::{self, Field, Shape};
use super::{Decoded, LINE_BYTES_MAX, Refused};
use crate::market::{Nanos, Symbol, calendar};
use crate::wire::json::write_text;

/// The rows of a file, each as a line of NDJSON.
///
/// A cell goes into the line as it is, so that the node judges what it says: an empty one is
/// left out, and one that should be a number and is none goes as text.
pub(super) struct Rows<R> {
    reader: csv::Reader<R>,
    record: csv::StringRecord,
    /// The field of each column; none of a column that is left out.
    fields: Vec<Option<Field>>,
    /// The kind of rows where no column tells it.
    kind: Option<&'static str>,
    symbol: Option<Symbol>,
}

impl<R: Read> Rows<R> {
    pub(super) fn new(reader: R, symbol: Option<Symbol>, ignore: &[String]) -> Result<Self, String> {
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(reader);
        let header = reader.headers().map_err(|error| error.to_string())?;
        if let Some(missing) = ignore.iter().find(|name| !header.iter().any(|column| column == name.as_str()))
        {
            return Err(format!("has no column `{missing}` to ignore"));
        }
        let mut fields = Vec::with_capacity(header.len());
        for column in header {
            if ignore.iter().any(|name| name == column) {
                fields.push(None);
                continue;
            }
            let field = columns::field_of(column).ok_or_else(|| {
                format!("column `{column}` is no field of a tick; `--ignore {column}` leaves it out")
            })?;
            if fields.contains(&Some(field)) {
                return Err(format!("column `{column}` is the field {} a second time", field.0));
            }
            fields.push(Some(field));
        }
        let known: Vec<Field> = fields.iter().flatten().copied().collect();
        let has = |name| known.contains(&Field(name));
        let kind = columns::kind_of(&known);
        if kind.is_none() && !has("T") {
            return Err(
                "has no column that tells trades, quotes and bars apart: T, price, bid, or open to close"
                    .to_owned(),
            );
        }
        if !has("S") && symbol.is_none() {
            return Err("has no column for the symbol; `--symbol` gives one for all rows".to_owned());
        }
        let symbol = symbol.filter(|_| !has("S"));
        let kind = kind.filter(|_| !has("T"));
        Ok(Self { reader, record: csv::StringRecord::new(), fields, kind, symbol })
    }

    fn line(&self) -> Decoded {
        let raw = || self.record.iter().collect::<Vec<_>>().join(",");
        if self.record.len() > self.fields.len() {
            let why = format!("has {} cells under {} columns", self.record.len(), self.fields.len());
            return Err(Refused::new(raw(), why));
        }
        let cell = |name| {
            let at = self.fields.iter().position(|field| *field == Some(Field(name)))?;
            self.record.get(at).map(str::trim)
        };
        let mut kind = self.kind.or_else(|| cell("T")).unwrap_or_default();
        if self.kind == Some("b") && cell("t").is_some_and(|time| date_of(time).is_some()) {
            kind = "d";
        }
        let mut line = br#"{"T":"#.to_vec();
        write_text(kind, &mut line);
        if let Some(symbol) = self.symbol {
            line.extend_from_slice(br#","S":"#);
            write_text(symbol.as_str(), &mut line);
        }
        for (field, cell) in self.fields.iter().zip(&self.record) {
            let Some(field) = field.filter(|field| field.0 != "T") else { continue };
            // A blank is a condition and an exchange of its own; anywhere else it is nothing.
            let is_blank = cell.trim().is_empty();
            if cell.is_empty() || is_blank && !matches!(field.0, "x" | "ax" | "bx" | "c" | "oc" | "cc") {
                continue;
            }
            for name in columns::names_of(field, kind) {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(name.as_bytes());
                line.extend_from_slice(b"\":");
                write_cell(columns::shape_of(field, kind), cell, &mut line);
            }
        }
        line.push(b'}');
        if line.len() > LINE_BYTES_MAX {
            let shown: String = raw().chars().take(200).collect();
            return Err(Refused::new(shown, format!("is longer than {LINE_BYTES_MAX} bytes")));
        }
        Ok(line)
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Decoded, String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_record(&mut self.record) {
            Ok(true) => Some(Ok(self.line())),
            Ok(false) => None,
            Err(error) => match error.kind() {
                csv::ErrorKind::Utf8 { .. } => Some(Ok(Err(Refused::new("", "is not UTF-8")))),
                _ => Some(Err(error.to_string())),
            },
        }
    }
}

fn write_cell(shape: Shape, cell: &str, line: &mut Vec<u8>) {
    match shape {
        Shape::Number if is_json_number(cell.trim()) => line.extend_from_slice(cell.trim().as_bytes()),
        Shape::Number => write_text(cell.trim(), line),
        Shape::Text if cell.trim().is_empty() => write_text(" ", line),
        Shape::Text => write_text(cell.trim(), line),
        Shape::Time => write_text(&time_text(cell.trim()), line),
        Shape::Codes => {
            line.push(b'[');
            for (at, code) in codes(cell).into_iter().enumerate() {
                if at > 0 {
                    line.push(b',');
                }
                write_text(code, line);
            }
            line.push(b']');
        }
    }
}

/// The conditions of a cell. Where it has one of `;|/` these part them, and a blank between two
/// is the condition blank; else each letter is one, and blanks part them. A cell of blanks alone
/// is the condition blank.
fn codes(cell: &str) -> Vec<&str> {
    const SEPARATORS: [char; 3] = [';', '|', '/'];
    if cell.contains(SEPARATORS) {
        let parts = cell.split(SEPARATORS).filter(|part| !part.is_empty());
        return parts.map(|part| if part.trim().is_empty() { " " } else { part.trim() }).collect();
    }
    let letters = cell.split("").filter(|letter| !letter.trim().is_empty());
    if cell.trim().is_empty() { vec![" "] } else { letters.collect() }
}

/// A date alone, such as 2018-01-31.
fn date_of(text: &str) -> Option<NaiveDate> {
    (text.len() == 10).then(|| text.parse().ok()).flatten()
}

/// RFC 3339 of a date (midnight in New York) or of a Unix time, whose unit its length tells;
/// any other text as it is.
fn time_text(text: &str) -> String {
    if let Some(date) = date_of(text) {
        return calendar::new_york_midnight(date).to_string();
    }
    let unit = match text.len() {
        10 => Nanos::SECOND,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return text.to_owned(),
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = digits.then(|| text.parse::<i64>().ok()?.checked_mul(unit)).flatten();
    nanos.map_or_else(|| text.to_owned(), |nanos| Nanos(nanos).to_string())
}

/// Whether a text is a number as JSON writes it.
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let starts = digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    starts && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, symbol: Option<&str>, ignore: &[&str]) -> Result<Vec<String>, String> {
        let ignore: Vec<String> = ignore.iter().map(ToString::to_string).collect();
        let rows = Rows::new(text.as_bytes(), symbol.map(|symbol| symbol.parse().unwrap()), &ignore)?;
        Ok(rows
            .map(|decoded| match decoded.unwrap() {
                Ok(line) => String::from_utf8(line).unwrap(),
                Err(refused) => format!("refused: {}", refused.why),
            })
            .collect())
    }

    #[test]
    fn daily_bars_by_their_dates() {
        let text = "date,open,high,low,close,volume,Name\n2013-02-08,15.07,15.12,14.63,14.75,8407500,AAL\n2013-07-08,,1,2,3,4,AAL\n";
        assert_eq!(
            rows(text, None, &[]).unwrap(),
            [
                r#"{"T":"d","t":"2013-02-08T05:00:00Z","o":15.07,"h":15.12,"l":14.63,"c":14.75,"v":8407500,"S":"AAL"}"#,
                r#"{"T":"d","t":"2013-07-08T04:00:00Z","h":1,"l":2,"c":3,"v":4,"S":"AAL"}"#,
            ]
        );
        let minutes = "S,t,o,h,l,c,v\nA,1357655400,1,1,1,1,5\n";
        assert_eq!(
            rows(minutes, None, &[]).unwrap(),
            [r#"{"T":"b","S":"A","t":"2013-01-08T14:30:00Z","o":1,"h":1,"l":1,"c":1,"v":5}"#]
        );
    }

    #[test]
    fn trades_with_conditions_and_a_column_left_out() {
        let text = "DT,EX,SYMBOL,COND,SIZE,PRICE,CORR\n2018-01-02T10:01:21.479000Z,P,XXX,FTI,2,157.8,0\n\
                    x, ,xxx,@ F T,1.5,\"1,5\",0\n,,XXX, ,,,\n";
        assert!(rows(text, None, &[]).unwrap_err().contains("--ignore CORR"));
        assert_eq!(
            rows(text, None, &["CORR"]).unwrap(),
            [
                r#"{"T":"t","t":"2018-01-02T10:01:21.479000Z","x":"P","S":"XXX","c":["F","T","I"],"s":2,"p":157.8}"#,
                r#"{"T":"t","t":"x","x":" ","S":"xxx","c":["@","F","T"],"s":1.5,"p":"1,5"}"#,
                r#"{"T":"t","S":"XXX","c":[" "]}"#,
            ]
        );
    }

    #[test]
    fn quotes_of_one_symbol_and_mixed_kinds() {
        let quotes = "timestamp,bid,bid_size,ask,ask_size\n1704292200123456789,10.1,100,10.2,200\n";
        assert_eq!(
            rows(quotes, Some("BRK.B"), &[]).unwrap(),
            [
                r#"{"T":"q","S":"BRK.B","t":"2024-01-03T14:30:00.123456789Z","bp":10.1,"bs":100,"ap":10.2,"as":200}"#
            ]
        );
        let mixed =
            "T,S,t,p,s,c,o,h,l\nt,A,2024-01-03T14:30:00Z,1,2,@,,,\nb,A,2024-01-03T14:30:00Z,,,4,1,5,1\n";
        assert_eq!(
            rows(mixed, None, &[]).unwrap(),
            [
                r#"{"T":"t","S":"A","t":"2024-01-03T14:30:00Z","p":1,"s":2,"c":["@"]}"#,
                r#"{"T":"b","S":"A","t":"2024-01-03T14:30:00Z","c":4,"o":1,"h":5,"l":1}"#,
            ]
        );
    }

    #[test]
    fn what_cannot_be_told_apart_is_an_error_by_name() {
        for (text, ignore, why) in [
            ("S,t,size\n", "", "tells trades"),
            ("t,p,s\n", "", "--symbol"),
            ("S,symbol,t,p\n", "", "a second time"),
            ("S,t,p\n", "color", "`color`"),
        ] {
            let ignore: Vec<&str> = ignore.split(' ').filter(|name| !name.is_empty()).collect();
            assert!(rows(text, None, &ignore).unwrap_err().contains(why), "{text}");
        }
        let long = rows("S,t,p\nA,2024-01-03T14:30:00Z,1,2\nA,2024-01-03T14:30:00Z\n", None, &[]).unwrap();
        assert!(long[0].contains("4 cells under 3 columns"));
        assert_eq!(long[1], r#"{"T":"t","S":"A","t":"2024-01-03T14:30:00Z"}"#);
    }

    #[test]
    fn conditions_are_parted_by_letters_blanks_or_signs() {
        for (cell, expected) in [
            ("@FT", vec!["@", "F", "T"]),
            ("@ F T", vec!["@", "F", "T"]),
            (" |F|I", vec![" ", "F", "I"]),
            ("@;FT", vec!["@", "FT"]),
            ("|@|", vec!["@"]),
            ("  ", vec![" "]),
            ("é", vec!["é"]),
        ] {
            assert_eq!(codes(cell), expected, "{cell}");
        }
    }

    #[test]
    fn numbers_and_times() {
        for (text, is) in [
            ("1", true),
            ("-1.5e3", true),
            ("01", false),
            ("+1", false),
            ("", false),
            ("1.", false),
            ("NaN", false),
            (" 1", false),
        ] {
            assert_eq!(is_json_number(text), is, "{text}");
        }
        assert_eq!(time_text("1704292200"), "2024-01-03T14:30:00Z");
        assert_eq!(time_text("1704292200123"), "2024-01-03T14:30:00.123Z");
        assert_eq!(time_text("1704292200123456"), "2024-01-03T14:30:00.123456Z");
        assert_eq!(time_text("2024-01-03 14:30:00"), "2024-01-03 14:30:00");
        assert_eq!(time_text("9999999999999999999"), "9999999999999999999");
    }
}
