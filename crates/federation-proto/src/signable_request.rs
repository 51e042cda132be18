//! The bytes of a federation request that X-Matrix signs
//! (server-server API, "Request Authentication").

use std::str::FromStr;
use std::sync::Arc;

use crate::json_scanner::push_string;
use crate::{BadSignature, PublicKey, ServerName, Signature, SigningKey, XMatrix};

/// A request target that can be signed: path and query, byte for byte as sent.
///
/// Refuses `"`, `\`, `<`, `>`, control and non-ASCII bytes, which implementations escape differently.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestTarget(Arc<str>);

/// The target holds a byte that no signed target may hold, or does not begin with `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request target must begin with / and hold only printable ASCII without \" \\ < >")]
pub struct RequestTargetError;

impl RequestTarget {
    /// The target as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestTarget {
    type Err = RequestTargetError;

    fn from_str(text: &str) -> Result<Self, RequestTargetError> {
        let signable =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'<' | b'>');
        if text.starts_with('/') && text.bytes().all(signable) {
            Ok(Self(text.into()))
        } else {
            Err(RequestTargetError)
        }
    }
}

/// The parts of a request that its signature covers.
#[derive(Debug, Clone, Copy)]
pub struct SignableRequest<'a> {
    /// Method, upper case.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a RequestTarget,
    /// Sender.
    pub origin: &'a ServerName,
    /// Addressee; absent in requests of old servers.
    pub destination: Option<&'a ServerName>,
    /// The body in canonical form ([`crate::canonicalise`]); `None` for an empty body.
    pub content: Option<&'a [u8]>,
}

impl SignableRequest<'_> {
    /// The canonical JSON that is signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.length_estimate());
        json.push(b'{');
        if let Some(content) = self.content {
            json.extend_from_slice(br#""content":"#);
            json.extend_from_slice(content);
            json.push(b',');
        }
        if let Some(destination) = self.destination {
            push_member(&mut json, "destination", destination.as_str());
            json.push(b',');
        }
        push_member(&mut json, "method", self.method);
        json.push(b',');
        push_member(&mut json, "origin", self.origin.as_str());
        json.push(b',');
        push_member(&mut json, "uri", self.target.as_str());
        json.push(b'}');
        json
    }

    fn length_estimate(&self) -> usize {
        const PUNCTUATION: usize =
            r#"{"content":,"destination":"","method":"","origin":"","uri":""}"#.len();
        PUNCTUATION
            + self.content.map_or(0, <[u8]>::len)
            + self.destination.map_or(0, |destination| destination.as_str().len())
            + self.method.len()
            + self.origin.as_str().len()
            + self.target.as_str().len()
    }

    /// Signs the request as its origin.
    pub fn sign(&self, key: &SigningKey) -> XMatrix {
        XMatrix {
            origin: self.origin.clone(),
            destination: self.destination.cloned(),
            key_id: key.id().clone(),
            signature: key.sign(&self.to_bytes()),
        }
    }

    /// Checks a signature over the request.
    pub fn verify(&self, key: &PublicKey, signature: &Signature) -> Result<(), BadSignature> {
        key.verify(&self.to_bytes(), signature)
    }
}

fn push_member(json: &mut Vec<u8>, name: &str, value: &str) {
    push_string(json, name);
    json.push(b':');
    push_string(json, value);
}
