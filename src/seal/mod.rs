//! The envelope around every stored value, and the keys that make it.
//!
//! A value is stored as 24 bytes of header and the payload as it is:
//!
//! | bytes | what |
//! |---|---|
//! | 3 | magic `TLE` |
//! | 1 | version, 1 |
//! | 4 | key id |
//! | 16 | MAC: the first half of keyed BLAKE3 over the row's full key, the 8 bytes before, and the payload |
//! | n | payload |
//!
//! The MAC covers the key of the row ([`SealKey`]) as well as the bytes, so a value that was
//! damaged, tampered with, or moved to another row is an error with a name and never a wrong
//! price. It does not hide the payload. Sealing 12 kB costs about as much as one read of it.
//!
//! [`Keyring`] holds the active key and older ones; a key's id is computed from the key, so
//! that it cannot be named wrongly. Tokens handed to clients (pages, positions, cursors) are
//! MACed by the same ring under other derived keys ([`Keyring::token`]). The bytes are
//! defined in `docs/FORMATS.md`, section 6.

mod keyfile;
mod keyring;
mod token;

use bytes::{BufMut as _, Bytes, BytesMut};

pub use keyfile::KeyFileError;
pub use keyring::{KeyId, Keyring};

/// The bytes that an envelope adds to a payload.
pub const ENVELOPE_BYTES: usize = 24;

const MAGIC: &[u8; 3] = b"TLE";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8;

/// Why a sealed value or a token cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than the header, or another magic.
    #[error("is no sealed value: the first bytes are {found:02x?}, expected `TLE`")]
    NotSealed {
        /// The first bytes there are, at most three.
        found: Vec<u8>,
    },
    /// A version that this program does not know.
    #[error("is sealed in version {0}, this program reads version 1")]
    Version(u8),
    /// Sealed with a key that is not in the ring.
    #[error("is sealed with key {id}, which is not in the key file (it has {have})")]
    UnknownKey {
        /// The key it names.
        id: KeyId,
        /// The keys there are.
        have: String,
    },
    /// The bytes or the row they stand in are not those that were sealed.
    #[error("fails its integrity check: it was damaged, tampered with, or belongs to another row")]
    Mac,
    /// A token without the expected prefix, or not base64url.
    #[error("is no token of the kind `{0}`")]
    NotAToken(String),
}

/// The full key of a row, under which a value is sealed: a domain, such as the name of a
/// table, and the parts of its key. Different lists of parts never have the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKey(Vec<u8>);

impl SealKey {
    /// A key that begins with the name of what the row belongs to.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self(Vec::with_capacity(64)).part(domain.as_bytes())
    }

    /// The same key with one more part.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        // A part's length stands before it as a u64, so that ("ab", "c") and ("a", "bc") differ.
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The same key with a number as one more part, 8 bytes big-endian.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.part(&number.to_be_bytes())
    }

    /// The bytes that are MACed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Keyring {
    /// Seals a payload for the row with this key, with the active key.
    #[must_use]
    pub fn seal(&self, key: &SealKey, payload: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(ENVELOPE_BYTES + payload.len());
        self.seal_into(key, payload, &mut sealed);
        sealed.freeze()
    }

    /// Appends the sealed payload to `out`.
    pub fn seal_into(&self, key: &SealKey, payload: &[u8], out: &mut BytesMut) {
        let active = self.active();
        let head = head(active.id());
        let mac = active.value_mac(key, &head, payload);
        out.reserve(ENVELOPE_BYTES + payload.len());
        out.put_slice(&head);
        out.put_slice(&mac);
        out.put_slice(payload);
    }

    /// Checks a sealed value against the row it stands in and answers the payload, without
    /// copying it.
    ///
    /// # Errors
    /// [`SealError`] when it is not what was sealed for this row.
    pub fn open(&self, key: &SealKey, sealed: &Bytes) -> Result<Bytes, SealError> {
        self.check(key, sealed)?;
        Ok(sealed.slice(ENVELOPE_BYTES..))
    }

    /// Checks a sealed value against the row it stands in and answers its payload.
    ///
    /// # Errors
    /// [`SealError`] when it is not what was sealed for this row.
    pub fn check<'a>(&self, key: &SealKey, sealed: &'a [u8]) -> Result<&'a [u8], SealError> {
        let not_sealed = || SealError::NotSealed { found: sealed.iter().take(3).copied().collect() };
        let (head_bytes, rest) = sealed.split_first_chunk::<HEAD_BYTES>().ok_or_else(not_sealed)?;
        let [m0, m1, m2, version, id @ ..] = *head_bytes;
        if [m0, m1, m2] != *MAGIC {
            return Err(not_sealed());
        }
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        let (mac, payload) = rest.split_first_chunk::<16>().ok_or_else(not_sealed)?;
        let with = self.find(KeyId(u32::from_be_bytes(id)))?;
        let expected = with.value_mac(key, head_bytes, payload);
        if bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], &mac[..])) {
            Ok(payload)
        } else {
            Err(SealError::Mac)
        }
    }
}

fn head(id: KeyId) -> [u8; HEAD_BYTES] {
    let [m0, m1, m2] = *MAGIC;
    let [i0, i1, i2, i3] = id.0.to_be_bytes();
    [m0, m1, m2, VERSION, i0, i1, i2, i3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use proptest::prelude::*;

    fn key() -> SealKey {
        SealKey::new("tape").number(7).number(1)
    }

    #[test]
    fn what_is_sealed_opens_and_only_in_its_row() {
        let ring = Keyring::from_secret([1; 32]);
        let sealed = ring.seal(&key(), b"payload");
        assert_eq!(sealed.len(), ENVELOPE_BYTES + 7);
        assert_eq!(ring.open(&key(), &sealed).unwrap(), Bytes::from_static(b"payload"));
        let other_row = SealKey::new("tape").number(7).number(2);
        assert_eq!(ring.open(&other_row, &sealed), Err(SealError::Mac));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(SealKey::new("a").part(b"ab").part(b"c"), SealKey::new("a").part(b"a").part(b"bc"));
        assert_ne!(SealKey::new("a").part(b""), SealKey::new("a"));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let ring = Keyring::from_secret([1; 32]);
        let sealed = ring.seal(&key(), b"some payload");
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open(&key(), &bytes.into()).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(ring.open(&key(), &sealed.slice(..length)).is_err(), "length {length}");
        }
    }

    #[test]
    fn old_keys_open_and_unknown_keys_are_named() {
        let old = Keyring::from_secret([1; 32]);
        let sealed = old.seal(&key(), b"x");
        let rotated = Keyring::from_secret([2; 32]).with_old([1; 32]);
        assert_eq!(rotated.open(&key(), &sealed).unwrap().as_ref(), b"x");
        let error = Keyring::from_secret([2; 32]).open(&key(), &sealed).unwrap_err();
        assert!(error.to_string().contains(&old.active().id().to_string()), "{error}");
    }

    /// The bytes of `docs/FORMATS.md`, section 6: key 000102…1f, row ("tape", 7, 1), payload `abc`.
    #[test]
    fn the_golden_envelope() {
        let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let sealed = Keyring::from_secret(secret).seal(&key(), b"abc");
        assert_eq!(sealed, golden::block("envelope"));
    }

    proptest! {
        #[test]
        fn any_bytes_open_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let ring = Keyring::from_secret([1; 32]);
            prop_assert!(ring.open(&key(), &bytes.into()).is_err());
        }
    }
}
