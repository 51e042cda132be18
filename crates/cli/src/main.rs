//! The program: relay, node and the operator's commands.

mod admin_client;
mod amounts_text;
mod announcement;
mod args;
mod config_check;
mod config_command;
mod config_file;
mod config_source;
mod confirmation;
mod doctor;
mod documented_keys;
mod environment;
mod join_command;
mod keys_command;
mod keys_text;
mod logging;
mod mailbox_command;
mod node_command;
mod open_files;
mod outbox_command;
mod parked_command;
mod progress;
mod relay_command;
mod relay_status_text;
mod relays_command;
mod relays_text;
mod reload_command;
#[cfg(test)]
mod scripted_door;
mod shutdown;
mod status_text;
mod systemd;
mod table;
mod time_text;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Runtime;

use crate::args::{Args, Command, NodeAction, ReloadSubject};
use crate::table::printable_lines;

/// How long the program waits at its end for work that can't be broken off, such as a backup of a large database. What is durable then
/// stays so, and a backup that is not whole has no name yet.
const LINGER_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    let ended = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let ended = runtime.block_on(run(args));
        runtime.shutdown_timeout(LINGER_MAX);
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            // One sentence, with its causes, and no backtrace: it is for the operator.
            eprintln!("{}", complaint(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error may quote what a stranger said; a configuration that can't be read is shown over several lines.
fn complaint(error: &anyhow::Error) -> String {
    printable_lines(&format!("restante: {error:#}"))
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Relay(options) => relay_command::run(options).await?,
        Command::Node(options) => match options.action {
            None => node_command::run(options.config, options.log).await?,
            Some(NodeAction::Status(options)) => node_command::status(options).await?,
            Some(NodeAction::Outbox(options)) => outbox_command::run(options).await?,
            Some(NodeAction::Parked(action)) => parked_command::run(action).await?,
            Some(NodeAction::Reload { config }) => {
                reload_command::run(ReloadSubject::Node { config }).await?;
            }
        },
        Command::Mailbox(action) => mailbox_command::run(action).await?,
        Command::Relays(action) => relays_command::run(action).await?,
        Command::Keys(action) => keys_command::run(action).await?,
        Command::Config(action) => return config_command::run(action).await,
        Command::Doctor(subject) => return doctor::run(subject).await,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_can_not_steer_the_terminal() {
        let error = anyhow::anyhow!("it says \u{1b}]0;mine\u{7}").context("cannot join");
        assert_eq!(complaint(&error), "restante: cannot join: it says \\u{1b}]0;mine\\u{7}");
    }
}
