//! Kinds of values that an option takes: each is parsed the same way from a flag, the environment and a file, and printed
//! without its secrets. Invariant: what is wrong with a value is said without the value.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_protocol::admission::Audience;
use weft_protocol::id::unhex;
use weft_protocol::limits::DID_BYTES_MAX;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

macro_rules! text_value {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

/// A whole number between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Number<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> TryFrom<u64> for Number<MIN, MAX> {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        let wrong = || format!("a number from {MIN} to {MAX} is needed");
        u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number)).map(Self).ok_or_else(wrong)
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Number<MIN, MAX> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number: u64 = text.trim().parse().map_err(|_| format!("a number from {MIN} to {MAX} is needed"))?;
        Self::try_from(number)
    }
}

/// A shared secret or a credential; never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(pub String);
text_value!(Secret);

impl FromStr for Secret {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < 16 { Err("a secret has at least 16 characters".into()) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// One secret, or a list of them.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Secret>>, D::Error> {
    struct OneOrMore;
    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<Secret>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a secret, or a list of two")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<Secret>, E> {
            text.parse().map(|secret| vec![secret]).map_err(E::custom)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<Secret>, A::Error> {
            let secrets = Vec::deserialize(SeqAccessDeserializer::new(list))?;
            if secrets.is_empty() { Err(A::Error::custom("the list is empty")) } else { Ok(secrets) }
        }
    }
    deserializer.deserialize_any(OneOrMore).map(Some)
}

/// As [`one_or_more`] reads it.
pub(crate) fn as_one_or_more<S: Serializer>(secrets: &Option<Vec<Secret>>, serializer: S) -> Result<S::Ok, S::Error> {
    match secrets.as_deref() {
        Some([secret]) => secret.serialize(serializer),
        secrets => secrets.serialize(serializer),
    }
}

/// A key of relay tokens: 64 hexadecimal digits; never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenKey(pub [u8; 32]);
text_value!(TokenKey);

impl FromStr for TokenKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a token key is 64 hexadecimal digits, as `openssl rand -hex 32` prints".to_owned();
        unhex(text.trim()).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A URL that clients dial, and the audience that it means.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl {
    url: String,
    /// What clients sign.
    pub audience: Audience,
}
text_value!(PublicUrl);

impl PublicUrl {
    /// Whether clients speak TLS to it.
    pub(crate) fn is_tls(&self) -> bool {
        let scheme = self.url.split("://").next().unwrap_or_default();
        ["wss", "https"].iter().any(|tls| scheme.eq_ignore_ascii_case(tls))
    }
}

impl FromStr for PublicUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let audience = Audience::from_url(text.trim()).map_err(|error| format!("{error}: give ws://… or wss://…"))?;
        Ok(Self { url: text.trim().to_owned(), audience })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// An address, or a network in CIDR form.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);
text_value!(Network);

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        net.map(Self).ok_or_else(|| "an address or a network like 10.0.0.0/8 is needed".to_owned())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A DID.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Did(pub String);
text_value!(Did);

impl FromStr for Did {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if text.starts_with("did:") && plain && text.len() <= DID_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err("a DID like did:plc:… or did:web:… or did:key:… is needed, without a fragment".into())
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment, in RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment(pub jiff::Timestamp);
text_value!(Moment);

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Self).map_err(|_| "a moment like 2030-01-31T12:00:00Z is needed".to_owned())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address of a service: `http://`, `https://`, `nats://` or `tls://`; printed without user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceUrl(pub String);
text_value!(ServiceUrl);

impl FromStr for ServiceUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        match text.split_once("://") {
            Some(("http" | "https" | "nats" | "tls", rest)) if !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err("a URL with http://, https://, nats:// or tls:// is needed".into()),
        }
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
            Some((scheme, Some((_, host)))) => write!(f, "{scheme}://{HIDDEN}@{host}"),
            _ => f.write_str(&self.0),
        }
    }
}
