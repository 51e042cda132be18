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
    /// Show and change, on a running node, which keys of other servers are believed
    #[command(subcommand)]
    Keys(KeysAction),
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
    /// Show mail that is not delivered, have it tried again, or drop it
    #[command(subcommand)]
    Parked(ParkedAction),
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
pub(crate) enum KeysAction {
    /// Show whose keys are believed, and why
    List {
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is believed of a server, and what its unverified mail offers
    Show {
        /// The server; the own one shows the own key, for others to compare
        server: ServerName,
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON, with the documents
        #[arg(long)]
        json: bool,
    },
    /// Believe a server's key document, by your own word
    Trust(TrustOptions),
    /// Forget what is believed of a server; it is asked again when its key is needed
    Forget {
        /// The server
        server: ServerName,
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TrustOptions {
    /// The server
    pub(crate) server: ServerName,
    /// A file with the key document, as https://SERVER/_matrix/key/v2/server gives it [default: what the server
    /// or its unverified mail offers]
    #[arg(long = "file", value_name = "DOCUMENT")]
    pub(crate) document: Option<PathBuf>,
    /// The key that the offered document must list, as its operator told you
    #[arg(long, value_name = "KEY", conflicts_with = "document")]
    pub(crate) key: Option<String>,
    /// Trust what is offered; without it, it is only shown
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) config: NodeConfigOption,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }
}
