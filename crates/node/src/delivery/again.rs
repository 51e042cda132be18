//! Sends a kept copy directly, leaves it with relays again, and carries what the node sends of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use restante_federation::is_about_content;
use restante_federation_proto::{RequestTarget, ServerName, SignableRequest, canonicalise};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_relay_api::{DeliveryReceipt, RequestId, hex};
use tokio::time::Instant;

use super::deposits::Deposit;
use super::leaving::{first_taken, not_left};
use super::ledger::LedgerState;
use super::mail::{Beside, Errand, Mail, Outgoing};
use super::preference::Places;
use super::{Attempt, Delivery, Direct, Inner};
use crate::store::outbox::{self, Left, Vain};

/// Begins the ids of the node's own transactions: a homeserver's are numbers.
const OWN_TXN_ID: &str = "restante-";

/// How long nobody leaves a copy again that is at all relays, or at none that is known.
const NOWHERE: Duration = Duration::from_secs(3600);

/// How long nobody leaves a copy again that could not be left.
const IN_VAIN: Duration = Duration::from_secs(600);

/// What became of a copy that was sent directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resent {
    /// The destination took it.
    Delivered,
    /// It did not.
    InVain(Vain),
    /// The destination wants to be left alone for a while.
    Busy,
    /// The copy is gone: it was confirmed meanwhile, made room, or is damaged.
    Gone,
}

/// What became of a copy that was to be left again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Releft {
    /// A relay took it that did not hold it before.
    Left,
    /// Every relay has it, or none is known.
    Nowhere,
    /// The copy is gone: it was confirmed meanwhile, made room, or is damaged.
    Gone,
    /// No relay took it, for this reason.
    InVain(String),
}

impl Delivery {
    /// Sends the copy of number `seq` to its destination itself, in its turn, with the number that it has.
    pub(crate) async fn send_copy(&self, destination: &ServerName, seq: u64) -> Resent {
        let inner = &*self.shared;
        let Some((mail, left)) = inner.copy(destination, seq).await else { return Resent::Gone };
        let id = RequestId::of(inner.site.dice.number());
        let waybill = mail.waybill(inner.ledger.stream(), &left.place, None, &inner.site.identity);
        let patience = inner.schedule.current().attempt(0, Duration::ZERO);
        let Some(patience) = patience else { return Resent::Busy };
        let turn = inner.turns.take(destination).await;
        let attempt = inner.attempt(&mail, (Some(&waybill), &id), patience).await;
        let resent = match attempt {
            Attempt::Ended(Direct::Delivered(answer)) => {
                inner.taken(&mail, &left.place, &answer).note().await;
                inner.site.bells.arrived.note(destination);
                tracing::info!(%destination, txn_id = mail.txn_id(), seq, delivery.id = %id, "sent directly, since it was not confirmed");
                Resent::Delivered
            }
            Attempt::Ended(Direct::Answered(answer)) => {
                let reason = answer.summary();
                tracing::warn!(%destination, txn_id = mail.txn_id(), seq, delivery.id = %id, reason, "the destination refuses what was left for it; it is sent again later");
                let is_unfit = is_about_content(&answer.refusal());
                let vain = if is_unfit { Vain::Unfit(reason) } else { Vain::Refused(reason) };
                Resent::InVain(vain)
            }
            Attempt::Busy(..) => Resent::Busy,
            Attempt::Ended(Direct::Unreachable(reason)) | Attempt::Failed(reason) => {
                tracing::debug!(%destination, txn_id = mail.txn_id(), delivery.id = %id, reason, "a copy was sent in vain");
                inner.count_failure(destination).await;
                Resent::InVain(Vain::Failed)
            }
        };
        drop(turn);
        if let Resent::InVain(vain) = &resent {
            inner.note_vain(destination, seq, vain.clone()).await;
        }
        resent
    }

    /// Leaves the copy of number `seq` with those relays of its destination that are not known to hold it. It has its number,
    /// and so needs no turn: whoever sends new mail does not wait for relays.
    pub(crate) async fn leave_copy(&self, destination: &ServerName, seq: u64) -> Releft {
        let inner = &*self.shared;
        let Some((mail, _)) = inner.copy(destination, seq).await else { return Releft::Gone };
        let (releft, wait) = match inner.leave_again(&mail).await {
            // It may be entered as held by one whose word does not count: then not again and again.
            Ok(Releft::Left) => (Releft::Left, IN_VAIN),
            Ok(releft) => (releft, NOWHERE),
            Err(reason) => (Releft::InVain(reason), IN_VAIN),
        };
        let until = inner.site.clock.now().after(wait);
        let left = usize::from(releft == Releft::Left);
        let of = (destination.clone(), seq);
        let entered = outbox::leaves_again(&inner.site.database, of, until, left).await;
        if let Err(error) = entered {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, seq, "when a copy is left again can't be kept");
        }
        releft
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
    async fn leave_again(&self, mail: &Mail) -> Result<Releft, String> {
        let (destination, begun) = (mail.destination(), Instant::now());
        let unread = |error| format!("the ledger can't be read ({error})");
        let line = self.ledger.enter(mail.transaction(), self.site.clock.now()).await;
        let line = line.map_err(unread)?;
        if line.state() == LedgerState::Delivered {
            return Ok(Releft::Gone);
        }
        let (mut relays, mut outgoing) =
            (self.relays_of(destination, begun).await, self.site.relays.outgoing());
        relays.retain(|relay| !line.holders.contains(&relay.name));
        outgoing.retain(|relay| !line.holders.contains(&relay.name));
        let preference = self.preference_for(destination);
        let places = [
            Places::first(preference, &relays, &outgoing),
            Places::second(preference, relays.clone(), &outgoing),
            Places::last(preference, &relays, &outgoing),
        ];
        if places.iter().all(Places::are_none) {
            return Ok(Releft::Nowhere);
        }
        let id = RequestId::of(self.site.dice.number());
        tracing::info!(%destination, txn_id = mail.txn_id(), seq = line.place.seq, delivery.id = %id, "left again, since no relay is known to hold it");
        let mut reason = format!("{destination} does not answer");
        for places in places.into_iter().filter(|places| !places.are_none()) {
            match self.leave(mail, (&line, &id), places, reason).await {
                Ok(()) => return Ok(Releft::Left),
                Err(why) => reason = why,
            }
        }
        // One whose word does not count may have it now.
        let after = self.ledger.enter(mail.transaction(), self.site.clock.now()).await;
        let is_more = after.map_err(unread)?.holders.len() > line.holders.len();
        if is_more { Ok(Releft::Left) } else { Err(reason) }
    }

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
            self.give_up(destination, seq).await;
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
        Mail::of_copy(outgoing).ok()
    }

    async fn note_vain(&self, destination: &ServerName, seq: u64, vain: Vain) {
        let (now, random) = (self.site.clock.now(), self.site.dice.fraction());
        let of = (destination.clone(), seq);
        let noted = outbox::sent_in_vain(&self.site.database, of, vain, (now, random)).await;
        if let Err(error) = noted {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, seq, "that a copy was sent in vain can't be kept");
        }
    }

    async fn give_up(&self, destination: &ServerName, seq: u64) {
        let until = self.site.clock.now().after(TIME_TO_LIVE);
        let damaged = outbox::damaged(&self.site.database, destination.clone(), seq, until);
        if let Err(error) = damaged.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, seq, "that a copy is damaged can't be kept");
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
