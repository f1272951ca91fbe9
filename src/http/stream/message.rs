//! The stream's messages that are no ticks, both ways, as JSON and as MessagePack.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::ask::{CONFLATE_MS_MAX, SESSION_CHARACTERS_MAX};
use crate::live::{ALL_SYMBOLS, Channel, Codec, Interest};
use crate::market::{Nanos, Symbol};
use crate::wire::json;

/// An error of Alpaca's stream: its code, and its message to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Code {
    InvalidSyntax = 400,
    NotAuthenticated = 401,
    AuthFailed = 402,
    AlreadyAuthenticated = 403,
    AuthTimeout = 404,
    SymbolLimitExceeded = 405,
    ConnectionLimitExceeded = 406,
    SlowClient = 407,
    InsufficientSubscription = 409,
    InvalidSubscribeAction = 410,
    InsufficientScope = 411,
    InternalError = 500,
}

impl Code {
    const fn message(self) -> &'static str {
        match self {
            Self::InvalidSyntax => "invalid syntax",
            Self::NotAuthenticated => "not authenticated",
            Self::AuthFailed => "auth failed",
            Self::AlreadyAuthenticated => "already authenticated",
            Self::AuthTimeout => "auth timeout",
            Self::SymbolLimitExceeded => "symbol limit exceeded",
            Self::ConnectionLimitExceeded => "connection limit exceeded",
            Self::SlowClient => "slow client",
            Self::InsufficientSubscription => "insufficient subscription",
            Self::InvalidSubscribeAction => "invalid subscribe action for this feed",
            Self::InsufficientScope => "insufficient scope",
            Self::InternalError => "internal error",
        }
    }
}

/// A value of a message.
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Time(Nanos),
    Names(Vec<&'a str>),
}

/// A payload of one message: an array of one object with these keys, in this order.
pub(super) fn control(codec: Codec, fields: &[(&str, Value<'_>)]) -> Bytes {
    let mut out = Vec::with_capacity(128);
    match codec {
        Codec::Json => {
            let mut separator = b'{';
            out.push(b'[');
            for (key, value) in fields {
                out.push(std::mem::replace(&mut separator, b','));
                json::write_text(key, &mut out);
                out.push(b':');
                write_json(value, &mut out);
            }
            out.extend_from_slice(b"}]");
        }
        // Writing into a `Vec` cannot fail.
        Codec::MessagePack => {
            _ = rmp::encode::write_array_len(&mut out, 1);
            _ = rmp::encode::write_map_len(&mut out, u32::try_from(fields.len()).unwrap_or(u32::MAX));
            for (key, value) in fields {
                _ = rmp::encode::write_str(&mut out, key);
                write_msgpack(value, &mut out);
            }
        }
    }
    Bytes::from(out)
}

fn write_json(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => json::write_text(text, out),
        Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::Time(time) => {
            out.push(b'"');
            time.write(out);
            out.push(b'"');
        }
        Value::Names(names) => {
            out.push(b'[');
            for (at, name) in names.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::write_text(name, out);
            }
            out.push(b']');
        }
    }
}

fn write_msgpack(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => _ = rmp::encode::write_str(out, text),
        Value::Number(number) => _ = rmp::encode::write_uint(out, *number),
        Value::Time(time) => {
            let mut text = Vec::new();
            time.write(&mut text);
            _ = rmp::encode::write_str(out, &String::from_utf8_lossy(&text));
        }
        Value::Names(names) => {
            _ = rmp::encode::write_array_len(out, u32::try_from(names.len()).unwrap_or(u32::MAX));
            for name in names {
                _ = rmp::encode::write_str(out, name);
            }
        }
    }
}

/// `connected` or `authenticated`.
pub(super) fn success(codec: Codec, msg: &str) -> Bytes {
    control(codec, &[("T", Value::Text("success")), ("msg", Value::Text(msg))])
}

/// An error.
pub(super) fn error(codec: Codec, code: Code) -> Bytes {
    let number = u64::from(code as u16);
    control(
        codec,
        &[("T", Value::Text("error")), ("code", Value::Number(number)), ("msg", Value::Text(code.message()))],
    )
}

/// The acknowledgement: everything that is asked for, on all channels.
pub(super) fn subscription(codec: Codec, asked: &Interest) -> Bytes {
    let mut fields = vec![("T", Value::Text("subscription"))];
    let channels = Channel::ALL.into_iter();
    fields.extend(channels.map(|channel| (channel.name(), Value::Names(asked.names(channel).collect()))));
    control(codec, &fields)
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Auth { key: String, secret: String },
    Subscribe(Interest, Wish),
    Unsubscribe(Interest),
}

/// What a subscribe message may say beyond Alpaca's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) cursor: Option<String>,
    pub(super) since: Option<Nanos>,
    /// It takes messages that Alpaca has not.
    pub(super) ext: bool,
    /// Of each symbol the latest quote alone, so often.
    pub(super) conflate: Option<Duration>,
    /// The name of its session.
    pub(super) session: Option<String>,
}

/// `true`, or 1.
#[derive(Deserialize)]
#[serde(untagged)]
enum Switch {
    Word(bool),
    Number(u8),
}

/// A message of a client. Channels that there are elsewhere may be named, with null or with lists.
#[derive(Deserialize)]
struct Message {
    action: Option<String>,
    key: Option<String>,
    secret: Option<String>,
    cursor: Option<String>,
    since: Option<String>,
    ext: Option<Switch>,
    conflate_ms: Option<u64>,
    session: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Others>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Others {
    Names(Vec<String>),
    Nothing(()),
    Else(serde::de::IgnoredAny),
}

/// Reads a message: JSON in text, MessagePack in binary frames.
pub(super) fn read(bytes: &[u8], codec: Codec) -> Result<Said, Code> {
    let message: Message = match codec {
        Codec::Json => serde_json::from_slice(bytes).map_err(|_| Code::InvalidSyntax)?,
        Codec::MessagePack => rmp_serde::from_slice(bytes).map_err(|_| Code::InvalidSyntax)?,
    };
    match message.action.as_deref() {
        Some("auth") => match (message.key, message.secret) {
            (Some(key), Some(secret)) => Ok(Said::Auth { key, secret }),
            _ => Err(Code::InvalidSyntax),
        },
        Some("subscribe") => {
            let since = message.since.map(|text| Nanos::parse(text.as_bytes())).transpose();
            let ext = match message.ext {
                None | Some(Switch::Word(false) | Switch::Number(0)) => false,
                Some(Switch::Word(true) | Switch::Number(1)) => true,
                Some(Switch::Number(_)) => return Err(Code::InvalidSyntax),
            };
            let conflates = |ms: &u64| (1..=CONFLATE_MS_MAX as u64).contains(ms);
            let is_session = |session: &String| (1..=SESSION_CHARACTERS_MAX).contains(&session.len());
            if !message.conflate_ms.as_ref().is_none_or(conflates)
                || !message.session.as_ref().is_none_or(is_session)
            {
                return Err(Code::InvalidSyntax);
            }
            let wish = Wish {
                cursor: message.cursor,
                since: since.map_err(|_| Code::InvalidSyntax)?,
                ext,
                conflate: message.conflate_ms.map(Duration::from_millis),
                session: message.session,
            };
            Ok(Said::Subscribe(interest(&message.others)?, wish))
        }
        Some("unsubscribe") => Ok(Said::Unsubscribe(interest(&message.others)?)),
        _ => Err(Code::InvalidSyntax),
    }
}

fn interest(others: &BTreeMap<String, Others>) -> Result<Interest, Code> {
    let mut interest = Interest::default();
    for (name, names) in others {
        let names = match names {
            Others::Names(names) => names,
            // A name that stands where a list of them should would be a silent nothing.
            Others::Else(_) if Channel::named(name).is_some() => return Err(Code::InvalidSyntax),
            Others::Nothing(()) | Others::Else(_) => continue,
        };
        let Some(channel) = Channel::ASKED.into_iter().find(|channel| channel.name() == name) else {
            // Those that come with the trades are let go; what there is not is said.
            if names.is_empty() || Channel::named(name).is_some() {
                continue;
            }
            return Err(Code::InvalidSubscribeAction);
        };
        for name in names {
            if name == ALL_SYMBOLS {
                interest.insert_all(channel);
            } else {
                let symbol = Symbol::parse(name.as_bytes()).map_err(|_| Code::InvalidSyntax)?;
                interest.insert(channel, symbol);
            }
        }
    }
    Ok(interest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn control_messages_are_alpacas_to_the_byte() {
        assert_eq!(text(&success(Codec::Json, "connected")), r#"[{"T":"success","msg":"connected"}]"#);
        assert_eq!(
            text(&error(Codec::Json, Code::SymbolLimitExceeded)),
            r#"[{"T":"error","code":405,"msg":"symbol limit exceeded"}]"#
        );
        let Said::Subscribe(interest, _) =
            read(br#"{"quotes":["MSFT","*"],"action":"subscribe","trades":["aapl"]}"#, Codec::Json).unwrap()
        else {
            panic!("it subscribes");
        };
        assert_eq!(
            text(&subscription(Codec::Json, &interest)),
            concat!(
                r#"[{"T":"subscription","trades":["AAPL"],"quotes":["*","MSFT"],"bars":[],"updatedBars":[],"#,
                r#""dailyBars":[],"statuses":[],"lulds":[],"corrections":["AAPL"],"cancelErrors":["AAPL"]}]"#
            )
        );
        let packed = success(Codec::MessagePack, "connected");
        assert_eq!(packed.as_ref(), b"\x91\x82\xa1T\xa7success\xa3msg\xa9connected");
        let packed = error(Codec::MessagePack, Code::AuthFailed);
        assert_eq!(packed.as_ref(), b"\x91\x83\xa1T\xa5error\xa4code\xcd\x01\x92\xa3msg\xabauth failed");
    }

    #[test]
    fn what_sdks_send_is_read() {
        // Go: keys in any order, channels null, channels of other markets.
        let go = br#"{"quotes":null,"orderbooks":null,"news":null,"pricing":null,"trades":["AAPL"],"action":"subscribe"}"#;
        assert!(matches!(read(go, Codec::Json), Ok(Said::Subscribe(interest, _)) if interest.count() == 1));
        let js = rmp_serde::to_vec_named(
            &serde_json::json!({"action": "subscribe", "bars": ["*"], "trades": [], "imbalances": []}),
        );
        assert!(
            matches!(read(&js.unwrap(), Codec::MessagePack), Ok(Said::Subscribe(interest, _)) if interest.count() == 1)
        );
        let nothing = rmp_serde::to_vec_named(&serde_json::json!({"action": "subscribe", "bars": null}));
        assert!(
            matches!(read(&nothing.unwrap(), Codec::MessagePack), Ok(Said::Subscribe(interest, _)) if interest.is_empty())
        );
        let imbalances = br#"{"action":"subscribe","imbalances":["A"]}"#;
        assert_eq!(read(imbalances, Codec::Json), Err(Code::InvalidSubscribeAction));
        let auth = br#"{"action":"auth","key":"K","secret":"S"}"#;
        assert_eq!(read(auth, Codec::Json), Ok(Said::Auth { key: "K".into(), secret: "S".into() }));
    }

    #[test]
    fn what_alpaca_has_not_may_be_asked_for_in_the_message() {
        let asked = serde_json::json!({
            "action": "subscribe", "quotes": ["A"], "ext": true, "conflate_ms": 250, "session": "s", "cursor": "c",
        });
        for said in [
            read(asked.to_string().as_bytes(), Codec::Json),
            read(&rmp_serde::to_vec_named(&asked).unwrap(), Codec::MessagePack),
        ] {
            let Ok(Said::Subscribe(interest, wish)) = said else { panic!("{said:?}") };
            let conflate = Some(Duration::from_millis(250));
            let expected = Wish {
                cursor: Some("c".into()),
                since: None,
                ext: true,
                conflate,
                session: Some("s".into()),
            };
            assert_eq!((interest.count(), wish), (1, expected));
        }
    }

    #[test]
    fn what_is_no_message_is_invalid_syntax() {
        for bad in [
            "",
            "{",
            "[]",
            "7",
            r#"{"action":7}"#,
            r#"{"action":"listen"}"#,
            r#"{"action":"auth","key":"K"}"#,
            r#"{"action":"subscribe","trades":["A B"]}"#,
            r#"{"action":"subscribe","trades":"A"}"#,
            r#"{"action":"subscribe","trades":["A"],"quotes":[1]}"#,
            r#"{"action":"unsubscribe","bars":{"A":1}}"#,
            r#"{"action":"subscribe","trades":["A"],"since":"yesterday"}"#,
            r#"{"action":"subscribe","trades":["A"],"ext":2}"#,
            r#"{"action":"subscribe","trades":["A"],"ext":"yes"}"#,
            r#"{"action":"subscribe","trades":["A"],"conflate_ms":0}"#,
            r#"{"action":"subscribe","trades":["A"],"conflate_ms":"x"}"#,
            r#"{"action":"subscribe","trades":["A"],"session":""}"#,
        ] {
            assert_eq!(read(bad.as_bytes(), Codec::Json), Err(Code::InvalidSyntax), "{bad}");
        }
        assert_eq!(read(b"\x81\xa1", Codec::MessagePack), Err(Code::InvalidSyntax));
    }
}
