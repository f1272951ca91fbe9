//! The body of a table: its columns, compressed as one where that is shorter.

use std::borrow::Cow;

use super::bytes::{Source, put_count};
use super::{BYTES_MAX, TableError};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// zstd's level: on columns, 3 takes up to half more time and saves at most 2 %
/// (`docs/adr/0001-columnar-tables.md`).
const ZSTD_LEVEL: i32 = 1;

/// What is shorter is not worth a compressor's own header.
const COMPRESS_FROM: usize = 96;

/// Appends columns, which take the rest of the table.
pub(super) fn put(columns: &[u8], out: &mut Vec<u8>) {
    if columns.len() >= COMPRESS_FROM
        && let Ok(short) = zstd::bulk::compress(columns, ZSTD_LEVEL)
        && short.len() < columns.len()
    {
        out.push(ZSTD);
        put_count(columns.len(), out);
        out.extend_from_slice(&short);
    } else {
        out.push(PLAIN);
        out.extend_from_slice(columns);
    }
}

/// Reads columns again. Room is made for what the body says it holds, at most [`BYTES_MAX`].
pub(super) fn take<'a>(source: &mut Source<'a>) -> Result<Cow<'a, [u8]>, TableError> {
    match source.byte()? {
        PLAIN => Ok(Cow::Borrowed(source.rest())),
        ZSTD => {
            let length = source.count(BYTES_MAX)?;
            let mut columns = vec![0; length];
            let written = zstd::bulk::decompress_to_buffer(source.rest(), columns.as_mut_slice());
            if written.is_ok_and(|written| written == length) {
                Ok(Cow::Owned(columns))
            } else {
                Err(TableError::Malformed("the columns do not decompress"))
            }
        }
        _ => Err(TableError::Malformed("the columns are compressed in an unknown way")),
    }
}
