//! Mail that carries events which its homeserver never sent.

use bytes::Bytes;
use restante_relay_api::{Capsule, Content, Extras};

use crate::harness::{TestRelay, TestServer, collect_all};

#[tokio::test]
async fn a_capsule_passes_the_relay_whole() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let pdu = Bytes::from(format!(r#"{{"content":"{}"}}"#, "x".repeat(60_000)));
    let capsule = Capsule::new(&vec![pdu; 60], []).unwrap();
    let content = Content::parse(Bytes::from(a.transaction(&relay, "newest"))).unwrap();
    let extras = a.extras(&relay, b.name(), "t1", &content).with_capsule(&capsule).unwrap();
    let body = content.to_deposit_body(&extras).unwrap();
    a.leave(&relay, &b, "t1", std::str::from_utf8(&body).unwrap()).await.assert_ok();

    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let kept = Extras::parse(collected.envelopes[0].extras.clone()).unwrap().capsule.unwrap();
    assert_eq!(Capsule::parse(&kept).unwrap(), capsule);
}
