//! Bars as they close, in virtual time, with a model of history behind them.

mod cases;
mod random;
mod world;
