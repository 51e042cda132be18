//! Whether others find our relays while the node is off: the relay record on the web site of the server's name.

use std::time::Duration;

use restante_federation::{Exchange as _, FederationClient, Identity, Peer};
use restante_federation_proto::{Clock as _, SystemClock, Timestamp};
use restante_node::{NodeConfig, is_private_way};
use restante_relay_api::RelayRecord;
use restante_relay_api::endpoints::RECORD_FILE;

use crate::doctor::report::Outcome;

/// As long as a web server next door or far away may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn outcome(
    client: &FederationClient,
    config: &NodeConfig,
    identity: &Identity,
) -> Outcome {
    let own = &identity.server_name;
    if own.public_key().is_some() {
        return Outcome::skipped("the server is named by its key, and has no web site");
    }
    let what_to_do = format!(
        "have https://{own}{RECORD_FILE} served from the file that well_known_file in [records] names"
    );
    let file = client.web_file(own, RECORD_FILE, PATIENCE).await.map_err(|error| error.to_string());
    let record = file.and_then(|file| verified(&file, identity, SystemClock.now()));
    match record {
        Ok(record) if record.relays.is_empty() => {
            Outcome::ok("the web site says that there is no relay")
        }
        Ok(record) => {
            let relays: Vec<_> =
                record.relays.iter().map(|relay| relay.server_name.as_str()).collect();
            Outcome::ok(format!("the web site names {}", relays.join(", ")))
        }
        Err(error) if config.records.well_known_file.is_some() => Outcome::warn(error, what_to_do),
        // Some web sites answer with a page, whatever they are asked for.
        Err(_) => Outcome::skipped(
            "the web site has none; others learn our relays from the node, from relays and from mail",
        ),
    }
}

/// Which of these relays of ours others don't go to by the URL that we use; `None` if they go to all as we do.
pub(super) fn private_ways(relays: &[Peer]) -> Option<Outcome> {
    let private: Vec<_> = relays
        .iter()
        .filter(|relay| is_private_way(relay))
        .filter_map(|relay| Some(format!("{} ({})", relay.name, relay.url.as_ref()?)))
        .collect();
    let seen = format!("the record names no url of {}: it is private", private.join(", "));
    let what_to_do = "see that the relay's name leads to it from where others are, or name it by a url that they can reach";
    (!private.is_empty()).then(|| Outcome::warn(seen, what_to_do))
}

fn verified(file: &[u8], identity: &Identity, now: Timestamp) -> Result<RelayRecord, String> {
    let key = (identity.key.id(), &identity.key.public_key());
    let verified = RelayRecord::verify(file, &identity.server_name, key, now);
    verified.map_err(|error| format!("the web site has another: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn a_relay_to_which_only_we_find_by_its_url_is_warned_of() {
        let relay = |url: &str| Peer::new("r.test".parse().unwrap(), Some(url.parse().unwrap()));
        assert!(private_ways(&[relay("https://r.test:8090")]).is_none());
        let warned = private_ways(&[relay("https://r.test:8090"), relay("http://10.0.0.7:8090")]);
        let Outcome { verdict, seen, .. } = warned.unwrap();
        assert_eq!(verdict, Verdict::Warn);
        assert!(seen.contains("r.test (http://10.0.0.7:8090)"), "{seen}");
    }
}
