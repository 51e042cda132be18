//! Sends a kept copy directly, leaves it with relays again, and carries what the node sends of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use restante_federation_proto::{RequestTarget, ServerName, SignableRequest, canonicalise};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::{DeliveryReceipt, RequestId, hex};
use tokio::time::Instant;

use super::answers::refused_events;
use super::deposits::Deposit;
use super::mail::{Beside, Errand, Mail, Outgoing};
use super::{Attempt, Delivery, Direct, Inner, first_taken, not_left};
use crate::store::outbox::{self, Left};

/// Begins the ids of the node's own transactions: a homeserver's are numbers.
const OWN_TXN_ID: &str = "restante-";

/// What became of a copy that was sent directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resent {
    /// The destination took it.
    Delivered,
    /// It will not take it.
    Refused,
    /// The copy is gone: it was confirmed meanwhile, or made room.
    Gone,
    /// Not now.
    Failed,
}

impl Delivery {
    /// Sends the copy of number `seq` to its destination itself, in its turn, with the number that it has.
    pub(crate) async fn send_copy(&self, destination: &ServerName, seq: u64) -> Resent {
        let inner = &*self.shared;
        let _turn = inner.turns.take(destination).await;
        let Some((mail, left)) = inner.copy(destination, seq).await else { return Resent::Gone };
        let id = RequestId::of(inner.site.dice.number());
        let waybill = mail.waybill(inner.ledger.stream(), &left.place, None, &inner.site.identity);
        let patience = inner.schedule.current().attempt(0, Duration::ZERO);
        let Some(patience) = patience else { return Resent::Failed };
        match inner.attempt(&mail, (Some(&waybill), &id), patience).await {
            Attempt::Ended(Direct::Delivered(answer)) => {
                let refused = refused_events(&answer);
                tokio::join!(
                    inner.enter_delivery(&mail, &left.place, &answer),
                    inner.capsules.delivered(&mail, &refused),
                );
                // Who holds it is known from its line, which is there already.
                if let Ok(line) =
                    inner.ledger.enter(mail.transaction(), inner.site.clock.now()).await
                {
                    inner.withdraw(&mail, &line.holders);
                }
                tracing::info!(%destination, txn_id = mail.txn_id(), seq, delivery.id = %id, "sent directly, since it was not confirmed");
                Resent::Delivered
            }
            Attempt::Ended(Direct::Answered(answer)) => {
                let reason = answer.summary();
                tracing::warn!(%destination, txn_id = mail.txn_id(), seq, delivery.id = %id, reason, "the destination refuses what was left for it");
                inner.give_up(destination, seq, reason).await;
                Resent::Refused
            }
            Attempt::Ended(Direct::Unreachable(_)) | Attempt::Busy(..) => Resent::Failed,
            Attempt::Failed(reason) => {
                tracing::debug!(%destination, txn_id = mail.txn_id(), delivery.id = %id, reason, "a copy was sent in vain");
                inner.count_failure(destination).await;
                Resent::Failed
            }
        }
    }

    /// Leaves the copy of number `seq` with those relays of its destination, or of our own, that are not known to hold it; an error
    /// says why none whose word counts has it.
    pub(crate) async fn leave_copy(
        &self,
        destination: &ServerName,
        seq: u64,
    ) -> Result<(), String> {
        let (inner, begun) = (&*self.shared, Instant::now());
        let _turn = inner.turns.take(destination).await;
        let Some((mail, _)) = inner.copy(destination, seq).await else { return Ok(()) };
        let line = inner.ledger.enter(mail.transaction(), inner.site.clock.now()).await;
        let line = line.map_err(|error| format!("the ledger can't be read ({error})"))?;
        let id = RequestId::of(inner.site.dice.number());
        tracing::info!(%destination, txn_id = mail.txn_id(), seq, delivery.id = %id, "left again, since no relay is known to hold it");
        let unreachable = format!("{destination} does not answer");
        inner.leave_somewhere(&mail, (&line, &id), begun, unreachable).await
    }

    /// Tells `origin` what became of its mail: directly, else by its relays. It has no line in the ledger and no copy: what
    /// is lost of it is told anew when the mail comes again.
    pub(crate) async fn carry_receipt(
        &self,
        origin: &ServerName,
        receipt: &DeliveryReceipt,
    ) -> Result<(), String> {
        let inner = &*self.shared;
        let mail = inner.own_mail(origin, receipt)?;
        let id = RequestId::of(inner.site.dice.number());
        let mut unreachable = format!("{origin} does not answer");
        if inner.site.destinations.reachable(origin).await
            && let Some(patience) = inner.schedule.current().attempt(0, Duration::ZERO)
        {
            unreachable = match inner.attempt(&mail, (None, &id), patience).await {
                Attempt::Ended(Direct::Delivered(_)) => return Ok(()),
                Attempt::Ended(Direct::Answered(answer)) | Attempt::Busy(answer, _) => {
                    return Err(format!("{origin} answered {}", answer.summary()));
                }
                Attempt::Ended(Direct::Unreachable(reason)) => reason,
                Attempt::Failed(reason) => {
                    inner.count_failure(origin).await;
                    reason
                }
            };
        }
        let relays = inner.relays_of(origin, Instant::now()).await;
        let keys = inner.site.own_keys.document().await;
        let record = inner.site.own_record.published();
        let beside = Beside { keys: &keys, capsule: None, record: record.as_ref(), id: &id };
        let body =
            mail.deposit_body(None, &beside, Errand::Keep).map_err(|error| error.to_string())?;
        let deposit = Deposit {
            destination: origin.clone(),
            txn_id: mail.txn_id().to_owned(),
            account: None,
            id: id.clone(),
            target: send_relay_target(mail.txn_id(), origin),
            body,
        };
        let results = inner.deposits.start(deposit.into(), relays);
        let taken = first_taken(vec![results]).await;
        taken.map(drop).map_err(|refusals| not_left(&unreachable, &refusals))
    }
}

impl Inner {
    /// A copy as the mail that it was; one that the disk has altered is given up.
    async fn copy(&self, destination: &ServerName, seq: u64) -> Option<(Mail, Left)> {
        let loaded = outbox::load(&self.site.database, destination.clone(), seq).await;
        let left = loaded.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, seq, "a copy can't be read now");
            None
        })?;
        let mail = left.copy.content().and_then(|content| self.mail_of(&left, content));
        if mail.is_none() {
            tracing::error!(%destination, seq, "a copy of what was left is damaged; check the disk");
            self.give_up(destination, seq, "the copy was altered on this node's disk".to_owned())
                .await;
        }
        Some((mail?, left))
    }

    fn mail_of(&self, left: &Left, body: Bytes) -> Option<Mail> {
        let target: RequestTarget = left.copy.target.parse().ok()?;
        let outgoing = Outgoing {
            destination: left.transaction.destination.clone(),
            txn_id: left.transaction.txn_id.clone(),
            target,
            headers: headers(&left.copy.authorization)?,
            authorization: left.copy.authorization.clone(),
            body,
        };
        Mail::read(outgoing, &self.site.identity).ok()
    }

    async fn give_up(&self, destination: &ServerName, seq: u64, reason: String) {
        let refused = outbox::refused(&self.site.database, destination.clone(), seq, reason);
        if let Err(error) = refused.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, seq, "that a copy was refused can't be kept");
        }
    }

    /// The node's own transaction, signed as the homeserver's.
    fn own_mail(&self, to: &ServerName, receipt: &DeliveryReceipt) -> Result<Mail, String> {
        let (site, own) = (&self.site, self.site.server_name());
        let now = site.clock.now();
        let content = receipt.to_transaction(own, now);
        let content = canonicalise(&content).map_err(|error| error.to_string())?.into_owned();
        // Millisecond and chance: no two receipts have one id, after a restart either.
        let drawn = hex(&site.dice.number().to_be_bytes());
        let txn_id = format!("{OWN_TXN_ID}{}-{drawn}", now.as_millis());
        let target = format!("{SEND}{txn_id}");
        let target: RequestTarget = target.parse().map_err(|error| format!("{error}"))?;
        let signable = SignableRequest {
            method: "PUT",
            target: &target,
            origin: own,
            destination: Some(to),
            content: Some(&content),
        };
        let authorization = signable.sign(&site.identity.key).to_string();
        let headers = headers(&authorization).ok_or("the signature makes no header")?;
        let (destination, body) = (to.clone(), content.into());
        let outgoing = Outgoing { destination, txn_id, target, headers, authorization, body };
        Mail::read(outgoing, &site.identity).map_err(|error| error.to_string())
    }
}

fn headers(authorization: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, authorization.parse().ok()?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(headers)
}
