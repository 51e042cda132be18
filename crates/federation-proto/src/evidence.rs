//! Decides whether a key document is believed: the evidence ladder of ARCHITECTURE.md, "Keys".

use std::cmp::Ordering;
use std::time::Duration;

use crate::{KeyDocument, Timestamp};

/// Why a key is believed to be a server's, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Only a self-signed document says so: never pinned, never served, never used to deliver.
    FirstContact,
    /// It verifies that server's signature on an event that the own homeserver already holds.
    Event,
    /// The own homeserver's database or an operator-named notary vouches for it.
    Vouched,
    /// Fetched from the server itself, over TLS or a route that the operator configured.
    Fetched,
    /// The server's name is the key.
    NameIsKey,
}

/// A document, and why it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BelievedDocument {
    /// The document.
    pub document: KeyDocument,
    /// Why it is believed.
    pub evidence: Evidence,
    /// When it was learned.
    pub learned_at: Timestamp,
}

/// A document counts no longer than this after it was learned, however long it says it is valid: longer than mail may
/// be under way, and short enough for a lost key to fall out of use.
pub const TRUST_MAX: Duration = Duration::from_secs(40 * 24 * 3600);

impl BelievedDocument {
    /// Until when it counts: a `valid_until` in the far future must not keep later documents out.
    pub fn useful_until(&self) -> Timestamp {
        self.document.valid_until().min(self.learned_at.after(TRUST_MAX))
    }
}

/// What becomes of what was believed when another document arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The candidate takes its place.
    Replace,
    /// What was believed stays.
    Keep,
}

/// Decides whether `candidate` replaces `current` for the same server.
///
/// Stronger evidence replaces weaker, never the reverse. Of two documents that the server itself gave, the one
/// learned later wins: it may have rotated its keys, and a `valid_until` in the far future must not stop that.
/// With other equal evidence the later `valid_until` wins. A weaker document may still prolong or rotate: it replaces when it is valid longer and signed
/// by a verify key of `current` (old and new key sign it), and then it carries `current`'s evidence (the
/// caller keeps the stronger of the two).
/// [`Evidence::FirstContact`] alone is never believed, so it replaces nothing, not even nothing.
/// A document about another server replaces nothing either.
pub fn replacement(
    current: Option<&BelievedDocument>,
    candidate: &BelievedDocument,
) -> Replacement {
    let Some(current) = current else {
        return replace_if(candidate.evidence > Evidence::FirstContact);
    };
    if candidate.document.server_name() != current.document.server_name() {
        return Replacement::Keep;
    }
    let valid_longer = candidate.useful_until() > current.useful_until();
    let believed_by_itself = candidate.evidence > Evidence::FirstContact;
    replace_if(match candidate.evidence.cmp(&current.evidence) {
        Ordering::Greater => believed_by_itself,
        Ordering::Equal if candidate.evidence == Evidence::Fetched => {
            candidate.learned_at >= current.learned_at
        }
        Ordering::Equal => believed_by_itself && valid_longer,
        // What is stronger than another is more than a first contact, and so believed itself.
        Ordering::Less => {
            valid_longer && is_signed_by_a_key_of(&candidate.document, &current.document)
        }
    })
}

fn replace_if(replaces: bool) -> Replacement {
    if replaces { Replacement::Replace } else { Replacement::Keep }
}

/// Retired keys do not count: who finds an old key must not be able to take the name over.
fn is_signed_by_a_key_of(candidate: &KeyDocument, current: &KeyDocument) -> bool {
    current
        .verify_keys()
        .iter()
        .any(|(key_id, key)| candidate.is_signed_by(current.server_name(), key_id, key))
}
