//! Decides how long mail is kept.
//!
//! Pure. A transaction that holds nothing but typing and presence is worth nothing a minute later; every other is kept
//! whole, since a signed transaction can't be edited.

use std::borrow::Cow;
use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_mailbox::OF_THE_MOMENT;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Larger transactions are not looked into: a hundred typing and presence EDUs have 30 KB.
const EPHEMERAL_BYTES_MAX: usize = 64 * 1024;

/// What a transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// Anything that its recipient would miss.
    Lasting,
    /// Typing and presence alone.
    OfTheMoment,
}

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(default)]
    pdus: Option<Vec<IgnoredAny>>,
    #[serde(default, borrow)]
    edus: Option<Vec<Edu<'a>>>,
}

#[derive(Deserialize)]
struct Edu<'a> {
    #[serde(borrow)]
    edu_type: Cow<'a, str>,
}

/// What `content`, a transaction in canonical form, is worth. In doubt it lasts.
pub(crate) fn worth(content: &[u8]) -> Worth {
    if content.len() > EPHEMERAL_BYTES_MAX {
        return Worth::Lasting;
    }
    let Ok(Transaction { pdus, edus }) = serde_json::from_slice(content) else {
        return Worth::Lasting;
    };
    let edus = edus.unwrap_or_default();
    let of_the_moment = |edu: &Edu<'_>| matches!(edu.edu_type.as_ref(), "m.typing" | "m.presence");
    if pdus.is_none_or(|pdus| pdus.is_empty()) && !edus.is_empty() && edus.iter().all(of_the_moment)
    {
        Worth::OfTheMoment
    } else {
        Worth::Lasting
    }
}

/// When mail that is left at `now` expires: after the relay's time, or the mailbox's if that is shorter.
pub(crate) fn expires_at(
    now: Timestamp,
    worth: Worth,
    of_relay: Duration,
    of_mailbox: Option<Duration>,
) -> Timestamp {
    let kept = of_mailbox.map_or(of_relay, |of_mailbox| of_mailbox.min(of_relay));
    now.after(match worth {
        Worth::Lasting => kept,
        Worth::OfTheMoment => kept.min(OF_THE_MOMENT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn typing_and_presence_alone_are_of_the_moment() {
        for content in [
            r#"{"edus":[{"edu_type":"m.typing","content":{}}]}"#,
            r#"{"edus":[{"edu_type":"m.presence"},{"edu_type":"m.typing"}],"pdus":[]}"#,
            r#"{"edus":[{"edu_type":"m.typ\u0069ng"}],"origin":"a.example","pdus":null}"#,
        ] {
            assert_eq!(worth(content.as_bytes()), Worth::OfTheMoment, "{content}");
        }
    }

    #[test]
    fn whatever_else_there_is_makes_the_whole_last() {
        for content in [
            "{}",
            r#"{"edus":[],"pdus":[]}"#,
            r#"{"edus":[{"edu_type":"m.typing"}],"pdus":[{}]}"#,
            r#"{"edus":[{"edu_type":"m.typing"},{"edu_type":"m.receipt"}]}"#,
            r#"{"edus":[{"edu_type":"m.direct_to_device"}]}"#,
            r#"{"edus":[{"edu_type":"M.TYPING"}]}"#,
            r#"{"edus":[{"edu_type":["m.typing"]}]}"#,
            r#"{"edus":[{"content":{}}]}"#,
            r#"{"edus":[{"edu_type":"m.typing"}],"pdus":{}}"#,
            "nonsense",
        ] {
            assert_eq!(worth(content.as_bytes()), Worth::Lasting, "{content}");
        }
    }

    #[test]
    fn what_is_too_large_to_look_into_lasts() {
        let edu = |padding: usize| {
            let padding = "x".repeat(padding);
            format!(r#"{{"edus":[{{"edu_type":"m.typing","x":"{padding}"}}]}}"#)
        };
        let beside = edu(0).len();
        assert_eq!(worth(edu(EPHEMERAL_BYTES_MAX - beside).as_bytes()), Worth::OfTheMoment);
        assert_eq!(worth(edu(EPHEMERAL_BYTES_MAX - beside + 1).as_bytes()), Worth::Lasting);
    }

    #[test]
    fn the_shortest_of_the_times_counts() {
        let lasting = |of_mailbox| expires_at(NOW, Worth::Lasting, HOUR, of_mailbox);
        assert_eq!(lasting(None), NOW.after(HOUR));
        assert_eq!(lasting(Some(HOUR / 2)), NOW.after(HOUR / 2));
        assert_eq!(lasting(Some(HOUR * 2)), NOW.after(HOUR));
        let moment = |relay, mailbox| expires_at(NOW, Worth::OfTheMoment, relay, mailbox);
        assert_eq!(moment(HOUR, None), NOW.after(OF_THE_MOMENT));
        let second = Duration::from_secs(1);
        assert_eq!(moment(HOUR, Some(second)), NOW.after(second));
        assert_eq!(moment(second, None), NOW.after(second));
    }
}
