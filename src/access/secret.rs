//! Ids and secrets: how they are made, and the hash that is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng as _;
use secrecy::SecretString;
use subtle::ConstantTimeEq as _;

use super::AccessError;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ID_CHARACTERS: usize = 18;
const HASH_CONTEXT: &str = "tapeline 2026 access v1 api key secret";

/// A new random id: the prefix and 18 characters of base32 (90 bits).
pub(super) fn new_id(prefix: &str) -> Result<String, AccessError> {
    let mut bytes = [0; ID_CHARACTERS];
    random(&mut bytes)?;
    let characters = bytes.iter().filter_map(|byte| BASE32.get(usize::from(byte & 31)));
    Ok(prefix.chars().chain(characters.map(|byte| char::from(*byte))).collect())
}

/// A new secret of 256 random bits, 43 characters of base64url.
pub(super) fn new_secret() -> Result<SecretString, AccessError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// Random bytes of the operating system.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), AccessError> {
    rand::rngs::SysRng.try_fill_bytes(bytes).map_err(|error| AccessError::NoRandomness(error.to_string()))
}

/// What is kept of a secret. The id is part of it, so that hashes of two keys never compare.
pub(super) fn hash(id: &str, secret: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
    hasher.update(&(id.len() as u64).to_be_bytes()).update(id.as_bytes()).update(secret.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Whether two hashes are equal, in constant time.
pub(super) fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn ids_and_secrets_have_their_form_and_differ() {
        let id = new_id("TL").unwrap();
        assert_eq!(id.len(), 20);
        assert!(id.starts_with("TL") && id.bytes().skip(2).all(|byte| BASE32.contains(&byte)), "{id}");
        assert_ne!(id, new_id("TL").unwrap());
        let secret = new_secret().unwrap();
        assert_eq!(secret.expose_secret().len(), 43);
        assert_ne!(secret.expose_secret(), new_secret().unwrap().expose_secret());
    }

    #[test]
    fn the_hash_depends_on_id_and_secret() {
        let hashes = [hash("a", "bc"), hash("ab", "c"), hash("a", "bd")];
        assert!(same(&hashes[0], &hash("a", "bc")));
        assert!(!same(&hashes[0], &hashes[1]) && !same(&hashes[0], &hashes[2]));
    }
}
