//! Decides what the own relay record says: which relays, and as which version.
//!
//! Pure: the caller passes the time.

use std::net::IpAddr;
use std::time::Duration;

use restante_federation::{AddressPolicy, Peer};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::RECORD_RELAYS_MAX;
use restante_relay_api::{RecordedRelay, RelayRecord, VERSION_AHEAD_MAX};

/// What there was.
#[derive(Debug, Clone, Default)]
pub(super) struct Before {
    /// The record that was made last.
    pub(super) record: Option<(RelayRecord, SignedWith)>,
    /// A version of ours that somebody holds who takes no earlier one.
    pub(super) above: Option<Timestamp>,
}

/// With which key the record before was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignedWith {
    /// The one that is in use.
    PresentKey,
    /// One that was in use: relays take the new signature only with a new version.
    EarlierKey,
}

/// The record of `own` that names `relays`, in their order. The one before stays for as long as it says the same, so
/// that all relays hold one version; another has a higher version, whatever the clock says. One from the future, made
/// while the clock was wrong, is taken by nobody and counts as none.
pub(super) fn record(
    own: &ServerName,
    relays: &[Peer],
    before: Before,
    now: Timestamp,
) -> RelayRecord {
    let relays: Vec<RecordedRelay> = (0..)
        .zip(relays.iter().take(RECORD_RELAYS_MAX))
        .map(|(priority, relay)| RecordedRelay {
            server_name: relay.name.clone(),
            url: relay.url.as_ref().filter(|_| !is_private(relay)).map(ToString::to_string),
            priority,
        })
        .collect();
    let counts = |version: &Timestamp| *version < now.after(VERSION_AHEAD_MAX);
    let above = before.above.filter(counts);
    let last = before.record.filter(|(last, _)| last.server_name == *own && counts(&last.version));
    match last {
        Some((last, SignedWith::PresentKey))
            if last.relays == relays && above.is_none_or(|above| above < last.version) =>
        {
            last
        }
        last => {
            let last = last.map(|(last, _)| last.version);
            let next = last.max(above).map(|version| version.after(Duration::from_millis(1)));
            let version = next.map_or(now, |next| next.max(now));
            RelayRecord { server_name: own.clone(), relays, version }
        }
    }
}

/// Whether our way to a relay is one that nobody else can go, beside the way by its name: `localhost` or an address that is
/// denied to strangers. Others would go there and not by the name, in vain, and learn what our network looks like.
pub fn is_private(relay: &Peer) -> bool {
    let Some(url) = &relay.url else { return false };
    let address = |host: &str| -> Option<IpAddr> {
        host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    };
    let host = url.host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = host == "localhost" || host.ends_with(".localhost");
    let is_denied = address(&host).is_some_and(|host| !AddressPolicy::default().allows(host));
    let has_dns_name = relay.name.public_key().is_none() && address(relay.name.host()).is_none();
    (is_local || is_denied) && has_dns_name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    fn last(record: &RelayRecord, key: SignedWith) -> Before {
        Before { record: Some((record.clone(), key)), above: None }
    }

    #[test]
    fn a_record_stays_until_it_says_something_else_and_then_its_version_grows() {
        let first = record(&own(), &peers(&["r1.test"]), Before::default(), at(100));
        assert_eq!(first.version, at(100));
        let ours = last(&first, SignedWith::PresentKey);
        let same = record(&own(), &peers(&["r1.test"]), ours.clone(), at(900));
        assert_eq!(same, first);
        let second = record(&own(), &peers(&["r1.test", "r2.test"]), ours, at(50));
        assert_eq!((second.version, second.relays.len()), (at(101), 2));
        let ours = last(&second, SignedWith::PresentKey);
        assert_eq!(record(&own(), &[], ours, at(500)).version, at(500));
        let changed = last(&first, SignedWith::EarlierKey);
        assert_eq!(record(&own(), &peers(&["r1.test"]), changed, at(100)).version, at(101));
    }

    #[test]
    fn a_record_that_somebody_knows_a_newer_one_of_gets_a_version_above_it() {
        let restored = record(&own(), &peers(&["r1.test"]), Before::default(), at(100));
        let above =
            |above| Before { above: Some(at(above)), ..last(&restored, SignedWith::PresentKey) };
        let next = |above| record(&own(), &peers(&["r1.test"]), above, at(200)).version;
        assert_eq!((next(above(700)), next(above(150))), (at(701), at(200)));
        assert_eq!((next(above(100)), next(above(99))), (at(200), at(100)));
        let wrong_clock = at(201).after(DAY).as_millis();
        assert_eq!(next(above(wrong_clock)), at(100), "nobody holds on to that");
    }

    #[test]
    fn a_way_that_only_we_can_go_is_not_published_where_the_name_is_another() {
        let of_key = restante_federation_proto::SigningKey::from_seed(
            "ed25519:1".parse().unwrap(),
            &[1; 32],
        );
        let of_key = ServerName::of_key(&of_key.public_key());
        for (name, url, is_published) in [
            ("r.test", "https://r.test:8090", true),
            ("r.test", "http://1.1.1.1:8090", true),
            ("r.test", "http://10.0.0.7:8090", false),
            ("r.test:8448", "http://[fd00::7]:8090", false),
            ("r.test", "http://127.0.0.1:8090", false),
            ("r.test", "http://LocalHost:8090", false),
            ("10.0.0.7", "http://10.0.0.7:8090", true),
            (of_key.as_str(), "http://10.0.0.7:8090", true),
        ] {
            let relay = Peer::new(name.parse().unwrap(), Some(url.parse().unwrap()));
            let made = record(&own(), &[relay], Before::default(), at(1));
            assert_eq!(made.relays[0].url.is_some(), is_published, "{name} {url}");
            assert_eq!(made.relays[0].server_name.as_str(), name);
        }
    }

    #[test]
    fn a_record_from_the_time_when_the_clock_was_wrong_counts_as_none() {
        let now = at(1_000).after(DAY);
        let far = record(&own(), &peers(&["r1.test"]), Before::default(), now.after(2 * DAY));
        let far = last(&far, SignedWith::PresentKey);
        assert_eq!(record(&own(), &peers(&["r1.test"]), far, now).version, now);
    }

    #[test]
    fn another_servers_record_counts_as_none_and_no_more_relays_are_named_than_allowed() {
        let other = record(&"c.test".parse().unwrap(), &[], Before::default(), at(900));
        let names: Vec<String> = (0..40).map(|n| format!("r{n}.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let own = record(&own(), &peers(&names), last(&other, SignedWith::PresentKey), at(100));
        assert_eq!((own.version, own.relays.len()), (at(100), RECORD_RELAYS_MAX));
    }

    proptest! {
        #[test]
        fn no_record_is_refused_for_its_version(
            last_at in any::<u32>(), above in prop::option::of(any::<u32>()), now in any::<u32>(), is_other in any::<bool>(),
        ) {
            let first = record(&own(), &peers(&["r.test"]), Before::default(), at(last_at.into()));
            let above = above.map(|above| at(above.into()));
            let before = Before { above, ..last(&first, SignedWith::PresentKey) };
            let names: &[&str] = if is_other { &["s.test"] } else { &["r.test"] };
            let now = at(now.into());
            let made = record(&own(), &peers(names), before, now);
            prop_assert!(made.version <= now.after(VERSION_AHEAD_MAX));
            let counts = |version: &Timestamp| *version < now.after(VERSION_AHEAD_MAX);
            prop_assert!(above.filter(counts).is_none_or(|above| made.version > above));
            let follows = made == first || !counts(&first.version) || made.version > first.version;
            prop_assert!(follows);
        }
    }
}
