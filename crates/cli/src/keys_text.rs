//! Keys of servers as text for a person.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::time_text::time;

/// A key document, as the admin API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    server_name: String,
    keys: Vec<Key>,
    valid_until: i64,
    evidence: Option<String>,
    learned_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Key {
    key_id: String,
    key: String,
}

/// What the admin API answers to `GET /keys/SERVER`.
#[derive(Debug, Deserialize)]
pub(crate) struct About {
    pub(crate) server_name: String,
    pub(crate) believed: Option<Shown>,
    pub(crate) offered: Vec<Offer>,
}

/// What unverified mail brought along.
#[derive(Debug, Deserialize)]
pub(crate) struct Offer {
    #[serde(flatten)]
    shown: Shown,
    /// The document itself.
    pub(crate) document: Box<RawValue>,
    envelopes: u64,
    relays: Vec<String>,
}

impl Offer {
    /// Whether it lists this key; then the key's owner made it, since every key that is listed signs.
    pub(crate) fn lists(&self, wanted: &str) -> bool {
        self.shown.keys.iter().any(|key| key.key == wanted.trim_end_matches('='))
    }
}

/// All that is believed, a paragraph a server.
pub(crate) fn list(believed: &[Shown]) -> String {
    let mut text = String::new();
    if believed.is_empty() {
        line(&mut text, "no keys of other servers are known yet");
    }
    for shown in believed {
        line(&mut text, &shown.server_name);
        document(&mut text, shown);
    }
    text
}

/// One server.
pub(crate) fn about(about: &About) -> String {
    let mut text = String::new();
    let server = &about.server_name;
    match &about.believed {
        Some(believed) => {
            line(&mut text, &format!("believed of {server}"));
            document(&mut text, believed);
        }
        None => line(&mut text, &format!("nothing is believed of {server}")),
    }
    text.push_str(&offers(&about.offered));
    text
}

/// What unverified mail offers.
pub(crate) fn offers(offered: &[Offer]) -> String {
    let mut text = String::new();
    for offer in offered {
        let (count, relays) = (offer.envelopes, offer.relays.join(", "));
        let heading =
            format!("\noffered by unverified mail ({count}, from {relays}); not believed");
        line(&mut text, &heading);
        document(&mut text, &offer.shown);
    }
    text
}

fn document(text: &mut String, shown: &Shown) {
    for Key { key_id, key } in &shown.keys {
        line(text, &format!("  {key_id} {key}"));
    }
    line(text, &format!("  valid until {}", time(shown.valid_until)));
    if let Some(evidence) = &shown.evidence {
        let learned = shown.learned_at.map(|at| format!(", {}", time(at))).unwrap_or_default();
        line(text, &format!("  {evidence}{learned}"));
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn shown(key: &str) -> Value {
        json!({
            "server_name": "a.test", "keys": [{ "key_id": "ed25519:a_1", "key": key }],
            "valid_until": 1_700_000_000_000_u64, "document": { "server_name": "a.test" },
        })
    }

    fn believed() -> Value {
        let mut shown = shown("KEY");
        shown["evidence"] = json!("fetched");
        shown["learned_at"] = json!(1_600_000_000_000_u64);
        shown
    }

    #[test]
    fn a_believed_document_shows_its_keys_and_why_it_is_believed() {
        let text = list(&serde_json::from_value::<Vec<Shown>>(json!([believed()])).unwrap());
        let expected = "a.test\n  ed25519:a_1 KEY\n  valid until 2023-11-14T22:13:20Z\n  \
                        fetched, 2020-09-13T12:26:40Z\n";
        assert_eq!(text, expected);
        assert_eq!(list(&[]), "no keys of other servers are known yet\n");
    }

    #[test]
    fn what_is_offered_is_told_from_what_is_believed() {
        let mut offered = shown("OTHER");
        offered["envelopes"] = json!(3);
        offered["relays"] = json!(["relay.test", "other.test"]);
        let json = json!({ "server_name": "a.test", "believed": believed(), "offered": [offered] });
        // As text, because a raw document is only read from text.
        let about_server: About = serde_json::from_str(&json.to_string()).unwrap();
        let text = about(&about_server);
        assert!(text.starts_with("believed of a.test\n  ed25519:a_1 KEY\n"), "{text}");
        let offer = "\noffered by unverified mail (3, from relay.test, other.test); not believed\n  \
                     ed25519:a_1 OTHER\n";
        assert!(text.contains(offer), "{text}");
        assert!(about_server.offered[0].lists("OTHER=") && !about_server.offered[0].lists("KEY"));
    }
}
