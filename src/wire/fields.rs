//! A tick filled from its fields.
//!
//! Both formats read through here: a [`Source`] gives keys and values in any order, the
//! tables say what each may hold. Where `T` comes first, as everyone sends it, the object is
//! read once; else it is read once for `T` and then again.

use std::borrow::Cow;

use super::number::{self, IntegerError};
use super::refusal::{Refusal, Stop, Verdict};
use super::table::{KINDS, NUMBER_MAX, Slot, Spec, TEXT_BYTES_MAX, code, table};
use crate::market::{
    Bar, Cancel, Code, CodeError, Conditions, Correction, Event, Exchange, Luld, Nanos, Price, Quote,
    SipTape, Status, Symbol, Tick, TimeError, Trade,
};

/// A value as a format gives it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Nothing.
    Null,
    /// The text of a JSON number.
    Number(&'a [u8]),
    /// A whole number from 0.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    /// A float.
    Single(f32),
    /// A double.
    Double(f64),
    /// A text; that it is UTF-8 has been checked.
    Text(Cow<'a, [u8]>),
    /// A timestamp.
    Time(Nanos),
    /// An array, read as conditions.
    List(Result<Conditions, CodeError>),
    /// A boolean, an object, or another thing that no field holds.
    Other,
}

/// The inside of one object, key by key.
pub(super) trait Source<'a>: Clone {
    /// Enters the value: true for an object. Another value is not passed.
    fn enter(&mut self) -> Result<bool, Stop>;
    /// The next key, or `None` behind the last.
    fn key(&mut self) -> Result<Option<Cow<'a, [u8]>>, Stop>;
    /// The value behind a key, or any value.
    fn value(&mut self) -> Result<Value<'a>, Stop>;
    /// The bytes passed so far.
    fn at(&self) -> usize;
    /// The beginning of the value that starts at a byte, as text.
    fn excerpt(&self, from: usize) -> String;
}

/// Reads one value as a tick.
pub(super) fn read_tick<'a, S: Source<'a>>(source: &mut S) -> Result<Verdict, Stop> {
    let start = source.at();
    if !source.enter()? {
        source.value()?;
        let value = source.excerpt(start);
        return Ok(Err(Refusal::new(
            Refusal::WHOLE,
            &value,
            "is not an object",
            "an object with T, S, t and more",
        )));
    }
    let inside = source.clone();
    let mut key = source.key()?;
    let in_front = key.as_deref() == Some(b"T");
    if !in_front {
        while key.as_deref().is_some_and(|key| key != b"T") {
            source.value()?;
            key = source.key()?;
        }
        if key.is_none() {
            return Ok(Err(Refusal::new("T", "", "is missing", KINDS)));
        }
    }
    let from = source.at();
    let letter = source.value()?;
    let Some(mut draft) = Draft::of(&letter) else {
        let refusal = Refusal::new("T", &source.excerpt(from), "is not a kind of tick", KINDS);
        while source.key()?.is_some() {
            source.value()?;
        }
        return Ok(Err(refusal));
    };
    if in_front {
        draft.seen = 1;
    } else {
        *source = inside;
    }
    while let Some(key) = source.key()? {
        let from = source.at();
        let value = source.value()?;
        draft.set(&key, &value, &|| source.excerpt(from));
    }
    Ok(draft.finish())
}

/// A tick under way.
struct Draft {
    letter: u8,
    table: &'static [Spec],
    /// One bit a field of the table that was given; `T` is the lowest.
    seen: u16,
    symbol: Option<Symbol>,
    time: Nanos,
    tape: SipTape,
    exchanges: [Exchange; 2],
    indicator: Code,
    prices: [Price; 4],
    vwap: Option<Price>,
    sizes: [u32; 2],
    numbers: [Option<u64>; 2],
    counts: [u64; 2],
    conditions: [Conditions; 2],
    texts: [Box<str>; 4],
    is_error: bool,
    refusal: Option<Box<Refusal>>,
}

/// Why a value does not go into its slot.
type Unfit = Cow<'static, str>;

impl Draft {
    fn of(letter: &Value<'_>) -> Option<Self> {
        let Value::Text(text) = letter else { return None };
        let [letter] = **text else { return None };
        Some(Self {
            letter,
            table: table(letter)?,
            seen: 0,
            symbol: None,
            time: Nanos(0),
            tape: SipTape::ABSENT,
            exchanges: [Exchange::BLANK; 2],
            indicator: Code::BLANK,
            prices: [Price(0); 4],
            vwap: None,
            sizes: [0; 2],
            numbers: [None; 2],
            counts: [0; 2],
            conditions: [Conditions::default(); 2],
            texts: Default::default(),
            is_error: false,
            refusal: None,
        })
    }

    /// Takes one field. The first refusal stays; what follows is only read over.
    fn set(&mut self, key: &[u8], value: &Value<'_>, excerpt: &dyn Fn() -> String) {
        if self.refusal.is_some() {
            return;
        }
        let code = code(key);
        let found = self.table.iter().enumerate().find(|(_, spec)| spec.code == code && code != 0);
        let Some((at, spec)) = found else {
            let key = String::from_utf8_lossy(key);
            self.refusal =
                Some(Refusal::new(&key, &excerpt(), "is not a field of this kind of tick", self.keys()));
            return;
        };
        let bit = 1_u16 << at;
        if self.seen & bit != 0 {
            self.refusal = Some(Refusal::new(spec.key, &excerpt(), "is given twice", "each field once"));
            return;
        }
        self.seen |= bit;
        if !spec.required && *value == Value::Null {
            return;
        }
        if let Err(why) = self.put(spec.slot, value) {
            self.refusal = Some(Refusal::new(spec.key, &excerpt(), why, spec.slot.expected()));
        }
    }

    fn keys(&self) -> String {
        let keys: Vec<&str> = self.table.iter().map(|spec| spec.key).collect();
        format!("one of {}", keys.join(", "))
    }

    fn put(&mut self, slot: Slot, value: &Value<'_>) -> Result<(), Unfit> {
        match slot {
            Slot::Kind => {}
            Slot::Symbol => {
                let text = text(value)?;
                self.symbol = Some(Symbol::parse(text).map_err(|_| "is not a symbol")?);
            }
            Slot::Time => {
                self.time = match value {
                    Value::Time(time) => *time,
                    _ => time(text(value)?)?,
                }
            }
            Slot::Tape => {
                self.tape = SipTape::parse(text(value)?).map_err(|error| error.to_string())?;
            }
            Slot::Exchange(at) => {
                let code = Exchange::parse(text(value)?).map_err(|error| error.to_string())?;
                place(&mut self.exchanges, at, code);
            }
            Slot::Indicator => {
                self.indicator = Code::parse(text(value)?).map_err(|error| error.to_string())?;
            }
            Slot::Price(at) => place(&mut self.prices, at, price(value)?),
            Slot::Vwap => self.vwap = Some(average(value)?),
            Slot::Size(at) => {
                let size = integer(value, u64::from(u32::MAX))?;
                place(&mut self.sizes, at, u32::try_from(size).map_err(|_| "is too large")?);
            }
            Slot::Number(at) => place(&mut self.numbers, at, Some(integer(value, NUMBER_MAX)?)),
            Slot::Count(at) => place(&mut self.counts, at, integer(value, u64::MAX)?),
            Slot::Conditions(at) => match value {
                Value::List(codes) => {
                    place(&mut self.conditions, at, codes.map_err(|error| error.to_string())?);
                }
                _ => return Err("is not an array".into()),
            },
            Slot::Text(at) => {
                let text = text(value)?;
                if text.len() > TEXT_BYTES_MAX {
                    return Err("is longer than 255 bytes".into());
                }
                place(&mut self.texts, at, String::from_utf8_lossy(text).into());
            }
            Slot::Action => {
                self.is_error = match text(value)? {
                    b"C" => false,
                    b"E" => true,
                    _ => return Err("is not an action".into()),
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Verdict {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let missing = |(at, spec): &(usize, &Spec)| spec.required && self.seen & (1_u16 << at) == 0;
        if let Some((_, spec)) = self.table.iter().enumerate().find(missing) {
            return Err(Refusal::new(spec.key, "", "is missing", spec.slot.expected()));
        }
        let Some(symbol) = self.symbol else {
            return Err(Refusal::new("S", "", "is missing", Slot::Symbol.expected()));
        };
        Ok(Tick { symbol, time: self.time, event: self.event() })
    }

    fn event(self) -> Event {
        let [exchange, bid_exchange] = self.exchanges;
        let [first, second, third, fourth] = self.prices;
        let [size, second_size] = self.sizes;
        let [number, corrected] = self.numbers;
        let [conditions, corrected_conditions] = self.conditions;
        let tape = self.tape;
        match self.letter {
            b'q' => Event::Quote(Quote {
                ask_exchange: exchange,
                ask_price: first,
                ask_size: size,
                bid_exchange,
                bid_price: second,
                bid_size: second_size,
                conditions,
                tape,
            }),
            b'b' | b'u' | b'd' => {
                let [volume, trades] = self.counts;
                let updated = self.letter == b'u';
                let bar = Bar {
                    open: first,
                    high: second,
                    low: third,
                    close: fourth,
                    volume,
                    trades,
                    vwap: self.vwap,
                    updated,
                };
                if self.letter == b'd' { Event::DayBar(bar) } else { Event::MinuteBar(bar) }
            }
            b's' => {
                let [status_code, status_message, reason_code, reason_message] = self.texts;
                Event::Status(Box::new(Status {
                    status_code,
                    status_message,
                    reason_code,
                    reason_message,
                    tape,
                }))
            }
            b'l' => {
                Event::Luld(Luld { limit_up: first, limit_down: second, indicator: self.indicator, tape })
            }
            b'c' => Event::Correction(Box::new(Correction {
                exchange,
                original_id: number.unwrap_or_default(),
                original_price: first,
                original_size: size,
                original_conditions: conditions,
                corrected_id: corrected.unwrap_or_default(),
                corrected_price: second,
                corrected_size: second_size,
                corrected_conditions,
                tape,
            })),
            b'x' => Event::Cancel(Cancel {
                id: number.unwrap_or_default(),
                exchange,
                price: first,
                size,
                error: self.is_error,
                tape,
            }),
            _ => Event::Trade(Trade { id: number, exchange, price: first, size, conditions, tape }),
        }
    }
}

fn place<V>(slots: &mut [V], at: usize, value: V) {
    if let Some(slot) = slots.get_mut(at) {
        *slot = value;
    }
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v [u8], Unfit> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err("is not a text".into()),
    }
}

fn time(text: &[u8]) -> Result<Nanos, Unfit> {
    Nanos::parse(text).map_err(|error| match error {
        TimeError::NotATime => "is not a time".into(),
        error => error.to_string().into(),
    })
}

fn price(value: &Value<'_>) -> Result<Price, Unfit> {
    let price = match value {
        Value::Number(text) => number::price(text),
        Value::Double(double) => Price::from_f64(*double),
        // The shortest decimal of the float, which its double no longer has.
        Value::Single(single) if single.is_finite() => {
            number::price(ryu::Buffer::new().format(*single).as_bytes())
        }
        Value::Unsigned(whole) => return dollars(i64::try_from(*whole).ok()),
        Value::Negative(whole) => return dollars(Some(*whole)),
        _ => return Err("is not a number".into()),
    };
    price.map_err(|error| error.to_string().into())
}

/// An average, which is computed and so has as many digits as its source's floats: the nearest
/// price, of two the even one.
fn average(value: &Value<'_>) -> Result<Price, Unfit> {
    match value {
        Value::Number(text) => Price::nearest(text),
        Value::Double(double) if double.is_finite() => {
            Price::nearest(ryu::Buffer::new().format_finite(*double).as_bytes())
        }
        Value::Single(single) if single.is_finite() => {
            Price::nearest(ryu::Buffer::new().format_finite(*single).as_bytes())
        }
        _ => return price(value),
    }
    .map_err(|error| error.to_string().into())
}

fn dollars(whole: Option<i64>) -> Result<Price, Unfit> {
    let units = whole.and_then(|whole| whole.checked_mul(Price::ONE));
    units.map(Price).ok_or(Cow::Borrowed("is outside ±9223372036.854775807"))
}

fn integer(value: &Value<'_>, max: u64) -> Result<u64, Unfit> {
    let integer = match value {
        Value::Number(text) => number::integer(text, max),
        Value::Unsigned(whole) => {
            Ok(*whole).and_then(|whole| if whole <= max { Ok(whole) } else { Err(IntegerError::TooLarge) })
        }
        Value::Negative(_) => Err(IntegerError::Negative),
        Value::Single(single) => number::integer_of_double(f64::from(*single), max),
        Value::Double(double) => number::integer_of_double(*double, max),
        _ => return Err("is not a number".into()),
    };
    integer.map_err(|error| {
        Cow::Borrowed(match error {
            IntegerError::Fractional => "has a fraction",
            IntegerError::Negative => "is below zero",
            IntegerError::TooLarge => "is too large",
        })
    })
}
