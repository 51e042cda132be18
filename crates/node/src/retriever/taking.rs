//! Takes what a relay gave into the inbox: each envelope judged, and durable before it is acknowledged anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_relay_api::{CollectAcknowledgement, MailDigest, RequestId, WireEnvelope, hex};
use tokio::time::{Instant, timeout_at};

use super::relay::RoundError;
use super::{OwnRelay, Retriever};
use crate::inbox::Arrival;
use crate::inbox::mail::{Mail, Standing};
use crate::inbox::verification::{ARRIVAL_KEY_WAIT, Incoming, judge};
use crate::store::seen::TransactionKey;

/// Envelopes of one origin that are judged at once; all origins of an answer are.
const JUDGED_AT_ONCE: usize = 8;

/// How often what is judged is stored while the rest of an answer is not: a durable write for each would be slow.
const STORED_EVERY: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Taken {
    /// What is durable here.
    pub(super) durable: Vec<CollectAcknowledgement>,
    /// Whether any of it was not there before.
    pub(super) is_anything_new: bool,
}

/// An envelope that was judged, by the relay's id.
struct Judged {
    id: u64,
    mail: Mail,
}

/// Judges and stores a batch; only what is durable may be acknowledged. Each origin's envelopes are stored in their
/// order, and those of an origin whose key is looked for far away do not keep the others from being durable.
pub(super) async fn take(
    retriever: &Retriever,
    relay: &OwnRelay,
    envelopes: Vec<WireEnvelope>,
) -> Result<Taken, RoundError> {
    let until = Instant::now() + ARRIVAL_KEY_WAIT;
    let judging = by_origin(envelopes).into_values().map(|envelopes| {
        let judging = envelopes.into_iter().map(|envelope| async move {
            let (id, incoming) = incoming(&relay.peer, envelope);
            Judged { id, mail: judge(&retriever.site, incoming, until).await }
        });
        stream::iter(judging).buffered(JUDGED_AT_ONCE).boxed()
    });
    let mut judging = stream::select_all(judging);
    let (mut taken, mut judged) = (Taken::default(), Vec::new());
    let mut due = Instant::now() + STORED_EVERY;
    loop {
        let next = timeout_at(due, judging.next()).await;
        if let Ok(Some(next)) = next {
            judged.push(next);
            continue;
        }
        store(retriever, relay, std::mem::take(&mut judged), &mut taken).await?;
        if next.is_ok() {
            return Ok(taken);
        }
        due = Instant::now() + STORED_EVERY;
    }
}

fn by_origin(envelopes: Vec<WireEnvelope>) -> BTreeMap<ServerName, Vec<WireEnvelope>> {
    let mut by_origin: BTreeMap<ServerName, Vec<WireEnvelope>> = BTreeMap::new();
    for envelope in envelopes {
        by_origin.entry(envelope.origin.clone()).or_default().push(envelope);
    }
    by_origin
}

fn incoming(relay: &Peer, envelope: WireEnvelope) -> (u64, Incoming) {
    let incoming = Incoming {
        origin: envelope.origin,
        txn_id: Some(envelope.txn_id),
        content: envelope.content,
        extras: envelope.extras,
        source: relay.name.to_string(),
    };
    (envelope.id, incoming)
}

/// Stores in one durable write.
async fn store(
    retriever: &Retriever,
    OwnRelay { peer: relay, seat }: &OwnRelay,
    judged: Vec<Judged>,
    taken: &mut Taken,
) -> Result<(), RoundError> {
    if judged.is_empty() {
        return Ok(());
    }
    let ids: Vec<u64> = judged.iter().map(|judged| judged.id).collect();
    // The hash is of what came, and not what the relay says it is.
    let hashes: Vec<String> = judged.iter().map(|judged| hex(&judged.mail.key.sha256)).collect();
    let mails: Vec<Mail> = judged.into_iter().map(|judged| judged.mail).collect();
    let names: Vec<_> =
        mails.iter().map(|mail| (mail.key.clone(), mail.request_id.clone())).collect();
    let entire: Vec<bool> = mails.iter().map(|mail| mail.is_entire).collect();
    let forged: Vec<bool> =
        mails.iter().map(|mail| matches!(mail.standing, Standing::Forged(_))).collect();
    let arrivals = retriever.inbox.arrive(mails).await?;
    for ((key, id), arrival) in names.iter().zip(&arrivals) {
        if *arrival == Arrival::Stored {
            let (origin, id) = (&key.origin, id.as_ref().map(RequestId::as_str));
            tracing::info!(relay = %relay.name, %origin, txn_id = key.txn_id, delivery.id = id, "collected");
        }
    }
    let own = retriever.site.server_name();
    let here = names.iter().map(|(key, _)| key).zip(entire).zip(arrivals.iter().copied());
    let Here { all, new } =
        Here::of(own, here.map(|((key, is_entire), arrival)| (key, is_entire, arrival)));
    seat.gave(&all, &new);
    let full = arrivals.iter().filter(|arrival| **arrival == Arrival::Full).count();
    if full > 0 {
        tracing::warn!(relay = %relay.name, full, "the inbox has no room; this mail stays at the relay");
        let text = format!("the inbox has no room for {full} envelopes; they stay at the relay");
        retriever.status.failed(&relay.name, &text);
    }
    // A relay can make up as much as it likes, and is not to be asked for it without a pause.
    let is_new = |(arrival, is_forged): (&Arrival, bool)| *arrival == Arrival::Stored && !is_forged;
    taken.is_anything_new |= arrivals.iter().zip(forged).any(is_new);
    let durable = ids.into_iter().zip(hashes).zip(arrivals).filter_map(|((id, hash), arrival)| {
        let is_durable = arrival != Arrival::Full;
        is_durable.then_some(CollectAcknowledgement { id, sha256: Some(hash) })
    });
    taken.durable.extend(durable);
    Ok(())
}

/// What is durable here as its origin's node left it. Only such mail keeps copies away: another relay may hold the true or the
/// whole one of what this one altered or stripped.
#[derive(Debug, Default, PartialEq, Eq)]
struct Here {
    all: BTreeSet<MailDigest>,
    /// What was not there before.
    new: Vec<MailDigest>,
}

impl Here {
    /// Of mail, each with whether it is entire, and what became of it.
    fn of<'a>(
        own: &ServerName,
        mail: impl Iterator<Item = (&'a TransactionKey, bool, Arrival)>,
    ) -> Self {
        let mut here = Self::default();
        for (key, is_entire, arrival) in mail {
            if !is_entire || arrival == Arrival::Full {
                continue;
            }
            if arrival == Arrival::Stored {
                here.new.push(digest(own, key));
            }
            here.all.insert(digest(own, key));
        }
        here
    }
}

/// The digest of mail for the server `own`, by which other relays are told that it is here.
fn digest(own: &ServerName, key: &TransactionKey) -> MailDigest {
    MailDigest::of(own, &key.origin, &key.txn_id, &key.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_here_whole_and_durably_is_told_to_nobody() {
        let key = |txn_id: &str| TransactionKey {
            origin: "a.test".parse().unwrap(),
            txn_id: txn_id.to_owned(),
            sha256: [1; 32],
        };
        let own = "b.test".parse().unwrap();
        let keys = ["new", "known", "full", "stripped"].map(key);
        let became = [
            (true, Arrival::Stored),
            (true, Arrival::Duplicate),
            (true, Arrival::Full),
            (false, Arrival::Stored),
        ];
        let mail = keys.iter().zip(became).map(|(key, (entire, arrival))| (key, entire, arrival));

        let here = Here::of(&own, mail);

        assert_eq!(here.new, [digest(&own, &keys[0])]);
        assert_eq!(here.all, keys[..2].iter().map(|key| digest(&own, key)).collect());
    }
}
