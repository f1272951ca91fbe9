//! Symbols: Alpaca's alphabet, held inline.

use std::fmt;

/// A symbol of 1 to 16 characters, such as `AAPL` or `BRK.B`.
///
/// Letters are upper case (lower case is folded when parsed), the others are digits and
/// `. - / _`; the first is a letter, a digit or `_`. The text is held inline in 16 bytes,
/// padded with zeros: copying costs nothing, order is the order of the text, and there is
/// no table of symbols to grow or to share (see `docs/adr/0002-symbols-inline.md`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol([u8; Self::MAX_LEN]);

/// Why a text is no symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a symbol: 1 to 16 of A-Z, 0-9, '.', '-', '/' and '_', the first a letter, a digit or '_'")]
pub struct SymbolError;

impl Symbol {
    /// The most characters a symbol has.
    pub const MAX_LEN: usize = 16;

    /// Parses a symbol, folding lower case to upper.
    ///
    /// # Errors
    /// [`SymbolError`] when the length or a character is not allowed.
    pub fn parse(text: &[u8]) -> Result<Self, SymbolError> {
        let mut bytes = [0; Self::MAX_LEN];
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(SymbolError);
        }
        for (at, (slot, byte)) in bytes.iter_mut().zip(text).enumerate() {
            let upper = byte.to_ascii_uppercase();
            let allowed = match upper {
                b'A'..=b'Z' | b'0'..=b'9' | b'_' => true,
                b'.' | b'-' | b'/' => at > 0,
                _ => false,
            };
            if !allowed {
                return Err(SymbolError);
            }
            *slot = upper;
        }
        Ok(Self(bytes))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_LEN);
        self.0.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The text padded with zeros to 16 bytes; its order is the order of symbols.
    #[must_use]
    pub const fn padded(&self) -> &[u8; Self::MAX_LEN] {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Symbol {
    type Err = SymbolError;

    fn from_str(text: &str) -> Result<Self, SymbolError> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_case_is_folded_and_order_is_that_of_the_text() {
        assert_eq!(Symbol::parse(b"brk.b").unwrap().as_str(), "BRK.B");
        assert_eq!(Symbol::parse(b"_CANARY").unwrap().to_string(), "_CANARY");
        assert!(Symbol::parse(b"AA").unwrap() < Symbol::parse(b"AAA").unwrap());
        assert!(Symbol::parse(b"AAZ").unwrap() < Symbol::parse(b"AB").unwrap());
        assert_eq!(Symbol::parse(b"ABCDEFGHIJKLMNOP").unwrap().as_str(), "ABCDEFGHIJKLMNOP");
    }

    #[test]
    fn what_is_no_symbol_is_refused() {
        for text in ["", "A B", ".A", "-A", "A,B", "ABCDEFGHIJKLMNOPQ", "ÄB", "A\0"] {
            assert_eq!(Symbol::parse(text.as_bytes()), Err(SymbolError), "{text:?}");
        }
    }
}
