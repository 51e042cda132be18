//! Server names and user ids, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::PublicKey;

/// Longest name or id that is accepted, in bytes (the specification's limit for user ids).
const NAME_BYTES_MAX: usize = 255;

/// A server name (Matrix specification, appendix "Server Name"): host with optional port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(Arc<str>);

/// A text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a server name.
    #[error("{0:?} is not a Matrix server name")]
    Server(String),
    /// Not a full user id.
    #[error("{0:?} is not a Matrix user id; expected @localpart:server")]
    User(String),
}

impl ServerName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that a key-named server (64 lower-case hex digits) is; `None` for every other name,
    /// and for 64 digits that are no point of the curve.
    pub fn public_key(&self) -> Option<PublicKey> {
        let digits: &[u8; 64] = self.0.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = lower_case_hex(pair[0])? << 4 | lower_case_hex(pair[1])?;
        }
        PublicKey::from_bytes(&bytes).ok()
    }

    /// The name of the server that `key` is.
    pub fn of_key(key: &PublicKey) -> Self {
        let digits: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Self(digits.into())
    }

    /// The host part, IPv6 literals with their brackets.
    pub fn host(&self) -> &str {
        self.host_and_port().0
    }

    /// The port, when the name has one.
    pub fn port(&self) -> Option<u16> {
        self.host_and_port().1
    }

    fn host_and_port(&self) -> (&str, Option<u16>) {
        // The colons of an IPv6 literal stand inside its brackets.
        match self.0.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (&self.0, None),
        }
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Server(excerpt(text));
        // The crate's `u16::from_str` takes a plus sign and any number of zeros for a port.
        let (_, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let odd_port = port.starts_with('+') || (port.len() > 5 && !port.ends_with(']'));
        if text.len() > NAME_BYTES_MAX || (text.contains(':') && odd_port) {
            return Err(refused());
        }
        ruma_identifiers_validation::server_name::validate(text).map_err(|_| refused())?;
        Ok(Self(text.into()))
    }
}

/// As much of a refused text as an error may repeat.
fn excerpt(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

fn lower_case_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<String> for ServerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A full user id, `@localpart:server`; historical localparts are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserId {
    text: Arc<str>,
    server: ServerName,
}

impl UserId {
    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The server whose user this is.
    pub fn server_name(&self) -> &ServerName {
        &self.server
    }
}

impl FromStr for UserId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::User(excerpt(text));
        let (localpart, server) =
            text.strip_prefix('@').and_then(|rest| rest.split_once(':')).ok_or_else(refused)?;
        if text.len() > NAME_BYTES_MAX || localpart.contains('\0') {
            return Err(refused());
        }
        let server = server.parse().map_err(|_| refused())?;
        Ok(Self { text: text.into(), server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_have_a_host_and_perhaps_a_port() {
        for (name, host, port) in [
            ("a.example", "a.example", None),
            ("A.example:8448", "A.example", Some(8448)),
            ("10.0.0.1:1", "10.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:8448", "[2001:db8::1]", Some(8448)),
            ("[::ffff:192.168.100.100]", "[::ffff:192.168.100.100]", None),
        ] {
            let parsed: ServerName = name.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.host(), parsed.port()), (name, host, port));
        }
    }

    #[test]
    fn what_is_no_server_name_is_refused() {
        let long = "a".repeat(256);
        for name in [
            "",
            ":8448",
            "a b",
            "a/b",
            "a_b",
            "é",
            "a:",
            "a:+80",
            "a:-1",
            "a:65536",
            "a:000008448",
            "a:1:2",
            "[::1",
            "[x]",
            "[::1]x",
            "[::1]:",
            "[::1]:+1",
            "a\"b",
            &long,
        ] {
            assert!(name.parse::<ServerName>().is_err(), "{name}");
        }
    }

    #[test]
    fn only_64_lower_case_hex_digits_of_a_point_are_a_key() {
        let digits = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
        let name: ServerName = digits.parse().unwrap();
        let key = name.public_key().unwrap();
        assert_eq!(ServerName::of_key(&key), name);
        let no_point = "02".to_owned() + &"00".repeat(31);
        for other in [
            "a.example",
            &digits.to_uppercase(),
            &digits[1..],
            &format!("{digits}:1"),
            &no_point,
            &"0".repeat(64),
            &digits.replace('b', "g"),
        ] {
            assert_eq!(other.parse::<ServerName>().unwrap().public_key(), None, "{other}");
        }
    }

    #[test]
    fn user_ids_have_a_server_and_any_historical_localpart() {
        for id in ["@a:b.example", "@A b/ü:[::1]:1", "@:b.example"] {
            assert_eq!(id.parse::<UserId>().unwrap().as_str(), id);
        }
        let server = "@a:b.example:1".parse::<UserId>().unwrap().server_name().clone();
        assert_eq!(server.as_str(), "b.example:1");
        let long = format!("@{}:b.example", "a".repeat(255));
        for id in ["", "a:b.example", "@a", "@a:", "@a:b c", "@\0:b.example", &long] {
            assert!(id.parse::<UserId>().is_err(), "{id}");
        }
    }
}
