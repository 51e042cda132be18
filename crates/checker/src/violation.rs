//! The ways in which a history can break a promise.

use std::fmt;

use restante_federation_proto::ServerName;

use crate::history::Key;
use crate::story::{Name, name};

/// A broken promise. Calls are named by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where it shows; for a call that is about no mailbox, the caller.
    pub(crate) mailbox: ServerName,
    pub(crate) fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was answered 200, or seen, is not acknowledged, and a collect that had to hand it over did not.
    Lost { key: Key, collect: usize },
    /// It was handed over after an acknowledgement that was answered 200.
    CameBack { key: Key, acknowledgement: usize, collect: usize },
    /// It came into the mailbox below what was already handed over: whoever has a cursor never sees it.
    AppearedBehind { key: Key, id: u64, collect: usize },
    /// Two deposits, one after the other, have ids the other way round.
    OutOfOrder { first: Key, first_id: u64, second: Key, second_id: u64 },
    /// An answer's ids do not ascend from above the cursor.
    NotAscending { collect: usize },
    /// An answer holds more envelopes than were asked for.
    TooMany { collect: usize },
    /// Nobody left this in this mailbox; perhaps somebody did in another.
    FromNowhere { id: u64, collect: usize, also_left_for: Option<ServerName> },
    /// The deposit was refused, and is there.
    RefusedAndStored { key: Key, collect: usize },
    /// One id stood for two envelopes.
    IdReused { id: u64, first: Key, second: Key },
    /// One deposit, however often it was left, got two ids.
    StoredTwice { key: Key, first_id: u64, second_id: u64 },
    /// The content is not what its hash says, or the members are not those that were left.
    Changed { id: u64, collect: usize },
    /// The answer's count of what waits can't be.
    WrongCount { collect: usize, count: u64, least: u64, most: u64 },
    /// The answer's bytes of what waits can't be.
    WrongBytes { collect: usize, bytes: u64, least: u64, most: u64 },
    /// A server that does not own the mailbox was answered 200.
    HandedToStranger { call: usize },
    /// What must be refused was answered 200.
    Taken { call: usize, what: &'static str },
    /// An answer can't be read.
    Unreadable { call: usize, why: String },
}

impl Violation {
    /// Whether only a count or a sum is wrong. Such a story is long, since it takes all that is counted.
    pub fn is_about_counts(&self) -> bool {
        matches!(self.fault, Fault::WrongCount { .. } | Fault::WrongBytes { .. })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in the mailbox of {}: {}", name(&self.mailbox), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { key, collect } => {
                write!(f, "{key} is lost: #{collect} had to hand it over and did not")
            }
            Self::CameBack { key, acknowledgement, collect } => {
                write!(
                    f,
                    "{key} was acknowledged by #{acknowledgement}, and came back in #{collect}"
                )
            }
            Self::AppearedBehind { key, id, collect } => {
                write!(
                    f,
                    "{key} appeared as {id}, below what #{collect} had handed over without it"
                )
            }
            Self::OutOfOrder { first, first_id, second, second_id } => write!(
                f,
                "{first} was left before {second}, but their ids are {first_id} and {second_id}"
            ),
            Self::NotAscending { collect } => {
                write!(f, "the ids in #{collect} do not ascend from above its cursor")
            }
            Self::TooMany { collect } => write!(f, "#{collect} holds more than was asked for"),
            Self::FromNowhere { id, collect, also_left_for: None } => {
                write!(f, "nobody left what #{collect} handed over as {id}")
            }
            Self::FromNowhere { id, collect, also_left_for: Some(other) } => {
                let other = Name(other);
                write!(f, "what #{collect} handed over as {id} was left for {other}, not here")
            }
            Self::RefusedAndStored { key, collect } => {
                write!(f, "{key} was refused, and #{collect} handed it over")
            }
            Self::IdReused { id, first, second } => {
                write!(f, "the id {id} stood for {first} and for {second}")
            }
            Self::StoredTwice { key, first_id, second_id } => {
                write!(f, "{key} was stored twice, as {first_id} and as {second_id}")
            }
            Self::Changed { id, collect } => {
                write!(f, "what #{collect} handed over as {id} is not what was left")
            }
            Self::WrongCount { collect, count, least, most } => {
                write!(f, "#{collect} counts {count} envelopes, but {least} to {most} waited")
            }
            Self::WrongBytes { collect, bytes, least, most } => {
                write!(f, "#{collect} counts {bytes} bytes, but {least} to {most} waited")
            }
            Self::HandedToStranger { call } => {
                write!(f, "#{call} was answered 200, and is not its owner's")
            }
            Self::Taken { call, what } => write!(f, "#{call} was answered 200: {what}"),
            Self::Unreadable { call, why } => {
                write!(f, "the answer to #{call} is unreadable: {why}")
            }
        }
    }
}
