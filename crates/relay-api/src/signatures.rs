//! Who claims to have signed a JSON object, read from the received bytes.

use restante_federation_proto::{KeyId, ServerName, members};

/// The ids of the keys with which `server` claims to have signed `json`.
pub(crate) fn key_ids(json: &[u8], server: &ServerName) -> Vec<KeyId> {
    let by_server = value_of(json, "signatures").and_then(|all| value_of(all, server.as_str()));
    let keys = by_server.and_then(|keys| members(keys).ok()).unwrap_or_default();
    keys.iter().filter_map(|key| key.name.parse().ok()).collect()
}

fn value_of<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let members = members(object).ok()?;
    members.into_iter().find(|member| member.name == name).map(|member| member.value)
}
