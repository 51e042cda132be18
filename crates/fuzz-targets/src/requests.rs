//! What a request line and an `Authorization` header say, and what a signature covers.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use restante_federation::x_matrix_headers as headers_of;
use restante_federation_proto::{
    RequestTarget, SignableRequest, XMatrix, canonicalise, escape_path_segment,
    unescape_path_segment,
};
use serde_json::{Value, json};

use crate::signer::{Signer, other_key, server, signer};
use crate::{reference, text};

/// The first line is the target, the rest the body.
pub(crate) fn request(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (target, body) = bytes.split_at(line);
    let Some(target) = text(target) else { return };
    let Ok(target) = target.parse::<RequestTarget>() else { return };
    let Signer { name, key } = signer();
    let destination = server("b.example");
    let content = body.get(1..).filter(|body| !body.is_empty());
    let Ok(content) = content.map(canonicalise).transpose() else { return };
    let request = SignableRequest {
        method: "PUT",
        target: &target,
        origin: &name,
        destination: Some(&destination),
        content: content.as_deref(),
    };
    let signed = request.to_bytes();
    if content.is_none() {
        let parsed: Value = serde_json::from_slice(&signed).expect("what is signed is JSON");
        let expected = json!({
            "destination": "b.example", "method": "PUT", "origin": "a.example", "uri": target.as_str()
        });
        assert_eq!(parsed, expected);
    }
    // The body's last level lies one deeper here.
    if let Some(canonical) = reference::canonical(&signed) {
        assert_eq!(canonical.as_bytes(), signed, "what is signed is canonical");
    }
    let header = request.sign(&key);
    assert_eq!(header.to_string().parse(), Ok(header.clone()));
    assert!(request.verify(&key.public_key(), &header.signature).is_ok());
    assert!(request.verify(&other_key(), &header.signature).is_err());
    let for_others = SignableRequest { destination: None, ..request };
    assert!(for_others.verify(&key.public_key(), &header.signature).is_err());
}

pub(crate) fn path_segment(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let escaped = escape_path_segment(text);
    assert_eq!(unescape_path_segment(&escaped).as_deref(), Some(text));
    let target = format!("/{escaped}");
    assert!(target.parse::<RequestTarget>().is_ok(), "{target}");
    if target.len() < usize::from(u16::MAX) {
        let uri: http::Uri = target.parse().expect("an escaped segment is a path");
        assert_eq!((uri.path(), uri.query()), (target.as_str(), None));
    }
    if let Some(unescaped) = unescape_path_segment(text) {
        let again = escape_path_segment(&unescaped);
        assert_eq!(unescape_path_segment(&again), Some(unescaped));
    }
}

pub(crate) fn x_matrix(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(header) = text.parse::<XMatrix>() else { return };
    let written = header.to_string();
    assert!(HeaderValue::from_str(&written).is_ok_and(|value| value.to_str().is_ok()), "{written}");
    assert_eq!(written.parse(), Ok(header.clone()), "{written}");
    for variant in [with_liberties(&header), format!("{text},"), format!("\t{text} ,x=\"\\\"\"")] {
        assert_eq!(variant.parse(), Ok(header.clone()), "{variant}");
    }
    for twice in [format!("{written},origin=x.example"), format!("{written},SIG=\"\"")] {
        assert!(twice.parse::<XMatrix>().is_err(), "{twice}");
    }
}

/// The header as another server may write it.
fn with_liberties(header: &XMatrix) -> String {
    let slashed = |text: &str| text.chars().flat_map(|letter| ['\\', letter]).collect::<String>();
    let destination = header.destination.as_ref();
    let destination =
        destination.map_or_else(String::new, |name| format!(",\tDestination = {name}"));
    format!(
        "x-mATRIX \tsig=\"{}==\" , ,other={}{destination}, KEY=\"{}\",oRigin={}",
        header.signature.to_base64(),
        header.origin,
        slashed(header.key_id.as_str()),
        header.origin
    )
}

/// Each line is one header.
pub(crate) fn x_matrix_headers(bytes: &[u8]) {
    let mut map = HeaderMap::new();
    let mut lines = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').take(100) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        map.append(AUTHORIZATION, value);
        lines.push(line);
    }
    let parsed = |line: &&[u8]| text(line).and_then(|line| line.parse::<XMatrix>().ok());
    let Ok(headers) = headers_of(&map) else { return };
    assert_eq!(headers, lines.iter().filter_map(parsed).collect::<Vec<_>>());
    assert!((1..=8).contains(&headers.len()));
    let [first, others @ ..] = headers.as_slice() else { return };
    for other in others {
        assert_eq!((&other.origin, &other.destination), (&first.origin, &first.destination));
    }
}
