//! What can't be meant in a relay's configuration, or should be known before it runs.

use std::net::SocketAddr;

use restante_relay::{LAPSE_AFTER_LEAST, RelayConfig, Serve};
use restante_relay_api::limits::{BODY_BYTES_MAX, TIME_TO_LIVE};

use super::finding::Remark;
use super::{files, log};

/// Bytes that a relay can't be told apart from one that is switched off with: not one usual transaction fits.
const BODY_BYTES_LEAST: usize = 64 * 1024;

/// Everything about `config`; relative paths are as the relay takes them, from the folder that it is started in.
pub(super) fn remarks(config: &RelayConfig) -> Vec<Remark> {
    let mut remarks = doors(config);
    remarks.extend(admission(config));
    remarks.extend(bounds(config));
    remarks.extend(named_files(config));
    remarks
}

fn doors(config: &RelayConfig) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let operators = config.operators.listen;
    if operators == config.listen && operators.port() != 0 {
        let text = "this is the address of listen, too; give one of them another port";
        remarks.push(Remark::wrong("operators.listen", text));
    }
    if !operators.ip().is_loopback() {
        let text = "whoever reaches this address reads the metrics and may try tokens; keep it on loopback";
        remarks.push(Remark::odd("operators.listen", text));
    }
    if is_open_to_the_world(config.listen)
        && config.tls.is_none()
        && config.trusted_proxies.is_empty()
    {
        let text = "the relay speaks plain HTTP on an address that others reach; add [tls], or put a reverse proxy in front and listen on loopback";
        remarks.push(Remark::odd("listen", text));
    }
    if config.server_name.as_ref().is_none_or(|name| name.public_key().is_some())
        && config.public_url.is_none()
        && !config.listen.ip().is_loopback()
    {
        let text = "a relay that is named by its key is found by its URL alone; invites lack it until public_url is set";
        remarks.push(Remark::odd("public_url", text));
    }
    remarks
}

fn is_open_to_the_world(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}

fn admission(config: &RelayConfig) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if config.serve == Serve::Listed && config.listed.is_empty() {
        let text = "no server is listed, so that only those with an invite get a mailbox; list some, or set serve = \"invited\"";
        remarks.push(Remark::odd("listed", text));
    }
    if config.serve != Serve::Listed && !config.listed.is_empty() {
        let text = "the list admits nobody unless serve = \"listed\"; in an open relay its servers never lapse, and their mail is delivered onward";
        remarks.push(Remark::odd("listed", text));
    }
    if config.serve == Serve::Open && is_open_to_the_world(config.listen) {
        let text = "everybody gets a mailbox here, and whoever makes up names fills the disk up to storage.total_bytes_max";
        remarks.push(Remark::odd("serve", text));
    }
    remarks
}

fn bounds(config: &RelayConfig) -> Vec<Remark> {
    let (limits, mailbox, storage) = (&config.limits, &config.mailbox, &config.storage);
    let zeroes = [
        ("limits.connections_max", limits.connections_max as u64),
        ("mailbox.envelopes_max", mailbox.envelopes_max),
        ("mailbox.bytes_max", mailbox.bytes_max),
        ("mailbox.origin_envelopes_max", mailbox.origin_envelopes_max),
        ("mailbox.origin_bytes_max", mailbox.origin_bytes_max),
        ("storage.total_envelopes_max", storage.total_envelopes_max),
        ("storage.total_bytes_max", storage.total_bytes_max),
    ];
    let zero = |(key, value): &(&str, u64)| {
        (*value == 0).then(|| Remark::wrong(*key, "with 0, no mail is ever taken"))
    };
    let mut remarks: Vec<Remark> = zeroes.iter().filter_map(zero).collect();
    if mailbox.time_to_live.0.is_zero() {
        remarks.push(Remark::wrong("mailbox.time_to_live", "with 0, mail expires as it comes"));
    }
    if mailbox.lapse_after.0 < LAPSE_AFTER_LEAST {
        let text = "servers may be away for a week; give at least 7d";
        remarks.push(Remark::wrong("mailbox.lapse_after", text));
    }
    if limits.body_bytes_max < BODY_BYTES_LEAST {
        let text = format!("a usual transaction does not fit; give at least {BODY_BYTES_LEAST}");
        remarks.push(Remark::wrong("limits.body_bytes_max", text));
    }
    remarks.extend(beyond_nodes(config));
    remarks.extend(containment(config));
    remarks
}

/// What is more than nodes take.
fn beyond_nodes(config: &RelayConfig) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if config.limits.body_bytes_max > BODY_BYTES_MAX {
        let text = format!(
            "nodes collect nothing larger than {BODY_BYTES_MAX}: one larger deposit keeps its mailbox from being emptied"
        );
        remarks.push(Remark::odd("limits.body_bytes_max", text));
    }
    if config.mailbox.time_to_live.0 > TIME_TO_LIVE {
        let text = "nodes park what was signed more than 30d ago, so that keeping it for longer is of no use";
        remarks.push(Remark::odd("mailbox.time_to_live", text));
    }
    remarks
}

/// What is part of something can't be larger.
fn containment(config: &RelayConfig) -> Vec<Remark> {
    let (limits, mailbox, storage) = (&config.limits, &config.mailbox, &config.storage);
    let pairs = [
        (
            "mailbox.origin_envelopes_max",
            mailbox.origin_envelopes_max,
            "mailbox.envelopes_max",
            mailbox.envelopes_max,
        ),
        (
            "mailbox.origin_bytes_max",
            mailbox.origin_bytes_max,
            "mailbox.bytes_max",
            mailbox.bytes_max,
        ),
        (
            "mailbox.envelopes_max",
            mailbox.envelopes_max,
            "storage.total_envelopes_max",
            storage.total_envelopes_max,
        ),
        (
            "mailbox.bytes_max",
            mailbox.bytes_max,
            "storage.total_bytes_max",
            storage.total_bytes_max,
        ),
        (
            "limits.body_bytes_max",
            limits.body_bytes_max as u64,
            "mailbox.origin_bytes_max",
            mailbox.origin_bytes_max,
        ),
        (
            "limits.waiting_collects_max",
            limits.waiting_collects_max as u64,
            "limits.connections_max",
            limits.connections_max as u64,
        ),
    ];
    pairs
        .into_iter()
        .filter(|(_, part, _, whole)| part > whole)
        .map(|(key, _, outer, whole)| {
            Remark::odd(key, format!("it is never reached, since {outer} is {whole}"))
        })
        .collect()
}

fn named_files(config: &RelayConfig) -> Vec<Remark> {
    let mut remarks = files::tls("tls", config.tls.as_ref());
    // One that is not there is made.
    if let Some(file) = config.signing_key.as_ref().filter(|file| file.exists()) {
        remarks.extend(files::signing_key("signing_key", file));
    }
    if let Some(file) = &config.at_rest.key_file {
        remarks.extend(files::at_rest_keys("at_rest.key_file", file));
    }
    let authorities = config.federation.extra_ca_files.iter();
    remarks.extend(
        authorities.filter_map(|file| files::certificates("federation.extra_ca_files", file)),
    );
    remarks.extend(files::data_folder("data", &config.data));
    remarks.extend(log::remark(&config.log));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks_on(text: &str) -> Vec<String> {
        let config = toml::from_str(text).unwrap();
        let found = remarks(&config);
        found.iter().map(|remark| format!("{}: {}", remark.key, remark.text)).collect()
    }

    #[test]
    fn what_runs_without_a_file_is_fine() {
        assert_eq!(remarks_on(""), Vec::<String>::new());
    }

    #[test]
    fn impossible_values_are_named() {
        let found = remarks_on(
            "[limits]\nbody_bytes_max = 10\n[mailbox]\nenvelopes_max = 0\ntime_to_live = \"0s\"\nlapse_after = \"1d\"\n\
             [operators]\nlisten = \"127.0.0.1:8090\"\n[log]\nfilter = \"restante=loud\"\n",
        );
        let keys: Vec<&str> = found.iter().filter_map(|found| found.split(": ").next()).collect();
        for key in [
            "operators.listen",
            "mailbox.envelopes_max",
            "mailbox.time_to_live",
            "mailbox.lapse_after",
            "limits.body_bytes_max",
            "log.filter",
        ] {
            assert!(keys.contains(&key), "{key} is not in {found:#?}");
        }
    }

    #[test]
    fn what_nodes_do_not_take_is_worth_a_word() {
        let found =
            remarks_on("[limits]\nbody_bytes_max = 33554432\n[mailbox]\ntime_to_live = \"90d\"\n");
        for (key, words) in
            [("limits.body_bytes_max", "nodes collect"), ("mailbox.time_to_live", "nodes park")]
        {
            let said = format!("{key}: {words}");
            assert!(found.iter().any(|found| found.starts_with(&said)), "{said}: {found:#?}");
        }
    }

    #[test]
    fn an_open_relay_on_a_public_address_is_worth_a_word() {
        let found = remarks_on("listen = \"0.0.0.0:8090\"\nserve = \"open\"\n");
        assert!(found.iter().any(|found| found.starts_with("serve: everybody")), "{found:#?}");
        assert!(
            found.iter().any(|found| found.starts_with("listen: the relay speaks plain")),
            "{found:#?}"
        );
    }
}
