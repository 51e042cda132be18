//! Who of the homeserver's users holds an access token, and whether that is an administrator.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode, Uri};
use restante_federation::{Patience, collect_limited, empty};
use restante_federation_proto::escape_path_segment;
use serde::Deserialize;

use super::questions::unavailable;
use super::{Homeserver, Unavailable};

/// Somebody waits for the answer, and the homeserver is next door.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// Bytes of an answer: a user id and a device id, or an error.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Client-server API, `GET /account/whoami`.
const WHO_AM_I: &str = "/_matrix/client/v3/account/whoami";

impl Homeserver {
    /// The user who holds this access token; `None` if it is nobody's, or a guest's.
    pub(crate) async fn holder_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        #[derive(Deserialize)]
        struct Holder {
            user_id: String,
            #[serde(default)]
            is_guest: bool,
        }
        match self.ask_as_user(WHO_AM_I, token).await? {
            (StatusCode::OK, body) => {
                let holder: Option<Holder> = serde_json::from_slice(&body).ok();
                Ok(holder.filter(|holder| !holder.is_guest).map(|holder| holder.user_id))
            }
            (status, _) if is_refusal(status) => Ok(None),
            (status, _) => Err(unavailable(status)),
        }
    }

    /// Whether the holder of this access token administers the homeserver, by Synapse's admin API, which tells that to
    /// administrators alone. Other homeservers know no such question.
    pub(crate) async fn is_synapse_admin(
        &self,
        user_id: &str,
        token: &str,
    ) -> Result<bool, Unavailable> {
        #[derive(Deserialize)]
        struct Admin {
            admin: bool,
        }
        let target = format!("/_synapse/admin/v1/users/{}/admin", escape_path_segment(user_id));
        match self.ask_as_user(&target, token).await? {
            (StatusCode::OK, body) => {
                Ok(serde_json::from_slice::<Admin>(&body).is_ok_and(|answer| answer.admin))
            }
            (status, _) if is_refusal(status) => Ok(false),
            (status, _) => Err(unavailable(status)),
        }
    }

    async fn ask_as_user(
        &self,
        target: &str,
        token: &str,
    ) -> Result<(StatusCode, Bytes), Unavailable> {
        let failed = |error: &dyn std::fmt::Display| Unavailable(error.to_string());
        let mut request = Request::new(empty());
        *request.uri_mut() = target.parse::<Uri>().map_err(|error| failed(&error))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        request.headers_mut().insert(AUTHORIZATION, bearer.map_err(|error| failed(&error))?);
        let asked = async {
            let answer = self.shared.exchange.exchange(&self.shared.peer, request, PATIENCE).await;
            let answer = answer.map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await;
            Ok((status, body.map_err(|error| failed(&error))?))
        };
        let answered = tokio::time::timeout(PATIENCE.answer, asked).await;
        answered.unwrap_or_else(|_| Err(Unavailable("no answer in time".to_owned())))
    }
}

/// A 429 says nothing about the token.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}
