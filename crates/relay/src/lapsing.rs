//! Ends registrations whose servers are silent, and removes empty mailboxes that nobody needs: in an open relay anybody can
//! make up either, and what is made up must not stay for ever.
//!
//! What an operator listed or an invite admitted never lapses, and nothing that holds mail is removed.

use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_mailbox::{Lapse, Lapsed};

use crate::config::Serve;
use crate::rules::Rules;
use crate::state::RelayState;

/// How often to look: what lapses does so after many days.
const INTERVAL: Duration = Duration::from_secs(3600);

/// How long a relay runs before registrations lapse: while it was off nobody could call, and nodes renew daily.
const UP_MIN: Duration = Duration::from_secs(48 * 3600);

/// Mailboxes per step: a few milliseconds of the writer, if all of them go.
const BATCH_MAX: usize = 100;

/// Registrations that a round names in the log one by one.
const LOGGED_MAX: usize = 20;

/// Runs until the relay stops.
pub(crate) async fn run(relay: RelayState) {
    while !relay.shutdown.is_cancelled() {
        round(&relay).await;
        tokio::select! {
            biased;
            () = relay.shutdown.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Looks at all mailboxes once.
async fn round(relay: &RelayState) {
    let lapse = lapse(&relay.rules(), relay.started.up(), relay.clock.now());
    let mut whole = Lapsed::default();
    while !relay.shutdown.is_cancelled() {
        let registrations = &relay.admission.registrations;
        match registrations.lapse(&lapse, whole.last.as_ref(), BATCH_MAX).await {
            Ok(step) => {
                whole.registrations.extend(step.registrations);
                whole.mailboxes.extend(step.mailboxes);
                whole.last = step.last;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "lapsing stopped; it goes on later");
                break;
            }
        }
        if whole.last.is_none() {
            break;
        }
    }
    tell(relay, &whole);
}

fn tell(relay: &RelayState, lapsed: &Lapsed) {
    let (registrations, mailboxes) = (&lapsed.registrations, &lapsed.mailboxes);
    relay.counted.lapsed(registrations.len() as u64, mailboxes.len() as u64);
    for server in registrations.iter().take(LOGGED_MAX) {
        tracing::info!(mailbox = %server, "a registration has lapsed: its server was silent for too long");
    }
    if !registrations.is_empty() || !mailboxes.is_empty() {
        let (registrations, mailboxes) = (registrations.len(), mailboxes.len());
        tracing::info!(
            registrations.lapsed = registrations,
            mailboxes.removed = mailboxes,
            "lapse"
        );
    }
}

/// Where an invite is needed, whoever lost its registration could not come back.
fn lapse(rules: &Rules, up: Duration, now: Timestamp) -> Lapse {
    let before = now.before(rules.lapse_after);
    let called_before = match rules.served.serve {
        Serve::Open if up >= UP_MIN => before,
        Serve::Open | Serve::Invited | Serve::Listed => Timestamp::EPOCH,
    };
    Lapse { called_before, unused_before: before, now, spared: rules.served.listed.clone().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RelayConfig;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn of(config: &str) -> Lapse {
        let config: RelayConfig = toml::from_str(config).unwrap();
        lapse(&Rules::of(&config), UP_MIN, NOW)
    }

    #[test]
    fn no_registration_lapses_for_the_time_that_the_relay_was_off() {
        let rules = Rules::of(&RelayConfig::default());
        let just_before = UP_MIN.saturating_sub(Duration::from_millis(1));
        assert_eq!(lapse(&rules, just_before, NOW).called_before, Timestamp::EPOCH);
        assert!(lapse(&rules, UP_MIN, NOW).called_before > Timestamp::EPOCH);
    }

    #[test]
    fn registrations_lapse_in_an_open_relay_alone_and_after_the_time_that_is_configured() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(of("").called_before, NOW.before(day * 90));
        assert_eq!(of("[mailbox]\nlapse_after = \"30d\"").called_before, NOW.before(day * 30));
        assert_eq!(of("[mailbox]\nlapse_after = \"1s\"").called_before, NOW.before(day * 7));
        for serve in ["invited", "listed"] {
            let lapse = of(&format!("serve = \"{serve}\""));
            assert_eq!(
                (lapse.called_before, lapse.unused_before),
                (Timestamp::EPOCH, NOW.before(day * 90))
            );
        }
    }
}
