//! A history: what was asked of a relay and what it answered, each with the ticks between which it happened.

use std::fmt;

use restante_federation_proto::ServerName;
use sha2::{Digest as _, Sha256};

/// A point in the order of all beginnings and ends of calls. Of two ticks the smaller came first.
pub type Tick = u64;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// What makes two deposits into one mailbox the same: origin, transaction id and hash of the canonical content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Who sent it.
    pub origin: ServerName,
    /// The transaction's id.
    pub txn_id: String,
    /// SHA-256 of the canonical content.
    pub sha256: Digest,
}

/// One call and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its place in the history, which it keeps when the history is cut down.
    pub number: usize,
    /// It had no effect before this.
    pub start: Tick,
    /// It had no effect after this: its answer was there, or the relay's process was dead. [`Tick::MAX`] when nobody knows.
    pub end: Tick,
    /// Who signed the request.
    pub caller: ServerName,
    /// What was asked.
    pub op: Op,
    /// What came back.
    pub answer: Answer,
}

/// What is asked of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Leave mail.
    Deposit(Deposit),
    /// Acknowledge and collect a page of the caller's own mailbox.
    Collect(Collect),
    /// Acknowledge and collect one, Dendrite's way.
    RelayTxn(RelayTxn),
    /// Something that must be refused; the text says what is wrong with it.
    Malformed(&'static str),
}

/// Mail to be left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Whose mailbox.
    pub mailbox: ServerName,
    /// What it is.
    pub key: Key,
    /// Bytes of content and members.
    pub bytes: u64,
    /// Hash of the members that travel along: proof, waybill, keys.
    pub members: Digest,
}

/// A page to be collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collect {
    /// Only what is above this id.
    pub after: u64,
    /// Envelopes at most.
    pub limit: u64,
    /// Bytes at most; the first envelope comes whatever its size.
    pub max_bytes: u64,
    /// What the owner has.
    pub acknowledge: Vec<Acknowledged>,
    /// What the owner has from elsewhere.
    pub have: Vec<Had>,
}

/// Mail that a caller says to have from elsewhere. It is named by a digest, in which the mailbox is: another's changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Had {
    /// Whose mailbox.
    pub mailbox: ServerName,
    /// What it is.
    pub key: Key,
}

/// One acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The envelope's number.
    pub id: u64,
    /// What the owner has; another hash removes nothing.
    pub sha256: Option<Digest>,
}

/// Dendrite's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTxn {
    /// Whose mailbox is asked for.
    pub mailbox: ServerName,
    /// The entry to acknowledge first; 0 for none.
    pub entry_id: u64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 to a deposit.
    Deposited,
    /// 200 to a collect of either kind.
    Collected(Collected),
    /// A refusal with this status.
    Refused(u16),
    /// 200 with a body that can't be read; the text says why.
    Unreadable(String),
    /// None: the connection died, and the call may or may not have had an effect.
    Lost,
}

/// What a collect handed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// The envelopes in the order of the answer.
    pub envelopes: Vec<Seen>,
    /// Envelopes and bytes that waited, by the answer's word; Dendrite's call does not say.
    pub queued: Option<(u64, u64)>,
}

/// One envelope as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub id: u64,
    /// Origin, transaction id and hash by the relay's word; Dendrite's call does not say.
    pub key: Option<Key>,
    /// The hash of the content that came.
    pub content: Digest,
    /// The hash of the members that came.
    pub members: Digest,
    /// Bytes of content and members.
    pub bytes: u64,
}

impl Call {
    /// Whether it was answered 200.
    pub fn succeeded(&self) -> bool {
        matches!(self.answer, Answer::Deposited | Answer::Collected(_))
    }

    /// The mailbox that it is about, if it is about one.
    pub fn mailbox(&self) -> Option<&ServerName> {
        match &self.op {
            Op::Deposit(deposit) => Some(&deposit.mailbox),
            Op::Collect(_) => Some(&self.caller),
            Op::RelayTxn(call) => Some(&call.mailbox),
            Op::Malformed(_) => None,
        }
    }

    /// What it acknowledges.
    pub(crate) fn acknowledgements(&self) -> Vec<Acknowledged> {
        match &self.op {
            Op::Collect(collect) => collect.acknowledge.clone(),
            Op::RelayTxn(call) if call.entry_id > 0 => {
                vec![Acknowledged { id: call.entry_id, sha256: None }]
            }
            _ => Vec::new(),
        }
    }

    /// What of the caller's own mail it says to be there from elsewhere.
    pub(crate) fn had(&self) -> impl Iterator<Item = &Key> {
        let had = match &self.op {
            Op::Collect(collect) => collect.have.as_slice(),
            _ => &[],
        };
        had.iter().filter(|had| had.mailbox == self.caller).map(|had| &had.key)
    }
}

impl Digest {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    /// Enough of it to tell the hashes of one story apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, ..] = self.0;
        write!(f, "{first:02x}{second:02x}{third:02x}")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
