//! Being a Matrix server on the network: discovery, client, key ring, server connections.

mod answer;
mod authenticate;
mod body;
mod bounded_map;
mod client;
pub mod config;
mod content_coding;
mod discovery;
mod exchange;
mod executor;
mod key_ring;
mod key_store;
mod outcome;
mod private_file;
mod serve;
mod sign;

pub use answer::{Answer, AskError, ask};
pub use authenticate::{
    Authenticated, DestinationRule, VerifiedOrigin, authenticate, authenticate_with,
    is_signed_by_key_of, x_matrix_headers,
};
pub use body::{Body, BodyError, BoxError, collect_limited, collect_steadily, empty, full};
pub use bounded_map::BoundedMap;
pub use client::{
    AddressPolicy, ClientConfig, ClientConfigError, DnsConfig, FederationClient, Way,
};
pub use content_coding::{ContentCoding, UnknownCoding};
pub use exchange::{
    BaseUrl, BaseUrlError, Exchange, ExchangeError, NamedBy, Patience, Peer, Stage, WebFileError,
};
pub use key_ring::{
    Freshness, KeyLookupError, KeyRing, KeyRingParts, NOTARY_SERVERS_MAX, Notary, Voucher,
};
pub use key_store::{KeyStore, KeyStoreError, MemoryKeyStore, SqliteKeyStore};
pub use outcome::{MatrixRefusal, Outcome, is_about_content, is_sign_of_life, outcome};
pub use private_file::{create_private_file, create_private_folder};
pub use serve::{
    Caller, Certificate, Connection, ConnectionsPerAddress, InheritedSockets, Listener,
    ListenerError, LocalListener, OpenConnections, Place, Reloaded, ServeLimits, TlsFiles,
    TrustedProxies, Via, serve, serve_local,
};
pub use sign::{Identity, signed_request};
