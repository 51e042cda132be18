//! Asks before anything is lost. A script says `--yes`; without that and without a terminal, nothing happens.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;

/// The option that stands for the operator's word.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct Consent {
    /// Do not ask; for scripts
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Goes on only if the operator agrees to `loss`, a sentence that names what would be lost.
pub(crate) fn confirm(loss: &str, consent: Consent) -> anyhow::Result<()> {
    if consent.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("{loss} Nobody is there to confirm it; if it is meant, say so with --yes");
    }
    eprint!("{loss}\nType yes to go on: ");
    io::stderr().flush().context("cannot ask on standard error")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    agreed(&answer)
}

fn agreed(answer: &str) -> anyhow::Result<()> {
    if answer.trim() == "yes" {
        return Ok(());
    }
    bail!("nothing was changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_is_consent() {
        agreed("yes\n").unwrap();
        for answer in ["", "\n", "y\n", "YES\n", "yes please\n", "no\n"] {
            assert_eq!(agreed(answer).unwrap_err().to_string(), "nothing was changed", "{answer}");
        }
    }
}
