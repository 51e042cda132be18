//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use restante_federation::BaseUrl;
use restante_federation_proto::ServerName;

/// Holds mail for Matrix homeservers that are not always online.
#[derive(Debug, Parser)]
#[command(name = "restante", version, about, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a relay: takes mail for homeservers that are offline, and keeps it until they collect it
    Relay(RelayOptions),
    /// Run a node beside a homeserver, or ask a running one
    #[command(args_conflicts_with_subcommands = true)]
    Node(NodeOptions),
    /// Show and change, on a running node, which relays hold whose mail
    #[command(subcommand)]
    Relays(RelaysAction),
    /// Write or check a configuration file
    #[command(subcommand)]
    Config(ConfigAction),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RelayOptions {
    /// Configuration file; without one everything has a default
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Folder for mail and keys [default: ./restante-data]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogOptions,
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
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogOptions {
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as info,restante_node=debug
    #[arg(long = "log", value_name = "FILTER", default_value = "info")]
    pub(crate) filter: String,
    /// How to write log lines
    #[arg(long = "log-format", value_name = "FORMAT", default_value = "text")]
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RelaysAction {
    /// Show the relays of one server, or of all
    List {
        /// Whose mail they hold; the own server's relays are those that the node collects from
        server: Option<ServerName>,
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Name a relay that holds a server's mail; takes effect at once
    Add {
        /// Whose mail it holds
        server: ServerName,
        /// The relay's server name
        relay: ServerName,
        /// The relay's URL; needed when its name is a key
        #[arg(long)]
        url: Option<BaseUrl>,
        #[command(flatten)]
        config: NodeConfigOption,
    },
    /// Take back what `add` named; takes effect at once
    Remove {
        /// Whose mail it holds
        server: ServerName,
        /// The relay's server name
        relay: ServerName,
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print a commented configuration file with every key and its default
    Generate {
        /// For which program
        program: Program,
    },
    /// Say what is wrong in a configuration file, and where
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// restante relay
    Relay,
    /// restante node
    Node,
}
