//! Bars as a fold of trades, by a table of conditions.
