//! Decides for how long a relay that has no room is left alone, and for whose mail.
//!
//! Pure. A relay that is full is not asked again for each transaction: the other relays go on, and when all are full the
//! homeserver keeps its mail.

use std::time::Duration;

use restante_federation::NamedBy;
use restante_federation_proto::ServerName;
use restante_relay_api::Fullness;

use super::deposits::{Lasting, Refusal};

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

/// How long a relay is left alone that a stranger named, after it took nothing: whoever writes another's address into its
/// record must not make us call there for each transaction. The operator's own relays are asked every time.
pub(super) fn rest_of_strangers(named_by: NamedBy, lasting: Lasting) -> Option<Duration> {
    match (named_by, lasting) {
        (NamedBy::Operator, _) => None,
        (NamedBy::Stranger, Lasting::Temporary) => Some(UNREACHABLE_REST),
        (NamedBy::Stranger, Lasting::Permanent) => Some(REST_MAX),
    }
}

/// Whether `refusal` says something about mail for `destination` at `relay`.
pub(super) fn concerns(refusal: &Refusal, relay: &ServerName, destination: &ServerName) -> bool {
    refusal.relay == *relay
        && (refusal.full == Some(Fullness::Relay) || refusal.destination == *destination)
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
    use restante_federation_proto::Timestamp;

    use super::*;
    use crate::test_site::name;

    fn concerned(full: Fullness, relay: &str, destination: &str) -> bool {
        let refusal = Refusal {
            relay: name("r.test"),
            destination: name("b.test"),
            reason: String::new(),
            full: Some(full),
            rests_until: None,
            lasting: Lasting::Temporary,
            at: Timestamp::EPOCH,
        };
        concerns(&refusal, &name(relay), &name(destination))
    }

    #[test]
    fn a_full_relay_rests_for_all_and_a_full_mailbox_for_its_owner() {
        for full in [Fullness::Mailbox, Fullness::Share] {
            assert!(concerned(full, "r.test", "b.test"));
            assert!(!concerned(full, "r.test", "c.test"));
        }
        assert!(concerned(Fullness::Relay, "r.test", "c.test"));
        assert!(!concerned(Fullness::Relay, "other.test", "b.test"));
    }

    #[test]
    fn a_relay_by_a_strangers_word_rests_whenever_it_took_nothing_and_longer_when_it_refused() {
        let rest = |lasting| rest_of_strangers(NamedBy::Stranger, lasting);
        assert!(rest(Lasting::Temporary) < rest(Lasting::Permanent));
        assert_eq!(rest(Lasting::Permanent), Some(REST_MAX));
        assert_eq!(rest_of_strangers(NamedBy::Operator, Lasting::Permanent), None);
    }

    #[test]
    fn no_relay_rests_for_ever_or_for_no_time() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(Duration::ZERO), REST_MIN);
        assert_eq!(rest(seconds(60)), seconds(60));
        assert_eq!(rest(Duration::MAX), REST_MAX);
    }
}
