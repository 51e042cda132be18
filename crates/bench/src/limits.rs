//! What the same HTTP stack reaches without a relay behind it: servers of a process of their own that only read, or check
//! signatures as the relay does, or answer at length.

pub(crate) mod process;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use restante_federation::{
    ClientConfig, DnsConfig, FederationClient, Freshness, Identity, KeyRing, KeyRingParts,
    Listener, MemoryKeyStore, ServeLimits, authenticate, collect_limited, serve,
};
use restante_federation_proto::{ServerName, SigningKey, SystemClock};
use restante_relay_api::DepositBody;
use restante_relay_api::limits::BODY_BYTES_MAX;
use tokio_util::sync::CancellationToken;

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Reads its body.
    Read,
    /// The same, and verifies its signature.
    Verify,
    /// The same, and verifies the proof that it brings.
    Prove,
    /// Reads its body, and answers with as many bytes as its path says.
    Answer,
}

impl Limit {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Verify, Self::Prove, Self::Answer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Verify => "verify",
            Self::Prove => "prove",
            Self::Answer => "answer",
        }
    }
}

/// Serves each of them in the name of the relay, and says where.
pub(crate) async fn run(server_name: ServerName) -> anyhow::Result<()> {
    let checks = Arc::new(Checks::of(server_name)?);
    let (mut serving, forever) = (Vec::new(), CancellationToken::new());
    for limit in Limit::ALL {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await?;
        println!("{} http://{}", limit.name(), listener.local_address());
        let router = router(limit, checks.clone());
        let limits = ServeLimits { connections_max: 8192, ..ServeLimits::default() };
        serving.push(tokio::spawn(serve(listener, router, limits, forever.clone())));
    }
    for server in serving {
        server.await.context("a server panicked")?;
    }
    Ok(())
}

/// What checking takes: the relay's name, and keys, which the names of the servers here are.
struct Checks {
    server_name: ServerName,
    keys: KeyRing,
    long_answer: Bytes,
}

impl Checks {
    fn of(server_name: ServerName) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let config = ClientConfig { dns: DnsConfig::Off, ..ClientConfig::default() };
        let key = SigningKey::from_seed("ed25519:bench".parse()?, &rand::random());
        let keys = KeyRing::new(KeyRingParts {
            identity: Identity { server_name: server_name.clone(), key: Arc::new(key) },
            exchange: Arc::new(FederationClient::new(config, clock.clone())?),
            store: Arc::new(MemoryKeyStore::default()),
            clock,
            notaries: Vec::new(),
            vouchers: Vec::new(),
        });
        Ok(Self { server_name, keys, long_answer: vec![b'x'; ANSWER_BYTES_MAX].into() })
    }

    async fn verify(&self, parts: &Parts, body: Bytes) -> Result<(), Refusal> {
        let verified = authenticate(parts, body, &self.server_name, &self.keys).await;
        verified.map(|_| ()).map_err(|error| (error.status, error.message))
    }

    async fn prove(&self, body: Bytes) -> Result<(), Refusal> {
        let body = DepositBody::parse(body).map_err(bad)?;
        let proof = body.extras.proof.ok_or_else(|| bad("there is no proof"))?;
        let claim = proof.claim().map_err(bad)?;
        let key = self.keys.key(claim.origin(), claim.key_id(), Freshness::Believed).await;
        claim.verify(&body.content, &key.map_err(bad)?).map_err(bad)
    }
}

/// What the load tells when it gets anything but a 200.
type Refusal = (StatusCode, String);

fn router(limit: Limit, checks: Arc<Checks>) -> Router {
    match limit {
        Limit::Read => Router::new().fallback(read),
        Limit::Verify => Router::new().fallback(verify).with_state(checks),
        Limit::Prove => Router::new().fallback(prove).with_state(checks),
        Limit::Answer => Router::new().fallback(answer).with_state(checks),
    }
}

async fn read(request: Request) -> Result<Response, Refusal> {
    body_of(request.into_body()).await?;
    Ok(taken(Bytes::from_static(b"{}")))
}

async fn verify(State(checks): State<Arc<Checks>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    checks.verify(&parts, body_of(body).await?).await?;
    Ok(taken(Bytes::from_static(b"{}")))
}

async fn prove(State(checks): State<Arc<Checks>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body_of(body).await?;
    checks.verify(&parts, body.clone()).await?;
    checks.prove(body).await?;
    Ok(taken(Bytes::from_static(b"{}")))
}

async fn answer(State(checks): State<Arc<Checks>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    body_of(body).await?;
    let bytes: usize = parts.uri.path().trim_start_matches('/').parse().map_err(bad)?;
    if bytes > ANSWER_BYTES_MAX {
        return Err(bad("nothing is as long as that"));
    }
    Ok(taken(checks.long_answer.slice(..bytes)))
}

async fn body_of(body: Body) -> Result<Bytes, Refusal> {
    collect_limited(body, BODY_BYTES_MAX).await.map_err(bad)
}

fn taken(body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], body).into_response()
}

fn bad(error: impl ToString) -> Refusal {
    (StatusCode::BAD_REQUEST, error.to_string())
}
