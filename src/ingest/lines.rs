//! Numbered lines of a connection that stays: where its batches begin and end.
//!
//! [`Lines`] takes bytes as they come and cuts whole lines off their front. A line's number is the
//! number the connection began with plus the lines before it, the empty ones too, so that however
//! often it is sent, and in whichever batch, it is the same line.

use bytes::{Bytes, BytesMut};

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Lines.
    pub lines_max: usize,
    /// Bytes, unless its first line alone has more.
    pub bytes_max: usize,
    /// Bytes of one line.
    pub line_bytes_max: usize,
}

/// Whole lines, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of the first.
    pub first: u32,
    /// How many; at least one.
    pub lines: u32,
    /// Their bytes.
    pub bytes: Bytes,
}

impl Cut {
    /// The number of the line behind them.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.first.saturating_add(self.lines)
    }
}

/// Why no more can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    /// A line does not end.
    #[error("line {line} is longer than {bytes_max} bytes")]
    TooLong {
        /// Its number.
        line: u32,
        /// The limit.
        bytes_max: usize,
    },
    /// The numbers are used up.
    #[error("line {line} and those behind it cannot be numbered: at most {max}", max = u32::MAX - 1)]
    Numbering {
        /// The first that cannot.
        line: u64,
    },
}

/// Bytes that are not cut yet.
#[derive(Debug)]
pub struct Lines {
    limits: BatchLimits,
    next: u32,
    bytes: BytesMut,
    /// Line ends in `bytes`, and the bytes up to the last of them.
    whole: usize,
    whole_bytes: usize,
}

impl Lines {
    /// Nothing yet; the first line to come has this number.
    #[must_use]
    pub fn new(first: u32, limits: BatchLimits) -> Self {
        Self { limits, next: first, bytes: BytesMut::new(), whole: 0, whole_bytes: 0 }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.whole += memchr::memchr_iter(b'\n', bytes).count();
        if let Some(at) = memchr::memrchr(b'\n', bytes) {
            self.whole_bytes = before + at + 1;
        }
    }

    /// Bytes that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a whole line is there.
    #[must_use]
    pub const fn has_line(&self) -> bool {
        self.whole > 0
    }

    /// Whether there is as much as a batch holds.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.whole >= self.limits.lines_max || self.whole_bytes >= self.limits.bytes_max
    }

    /// Cuts whole lines off the front, as many as a batch holds. With `at_end` what is behind the
    /// last line end is a line too.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn cut(&mut self, at_end: bool) -> Result<Option<Cut>, LinesError> {
        let (mut lines, mut length) = (0, 0);
        for end in memchr::memchr_iter(b'\n', &self.bytes) {
            if lines >= self.limits.lines_max || lines > 0 && end >= self.limits.bytes_max {
                break;
            }
            (lines, length) = (lines + 1, end + 1);
        }
        let rest_fits =
            lines == 0 || lines < self.limits.lines_max && self.bytes.len() <= self.limits.bytes_max;
        if at_end && lines == self.whole && rest_fits && length < self.bytes.len() {
            (lines, length) = (lines + 1, self.bytes.len());
        }
        let unended = self.bytes.len().saturating_sub(self.whole_bytes);
        if lines == 0 && unended > self.limits.line_bytes_max {
            return Err(LinesError::TooLong { line: self.next, bytes_max: self.limits.line_bytes_max });
        }
        if lines == 0 {
            return Ok(None);
        }
        let first = self.next;
        let count = u32::try_from(lines).unwrap_or(u32::MAX);
        // The highest number is left free: an end lies behind every line.
        let end = first.checked_add(count).filter(|end| *end < u32::MAX);
        self.next = end.ok_or(LinesError::Numbering { line: u64::from(u32::MAX) - 1 })?;
        let bytes = self.bytes.split_to(length).freeze();
        self.whole = self.whole.saturating_sub(lines);
        self.whole_bytes = self.whole_bytes.saturating_sub(length);
        Ok(Some(Cut { first, lines: count, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { lines_max: 3, bytes_max: 20, line_bytes_max: 30 };

    fn cuts(lines: &mut Lines, at_end: bool) -> Vec<(u32, String)> {
        let mut cuts = Vec::new();
        while let Some(cut) = lines.cut(at_end).unwrap() {
            assert_eq!(cut.end(), cut.first + cut.lines);
            cuts.push((cut.first, String::from_utf8(cut.bytes.to_vec()).unwrap()));
        }
        cuts
    }

    #[test]
    fn whole_lines_are_cut_by_number_and_by_bytes() {
        let mut lines = Lines::new(5, LIMITS);
        lines.push(b"a\n\nb\nc\nd");
        assert!(lines.has_line() && lines.is_full());
        assert_eq!(cuts(&mut lines, false), [(5, "a\n\nb\n".to_owned()), (8, "c\n".to_owned())]);
        assert!(!lines.has_line() && !lines.is_full() && lines.len() == 1);
        lines.push(b"0123456789\n0123456789\n");
        assert!(lines.is_full());
        assert_eq!(
            cuts(&mut lines, true),
            [(9, "d0123456789\n".to_owned()), (10, "0123456789\n".to_owned())]
        );
        lines.push(b"the end");
        assert_eq!(cuts(&mut lines, false), []);
        assert_eq!(cuts(&mut lines, true), [(11, "the end".to_owned())]);
        assert!(lines.is_empty());
    }

    #[test]
    fn a_line_without_an_end_and_numbers_without_one_are_refused() {
        let mut lines = Lines::new(7, LIMITS);
        lines.push(&[b'x'; 30]);
        assert_eq!(lines.cut(false), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.cut(false), Err(LinesError::TooLong { line: 7, bytes_max: 30 }));
        let mut lines = Lines::new(u32::MAX - 2, LIMITS);
        lines.push(b"a\n");
        assert_eq!(lines.cut(false).unwrap().unwrap().end(), u32::MAX - 1);
        lines.push(b"b\n");
        assert_eq!(lines.cut(false), Err(LinesError::Numbering { line: u64::from(u32::MAX) - 1 }));
    }

    proptest! {
        #[test]
        fn however_it_comes_each_line_keeps_its_number(
            texts in prop::collection::vec("[a-z]{0,25}", 0..40),
            sizes in prop::collection::vec(1_usize..30, 1..40),
            ended in any::<bool>(),
        ) {
            let mut sent = texts.join("\n").into_bytes();
            if ended && !texts.is_empty() {
                sent.push(b'\n');
            }
            let mut lines = Lines::new(100, LIMITS);
            let (mut rest, mut all) = (sent.as_slice(), Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                rest = tail;
                lines.push(piece);
                while let Some(cut) = lines.cut(rest.is_empty()).unwrap() {
                    all.push(cut);
                }
            }
            let mut next = 100;
            for cut in &all {
                prop_assert_eq!(cut.first, next);
                prop_assert!(cut.lines <= 3 && (cut.bytes.len() <= 20 || cut.lines == 1));
                let told = cut.bytes.strip_suffix(b"\n").unwrap_or(&cut.bytes);
                prop_assert_eq!(told.split(|byte| *byte == b'\n').count(), usize::try_from(cut.lines).unwrap());
                next = cut.end();
            }
            let together: Vec<u8> = all.iter().flat_map(|cut| cut.bytes.to_vec()).collect();
            prop_assert_eq!(together, sent);
        }
    }
}
