//! Which of two copies of an event is kept.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn aside(json: &'static str, is_proven: bool, fate: Fate) -> Aside {
    let pdu = Pdu {
        room_id: "!r".into(),
        event_id: Some("$e".into()),
        prev_events: vec!["$p".into()],
        json: Bytes::from_static(json.as_bytes()),
        sender: None,
        is_acl: false,
    };
    Aside { pdu, origin: "a.test".parse().unwrap(), is_proven, fate }
}

async fn kept(database: &Database) -> (Vec<Held>, Vec<Bytes>) {
    let (held, _) = of_room(database, "!r".into()).await.unwrap();
    let ids = held.iter().map(|held| held.id).collect();
    let bodies = bodies(database, ids).await.unwrap();
    (held, bodies.into_iter().flatten().collect())
}

#[tokio::test]
async fn an_event_with_proof_takes_the_place_of_a_copy_without_and_never_the_reverse() {
    let waits = || Fate::Waits { attempts: 0, due_at: NOW };
    for fate in [waits(), Fate::Parked("refused".into())] {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let copy = hold(&database, vec![aside("copy", false, fate)], NOW).await.unwrap();
        assert_eq!((copy.added.len(), copy.replaced.len()), (1, 0));

        let real = hold(&database, vec![aside("real", true, waits())], NOW).await.unwrap();
        assert_eq!((real.added.len(), real.replaced.len()), (1, 1));
        assert!(!real.replaced[0].is_proven && real.added[0].is_proven);
        assert_eq!(real.replaced[0].bytes, copy.added[0].bytes);

        let again = hold(&database, vec![aside("copy", false, waits())], NOW).await.unwrap();
        assert_eq!((again.added.len(), again.replaced.len()), (0, 0));
        let (held, bodies) = kept(&database).await;
        assert!(held.len() == 1 && held[0].is_proven);
        assert_eq!(bodies, ["real"]);
    }
}

#[tokio::test]
async fn an_event_that_the_disk_altered_is_noticed_and_makes_way_for_a_good_copy() {
    let waits = || Fate::Waits { attempts: 0, due_at: NOW };
    let folder = tempfile::tempdir().unwrap();
    let database = crate::store::open(folder.path()).unwrap();
    hold(&database, vec![aside("real", true, waits())], NOW).await.unwrap();
    let alter = "UPDATE backlog SET pdu = CAST('reel' AS BLOB)";
    database.write(|connection| connection.execute(alter, [])).await.unwrap();
    let (held, whole) = kept(&database).await;
    assert_eq!((held.len(), whole.len()), (1, 0));
    park(&database, vec![(held[0].id, DAMAGED.to_owned())], NOW).await.unwrap();

    hold(&database, vec![aside("real", true, waits())], NOW).await.unwrap();

    assert_eq!(kept(&database).await.1, ["real"]);
}
