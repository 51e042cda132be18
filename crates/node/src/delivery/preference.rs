//! Decides with whose relays a transaction is left: the destination's, which hold it until that calls, or our own outgoing ones, which
//! call the destination.
//!
//! Pure: the shell in `delivery.rs` asks for one step after the other until one of the relays takes it.

use std::collections::BTreeMap;

use restante_federation::Peer;
use restante_federation_proto::ServerName;

use crate::config::{DeliverySection, Preference};

/// The operator's choices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preferences {
    usual: Preference,
    of: BTreeMap<ServerName, Preference>,
}

/// Relays that are asked at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// To keep it for the destination.
    pub(crate) to_keep: Vec<Peer>,
    /// To deliver it onward.
    pub(crate) to_deliver: Vec<Peer>,
}

impl From<&DeliverySection> for Preferences {
    fn from(section: &DeliverySection) -> Self {
        Self { usual: section.prefer, of: section.prefer_for.clone() }
    }
}

impl Preferences {
    /// For mail to `destination`.
    pub(crate) fn of(&self, destination: &ServerName) -> Preference {
        self.of.get(destination).copied().unwrap_or(self.usual)
    }

    /// The same for one of which the operator says that it has no relay.
    pub(crate) fn of_one_without_relays(&self, destination: &ServerName) -> Preference {
        self.of.get(destination).copied().unwrap_or(Preference::Never)
    }
}

impl Places {
    /// Before the destination's relays are looked for; `known` are those that are known anyway.
    pub(crate) fn first(preference: Preference, known: &[Peer], outgoing: &[Peer]) -> Self {
        match preference {
            Preference::Sender => Self::apart(&[], known, outgoing),
            Preference::Recipient | Preference::Both | Preference::Never => Self::default(),
        }
    }

    /// With the destination's relays.
    pub(crate) fn second(preference: Preference, relays: Vec<Peer>, outgoing: &[Peer]) -> Self {
        match preference {
            Preference::Both => Self::apart(&relays, &relays, outgoing),
            Preference::Recipient | Preference::Sender | Preference::Never => {
                Self { to_keep: relays, to_deliver: Vec::new() }
            }
        }
    }

    /// When the destination's relays, which are `tried`, did not take it.
    pub(crate) fn last(preference: Preference, tried: &[Peer], outgoing: &[Peer]) -> Self {
        match preference {
            Preference::Recipient => {
                let Self { to_deliver, .. } = Self::apart(&[], tried, outgoing);
                Self { to_keep: Vec::new(), to_deliver }
            }
            Preference::Sender | Preference::Both | Preference::Never => Self::default(),
        }
    }

    /// `to_keep`, and those of `outgoing` to deliver it; one that is the destination's as well keeps it, since it would not deliver it:
    /// the destination collects there.
    fn apart(to_keep: &[Peer], of_destination: &[Peer], outgoing: &[Peer]) -> Self {
        let is_of_both =
            |relay: &&Peer| of_destination.iter().any(|known| known.name == relay.name);
        let (both, to_deliver): (Vec<&Peer>, Vec<&Peer>) = outgoing.iter().partition(is_of_both);
        let mut to_keep = to_keep.to_vec();
        for relay in both {
            if to_keep.iter().all(|known| known.name != relay.name) {
                to_keep.push(relay.clone());
            }
        }
        Self { to_keep, to_deliver: to_deliver.into_iter().cloned().collect() }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.to_keep.is_empty() && self.to_deliver.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(names: &[&str]) -> Vec<Peer> {
        names.iter().map(|name| Peer::new(name.parse().unwrap(), None)).collect()
    }

    fn places(to_keep: &[&str], to_deliver: &[&str]) -> Places {
        Places { to_keep: relays(to_keep), to_deliver: relays(to_deliver) }
    }

    #[test]
    fn usually_our_own_relays_are_the_last_resort() {
        let (theirs, ours) = (relays(&["r.test", "both.test"]), relays(&["o.test", "both.test"]));
        let prefer = Preference::Recipient;
        assert!(Places::first(prefer, &theirs, &ours).are_none());
        let second = Places::second(prefer, theirs.clone(), &ours);
        assert_eq!(second, places(&["r.test", "both.test"], &[]));
        assert_eq!(Places::last(prefer, &theirs, &ours), places(&[], &["o.test"]));
        assert!(Places::last(prefer, &theirs, &[]).are_none());
    }

    #[test]
    fn who_prefers_the_senders_relays_asks_them_first_and_then_the_recipients() {
        let (theirs, ours) = (relays(&["r.test", "both.test"]), relays(&["o.test", "both.test"]));
        let prefer = Preference::Sender;
        let first = Places::first(prefer, &theirs, &ours);
        assert_eq!(first, places(&["both.test"], &["o.test"]));
        let second = Places::second(prefer, theirs.clone(), &ours);
        assert_eq!(second, places(&["r.test", "both.test"], &[]));
        assert!(Places::last(prefer, &theirs, &ours).are_none());
    }

    #[test]
    fn both_are_asked_at_once_and_one_that_is_both_is_asked_once() {
        let (theirs, ours) = (relays(&["r.test", "both.test"]), relays(&["o.test", "both.test"]));
        let prefer = Preference::Both;
        assert!(Places::first(prefer, &theirs, &ours).are_none());
        let second = Places::second(prefer, theirs.clone(), &ours);
        assert_eq!(second, places(&["r.test", "both.test"], &["o.test"]));
        assert_eq!(
            Places::second(prefer, Vec::new(), &ours),
            places(&[], &["o.test", "both.test"])
        );
        assert!(Places::last(prefer, &theirs, &ours).are_none());
    }

    #[test]
    fn who_never_wants_them_asks_the_recipients_relays_alone() {
        let (theirs, ours) = (relays(&["r.test", "both.test"]), relays(&["o.test", "both.test"]));
        let prefer = Preference::Never;
        assert!(Places::first(prefer, &theirs, &ours).are_none());
        let second = Places::second(prefer, theirs.clone(), &ours);
        assert_eq!(second, places(&["r.test", "both.test"], &[]));
        assert!(Places::second(prefer, Vec::new(), &ours).are_none());
        assert!(Places::last(prefer, &theirs, &ours).are_none());
    }

    #[test]
    fn mail_for_one_without_relays_stays_at_home_unless_there_is_a_word_for_just_that_one() {
        let preferences = Preferences {
            usual: Preference::Sender,
            of: BTreeMap::from([("b.test".parse().unwrap(), Preference::Both)]),
        };
        let of = |name: &str| preferences.of_one_without_relays(&name.parse().unwrap());
        assert_eq!((of("b.test"), of("c.test")), (Preference::Both, Preference::Never));
    }

    #[test]
    fn one_destination_may_be_treated_otherwise() {
        let preferences = Preferences {
            usual: Preference::Recipient,
            of: BTreeMap::from([("b.test".parse().unwrap(), Preference::Both)]),
        };
        assert_eq!(preferences.of(&"b.test".parse().unwrap()), Preference::Both);
        assert_eq!(preferences.of(&"c.test".parse().unwrap()), Preference::Recipient);
    }
}
