//! History: keeper, reader, pages.
