//! Bytes in and out: bounded reading, and variable-length numbers.

use super::TableError;

/// What is left of the input. Every read checks what is there first.
pub(super) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], TableError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TableError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes all that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn byte(&mut self) -> Result<u8, TableError> {
        let (&first, rest) = self.rest.split_first().ok_or(TableError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], TableError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TableError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A number of up to ten bytes, seven bits each, the lowest first (LEB128).
    pub(super) fn number(&mut self) -> Result<u64, TableError> {
        // Most numbers of most columns are one byte.
        if let Some((&first @ 0..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(u64::from(first));
        }
        let mut value = 0_u64;
        for place in 0..10_u32 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return Err(TableError::Malformed("a number has more than 64 bits"));
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(TableError::Malformed("a number has more than ten bytes"))
    }

    /// A number that counts or measures something of which there are at most `most`.
    pub(super) fn count(&mut self, most: usize) -> Result<usize, TableError> {
        let value = self.number()?;
        usize::try_from(value)
            .ok()
            .filter(|count| *count <= most)
            .ok_or(TableError::TooLarge { count: value, most })
    }

    pub(super) fn finish(&self) -> Result<(), TableError> {
        if self.rest.is_empty() { Ok(()) } else { Err(TableError::Trailing(self.rest.len())) }
    }
}

/// Appends a number that [`Source::number`] reads.
pub(super) fn put_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn put_count(value: usize, out: &mut Vec<u8>) {
    put_number(value as u64, out);
}

/// Small numbers of either sign become small numbers: 0, -1, 1, -2, 2 …
pub(super) const fn zigzag(value: u64) -> u64 {
    let signed = value.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

/// Reads [`zigzag`] again.
pub(super) const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(value in any::<u64>()) {
            let mut out = Vec::new();
            put_number(value, &mut out);
            let mut source = Source::new(&out);
            prop_assert_eq!(source.number(), Ok(value));
            prop_assert_eq!(source.finish(), Ok(()));
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn a_number_is_refused_where_it_does_not_fit() {
        assert!(Source::new(&[0xff; 11]).number().is_err());
        assert!(Source::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number().is_err());
        assert_eq!(Source::new(&[0x80]).number(), Err(TableError::Truncated));
        assert_eq!(Source::new(&[9]).count(8), Err(TableError::TooLarge { count: 9, most: 8 }));
    }
}
