//! The load against a relay whose disk loses power again and again.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use restante_checker::{Allowance, Load, LoadPlan, ServerErrors, Summary, verdict};
use restante_federation::Peer;
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation_proto::SystemClock;
use restante_relay::{Relay, RelayConfig};
use restante_sqlite_faults::{Campaign, Lie, Site, Tally};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Losses of one relay.
const LOSSES: u64 = 5;

/// Calls between two losses at most; the load makes about a thousand in a second.
const CALLS_MAX: usize = 150;

/// Operations of the disk that may pass after that, so that the power goes wherever the relay is.
const CHANGES_MAX: u64 = 60;

/// More calls than there is time for: [`Load::stop`] ends them.
const CALLS_WITHOUT_END: usize = 1_000_000;

/// The one file of a relay that is no database. It is written before the relay answers anything.
const KEY: &str = "signing.key";

/// A relay in this process, with all its files on the disk.
struct Running {
    peer: Peer,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(site: &Site) -> Result<Self, String> {
        let mut config = RelayConfig { data: site.path().to_owned(), ..RelayConfig::default() };
        config.listen = ([127, 0, 0, 1], 0).into();
        config.operators.listen = config.listen;
        config.federation.dns = DnsSection::Word(DnsWord::Off);
        let shutdown = CancellationToken::new();
        let relay = Relay::start(config, Arc::new(SystemClock), shutdown.clone()).await;
        let relay = relay.map_err(|error| format!("the relay does not start: {error}"))?;
        let url = format!("http://{}", relay.local_address()).parse().unwrap();
        let peer = Peer::new(relay.server_name().clone(), Some(url));
        Ok(Self { peer, shutdown, task: tokio::spawn(relay.run()) })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// What `seed` does to one relay.
async fn play(seed: u64, lie: Option<Lie>) -> Result<Tally, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::new(seed, lie).unwrap();
    let load = Load::new(LoadPlan::with_seed(seed), Arc::new(SystemClock)).unwrap();
    let load = Arc::new(load);
    let calling = tokio::spawn({
        let load = load.clone();
        async move { load.run(CALLS_WITHOUT_END).await }
    });
    let mut relay = Running::start(&site).await?;
    for _ in 0..LOSSES {
        load.point_at(relay.peer.clone());
        let calls = load.recorder().calls_ended() + rng.random_range(20..CALLS_MAX);
        load.recorder().wait_for_calls(calls).await;
        site.disk().cut_power_at(rng.random_range(1..CHANGES_MAX));
        load.recorder().wait_for_calls(calls + 30).await;
        load.point_nowhere();
        site.disk().cut_power();
        relay.stop().await;
        load.recorder().note_death();
        relay = restart(&mut site, rng.random()).await?;
        load.audit(&relay.peer).await;
    }
    load.stop();
    load.point_at(relay.peer.clone());
    calling.await.unwrap();
    load.drain(&relay.peer).await;
    relay.stop().await;
    judge(&load)
}

async fn restart(site: &mut Site, seed: u64) -> Result<Running, String> {
    let key = std::fs::read(site.path().join(KEY)).unwrap();
    site.lose_power(seed).unwrap();
    std::fs::write(site.path().join(KEY), key).unwrap();
    Running::start(site).await
}

fn judge(load: &Load) -> Result<Tally, String> {
    // The commit that was under way may have reached the disk.
    let server_errors = ServerErrors::MayHaveHadEffect;
    let allowance = Allowance { server_errors, ..Allowance::default() };
    let summary = verdict(&load.recorder().history(), &allowance);
    let Summary { deposits, collects, .. } = summary.map_err(|failure| failure.to_string())?;
    Ok(Tally { losses: LOSSES, faults: 0, answers: (deposits + collects) as u64 })
}

fn run(seed: u64, lie: Option<Lie>) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(play(seed, lie))
}

#[test]
fn power_loss_breaks_no_promise_that_a_relay_gives_over_http() {
    Campaign::of("powerloss", 3).run("relays", |seed| run(seed, None));
}

#[test]
fn power_loss_under_a_relay_that_answers_before_the_disk_has_it_is_noticed() {
    let noticed = (0..3).filter(|seed| run(*seed, Some(Lie::Log)).is_err()).count();
    assert!(noticed > 0);
}
