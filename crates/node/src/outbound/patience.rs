//! Decides how long a call that is passed through may take: less than the homeserver waits.
//!
//! Pure. A homeserver that gives up by itself backs off from the server for ten minutes; one that is answered in time
//! does not.

use std::time::Duration;

use restante_federation::Patience;

/// Synapse gives clients' key look-ups ten seconds.
const HURRIED: Patience =
    Patience { connect: Duration::from_secs(4), answer: Duration::from_secs(5) };

/// Synapse gives everything else sixty seconds.
const ORDINARY: Patience =
    Patience { connect: Duration::from_secs(8), answer: Duration::from_secs(48) };

/// Looking a server's own keys up is only half of a look-up that has ten seconds.
pub(crate) const KEYS: Patience =
    Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(3) };

/// The other half: asking those who vouch for its keys.
pub(crate) const KEYS_ELSEWHERE: Duration = Duration::from_secs(3);

/// The patience for a call to `target`.
pub(crate) fn patience(target: &str) -> Patience {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let hurried = ["/user/keys/query", "/user/keys/claim", "/publicRooms"];
    if hurried.iter().any(|end| path.ends_with(end)) { HURRIED } else { ORDINARY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(patience: Patience) -> Duration {
        patience.connect + patience.answer
    }

    #[test]
    fn every_call_ends_before_the_homeserver_gives_up() {
        for target in
            ["/_matrix/federation/v1/user/keys/query", "/_matrix/federation/v1/publicRooms?limit=1"]
        {
            assert!(total(patience(target)) < Duration::from_secs(10));
        }
        assert!(
            total(patience("/_matrix/federation/v2/send_join/!r/$e")) < Duration::from_secs(60)
        );
        assert!(total(KEYS) + KEYS_ELSEWHERE < Duration::from_secs(10));
    }
}
