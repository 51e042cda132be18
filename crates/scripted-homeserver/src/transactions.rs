//! Which transactions came before: a homeserver takes each once, and one of an origin at a time.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::ServerName;
use serde_json::Value;

/// What a transaction is to the homeserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is taken now.
    Begun,
    /// It was taken, and answered so.
    Seen(Value),
    /// Another one of the same origin is being taken.
    Busy,
}

#[derive(Default)]
pub(crate) struct Transactions {
    answers: BTreeMap<(ServerName, String), Value>,
    under_way: BTreeSet<ServerName>,
}

impl Transactions {
    pub(crate) fn begin(&mut self, origin: &ServerName, txn_id: &str) -> Standing {
        if let Some(answer) = self.answers.get(&(origin.clone(), txn_id.to_owned())) {
            return Standing::Seen(answer.clone());
        }
        if self.under_way.insert(origin.clone()) { Standing::Begun } else { Standing::Busy }
    }

    pub(crate) fn finish(&mut self, origin: &ServerName, txn_id: &str, answer: Value) {
        self.under_way.remove(origin);
        self.answers.insert((origin.clone(), txn_id.to_owned()), answer);
    }

    /// What was under way when the homeserver stopped was not remembered.
    pub(crate) fn restart(&mut self) {
        self.under_way.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_taken_once_and_two_of_one_origin_not_at_once() {
        let (origin, mut transactions) = ("a.test".parse().unwrap(), Transactions::default());
        assert_eq!(transactions.begin(&origin, "1"), Standing::Begun);
        assert_eq!(transactions.begin(&origin, "2"), Standing::Busy);
        transactions.finish(&origin, "1", Value::Null);
        assert_eq!(transactions.begin(&origin, "1"), Standing::Seen(Value::Null));
        assert_eq!(transactions.begin(&origin, "2"), Standing::Begun);
        transactions.restart();
        assert_eq!(transactions.begin(&origin, "2"), Standing::Begun);
    }
}
