//! Delivery receipts among what other servers send: they are for the node, and the homeserver never sees them.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_relay_api::{DELIVERY_RECEIPT_EDU, DeliveryReceipt, RECEIPTS_BYTES_MAX};

use super::{Door, json, refuse, verified};
use crate::store::outbox;

/// When a sender may try again whose receipt could not be kept.
const STORE_RETRY: Duration = Duration::from_secs(60);

/// The answer to a transaction of receipts, once what they say is durable; `None` for all other mail.
pub(super) async fn take(door: &Door, parts: &Parts, body: &Bytes) -> Option<Response> {
    if body.len() > RECEIPTS_BYTES_MAX || !mentions(body) {
        return None;
    }
    let receipts = DeliveryReceipt::in_transaction(body)?;
    Some(match enter(door, parts, body.clone(), receipts).await {
        Ok(()) => json(StatusCode::OK, r#"{"pdus":{}}"#),
        Err(error) => refuse(&error),
    })
}

/// Whether the body may hold a receipt; most mail is not read here.
fn mentions(body: &[u8]) -> bool {
    let word = DELIVERY_RECEIPT_EDU.as_bytes();
    body.windows(word.len()).any(|bytes| bytes == word)
}

async fn enter(
    door: &Door,
    parts: &Parts,
    body: Bytes,
    receipts: Vec<DeliveryReceipt>,
) -> Result<(), MatrixError> {
    let site = &door.site;
    let verified = verified(door, parts, body).await?;
    let origin = verified.origin.server_name().clone();
    let entered = outbox::told(&site.database, origin.clone(), receipts, site.clock.now()).await;
    entered.map_err(|error| {
        tracing::error!(%origin, %error, "a receipt can't be kept; its sender keeps it");
        let text = "The receipt can't be stored at the moment.";
        MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text)
            .retry_after(STORE_RETRY)
    })?;
    site.bells.told_by(&origin);
    Ok(())
}
