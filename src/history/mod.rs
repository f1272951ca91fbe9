//! History: keeper, reader, pages.

pub mod keeper;
