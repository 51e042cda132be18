//! Who sent a request, and what it asks for.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use restante_federation::x_matrix_headers;
use restante_federation_proto::{
    KeyId, RequestTarget, ServerName, SignableRequest, XMatrix, canonicalise, unescape_path_segment,
};

/// A request of another server, or of the own one.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a Method,
    /// The path's segments, unescaped.
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Question<'a> {
    pub(crate) fn read(parts: &'a Parts, body: &'a [u8]) -> Self {
        let unescaped = |text: &str| unescape_path_segment(text).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default().split('&');
        let query = query.filter_map(|pair| pair.split_once('='));
        Self {
            method: &parts.method,
            path: parts.uri.path().split('/').skip(1).map(unescaped).collect(),
            query: query.map(|(name, value)| (unescaped(name), unescaped(value))).collect(),
            body,
        }
    }

    pub(crate) fn query<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.query.iter().filter(move |(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// A signature that is to be checked.
pub(crate) struct Claim {
    pub(crate) origin: ServerName,
    pub(crate) key_id: KeyId,
    header: XMatrix,
    target: RequestTarget,
    content: Option<Bytes>,
    method: Method,
}

impl Claim {
    /// Reads who says that it sent this request to `own`.
    pub(crate) fn read(
        parts: &Parts,
        body: &[u8],
        own: &ServerName,
    ) -> Result<Self, (StatusCode, String)> {
        let refused = |text: &str| (StatusCode::UNAUTHORIZED, text.to_owned());
        let headers = x_matrix_headers(&parts.headers)
            .map_err(|error| (StatusCode::UNAUTHORIZED, format!("{error:?}")))?;
        let header = headers.into_iter().next().ok_or_else(|| refused("unsigned"))?;
        if header.destination.as_ref() != Some(own) {
            return Err(refused("signed for another destination"));
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse().map_err(|_| refused("a target that can't be signed"))?;
        let content = match body.is_empty() {
            true => None,
            false => Some(canonicalise(body).map_err(|_| refused("no JSON"))?.into_owned().into()),
        };
        let method = parts.method.clone();
        Ok(Self {
            origin: header.origin.clone(),
            key_id: header.key_id.clone(),
            header,
            target,
            content,
            method,
        })
    }

    /// Whether `key` made the signature.
    pub(crate) fn holds(&self, key: &restante_federation_proto::PublicKey) -> bool {
        let signed = SignableRequest {
            method: self.method.as_str(),
            target: &self.target,
            origin: &self.origin,
            destination: self.header.destination.as_ref(),
            content: self.content.as_deref(),
        };
        signed.verify(key, &self.header.signature).is_ok()
    }
}
