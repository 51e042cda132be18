//! The command line of `restante relays`.

use clap::{Subcommand, ValueEnum};
use restante_federation::BaseUrl;
use restante_federation_proto::ServerName;

use super::NodeConfigOption;
use crate::confirmation::Consent;

#[derive(Debug, Subcommand)]
pub(crate) enum RelaysAction {
    /// Have this server's mail held by a relay, with the line that its operator gave you
    Join {
        /// The line, as `restante mailbox invite` prints it
        line: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        config: NodeConfigOption,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop having mail held by a relay
    Leave {
        /// The relay's server name
        relay: ServerName,
        /// What becomes of mail that the relay still holds
        #[arg(long, value_name = "WHAT", default_value = "keep")]
        mail: LeftMail,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        config: NodeConfigOption,
    },
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
    /// Let the word of a relay count again that lost mail; takes effect at once
    Trust {
        /// Whose mail it lost
        server: ServerName,
        /// The relay's server name
        relay: ServerName,
        #[command(flatten)]
        config: NodeConfigOption,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeftMail {
    /// It is dropped
    Drop,
    /// The node collects it first
    Keep,
}
