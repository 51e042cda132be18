use bytes::Bytes;
use restante_federation_proto::Timestamp;
use restante_relay_api::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Fullness, Losses, MailDigest,
    OriginLosses, Queued, RelayTxnResponse, Told, WireEnvelope,
};

use crate::server;

fn envelope(id: u64, extras: &'static str) -> WireEnvelope {
    WireEnvelope {
        id,
        sha256: "ab".repeat(32),
        origin: server("a.example"),
        txn_id: "t\"1".into(),
        deposited_at: Timestamp::from_millis(5),
        content: Bytes::from_static(br#"{"a": 1.0,"pdus":null}"#),
        extras: Bytes::from_static(extras.as_bytes()),
    }
}

fn told() -> Told {
    let lost = |origin: Option<&str>, full, until| OriginLosses {
        origin: origin.map(server),
        full,
        count: 3,
        bytes: 99,
        since: Timestamp::from_millis(1),
        until: Timestamp::from_millis(until),
    };
    Told {
        turned_away: Losses { origins: vec![lost(Some("a.example"), Some(Fullness::Share), 7)] },
        expired: Losses { origins: vec![lost(None, None, 9)] },
        dropped: Losses::default(),
        held: true,
    }
}

#[test]
fn what_was_lost_is_told_until_a_time_that_can_be_confirmed() {
    assert_eq!(told().until(), Some(Timestamp::from_millis(9)));
    assert_eq!(Told::default().until(), None);
}

#[test]
fn a_relay_that_tells_nothing_has_lost_nothing() {
    let queued = r#""queued":{"count":0,"bytes":0,"oldest_at":null}"#;
    for told in ["", r#","turned_away":{}"#] {
        let json = format!(r#"{{"envelopes":[],{queued}{told}}}"#);
        assert_eq!(CollectResponse::parse(json.as_bytes()).unwrap().told, Told::default());
    }
}

#[test]
fn an_answer_is_read_back_byte_for_byte() {
    let extras = r#"{"org.restante.proof":{"uri":"u"},"org.restante.waybill":{"seq": 1}}"#;
    let answer = CollectResponse {
        envelopes: vec![envelope(1 << 40, extras), envelope((1 << 40) + 1, "")],
        queued: Queued { count: 2, bytes: 99, oldest_at: Some(Timestamp::from_millis(5)) },
        told: told(),
    };
    assert_eq!(CollectResponse::parse(&answer.to_json()).unwrap(), answer);
    let empty = CollectResponse {
        envelopes: Vec::new(),
        queued: Queued { count: 0, bytes: 0, oldest_at: None },
        told: Told::default(),
    };
    assert_eq!(CollectResponse::parse(&empty.to_json()).unwrap(), empty);
}

#[test]
fn a_request_has_defaults_and_ignores_what_it_does_not_know() {
    let request: CollectRequest = serde_json::from_str(r#"{"signed_at":7,"future":true}"#).unwrap();
    assert_eq!((request.after, request.limit, request.wait_ms), (0, 50, 0));
    assert_eq!(request.max_bytes, 1 << 20);
    assert!(request.acknowledge.is_empty());
    assert!(serde_json::from_str::<CollectRequest>("{}").is_err(), "signed_at is required");
}

#[test]
fn a_request_is_signed_in_canonical_form_and_read_back() {
    let acknowledge = vec![CollectAcknowledgement { id: 7, sha256: None }];
    let (heard_until, signed_at) = (Some(Timestamp::from_millis(8)), Timestamp::from_millis(9));
    let request = CollectRequest {
        after: 1,
        acknowledge,
        have: vec![MailDigest([0xab; 16])],
        limit: 2,
        max_bytes: 3,
        wait_ms: 4,
        heard_until,
        signed_at,
    };
    let json = request.to_canonical_json();
    assert_eq!(
        json,
        br#"{"acknowledge":[{"id":7}],"after":1,"have":["abababababababababababababababab"],"heard_until":8,"limit":2,"max_bytes":3,"signed_at":9,"wait_ms":4}"#
    );
    assert_eq!(serde_json::from_slice::<CollectRequest>(&json).unwrap(), request);
}

#[test]
fn dendrites_answers_have_its_members() {
    let empty = RelayTxnResponse::Empty.to_json();
    assert_eq!(
        empty,
        br#"{"transaction":{"origin":"","origin_server_ts":0,"pdus":null},"entries_queued":false}"#
            .as_slice()
    );
    let one = RelayTxnResponse::Envelope {
        entry_id: 9,
        content: Bytes::from_static(b"{\"pdus\":[]}"),
        extras: Bytes::from_static(b"{\"org.restante.keys\":{}}"),
    };
    assert_eq!(
        one.to_json(),
        br#"{"transaction":{"pdus":[]},"entry_id":9,"entries_queued":true,"org.restante.keys":{}}"#
            .as_slice()
    );
}
