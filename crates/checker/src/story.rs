//! Writes a history so that a person can follow it.

use std::fmt;

use restante_federation_proto::ServerName;

use crate::history::{Acknowledged, Answer, Call, Collected, Had, Key, Op, Tick};

/// Digits of a key-named server's name that are shown: enough to tell the servers of one story apart.
const NAME_DIGITS: usize = 6;

/// Envelopes or acknowledgements of one call that are shown; the rest is counted.
const LISTED_MAX: usize = 12;

/// A server's name, shortened where it is a key.
pub(crate) struct Name<'a>(pub(crate) &'a ServerName);

pub(crate) fn name(server: &ServerName) -> Name<'_> {
    Name(server)
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.as_str();
        let shown = if self.0.public_key().is_some() { &text[..NAME_DIGITS] } else { text };
        f.write_str(shown)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", name(&self.origin), self.txn_id, self.sha256)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, start, end, caller, op, answer } = self;
        write!(f, "#{number} [{start}–{}] {} {op} → {answer}", End(*end), name(caller))
    }
}

struct End(Tick);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Tick::MAX { f.write_str("?") } else { write!(f, "{}", self.0) }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposit(deposit) => {
                let (key, mailbox) = (&deposit.key, name(&deposit.mailbox));
                write!(f, "leaves {key} ({} bytes) for {mailbox}", deposit.bytes)
            }
            Self::Collect(collect) => {
                write!(f, "collects after {}, at most {}", collect.after, collect.limit)?;
                acknowledging(f, &collect.acknowledge)?;
                having(f, &collect.have)
            }
            Self::RelayTxn(call) => {
                write!(f, "collects one of {}", name(&call.mailbox))?;
                if call.entry_id > 0 {
                    write!(f, ", acknowledging {}", call.entry_id)
                } else {
                    Ok(())
                }
            }
            Self::Malformed(what) => write!(f, "sends {what}"),
        }
    }
}

fn acknowledging(f: &mut fmt::Formatter<'_>, all: &[Acknowledged]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let one = |acknowledged: &Acknowledged| match acknowledged.sha256 {
        Some(sha256) => format!("{} ({sha256})", acknowledged.id),
        None => acknowledged.id.to_string(),
    };
    write!(f, ", acknowledging {}", listed(all, one))
}

fn having(f: &mut fmt::Formatter<'_>, all: &[Had]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let one = |had: &Had| format!("{} for {}", had.key, name(&had.mailbox));
    write!(f, ", having {} from elsewhere", listed(all, one))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposited => f.write_str("200"),
            Self::Collected(collected) => write!(f, "{collected}"),
            Self::Refused(status) => write!(f, "{status}"),
            Self::Unreadable(why) => write!(f, "200, unreadable: {why}"),
            Self::Lost => f.write_str("no answer"),
        }
    }
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = listed(&self.envelopes, |seen| match &seen.key {
            Some(key) => format!("{} = {key}", seen.id),
            None => format!("{} = {}", seen.id, seen.content),
        });
        f.write_str(if self.envelopes.is_empty() { "nothing" } else { &shown })?;
        match self.queued {
            Some((count, bytes)) => write!(f, "; {count} wait, {bytes} bytes"),
            None => Ok(()),
        }
    }
}

fn listed<T>(all: &[T], one: impl Fn(&T) -> String) -> String {
    let mut text = all.iter().take(LISTED_MAX).map(one).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = all.len().checked_sub(LISTED_MAX) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
