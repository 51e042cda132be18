use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::gap::gap;
use super::*;
use crate::test_site::{OWN_NAME, Reply, TestSite, name};

fn held(id: &str, prev: &[&str]) -> HeldEvent {
    HeldEvent {
        room_id: "!r".to_owned(),
        event_id: id.to_owned(),
        prev_events: ids(prev),
        pdu: Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
        source: HeldSource::Capsule,
        is_proven: true,
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn texts(site: &TestSite, earliest: &[&str], latest: &[&str]) -> Option<String> {
    let (earliest, latest) = (ids(earliest), ids(latest));
    let gap = site.run(site.stand_in.whole_gap("!r", &earliest, &latest)).await?;
    Some(gap.iter().map(|pdu| String::from_utf8_lossy(pdu).replace("\"id\":", "")).collect())
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_held_is_answered_whole_and_oldest_first() {
    let site = TestSite::new().await;
    let events = vec![held("$4", &["$3", "$2"]), held("$3", &["$1"]), held("$2", &["$1"])];
    assert_eq!(site.stand_in.note(events).await.unwrap(), Noted::Kept);
    let gap = texts(&site, &["$1"], &["$4"]).await.unwrap();
    assert!(gap == r#"{"$2"}{"$3"}"# || gap == r#"{"$3"}{"$2"}"#, "{gap}");
    assert_eq!(texts(&site, &["$1"], &["$2"]).await.as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_whole_only_if_the_homeserver_has_what_lies_behind_it() {
    let site = TestSite::new().await;
    site.stand_in.note(vec![held("$3", &["$2"]), held("$2", &["$1"])]).await.unwrap();
    site.own_homeserver.answer(&name(OWN_NAME), Reply::Json(404, "{}"));
    assert_eq!(texts(&site, &["$9"], &["$3"]).await, None);
    site.own_homeserver.answer(&name(OWN_NAME), Reply::Json(200, "{}"));
    assert_eq!(texts(&site, &["$9"], &["$3"]).await.as_deref(), Some(r#"{"$2"}"#));
    assert!(site.own_homeserver.seen()[0].target.contains("/state_ids/%21r?event_id="));
    assert_eq!(texts(&site, &["$1"], &["$unknown"]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_with_proof_takes_the_place_of_one_without_and_never_the_reverse() {
    let site = TestSite::new().await;
    let copy = |text: &'static str, is_proven| HeldEvent {
        pdu: Bytes::from_static(text.as_bytes()),
        is_proven,
        ..held("$2", &["$1"])
    };
    let note = async |event| {
        site.stand_in.note(vec![event]).await.unwrap();
        site.stand_in.event("$2").await.unwrap().pdu
    };
    assert_eq!(note(copy("made up", false)).await, "made up");
    assert_eq!(note(copy("the true one", true)).await, "the true one");
    assert_eq!(note(copy("another", true)).await, "the true one");
    assert_eq!(note(copy("made up", false)).await, "the true one");
    let bytes = "SELECT bytes FROM held_totals";
    let bytes = site
        .database
        .read(move |connection| connection.query_row(bytes, [], |row| row.get::<_, u32>(0)));
    assert_eq!(bytes.await.unwrap(), "the true one".len() as u32);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_disk_altered_is_not_answered_with_and_a_good_copy_takes_its_place() {
    let site = TestSite::new().await;
    let note = async || site.stand_in.note(vec![held("$2", &["$1"])]).await.unwrap();
    note().await;
    let alter = "UPDATE held_events SET pdu = CAST('{\"id\":\"$x\"}' AS BLOB)";
    site.database.write(|connection| connection.execute(alter, [])).await.unwrap();
    assert!(site.stand_in.event("$2").await.is_none());
    assert_eq!(texts(&site, &["$1"], &["$2"]).await, None);

    note().await;

    assert_eq!(site.stand_in.event("$2").await.unwrap(), held("$2", &["$1"]));
}

#[tokio::test(start_paused = true)]
async fn what_was_let_go_is_not_answered_with_and_what_is_noted_twice_is_held_once() {
    let site = TestSite::new().await;
    let events = || vec![held("$3", &["$2"]), held("$2", &["$1"])];
    site.stand_in.note(events()).await.unwrap();
    site.stand_in.note(events()).await.unwrap();
    assert_eq!(site.stand_in.event("$2").await.unwrap(), held("$2", &["$1"]));
    site.stand_in.forget("!r".to_owned(), ids(&["$2"])).await.unwrap();
    assert_eq!(site.stand_in.event("$2").await, None);
    site.own_homeserver.answer(&name(OWN_NAME), Reply::Json(404, "{}"));
    assert_eq!(texts(&site, &["$1"], &["$3"]).await, None);
}

#[tokio::test(start_paused = true)]
async fn old_capsules_go_and_the_backlog_stays() {
    let site = TestSite::new().await;
    let backlog = HeldEvent { source: HeldSource::Backlog, ..held("$b", &[]) };
    site.stand_in.note(vec![held("$c", &[]), backlog.clone()]).await.unwrap();
    site.stand_in.note(vec![held("$b", &[])]).await.unwrap();
    site.clock.advance(std::time::Duration::from_secs(38 * 86_400));
    site.stand_in.note(vec![held("$d", &[])]).await.unwrap();
    site.stand_in.prune(site.clock.now()).await.unwrap();
    assert_eq!(site.stand_in.event("$c").await, None);
    assert_eq!(site.stand_in.event("$b").await, Some(backlog));
    let sql = "SELECT count || ' ' || bytes = (SELECT count(*) || ' ' || sum(length(pdu)) FROM held_events) FROM held_totals";
    let agree: bool = site.database.read(|c| c.query_row(sql, [], |row| row.get(0))).await.unwrap();
    assert!(agree);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_room_is_refused_as_a_whole() {
    let site = TestSite::new().await;
    let set = "UPDATE held_totals SET count = 99999";
    site.database.write(|connection| connection.execute(set, [])).await.unwrap();
    let two = vec![held("$1", &[]), held("$2", &[])];
    assert_eq!(site.stand_in.note(two).await.unwrap(), Noted::Full);
    assert_eq!(site.stand_in.event("$1").await, None);
    assert_eq!(site.stand_in.note(vec![held("$1", &[])]).await.unwrap(), Noted::Kept);
}

proptest! {
    /// Events are numbered; each follows some with smaller numbers. Some are held, some known to be there.
    #[test]
    fn a_gap_is_exactly_the_held_events_between_in_order(
        parents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 2..30),
        held_ones in prop::collection::vec(any::<bool>(), 30),
        known in prop::collection::vec(prop::bool::weighted(0.2), 30),
    ) {
        let id = |number: usize| format!("${number}");
        let prev = |number: usize| -> Vec<String> {
            let mut prev: Vec<String> = if number == 0 { Vec::new() } else {
                parents[number].iter().map(|index| id(index.index(number))).collect()
            };
            prev.sort_unstable();
            prev.dedup();
            prev
        };
        let last = parents.len() - 1;
        let held: BTreeMap<String, HeldEvent> = (0..=last)
            .filter(|number| held_ones[*number] || *number == last)
            .map(|number| {
                let prev = prev(number);
                let prev: Vec<&str> = prev.iter().map(String::as_str).collect();
                (id(number), super::tests::held(&id(number), &prev))
            })
            .collect();
        let known: BTreeSet<String> = (0..last).filter(|n| known[*n]).map(id).collect();
        let gap = gap(&held, &known, &[id(last)]).unwrap();

        let mut expected = BTreeSet::new();
        let mut boundary = BTreeSet::new();
        let mut due = prev(last);
        while let Some(event_id) = due.pop() {
            if known.contains(&event_id) { continue; }
            match held.get(&event_id) {
                Some(event) => if expected.insert(event_id) { due.extend(event.prev_events.clone()); },
                None => { boundary.insert(event_id); }
            }
        }
        prop_assert_eq!(&gap.events.iter().cloned().collect::<BTreeSet<_>>(), &expected);
        prop_assert_eq!(gap.events.len(), expected.len());
        prop_assert_eq!(&gap.boundary, &boundary);
        let mut before: BTreeSet<&String> = BTreeSet::new();
        for event_id in &gap.events {
            let prev = &held[event_id].prev_events;
            prop_assert!(prev.iter().all(|p| before.contains(p) || known.contains(p) || boundary.contains(p)));
            before.insert(event_id);
        }
    }
}
