//! What a client wants of a stream.

use super::encode::Form;
use super::subscriber::Personal;

/// What a client wants of a stream when it opens it.
pub struct StreamAsk<'a> {
    /// The bytes.
    pub form: Form,
    /// The key by which it was admitted.
    pub key_id: &'a str,
    /// The name of its session, of which a newer connection takes over.
    pub session: Option<&'a str>,
    /// What is done for it alone.
    pub personal: Personal,
    /// The subscription that it is of.
    pub attached: Option<Attached>,
}

/// A state of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// Whose it is.
    pub account: String,
    /// Its id.
    pub id: String,
    /// A digest of what it delivers.
    pub delivers: [u8; 16],
}
