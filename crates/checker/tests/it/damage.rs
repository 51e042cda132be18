//! What is declared damaged is forgiven, once; and what a failed call did nobody knows.

use restante_checker::{
    Allowance, Answer, Call, Collect, Collected, Deposit, Digest, Key, Op, Seen, ServerErrors,
    check,
};
use restante_federation_proto::ServerName;

fn mailbox() -> ServerName {
    "m.example".parse().unwrap()
}

fn letter(number: u8) -> Deposit {
    let key = Key {
        origin: "a.example".parse().unwrap(),
        txn_id: number.to_string(),
        sha256: Digest::of(&[number]),
    };
    Deposit { mailbox: mailbox(), key, bytes: 10, members: Digest::of(b"") }
}

/// Calls, one after the other.
fn history(calls: Vec<(Op, Answer)>) -> Vec<Call> {
    let numbered = calls.into_iter().enumerate();
    let call = |(number, (op, answer)): (usize, _)| Call {
        number,
        start: 2 * number as u64,
        end: 2 * number as u64 + 1,
        caller: mailbox(),
        op,
        answer,
    };
    numbered.map(call).collect()
}

fn left(number: u8, answer: Answer) -> (Op, Answer) {
    (Op::Deposit(letter(number)), answer)
}

fn collected(letters: &[(u64, u8)]) -> (Op, Answer) {
    let seen = |(id, number): &(u64, u8)| {
        let Deposit { key, bytes, members, .. } = letter(*number);
        Seen { id: *id, content: key.sha256, key: Some(key), members, bytes }
    };
    let envelopes: Vec<_> = letters.iter().map(seen).collect();
    let queued = Some((letters.len() as u64, 10 * letters.len() as u64));
    let collect =
        Collect { after: 0, limit: 10, max_bytes: 1000, acknowledge: vec![], have: vec![] };
    (Op::Collect(collect), Answer::Collected(Collected { envelopes, queued }))
}

fn damaged(count: u64) -> Allowance {
    Allowance { damaged: [(mailbox(), count)].into(), ..Allowance::default() }
}

#[test]
fn as_many_envelopes_may_be_missing_as_were_declared_damaged() {
    let left = [1, 2, 3].map(|number| left(number, Answer::Deposited));
    let history = history(left.into_iter().chain([collected(&[(7, 2)])]).collect());

    assert_eq!(check(&history, &damaged(2)), []);
    assert_ne!(check(&history, &damaged(1)), []);
    assert_ne!(check(&history, &damaged(0)), []);
}

#[test]
fn what_is_left_again_after_damage_may_have_a_second_id() {
    let again = [collected(&[(7, 1)]), left(1, Answer::Deposited), collected(&[(8, 1)])];
    let history = history([left(1, Answer::Deposited)].into_iter().chain(again).collect());

    assert_eq!(check(&history, &damaged(1)), []);
    assert_ne!(check(&history, &damaged(0)), []);
}

#[test]
fn a_deposit_that_failed_may_be_there_only_where_the_disk_may_fail() {
    let history = history(vec![left(1, Answer::Refused(503)), collected(&[(7, 1)])]);
    let faulty_disk =
        Allowance { server_errors: ServerErrors::MayHaveHadEffect, ..Allowance::default() };

    assert_eq!(check(&history, &faulty_disk), []);
    assert_ne!(check(&history, &Allowance::default()), []);
}

#[test]
fn a_deposit_without_an_answer_may_be_missing_but_not_once_it_was_seen() {
    let missing = history(vec![left(1, Answer::Lost), collected(&[])]);
    let vanished = history(vec![left(1, Answer::Lost), collected(&[(7, 1)]), collected(&[])]);

    assert_eq!(check(&missing, &Allowance::default()), []);
    assert_ne!(check(&vanished, &Allowance::default()), []);
}
