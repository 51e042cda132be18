//! The command line of `restante keys`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use restante_federation_proto::ServerName;

use super::NodeConfigOption;

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
