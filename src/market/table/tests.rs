use proptest::prelude::*;

use super::*;
use crate::market::Origin;
use crate::market::table::rows;

fn requests() -> Vec<RequestKey> {
    (1..=3).map(|number| RequestKey([number; 16])).collect()
}

fn as_frame(rows: &[Row], received: Nanos) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.iter_mut().for_each(|row| row.origin.received = received);
    rows.sort_by_key(|row| row.tick.series());
    rows
}

fn as_block(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        if !row.needs_origin() {
            row.origin = Origin::UNKNOWN;
        }
    }
    rows
}

proptest! {
    #[test]
    fn a_frame_comes_back_sorted_by_series(rows in rows::rows(60), received in rows::time()) {
        let bytes = encode_frame(&rows, &requests());
        prop_assert_eq!(decode_frame(&bytes, &requests(), received), Ok(as_frame(&rows, received)));
    }

    #[test]
    fn a_block_comes_back(rows in rows::rows_of_one_series(60)) {
        let bytes = encode_block(&rows);
        prop_assert_eq!(decode_block(&bytes), Ok(as_block(&rows)));
        let times = || rows.iter().map(|row| row.tick.time);
        let head = peek(&bytes).unwrap();
        prop_assert_eq!(head.rows, rows.len());
        prop_assert_eq!(head.first, times().min().unwrap_or_default());
        prop_assert_eq!(head.last, times().max().unwrap_or_default());
    }
}
