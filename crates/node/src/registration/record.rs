//! Decides what the own relay record says: which relays, and as which version.
//!
//! Pure: the caller passes the time.

use std::time::Duration;

use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::RECORD_RELAYS_MAX;
use restante_relay_api::{RecordedRelay, RelayRecord, VERSION_AHEAD_MAX};

/// With which key the record before was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedWith {
    /// The one that is in use.
    PresentKey,
    /// One that was in use: relays take the new signature only with a new version.
    EarlierKey,
}

/// The record of `own` that names `relays`, in their order. The one `before` stays for as long as it says the same, so
/// that all relays hold one version; another has a higher version, whatever the clock says. One from the future, made
/// while the clock was wrong, is taken by nobody and counts as none.
pub(super) fn record(
    own: &ServerName,
    relays: &[Peer],
    before: Option<(RelayRecord, SignedWith)>,
    now: Timestamp,
) -> RelayRecord {
    let relays: Vec<RecordedRelay> = (0..)
        .zip(relays.iter().take(RECORD_RELAYS_MAX))
        .map(|(priority, relay)| RecordedRelay {
            server_name: relay.name.clone(),
            url: relay.url.as_ref().map(ToString::to_string),
            priority,
        })
        .collect();
    let counts = |(before, _): &(RelayRecord, SignedWith)| {
        before.server_name == *own && before.version <= now.after(VERSION_AHEAD_MAX)
    };
    match before.filter(counts) {
        Some((before, SignedWith::PresentKey)) if before.relays == relays => before,
        before => {
            let next = before.map(|(before, _)| before.version.after(Duration::from_millis(1)));
            let version = next.map_or(now, |next| next.max(now));
            RelayRecord { server_name: own.clone(), relays, version }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn own() -> ServerName {
        "b.test".parse().unwrap()
    }

    fn peers(names: &[&str]) -> Vec<Peer> {
        names.iter().map(|name| Peer::from(name.parse::<ServerName>().unwrap())).collect()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_record_stays_until_it_says_something_else_and_then_its_version_grows() {
        let first = record(&own(), &peers(&["r1.test"]), None, at(100));
        assert_eq!(first.version, at(100));
        let before = |record: &RelayRecord, key| Some((record.clone(), key));
        let ours = before(&first, SignedWith::PresentKey);
        let same = record(&own(), &peers(&["r1.test"]), ours.clone(), at(900));
        assert_eq!(same, first);
        let second = record(&own(), &peers(&["r1.test", "r2.test"]), ours, at(50));
        assert_eq!((second.version, second.relays.len()), (at(101), 2));
        let ours = before(&second, SignedWith::PresentKey);
        assert_eq!(record(&own(), &[], ours, at(500)).version, at(500));
        let changed = before(&first, SignedWith::EarlierKey);
        assert_eq!(record(&own(), &peers(&["r1.test"]), changed, at(100)).version, at(101));
    }

    #[test]
    fn a_record_from_the_time_when_the_clock_was_wrong_counts_as_none() {
        let now = at(1_000).after(DAY);
        let far = record(&own(), &peers(&["r1.test"]), None, now.after(2 * DAY));
        assert_eq!(
            record(&own(), &peers(&["r1.test"]), Some((far, SignedWith::PresentKey)), now).version,
            now
        );
    }

    #[test]
    fn another_servers_record_counts_as_none_and_no_more_relays_are_named_than_allowed() {
        let other = record(&"c.test".parse().unwrap(), &[], None, at(900));
        let names: Vec<String> = (0..40).map(|n| format!("r{n}.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let other = Some((other, SignedWith::PresentKey));
        let own = record(&own(), &peers(&names), other, at(100));
        assert_eq!((own.version, own.relays.len()), (at(100), RECORD_RELAYS_MAX));
    }
}
