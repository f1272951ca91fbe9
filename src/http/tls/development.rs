//! Certificates for development: an authority of one's own, and a certificate by it.
//!
//! The authority's private key is never written: it signs this one certificate and is gone, so
//! that who trusts it trusts nothing else.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::market::Nanos;

/// Clocks that are behind see a certificate before it was made.
const CLOCKS_BEHIND: Duration = Duration::from_secs(3_600);

/// Three files, as PEM.
pub struct Development {
    /// The authority that clients are to trust.
    pub ca: String,
    /// The certificate that the node serves.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// Makes them: ECDSA on P-256, for these host names and addresses, from an hour before `now` and
/// until `days` after it.
///
/// # Errors
/// What is wrong with a host name, or that there is no randomness.
pub fn make(hosts: &[String], days: u32, now: Nanos) -> Result<Development, rcgen::Error> {
    let since_1970 = Duration::from_nanos(u64::try_from(now.0).unwrap_or_default());
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    let ends = now + Duration::from_secs(u64::from(days) * 86_400);

    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Tapeline development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (now - CLOCKS_BEHIND, ends);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();

    let mut leaf = CertificateParams::new(hosts)?;
    let name = hosts.first().map_or("localhost", String::as_str);
    leaf.distinguished_name.push(DnType::CommonName, name);
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (now - CLOCKS_BEHIND, ends);
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    Ok(Development { ca, cert, key: key.serialize_pem() })
}
