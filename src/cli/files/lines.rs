//! NDJSON: one tick a line.

use std::io::{BufRead, Read};

use super::{Decoded, LINE_BYTES_MAX, Refused};
use crate::wire::{ReadLimits, json};

/// Marks UTF-8 in front of some files.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How much is shown of a line that is too long.
const SHOWN_BYTES: usize = 200;

/// The lines of a file.
pub(super) struct Lines<R> {
    reader: R,
    first: bool,
    depth_max: usize,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, first: true, depth_max: ReadLimits::default().depth_max }
    }

    /// The next line without its end, cut one byte above the limit; `None` at the end.
    fn read(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 2;
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.pop_if(|byte| *byte == b'\n').is_some() {
            line.pop_if(|byte| *byte == b'\r');
        } else if line.len() as u64 == limit {
            self.reader.skip_until(b'\n')?;
        }
        if std::mem::take(&mut self.first) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Decoded, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = match self.read() {
            Ok(line) => line?,
            Err(error) => return Some(Err(error.to_string())),
        };
        if line.len() > LINE_BYTES_MAX {
            line.truncate(SHOWN_BYTES);
            return Some(Ok(Err(Refused::new(line, format!("is longer than {LINE_BYTES_MAX} bytes")))));
        }
        if line.trim_ascii().is_empty() {
            return Some(Ok(Err(Refused::new(line, "is empty"))));
        }
        // A line that cannot be read would make the node refuse the whole batch.
        Some(Ok(match json::read_tick(&line, self.depth_max) {
            Ok(_) => Ok(line),
            Err(malformed) => Err(Refused::new(line, format!("is no JSON, {malformed}"))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Result<String, String>> {
        let lines = Lines::new(text).map(|decoded| decoded.unwrap());
        lines
            .map(|line| line.map(|text| String::from_utf8(text).unwrap()).map_err(|refused| refused.why))
            .collect()
    }

    #[test]
    fn line_ends_and_marks_are_taken_off() {
        assert_eq!(
            read(b"\xef\xbb\xbf{}\r\n{ }\n\n{}"),
            [Ok("{}".to_owned()), Ok("{ }".to_owned()), Err("is empty".to_owned()), Ok("{}".to_owned())]
        );
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n").len(), 1);
    }

    #[test]
    fn a_line_that_is_too_long_keeps_its_number() {
        let mut text = b"{}\n{\"S\":\"".to_vec();
        text.extend(std::iter::repeat_n(b'A', 300_000));
        text.extend_from_slice(b"\"}\n{}\n");
        let lines = read(&text);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].is_ok() && lines[2].is_ok());
        assert!(lines[1].as_ref().unwrap_err().contains("65536"));
        let longest = format!("{{\"S\":\"{}\"}}", "A".repeat(LINE_BYTES_MAX - 8));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        assert!(read(longest.as_bytes())[0].is_ok() && read(format!("{longest}\r\n").as_bytes())[0].is_ok());
    }
}
