//! The node's relays: each answers a collect in this server's name, and can reach this server.

use std::time::Duration;

use http::{Method, StatusCode};
use restante_federation::{BaseUrl, FederationClient, Identity, Peer};
use restante_federation_proto::{Clock as _, NotaryResponse, ServerName, SystemClock, Timestamp};
use restante_node::NodeConfig;
use restante_relay_api::endpoints::{COLLECT, KEY_QUERY};
use restante_relay_api::{CollectRequest, CollectResponse};
use serde_json::{Value, json};

use super::inbound::has_key;
use crate::admin_client::AdminClient;
use crate::amounts_text::envelopes;
use crate::doctor::caller::{Answer, Callee};
use crate::doctor::report::{Outcome, Report};

/// Behind every envelope: the question is whether the relay answers, and what it has stays there.
const AFTER_ALL: u64 = (1 << 53) - 1;

/// The node's document is valid for 37 days when it is minted; a relay that has an older one asks for a newer.
const FRESH: Duration = Duration::from_secs(30 * 24 * 3600);

/// The relays that hold this server's mail: those that the running node knows, else those of the file.
pub(super) async fn known(config: &NodeConfig, admin: Option<&AdminClient>) -> Vec<Peer> {
    let own = &config.server_name;
    let listed = match admin {
        Some(admin) => admin.get("/relays").await.ok(),
        None => None,
    };
    let Some(Value::Array(listed)) = listed else {
        let configured = config.relays.get(own).cloned().unwrap_or_default();
        return configured.into_iter().map(Into::into).collect();
    };
    let ours = listed.iter().filter(|relay| relay["server"] == own.as_str());
    ours.filter_map(|relay| {
        let name: ServerName = relay["server_name"].as_str()?.parse().ok()?;
        let url = relay["url"].as_str().and_then(|url| url.parse::<BaseUrl>().ok());
        Some(Peer::new(name, url))
    })
    .collect()
}

/// Two steps for each of them.
pub(super) async fn examine(
    report: &mut Report,
    client: &FederationClient,
    identity: &Identity,
    relays: &[Peer],
) {
    if relays.is_empty() {
        let outcome = Outcome::warn(
            "no relay holds this server's mail while it is offline",
            "get an invite from a relay's operator, and: restante relays join LINE",
        );
        return report.step("relays", outcome);
    }
    for peer in relays {
        let relay = Callee { client, peer: peer.clone() };
        let outcome = collect(&relay, identity).await;
        let answers = !outcome.is_failed();
        report.step(format!("relay {}", peer.name), outcome);
        if answers {
            report.step(format!("reached by {}", peer.name), reached(&relay, identity).await);
        }
    }
}

async fn collect(relay: &Callee<'_>, identity: &Identity) -> Outcome {
    let request = CollectRequest {
        after: AFTER_ALL,
        acknowledge: Vec::new(),
        have: Vec::new(),
        limit: 1,
        max_bytes: 1,
        wait_ms: 0,
        heard_until: None,
        signed_at: SystemClock.now(),
    };
    let body = request.to_canonical_json();
    let Ok(target) = COLLECT.parse() else { return Outcome::skipped("no target") };
    match relay.signed(identity, Method::POST, &target, body).await {
        Ok(answer) if answer.status == StatusCode::OK => match CollectResponse::parse(&answer.body)
        {
            Ok(collected) => {
                Outcome::ok(format!("answers; {} waiting there", envelopes(collected.queued.count)))
            }
            Err(_) => Outcome::failed(
                "the answer is none to a collect",
                "see that the relay is of the same version",
            ),
        },
        Ok(answer) => refused(&answer, &relay.peer.name),
        Err(error) => Outcome::failed(
            error,
            "see that the relay runs, that its URL is right (restante relays list), and that this machine reaches it",
        ),
    }
}

fn refused(answer: &Answer, relay: &ServerName) -> Outcome {
    if let Some(now) = answer.json()["now"].as_u64().map(Timestamp::from_millis) {
        let own = SystemClock.now();
        let apart = own.since(now).max(now.since(own)).as_secs();
        return Outcome::failed(
            format!("its clock is {apart} s apart from this machine's"),
            "set this machine's clock by NTP: timedatectl set-ntp true; if that is right, tell the relay's operator",
        );
    }
    let what_to_do = match answer.status {
        StatusCode::FORBIDDEN => format!("register there with an invite of its operator: restante relays join LINE (relay {relay})"),
        StatusCode::UNAUTHORIZED => "see the step on the homeserver's key, and that the relay can fetch it: the step on the own name".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "the relay can't check this server's key yet: see the step on the own name, and try again in some minutes".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => "try again in a minute; if it stays so, ask the relay's operator".to_owned(),
        _ => "ask the relay's operator, who finds the reason in the relay's log".to_owned(),
    };
    Outcome::failed(answer.refusal(), what_to_do)
}

/// Whether the relay could fetch this server's keys through the inbound door, which it does as a key notary.
async fn reached(relay: &Callee<'_>, identity: &Identity) -> Outcome {
    let own = &identity.server_name;
    if own.public_key().is_some() {
        return Outcome::skipped("the server is named by its key; the relay need not reach it");
    }
    let fresh = SystemClock.now().after(FRESH);
    let question = json!({ "server_keys": { own.as_str(): {
        identity.key.id().as_str(): { "minimum_valid_until_ts": fresh },
    } } });
    let what_to_do = format!(
        "see that {own} leads to the inbound door from outside: DNS, port 8448 or a well-known file, reverse proxy, certificate"
    );
    let answer = match relay.post(KEY_QUERY, question.to_string().into_bytes()).await {
        Ok(answer) if answer.status.is_success() => answer,
        Ok(answer) => return Outcome::warn(answer.refusal(), "ask the relay's operator"),
        Err(error) => return Outcome::warn(error, "ask the relay's operator"),
    };
    let documents = NotaryResponse::parse(&answer.body).map(|response| response.server_keys);
    let documents = documents.unwrap_or_default();
    let Some(document) = documents.iter().find(|document| document.server_name() == own) else {
        return Outcome::warn(
            "it has no key document of this server, so it can't have reached it",
            what_to_do,
        );
    };
    if !has_key(document, identity) {
        return Outcome::failed(
            "it has a key document of this server without the key in use",
            format!(
                "{what_to_do}; it fetched the document elsewhere, or before the key was changed"
            ),
        );
    }
    if document.valid_until() < fresh {
        return Outcome::warn(
            "it has an older key document, and could not fetch a newer one now",
            what_to_do,
        );
    }
    Outcome::ok("it has fetched this server's keys")
}
