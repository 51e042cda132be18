//! What a relay writes into its log: one line for each event, with names by which it can be found, and nothing secret.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use restante_relay_api::endpoints::{COLLECT, MAILBOX, send_relay_target};
use restante_relay_api::{Content, REQUEST_ID_HEADER, RegistrationRequest};
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{TestRelay, TestServer, collect_all};

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of that event.
    fn lines(&self, event: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["fields"]["message"] == event).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_delivery_is_found_by_its_id_at_deposit_and_collect_and_no_content_is_written() {
    let log = Log::default();
    // As long as there is one subscriber alone, the tracing crate asks whichever thread meets a place in the code first
    // whether anybody listens there; other tests' threads have none.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(log.clone()).finish());
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));

    let content = Content::parse(Bytes::from(a.transaction(&relay, "nobody's business"))).unwrap();
    let extras = a.extras(&relay, b.name(), "t", &content);
    let body = content.to_deposit_body(&extras).unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let body = body.replacen('{', r#"{"org.restante.request_id":"delivery-7","#, 1);
    let target = send_relay_target("t", b.name());
    let mut deposit = a.request(&relay, http::Method::PUT, target.as_str(), &body);
    deposit.headers_mut().insert(REQUEST_ID_HEADER, "call-1".parse().unwrap());
    let signature = deposit.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
    relay.send(deposit).await.assert_ok();

    let request = String::from_utf8(collect_all(&relay).to_canonical_json()).unwrap();
    let mut collect = b.request(&relay, http::Method::POST, COLLECT, &request);
    collect.headers_mut().insert(REQUEST_ID_HEADER, "call-2".parse().unwrap());
    relay.send(collect).await.assert_ok();

    let invite = "a secret until it is used";
    let register = RegistrationRequest { invite: Some(invite.into()), ..b.registration(&relay) };
    let register = String::from_utf8(register.to_canonical_json()).unwrap();
    b.call(&relay, http::Method::PUT, MAILBOX, &register).await.assert_ok();

    for (event, call) in [("deposit", "call-1"), ("collect", "call-2")] {
        let lines = log.lines(event);
        let [line] = lines.as_slice() else { panic!("{event}: {lines:?}") };
        assert_eq!(line["fields"]["delivery.id"], "delivery-7", "{line}");
        assert_eq!(line["fields"]["mailbox"], b.name().as_str(), "{line}");
        assert_eq!(line["span"]["request.id"], call, "{line}");
    }
    assert_eq!(log.lines("registered").len(), 1);
    let text = log.text();
    let signature = signature.split("sig=\"").nth(1).unwrap().split('"').next().unwrap();
    for secret in ["nobody's business", invite, signature] {
        assert!(!text.contains(secret), "{secret} was logged");
    }
}
