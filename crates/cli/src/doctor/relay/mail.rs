//! The last steps on a relay: a throw-away server registers, gets mail, collects it, and leaves.

use http::StatusCode;
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
    let invite = match invite(report, config, operators).await {
        Ok(invite) => invite,
        Err(Unavailable) => return,
    };
    let throwaway = Throwaway::new();
    if !registered(report, &throwaway, relay, invite).await {
        return;
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

async fn invite(
    report: &mut Report,
    config: &RelayConfig,
    operators: Option<&AdminClient>,
) -> Result<Option<String>, Unavailable> {
    if config.serve == Serve::Open {
        return Ok(None);
    }
    let Some(operators) = operators else {
        let why = "the operators' door gave no invite, and only invited servers are served";
        report.step("deposit and collect", Outcome::skipped(why));
        return Err(Unavailable);
    };
    let wanted = json!({ "server": null, "expires_in_ms": INVITE_MS, "note": "restante doctor" });
    let made = operators.post("/invites", &wanted).await.and_then(|made| {
        let line: InviteLine = super::text(&made, "line").parse()?;
        Ok(line.invite)
    });
    match made {
        Ok(Some(token)) => {
            report.step("invite", Outcome::ok("made for a throw-away server"));
            Ok(Some(token))
        }
        Ok(None) => {
            report.step("invite", Outcome::failed("the line has no invite", "see the relay's log"));
            Err(Unavailable)
        }
        Err(error) => {
            report.step("invite", Outcome::failed(format!("{error:#}"), "see the relay's log"));
            Err(Unavailable)
        }
    }
}

async fn registered(
    report: &mut Report,
    throwaway: &Throwaway,
    relay: &Callee<'_>,
    invite: Option<String>,
) -> bool {
    let outcome = match throwaway.register(relay, invite).await {
        Ok(answer) if answer.status.is_success() => {
            Outcome::ok(format!("{} may get mail", throwaway.recipient.server_name))
        }
        Ok(answer) => refused(&answer),
        Err(error) => Outcome::failed(error, "see the log of the reverse proxy"),
    };
    let is_good = !outcome.is_failed();
    report.step("register", outcome);
    is_good
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
    while !missing.is_empty() {
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
        for envelope in &collected.envelopes {
            after = after.max(envelope.id);
            missing.retain(|sha256| *sha256 != envelope.sha256);
            let sha256 = Some(envelope.sha256.clone());
            acknowledge.push(CollectAcknowledgement { id: envelope.id, sha256 });
        }
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
