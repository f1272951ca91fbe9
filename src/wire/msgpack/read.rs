//! A MessagePack reader for ticks: one pass, no tree, bounded nesting.

use std::borrow::Cow;

use rmp::Marker;

use crate::market::{CodeError, Conditions, Nanos};
use crate::wire::fields::{self, Source, Value};
use crate::wire::refusal::{Malformed, Stop, Verdict};

/// Reads one tick from the bytes of one MessagePack value.
///
/// # Errors
/// [`Malformed`] where the bytes are not exactly one value, or nest deeper than `depth_max`.
pub fn read_tick(bytes: &[u8], depth_max: usize) -> Result<Verdict, Malformed> {
    let mut reader = Reader::new(bytes, 0, depth_max);
    let verdict = fields::read_tick(&mut reader).map_err(|stop| stop.at_end(bytes.len()))?;
    if reader.at == bytes.len() {
        Ok(verdict)
    } else {
        Err(Malformed { offset: reader.at, why: "more follows behind the value" })
    }
}

/// A place in MessagePack bytes.
#[derive(Clone)]
pub(in crate::wire) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
    /// Keys left in the map that was entered.
    keys_left: u32,
}

impl<'a> Reader<'a> {
    pub(in crate::wire) const fn new(bytes: &'a [u8], at: usize, depth_max: usize) -> Self {
        Self { bytes, at, depth_left: depth_max, keys_left: 0 }
    }

    fn marker(&mut self) -> Result<Marker, Stop> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::More)?;
        self.at += 1;
        Ok(Marker::from_u8(byte))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(length).ok_or(Stop::More)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::More)?;
        self.at = end;
        Ok(bytes)
    }

    /// A big-endian number of `length` bytes, at most eight.
    fn number(&mut self, length: usize) -> Result<u64, Stop> {
        Ok(self.take(length)?.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    fn length(&mut self, length: usize) -> Result<usize, Stop> {
        usize::try_from(self.number(length)?).map_err(|_| Stop::More)
    }

    fn signed(&mut self, length: usize) -> Result<Value<'a>, Stop> {
        let bits = self.number(length)?;
        let shift = 64 - 8 * u32::try_from(length).unwrap_or(8);
        let value = (bits << shift).cast_signed() >> shift;
        Ok(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }

    fn text(&mut self, length: usize) -> Result<Value<'a>, Stop> {
        let from = self.at;
        let text = self.take(length)?;
        if !text.is_ascii()
            && let Err(error) = std::str::from_utf8(text)
        {
            let offset = from + error.valid_up_to();
            return Err(Stop::Malformed(Malformed { offset, why: "is not UTF-8" }));
        }
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn down(&mut self) -> Result<(), Stop> {
        let too_deep = Malformed { offset: self.at, why: "is nested too deep" };
        self.depth_left = self.depth_left.checked_sub(1).ok_or(Stop::Malformed(too_deep))?;
        Ok(())
    }

    /// The length of an array whose marker is next; `None` where another value is.
    pub(in crate::wire) fn enter_array(&mut self) -> Result<Option<u32>, Stop> {
        let from = self.at;
        let length = match self.marker()? {
            Marker::FixArray(length) => Some(u64::from(length)),
            Marker::Array16 => Some(self.number(2)?),
            Marker::Array32 => Some(self.number(4)?),
            _ => None,
        };
        if length.is_none() {
            self.at = from;
        }
        Ok(length.and_then(|length| u32::try_from(length).ok()))
    }

    fn list(&mut self, length: u64) -> Result<Value<'a>, Stop> {
        self.down()?;
        let mut codes = Ok(Conditions::default());
        for _ in 0..length {
            let element = self.value()?;
            codes = match (codes, element) {
                (Ok(codes), Value::Text(text)) => codes.with(&text),
                (Ok(_), _) => Err(CodeError::NotOneCharacter),
                (error, _) => error,
            };
        }
        self.depth_left += 1;
        Ok(Value::List(codes))
    }

    fn map(&mut self, length: u64) -> Result<Value<'a>, Stop> {
        self.down()?;
        for _ in 0..length {
            self.value()?;
            self.value()?;
        }
        self.depth_left += 1;
        Ok(Value::Other)
    }

    fn extension(&mut self, length: usize) -> Result<Value<'a>, Stop> {
        let kind = self.number(1)?;
        let bytes = self.take(length)?;
        // Type -1 is the timestamp; a time outside 1677 to 2262 is no value of ours.
        let time = if kind == 0xff { timestamp(bytes) } else { None };
        Ok(time.map_or(Value::Other, Value::Time))
    }
}

/// The three forms of the timestamp extension.
fn timestamp(bytes: &[u8]) -> Option<Nanos> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().ok()?);
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, i64::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanos, seconds) = bytes.split_at_checked(4)?;
            let nanos = i64::from(u32::from_be_bytes(nanos.try_into().ok()?));
            (i64::from_be_bytes(seconds.try_into().ok()?), nanos)
        }
        _ => return None,
    };
    if nanos >= Nanos::SECOND {
        return None;
    }
    seconds.checked_mul(Nanos::SECOND)?.checked_add(nanos).map(Nanos)
}

impl<'a> Source<'a> for Reader<'a> {
    fn enter(&mut self) -> Result<bool, Stop> {
        let from = self.at;
        let length = match self.marker()? {
            Marker::FixMap(length) => u64::from(length),
            Marker::Map16 => self.number(2)?,
            Marker::Map32 => self.number(4)?,
            _ => {
                self.at = from;
                return Ok(false);
            }
        };
        self.down()?;
        self.keys_left = u32::try_from(length).unwrap_or(u32::MAX);
        Ok(true)
    }

    fn key(&mut self) -> Result<Option<Cow<'a, [u8]>>, Stop> {
        if self.keys_left == 0 {
            self.depth_left += 1;
            return Ok(None);
        }
        self.keys_left -= 1;
        let from = self.at;
        Ok(Some(match self.value()? {
            Value::Text(text) => text,
            // Such a key is the name of no field; it is shown as what it is.
            _ => Cow::Owned(self.excerpt(from).into_bytes()),
        }))
    }

    fn value(&mut self) -> Result<Value<'a>, Stop> {
        match self.marker()? {
            Marker::Null => Ok(Value::Null),
            Marker::True | Marker::False => Ok(Value::Other),
            Marker::FixPos(value) => Ok(Value::Unsigned(value.into())),
            Marker::FixNeg(value) => Ok(Value::Negative(value.into())),
            Marker::U8 => self.number(1).map(Value::Unsigned),
            Marker::U16 => self.number(2).map(Value::Unsigned),
            Marker::U32 => self.number(4).map(Value::Unsigned),
            Marker::U64 => self.number(8).map(Value::Unsigned),
            Marker::I8 => self.signed(1),
            Marker::I16 => self.signed(2),
            Marker::I32 => self.signed(4),
            Marker::I64 => self.signed(8),
            Marker::F32 => {
                let bits = u32::try_from(self.number(4)?).unwrap_or_default();
                Ok(Value::Single(f32::from_bits(bits)))
            }
            Marker::F64 => self.number(8).map(|bits| Value::Double(f64::from_bits(bits))),
            Marker::FixStr(length) => self.text(length.into()),
            Marker::Str8 => self.length(1).and_then(|length| self.text(length)),
            Marker::Str16 => self.length(2).and_then(|length| self.text(length)),
            Marker::Str32 => self.length(4).and_then(|length| self.text(length)),
            Marker::FixArray(length) => self.list(length.into()),
            Marker::Array16 => self.number(2).and_then(|length| self.list(length)),
            Marker::Array32 => self.number(4).and_then(|length| self.list(length)),
            Marker::FixMap(length) => self.map(length.into()),
            Marker::Map16 => self.number(2).and_then(|length| self.map(length)),
            Marker::Map32 => self.number(4).and_then(|length| self.map(length)),
            Marker::Bin8 => self.length(1).and_then(|length| self.take(length)).map(|_| Value::Other),
            Marker::Bin16 => self.length(2).and_then(|length| self.take(length)).map(|_| Value::Other),
            Marker::Bin32 => self.length(4).and_then(|length| self.take(length)).map(|_| Value::Other),
            Marker::FixExt1 => self.extension(1),
            Marker::FixExt2 => self.extension(2),
            Marker::FixExt4 => self.extension(4),
            Marker::FixExt8 => self.extension(8),
            Marker::FixExt16 => self.extension(16),
            Marker::Ext8 => self.length(1).and_then(|length| self.extension(length)),
            Marker::Ext16 => self.length(2).and_then(|length| self.extension(length)),
            Marker::Ext32 => self.length(4).and_then(|length| self.extension(length)),
            Marker::Reserved => Err(Stop::Malformed(Malformed {
                offset: self.at - 1,
                why: "is a byte that MessagePack never uses",
            })),
        }
    }

    fn at(&self) -> usize {
        self.at
    }

    fn excerpt(&self, from: usize) -> String {
        let mut reader = Self::new(self.bytes, from, usize::MAX);
        match reader.value() {
            Ok(Value::Null) => "null".to_owned(),
            Ok(Value::Unsigned(value)) => value.to_string(),
            Ok(Value::Negative(value)) => value.to_string(),
            Ok(Value::Single(value)) => value.to_string(),
            Ok(Value::Double(value)) => value.to_string(),
            Ok(Value::Text(text)) => {
                let mut quoted = Vec::new();
                crate::wire::json::write_text(&String::from_utf8_lossy(&text), &mut quoted);
                String::from_utf8_lossy(&quoted).into_owned()
            }
            Ok(Value::Time(time)) => time.to_string(),
            _ => {
                let bytes = self.bytes.get(from..self.at).unwrap_or_default();
                let shown: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
                format!("bytes {shown}")
            }
        }
    }
}
