//! The command line of `restante mailbox`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use restante_federation::config::Period;
use restante_federation_proto::ServerName;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;

use super::RelayConfigOptions;
use crate::confirmation::Consent;

#[derive(Debug, Subcommand)]
pub(crate) enum MailboxAction {
    /// Show whose mail waits, how much, and since when
    List {
        /// Show at most so many
        #[arg(long, value_name = "COUNT", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        config: RelayConfigOptions,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one mailbox: its registration, who fills it, what was lost, and its oldest envelopes
    Show {
        /// Whose mail it holds
        server: ServerName,
        /// Show so many envelopes, without their content
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        envelopes: usize,
        #[command(flatten)]
        config: RelayConfigOptions,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a mailbox take mail and hand none out, until `release`; nothing in it expires meanwhile
    Hold(OneMailbox),
    /// End a hold: what waits is handed out again
    Release(OneMailbox),
    /// Remove mail for good; its recipient is told how much was lost, and from whom
    Drop(DropOptions),
    /// End a registration; mail that waits stays, and who needs an invite here needs another one to come back
    Evict(OneMailbox),
    /// Make a single-use invite, with which one server may register
    Invite(InviteOptions),
    /// Show the invites that nobody has used
    Invites {
        #[command(flatten)]
        config: RelayConfigOptions,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take an invite back
    Revoke {
        /// As `invites` shows it
        id: String,
        #[command(flatten)]
        config: RelayConfigOptions,
    },
    /// Write all mail of a mailbox to a file; the mailbox keeps it
    Export {
        /// Whose mail it holds
        server: ServerName,
        /// The file, which must not be there; - for standard output
        file: PathBuf,
        #[command(flatten)]
        config: RelayConfigOptions,
    },
    /// Put mail of a file that `export` wrote into a mailbox; what is there already is skipped
    Import {
        /// Whose mail it is
        server: ServerName,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        config: RelayConfigOptions,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct OneMailbox {
    /// Whose mail it holds
    pub(crate) server: ServerName,
    #[command(flatten)]
    pub(crate) config: RelayConfigOptions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DropOptions {
    /// Whose mail it holds
    pub(crate) server: ServerName,
    #[command(flatten)]
    pub(crate) mail: DroppedMail,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) config: RelayConfigOptions,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct DroppedMail {
    /// Everything in the mailbox
    #[arg(long)]
    pub(crate) all: bool,
    /// One envelope, by its number as `show` has it
    #[arg(long, value_name = "ID")]
    pub(crate) envelope: Option<u64>,
    /// Everything that this server sent
    #[arg(long, value_name = "SERVER")]
    pub(crate) origin: Option<ServerName>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InviteOptions {
    /// Only this server may use it
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<ServerName>,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = length_of_time)]
    pub(crate) expires: Duration,
    /// For whom it is; only you see it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// No QR code, even on a terminal
    #[arg(long)]
    pub(crate) no_qr: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: RelayConfigOptions,
}

/// Written as in configuration files: `7d`, `45m`.
fn length_of_time(text: &str) -> Result<Duration, String> {
    let period = Period::deserialize(text.into_deserializer());
    let Period(length) = period.map_err(|error: ValueError| error.to_string())?;
    if length.is_zero() {
        return Err("it would be over at once".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_written_as_in_configuration_files() {
        assert_eq!(length_of_time("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["soon", "", "0s", "-1d"] {
            assert!(length_of_time(text).is_err(), "{text}");
        }
    }
}
