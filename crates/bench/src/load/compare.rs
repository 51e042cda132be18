//! The same load against another server, in turns with the relay: deposits, and collecting one at a time. These two
//! endpoints are Dendrite's.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use restante_federation_proto::{ServerName, escape_path_segment};
use restante_relay_api::endpoints::{RELAY_TXN, mailbox_user_id};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::Load;
use crate::drive::closed_loop;
use crate::figures::{Figure, Unit};
use crate::mail::{Beside, Writers};
use crate::numbers::median;
use crate::origin::Origin;
use crate::process::RelayProcess;
use crate::schedule::turn_of;
use crate::stage;
use crate::wire::Wire;

/// Bodies, bytes.
const BODY_BYTES: usize = 4096;

/// Deposits that tell how many make up a turn.
const PILOT: usize = 100;

/// Owners, each of whom has one connection.
const OWNERS: usize = 8;

/// A server that is compared with.
pub(super) struct Other {
    pub(super) address: SocketAddr,
    pub(super) server_name: ServerName,
}

/// Where `url` leads.
pub(super) fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let place = url.strip_prefix("http://").context("only http://host:port can be compared")?;
    let place = place.trim_end_matches('/');
    let mut found = place.to_socket_addrs().with_context(|| format!("{url} leads nowhere"))?;
    found.next().with_context(|| format!("{url} leads nowhere"))
}

/// Either server.
struct Subject {
    address: SocketAddr,
    server_name: ServerName,
    writers: Writers,
    owners: Vec<Origin>,
    deposits: Vec<f64>,
    collects: Vec<f64>,
}

pub(super) async fn measure(
    program: &Path,
    load: &Load,
    other: &Other,
) -> anyhow::Result<Vec<Figure>> {
    let relay = RelayProcess::start(program, stage::config()?).await?;
    let mut own = Subject::new(relay.address, &relay.server_name);
    let mut other = Subject::new(other.address, &other.server_name);
    let slower = own.deposit(load, PILOT).await?.min(other.deposit(load, PILOT).await?);
    let count = turn_of(slower, load.seconds, BODY_BYTES);
    own.collect().await?;
    other.collect().await?;
    for _ in load.turns() {
        for subject in [&mut own, &mut other] {
            let rate = subject.deposit(load, count).await?;
            subject.deposits.push(rate);
            let rate = subject.collect().await?;
            subject.collects.push(rate);
        }
    }
    let figure = |what: &str, own: &[f64], other: &[f64]| {
        Figure::alone(what, Unit::PerSecond, median(own)).beside("the other", median(other))
    };
    Ok(vec![
        figure("compared: deposits, 4 KiB", &own.deposits, &other.deposits),
        figure("compared: collected one at a time, 4 KiB", &own.collects, &other.collects),
    ])
}

#[derive(Deserialize)]
struct Collected {
    #[serde(default)]
    entry_id: u64,
    #[serde(default)]
    entries_queued: bool,
}

impl Subject {
    fn new(address: SocketAddr, server_name: &ServerName) -> Self {
        Self {
            address,
            server_name: server_name.clone(),
            writers: Writers::to(server_name),
            owners: (0..OWNERS).map(|_| Origin::on_this_machine()).collect(),
            deposits: Vec::new(),
            collects: Vec::new(),
        }
    }

    async fn deposit(&self, load: &Load, count: usize) -> anyhow::Result<f64> {
        let names: Vec<_> = self.owners.iter().map(|owner| owner.name.clone()).collect();
        let requests = self.writers.deposits(count, BODY_BYTES, &names, Beside::Nothing)?;
        Ok(closed_loop(self.address, load.connections(), &requests).await?.rate())
    }

    /// Each owner collects all that it has, and acknowledges it; so many a second in all.
    async fn collect(&mut self) -> anyhow::Result<f64> {
        let (mut collecting, began) = (JoinSet::new(), Instant::now());
        for owner in self.owners.drain(..) {
            collecting.spawn(collect_all(self.address, self.server_name.clone(), owner));
        }
        let mut collected = 0;
        while let Some(done) = collecting.join_next().await {
            let (count, owner) = done.context("an owner's task panicked")??;
            collected += count;
            self.owners.push(owner);
        }
        ensure!(collected > 0, "{} hands nothing over", self.server_name);
        Ok(f64::from(collected) / began.elapsed().as_secs_f64())
    }
}

async fn collect_all(
    address: SocketAddr,
    server_name: ServerName,
    owner: Origin,
) -> anyhow::Result<(u32, Origin)> {
    let mut wire = Wire::open(address).await?;
    let (mut count, mut last) = (0, 0);
    loop {
        let answer: Collected =
            serde_json::from_slice(wire.ask(&question(&owner, &server_name, last)).await?)?;
        if !answer.entries_queued {
            return Ok((count, owner));
        }
        (count, last) = (count + 1, answer.entry_id);
    }
}

fn question(owner: &Origin, server_name: &ServerName, last: u64) -> Bytes {
    let user_id = escape_path_segment(&mailbox_user_id(&owner.name));
    let target = format!("{RELAY_TXN}{user_id}").parse();
    let target = target.expect("escaped segments can be signed");
    let body = format!(r#"{{"entry_id":{last}}}"#);
    owner.signed_bytes(&Method::GET, &target, server_name, body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address() {
        assert_eq!(address("http://127.0.0.1:8008/").unwrap(), ([127, 0, 0, 1], 8008).into());
        assert!(address("https://127.0.0.1:8008").is_err());
        assert!(address("http://127.0.0.1").is_err());
    }
}
