//! Any bytes as a table: rows or an error, within the limits; and what was read is written
//! and read again the same.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run table_decode` in the project's
//! folder (`-- -max_total_time=600` to end after ten minutes). `cargo build` in this folder
//! shows that the target builds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline::market::table::{ROWS_MAX, decode_block, decode_frame, encode_block, encode_frame, peek};
use tapeline::market::{Nanos, RequestKey};

const REQUESTS: [RequestKey; 2] = [RequestKey([1; 16]), RequestKey([2; 16])];

fuzz_target!(|bytes: &[u8]| {
    let head = peek(bytes);
    if let Ok(rows) = decode_frame(bytes, &REQUESTS, Nanos(1)) {
        assert!(rows.len() <= ROWS_MAX && head.is_ok_and(|head| head.rows == rows.len()));
        let again = decode_frame(&encode_frame(&rows, &REQUESTS), &REQUESTS, Nanos(1));
        assert_eq!(again.as_ref(), Ok(&rows));
    }
    if let Ok(rows) = decode_block(bytes) {
        assert!(rows.len() <= ROWS_MAX && head.is_ok_and(|head| head.rows == rows.len()));
        assert_eq!(decode_block(&encode_block(&rows)).as_ref(), Ok(&rows));
    }
});
