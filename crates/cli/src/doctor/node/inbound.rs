//! The node's inbound door: on this machine, and as others find it by the server's name.

use std::time::Duration;

use restante_federation::{FederationClient, Identity, Peer};
use restante_federation_proto::KeyDocument;
use restante_node::NodeConfig;
use restante_relay_api::endpoints::KEY_SERVER;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::doctor::caller::Callee;
use crate::doctor::report::{Outcome, Report};

/// On this machine.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Both ways.
pub(super) async fn examine(
    report: &mut Report,
    client: &FederationClient,
    config: &NodeConfig,
    identity: &Identity,
) {
    report.step("inbound door", listening(config).await);
    report.step("own name", by_name(client, identity).await);
}

async fn listening(config: &NodeConfig) -> Outcome {
    let address = config.inbound.listen;
    let what_to_do = "start the node, with this configuration";
    match timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Outcome::ok(format!("takes connections at {address}")),
        Ok(Err(error)) => Outcome::failed(format!("{address}: {error}"), what_to_do),
        Err(_) => Outcome::failed(format!("{address}: no answer in time"), what_to_do),
    }
}

/// The way that other servers take, as far as it can be taken from here.
async fn by_name(client: &FederationClient, identity: &Identity) -> Outcome {
    let own = &identity.server_name;
    if own.public_key().is_some() {
        return Outcome::skipped("the server is named by its key; nobody finds it by name");
    }
    let itself = Callee { client, peer: Peer::from(own.clone()) };
    let what_to_do = format!(
        "see that {own}, its /.well-known/matrix/server or its SRV record lead to the inbound door, directly or through a reverse proxy; from inside one's own network that may fail though others get through"
    );
    let answer = match itself.get(KEY_SERVER).await {
        Ok(answer) => answer,
        Err(error) => return Outcome::warn(error, what_to_do),
    };
    if !answer.status.is_success() {
        return Outcome::failed(answer.refusal(), what_to_do);
    }
    match KeyDocument::parse(answer.body) {
        Ok(document) if document.server_name() == own && has_key(&document, identity) => {
            Outcome::ok(format!("{own} leads to this server"))
        }
        _ => Outcome::failed(
            format!("{own} leads to another server, or to one with another key"),
            what_to_do,
        ),
    }
}

/// Whether the document lists the key that the node signs with.
pub(super) fn has_key(document: &KeyDocument, identity: &Identity) -> bool {
    document.verify_keys().get(identity.key.id()) == Some(&identity.key.public_key())
}
