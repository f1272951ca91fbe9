//! The keys that a start makes, and the token of the admin door.

use rand::TryRng as _;

use super::StartError;
use crate::access::{AccessError, Actor, KeyAsk, Keys, NewKey, Scope};
use crate::market::Nanos;

/// Under which account a pair of keys is made, and what earlier pairs become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairAccount {
    /// The first start of a store: only where there is no key yet.
    First,
    /// Each start of the demo: a fresh pair, and the last one is revoked.
    Demo,
}

impl PairAccount {
    const fn label(self) -> &'static str {
        match self {
            Self::First => "first start",
            Self::Demo => "demo",
        }
    }
}

/// A key that may read and a key that may write, of one account; none where the first start
/// was before.
///
/// # Errors
/// [`AccessError`]
pub async fn key_pair(keys: &Keys, of: PairAccount, now: Nanos) -> Result<Option<[NewKey; 2]>, AccessError> {
    let known = keys.list();
    if of == PairAccount::First && !known.is_empty() {
        return Ok(None);
    }
    let earlier: Vec<_> =
        known.into_iter().filter(|row| row.label == of.label() && row.is_live(now)).collect();
    let account = earlier.first().map(|row| row.account.clone());
    let ask = |scope, account| KeyAsk {
        label: of.label().to_owned(),
        scopes: vec![scope],
        account,
        requests_per_minute: None,
        expires: None,
    };
    let read = keys.create(ask(Scope::MarketDataRead, account), &Actor::node(), now).await?;
    let write =
        keys.create(ask(Scope::TicksWrite, Some(read.row.account.clone())), &Actor::node(), now).await?;
    if of == PairAccount::Demo {
        for row in earlier {
            keys.revoke(&row.id, &Actor::node(), now).await?;
        }
    }
    Ok(Some([read, write]))
}

/// A random token of 256 bits.
pub(super) fn admin_token() -> Result<String, StartError> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StartError::Config(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}")))
}
