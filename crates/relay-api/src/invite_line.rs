//! The one line by which a node joins a relay: who the relay is, where it is, and an invite.
//!
//! `restante:RELAY?url=URL&invite=TOKEN`; the URL and the invite may each be left out. It is short enough for a QR code
//! and has no character that a shell or a chat changes.

use std::fmt;
use std::str::FromStr;

use restante_federation_proto::{ServerName, escape_path_segment, unescape_path_segment};

/// What every line begins with.
const SCHEME: &str = "restante:";

/// Bytes of a line: a name, a URL and a token of 255 bytes each, and their escapes.
const LINE_BYTES_MAX: usize = 2048;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteLine {
    /// The relay's name.
    pub relay: ServerName,
    /// Where it is, when its name alone does not say so.
    pub url: Option<String>,
    /// The invite's token; a secret until it is used.
    pub invite: Option<String>,
}

/// A text is no such line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is no invitation; expected a line as `restante mailbox invite` prints it: restante:RELAY?url=URL&invite=TOKEN"
)]
pub struct InviteLineError;

impl FromStr for InviteLine {
    type Err = InviteLineError;

    fn from_str(text: &str) -> Result<Self, InviteLineError> {
        let text = text.trim();
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= LINE_BYTES_MAX);
        let rest = rest.ok_or(InviteLineError)?;
        let (relay, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut line = Self { relay: parsed(relay)?, url: None, invite: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(InviteLineError)?;
            let value = unescape_path_segment(value).ok_or(InviteLineError)?;
            let place = match name {
                "url" => &mut line.url,
                "invite" => &mut line.invite,
                // A later version may add what an earlier one can do without.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(InviteLineError);
            }
        }
        Ok(line)
    }
}

fn parsed(relay: &str) -> Result<ServerName, InviteLineError> {
    let relay = unescape_path_segment(relay).ok_or(InviteLineError)?;
    relay.parse().map_err(|_| InviteLineError)
}

impl fmt::Display for InviteLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.relay)?;
        let pairs = [("url", &self.url), ("invite", &self.invite)];
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (index, (name, value)) in given.enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={}", escape_value(value))?;
        }
        Ok(())
    }
}

/// A path's segment may hold `&` and `=`, a value may not.
fn escape_value(value: &str) -> String {
    escape_path_segment(value).replace('&', "%26").replace('=', "%3D").replace('$', "%24")
}

/// Without the token, so that it does not reach a log.
impl fmt::Debug for InviteLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_invite = self.invite.is_some();
        f.debug_struct("InviteLine")
            .field("relay", &self.relay)
            .field("url", &self.url)
            .field("has_invite", &has_invite)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_reads_as_it_was_written() {
        let line = InviteLine {
            relay: "relay.example:8448".parse().unwrap(),
            url: Some("https://relay.example:8090".to_owned()),
            invite: Some("abc".to_owned()),
        };
        let text = line.to_string();
        assert_eq!(
            text,
            "restante:relay.example:8448?url=https:%2F%2Frelay.example:8090&invite=abc"
        );
        assert_eq!(text.parse(), Ok(line));
        let bare = InviteLine { relay: "r.example".parse().unwrap(), url: None, invite: None };
        assert_eq!("restante:r.example\n".parse(), Ok(bare));
    }

    #[test]
    fn other_texts_are_told_what_was_expected() {
        let texts = [
            "",
            "relay.example",
            "restante:",
            "restante:a b",
            "restante:a?url",
            "restante:a?url=%zz",
        ];
        for text in texts.into_iter().chain(["restante:a?invite=1&invite=2"]) {
            assert_eq!(text.parse::<InviteLine>(), Err(InviteLineError), "{text}");
        }
        assert!("restante:a?later=1".parse::<InviteLine>().is_ok());
    }

    #[test]
    fn the_token_reaches_no_log() {
        let line: InviteLine = "restante:a?invite=sesame".parse().unwrap();
        assert!(!format!("{line:?}").contains("sesame"));
    }

    proptest! {
        #[test]
        fn any_values_come_back(url in ".{0,40}", invite in ".{0,40}") {
            let relay: ServerName = "r.example".parse().unwrap();
            let line = InviteLine { relay, url: Some(url), invite: Some(invite) };
            prop_assert_eq!(line.to_string().parse(), Ok(line));
        }
    }
}
