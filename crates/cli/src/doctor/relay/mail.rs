//! The last steps on a relay: a throw-away server registers, gets mail, collects it, and leaves.

use http::{Method, StatusCode};
use restante_federation_proto::{Clock as _, SystemClock, Timestamp, escape_path_segment};
use restante_relay::{RelayConfig, Serve};
use restante_relay_api::endpoints::mailbox_user_id;
use restante_relay_api::{CollectAcknowledgement, CollectResponse, InviteLine, hex};
use serde_json::json;

use super::LongPoll;
use crate::admin_client::AdminClient;
use crate::doctor::caller::{Answer, Callee};
use crate::doctor::report::{Outcome, Report};
use crate::doctor::throwaway::{Parcel, Throwaway};

/// What is taken off the largest body for the members beside the content.
const BESIDE_PADDING: usize = 256 * 1024;

/// As long as nodes wait.
const LONG_POLL_MS: u64 = 30_000;

/// How long the doctor's own invite is good for.
const INVITE_MS: u64 = 600_000;

/// Answers that may hold what was left: two parcels, which come one at a time if they are large, and room to spare.
const COLLECT_ROUNDS_MAX: usize = 8;

/// What to do where a signed request is refused that was signed well.
const CHANGED_ON_THE_WAY: &str = "have the proxy pass requests on as they come: nginx with proxy_pass without a path and proxy_request_buffering as in contrib/nginx, Caddy as in contrib/caddy";

/// Registers, tries everything, and leaves in any case.
pub(super) async fn examine(
    report: &mut Report,
    relay: &Callee<'_>,
    config: &RelayConfig,
    operators: Option<&AdminClient>,
    long_poll: LongPoll,
) {
    let throwaway = Throwaway::new();
    let door = match wanted_door(report, config, operators) {
        Ok(door) => door,
        Err(Unavailable) => return,
    };
    let invite = match door {
        Some(door) => match invite(report, &throwaway, door).await {
            Ok(invite) => Some(invite),
            Err(Unavailable) => return,
        },
        None => None,
    };
    let token = invite.as_ref().map(|invite| invite.token.clone());
    match registered(report, &throwaway, relay, token).await {
        Registered::Yes => {}
        Registered::No => {
            if let (Some(door), Some(invite)) = (door, invite) {
                revoke(report, door, &invite.id).await;
            }
            return;
        }
        Registered::PerhapsUnheard => {
            leave(report, &throwaway, relay).await;
            if let (Some(door), Some(invite)) = (door, invite) {
                revoke(report, door, &invite.id).await;
            }
            return;
        }
    }
    paths(report, &throwaway, relay).await;
    let small = parcel(report, &throwaway, relay, "deposit", 0).await;
    let large = parcel(report, &throwaway, relay, "large deposit", padding(config)).await;
    let parcels: Vec<Parcel> = [small, large].into_iter().flatten().collect();
    if !parcels.is_empty() {
        collect(report, &throwaway, relay, &parcels).await;
    }
    if long_poll == LongPoll::Tried {
        wait(report, &throwaway, relay).await;
    }
    leave(report, &throwaway, relay).await;
}

/// The relay's operators' door can't be asked for an invite.
struct Unavailable;

/// An invite that is not used yet.
struct MadeInvite {
    id: String,
    token: String,
}

/// The door that is asked for an invite, if the relay wants one.
fn wanted_door<'a>(
    report: &mut Report,
    config: &RelayConfig,
    operators: Option<&'a AdminClient>,
) -> Result<Option<&'a AdminClient>, Unavailable> {
    if config.serve == Serve::Open {
        return Ok(None);
    }
    if operators.is_none() {
        let why = "the operators' door gave no invite, and only invited servers are served";
        report.step("deposit and collect", Outcome::skipped(why));
        return Err(Unavailable);
    }
    Ok(operators)
}

/// An invite for the throw-away server alone: whoever reads it on the way has no use for it.
async fn invite(
    report: &mut Report,
    throwaway: &Throwaway,
    door: &AdminClient,
) -> Result<MadeInvite, Unavailable> {
    let server = &throwaway.recipient.server_name;
    let wanted = json!({ "server": server, "expires_in_ms": INVITE_MS, "note": "restante doctor" });
    let made = match door.post("/invites", &wanted).await {
        Ok(made) => made,
        Err(error) => {
            report.step("invite", Outcome::failed(format!("{error:#}"), "see the relay's log"));
            return Err(Unavailable);
        }
    };
    let id = super::text(&made, "id");
    let line = super::text(&made, "line").parse::<InviteLine>();
    if let Some(token) = line.ok().and_then(|line| line.invite) {
        report.step("invite", Outcome::ok("made for a throw-away server"));
        return Ok(MadeInvite { id, token });
    }
    report.step("invite", Outcome::failed("the line has no invite", "see the relay's log"));
    revoke(report, door, &id).await;
    Err(Unavailable)
}

/// Takes back an invite that brought nothing; one that was used all the same is gone already.
async fn revoke(report: &mut Report, door: &AdminClient, id: &str) {
    let target = format!("/invites/{}", escape_path_segment(id));
    let outcome = match door.call(Method::DELETE, &target, Vec::new()).await {
        Ok(_) => Outcome::ok("the doctor's invite was taken back"),
        Err(error) => Outcome::warn(
            format!("the doctor's invite was not taken back: {error:#}"),
            "see restante mailbox invites; it is good for ten minutes, for a server that is gone",
        ),
    };
    report.step("revoke", outcome);
}

/// Whether the throw-away server is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    Yes,
    No,
    /// The answer got lost on its way, or a proxy gave it: the relay may have done it.
    PerhapsUnheard,
}

async fn registered(
    report: &mut Report,
    throwaway: &Throwaway,
    relay: &Callee<'_>,
    invite: Option<String>,
) -> Registered {
    let (outcome, registered) = match throwaway.register(relay, invite).await {
        Ok(answer) if answer.status.is_success() => {
            let text = format!("{} may get mail", throwaway.recipient.server_name);
            (Outcome::ok(text), Registered::Yes)
        }
        Ok(answer) if answer.status.is_server_error() => {
            (refused(&answer), Registered::PerhapsUnheard)
        }
        Ok(answer) => (refused(&answer), Registered::No),
        Err(error) => {
            let outcome = Outcome::failed(error, "see the log of the reverse proxy");
            (outcome, Registered::PerhapsUnheard)
        }
    };
    report.step("register", outcome);
    registered
}

/// What a proxy changes on the way shows itself as a signature that does not verify.
async fn paths(report: &mut Report, throwaway: &Throwaway, relay: &Callee<'_>) {
    let name = throwaway.recipient.server_name.as_str();
    let plain = escape_path_segment(&mailbox_user_id(&throwaway.recipient.server_name));
    let steps = [
        ("GET with a body", plain),
        // Two ways to write the same user id, one of which proxies like to change, and a slash that is none.
        ("percent-encoded path", format!("%40restante%2Fdoctor%3a{name}")),
    ];
    for (step, path) in steps {
        let outcome = match throwaway.get_with_body(relay, &path).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                Outcome::ok("came through as it was sent")
            }
            Ok(answer) if answer.status == StatusCode::FORBIDDEN => refused(&answer),
            Ok(answer) => Outcome::failed(answer.refusal(), CHANGED_ON_THE_WAY),
            Err(error) => Outcome::failed(error, CHANGED_ON_THE_WAY),
        };
        report.step(step, outcome);
    }
}

/// The largest body that fits everywhere.
fn padding(config: &RelayConfig) -> usize {
    let share = usize::try_from(config.mailbox.origin_bytes_max).unwrap_or(usize::MAX);
    config.limits.body_bytes_max.min(share).saturating_sub(BESIDE_PADDING)
}

async fn parcel(
    report: &mut Report,
    throwaway: &Throwaway,
    relay: &Callee<'_>,
    step: &str,
    padding: usize,
) -> Option<Parcel> {
    let parcel = throwaway.parcel(padding);
    let (outcome, parcel) = match parcel {
        Err(error) => (Outcome::failed(error, "report this"), None),
        Ok(parcel) => match throwaway.deposit(relay, &parcel).await {
            Ok(answer) if answer.status.is_success() => {
                let size = crate::amounts_text::bytes(parcel.content.raw().len() as u64);
                (Outcome::ok(format!("{size} taken")), Some(parcel))
            }
            Ok(answer) if answer.status == StatusCode::PAYLOAD_TOO_LARGE => (
                Outcome::failed(
                    answer.refusal(),
                    "raise the proxy's limit: nginx client_max_body_size, Caddy request_body",
                ),
                None,
            ),
            Ok(answer) => (refused(&answer), None),
            Err(error) => (
                Outcome::failed(
                    error,
                    "raise the proxy's limits for bodies and time, see contrib/nginx",
                ),
                None,
            ),
        },
    };
    report.step(step, outcome);
    parcel
}

async fn collect(
    report: &mut Report,
    throwaway: &Throwaway,
    relay: &Callee<'_>,
    parcels: &[Parcel],
) {
    let mut after = 0;
    let mut acknowledge = Vec::new();
    let mut missing: Vec<String> =
        parcels.iter().map(|parcel| hex(parcel.content.sha256())).collect();
    for _ in 0..COLLECT_ROUNDS_MAX {
        if missing.is_empty() {
            break;
        }
        let collected = match throwaway.collect(relay, after, Vec::new(), 0).await {
            Ok((_, Some(collected))) if !collected.envelopes.is_empty() => collected,
            Ok((answer, None)) => return report.step("collect", refused(&answer)),
            Ok(_) => {
                let seen = "mail that the relay took does not come out of it";
                return report.step("collect", Outcome::failed(seen, "see the relay's log"));
            }
            Err(error) => {
                let what_to_do = "raise the proxy's limits for answers and time";
                return report.step("collect", Outcome::failed(error, what_to_do));
            }
        };
        if collected.envelopes.iter().any(|envelope| envelope.id <= after) {
            let seen = format!("asked for what comes after {after}, the relay gives it again");
            return report.step("collect", Outcome::failed(seen, "see the relay's log"));
        }
        for envelope in &collected.envelopes {
            after = after.max(envelope.id);
            missing.retain(|sha256| *sha256 != envelope.sha256);
            let sha256 = Some(envelope.sha256.clone());
            acknowledge.push(CollectAcknowledgement { id: envelope.id, sha256 });
        }
    }
    if !missing.is_empty() {
        let seen = "other mail comes out of the relay than what it took";
        return report.step("collect", Outcome::failed(seen, "see the relay's log"));
    }
    report.step("collect", Outcome::ok("what was left came out as it went in"));
    let emptied = throwaway.collect(relay, 0, acknowledge, 0).await;
    report.step("acknowledge", emptied_outcome(emptied));
}

fn emptied_outcome(emptied: Result<(Answer, Option<CollectResponse>), String>) -> Outcome {
    match emptied {
        Ok((_, Some(collected))) if collected.queued.count == 0 => {
            Outcome::ok("the mailbox is empty again")
        }
        Ok((_, Some(collected))) => Outcome::failed(
            format!("{} envelopes are left after acknowledging", collected.queued.count),
            "see the relay's log",
        ),
        Ok((answer, None)) => refused(&answer),
        Err(error) => Outcome::failed(error, "see the log of the reverse proxy"),
    }
}

async fn wait(report: &mut Report, throwaway: &Throwaway, relay: &Callee<'_>) {
    let what_to_do = "raise the proxy's time for an answer above 60 s: nginx proxy_read_timeout, Caddy response_header_timeout";
    let began = SystemClock.now();
    let outcome = match throwaway.collect(relay, 0, Vec::new(), LONG_POLL_MS).await {
        Ok((_, Some(_))) => {
            let waited = SystemClock.now().since(began).as_secs();
            Outcome::ok(format!("an empty mailbox was waited on for {waited} s"))
        }
        Ok((answer, None)) => Outcome::failed(answer.refusal(), what_to_do),
        Err(error) => Outcome::failed(error, what_to_do),
    };
    report.step("long poll", outcome);
}

async fn leave(report: &mut Report, throwaway: &Throwaway, relay: &Callee<'_>) {
    let outcome = match throwaway.leave(relay).await {
        Ok(answer) if answer.status.is_success() => Outcome::ok("the throw-away server is gone"),
        Ok(answer) => refused(&answer),
        Err(error) => Outcome::failed(error, "see the log of the reverse proxy"),
    };
    report.step("leave", outcome);
}

/// Why a signed request was refused, as far as the answer tells.
fn refused(answer: &Answer) -> Outcome {
    let json = answer.json();
    let now = json["now"].as_u64().map(Timestamp::from_millis);
    if let Some(now) = now {
        let own = SystemClock.now();
        let apart = own.since(now).max(now.since(own)).as_secs();
        let seen = format!("the relay's clock is {apart} s apart from this machine's");
        return Outcome::failed(seen, "set both clocks by NTP: timedatectl set-ntp true");
    }
    let what_to_do = match answer.status {
        StatusCode::UNAUTHORIZED => CHANGED_ON_THE_WAY,
        StatusCode::TOO_MANY_REQUESTS => {
            "see what is full with restante relay status, or try again later"
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => "see the log of the reverse proxy",
        _ => "see the relay's log",
    };
    Outcome::failed(answer.refusal(), what_to_do)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use restante_federation::{ClientConfig, FederationClient, Peer};
    use restante_relay_api::endpoints::{COLLECT, MAILBOX};

    use super::*;
    use crate::doctor::report::Output;
    use crate::scripted_door::ScriptedDoor;

    fn client() -> FederationClient {
        FederationClient::new(ClientConfig::default(), Arc::new(SystemClock)).unwrap()
    }

    fn callee<'a>(client: &'a FederationClient, door: &ScriptedDoor) -> Callee<'a> {
        let peer = Peer::new("relay.test".parse().unwrap(), Some(door.url()));
        Callee { client, peer }
    }

    fn seen(report: &Report) -> String {
        format!("{:?}", report.steps())
    }

    #[tokio::test]
    async fn an_invite_is_for_the_throwaway_server_alone_and_taken_back_where_it_brings_nothing() {
        let door = ScriptedDoor::open().await;
        let made = r#"{"id":"7","line":"restante:relay.test?invite=sesame"}"#;
        door.answer("POST", "/_restante/admin/v1/invites", 200, made);
        door.answer("DELETE", "/_restante/admin/v1/invites/7", 200, "{}");
        let (client, config) =
            (client(), RelayConfig { serve: Serve::Invited, ..RelayConfig::default() });
        let mut report = Report::new(Output::Json);
        let relay = callee(&client, &door);
        examine(&mut report, &relay, &config, Some(&door.client()), LongPoll::LeftOut).await;

        let asked = door.asked();
        let methods: Vec<&str> = asked.iter().map(|asked| asked.method.as_str()).collect();
        assert_eq!(methods, ["POST", "PUT", "DELETE"], "{}", seen(&report));
        let wanted: serde_json::Value = serde_json::from_str(&asked[0].body).unwrap();
        let server = wanted["server"].as_str().unwrap();
        assert!(asked[1].authorization.contains(server), "it is the one that registers");
        assert!(asked[2].target.ends_with("/invites/7"));
    }

    #[tokio::test]
    async fn the_throwaway_server_leaves_whatever_fails_after_it_has_registered_or_may_have() {
        for (status, answer) in [(200, "{}"), (504, "the proxy gave up")] {
            let door = ScriptedDoor::open().await;
            door.answer("PUT", MAILBOX, status, answer);
            door.answer("DELETE", MAILBOX, 200, "{}");
            let (client, config) =
                (client(), RelayConfig { serve: Serve::Open, ..RelayConfig::default() });
            let mut report = Report::new(Output::Json);
            let relay = callee(&client, &door);
            examine(&mut report, &relay, &config, None, LongPoll::LeftOut).await;

            let asked = door.asked();
            let last = asked.last().unwrap();
            assert_eq!(
                (last.method.as_str(), last.target.as_str()),
                ("DELETE", MAILBOX),
                "{status}"
            );
            assert!(last.body.contains(r#""mail":"drop""#), "{}", last.body);
        }
    }

    #[tokio::test]
    async fn collecting_ends_at_a_relay_that_gives_the_same_mail_again_and_again() {
        let door = ScriptedDoor::open().await;
        let other = r#"{"envelopes":[{"id":1,"sha256":"00","origin":"a.test","txn_id":"t","deposited_at":0,"transaction":{}}],
            "queued":{"count":1,"bytes":2,"oldest_at":0}}"#;
        door.answer("POST", COLLECT, 200, other);
        let (client, throwaway) = (client(), Throwaway::new());
        let mut report = Report::new(Output::Json);
        let parcels = [throwaway.parcel(0).unwrap()];
        collect(&mut report, &throwaway, &callee(&client, &door), &parcels).await;
        assert!(seen(&report).contains("the relay gives it again"), "{}", seen(&report));
        assert_eq!(door.asked().len(), 2);
    }
}
