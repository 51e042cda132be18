//! `restante config reload`: has a running program read its configuration again, and says what that changed.

use anyhow::bail;
use serde::Deserialize;
use serde_json::json;

use crate::admin_client::AdminClient;
use crate::args::ReloadSubject;

/// What the program answers.
#[derive(Debug, Deserialize)]
struct Reloaded {
    applied: Vec<String>,
    needs_restart: Vec<String>,
    error: Option<String>,
}

/// Carries out one command.
pub(crate) async fn run(subject: ReloadSubject) -> anyhow::Result<()> {
    let (program, client) = match subject {
        ReloadSubject::Relay { config } => ("relay", AdminClient::of_relay(&config)?),
        ReloadSubject::Node { config } => ("node", AdminClient::of_node(&config)?),
    };
    println!("{}", reload(program, &client).await?);
    Ok(())
}

async fn reload(program: &str, client: &AdminClient) -> anyhow::Result<String> {
    let answer = client.post("/reload", &json!({})).await?;
    let Reloaded { applied, needs_restart, error } = serde_json::from_value(answer)?;
    if let Some(error) = error {
        bail!("the {program} goes on with what it had: {error}");
    }
    let mut lines = Vec::new();
    if !applied.is_empty() {
        lines.push(format!("in force now: {}", applied.join(", ")));
    }
    if !needs_restart.is_empty() {
        lines.push(format!(
            "not in force before a restart of the {program}: {}",
            needs_restart.join(", ")
        ));
    }
    if lines.is_empty() {
        lines.push(format!("nothing has changed since the {program} last read it"));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    const RELOAD: &str = "/_restante/admin/v1/reload";

    async fn reloaded(status: u16, answer: &str) -> anyhow::Result<String> {
        let door = ScriptedDoor::open().await;
        door.answer("POST", RELOAD, status, answer);
        reload("relay", &door.client()).await
    }

    #[tokio::test]
    async fn what_could_not_be_applied_is_said_beside_what_was() {
        let answer =
            r#"{"applied":["limits.connections_max"],"needs_restart":["listen"],"error":null}"#;
        assert_eq!(
            reloaded(200, answer).await.unwrap(),
            "in force now: limits.connections_max\nnot in force before a restart of the relay: listen"
        );
        let nothing = r#"{"applied":[],"needs_restart":[],"error":null}"#;
        let text = reloaded(200, nothing).await.unwrap();
        assert_eq!(text, "nothing has changed since the relay last read it");
    }

    #[tokio::test]
    async fn a_wrong_file_is_an_error_and_changes_nothing() {
        let answer = r#"{"applied":[],"needs_restart":[],"error":"line 3: no such key"}"#;
        let error = reloaded(200, answer).await.unwrap_err().to_string();
        assert_eq!(error, "the relay goes on with what it had: line 3: no such key");
        let refused = r#"{"errcode":"M_INVALID_PARAM","error":"Nothing was changed: line 3"}"#;
        let error = reloaded(400, refused).await.unwrap_err().to_string();
        assert_eq!(error, "Nothing was changed: line 3");
    }
}
