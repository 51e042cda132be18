//! The operator's choices that handlers need; all of them can be changed while the relay runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use restante_federation::DestinationRule;
use restante_mailbox::{EnvelopeAge, MailboxLimits, OnwardLimits, Quotas};
use restante_relay_api::limits::AHEAD_MAX;

use crate::admission::{OutgoingRule, ServedRule};
use crate::arrivals::WaitingLimits;
use crate::config::{OnwardSection, RelayConfig};
use crate::onward::Backoff;
use crate::rates::Rate;

/// One set of choices.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) body_bytes_max: usize,
    pub(crate) age: EnvelopeAge,
    pub(crate) destination: DestinationRule,
    pub(crate) served: ServedRule,
    pub(crate) quotas: Quotas,
    pub(crate) storage: StorageRules,
    pub(crate) onward: OnwardRules,
    /// How long a server may be silent until what it has here lapses.
    pub(crate) lapse_after: Duration,
    pub(crate) waiting: WaitingLimits,
    pub(crate) rates: RateRules,
}

/// Bounds of the relay as a whole beside its [`Quotas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageRules {
    /// Mailboxes beyond which only registered servers get one.
    pub(crate) mailboxes_max: u64,
    pub(crate) free_disk_bytes_min: u64,
}

/// Whose mail is delivered onward, how much of it, and when.
#[derive(Debug, Clone)]
pub(crate) struct OnwardRules {
    pub(crate) served: OutgoingRule,
    /// Of one origin to all destinations, and of all mailboxes that are there for nothing else.
    pub(crate) limits: OnwardLimits,
    /// Of one origin, to one destination.
    pub(crate) destination: MailboxLimits,
    pub(crate) backoff: Backoff,
    pub(crate) pause_after_return: Duration,
}

/// Less would end registrations of servers that are away for a week, as homeservers may be.
pub const LAPSE_AFTER_LEAST: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often callers may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateRules {
    /// By address, before a request is looked at.
    pub(crate) address: Rate,
    /// By server, once its signature is verified.
    pub(crate) origin: Rate,
    /// By address, with servers that are not known yet.
    pub(crate) newcomers: Rate,
}

impl Rules {
    pub(crate) fn of(config: &RelayConfig) -> Self {
        let (limits, mailbox, storage) = (&config.limits, &config.mailbox, &config.storage);
        let bounds = |envelopes_max, bytes_max| MailboxLimits { envelopes_max, bytes_max };
        Self {
            body_bytes_max: limits.body_bytes_max,
            age: EnvelopeAge { time_to_live: mailbox.time_to_live.0, ahead_max: AHEAD_MAX },
            destination: DestinationRule::of(&config.federation),
            served: ServedRule { serve: config.serve, listed: config.listed.clone() },
            quotas: Quotas {
                mailbox: bounds(mailbox.envelopes_max, mailbox.bytes_max),
                origin: bounds(mailbox.origin_envelopes_max, mailbox.origin_bytes_max),
                relay: bounds(storage.total_envelopes_max, storage.total_bytes_max),
                mailboxes_max: u64::MAX,
                onward: OnwardLimits::UNBOUNDED,
            },
            onward: onward(&config.onward),
            storage: StorageRules {
                mailboxes_max: storage.mailboxes_max,
                free_disk_bytes_min: storage.free_disk_bytes_min,
            },
            lapse_after: mailbox.lapse_after.0.max(LAPSE_AFTER_LEAST),
            waiting: WaitingLimits {
                in_all: limits.waiting_collects_max,
                per_mailbox: limits.waiting_collects_per_mailbox_max,
                per_address: limits.waiting_collects_per_address_max,
            },
            rates: RateRules {
                address: Rate {
                    number: limits.requests_per_address_per_second,
                    period: Duration::from_secs(1),
                    burst: limits.requests_per_address_burst,
                },
                origin: Rate {
                    number: limits.requests_per_origin_per_second,
                    period: Duration::from_secs(1),
                    burst: limits.requests_per_origin_burst,
                },
                newcomers: Rate {
                    number: limits.newcomers_per_address_per_minute,
                    period: Duration::from_secs(60),
                    burst: limits.newcomers_per_address_per_minute,
                },
            },
        }
    }
}

fn onward(section: &OnwardSection) -> OnwardRules {
    let bounds = |envelopes_max, bytes_max| MailboxLimits { envelopes_max, bytes_max };
    OnwardRules {
        served: match section.enabled {
            true => OutgoingRule::LetInAnd(section.origins.clone()),
            false => OutgoingRule::Nobody,
        },
        limits: OnwardLimits {
            origin: bounds(section.origin_envelopes_max, section.origin_bytes_max),
            destinations_max: section.origin_destinations_max,
            mailboxes_max: section.mailboxes_max,
        },
        destination: bounds(section.destination_envelopes_max, section.destination_bytes_max),
        backoff: Backoff { first: section.retry_after_first.0, max: section.retry_after_max.0 },
        pause_after_return: section.pause_after_return.0,
    }
}

/// The rules that hold at present.
pub(crate) struct RulesInForce(RwLock<Arc<Rules>>);

impl RulesInForce {
    pub(crate) fn new(rules: Rules) -> Self {
        Self(RwLock::new(Arc::new(rules)))
    }

    /// What one request goes by, from beginning to end.
    pub(crate) fn current(&self) -> Arc<Rules> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that begin from here on go by `rules`.
    pub(crate) fn replace(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}
