//! X-Matrix: the `Authorization` of a federation request
//! (server-server API, "Request Authentication").

use std::fmt;
use std::str::FromStr;

use crate::authorization_parameters::Parameters;
use crate::{KeyId, ServerName, Signature};

/// What an X-Matrix header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XMatrix {
    /// Who claims to send.
    pub origin: ServerName,
    /// Whom it is for; old servers leave it out.
    pub destination: Option<ServerName>,
    /// The key it is signed with.
    pub key_id: KeyId,
    /// The signature.
    pub signature: Signature,
}

/// Why a header is not X-Matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XMatrixError {
    /// The scheme is not `X-Matrix`; another header may be.
    #[error("the Authorization scheme is not X-Matrix")]
    OtherScheme,
    /// The parameters do not parse.
    #[error("malformed X-Matrix header: {0}")]
    Malformed(&'static str),
    /// A parameter is missing.
    #[error("the X-Matrix header lacks {0}")]
    Missing(&'static str),
    /// A parameter stands twice.
    #[error("the X-Matrix header names {0} twice")]
    Duplicate(&'static str),
    /// A parameter is not of its form.
    #[error("the X-Matrix header's {0} is not valid")]
    Invalid(&'static str),
}

impl FromStr for XMatrix {
    type Err = XMatrixError;

    /// Accepts tokens, quoted strings and unquoted colons, scheme and names in any case (facts: rules 7 to 10).
    fn from_str(header: &str) -> Result<Self, XMatrixError> {
        let mut parameters = Parameters::of(header)?;
        let [mut origin, mut destination, mut key, mut sig] = [const { None }; 4];
        while let Some((name, value)) = parameters.next_parameter()? {
            let (name, place) = match name.to_ascii_lowercase().as_str() {
                "origin" => ("origin", &mut origin),
                "destination" => ("destination", &mut destination),
                "key" => ("key", &mut key),
                "sig" => ("sig", &mut sig),
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(XMatrixError::Duplicate(name));
            }
        }
        Ok(Self {
            origin: parsed(origin, "origin")?.ok_or(XMatrixError::Missing("origin"))?,
            destination: parsed(destination, "destination")?,
            key_id: parsed(key, "key")?.ok_or(XMatrixError::Missing("key"))?,
            signature: sig
                .ok_or(XMatrixError::Missing("sig"))
                .and_then(|sig| decoded_signature(&sig))?,
        })
    }
}

fn parsed<T: FromStr>(
    value: Option<String>,
    name: &'static str,
) -> Result<Option<T>, XMatrixError> {
    value.map(|value| value.parse().map_err(|_| XMatrixError::Invalid(name))).transpose()
}

fn decoded_signature(sig: &str) -> Result<Signature, XMatrixError> {
    Signature::from_base64(sig).map_err(|_| XMatrixError::Invalid("sig"))
}

impl fmt::Display for XMatrix {
    /// The header value, everything quoted, in the order that every implementation takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key_id = self.key_id.as_str().replace('\\', r"\\").replace('"', r#"\""#);
        let sig = self.signature.to_base64();
        write!(f, r#"X-Matrix origin="{}",key="{key_id}",sig="{sig}""#, self.origin)?;
        match &self.destination {
            Some(destination) => write!(f, r#",destination="{destination}""#),
            None => Ok(()),
        }
    }
}
