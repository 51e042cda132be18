//! Holds a history against what the promises allow. Pure.
//!
//! Each mailbox is looked at on its own. For every envelope two windows are computed from all calls: between which ticks it
//! came into the mailbox, and between which it left. A call whose answer is unknown only widens them. Each collect is then
//! held against the windows: what must have been there, and what can't have been.

mod bindings;
mod ledger;
mod observation;
mod order;
mod page;
mod windows;

use std::collections::BTreeMap;

use restante_federation_proto::ServerName;

use crate::allowance::Allowance;
use crate::history::{Answer, Call, Op};
use crate::violation::{Fault, Violation};
use ledger::Ledger;

/// Everything in `history` that `allowance` does not excuse, at least one of each broken promise. Empty: it holds.
pub fn check(history: &[Call], allowance: &Allowance) -> Vec<Violation> {
    let mut violations: Vec<_> = history.iter().filter_map(check_answer).collect();
    let ledgers = ledgers(history, allowance);
    for (mailbox, ledger) in &ledgers {
        let faults = check_mailbox(ledger, allowance.damaged_in(mailbox));
        let located = faults.into_iter().map(|fault| {
            let fault = with_origin_of_leak(fault, &ledgers, mailbox, history);
            Violation { mailbox: (*mailbox).clone(), fault }
        });
        violations.extend(located);
    }
    violations
}

/// What is wrong with a call whatever else happened.
fn check_answer(call: &Call) -> Option<Violation> {
    let number = call.number;
    let fault = match (&call.op, &call.answer) {
        (_, Answer::Unreadable(why)) => Fault::Unreadable { call: number, why: why.clone() },
        (Op::Malformed(what), answer) if !matches!(answer, Answer::Refused(_) | Answer::Lost) => {
            Fault::Taken { call: number, what }
        }
        (Op::RelayTxn(asked), Answer::Collected(_)) if asked.mailbox != call.caller => {
            Fault::HandedToStranger { call: number }
        }
        _ => return None,
    };
    let mailbox = call.mailbox().unwrap_or(&call.caller).clone();
    Some(Violation { mailbox, fault })
}

fn ledgers<'a>(history: &'a [Call], allowance: &Allowance) -> BTreeMap<&'a ServerName, Ledger<'a>> {
    let mut calls: BTreeMap<&ServerName, Vec<&Call>> = BTreeMap::new();
    for call in history {
        if let Some(mailbox) = call.mailbox() {
            calls.entry(mailbox).or_default().push(call);
        }
    }
    let ledger = |(mailbox, calls): (_, Vec<&'a Call>)| (mailbox, Ledger::of(&calls, allowance));
    calls.into_iter().map(ledger).collect()
}

fn check_mailbox(ledger: &Ledger<'_>, damaged: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let bindings = bindings::find(ledger, &mut faults);
    let letters = windows::letters(ledger, &bindings);
    order::check(&letters, &mut faults);
    for observation in &ledger.observations {
        page::check(observation, &letters, damaged, &mut faults);
    }
    excuse(faults, damaged)
}

/// Leaves out what is missing, or there under a second id, of as many envelopes as were declared damaged.
fn excuse(faults: Vec<Fault>, damaged: u64) -> Vec<Fault> {
    let mut excused = std::collections::BTreeSet::new();
    let is_kept = |fault: &Fault| {
        let (Fault::Lost { key, .. }
        | Fault::AppearedBehind { key, .. }
        | Fault::StoredTwice { key, .. }) = fault
        else {
            return true;
        };
        if excused.contains(key) {
            return false;
        }
        let has_room = (excused.len() as u64) < damaged;
        if has_room {
            excused.insert(key.clone());
        }
        !has_room
    };
    let mut kept = faults;
    kept.retain(is_kept);
    kept
}

/// Says of what nobody left here whether it was left for somebody else.
fn with_origin_of_leak(
    fault: Fault,
    ledgers: &BTreeMap<&ServerName, Ledger<'_>>,
    here: &ServerName,
    history: &[Call],
) -> Fault {
    let Fault::FromNowhere { id, collect, .. } = fault else { return fault };
    let content = history.iter().find(|call| call.number == collect).and_then(|call| {
        let Answer::Collected(collected) = &call.answer else { return None };
        collected.envelopes.iter().find(|seen| seen.id == id).map(|seen| seen.content)
    });
    let mut others = ledgers.iter().filter(|(mailbox, _)| **mailbox != here);
    let other = others.find(|(_, ledger)| {
        ledger.left.keys().any(|key| content.is_some_and(|content| key.sha256 == content))
    });
    let also_left_for = other.map(|(mailbox, _)| (*mailbox).clone());
    Fault::FromNowhere { id, collect, also_left_for }
}
