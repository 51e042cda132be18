//! A server named by its key, and the requests that it signs.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use restante_federation_proto::{
    Clock as _, RequestTarget, ServerName, SignableRequest, SigningKey, SystemClock, canonicalise,
};
use restante_relay_api::CollectRequest;
use restante_relay_api::endpoints::{COLLECT, send_relay_target};

/// Bytes of one transaction's content: about what one encrypted message with its proof takes.
const CONTENT_BYTES: usize = 4096;

/// A server that sends or collects.
pub(crate) struct Origin {
    pub(crate) name: ServerName,
    pub(crate) key: SigningKey,
    /// Where a reverse proxy in front of the relay says that it calls from; none for this machine, without a proxy.
    address: Option<Ipv4Addr>,
}

impl Origin {
    /// A server with a random key, at `address`.
    pub(crate) fn new(address: Ipv4Addr) -> Self {
        Self { address: Some(address), ..Self::on_this_machine() }
    }

    /// A server with a random key, which no limit of a single address concerns.
    pub(crate) fn on_this_machine() -> Self {
        let id = "ed25519:bench".parse().expect("the id is well-formed");
        let key = SigningKey::from_seed(id, &rand::random());
        Self { name: ServerName::of_key(&key.public_key()), key, address: None }
    }

    /// A deposit for `recipient`, signed, that no other deposit is a duplicate of.
    pub(crate) fn deposit(
        &self,
        relay: &ServerName,
        recipient: &ServerName,
    ) -> Request<Full<Bytes>> {
        let txn_id = format!("{:016x}", rand::random::<u64>());
        let target = send_relay_target(&txn_id, recipient);
        self.signed(Method::PUT, &target, relay, self.content(&txn_id))
    }

    /// The same with a signature over something else.
    pub(crate) fn forged_deposit(
        &self,
        relay: &ServerName,
        recipient: &ServerName,
    ) -> Request<Full<Bytes>> {
        let honest = self.deposit(relay, recipient);
        let (head, _) = honest.into_parts();
        Request::from_parts(head, Full::new(self.content("another")))
    }

    /// A deposit in the name of `origin`, whose keys the relay would have to ask for.
    pub(crate) fn deposit_in_the_name_of(
        &self,
        origin: &ServerName,
        relay: &ServerName,
        recipient: &ServerName,
    ) -> Request<Full<Bytes>> {
        let other = Self { name: origin.clone(), key: self.key.clone(), address: self.address };
        other.deposit(relay, recipient)
    }

    /// A collect that waits for `wait_ms`.
    pub(crate) fn collect(&self, relay: &ServerName, wait_ms: u64) -> Request<Full<Bytes>> {
        let request = CollectRequest {
            after: 0,
            acknowledge: Vec::new(),
            have: Vec::new(),
            limit: 50,
            max_bytes: 1 << 20,
            wait_ms,
            heard_until: None,
            signed_at: SystemClock.now(),
        };
        let target = COLLECT.parse().expect("the endpoint's path can be signed");
        self.signed(Method::POST, &target, relay, request.to_canonical_json().into())
    }

    fn content(&self, txn_id: &str) -> Bytes {
        let now = SystemClock.now().as_millis();
        let name = &self.name;
        let padding = "x".repeat(CONTENT_BYTES - 300);
        let json = format!(
            r#"{{"edus":[],"origin":"{name}","origin_server_ts":{now},"pdus":[{{"content":{{"body":"{padding}"}},"id":"{txn_id}"}}]}}"#
        );
        canonicalise(json.as_bytes()).expect("it is well-formed").into_owned().into()
    }

    /// A request with that content, signed.
    pub(crate) fn signed(
        &self,
        method: Method,
        target: &RequestTarget,
        relay: &ServerName,
        content: Bytes,
    ) -> Request<Full<Bytes>> {
        let authorization = self.authorization(&method, target, relay, &content);
        let mut request = Request::builder()
            .method(method)
            .uri(target.as_str())
            .header("host", "relay.test")
            .header("authorization", authorization)
            .header("content-type", "application/json");
        if let Some(address) = self.address {
            request = request.header("x-forwarded-for", address.to_string());
        }
        request.body(Full::new(content)).expect("each part is well-formed")
    }

    /// The same as the bytes that go over the wire.
    pub(crate) fn signed_bytes(
        &self,
        method: &Method,
        target: &RequestTarget,
        relay: &ServerName,
        content: &[u8],
    ) -> Bytes {
        let authorization = self.authorization(method, target, relay, content);
        let head = format!(
            "{method} {} HTTP/1.1\r\nhost: relay.test\r\nauthorization: {authorization}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            target.as_str(),
            content.len()
        );
        [head.as_bytes(), content].concat().into()
    }

    /// The X-Matrix header of that request.
    pub(crate) fn authorization(
        &self,
        method: &Method,
        target: &RequestTarget,
        destination: &ServerName,
        content: &[u8],
    ) -> String {
        let signable = SignableRequest {
            method: method.as_str(),
            target,
            origin: &self.name,
            destination: Some(destination),
            content: Some(content),
        };
        signable.sign(&self.key).to_string()
    }
}
