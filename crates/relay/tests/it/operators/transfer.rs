//! Mail goes from one relay to another, and into a backup.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// The lines of all mail for `server`.
async fn exported(relay: &TestRelay, server: &TestServer, query: &str) -> Vec<Value> {
    let answer = relay.operator(GET, &format!("{}/export{query}", mailbox(server)), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn exported_mail_is_collected_from_another_relay_in_its_order() {
    let (relay, [_, _, c]) = relay_with_mail().await;
    let lines = exported(&relay, &c, "").await;
    assert_eq!(lines.len(), 3);
    assert_eq!(found(&relay, &c).await.len(), 3, "the mailbox keeps it");
    let other = TestRelay::start().await;
    let target = format!("{}/import", mailbox(&c));
    let imported = other.operator(POST, &target, text(&lines)).await.assert_ok();
    assert_eq!(imported, json!({ "imported": 3, "duplicates": 0 }));
    assert_eq!(found(&other, &c).await, ["one", "two", "three"]);
    let again = other.operator(POST, &target, text(&lines)).await.assert_ok();
    assert_eq!(again, json!({ "imported": 0, "duplicates": 3 }));
}

#[tokio::test]
async fn an_export_goes_on_after_the_last_envelope_that_came() {
    let (relay, [_, _, c]) = relay_with_mail().await;
    let first = exported(&relay, &c, "?limit=2").await;
    assert_eq!(first.len(), 2);
    let rest = exported(&relay, &c, &format!("?after={}", first[1]["id"])).await;
    assert_eq!(rest.len(), 1);
    assert!(exported(&relay, &c, &format!("?after={}", rest[0]["id"])).await.is_empty());
}

#[tokio::test]
async fn an_import_takes_all_lines_or_none() {
    let (relay, [a, _, c]) = relay_with_mail().await;
    let good = exported(&relay, &c, "").await;
    let other = TestRelay::start().await;
    let damage = |change: &dyn Fn(&mut Value)| {
        let mut lines = good.clone();
        change(&mut lines[2]);
        text(&lines)
    };
    let many_members = json!({ "org.restante.x": "x".repeat(200_000) }).to_string();
    for damaged in [
        damage(&|line| line["content"] = json!("e30=")),
        damage(&|line| line["content"] = json!("no base64")),
        damage(&|line| line["content"] = json!(STANDARD.encode(vec![b' '; 16 * 1024 * 1024 + 1]))),
        damage(&|line| line["members"] = json!("no base64")),
        damage(&|line| line["members"] = json!(STANDARD.encode("no JSON"))),
        damage(&|line| line["members"] = json!(STANDARD.encode("[]"))),
        damage(&|line| line["members"] = json!(STANDARD.encode(&many_members))),
        damage(&|line| line["sha256"] = json!("00")),
        damage(&|line| line["txn_id"] = json!("")),
        damage(&|line| line["recipient"] = json!(a.name())),
        damage(&|line| drop(line.as_object_mut().unwrap().remove("origin"))),
        text(&good)[..200].to_owned(),
    ] {
        let answer = other.operator(POST, &format!("{}/import", mailbox(&c)), damaged).await;
        answer.assert_refused(400, "M_INVALID_PARAM");
        assert!(answer.json()["error"].as_str().unwrap().contains("line"), "{answer:?}");
    }
    assert!(found(&other, &c).await.is_empty());
}

#[tokio::test]
async fn a_backup_is_written_while_the_relay_runs_and_is_its_owners_alone() {
    let (relay, _) = relay_with_mail().await;
    let file = relay.data().join("backup.sqlite");
    let body = json!({ "file": file }).to_string();
    let bytes = relay.operator(POST, "/backup", body.clone()).await.assert_ok()["bytes"].clone();
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!((json!(metadata.len()), metadata.permissions().mode() & 0o777), (bytes, 0o600));
    relay.operator(POST, "/backup", body).await.assert_refused(409, "M_UNKNOWN");
    for wrong in ["{\"file\":\"backup\"}", "{\"file\":\"/nowhere/at/all\"}", "{}", ""] {
        relay.operator(POST, "/backup", wrong).await.assert_refused(400, "M_INVALID_PARAM");
    }
}
