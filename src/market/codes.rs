//! One-letter codes of exchanges, sale and quote conditions, and SIP tapes.
//!
//! What the letters mean is data of its own (`meta`); here they are only carried.

use std::fmt;

/// Why a text is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A code is exactly one printable ASCII character.
    #[error("is not one printable ASCII character")]
    NotOneCharacter,
    /// A tick carries at most seven conditions.
    #[error("has more than seven conditions")]
    TooMany,
    /// A SIP tape is one of A, B, C, N, O.
    #[error("is not one of A, B, C, N, O")]
    NotATape,
}

fn one_character(text: &[u8]) -> Result<u8, CodeError> {
    match text {
        [byte @ 0x20..=0x7e] => Ok(*byte),
        _ => Err(CodeError::NotOneCharacter),
    }
}

/// The code of an exchange, `V` for IEX; a blank names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exchange(pub u8);

impl Exchange {
    /// No exchange is named.
    pub const BLANK: Self = Self(b' ');

    /// Parses one printable ASCII character.
    ///
    /// # Errors
    /// [`CodeError::NotOneCharacter`].
    pub fn parse(text: &[u8]) -> Result<Self, CodeError> {
        one_character(text).map(Self)
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::BLANK
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.0))
    }
}

/// A code of one printable ASCII character that names nothing by itself, such as the indicator
/// of a limit-up limit-down band; a blank is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

impl Code {
    /// No code.
    pub const BLANK: Self = Self(b' ');

    /// Parses one printable ASCII character.
    ///
    /// # Errors
    /// [`CodeError::NotOneCharacter`].
    pub fn parse(text: &[u8]) -> Result<Self, CodeError> {
        one_character(text).map(Self)
    }
}

impl Default for Code {
    fn default() -> Self {
        Self::BLANK
    }
}

/// Up to seven condition codes, in the order they were given. `[0]` counts them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conditions([u8; 8]);

impl Conditions {
    /// The most conditions a tick carries.
    pub const MAX_LEN: usize = 7;

    /// The same conditions with one more at the end.
    ///
    /// # Errors
    /// [`CodeError`] when the code is not one character or there are seven already.
    pub fn with(mut self, text: &[u8]) -> Result<Self, CodeError> {
        let code = one_character(text)?;
        let at = usize::from(self.0[0]) + 1;
        *self.0.get_mut(at).ok_or(CodeError::TooMany)? = code;
        self.0[0] += 1;
        Ok(self)
    }

    /// The codes, in order.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        self.0.get(1..=usize::from(self.0[0])).unwrap_or_default()
    }

    /// Conditions from their codes, as stored; `None` where they are not valid.
    #[must_use]
    pub fn from_codes(codes: &[u8]) -> Option<Self> {
        codes.iter().try_fold(Self::default(), |all, code| all.with(&[*code]).ok())
    }

    /// The eight bytes as one number, for columns: the count and then the codes, little-endian.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// Reads [`Self::to_bits`] again; `None` where they are not valid.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let bytes = bits.to_le_bytes();
        let [count, codes @ ..] = &bytes;
        let (used, rest) = codes.split_at_checked(usize::from(*count))?;
        let valid =
            used.iter().all(|code| one_character(&[*code]).is_ok()) && rest.iter().all(|byte| *byte == 0);
        valid.then_some(Self(bytes))
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.codes()))
    }
}

/// The SIP tape a security is reported on (`z`): A, B, C, N or O; or none was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SipTape(u8);

impl SipTape {
    /// None was given.
    pub const ABSENT: Self = Self(0);
    /// NYSE-listed securities.
    pub const A: Self = Self(b'A');
    /// Securities listed on other exchanges.
    pub const B: Self = Self(b'B');
    /// Nasdaq-listed securities.
    pub const C: Self = Self(b'C');

    /// Parses one of A, B, C, N, O.
    ///
    /// # Errors
    /// [`CodeError::NotATape`].
    pub fn parse(text: &[u8]) -> Result<Self, CodeError> {
        match text {
            [byte @ (b'A' | b'B' | b'C' | b'N' | b'O')] => Ok(Self(*byte)),
            _ => Err(CodeError::NotATape),
        }
    }

    /// The letter, where one was given.
    #[must_use]
    pub const fn letter(self) -> Option<u8> {
        if self.0 == 0 { None } else { Some(self.0) }
    }

    /// The stored byte: the letter, or 0.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Reads [`Self::to_byte`] again; `None` where it is not valid.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        if byte == 0 { Some(Self::ABSENT) } else { Self::parse(&[byte]).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_order_and_have_a_limit() {
        let mut all = Conditions::default();
        for code in ["@", "F", "T", "I", " ", "4", "B"] {
            all = all.with(code.as_bytes()).unwrap();
        }
        assert_eq!(all.codes(), b"@FTI 4B");
        assert_eq!(all.with(b"Q"), Err(CodeError::TooMany));
        assert_eq!(Conditions::from_bits(all.to_bits()), Some(all));
        assert_eq!(Conditions::default().with(b"TT"), Err(CodeError::NotOneCharacter));
        assert_eq!(Conditions::from_bits(u64::MAX), None);
        assert_eq!(Conditions::from_bits(0x0041_0001), None);
    }

    #[test]
    fn tapes_and_exchanges() {
        assert_eq!(SipTape::parse(b"C").unwrap(), SipTape::C);
        assert_eq!(SipTape::parse(b"D"), Err(CodeError::NotATape));
        assert_eq!(SipTape::from_byte(0), Some(SipTape::ABSENT));
        assert_eq!(Exchange::parse(b" ").unwrap(), Exchange::BLANK);
        assert_eq!(Exchange::parse("é".as_bytes()), Err(CodeError::NotOneCharacter));
    }
}
