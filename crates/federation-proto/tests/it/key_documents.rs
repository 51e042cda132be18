//! Key documents: parsing, minting, countersigning, and which of two is believed.

use bytes::Bytes;
use proptest::prelude::*;
use restante_federation_proto::{
    BelievedDocument, Evidence, KEY_DOCUMENT_BYTES_MAX, KeyDocument, KeyDocumentError, KeyId,
    NOTARY_DOCUMENTS_MAX, NotaryResponse, Replacement, ServerName, SignedJsonError, SigningKey,
    Timestamp, VERIFY_KEYS_MAX, canonicalise, mint, mint_signed_by, replacement, sign_json,
    verify_json,
};
use serde_json::{Map, Value, json};

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn key(id: &str) -> SigningKey {
    let mut seed = [7; 32];
    for (position, byte) in id.bytes().take(32).enumerate() {
        seed[position] ^= byte;
    }
    SigningKey::from_seed(format!("ed25519:{id}").parse().unwrap(), &seed)
}

fn day(number: u64) -> Timestamp {
    Timestamp::from_millis(number * 86_400_000)
}

/// A document of `a.example` with these verify keys, signed by these.
fn object(listed: &[&SigningKey], signing: &[&SigningKey]) -> Map<String, Value> {
    let listed: Map<String, Value> = listed
        .iter()
        .map(|key| (key.id().to_string(), json!({ "key": key.public_key().to_base64() })))
        .collect();
    let mut object = Map::new();
    object.insert("server_name".into(), "a.example".into());
    object.insert("verify_keys".into(), listed.into());
    object.insert("valid_until_ts".into(), json!(day(10)));
    for key in signing {
        sign_json(&mut object, &server("a.example"), key);
    }
    object
}

fn bytes(object: &Map<String, Value>) -> Bytes {
    serde_json::to_vec_pretty(object).unwrap().into()
}

fn document(keys: &[&SigningKey], valid_until: Timestamp) -> KeyDocument {
    let mut object = object(keys, &[]);
    object.insert("valid_until_ts".into(), json!(valid_until));
    for key in keys {
        sign_json(&mut object, &server("a.example"), key);
    }
    KeyDocument::parse(bytes(&object)).unwrap()
}

#[test]
fn a_document_signed_by_all_its_keys_is_read_and_kept_as_received() {
    let (one, two, retired) = (key("1"), key("2"), key("0"));
    let mut object = object(&[&one, &two], &[]);
    let old = json!({
        "ed25519:0": { "key": retired.public_key().to_base64(), "expired_ts": 5 },
        "ed25519:broken": { "key": "?", "expired_ts": 5 },
    });
    object.insert("old_verify_keys".into(), old);
    object.insert("org.example.float".into(), json!(1.5));
    object.insert("unsigned".into(), json!({ "not": "covered" }));
    sign_json(&mut object, &server("a.example"), &one);
    sign_json(&mut object, &server("a.example"), &two);
    let raw = bytes(&object);

    let document = KeyDocument::parse(raw.clone()).unwrap();

    assert_eq!(document.raw(), &raw);
    assert_eq!(document.server_name(), &server("a.example"));
    assert_eq!(document.verify_keys().len(), 2);
    let old: Vec<_> = document.old_verify_keys().iter().collect();
    assert_eq!(old, [(retired.id(), &(retired.public_key(), Timestamp::from_millis(5)))]);
    assert_eq!(document.key_valid_at(one.id(), day(10)), Some(&one.public_key()));
    assert_eq!(document.key_valid_at(one.id(), day(11)), None);
    assert_eq!(document.key_valid_at(retired.id(), day(1)), None);
}

#[test]
fn a_document_that_one_of_its_keys_did_not_sign_is_refused() {
    let (one, two) = (key("1"), key("2"));
    let refused = Err(KeyDocumentError::NotSelfSigned(two.id().clone()));
    assert_eq!(KeyDocument::parse(bytes(&object(&[&one, &two], &[&one]))), refused);

    let mut changed = object(&[&two], &[&two]);
    changed.insert("valid_until_ts".into(), json!(day(9999)));
    assert_eq!(KeyDocument::parse(bytes(&changed)), refused);

    let mut renamed = object(&[&two], &[&two]);
    renamed.insert("server_name".into(), "b.example".into());
    assert_eq!(KeyDocument::parse(bytes(&renamed)), refused);
}

#[test]
fn keys_of_an_unknown_kind_are_left_out() {
    let one = key("1");
    let mut object = object(&[&one], &[]);
    object["verify_keys"]["future25519:x"] = json!({ "key": "x" });
    sign_json(&mut object, &server("a.example"), &one);
    assert_eq!(KeyDocument::parse(bytes(&object)).unwrap().verify_keys().len(), 1);

    object["verify_keys"].as_object_mut().unwrap().remove("ed25519:1");
    assert_eq!(KeyDocument::parse(bytes(&object)), Err(KeyDocumentError::NoKeys));
}

#[test]
fn what_is_no_key_document_is_refused() {
    let one = key("1");
    let good = object(&[&one], &[&one]);
    let without = |name: &str| {
        let mut object = good.clone();
        object.remove(name);
        bytes(&object)
    };
    let doubled = String::from_utf8(bytes(&good).to_vec()).unwrap().replacen(
        '{',
        r#"{"valid_until_ts":1,"#,
        1,
    );
    let keys: Vec<SigningKey> = (0..=VERIFY_KEYS_MAX).map(|id| key(&id.to_string())).collect();
    let many: Vec<&SigningKey> = keys.iter().collect();
    let mut large = good.clone();
    large.insert("x".into(), "x".repeat(KEY_DOCUMENT_BYTES_MAX).into());
    for raw in [
        Bytes::new(),
        Bytes::from("[]"),
        Bytes::from("{}"),
        without("server_name"),
        without("verify_keys"),
        without("valid_until_ts"),
        doubled.into(),
        bytes(&object(&many, &many)),
        bytes(&large),
    ] {
        let refusal = KeyDocument::parse(raw.clone());
        assert!(matches!(refusal, Err(KeyDocumentError::Malformed(_))), "{raw:?} {refusal:?}");
    }
}

#[test]
fn a_minted_document_parses_to_itself_and_keeps_retired_keys() {
    let (ours, other) = (key("ours"), key("other"));
    let mut theirs = object(&[&ours, &other], &[]);
    let retired = key("0").public_key().to_base64();
    theirs.insert(
        "old_verify_keys".into(),
        json!({ "ed25519:0": { "key": retired, "expired_ts": 5 } }),
    );
    sign_json(&mut theirs, &server("a.example"), &ours);
    sign_json(&mut theirs, &server("a.example"), &other);
    let predecessor = KeyDocument::parse(bytes(&theirs)).unwrap();

    let minted = mint(&server("a.example"), &ours, Some(&predecessor), day(20));

    assert_eq!(KeyDocument::parse(minted.raw().clone()), Ok(minted.clone()));
    assert_eq!(minted.old_verify_keys(), predecessor.old_verify_keys());
    assert_eq!(minted.verify_keys().keys().collect::<Vec<_>>(), [ours.id()]);
    assert_eq!(minted.valid_until(), day(20));

    let first = mint(&server("a.example"), &ours, None, day(20));
    assert_eq!(KeyDocument::parse(first.raw().clone()), Ok(first));
}

#[test]
fn a_document_that_two_keys_signed_lets_whoever_believes_the_old_one_believe_the_new_one() {
    let (name, old, new) = (server("a.example"), key("old"), key("new"));
    let retired = [
        (old.id().clone(), (old.public_key(), day(1))),
        ("ed25519:0".parse().unwrap(), (key("0").public_key(), day(1))),
    ];
    let believed = BelievedDocument {
        document: mint(&name, &old, None, day(20)),
        evidence: Evidence::Fetched,
        learned_at: day(1),
    };
    let offered = |document: KeyDocument| {
        let evidence = Evidence::FirstContact;
        replacement(Some(&believed), &BelievedDocument { document, evidence, learned_at: day(2) })
    };

    let minted = mint_signed_by(&name, &[&new, &old], retired.into(), day(21));

    assert_eq!(KeyDocument::parse(minted.raw().clone()), Ok(minted.clone()));
    let listed: Vec<_> = minted.verify_keys().keys().collect();
    assert_eq!(listed, [new.id(), old.id()]);
    assert_eq!(minted.old_verify_keys().len(), 1, "a key in use is not retired");
    assert_eq!(offered(minted), Replacement::Replace);
    assert_eq!(offered(mint(&name, &new, None, day(21))), Replacement::Keep);
}

#[test]
fn a_notary_adds_its_signature_and_leaves_the_others() {
    let (own, notary) = (key("own"), key("notary"));
    let mut object = object(&[&own], &[&own]);
    object.insert("unsigned".into(), json!({ "age": 1 }));
    let document = KeyDocument::parse(bytes(&object)).unwrap();
    let relay = server("relay.example");
    assert!(!document.is_signed_by(&relay, notary.id(), &notary.public_key()));

    let countersigned = document.countersigned(&relay, &notary);

    assert_eq!(canonicalise(&countersigned).unwrap(), &countersigned[..]);
    let served = KeyDocument::parse(countersigned.clone()).unwrap();
    assert!(served.is_signed_by(&relay, notary.id(), &notary.public_key()));
    assert!(served.is_signed_by(&server("a.example"), own.id(), &own.public_key()));
    assert_eq!(served.countersigned(&relay, &notary), countersigned);
}

#[test]
fn a_notary_signs_number_lexemes_as_the_origin_wrote_them() {
    let own = key("own");
    let signature = own.sign(
        format!(
            r#"{{"server_name":"a.example","valid_until_ts":1,"verify_keys":{{"ed25519:own":{{"key":"{}"}}}},"x":1.50e1}}"#,
            own.public_key().to_base64()
        )
        .as_bytes(),
    );
    let raw = format!(
        r#"{{"x":1.50e1,"server_name":"a.example","valid_until_ts":1,"verify_keys":{{"ed25519:own":{{"key":"{}"}}}},"signatures":{{"a.example":{{"ed25519:own":"{}"}},"relay.example":5}}}}"#,
        own.public_key().to_base64(),
        signature.to_base64()
    );
    let document = KeyDocument::parse(raw.into()).unwrap();
    let served = document.countersigned(&server("relay.example"), &key("notary"));
    assert!(String::from_utf8_lossy(&served).contains(r#""x":1.50e1"#));
    let served = KeyDocument::parse(served).unwrap();
    let notary = key("notary");
    assert!(served.is_signed_by(&server("relay.example"), notary.id(), &notary.public_key()));
}

#[test]
fn a_notary_leaves_the_others_signatures_whatever_stands_among_them() {
    let own = key("own");
    let document = mint(&server("a.example"), &own, None, day(1));
    let text = std::str::from_utf8(document.raw()).unwrap();
    let deep = format!("{}{}", "[".repeat(125), "]".repeat(125));
    for odd in ["1e999", r#"{"ed25519:x":1e999}"#, &deep] {
        let raw =
            text.replace(r#""signatures":{"#, &format!(r#""signatures":{{"b.example":{odd},"#));
        let document = KeyDocument::parse(raw.into()).unwrap();
        let served = document.countersigned(&server("relay.example"), &key("notary"));
        let served = KeyDocument::parse(served).unwrap();
        assert!(served.is_signed_by(&server("a.example"), own.id(), &own.public_key()), "{odd}");
        let notary = key("notary");
        assert!(served.is_signed_by(&server("relay.example"), notary.id(), &notary.public_key()));
    }
}

#[test]
fn a_notary_answer_is_read_without_the_documents_that_do_not_verify() {
    let own = key("own");
    let good = mint(&server("a.example"), &own, None, day(1));
    let unsigned = bytes(&object(&[&own], &[]));
    let answer = NotaryResponse::to_json(&[good.raw().clone(), unsigned, Bytes::from("5")]);
    assert_eq!(NotaryResponse::parse(&answer).unwrap().server_keys, std::slice::from_ref(&good));
    let empty = NotaryResponse::to_json(&[]);
    assert_eq!(empty, br#"{"server_keys":[]}"#);
    assert!(NotaryResponse::parse(&empty).unwrap().server_keys.is_empty());
    let many = NotaryResponse::to_json(&vec![good.raw().clone(); NOTARY_DOCUMENTS_MAX + 1]);
    assert_eq!(NotaryResponse::parse(&many).unwrap().server_keys.len(), NOTARY_DOCUMENTS_MAX);
    assert!(NotaryResponse::parse(b"{}").is_err());
}

#[test]
fn signed_json_is_verified_over_the_bytes_that_were_received() {
    let (key, origin) = (key("1"), server("a.example"));
    let id = key.id().clone();
    let verify = |json: &str| verify_json(json.as_bytes(), &origin, &id, &key.public_key());
    let signature = key.sign(br#"{"a":1.0,"b":12345678901234567890}"#).to_base64();
    let json = format!(
        r#"{{"unsigned":{{"c":1}},"b":12345678901234567890,"a":1.0,"signatures":{{"a.example":{{"ed25519:1":"{signature}"}}}}}}"#
    );
    assert_eq!(verify(&json), Ok(()));
    assert!(matches!(verify(&json.replace("1.0", "1")), Err(SignedJsonError::Bad(_))));
    assert!(matches!(
        verify(&json.replace("ed25519:1", "ed25519:2")),
        Err(SignedJsonError::Missing { .. })
    ));
    assert!(matches!(
        verify(&json.replace("a.example", "b.example")),
        Err(SignedJsonError::Missing { .. })
    ));
    assert!(matches!(
        verify(r#"{"signatures":{"a.example":{"ed25519:1":"x"}}}"#),
        Err(SignedJsonError::Bad(_))
    ));
    assert!(matches!(verify(r#"{"signatures":[]}"#), Err(SignedJsonError::Missing { .. })));
    assert!(matches!(verify("[]"), Err(SignedJsonError::Json(_))));
}

const LADDER: [Evidence; 5] = [
    Evidence::FirstContact,
    Evidence::Event,
    Evidence::Vouched,
    Evidence::Fetched,
    Evidence::NameIsKey,
];

fn believed(keys: &[&SigningKey], valid_until: Timestamp, evidence: Evidence) -> BelievedDocument {
    BelievedDocument {
        document: document(keys, valid_until),
        evidence,
        learned_at: Timestamp::EPOCH,
    }
}

#[test]
fn first_contact_is_never_believed_by_itself() {
    let (old, new) = (key("old"), key("new"));
    let candidate = believed(&[&new], day(99), Evidence::FirstContact);
    assert_eq!(replacement(None, &candidate), Replacement::Keep);
    for evidence in LADDER {
        let current = believed(&[&old], day(1), evidence);
        assert_eq!(replacement(Some(&current), &candidate), Replacement::Keep, "{evidence:?}");
    }
    let both = believed(&[&old, &new], day(99), Evidence::FirstContact);
    let unbelieved = believed(&[&old], day(1), Evidence::FirstContact);
    assert_eq!(replacement(Some(&unbelieved), &both), Replacement::Keep);
}

#[test]
fn a_document_that_the_believed_key_signs_prolongs_or_rotates_whatever_its_evidence() {
    let (old, new) = (key("old"), key("new"));
    let current = believed(&[&old], day(5), Evidence::Fetched);
    for evidence in [Evidence::FirstContact, Evidence::Event, Evidence::Vouched] {
        let prolonged = believed(&[&old], day(6), evidence);
        assert_eq!(replacement(Some(&current), &prolonged), Replacement::Replace);
        let rotated = believed(&[&old, &new], day(6), evidence);
        assert_eq!(replacement(Some(&current), &rotated), Replacement::Replace);
        let replayed = believed(&[&old], day(4), evidence);
        assert_eq!(replacement(Some(&current), &replayed), Replacement::Keep);
        let foreign = believed(&[&new], day(6), evidence);
        assert_eq!(replacement(Some(&current), &foreign), Replacement::Keep);
    }
}

#[test]
fn a_retired_key_does_not_rotate() {
    let (retired, thief) = (key("retired"), key("thief"));
    let mut object = object(&[&key("now")], &[]);
    let old =
        json!({ "ed25519:retired": { "key": retired.public_key().to_base64(), "expired_ts": 5 } });
    object.insert("old_verify_keys".into(), old);
    sign_json(&mut object, &server("a.example"), &key("now"));
    let current = BelievedDocument {
        document: KeyDocument::parse(bytes(&object)).unwrap(),
        evidence: Evidence::Event,
        learned_at: Timestamp::EPOCH,
    };
    let candidate = believed(&[&retired, &thief], day(99), Evidence::FirstContact);
    assert_eq!(replacement(Some(&current), &candidate), Replacement::Keep);
}

#[test]
fn a_key_under_the_believed_id_is_not_the_believed_key() {
    let own = key("1");
    let thief = SigningKey::from_seed("ed25519:1".parse::<KeyId>().unwrap(), &[9; 32]);
    let current = believed(&[&own], day(5), Evidence::Event);
    let candidate = believed(&[&thief], day(99), Evidence::FirstContact);
    assert_eq!(replacement(Some(&current), &candidate), Replacement::Keep);
}

#[test]
fn a_document_about_another_server_replaces_nothing() {
    let own = key("1");
    let current = believed(&[&own], day(5), Evidence::Event);
    let candidate = BelievedDocument {
        document: mint(&server("b.example"), &own, None, day(9)),
        evidence: Evidence::NameIsKey,
        learned_at: Timestamp::EPOCH,
    };
    assert_eq!(replacement(Some(&current), &candidate), Replacement::Keep);
}

#[test]
fn a_later_fetch_wins_over_a_document_valid_for_ever() {
    let (old, new) = (key("old"), key("new"));
    let first = believed(&[&old], day(100_000), Evidence::Fetched);
    let mut later = believed(&[&new], day(1), Evidence::Fetched);
    later.learned_at = day(1);
    assert_eq!(replacement(Some(&first), &later), Replacement::Replace);
    assert_eq!(replacement(Some(&later), &first), Replacement::Keep);
}

proptest! {
    #[test]
    fn stronger_evidence_replaces_weaker_and_is_never_replaced_by_it(
        current in 0..5_usize, candidate in 0..5_usize, until in 1..9_u64, candidate_until in 1..9_u64,
    ) {
        let (old, new) = (key("old"), key("new"));
        let stands = believed(&[&old], day(until), LADDER[current]);
        let comes = believed(&[&new], day(candidate_until), LADDER[candidate]);
        let replaces = candidate > 0
            && (candidate > current
                || (candidate == current
                    && (candidate_until > until || LADDER[candidate] == Evidence::Fetched)));
        let expected = if replaces { Replacement::Replace } else { Replacement::Keep };
        prop_assert_eq!(replacement(Some(&stands), &comes), expected);
        let expected = if candidate > 0 { Replacement::Replace } else { Replacement::Keep };
        prop_assert_eq!(replacement(None, &comes), expected);
    }

    // A fetch is no offer that comes again: each one speaks for its own moment, and the later one wins.
    #[test]
    fn two_documents_offered_in_turn_settle_on_one(
        left in (prop::sample::select(vec![0_usize, 1, 2, 4]), 1..4_u64, any::<bool>()),
        right in (prop::sample::select(vec![0_usize, 1, 2, 4]), 1..4_u64, any::<bool>()),
    ) {
        let (old, new) = (key("old"), key("new"));
        let [left, right] = [left, right].map(|(evidence, until, rotated)| {
            let keys: &[&SigningKey] = if rotated { &[&old, &new] } else { &[&old] };
            believed(keys, day(until), LADDER[evidence])
        });
        let mut current = None;
        let mut last_change = 0;
        for (turn, candidate) in [&left, &right].into_iter().cycle().take(12).enumerate() {
            if replacement(current.as_ref(), candidate) == Replacement::Replace {
                let evidence = current.map_or(candidate.evidence, |current: BelievedDocument| {
                    current.evidence.max(candidate.evidence)
                });
                current = Some(BelievedDocument { evidence, ..candidate.clone() });
                last_change = turn;
            }
        }
        prop_assert!(last_change < 4, "changed on turn {last_change}");
    }
}

#[test]
fn a_vouched_document_valid_for_ever_does_not_keep_later_ones_out() {
    let (old, new) = (key("old"), key("new"));
    let first = believed(&[&old], day(100_000), Evidence::Vouched);
    let mut later = believed(&[&new], day(50), Evidence::Vouched);
    later.learned_at = day(20);
    assert_eq!(replacement(Some(&first), &later), Replacement::Replace);
}
