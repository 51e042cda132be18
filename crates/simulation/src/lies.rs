//! What a relay that does not keep its promises makes of its answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use restante_relay_api::{CollectResponse, Content, WireEnvelope, hex};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::plan::Manner;

/// For so long a relay that delays gives nothing, and then for so long everything.
const DELAY: Duration = Duration::from_secs(150);

/// Envelopes that a relay which repeats has at hand.
const REPEATED_MAX: usize = 20;

/// A relay's habit.
pub(crate) struct Liar {
    manner: Manner,
    chance: Chance,
    begun: Instant,
    has_repented: AtomicBool,
    given: Mutex<Vec<WireEnvelope>>,
}

impl Liar {
    pub(crate) fn new(manner: Manner, chance: Chance) -> Self {
        Self {
            manner,
            chance,
            begun: Instant::now(),
            has_repented: AtomicBool::new(false),
            given: Mutex::default(),
        }
    }

    /// From now on it keeps what it takes, and gives it as it is.
    pub(crate) fn repent(&self) {
        self.has_repented.store(true, Ordering::SeqCst);
    }

    fn has_repented(&self) -> bool {
        self.has_repented.load(Ordering::SeqCst)
    }

    /// Whether what it took reaches its recipient in the end.
    pub(crate) fn keeps_mail(&self) -> bool {
        self.has_repented()
            || matches!(
                self.manner,
                Manner::Honest | Manner::Repeats | Manner::Reorders | Manner::Delays
            )
    }

    /// Whether it says 200 to a deposit and forgets it.
    pub(crate) fn swallows(&self) -> bool {
        !self.has_repented() && self.manner == Manner::Swallows && self.chance.happens(600)
    }

    /// Its answer to a collect, in the place of the honest one.
    pub(crate) fn answer(&self, honest: Bytes) -> Bytes {
        if self.manner == Manner::Honest || self.has_repented() {
            return honest;
        }
        let Ok(mut answer) = CollectResponse::parse(&honest) else { return honest };
        match self.manner {
            Manner::AltersEvents => self.alter(&mut answer, r#""body":""#),
            Manner::AltersEdus => self.alter(&mut answer, r#""text":""#),
            Manner::Withholds => answer.envelopes.retain(|envelope| !is_withheld(envelope)),
            Manner::Repeats => self.repeat(&mut answer),
            Manner::Reorders => self.reorder(&mut answer),
            Manner::Delays
                if (self.begun.elapsed().as_secs() / DELAY.as_secs()).is_multiple_of(2) =>
            {
                answer.envelopes.clear();
            }
            Manner::Delays | Manner::Swallows | Manner::Honest => {}
        }
        answer.to_json()
    }

    fn alter(&self, answer: &mut CollectResponse, before: &str) {
        for envelope in &mut answer.envelopes {
            let content = String::from_utf8_lossy(&envelope.content).into_owned();
            let altered = content.replace(before, &format!("{before}forged "));
            if altered != content && self.chance.happens(700) {
                let altered = Bytes::from(altered);
                // A relay that lies says the hash of its lie.
                if let Ok(content) = Content::parse(altered.clone()) {
                    envelope.sha256 = hex(content.sha256());
                    envelope.content = altered;
                }
            }
        }
    }

    /// Old envelopes under ids of this answer's, so that their order holds.
    fn repeat(&self, answer: &mut CollectResponse) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = answer.envelopes.clone();
        if let Some(last) = fresh.last().map(|envelope| envelope.id) {
            let old = given.iter().filter(|_| self.chance.happens(400)).cloned();
            let old = (last + 1..).zip(old).map(|(id, envelope)| WireEnvelope { id, ..envelope });
            answer.envelopes.extend(old);
        }
        given.extend(fresh);
        let excess = given.len().saturating_sub(REPEATED_MAX);
        given.drain(..excess);
    }

    fn reorder(&self, answer: &mut CollectResponse) {
        let ids: Vec<u64> = answer.envelopes.iter().map(|envelope| envelope.id).collect();
        let mut shuffled: BTreeMap<u64, WireEnvelope> = BTreeMap::new();
        for envelope in answer.envelopes.drain(..) {
            shuffled.insert(restante_federation_proto::Dice::number(&self.chance), envelope);
        }
        let envelopes = ids.into_iter().zip(shuffled.into_values());
        answer.envelopes =
            envelopes.map(|(id, envelope)| WireEnvelope { id, ..envelope }).collect();
    }
}

/// Always the same ones.
fn is_withheld(envelope: &WireEnvelope) -> bool {
    envelope.sha256.as_bytes().first().is_some_and(|digit| digit % 3 == 0)
}
