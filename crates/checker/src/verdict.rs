//! The judgement over a history: what it held, or the shortest story of what it broke.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::allowance::Allowance;
use crate::check::check;
use crate::history::{Answer, Call, Op};
use crate::minimise::minimise;
use crate::violation::Violation;

/// What a history held. So that a check that saw nothing does not pass for one that found nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Deposits that were answered 200.
    pub deposits: usize,
    /// Collects that were answered 200.
    pub collects: usize,
    /// Acknowledgements in collects that were answered 200.
    pub acknowledgements: usize,
    /// Own mail that collects that were answered 200 said to be there from elsewhere.
    pub had: usize,
    /// Envelopes that were handed over, each as often as it was.
    pub envelopes: usize,
    /// Calls that were not answered.
    pub lost: usize,
    /// Calls that had to be refused, and were.
    pub malformed: usize,
    /// Refusals of calls that were in order, by status.
    pub refused: BTreeMap<u16, usize>,
}

/// A history that breaks a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What is broken; where several things are, the one that takes the fewest calls to show.
    pub violation: Violation,
    /// The calls that show it.
    pub story: Vec<Call>,
    /// How many more violations the whole history has.
    pub more: usize,
}

/// Violations whose stories are compared: one cause often shows in many ways, and the shortest says most.
const STORIES_MAX: usize = 4;

/// Judges `history`.
pub fn verdict(history: &[Call], allowance: &Allowance) -> Result<Summary, Box<Failure>> {
    let mut violations = check(history, allowance);
    let more = violations.len().saturating_sub(1);
    violations.sort_by_key(Violation::is_about_counts);
    let told = violations.into_iter().take(STORIES_MAX).map(|violation| {
        let story = minimise(history, allowance, &violation);
        Failure { violation, story, more }
    });
    match told.min_by_key(|failure| (failure.violation.is_about_counts(), failure.story.len())) {
        Some(failure) => Err(Box::new(failure)),
        None => Ok(Summary::of(history)),
    }
}

impl Summary {
    fn of(history: &[Call]) -> Self {
        let mut summary = Self::default();
        history.iter().for_each(|call| summary.add(call));
        summary
    }

    fn add(&mut self, call: &Call) {
        let is_strangers = matches!(&call.op, Op::RelayTxn(asked) if asked.mailbox != call.caller);
        match (&call.op, &call.answer) {
            (_, Answer::Lost) => self.lost += 1,
            (Op::Malformed(_), _) => self.malformed += 1,
            (_, Answer::Refused(_)) if is_strangers => self.malformed += 1,
            (_, Answer::Refused(status)) => *self.refused.entry(*status).or_default() += 1,
            (_, Answer::Deposited) => self.deposits += 1,
            (_, Answer::Collected(collected)) => {
                self.collects += 1;
                self.acknowledgements += call.acknowledgements().len();
                self.had += call.had().count();
                self.envelopes += collected.envelopes.len();
            }
            (_, Answer::Unreadable(_)) => {}
        }
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.deposits += other.deposits;
        self.collects += other.collects;
        self.acknowledgements += other.acknowledgements;
        self.had += other.had;
        self.envelopes += other.envelopes;
        self.lost += other.lost;
        self.malformed += other.malformed;
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deposits, collects, acknowledgements, had, envelopes, lost, malformed, refused } =
            self;
        write!(
            f,
            "{deposits} deposits, {collects} collects with {envelopes} envelopes, {acknowledgements} acknowledgements, \
             {had} had from elsewhere, {lost} calls without an answer, {malformed} rightly refused"
        )?;
        refused.iter().try_for_each(|(status, count)| write!(f, ", {count} × {status}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        writeln!(f, "the calls that show it, with the ticks between which each happened:")?;
        for call in &self.story {
            writeln!(f, "  {call}")?;
        }
        writeln!(f, "and {} more violations in the whole history", self.more)
    }
}

impl std::error::Error for Failure {}
