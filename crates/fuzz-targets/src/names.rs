//! Names and addresses: what is accepted is kept as written, and its parts make up the whole.

use restante_federation::BaseUrl;
use restante_federation_proto::{ServerName, UserId};

use crate::text;

/// The specification's limit for names and ids, in bytes.
const NAME_BYTES_MAX: usize = 255;

pub(crate) fn server_name(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(name) = text.parse::<ServerName>() else { return };
    assert_eq!(name.as_str(), text);
    assert!(text.len() <= NAME_BYTES_MAX);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    assert!(text.bytes().all(harmless), "a name goes into headers, URLs and logs as it is");
    assert_parts(&name);
    let json = serde_json::to_vec(&name).expect("a name is JSON text");
    assert_eq!(serde_json::from_slice::<ServerName>(&json).ok().as_ref(), Some(&name));
    if let Some(key) = name.public_key() {
        assert_eq!(ServerName::of_key(&key), name, "a key has one name");
    }
}

fn assert_parts(name: &ServerName) {
    let host = name.host();
    let rest = name.as_str().strip_prefix(host);
    let port = rest.and_then(|rest| rest.strip_prefix(':'));
    assert_eq!(port.is_some(), name.port().is_some() || rest != Some(""), "{name}");
    if let Some(port) = port {
        assert!((1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(port.parse().ok(), name.port());
    }
    assert_eq!(host.starts_with('['), host.ends_with(']'), "{name}");
    assert_eq!(host.starts_with('['), host.contains(':'), "{name}");
}

pub(crate) fn user_id(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(id) = text.parse::<UserId>() else { return };
    assert_eq!(id.as_str(), text);
    assert!(text.len() <= NAME_BYTES_MAX && !text.contains('\0'));
    let server = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    let (_, server) = server.expect("an id has an @ and a colon");
    assert_eq!(id.server_name().as_str(), server);
    server_name(server.as_bytes());
}

pub(crate) fn base_url(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(url) = text.parse::<BaseUrl>() else { return };
    let written = url.to_string();
    assert_eq!(written.parse::<BaseUrl>(), Ok(url.clone()), "{written}");
    assert_eq!(text.starts_with("https:"), url.tls);
    assert_ne!(url.port, 0);
    let uri: http::Uri =
        format!("{written}/path").parse().expect("a base URL with a path is a URL");
    assert_eq!(uri.authority().map(http::uri::Authority::host), Some(url.host.as_str()));
    assert_eq!((uri.port_u16(), uri.path()), (Some(url.port), "/path"));
}
