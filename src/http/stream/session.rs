//! Alpaca's stream protocol, as a state machine: what a client says, what it is told.

use bytes::Bytes;

use super::message::{self, Code, Said, Wish};
use crate::live::{Codec, Interest};

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has shown no key yet.
    Connected,
    /// It has shown one with its headers, and may do so again.
    ByHeader,
    /// It has shown one in a message.
    ByMessage,
}

/// What the connection does about a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Tells it this.
    Tell(Bytes),
    /// Looks the key up, and calls [`Session::authenticated`] or refuses.
    Authenticate { key: String, secret: String },
    /// Subscribes; the acknowledgement is the subscription's own.
    Subscribe(Interest, Wish),
    /// Unsubscribes, the same.
    Unsubscribe(Interest),
}

/// One connection's protocol.
#[derive(Debug)]
pub(super) struct Session {
    codec: Codec,
    stage: Stage,
    symbols_max: usize,
}

impl Session {
    /// A connection that takes messages of this codec.
    pub(super) const fn new(codec: Codec, symbols_max: usize) -> Self {
        Self { codec, stage: Stage::Connected, symbols_max }
    }

    /// Its codec.
    pub(super) const fn codec(&self) -> Codec {
        self.codec
    }

    /// A good key was shown; what the client is told.
    pub(super) fn authenticated(&mut self, by_header: bool) -> Bytes {
        self.stage = if by_header { Stage::ByHeader } else { Stage::ByMessage };
        message::success(self.codec, "authenticated")
    }

    /// What a message comes to. `asked` is what was asked for so far.
    pub(super) fn hear(&mut self, bytes: &[u8], codec: Codec, asked: &Interest) -> Reaction {
        let said = match message::read(bytes, codec) {
            Ok(said) => said,
            Err(code) => return self.tell(code),
        };
        match (said, self.stage) {
            (Said::Auth { key, secret }, Stage::Connected) => Reaction::Authenticate { key, secret },
            // A client that shows its key with its headers does not know that this was enough.
            (Said::Auth { .. }, Stage::ByHeader) => {
                self.stage = Stage::ByMessage;
                Reaction::Tell(message::success(self.codec, "authenticated"))
            }
            (Said::Auth { .. }, Stage::ByMessage) => self.tell(Code::AlreadyAuthenticated),
            (_, Stage::Connected) => self.tell(Code::NotAuthenticated),
            (Said::Subscribe(more, wish), _) => {
                let mut then = asked.clone();
                then.add(&more);
                if then.count() > self.symbols_max {
                    return self.tell(Code::SymbolLimitExceeded);
                }
                Reaction::Subscribe(more, wish)
            }
            (Said::Unsubscribe(less), _) => Reaction::Unsubscribe(less),
        }
    }

    fn tell(&self, code: Code) -> Reaction {
        Reaction::Tell(message::error(self.codec, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTH: &str = r#"{"action":"auth","key":"K","secret":"S"}"#;
    const SUBSCRIBE: &str = r#"{"action":"subscribe","trades":["A","B"]}"#;

    fn told(session: &mut Session, text: &str) -> String {
        match session.hear(text.as_bytes(), Codec::Json, &Interest::default()) {
            Reaction::Tell(payload) => String::from_utf8(payload.to_vec()).unwrap(),
            Reaction::Authenticate { key, secret } => format!("authenticate {key} {secret}"),
            Reaction::Subscribe(interest, _) => format!("subscribe {}", interest.count()),
            Reaction::Unsubscribe(interest) => format!("unsubscribe {}", interest.count()),
        }
    }

    fn error(code: u16, msg: &str) -> String {
        format!(r#"[{{"T":"error","code":{code},"msg":"{msg}"}}]"#)
    }

    #[test]
    fn a_key_comes_before_everything_else() {
        let mut session = Session::new(Codec::Json, 10);
        assert_eq!(told(&mut session, SUBSCRIBE), error(401, "not authenticated"));
        assert_eq!(told(&mut session, "nonsense"), error(400, "invalid syntax"));
        assert_eq!(told(&mut session, AUTH), "authenticate K S");
        assert_eq!(session.authenticated(false).as_ref(), br#"[{"T":"success","msg":"authenticated"}]"#);
        assert_eq!(told(&mut session, AUTH), error(403, "already authenticated"));
        assert_eq!(told(&mut session, SUBSCRIBE), "subscribe 2");
    }

    #[test]
    fn a_key_in_the_headers_may_be_shown_once_more() {
        let mut session = Session::new(Codec::Json, 10);
        session.authenticated(true);
        assert_eq!(told(&mut session, AUTH), r#"[{"T":"success","msg":"authenticated"}]"#);
        assert_eq!(told(&mut session, AUTH), error(403, "already authenticated"));
        assert_eq!(told(&mut session, r#"{"action":"unsubscribe","bars":["*"]}"#), "unsubscribe 1");
    }

    #[test]
    fn above_the_limit_of_symbols_nothing_changes() {
        let mut session = Session::new(Codec::Json, 2);
        session.authenticated(false);
        assert_eq!(told(&mut session, SUBSCRIBE), "subscribe 2");
        let three = r#"{"action":"subscribe","trades":["A","B"],"quotes":["C"]}"#;
        assert_eq!(told(&mut session, three), error(405, "symbol limit exceeded"));
    }
}
