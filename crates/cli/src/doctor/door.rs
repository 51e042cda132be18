//! The operators' door, as monitors and commands use it.

use serde_json::Value;

use super::report::{Outcome, Report};
use crate::admin_client::AdminClient;

/// Alive, ready, and with a token that counts.
pub(super) async fn examine(report: &mut Report, client: Result<&AdminClient, &anyhow::Error>) {
    let outcome = match client {
        Ok(client) => look(client).await,
        Err(error) => {
            let what_to_do = "start the program once; run the doctor as its user or as root";
            Outcome::failed(format!("{error:#}"), what_to_do)
        }
    };
    report.step("operators' door", outcome);
}

async fn look(client: &AdminClient) -> Outcome {
    let (status, text) = match client.plain("/ready").await {
        Ok(answer) => answer,
        Err(error) => {
            let what_to_do = "start the program, and see its log when it ends";
            return Outcome::failed(format!("{error:#}"), what_to_do);
        }
    };
    if let Err(error) = client.get("/status").await {
        let what_to_do = "give the configuration and data folder of the program that listens there";
        return Outcome::failed(format!("{error:#}"), what_to_do);
    }
    if status == 200 {
        return Outcome::ok("alive and ready");
    }
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    let not_met = report["not_met"].as_array().and_then(|conditions| conditions.first());
    let said = |name: &str| {
        not_met.and_then(|unmet| unmet[name].as_str()).unwrap_or("see the log").to_owned()
    };
    Outcome::failed(
        format!("not ready: {}: {}", said("condition"), said("problem")),
        said("what_to_do"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn what_is_not_ready_is_named_with_what_to_do() {
        let door = ScriptedDoor::open().await;
        door.answer("GET", "/_restante/admin/v1/status", 200, "{}");
        let not_ready = r#"{"ready":false,"not_met":[{"condition":"storage","problem":"read-only","what_to_do":"mend it"}]}"#;
        door.answer("GET", "/ready", 503, not_ready);
        assert_eq!(
            look(&door.client()).await,
            Outcome::failed("not ready: storage: read-only", "mend it")
        );
        door.answer("GET", "/ready", 200, r#"{"ready":true,"not_met":[]}"#);
        assert_eq!(look(&door.client()).await, Outcome::ok("alive and ready"));
        door.answer("GET", "/_restante/admin/v1/status", 401, r#"{"error":"Send the token"}"#);
        assert!(look(&door.client()).await.is_failed());
    }
}
