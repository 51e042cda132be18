//! The command line.

mod keys;
pub(crate) mod mailbox;
mod relays;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use restante_federation::BaseUrl;
use restante_federation_proto::ServerName;
use restante_relay::RelayConfig;

use crate::config_file;
use crate::confirmation::Consent;
pub(crate) use keys::{KeysAction, TrustOptions};
pub(crate) use mailbox::{DroppedMail, InviteOptions, MailboxAction, OneMailbox};
pub(crate) use relays::{LeftMail, RelaysAction};

/// Holds mail for Matrix homeservers that are not always online.
#[derive(Debug, Parser)]
#[command(name = "restante", version, about, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a relay, which holds mail for homeservers that are offline until they collect it; or ask a running one
    #[command(args_conflicts_with_subcommands = true)]
    Relay(RelayOptions),
    /// Run a node beside a homeserver, or ask a running one
    #[command(args_conflicts_with_subcommands = true)]
    Node(NodeOptions),
    /// Look into the mailboxes of a running relay, invite servers, hold, drop, export and import mail
    #[command(subcommand)]
    Mailbox(MailboxAction),
    /// Join and leave relays, and show and change, on a running node, which relays hold whose mail
    #[command(subcommand)]
    Relays(RelaysAction),
    /// Show and change, on a running node, which keys of other servers are believed
    #[command(subcommand)]
    Keys(KeysAction),
    /// Write or check a configuration file, or have a running program read it again
    #[command(subcommand)]
    Config(ConfigAction),
    /// Try everything that a relay or node needs, from outside in, and say what to do where it fails
    #[command(subcommand)]
    Doctor(DoctorSubject),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RelayOptions {
    #[command(subcommand)]
    pub(crate) action: Option<RelayAction>,
    #[command(flatten)]
    pub(crate) config: RelayConfigOptions,
    /// Address to listen on [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Which relay is meant: as it was started.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct RelayConfigOptions {
    /// The relay's configuration file; without one everything has a default
    #[arg(id = "relay_config", long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Folder for mail and keys [default: ./restante-data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// For commands: ask the running relay at this URL, such as http://127.0.0.1:8091, and not by the socket in its data
    /// folder; whoever listens there gets the token
    #[arg(id = "relay_door", long = "door", value_name = "URL")]
    pub(crate) door: Option<BaseUrl>,
}

impl RelayConfigOptions {
    /// The configuration that they stand for.
    pub(crate) fn read(&self) -> anyhow::Result<RelayConfig> {
        let mut config = config_file::relay(self.file.as_deref())?;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        Ok(config)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RelayAction {
    /// Show what a running relay holds, and whether it can do its work
    Status {
        #[command(flatten)]
        config: RelayConfigOptions,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have a running relay read its configuration file again
    Reload {
        #[command(flatten)]
        config: RelayConfigOptions,
    },
    /// Have a running relay write a consistent copy of its database
    Backup {
        /// The file, which must not be there; the relay itself writes it, so it must be allowed to
        file: PathBuf,
        #[command(flatten)]
        config: RelayConfigOptions,
    },
    /// Put a backup in the place of a stopped relay's database
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        config: RelayConfigOptions,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeOptions {
    #[command(subcommand)]
    pub(crate) action: Option<NodeAction>,
    #[command(flatten)]
    pub(crate) config: NodeConfigOption,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// Show relays, destinations that are assumed offline, and what waits or is parked, and why
    Status(StatusOptions),
    /// Show what was left with relays, and whether it is known to have arrived
    Outbox(OutboxOptions),
    /// Show mail that is not delivered, have it tried again, or drop it
    #[command(subcommand)]
    Parked(ParkedAction),
    /// Have a running node read its configuration file again
    Reload {
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct OutboxOptions {
    /// Show each transaction for this server
    pub(crate) destination: Option<ServerName>,
    /// Show also what is known to have arrived
    #[arg(long, requires = "destination")]
    pub(crate) all: bool,
    /// Show at most so many transactions
    #[arg(long, default_value_t = 200, requires = "destination")]
    pub(crate) limit: u32,
    /// Show those whose number is above this one
    #[arg(long, default_value_t = 0, requires = "destination")]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) config: NodeConfigOption,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ParkedAction {
    /// Show what is parked, oldest first, and why
    List {
        /// Show at most so many
        #[arg(long, default_value_t = 200)]
        limit: u32,
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one of them with its content, as JSON
    Show {
        /// As `list` shows it, such as mail-17
        id: String,
        #[command(flatten)]
        config: NodeConfigOption,
    },
    /// Try to deliver one of them, or all, again
    Retry {
        /// As `list` shows it, such as mail-17
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that are parked
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        config: NodeConfigOption,
    },
    /// Drop one of them for good
    Drop {
        /// As `list` shows it, such as mail-17
        id: String,
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) config: NodeConfigOption,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeConfigOption {
    /// The node's configuration file
    #[arg(long = "config", value_name = "FILE", default_value = "node.toml")]
    pub(crate) file: PathBuf,
    /// For commands: ask the running node at this URL, such as http://127.0.0.1:8471, and not by the socket in its data
    /// folder; whoever listens there gets the token
    #[arg(long = "door", value_name = "URL")]
    pub(crate) door: Option<BaseUrl>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogOptions {
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as info,restante_node=debug
    /// [default: filter in [log] of the configuration, which is info]
    #[arg(long = "log", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// How to write log lines
    #[arg(long = "log-format", value_name = "FORMAT", default_value = "pretty")]
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people; one line each
    #[value(alias = "text")]
    Pretty,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print a commented configuration file with every key and its default
    Generate {
        /// For which program
        program: Program,
    },
    /// Say everything that is wrong in a configuration file, and where
    Check {
        /// The file
        file: PathBuf,
        /// Whose it is [default: a node's if it names a homeserver, else a relay's]
        #[arg(long, value_name = "PROGRAM")]
        program: Option<Program>,
    },
    /// Have a running relay or node read its configuration file again, and say what needs a restart
    #[command(subcommand)]
    Reload(ReloadSubject),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReloadSubject {
    /// A running relay
    Relay {
        #[command(flatten)]
        config: RelayConfigOptions,
    },
    /// A running node
    Node {
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorSubject {
    /// A relay: its address as others reach it, its certificate, clock, disk and key, then a real deposit and collect
    Relay {
        #[command(flatten)]
        config: RelayConfigOptions,
        /// Also wait for 30 seconds in a long poll, as nodes do, which some proxies cut short
        #[arg(long)]
        long_poll: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// A node: its homeserver, key and worker hook, its relays, and its own inbound door as they reach it
    Node {
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// restante relay
    Relay,
    /// restante node
    Node,
}

impl Program {
    /// As it is called in sentences.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Node => "node",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }
}
