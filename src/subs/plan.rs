//! What several subscriptions want together.

use std::collections::BTreeMap;

use super::{Channels, Subscription, Symbols};
use crate::market::Symbol;

/// The symbols of several subscriptions, each once, with the channels of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The symbols, ascending.
    pub symbols: Vec<(Symbol, Channels)>,
    /// What is wanted of all symbols there are.
    pub of_all: Channels,
}

/// There are more symbols than a plan may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscriptions name more than {most} symbols together")]
pub struct TooMany {
    /// The most there may be.
    pub most: usize,
}

impl Plan {
    /// Of those that are not paused.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn of<'s>(
        subscriptions: impl IntoIterator<Item = &'s Subscription>,
        most: usize,
    ) -> Result<Self, TooMany> {
        let mut merged: BTreeMap<Symbol, Channels> = BTreeMap::new();
        let mut of_all = Channels::NONE;
        for subscription in subscriptions {
            let terms = &subscription.terms;
            match &terms.symbols {
                _ if terms.paused => {}
                Symbols::All => of_all = of_all.or(terms.channels),
                Symbols::Listed(symbols) => {
                    for symbol in symbols {
                        let channels = merged.entry(*symbol).or_default();
                        *channels = channels.or(terms.channels);
                    }
                }
            }
            if merged.len() > most {
                return Err(TooMany { most });
            }
        }
        Ok(Self { symbols: merged.into_iter().collect(), of_all })
    }
}
