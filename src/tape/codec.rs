//! Reading and writing the small formats: LEB128 varints, fixed big-endian numbers, short texts.

/// Bytes end too soon, a number is too long, or something is left over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end within a field.
    #[error("{what} ends too soon")]
    Short {
        /// The field.
        what: &'static str,
    },
    /// A field has a value that is not allowed.
    #[error("{what} is {value}, expected {expected}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What would be right.
        expected: &'static str,
    },
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

impl CodecError {
    pub(crate) const fn invalid(what: &'static str, value: u64, expected: &'static str) -> Self {
        Self::Invalid { what, value, expected }
    }
}

/// Appends a varint.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a text of at most 255 bytes, cut at a character where it is longer.
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

/// Reads fields from the front of bytes.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short { what })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        self.bytes(N, what)?.try_into().map_err(|_| CodecError::Short { what })
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn fixed(&mut self, what: &'static str) -> Result<u64, CodecError> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                // One number has one form: a padded one would give equal things other bytes.
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(CodecError::invalid(what, value, "a varint of 64 bits in its shortest form"))
    }

    /// A varint that is at most `max`, as a `u32`.
    pub(crate) fn varint32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        let value = self.varint(what)?;
        u32::try_from(value).map_err(|_| CodecError::invalid(what, value, "at most 4294967295"))
    }

    /// A count of things that take at least one byte each: never more than bytes are left.
    pub(crate) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, CodecError> {
        let value = self.varint(what)?;
        usize::try_from(value)
            .ok()
            .filter(|count| *count <= max && *count <= self.rest.len())
            .ok_or(CodecError::invalid(what, value, "a count within the limit and the bytes left"))
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, CodecError> {
        let length = self.byte(what)?;
        let bytes = self.bytes(usize::from(length), what)?;
        std::str::from_utf8(bytes).map_err(|_| CodecError::invalid(what, u64::from(length), "bytes of UTF-8"))
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::invalid(what, u64::from(other), "0 or 1")),
        }
    }

    /// What is left, to the end.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::LeftOver(self.rest.len())) }
    }
}

/// Checks the version byte at the front.
pub(crate) fn version(fields: &mut Fields<'_>, known: u8) -> Result<(), CodecError> {
    match fields.byte("version")? {
        version if version == known => Ok(()),
        other => Err(CodecError::invalid("version", u64::from(other), "a version this release knows")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip_in_one_form(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            let mut fields = Fields::new(&bytes);
            prop_assert_eq!(fields.varint("x"), Ok(value));
            prop_assert_eq!(fields.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut fields = Fields::new(&bytes);
            if let Ok(value) = fields.varint("x") {
                let mut again = Vec::new();
                put_varint(value, &mut again);
                prop_assert!(bytes.starts_with(&again));
            }
        }
    }
}
