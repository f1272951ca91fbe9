//! Keys: one secret of 32 bytes from which the keys for values and for tokens are derived.

use std::fmt;

use rand::TryRng as _;
use secrecy::zeroize::Zeroize as _;
use secrecy::{ExposeSecret as _, SecretBox};

use super::{SealError, SealKey};

/// The length of a secret.
pub(super) const SECRET_BYTES: usize = 32;

const ID_CONTEXT: &str = "tapeline 2026 seal v1 key id";
const VALUE_CONTEXT: &str = "tapeline 2026 seal v1 stored values";
const TOKEN_CONTEXT: &str = "tapeline 2026 seal v1 tokens";

/// The public name of a key, computed from its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One key: its id and what is derived from its secret. Wiped from memory when dropped.
pub(super) struct Key {
    id: KeyId,
    secret: SecretBox<[u8; SECRET_BYTES]>,
    values: SecretBox<[u8; SECRET_BYTES]>,
    tokens: SecretBox<[u8; SECRET_BYTES]>,
}

impl Key {
    fn new(mut secret: [u8; SECRET_BYTES]) -> Self {
        let derived = |context: &str| SecretBox::new(Box::new(blake3::derive_key(context, &secret)));
        let [i0, i1, i2, i3, ..] = blake3::derive_key(ID_CONTEXT, &secret);
        let (values, tokens) = (derived(VALUE_CONTEXT), derived(TOKEN_CONTEXT));
        let id = KeyId(u32::from_be_bytes([i0, i1, i2, i3]));
        let kept = SecretBox::new(Box::new(secret));
        secret.zeroize();
        Self { id, secret: kept, values, tokens }
    }

    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &[u8; SECRET_BYTES] {
        self.secret.expose_secret()
    }

    pub(super) fn value_mac(&self, key: &SealKey, head: &[u8], payload: &[u8]) -> [u8; 16] {
        half(&self.values, &[key.as_bytes(), head, payload])
    }

    pub(super) fn token_mac(&self, prefix: &str, payload: &[u8]) -> [u8; 16] {
        half(&self.tokens, &[prefix.as_bytes(), payload])
    }
}

/// The first half of keyed BLAKE3 over the parts, each but the last with its length before it.
fn half(key: &SecretBox<[u8; SECRET_BYTES]>, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key.expose_secret());
    if let [framed @ .., last] = parts {
        for part in framed {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.update(last);
    }
    let mut mac = [0; 16];
    hasher.finalize_xof().fill(&mut mac);
    mac
}

/// The active key, which seals, and older ones, which still open.
pub struct Keyring {
    active: Key,
    old: Vec<Key>,
}

impl Keyring {
    /// A ring of one given key.
    #[must_use]
    pub fn from_secret(secret: [u8; SECRET_BYTES]) -> Self {
        Self { active: Key::new(secret), old: Vec::new() }
    }

    /// The same ring with one more key that only opens.
    #[must_use]
    pub fn with_old(mut self, secret: [u8; SECRET_BYTES]) -> Self {
        self.old.push(Key::new(secret));
        self
    }

    /// A ring of one new random key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> std::io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut secret)
            .map_err(|error| std::io::Error::other(format!("no random bytes for a key: {error}")))?;
        Ok(Self::from_secret(secret))
    }

    /// The id of the key that seals.
    #[must_use]
    pub const fn active_id(&self) -> KeyId {
        self.active.id()
    }

    /// The ids of all keys, the active one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys().map(Key::id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.active).chain(&self.old)
    }

    pub(super) const fn active(&self) -> &Key {
        &self.active
    }

    pub(super) fn find(&self, id: KeyId) -> Result<&Key, SealError> {
        self.keys().find(|key| key.id == id).ok_or_else(|| {
            let have: Vec<String> = self.ids().map(|id| id.to_string()).collect();
            SealError::UnknownKey { id, have: have.join(", ") }
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let old: Vec<KeyId> = self.old.iter().map(Key::id).collect();
        f.debug_struct("Keyring").field("active", &self.active.id).field("old", &old).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_ids_and_no_secret() {
        let text = format!("{:?}", Keyring::from_secret([0xab; 32]).with_old([0xcd; 32]));
        assert!(text.contains("active") && !text.contains("171") && !text.contains("205"), "{text}");
        assert!(!text.to_lowercase().contains("abab") && !text.to_lowercase().contains("cdcd"), "{text}");
    }

    #[test]
    fn new_keys_differ() {
        assert_ne!(Keyring::generate().unwrap().active_id(), Keyring::generate().unwrap().active_id());
    }
}
