//! A JSON reader for ticks: RFC 8259, one pass, no tree.
//!
//! The grammar is checked in full, also of what no tick uses; text is checked to be UTF-8.
//! Nesting is bounded. The reader can stop at the end of the bytes and be asked again with more.

use std::borrow::Cow;

use crate::market::{CodeError, Conditions};
use crate::wire::fields::{self, Source, Value};
use crate::wire::refusal::{Malformed, Stop, Verdict};

/// Reads one tick from the bytes of one JSON value; white space around it is fine.
///
/// # Errors
/// [`Malformed`] where the bytes are not exactly one JSON value, or nest deeper than `depth_max`.
pub fn read_tick(bytes: &[u8], depth_max: usize) -> Result<Verdict, Malformed> {
    let mut scanner = Scanner::new(bytes, 0, depth_max, true);
    let verdict = fields::read_tick(&mut scanner).map_err(|stop| stop.at_end(bytes.len()))?;
    scanner.skip_space();
    match scanner.peek() {
        None => Ok(verdict),
        Some(_) => Err(Malformed { offset: scanner.at, why: "more follows behind the value" }),
    }
}

/// A place in JSON text.
#[derive(Clone)]
pub(in crate::wire) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
    /// Nothing comes behind these bytes, so that a number may end with them.
    last: bool,
    /// The next key is the first of its object.
    first: bool,
}

impl<'a> Scanner<'a> {
    pub(in crate::wire) const fn new(bytes: &'a [u8], at: usize, depth_max: usize, last: bool) -> Self {
        Self { bytes, at, depth_left: depth_max, last, first: true }
    }

    pub(in crate::wire) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(in crate::wire) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes one byte, which the caller has seen.
    pub(in crate::wire) const fn pass(&mut self) {
        self.at += 1;
    }

    const fn wrong(&self, why: &'static str) -> Stop {
        Stop::Malformed(Malformed { offset: self.at, why })
    }

    fn next_token(&mut self) -> Result<u8, Stop> {
        self.skip_space();
        self.peek().ok_or(Stop::More)
    }

    fn down(&mut self) -> Result<(), Stop> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or_else(|| self.wrong("is nested too deep"))?;
        self.at += 1;
        Ok(())
    }

    fn up(&mut self) {
        self.depth_left += 1;
        self.at += 1;
    }

    /// `true`, `false` or `null`.
    fn word(&mut self, word: &'static [u8]) -> Result<(), Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else if word.starts_with(rest) {
            Err(Stop::More)
        } else {
            Err(self.wrong("is not a JSON value"))
        }
    }

    fn digits(&mut self) -> Result<(), Stop> {
        match self.peek() {
            Some(b'0'..=b'9') => {}
            Some(_) => return Err(self.wrong("a digit is missing in a number")),
            None => return Err(Stop::More),
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a [u8], Stop> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.wrong("a number begins with 0"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at == self.bytes.len() && !self.last {
            return Err(Stop::More);
        }
        Ok(self.bytes.get(from..self.at).unwrap_or_default())
    }

    /// A text, from its opening quote. Without escapes it is borrowed.
    fn text(&mut self) -> Result<Cow<'a, [u8]>, Stop> {
        self.at += 1;
        let from = self.at;
        let rest = self.bytes.get(from..).unwrap_or_default();
        let mut all_bits = 0;
        for (length, byte) in rest.iter().enumerate() {
            match byte {
                b'"' => {
                    let text = rest.get(..length).unwrap_or_default();
                    if all_bits >= 0x80
                        && let Err(error) = std::str::from_utf8(text)
                    {
                        let offset = from + error.valid_up_to();
                        return Err(Stop::Malformed(Malformed { offset, why: "is not UTF-8" }));
                    }
                    self.at = from + length + 1;
                    return Ok(Cow::Borrowed(text));
                }
                b'\\' => {
                    self.at = from + length;
                    return self.escaped_text(from);
                }
                0..=0x1f => {
                    self.at = from + length;
                    return Err(self.wrong("a control character is not escaped in a text"));
                }
                _ => all_bits |= byte,
            }
        }
        Err(Stop::More)
    }

    /// The rest of a text that has an escape; `self` is at the first.
    fn escaped_text(&mut self, from: usize) -> Result<Cow<'a, [u8]>, Stop> {
        let mut text = self.bytes.get(from..self.at).unwrap_or_default().to_vec();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(0..=0x1f) => return Err(self.wrong("a control character is not escaped in a text")),
                Some(byte) => {
                    text.push(byte);
                    self.at += 1;
                }
                None => return Err(Stop::More),
            }
        }
        if std::str::from_utf8(&text).is_err() {
            return Err(self.wrong("the text before is not UTF-8"));
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    /// A key as nearly all are: one or two letters, a quote and a colon behind. `None`: any other.
    fn short_key(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at + 1..)?;
        let length = match rest {
            [one, b'"', b':', ..] if one.is_ascii_alphanumeric() => 1,
            [one, two, b'"', b':', ..] if one.is_ascii_alphanumeric() && two.is_ascii_alphanumeric() => 2,
            _ => return None,
        };
        self.at += length + 3;
        rest.get(..length)
    }

    /// An element as nearly all of an array are: one character in quotes. `None`: any other.
    fn short_code(&mut self) -> Option<u8> {
        match self.bytes.get(self.at..)? {
            [b'"', code @ (b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'), b'"', ..] => {
                self.at += 3;
                Some(*code)
            }
            _ => None,
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Stop> {
        let start = self.at;
        self.at += 1;
        let plain = match self.peek().ok_or(Stop::More)? {
            b'u' => {
                self.at += 1;
                let character = self.unicode(start)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(self.wrong("is not an escape of JSON")),
        };
        self.at += 1;
        text.push(plain);
        Ok(())
    }

    /// The character of `\uXXXX`, or of a pair of surrogates; `self` is behind the `u`.
    fn unicode(&mut self, start: usize) -> Result<char, Stop> {
        let lone = Stop::Malformed(Malformed { offset: start, why: "is half of a surrogate pair" });
        let first = self.hex4()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or(lone);
        }
        if first >= 0xdc00 {
            return Err(lone);
        }
        for expected in [b'\\', b'u'] {
            match self.peek() {
                Some(byte) if byte == expected => self.at += 1,
                Some(_) => return Err(lone),
                None => return Err(Stop::More),
            }
        }
        let second = self.hex4()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone);
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(lone)
    }

    fn hex4(&mut self) -> Result<u32, Stop> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or(Stop::More)?;
            let digit =
                char::from(byte).to_digit(16).ok_or_else(|| self.wrong("is not a hexadecimal digit"))?;
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// An array, from its bracket: conditions where it is nothing but short texts.
    fn list(&mut self) -> Result<Value<'a>, Stop> {
        self.down()?;
        let mut codes = Ok(Conditions::default());
        if self.next_token()? == b']' {
            self.up();
            return Ok(Value::List(codes));
        }
        loop {
            self.skip_space();
            codes = match (codes, self.short_code()) {
                (Ok(codes), Some(code)) => codes.with(&[code]),
                (error, Some(_)) => error,
                (codes, None) => match (codes, Source::value(self)?) {
                    (Ok(codes), Value::Text(text)) => codes.with(&text),
                    (Ok(_), _) => Err(CodeError::NotOneCharacter),
                    (error, _) => error,
                },
            };
            match self.next_token()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(self.wrong("a comma or ] is missing in an array")),
            }
        }
        self.up();
        Ok(Value::List(codes))
    }
}

impl<'a> Source<'a> for Scanner<'a> {
    fn enter(&mut self) -> Result<bool, Stop> {
        if self.next_token()? != b'{' {
            return Ok(false);
        }
        self.down()?;
        self.first = true;
        Ok(true)
    }

    fn key(&mut self) -> Result<Option<Cow<'a, [u8]>>, Stop> {
        let mut token = self.next_token()?;
        if token == b'}' {
            self.up();
            return Ok(None);
        }
        if self.first {
            self.first = false;
        } else {
            if token != b',' {
                return Err(self.wrong("a comma or } is missing in an object"));
            }
            self.at += 1;
            token = self.next_token()?;
        }
        if token != b'"' {
            return Err(self.wrong("a key in quotes is missing in an object"));
        }
        if let Some(key) = self.short_key() {
            self.skip_space();
            return Ok(Some(Cow::Borrowed(key)));
        }
        let key = self.text()?;
        if self.next_token()? != b':' {
            return Err(self.wrong("a colon is missing behind a key"));
        }
        self.at += 1;
        self.skip_space();
        Ok(Some(key))
    }

    fn value(&mut self) -> Result<Value<'a>, Stop> {
        match self.next_token()? {
            b'"' => self.text().map(Value::Text),
            b'-' | b'0'..=b'9' => self.number().map(Value::Number),
            b'[' => self.list(),
            b'{' => {
                self.enter()?;
                while self.key()?.is_some() {
                    self.value()?;
                }
                // The object around goes on behind this one.
                self.first = false;
                Ok(Value::Other)
            }
            b't' => self.word(b"true").map(|()| Value::Other),
            b'f' => self.word(b"false").map(|()| Value::Other),
            b'n' => self.word(b"null").map(|()| Value::Null),
            _ => Err(self.wrong("is not a JSON value")),
        }
    }

    fn at(&self) -> usize {
        self.at
    }

    fn excerpt(&self, from: usize) -> String {
        String::from_utf8_lossy(self.bytes.get(from..self.at).unwrap_or_default()).trim().to_owned()
    }
}
