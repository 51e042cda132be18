//! The program: relay, node and the operator's commands.

mod admin_client;
mod args;
mod config_command;
mod config_file;
mod documented_keys;
mod environment;
mod keys_command;
mod keys_text;
mod logging;
mod node_command;
mod open_files;
mod parked_command;
mod relay_command;
mod relays_command;
mod shutdown;
mod status_text;
mod systemd;
mod time_text;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, NodeAction};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, with its causes, and no backtrace: it is for the operator.
            eprintln!("restante: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Relay(options) => relay_command::run(options).await,
        Command::Node(options) => match options.action {
            None => node_command::run(options.config.file, options.log).await,
            Some(NodeAction::Status(options)) => node_command::status(options).await,
            Some(NodeAction::Parked(action)) => parked_command::run(action).await,
        },
        Command::Relays(action) => relays_command::run(action).await,
        Command::Keys(action) => keys_command::run(action).await,
        Command::Config(action) => config_command::run(action),
    }
}
