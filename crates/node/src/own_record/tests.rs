//! What is published, as our relays come and go.

use std::time::Duration;

use restante_federation_proto::{Clock as _, ServerName};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::site::Site;
use crate::test_site::{BEGINNING, OWN_NAME, TestSite, name};

fn names(record: &Bytes) -> (Vec<ServerName>, Timestamp) {
    let record = RelayRecord::parse(record, BEGINNING.after(Duration::from_secs(3600))).unwrap();
    (record.relays.into_iter().map(|relay| relay.server_name).collect(), record.version)
}

/// Publishes until `work` has seen what it waits for.
async fn published_with(site: &TestSite, own: &OwnRecord, work: impl Future<Output = ()>) {
    let shutdown = CancellationToken::new();
    let site_of_it = Site { own_record: own.clone(), ..site.site.clone() };
    let running = publish::run(site_of_it, shutdown.clone());
    let working = async {
        work.await;
        shutdown.cancel();
    };
    site.run(async { tokio::join!(running, working) }).await;
}

/// Waits until `holds`; the file is written in real time.
async fn comes_to(what: &str, holds: impl Fn() -> bool) {
    let watching = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let watched = tokio::time::timeout(Duration::from_secs(600), watching).await;
    assert!(watched.is_ok(), "it does not come to that: {what}");
}

/// The same, where hours pass until it is so. The file is written in real time, which has a deadline of its own.
async fn comes_with_the_hours(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come to that: {what}");
        tokio::time::advance(Duration::from_secs(600)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_follows_our_relays_and_stands_in_the_file() {
    let site = TestSite::new().await;
    let path = site.folder.path().join("restante");
    let (identity, database) = (site.identity.clone(), site.database.clone());
    let own = OwnRecord::new(identity, database, Some(path.clone()));
    let relays = |names_of: &[&str]| {
        let published = own
            .published()
            .filter(|published| std::fs::read(&path).is_ok_and(|file| file == *published));
        let expected: Vec<_> = names_of.iter().map(|relay| name(relay)).collect();
        published.is_some_and(|published| names(&published).0 == expected)
    };
    published_with(&site, &own, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(own.published(), None, "it has no relay, and never had one");
        site.relays.add(name(OWN_NAME), name("r.test").into()).await.unwrap();
        comes_to("r.test is published", || relays(&["r.test"])).await;
        let first = names(&own.published().unwrap()).1;
        site.relays.remove(&name(OWN_NAME), &name("r.test")).await.unwrap();
        comes_to("none is published", || relays(&[])).await;
        assert!(names(&own.published().unwrap()).1 > first);
    })
    .await;
    assert_eq!(own.file(), Some((path.clone(), None)));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_can_not_be_written_is_told_and_tried_again() {
    let site = TestSite::new().await;
    let folder = site.folder.path().join("www");
    let (identity, database) = (site.identity.clone(), site.database.clone());
    let own = OwnRecord::new(identity, database, Some(folder.join("restante")));
    site.relays.add(name(OWN_NAME), name("r.test").into()).await.unwrap();
    published_with(&site, &own, async {
        let problem = || own.file().unwrap().1;
        let is_told = || problem().is_some_and(|problem| problem.contains("No such file"));
        comes_to("the problem is told", is_told).await;
        std::fs::create_dir(&folder).unwrap();
        comes_to("it is written", || problem().is_none()).await;
    })
    .await;
    assert!(folder.join("restante").exists());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_removed_or_altered_is_there_again_after_an_hour() {
    let site = TestSite::new().await;
    let path = site.folder.path().join("restante");
    let own = OwnRecord::new(site.identity.clone(), site.database.clone(), Some(path.clone()));
    site.relays.add(name(OWN_NAME), name("r.test").into()).await.unwrap();
    published_with(&site, &own, async {
        let is_whole = || {
            let published = own.published();
            published.is_some_and(|record| std::fs::read(&path).is_ok_and(|file| file == record))
        };
        comes_to("it is written", is_whole).await;
        std::fs::remove_file(&path).unwrap();
        comes_with_the_hours("it is there again", is_whole).await;
        std::fs::write(&path, "{}").unwrap();
        comes_with_the_hours("it says the same again", is_whole).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_a_relay_knows_already_is_passed_in_what_is_published_as_well() {
    let site = TestSite::new().await;
    let own = OwnRecord::new(site.identity.clone(), site.database.clone(), None);
    site.relays.add(name(OWN_NAME), name("r.test").into()).await.unwrap();
    let known = site.clock.now().after(Duration::from_secs(60));
    published_with(&site, &own, async {
        comes_to("it is published", || own.published().is_some()).await;
        own.naming(&[name("r.test").into()], Some(known), site.clock.now()).await.unwrap();
    })
    .await;
    assert!(names(&own.published().unwrap()).1 > known);
}
