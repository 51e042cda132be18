//! Decides for how long a relay that took nothing is left alone, and for whose mail.
//!
//! Pure. A relay that is full is not asked again for each transaction: the other relays go on, and when all are full the
//! homeserver keeps its mail. What strangers' records name is left alone whatever came of it.

use std::time::Duration;

use http::StatusCode;
use restante_federation::{BaseUrl, MatrixRefusal, NamedBy, Peer};
use restante_federation_proto::{ErrorCode, ServerName};
use restante_relay_api::Fullness;

use super::deposits::Lasting;

/// The shortest rest: a transaction may be 16 MiB, and room does not come back in a moment.
const REST_MIN: Duration = Duration::from_secs(10);

/// The longest rest, whatever the relay asks for: it keeps nobody's mail away for longer than that after there is room.
const REST_MAX: Duration = Duration::from_secs(600);

/// The rest of a relay by a stranger's word that can't be reached: as long as between two probes of a destination.
const UNREACHABLE_REST: Duration = Duration::from_secs(30);

/// The shortest wait before a busy relay is asked again within one delivery.
pub(super) const BUSY_WAIT_MIN: Duration = Duration::from_millis(250);

/// How long a full relay is left alone that asks for `retry_after`.
pub(super) fn rest(retry_after: Duration) -> Duration {
    retry_after.clamp(REST_MIN, REST_MAX)
}

/// Where a deposit is left, as far as what came of it says something about the next one there.
///
/// Names cost a stranger nothing, and it may write any name beside its URL. So what happens at such a URL is said of the URL,
/// whatever the name, and never of the relay that has the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A relay that the operator named.
    Operators(Peer),
    /// A URL that a stranger wrote.
    StrangersUrl(BaseUrl),
    /// A name that a stranger wrote, whose server discovery finds.
    StrangersName(ServerName),
}

impl Place {
    /// Where `relay` is.
    pub(super) fn of(relay: &Peer) -> Self {
        match (relay.named_by, &relay.url) {
            (NamedBy::Operator, _) => Self::Operators(relay.clone()),
            (NamedBy::Stranger, Some(url)) => {
                let host = url.host.to_ascii_lowercase();
                Self::StrangersUrl(BaseUrl { host, ..url.clone() })
            }
            (NamedBy::Stranger, None) => Self::StrangersName(relay.name.clone()),
        }
    }
}

/// Whose word it is that a deposit was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Something that speaks as a relay does.
    Relays,
    /// Nobody answered, or something that is no relay.
    Nobodys,
}

/// Whose word an answer that refuses is.
pub(super) fn word(status: StatusCode, refusal: &MatrixRefusal) -> Word {
    match refusal.errcode.as_deref() {
        // A proxy before the relay says that of the size of this transaction.
        None if status == StatusCode::PAYLOAD_TOO_LARGE => Word::Relays,
        None => Word::Nobodys,
        // That is how a homeserver answers, which takes no mail for others.
        Some(code) if code == ErrorCode::Unrecognized.as_str() => Word::Nobodys,
        Some(_) => Word::Relays,
    }
}

/// Why a deposit was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    /// What was said, or what came between.
    pub(super) reason: String,
    /// Whether the same may succeed later.
    pub(super) lasting: Lasting,
    /// Which bound was met, if it says so.
    pub(super) full: Option<Fullness>,
    /// When to come again, if it says so.
    pub(super) retry_after: Option<Duration>,
    /// Whose word it is.
    pub(super) word: Word,
}

impl Cause {
    /// There was no answer.
    pub(super) fn unanswered(reason: String) -> Self {
        let (lasting, word) = (Lasting::Temporary, Word::Nobodys);
        Self { reason, lasting, full: None, retry_after: None, word }
    }
}

/// For whose mail a place is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// That of the destination.
    Destination,
    /// All.
    Everybody,
}

/// How long `place` is left alone after this, if at all. Whoever writes another's address into its record must not make us
/// call there for each transaction; the operator's own relays are asked every time, unless they are full.
pub(super) fn rest_after(place: &Place, cause: &Cause) -> Option<Duration> {
    let asked_for = cause.retry_after.unwrap_or_default();
    match (place, cause.full, cause.lasting) {
        (_, Some(_), _) => Some(rest(asked_for)),
        (Place::Operators(_), None, _) => None,
        (_, None, Lasting::Temporary) => Some(rest(asked_for).max(UNREACHABLE_REST)),
        (_, None, Lasting::Permanent) => Some(REST_MAX),
    }
}

/// For whose mail `place` is left alone after this. What a relay says of the mail of one destination is no reason to keep
/// others' mail from it: a stranger's record may name a relay that is right to refuse its mail.
pub(super) fn reach(place: &Place, cause: &Cause) -> Reach {
    match (place, cause.full, cause.word) {
        // Its name was proven when it was reached, by discovery or by the operator's word.
        (Place::Operators(_) | Place::StrangersName(_), Some(Fullness::Relay), _) => {
            Reach::Everybody
        }
        (Place::Operators(_), ..) | (_, Some(_), _) | (_, None, Word::Relays) => Reach::Destination,
        (_, None, Word::Nobodys) => Reach::Everybody,
    }
}

/// Whether a busy relay is asked again within one delivery: not where a stranger sends us.
pub(super) fn is_asked_again(place: &Place, full: Option<Fullness>) -> bool {
    matches!(place, Place::Operators(_)) && full.is_none()
}

/// What it means that this is full, and who can change it.
pub(crate) fn meaning(full: Fullness) -> &'static str {
    match full {
        Fullness::Mailbox => {
            "the destination's mailbox there is full until the destination collects; mail goes to its other relays, or \
             stays with the homeserver"
        }
        Fullness::Share => {
            "what this homeserver may leave in the destination's mailbox there is used up until the destination collects; \
             mail goes to its other relays, or stays with the homeserver"
        }
        Fullness::Relay => {
            "the relay itself, or its disk, is full until its operator makes room; mail goes to other relays, or stays \
             with the homeserver"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::name;

    fn operators() -> Place {
        Place::of(&name("r.test").into())
    }

    fn strangers(relay: &str, url: Option<&str>) -> Place {
        Place::of(&Peer::of_stranger(name(relay), url.map(|url| url.parse().unwrap())))
    }

    fn full(full: Fullness) -> Cause {
        let cause = Cause::unanswered(String::new());
        Cause { full: Some(full), word: Word::Relays, ..cause }
    }

    fn refused(lasting: Lasting) -> Cause {
        Cause { lasting, word: Word::Relays, ..Cause::unanswered(String::new()) }
    }

    #[test]
    fn a_full_relay_rests_for_all_and_a_full_mailbox_for_its_owner() {
        for place in [operators(), strangers("r.test", None)] {
            for part in [Fullness::Mailbox, Fullness::Share] {
                assert_eq!(reach(&place, &full(part)), Reach::Destination);
            }
            assert_eq!(reach(&place, &full(Fullness::Relay)), Reach::Everybody);
        }
        let url = strangers("r.test", Some("https://r.test"));
        assert_eq!(reach(&url, &full(Fullness::Relay)), Reach::Destination);
    }

    #[test]
    fn a_relay_by_a_strangers_word_rests_whenever_it_took_nothing_and_longer_when_it_refused() {
        let place = strangers("r.test", None);
        let (temporary, permanent) = (refused(Lasting::Temporary), refused(Lasting::Permanent));
        assert!(rest_after(&place, &temporary) < rest_after(&place, &permanent));
        assert_eq!(rest_after(&place, &permanent), Some(REST_MAX));
        assert_eq!(rest_after(&operators(), &permanent), None);
        let busy = Cause { retry_after: Some(Duration::from_secs(90)), ..temporary };
        assert_eq!(rest_after(&place, &busy), Some(Duration::from_secs(90)));
    }

    #[test]
    fn what_is_no_relay_is_left_alone_for_all_and_a_refusal_concerns_one_destination() {
        let said = |errcode: Option<&str>| MatrixRefusal {
            errcode: errcode.map(str::to_owned),
            ..MatrixRefusal::default()
        };
        let of = |status, errcode| {
            let word = word(StatusCode::from_u16(status).unwrap(), &said(errcode));
            reach(&strangers("r.test", None), &Cause { word, ..refused(Lasting::Temporary) })
        };
        assert_eq!(of(403, Some("M_FORBIDDEN")), Reach::Destination);
        assert_eq!(of(413, None), Reach::Destination);
        assert_eq!(of(404, Some("M_UNRECOGNIZED")), Reach::Everybody);
        assert_eq!(of(502, None), Reach::Everybody);
        let unanswered = Cause::unanswered(String::new());
        assert_eq!(reach(&strangers("r.test", None), &unanswered), Reach::Everybody);
        assert_eq!(reach(&operators(), &unanswered), Reach::Destination);
    }

    #[test]
    fn a_strangers_url_is_one_place_whatever_name_stands_beside_it() {
        let url = Some("https://r.test");
        assert_eq!(strangers("r.test", url), strangers("other.test", Some("https://R.test:8448")));
        assert_ne!(strangers("r.test", url), strangers("r.test", None));
        assert_ne!(strangers("r.test", None), operators());
    }

    #[test]
    fn no_relay_rests_for_ever_or_for_no_time() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(Duration::ZERO), REST_MIN);
        assert_eq!(rest(seconds(60)), seconds(60));
        assert_eq!(rest(Duration::MAX), REST_MAX);
    }
}
