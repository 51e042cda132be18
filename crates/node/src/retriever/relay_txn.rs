//! Collects from a relay that knows only Dendrite's `relay_txn`: one envelope at a time.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use restante_federation::{Patience, Peer};
use restante_federation_proto::{RequestTarget, ServerName, escape_path_segment, members};
use restante_relay_api::endpoints::{MEMBER_PREFIX, RELAY_TXN, mailbox_user_id};
use tokio::time::Instant;

use super::call::{ANSWER_BYTES_MAX, CONNECT};
use super::relay::{NOTHING_BEFORE_SEEN, RoundError, chain};
use super::{RelayStatus, Retriever};
use crate::backoff::backoff;
use crate::inbox::Arrival;
use crate::inbox::mail::Standing;
use crate::inbox::verification::{ARRIVAL_KEY_WAIT, Incoming, judge};
use crate::relay_call::{Call, CallError, call};

/// Between two looks at an empty mailbox, which such a relay can't tell of by itself.
const POLL: Duration = Duration::from_secs(30);

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// After this many looks the relay is asked again whether it knows `collect`.
const POLLS_MAX: u32 = 120;

/// Envelopes in a row that came before, after which there are pauses: two relays may hold the same mail, but one that
/// gives the same for ever takes no more than its pace.
const KNOWN_IN_A_ROW_MAX: u32 = 100;

/// One envelope, or `None` for an empty mailbox.
type Answer = Option<(u64, Incoming)>;

/// Collects for about an hour.
pub(super) async fn collect(retriever: &Retriever, relay: &Peer) {
    let mut acknowledge = 0;
    let mut failures = 0;
    for _ in 0..POLLS_MAX {
        let pause = match drain(retriever, relay, &mut acknowledge).await {
            Ok(()) => {
                failures = 0;
                POLL
            }
            Err(error) => {
                if matches!(error, RoundError::OutOfOrder) {
                    // The relay may have lost what it numbered.
                    acknowledge = 0;
                }
                failures += 1;
                let text = chain(&error);
                tracing::warn!(relay = %relay.name, failures, "collecting failed and is tried again: {text}");
                retriever.status.failed(&relay.name, &text);
                backoff(
                    failures,
                    POLL,
                    retriever.settings.current().safety_interval.max(POLL),
                    retriever.site.dice.fraction(),
                )
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Takes envelopes until there is none. `acknowledge` is the entry that is durable here and not acknowledged there.
async fn drain(
    retriever: &Retriever,
    relay: &Peer,
    acknowledge: &mut u64,
) -> Result<(), RoundError> {
    let mut known_in_a_row = 0;
    loop {
        let asked_at = retriever.site.clock.now();
        let answer = ask(retriever, relay, *acknowledge).await?;
        let now = retriever.site.clock.now();
        let status = RelayStatus { last_collect_at: Some(now), ..RelayStatus::default() };
        retriever.status.answered(&relay.name, status);
        let Some((entry_id, incoming)) = answer else {
            *acknowledge = 0;
            retriever.inbox.relay_drained(&relay.name, asked_at);
            retriever.site.relays.emptied(&relay.name, asked_at).await;
            return Ok(());
        };
        if entry_id <= *acknowledge {
            return Err(RoundError::OutOfOrder);
        }
        let until = Instant::now() + ARRIVAL_KEY_WAIT;
        let mail = judge(&retriever.site, incoming, until).await;
        let is_forged = matches!(mail.standing, Standing::Forged(_));
        match retriever.inbox.arrive(vec![mail]).await?.as_slice() {
            [Arrival::Full] => {
                // There is no way around an envelope here, so that the others wait behind it.
                let text = "the inbox has no room for the next envelope; it stays at the relay";
                retriever.status.failed(&relay.name, text);
                *acknowledge = 0;
                return Ok(());
            }
            // A relay can make up as much as it likes.
            [Arrival::Stored] if !is_forged => known_in_a_row = 0,
            _ => known_in_a_row += 1,
        }
        *acknowledge = entry_id;
        if known_in_a_row > KNOWN_IN_A_ROW_MAX {
            tokio::time::sleep(NOTHING_BEFORE_SEEN).await;
        }
    }
}

async fn ask(retriever: &Retriever, relay: &Peer, entry_id: u64) -> Result<Answer, CallError> {
    let site = &retriever.site;
    let user_id = escape_path_segment(&mailbox_user_id(site.server_name()));
    let target: RequestTarget = format!("{RELAY_TXN}{user_id}")
        .parse()
        .expect("an escaped segment holds only printable ASCII that may be signed");
    let body = Bytes::from(format!("{{\"entry_id\":{entry_id}}}"));
    let patience = Patience { connect: CONNECT, answer: PATIENCE };
    let asked = Call {
        method: Method::GET,
        target: &target,
        body: Some(body),
        patience,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let answer = call(site, relay, asked).await?;
    parse(&answer, &relay.name).map_err(|reason| CallError::Unreadable(reason.to_owned()))
}

/// Reads an answer; content and members keep their bytes.
fn parse(body: &[u8], relay: &ServerName) -> Result<Answer, &'static str> {
    let members = members(body).map_err(|_| "expected an object")?;
    let member = |name: &str| members.iter().find(|member| member.name == name);
    let number = |name| member(name).and_then(|found| serde_json::from_slice(found.value).ok());
    let queued = member("entries_queued").is_some_and(|queued| queued.value == b"true");
    if !queued {
        return Ok(None);
    }
    let entry_id: u64 = number("entry_id").ok_or("expected a number for entry_id")?;
    let transaction = member("transaction").ok_or("expected a transaction")?;
    let added = members.iter().filter(|member| member.name.starts_with(MEMBER_PREFIX));
    let added: Vec<&[u8]> = added.map(|member| member.raw).collect();
    let extras = match added.as_slice() {
        [] => Bytes::new(),
        added => [b"{".as_slice(), &added.join(&b','), b"}"].concat().into(),
    };
    let content = Bytes::copy_from_slice(transaction.value);
    // The proof, or the transaction, says whose it is.
    let incoming = Incoming {
        origin: relay.clone(),
        txn_id: None,
        content,
        extras,
        source: relay.to_string(),
    };
    Ok(Some((entry_id, incoming)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay() -> ServerName {
        "relay.example".parse().unwrap()
    }

    #[test]
    fn an_empty_mailbox_is_told_from_an_envelope() {
        let empty = br#"{"transaction":{"origin":"","pdus":null},"entries_queued":false}"#;
        assert!(parse(empty, &relay()).unwrap().is_none());
    }

    #[test]
    fn an_envelope_keeps_its_bytes_and_its_members() {
        let body = br#"{"transaction":{"origin":"a", "n":1.0},"entry_id":7,"entries_queued":true,"org.restante.proof":{"uri":"/"},"org.restante.x":1}"#;
        let (entry_id, incoming) = parse(body, &relay()).unwrap().unwrap();
        assert_eq!(entry_id, 7);
        assert_eq!(incoming.content, br#"{"origin":"a", "n":1.0}"#.as_slice());
        let extras = br#"{"org.restante.proof":{"uri":"/"},"org.restante.x":1}"#;
        assert_eq!(incoming.extras, extras.as_slice());
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        for body in
            ["", "[]", r#"{"entries_queued":true}"#, r#"{"entries_queued":true,"entry_id":-1}"#]
        {
            assert!(parse(body.as_bytes(), &relay()).is_err(), "{body}");
        }
    }
}
