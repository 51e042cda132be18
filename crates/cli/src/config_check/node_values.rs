//! What can't be meant in a node's configuration, or should be known before it runs.

use std::net::SocketAddr;

use restante_federation::Peer;
use restante_node::{NodeConfig, is_private_way};
use restante_relay_api::limits::COLLECT_WAIT_MAX;

use super::finding::Remark;
use super::{files, log};

/// The secret of the generated file, which everybody knows.
const SECRET_OF_EVERYBODY: &str = "change me";

/// Everything about `config`.
pub(super) fn remarks(config: &NodeConfig) -> Vec<Remark> {
    let mut remarks = doors(config);
    remarks.extend(times(config));
    remarks.extend(relays(config));
    remarks.extend(private_ways(config));
    remarks.extend(well_known_file(config));
    remarks.extend(matrix_admins(config));
    remarks.extend(files::signing_key("signing_key", &config.signing_key));
    remarks.extend(files::tls("inbound.tls", config.inbound.tls.as_ref()));
    let authorities = config.federation.extra_ca_files.iter();
    remarks.extend(
        authorities.filter_map(|file| files::certificates("federation.extra_ca_files", file)),
    );
    remarks.extend(files::data_folder("data", &config.data));
    remarks.extend(log::remark(&config.log));
    remarks
}

fn doors(config: &NodeConfig) -> Vec<Remark> {
    let doors: [(&str, SocketAddr); 3] = [
        ("outbound.listen", config.outbound.listen),
        ("inbound.listen", config.inbound.listen),
        ("admin.listen", config.admin.listen),
    ];
    let mut remarks = Vec::new();
    for (index, (key, address)) in doors.iter().enumerate() {
        if let Some((other, _)) = doors[..index].iter().find(|(_, other)| other == address)
            && address.port() != 0
        {
            let text =
                format!("this is the address of {other}, too; give one of them another port");
            remarks.push(Remark::wrong(*key, text));
        }
    }
    for (key, address) in [doors[0], doors[2]] {
        if !address.ip().is_loopback() {
            let text = "whoever reaches this address may try secrets on it; keep it on loopback, unless the homeserver is on another machine in a network of your own";
            remarks.push(Remark::odd(key, text));
        }
    }
    match config.outbound.secret.as_str() {
        "" => remarks.push(Remark::wrong("outbound.secret", "it is empty; write a long random text, in homeserver.yaml as well")),
        SECRET_OF_EVERYBODY => remarks.push(Remark::wrong(
            "outbound.secret",
            "it is the text of the generated file, which everybody knows; write a long random one, in homeserver.yaml as well",
        )),
        _ => {}
    }
    remarks
}

fn times(config: &NodeConfig) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if config.delivery.attempts_until_offline == 0 {
        let text = "with 0, no destination is ever tried directly; give at least 1";
        remarks.push(Remark::wrong("delivery.attempts_until_offline", text));
    }
    for (key, time) in [
        ("delivery.probe_interval", config.delivery.probe_interval),
        ("delivery.probe_connect", config.delivery.probe_connect),
        ("delivery.relay_deadline", config.delivery.relay_deadline),
        ("collect.safety_interval", config.collect.safety_interval),
        ("outbox.confirm_wait", config.outbox.confirm_wait),
        ("outbox.audit_after", config.outbox.audit_after),
        ("outbox.audit_interval", config.outbox.audit_interval),
    ] {
        if time.0.is_zero() {
            remarks.push(Remark::wrong(key, "it must be longer than 0"));
        }
    }
    if config.collect.wait.0 > COLLECT_WAIT_MAX {
        let most = COLLECT_WAIT_MAX.as_secs();
        let text =
            format!("a relay waits for {most} s at most, so that proxies do not cut the request");
        remarks.push(Remark::odd("collect.wait", text));
    }
    remarks
}

fn relays(config: &NodeConfig) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (server, relays) in &config.relays {
        for relay in relays {
            if relay.server_name.public_key().is_some()
                && relay.url.is_none()
                && !config.federation.routes.contains_key(&relay.server_name)
            {
                let text =
                    format!("the relay {} is named by its key; it needs a url", relay.server_name);
                remarks.push(Remark::wrong(format!("relays.{server}"), text));
            }
        }
    }
    remarks
}

/// Such a relay may be meant; but those who find it by our record go by its name.
fn private_ways(config: &NodeConfig) -> Option<Remark> {
    let own = config.relays.get(&config.server_name)?;
    let peers = own.iter().cloned().map(Peer::from);
    let relays: Vec<_> = peers.filter(is_private_way).map(|relay| relay.name.to_string()).collect();
    let text = format!(
        "{}: a private url is not published; others go by the name, which must lead to the relay from where they are",
        relays.join(", ")
    );
    (!relays.is_empty()).then(|| Remark::odd(format!("relays.{}", config.server_name), text))
}

fn well_known_file(config: &NodeConfig) -> Option<Remark> {
    let file = config.records.well_known_file.as_ref()?;
    let has_folder = file.parent().is_some_and(std::path::Path::is_dir);
    let text = "its folder is not there; make it, and let the node's user write in it";
    (!has_folder).then(|| Remark::odd("records.well_known_file", text))
}

/// Another server's users have no access token that the homeserver knows.
fn matrix_admins(config: &NodeConfig) -> Vec<Remark> {
    let own = config.server_name.as_str();
    let is_local = |user: &str| {
        let parts = user.strip_prefix('@').and_then(|user| user.split_once(':'));
        parts.is_some_and(|(local, server)| !local.is_empty() && server == own)
    };
    let strangers = config.admin.matrix_admins.iter().filter(|user| !is_local(user));
    let wrong = |user: &String| {
        let text = format!("{user:?} is no user of this server; write @name:{own}");
        Remark::wrong("admin.matrix_admins", text)
    };
    strangers.map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks_on(text: &str) -> Vec<String> {
        let base = "server_name = \"a.example\"\nhomeserver = \"http://127.0.0.1:8008\"\nsigning_key = \"/nowhere\"\n";
        let config = toml::from_str(&format!("{base}{text}")).unwrap();
        remarks(&config).iter().map(|remark| format!("{}: {}", remark.key, remark.text)).collect()
    }

    #[test]
    fn the_secret_of_the_generated_file_is_none() {
        let found = remarks_on("[outbound]\nsecret = \"change me\"\n");
        assert!(
            found[0].starts_with("outbound.secret: it is the text of the generated file"),
            "{found:#?}"
        );
    }

    #[test]
    fn doors_need_addresses_of_their_own() {
        let found =
            remarks_on("[outbound]\nsecret = \"s\"\n[admin]\nlisten = \"127.0.0.1:8470\"\n");
        assert!(
            found[0].starts_with("admin.listen: this is the address of outbound.listen"),
            "{found:#?}"
        );
    }

    #[test]
    fn who_can_not_be_an_administrator_and_where_no_file_can_be_written_is_named() {
        let found = remarks_on(
            "[outbound]\nsecret = \"s\"\n[admin]\nmatrix_admins = [\"@a:a.example\", \"@b:b.example\", \"a\"]\n\
             [records]\nwell_known_file = \"/nowhere/at/all/restante\"\n",
        );
        let about = |key: &str| found.iter().filter(|found| found.starts_with(key)).count();
        assert_eq!((about("admin.matrix_admins"), about("records.well_known_file")), (2, 1));
    }

    #[test]
    fn an_own_relays_private_url_is_named_as_one_that_others_do_not_go_by() {
        let found = remarks_on(
            "[outbound]\nsecret = \"s\"\n[relays]\n\"a.example\" = [\n\
             { server_name = \"r.example\", url = \"http://10.0.0.7:8090\" },\n\
             { server_name = \"s.example\", url = \"https://s.example:8090\" }]\n",
        );
        let about: Vec<_> = found.iter().filter(|found| found.contains("private url")).collect();
        assert!(
            about.len() == 1 && about[0].starts_with("relays.a.example: r.example: "),
            "{found:#?}"
        );
    }

    #[test]
    fn impossible_times_and_relays_are_named() {
        let name = "0".repeat(64);
        let key = restante_federation_proto::SigningKey::from_seed(
            "ed25519:1".parse().unwrap(),
            &[1; 32],
        );
        let relay = restante_federation_proto::ServerName::of_key(&key.public_key());
        assert_eq!(relay.as_str().len(), name.len());
        let found = remarks_on(&format!(
            "[outbound]\nsecret = \"s\"\n[delivery]\nattempts_until_offline = 0\nprobe_connect = \"0s\"\n\
             [collect]\nwait = \"2m\"\n[relays]\n\"b.example\" = [{{ server_name = \"{relay}\" }}]\n"
        ));
        for key in [
            "delivery.attempts_until_offline",
            "delivery.probe_connect",
            "collect.wait",
            "relays.b.example",
        ] {
            assert!(
                found.iter().any(|found| found.starts_with(&format!("{key}: "))),
                "{key}: {found:#?}"
            );
        }
    }
}
