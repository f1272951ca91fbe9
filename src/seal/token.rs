//! Opaque tokens for clients: a prefix, then base64url of key id, MAC and payload.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SealError;
use super::keyring::{KeyId, Keyring};

impl Keyring {
    /// A token that carries `payload`: the prefix and then base64url without padding of key id
    /// (4 bytes), MAC (16 bytes, over prefix and payload) and payload. The payload is readable by
    /// whoever holds the token; it cannot be changed. Each kind of token has its own prefix.
    #[must_use]
    pub fn token(&self, prefix: &str, payload: &[u8]) -> String {
        let active = self.active();
        let mut bytes = Vec::with_capacity(20 + payload.len());
        bytes.extend_from_slice(&active.id().0.to_be_bytes());
        bytes.extend_from_slice(&active.token_mac(prefix, payload));
        bytes.extend_from_slice(payload);
        let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        text
    }

    /// The payload of a token of this prefix.
    ///
    /// # Errors
    /// [`SealError`] when it is no token of this kind, or was not made with one of these keys.
    pub fn open_token(&self, prefix: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let not_a_token = || SealError::NotAToken(prefix.to_owned());
        let encoded = text.strip_prefix(prefix).ok_or_else(not_a_token)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| not_a_token())?;
        let (id, rest) = bytes.split_first_chunk::<4>().ok_or_else(not_a_token)?;
        let (mac, payload) = rest.split_first_chunk::<16>().ok_or_else(not_a_token)?;
        let expected = self.find(KeyId(u32::from_be_bytes(*id)))?.token_mac(prefix, payload);
        if bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], &mac[..])) {
            Ok(payload.to_vec())
        } else {
            Err(SealError::Mac)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::golden;
    use proptest::prelude::*;

    #[test]
    fn a_token_opens_under_its_prefix_alone() {
        let ring = Keyring::from_secret([1; 32]);
        let token = ring.token("p1.", b"payload");
        assert_eq!(ring.open_token("p1.", &token).unwrap(), b"payload");
        let moved = token.replacen("p1.", "c1.", 1);
        assert_eq!(ring.open_token("c1.", &moved), Err(SealError::Mac));
        assert!(matches!(ring.open_token("c1.", &token), Err(SealError::NotAToken(_))));
        assert!(Keyring::from_secret([2; 32]).with_old([1; 32]).open_token("p1.", &token).is_ok());
    }

    #[test]
    fn every_changed_character_is_refused() {
        let ring = Keyring::from_secret([1; 32]);
        let token = ring.token("p1.", b"0123456789");
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(ring.open_token("p1.", std::str::from_utf8(&bytes).unwrap()).is_err(), "character {at}");
            assert!(ring.open_token("p1.", token.get(..at).unwrap()).is_err(), "length {at}");
        }
    }

    /// The token of `docs/FORMATS.md`, section 6: key 000102…1f, prefix `p1.`, payload `abc`.
    #[test]
    fn the_golden_token() {
        let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let bytes = golden::block("token");
        let expected = format!("p1.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(Keyring::from_secret(secret).token("p1.", b"abc"), expected);
        assert_eq!(expected, "p1.uqntce7Q1cabTwWq11MK0W8_czxhYmM");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "p1\\.\\PC{0,60}") {
            prop_assert!(Keyring::from_secret([1; 32]).open_token("p1.", &text).is_err());
        }
    }
}
