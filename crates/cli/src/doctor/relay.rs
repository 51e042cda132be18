//! Examines a relay: this machine, then the way that others take to it, then mail that goes in and comes out.

mod mail;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::DATE;
use restante_federation::{BaseUrl, FederationClient, Peer};
use restante_federation_proto::{Clock as _, KeyDocument, ServerName, SigningKey, SystemClock};
use restante_relay::RelayConfig;
use restante_relay_api::endpoints::{KEY_SERVER, VERSION};
use serde_json::Value;

use super::caller::{Answer, Callee};
use super::files;
use super::outside::{self, Place};
use super::report::{Outcome, Report};
use crate::admin_client::AdminClient;
use crate::args::{Program, RelayConfigOptions};
use crate::doctor::door;
use crate::time_text::http_date;

/// How long discovery may take: DNS and a well-known file.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(20);

/// A request is good for 60 s around the relay's time; half of that leaves room for slow lines.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Whether to wait in a long poll for as long as nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LongPoll {
    Tried,
    LeftOut,
}

impl LongPoll {
    pub(super) fn of(asked: bool) -> Self {
        if asked { Self::Tried } else { Self::LeftOut }
    }
}

/// All steps. One that can't be taken for want of an earlier one is left out, or says so.
pub(super) async fn examine(
    report: &mut Report,
    options: &RelayConfigOptions,
    long_poll: LongPoll,
) {
    let Some(config) = configuration(report, options) else { return };
    report.step("data folder", files::data_folder(&config.data));
    report.step("disk", files::disk(&config.data, config.storage.free_disk_bytes_min));
    let key_file: PathBuf =
        config.signing_key.clone().unwrap_or_else(|| config.data.join("signing.key"));
    let (outcome, key) = files::signing_key(&key_file);
    report.step("key file", outcome);
    let operators = AdminClient::open("relay", options.door.as_ref(), &config.data);
    door::examine(report, operators.as_ref()).await;
    let Some(key) = key else { return };
    let client =
        match FederationClient::new(config.federation.client_config(), Arc::new(SystemClock)) {
            Ok(client) => client,
            Err(error) => {
                report.step("client", Outcome::failed(error.to_string(), "correct [federation]"));
                return;
            }
        };
    let name = config.server_name.clone().unwrap_or_else(|| ServerName::of_key(&key.public_key()));
    let Some((peer, place)) = address(report, &config, &client, name).await else { return };
    if !outside::reach(report, &client, &place).await {
        return;
    }
    let relay = Callee { client: &client, peer };
    if !version(report, &relay).await {
        return;
    }
    // Who answers with another key is not this relay, and gets neither an invite nor mail.
    if !served_key(report, &relay, &key).await {
        return;
    }
    mail::examine(report, &relay, &config, operators.ok().as_ref(), long_poll).await;
}

fn configuration(report: &mut Report, options: &RelayConfigOptions) -> Option<RelayConfig> {
    match &options.file {
        Some(file) => {
            let outcome = files::configuration(file, Program::Relay);
            let failed = outcome.is_failed();
            report.step("configuration", outcome);
            if failed {
                return None;
            }
        }
        None => {
            report.step("configuration", Outcome::skipped("no file is given; the defaults count"))
        }
    }
    match options.read() {
        Ok(config) => Some(config),
        Err(error) => {
            let what_to_do = "correct it, or the variables of the environment";
            report.step("configuration", Outcome::failed(format!("{error:#}"), what_to_do));
            None
        }
    }
}

/// Where others find the relay: by its URL, or by its name; at least from this machine.
async fn address(
    report: &mut Report,
    config: &RelayConfig,
    client: &FederationClient,
    name: ServerName,
) -> Option<(Peer, Place)> {
    if let Some(url) = &config.public_url {
        report.step("address", Outcome::ok(format!("{name} at {url}")));
        return Some((Peer::new(name, Some(url.clone())), place_of(url)));
    }
    if name.public_key().is_some() {
        let url = BaseUrl {
            tls: config.tls.is_some(),
            host: loopback_if_any(config).to_string(),
            port: config.listen.port(),
        };
        let outcome = Outcome::warn(
            format!(
                "no public_url is set; what follows only shows that the relay answers at {url}"
            ),
            "set public_url to what others call, with your reverse proxy in front",
        );
        report.step("address", outcome);
        return Some((Peer::new(name, Some(url.clone())), place_of(&url)));
    }
    by_name(report, client, name).await
}

/// A relay that listens everywhere is asked on loopback.
fn loopback_if_any(config: &RelayConfig) -> std::net::IpAddr {
    match config.listen.ip() {
        any if any.is_unspecified() && any.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
        any if any.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        one => one,
    }
}

async fn by_name(
    report: &mut Report,
    client: &FederationClient,
    name: ServerName,
) -> Option<(Peer, Place)> {
    let way = match client.way(&name, DISCOVERY_PATIENCE).await {
        Ok(way) => way,
        Err(reason) => {
            let what_to_do = format!("add a DNS record for {name}, or set public_url");
            report.step("well-known", Outcome::failed(reason, what_to_do));
            return None;
        }
    };
    let delegated = if way.named == name.as_str() {
        Outcome::skipped(format!("{name} delegates to nobody by /.well-known/matrix/server"))
    } else {
        Outcome::ok(format!("{name} delegates to {}", way.named))
    };
    report.step("well-known", delegated);
    let (host, port) = way.destinations.first()?.clone();
    let certificate_of = way.named.parse::<ServerName>().ok().map(|named| named.host().to_owned());
    Some((name.into(), Place { host, port, certificate_of }))
}

fn place_of(url: &BaseUrl) -> Place {
    let certificate_of = url.tls.then(|| url.host.clone());
    Place { host: url.host.clone(), port: url.port, certificate_of }
}

async fn version(report: &mut Report, relay: &Callee<'_>) -> bool {
    let answer = match relay.get(VERSION).await {
        Ok(answer) => answer,
        Err(error) => {
            let what_to_do = "see the log of the reverse proxy, and that the relay runs";
            report.step("version", Outcome::failed(error, what_to_do));
            return false;
        }
    };
    let outcome = version_outcome(&answer);
    let is_relay = !outcome.is_failed();
    report.step("version", outcome);
    if is_relay {
        report.step("clock", clock(&answer));
    }
    is_relay
}

fn version_outcome(answer: &Answer) -> Outcome {
    let json = answer.json();
    let text = |name: &str| json["server"][name].as_str().unwrap_or("?").to_owned();
    if !answer.status.is_success() || json["server"].is_null() {
        return Outcome::failed(
            answer.refusal(),
            "have the reverse proxy pass /_matrix/ on to the relay's listen address, as in contrib/nginx and contrib/caddy",
        );
    }
    let seen = format!("{} {}", text("name"), text("version"));
    if !text("name").to_ascii_lowercase().contains("restante") {
        return Outcome::failed(
            format!("{seen} answers there, which is no relay of ours"),
            "have the reverse proxy pass this name's /_matrix/ on to the relay, and not to a homeserver",
        );
    }
    Outcome::ok(seen)
}

/// The answer's date is the relay's, or its proxy's.
fn clock(answer: &Answer) -> Outcome {
    let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    let Some(date) = date else {
        return Outcome::skipped(
            "the answer has no date; a deposit below shows whether the clock is right",
        );
    };
    let now = SystemClock.now();
    let apart = now.since(date).max(date.since(now));
    let seen = format!("{} s apart from the server's answer", apart.as_secs());
    if apart > CLOCK_TOLERANCE {
        return Outcome::failed(seen, "set both clocks by NTP: timedatectl set-ntp true");
    }
    Outcome::ok(seen)
}

async fn served_key(report: &mut Report, relay: &Callee<'_>, key: &SigningKey) -> bool {
    let outcome = match relay.get(KEY_SERVER).await {
        Ok(answer) if answer.status.is_success() => key_outcome(answer, &relay.peer.name, key),
        Ok(answer) => Outcome::failed(
            answer.refusal(),
            "have the reverse proxy pass /_matrix/key/ on as well, not only /_matrix/federation/",
        ),
        Err(error) => Outcome::failed(error, "see the log of the reverse proxy"),
    };
    let is_good = !outcome.is_failed();
    report.step("key served", outcome);
    is_good
}

fn key_outcome(answer: Answer, name: &ServerName, key: &SigningKey) -> Outcome {
    let Ok(document) = KeyDocument::parse(answer.body) else {
        return Outcome::failed("no key document is served", "see what answers there");
    };
    if document.server_name() != name {
        return Outcome::failed(
            format!("{} answers there, and not {name}", document.server_name()),
            "start the relay with this configuration, or have the proxy pass on to this relay",
        );
    }
    match document.verify_keys().get(key.id()) {
        Some(served) if *served == key.public_key() => {
            Outcome::ok(format!("{} is the one in the file", key.id()))
        }
        _ => Outcome::failed(
            "another key is served than the one in the file",
            "restart the relay, which reads its key at the start; or put the right key file back",
        ),
    }
}

/// A text of an answer; empty where there is none.
pub(super) fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_default().to_owned()
}
