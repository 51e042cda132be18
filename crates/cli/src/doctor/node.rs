//! Examines a node: this machine, its homeserver, its worker hook, its relays, and its inbound door as others reach it.

mod hook;
mod inbound;
mod record;
mod relays;

use std::sync::Arc;

use restante_federation::{FederationClient, Identity, Peer};
use restante_federation_proto::{KeyDocument, SigningKey, SystemClock};
use restante_node::NodeConfig;
use restante_relay_api::endpoints::{KEY_SERVER, VERSION};

use super::caller::{Answer, Callee};
use super::report::{Outcome, Report};
use super::{door, files};
use crate::admin_client::AdminClient;
use crate::args::{NodeConfigOption, Program};
use crate::config_file;

/// A node's databases hold mail on its way alone; with less than this left, a busy hour fills the disk.
const FREE_DISK_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// All steps. One that can't be taken for want of an earlier one is left out, or says so.
pub(super) async fn examine(report: &mut Report, options: &NodeConfigOption) {
    let file = options.file.as_path();
    let outcome = files::configuration(file, Program::Node);
    report.step("configuration", outcome);
    let config = match config_file::node(file) {
        Ok(config) => config,
        // The step above has said so; what stands in the environment may come in between.
        Err(error) if report.has_failed() => return drop(error),
        Err(error) => {
            let what_to_do = "correct it, or the variables of the environment";
            return report.step("configuration", Outcome::failed(format!("{error:#}"), what_to_do));
        }
    };
    report.step("data folder", files::data_folder(&config.data));
    report.step("disk", files::disk(&config.data, FREE_DISK_BYTES_MIN));
    let (outcome, key) = files::signing_key(&config.signing_key);
    report.step("key file", outcome);
    let admin = AdminClient::open("node", options.door.as_ref(), &config.data);
    door::examine(report, admin.as_ref()).await;
    let client = match FederationClient::new(config.client_config(), Arc::new(SystemClock)) {
        Ok(client) => client,
        Err(error) => {
            let outcome = Outcome::failed(error.to_string(), "correct [federation]");
            return report.step("client", outcome);
        }
    };
    homeserver(report, &client, &config, key.as_ref()).await;
    let Some(key) = key else { return };
    let identity = Identity { server_name: config.server_name.clone(), key: Arc::new(key) };
    report.step("worker hook", hook::outcome(&config, &identity).await);
    let relays = relays::known(&config, admin.ok().as_ref()).await;
    inbound::examine(report, &client, &config, &identity).await;
    relays::examine(report, &client, &identity, &relays).await;
    report.step("relay record", record::outcome(&client, &config, &identity).await);
    if let Some(outcome) = record::private_ways(&relays) {
        report.step("relay urls", outcome);
    }
}

/// The homeserver answers, and has the key that the node signs with.
async fn homeserver(
    report: &mut Report,
    client: &FederationClient,
    config: &NodeConfig,
    key: Option<&SigningKey>,
) {
    let peer = Peer::new(config.server_name.clone(), Some(config.homeserver.clone()));
    let homeserver = Callee { client, peer };
    let what_to_do = "start the homeserver, and give it a plain listener on loopback with the resources client and federation, as node.toml shows";
    let outcome = match homeserver.get(VERSION).await {
        Ok(answer) if answer.status.is_success() => {
            let json = answer.json();
            let text = |name: &str| json["server"][name].as_str().unwrap_or("?").to_owned();
            Outcome::ok(format!("{} {} at {}", text("name"), text("version"), config.homeserver))
        }
        Ok(answer) => Outcome::failed(answer.refusal(), what_to_do),
        Err(error) => Outcome::failed(error, what_to_do),
    };
    let is_there = !outcome.is_failed();
    report.step("homeserver", outcome);
    if let (true, Some(key)) = (is_there, key) {
        let outcome = match homeserver.get(KEY_SERVER).await {
            Ok(answer) => key_matches(answer, config, key),
            Err(error) => Outcome::failed(error, what_to_do),
        };
        report.step("homeserver's key", outcome);
    }
}

fn key_matches(answer: Answer, config: &NodeConfig, key: &SigningKey) -> Outcome {
    if !answer.status.is_success() {
        return Outcome::failed(
            answer.refusal(),
            "give the homeserver's plain listener the resource federation (or keys)",
        );
    }
    let Ok(document) = KeyDocument::parse(answer.body) else {
        return Outcome::failed(
            "the homeserver serves no key document",
            "see that homeserver in node.toml leads to it",
        );
    };
    if *document.server_name() != config.server_name {
        return Outcome::failed(
            format!(
                "the homeserver is {}, and node.toml says {}",
                document.server_name(),
                config.server_name
            ),
            "correct server_name or homeserver in node.toml",
        );
    }
    match document.verify_keys().get(key.id()) {
        Some(served) if *served == key.public_key() => {
            Outcome::ok(format!("{} is the one in the file", key.id()))
        }
        _ => Outcome::failed(
            format!(
                "the homeserver does not sign with {}, which is the first key in {}",
                key.id(),
                config.signing_key.display()
            ),
            "name the homeserver's own signing_key_path in node.toml, and restart whichever was started before the key was changed",
        ),
    }
}
