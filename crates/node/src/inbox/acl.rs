//! Decides whether a room's `m.room.server_acl` lets a server take part
//! (Matrix client-server API, "Server Access Control Lists for rooms").
//!
//! Pure. The homeserver checks the list against the origin of a transaction; in a transaction of its own, as
//! re-wrapped mail is, it checks nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use restante_federation_proto::{ServerName, glob_matches};
use serde::Deserialize;
use serde_json::Value;

/// Patterns of one list that are looked at: an event of 64 KiB can hold no more.
const PATTERNS_MAX: usize = 32_768;

/// One list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerAcl {
    allow: Vec<String>,
    deny: Vec<String>,
    allow_ip_literals: bool,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    allow: Value,
    #[serde(default)]
    deny: Value,
    #[serde(default)]
    allow_ip_literals: Value,
}

impl ServerAcl {
    /// Reads an event's content; what is malformed in it counts as left out, as in homeservers.
    pub(crate) fn parse(content: &str) -> Option<Self> {
        let content: Content = serde_json::from_str(content).ok()?;
        Some(Self {
            allow: patterns(&content.allow),
            deny: patterns(&content.deny),
            allow_ip_literals: content.allow_ip_literals.as_bool().unwrap_or(true),
        })
    }

    /// Whether `server` may take part.
    pub(crate) fn permits(&self, server: &ServerName) -> bool {
        let host = server.host().to_ascii_lowercase();
        if !self.allow_ip_literals && is_ip_literal(&host) {
            return false;
        }
        let is_in = |list: &[String]| list.iter().any(|pattern| glob_matches(pattern, &host));
        !is_in(&self.deny) && is_in(&self.allow)
    }
}

fn patterns(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = list.iter().filter_map(Value::as_str).take(PATTERNS_MAX);
    texts.map(str::to_ascii_lowercase).collect()
}

fn is_ip_literal(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host.parse::<Ipv4Addr>().is_ok() || v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(content: &str, server: &str) -> bool {
        ServerAcl::parse(content).unwrap().permits(&server.parse().unwrap())
    }

    #[test]
    fn who_is_denied_is_out_though_everybody_is_allowed() {
        let acl = r#"{"allow":["*"],"deny":["evil.test","*.evil.test","ba?.test"]}"#;
        for denied in ["evil.test", "evil.test:8448", "a.evil.test", "EVIL.test", "bad.test"] {
            assert!(!permits(acl, denied), "{denied}");
        }
        for allowed in ["good.test", "notevil.test", "baad.test", "192.0.2.7", "[2001:db8::1]:1"] {
            assert!(permits(acl, allowed), "{allowed}");
        }
    }

    #[test]
    fn who_is_not_allowed_is_out() {
        assert!(!permits("{}", "a.test"));
        assert!(!permits(r#"{"allow":["b.test"]}"#, "a.test"));
        assert!(!permits(r#"{"allow":"*"}"#, "a.test"));
        assert!(permits(
            r#"{"allow":[7,"a.test"],"deny":null,"allow_ip_literals":"no"}"#,
            "a.test"
        ));
    }

    #[test]
    fn addresses_can_be_kept_out() {
        let acl = r#"{"allow":["*"],"allow_ip_literals":false}"#;
        for denied in ["192.0.2.7", "192.0.2.7:8448", "[2001:db8::1]", "[2001:db8::1]:8448"] {
            assert!(!permits(acl, denied), "{denied}");
        }
        assert!(permits(acl, "a.test"));
    }
}
