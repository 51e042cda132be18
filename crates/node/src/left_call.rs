//! Asks a relay what became of mail that this server left there, or tells it what need not be delivered any more: `left`.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use restante_federation::{Patience, Peer};
use restante_relay_api::LeftRequest;
use restante_relay_api::endpoints::LEFT;

use crate::relay_call::{Call, CallError, call};
use crate::site::Site;

/// How long a relay may take: it looks up a few hundred keys.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(20) };

/// Sends `request`; the body of a 200, of at most `answer_bytes_max`.
pub(crate) async fn call_left(
    site: &Site,
    relay: &Peer,
    request: &LeftRequest,
    answer_bytes_max: usize,
) -> Result<Bytes, CallError> {
    let target = LEFT.parse().expect("the endpoint's path holds nothing that can't be signed");
    let asked = Call {
        method: Method::POST,
        target: &target,
        body: Some(request.to_canonical_json().into()),
        patience: PATIENCE,
        answer_bytes_max,
    };
    call(site, relay, asked).await
}
