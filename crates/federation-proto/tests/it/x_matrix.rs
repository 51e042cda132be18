//! X-Matrix against recorded vectors: `vectors/x-matrix.json`, computed with Python signedjson and
//! compared with gomatrixserverlib.

use proptest::prelude::*;
use restante_federation_proto::{
    BadSignature, KeyId, PublicKey, RequestTarget, ServerName, SignableRequest, Signature,
    SigningKey, XMatrix, XMatrixError, canonicalise, escape_path_segment, unescape_path_segment,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/x-matrix.json")).unwrap()
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap_or_else(|| panic!("the vector has no {name}"))
}

fn signing_key(key_id: &str) -> SigningKey {
    let seed = std::array::from_fn(|position| u8::try_from(position).unwrap());
    SigningKey::from_seed(key_id.parse().unwrap(), &seed)
}

#[test]
fn requests_are_signed_and_verified_as_other_implementations_do() {
    for vector in vectors()["vectors"].as_array().unwrap() {
        let name = text(vector, "name");
        let key = signing_key(text(vector, "key_id"));
        let target: RequestTarget = text(vector, "uri").parse().unwrap();
        let origin: ServerName = text(vector, "origin").parse().unwrap();
        let destination: ServerName = text(vector, "destination").parse().unwrap();
        let content = vector["body"].as_str().map(|body| canonicalise(body.as_bytes()).unwrap());
        let request = SignableRequest {
            method: text(vector, "method"),
            target: &target,
            origin: &origin,
            destination: Some(&destination),
            content: content.as_deref(),
        };
        let bytes = request.to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), text(vector, "canonical_json"), "{name}");
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, text(vector, "canonical_sha256"), "{name}");

        let header = request.sign(&key);
        assert_eq!(header.signature.to_base64(), text(vector, "signature"), "{name}");
        assert_eq!(header.to_string(), text(vector, "authorization"), "{name}");
        let received: XMatrix = text(vector, "authorization").parse().unwrap();
        assert_eq!(received, header, "{name}");
        assert_eq!(request.verify(&key.public_key(), &received.signature), Ok(()), "{name}");
        let elsewhere = SignableRequest { destination: None, ..request };
        let verdict = elsewhere.verify(&key.public_key(), &received.signature);
        assert_eq!(verdict, Err(BadSignature), "{name}");

        if let Some(body) = vector["body_as_sent_by_gomatrixserverlib"].as_str() {
            assert_eq!(String::from_utf8_lossy(&content.unwrap()), body, "{name}");
        }
    }
}

#[test]
fn the_key_of_the_vectors_is_read_and_written() {
    let vectors = vectors();
    let key = signing_key("ed25519:auto").public_key();
    assert_eq!(key.to_base64(), text(&vectors, "public_key_base64"));
    assert_eq!(PublicKey::from_base64(text(&vectors, "public_key_base64")), Ok(key.clone()));
    assert_eq!(ServerName::of_key(&key).as_str(), text(&vectors, "public_key_hex"));
    let name: ServerName = text(&vectors, "public_key_hex").parse().unwrap();
    assert_eq!(name.public_key(), Some(key));
}

#[test]
fn paths_are_escaped_as_go_does() {
    for (segment, escaped) in vectors()["go_path_escape"].as_object().unwrap() {
        assert_eq!(escape_path_segment(segment), escaped.as_str().unwrap());
        assert_eq!(unescape_path_segment(escaped.as_str().unwrap()).as_ref(), Some(segment));
    }
}

#[test]
fn canonical_json_follows_the_advice_where_implementations_differ() {
    let expected = [
        Some("{\"b\":-0.5}"),
        Some("{\"a\":0}"),
        Some("{\"d\":1.0,\"e\":1e3}"),
        Some("{\"f\":12345678901234567890}"),
        Some("{\"a\":2,\"a\\\"b\":1}"),
        None,
        None,
    ];
    let vectors = vectors();
    let differences = vectors["canonical_json_differences"].as_array().unwrap();
    assert_eq!(differences.len(), expected.len());
    for (difference, expected) in differences.iter().zip(expected) {
        let canonical = canonicalise(text(difference, "input").as_bytes()).ok();
        assert_eq!(canonical.as_deref(), expected.map(str::as_bytes), "{difference}");
    }
}

const SIG: &str =
    "aV8D/uXgGq2aIPsG4n87QNNNCRhFjWoPOK987v5qyzEHkqHS7gygHFWnjXYFyyuctSeBvEI82/xhBqELoWjUCg";

fn parse(header: &str) -> Result<XMatrix, XMatrixError> {
    header.replace("%S", SIG).parse()
}

#[test]
fn headers_are_accepted_in_every_form_that_servers_send() {
    let url_safe = SIG.replace('/', "_").replace('+', "-");
    let canonical = parse(
        r#"X-Matrix origin="a.example",key="ed25519:k",sig="%S",destination="b.example:8448""#,
    );
    assert!(canonical.is_ok());
    for header in [
        r#"X-Matrix origin=a.example,key=ed25519:k,sig=%S,destination=b.example:8448"#,
        r#"x-mATRIX ORIGIN="a.example",Key="ed25519:k",SIG="%S",Destination="b.example:8448""#,
        r#"X-Matrix   origin="a.example" , key="ed25519:k",  sig="%S"	,destination="b.example:8448"  "#,
        r#"X-Matrix destination="b.example:8448",sig="%S",key="ed25519:k",origin="a.example""#,
        r#"X-Matrix origin = "a.example",key= "ed25519:k",sig ="%S",destination="b.example:8448""#,
        r#"X-Matrix ,origin="a.example",,key="ed25519:k",sig="%S",destination="b.example:8448","#,
        r#"X-Matrix origin="a\.exa\mple",key="ed25519:k",sig="%S",destination="b.example:8448""#,
        r#"X-Matrix future="a, \"b\"",x=y,x=z,origin="a.example",key="ed25519:k",sig="%S",destination="b.example:8448""#,
        r#"X-Matrix origin="a.example",key="ed25519:k",sig="%S==",destination="b.example:8448""#,
        r#"X-Matrix origin=a.example,key=ed25519:k,sig=%S==,destination=b.example:8448"#,
        &format!(
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="{url_safe}",destination="b.example:8448""#
        ),
    ] {
        assert_eq!(parse(header), canonical, "{header}");
    }
    let old = parse(r#"X-Matrix origin=[::1]:8448,key="ed25519:k",sig="%S""#).unwrap();
    assert_eq!((old.origin.as_str(), old.destination), ("[::1]:8448", None));
}

#[test]
fn a_header_that_is_not_x_matrix_says_what_is_wrong() {
    use XMatrixError::{Duplicate, Invalid, Missing, OtherScheme};
    for (header, error) in [
        ("", OtherScheme),
        ("Bearer abc", OtherScheme),
        (r#"X-Matrixorigin="a.example""#, OtherScheme),
        ("X-Matrix", Missing("origin")),
        (r#"X-Matrix origin="a.example",sig="%S""#, Missing("key")),
        (r#"X-Matrix origin="a.example",key="ed25519:k""#, Missing("sig")),
        (
            r#"X-Matrix origin=a.example,key="ed25519:k",sig="%S",ORIGIN=b.example"#,
            Duplicate("origin"),
        ),
        (r#"X-Matrix origin=a.example,key="ed25519:k",sig="%S",sig="%S""#, Duplicate("sig")),
        (r#"X-Matrix origin="a b",key="ed25519:k",sig="%S""#, Invalid("origin")),
        (r#"X-Matrix origin="",key="ed25519:k",sig="%S""#, Invalid("origin")),
        (
            r#"X-Matrix origin="a.example",destination="",key="ed25519:k",sig="%S""#,
            Invalid("destination"),
        ),
        (r#"X-Matrix origin="a.example",key="curve25519:k",sig="%S""#, Invalid("key")),
        (r#"X-Matrix origin="a.example",key="ed25519:k",sig="%Sx""#, Invalid("sig")),
    ] {
        assert_eq!(parse(header), Err(error), "{header}");
    }
    for header in [
        "X-Matrix origin",
        r#"X-Matrix origin="a.example"#,
        r#"X-Matrix origin="a.example\"#,
        r#"X-Matrix origin="a.example"key="ed25519:k""#,
        r#"X-Matrix origin=a.example key="ed25519:k""#,
        r#"X-Matrix origin=a"b"#,
        r#"X-Matrix origin=,key=ed25519:k"#,
        r#"X-Matrix =a"#,
        r#"X-Matrix "origin"=a"#,
    ] {
        assert!(matches!(parse(header), Err(XMatrixError::Malformed(_))), "{header}");
    }
}

#[test]
fn what_gomatrixserverlib_accepts_is_accepted() {
    let headers = [
        ("destination parameter missing", r#"X-Matrix origin="a.b",key="ed25519:k",sig="%S""#),
        (
            "unquoted values, colon in key",
            r#"X-Matrix origin=a.b,key=ed25519:k,sig="%S",destination=c.d"#,
        ),
        ("spaces after commas", r#"X-Matrix origin="a.b", key="ed25519:k", sig="%S""#),
        ("two spaces after scheme", r#"X-Matrix  origin="a.b",key="ed25519:k",sig="%S""#),
        ("sig parameter missing", r#"X-Matrix origin="a.b",key="ed25519:k""#),
        ("origin is not a server name", r#"X-Matrix origin="a b",key="ed25519:k",sig="%S""#),
        ("key algorithm other than ed25519", r#"X-Matrix origin="a.b",key="rsa:k",sig="%S""#),
        ("sig in URL-safe base64", r#"X-Matrix origin="a.b",key="ed25519:k",sig="%U""#),
    ];
    let vectors = vectors();
    let observed = vectors["gomatrixserverlib_observed_status"].as_array().unwrap();
    for (case, header) in headers {
        let observed = observed.iter().find(|observed| observed["case"] == case).unwrap();
        let header = header.replace("%U", &SIG.replace('/', "_").replace('+', "-"));
        assert_eq!(parse(&header).is_ok(), observed["status"] == 200, "{case}");
    }
}

#[test]
fn targets_that_implementations_escape_differently_are_refused() {
    for target in ["/", "/_matrix/a%2Fb/../c?x=y&z=%20|`'", "//", "/a#b"] {
        assert_eq!(target.parse::<RequestTarget>().unwrap().as_str(), target);
    }
    for target in
        ["", "a", "http://a/b", "*", "/\"", "/\\", "/<", "/>", "/ ", "/\n", "/\u{7f}", "/é"]
    {
        assert!(target.parse::<RequestTarget>().is_err(), "{target:?}");
    }
}

proptest! {
    #[test]
    fn parsing_undoes_writing(
        origin in "[a-z0-9.-]{1,40}(:[0-9]{1,4})?",
        key_id in "ed25519:[!-~]{1,40}",
        message in any::<Vec<u8>>(),
        destination in prop::option::of("(\\[::1\\]|[a-z]{1,9})(:[0-9]{1,4})?"),
    ) {
        let header = XMatrix {
            origin: origin.parse().unwrap(),
            destination: destination.map(|name| name.parse().unwrap()),
            key_id: key_id.parse::<KeyId>().unwrap(),
            signature: signing_key("ed25519:k").sign(&message),
        };
        prop_assert_eq!(header.to_string().parse::<XMatrix>(), Ok(header));
    }

    #[test]
    fn no_header_makes_the_parser_panic(rest in any::<String>(), base64 in any::<String>()) {
        let _ = format!("X-Matrix {rest}").parse::<XMatrix>();
        let _ = Signature::from_base64(&base64);
    }
}
