//! What an origin asks of the mail that it left.

use restante_relay_api::LeftRequest;
use restante_relay_api::limits::LEFT_MAX;

use crate::reference;

pub(crate) fn request(json: &[u8]) {
    let Ok(request) = serde_json::from_slice::<LeftRequest>(json) else { return };
    assert_eq!(request.fits(), request.ask.len() + request.withdraw.len() <= LEFT_MAX);
    let written = request.to_canonical_json();
    assert_eq!(reference::canonical(&written).as_deref().map(str::as_bytes), Some(&written[..]));
    assert_eq!(serde_json::from_slice::<LeftRequest>(&written).ok(), Some(request));
}
