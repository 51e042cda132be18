//! Bounds how many mailboxes strangers can make: in an open relay anybody can leave mail for any name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use restante_mailbox::{Custody, StoreError, Upkeep};

/// Mailboxes that are known to exist; for others the store is asked once there are as many as there may be.
const KNOWN_MAX: usize = 8192;

/// How many mailboxes there are.
pub(crate) struct Mailboxes {
    custody: Arc<dyn Custody>,
    upkeep: Arc<dyn Upkeep>,
    seen: Mutex<Seen>,
}

struct Seen {
    known: BoundedMap<ServerName, ()>,
    /// At least as many as there are; nothing before the store was asked.
    count_max: Option<u64>,
}

/// Whether mail may go into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Found,
    /// It would be one more than there may be.
    None,
}

impl Mailboxes {
    pub(crate) fn new(custody: Arc<dyn Custody>, upkeep: Arc<dyn Upkeep>) -> Self {
        let seen = Seen { known: BoundedMap::new(KNOWN_MAX), count_max: None };
        Self { custody, upkeep, seen: Mutex::new(seen) }
    }

    /// Whether mail for `recipient` has a place, where no more than `max` mailboxes may be made. Deposits that arrive
    /// together may make some more.
    pub(crate) async fn place(
        &self,
        recipient: &ServerName,
        max: u64,
    ) -> Result<Place, StoreError> {
        {
            let mut seen = self.seen();
            let is_known = seen.known.get(recipient).is_some();
            if is_known || seen.count_max.is_some_and(|count| count < max) {
                return Ok(Place::Found);
            }
        }
        let count = self.upkeep.totals().await?.mailboxes;
        self.seen().count_max = Some(count);
        if count < max {
            return Ok(Place::Found);
        }
        if self.custody.summary(recipient).await?.is_none() {
            return Ok(Place::None);
        }
        self.seen().known.insert(recipient.clone(), ());
        Ok(Place::Found)
    }

    /// Mail was stored for `recipient`.
    pub(crate) fn note(&self, recipient: &ServerName) {
        let mut seen = self.seen();
        if seen.known.get(recipient).is_none() {
            seen.known.insert(recipient.clone(), ());
            // It may have been there before; the store knows, and is asked before anybody is refused.
            seen.count_max = seen.count_max.map(|count| count.saturating_add(1));
        }
    }

    /// These mailboxes are gone, and their places are free.
    pub(crate) fn note_gone(&self, recipients: &[ServerName]) {
        let mut seen = self.seen();
        for recipient in recipients {
            seen.known.remove(recipient);
        }
        if !recipients.is_empty() {
            seen.count_max = None;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use restante_federation_proto::Timestamp;
    use restante_mailbox::{
        ContentHash, Deposit, Lapse, MemoryStore, Onward, Registry as _, Selection,
    };

    use super::*;

    fn name(number: u64) -> ServerName {
        format!("s{number}.example").parse().unwrap()
    }

    async fn make(store: &MemoryStore, number: u64) {
        let deposit = Deposit {
            recipient: name(number),
            origin: name(0),
            txn_id: "t".into(),
            content_hash: ContentHash([0; 32]),
            content: Bytes::from_static(b"{}"),
            members: Bytes::new(),
            deposited_at: Timestamp::EPOCH,
            expires_at: Timestamp::from_millis(u64::MAX),
            onward: Onward::No,
        };
        store.import(vec![deposit]).await.unwrap();
    }

    #[tokio::test]
    async fn a_mailbox_that_is_there_has_its_place_and_one_more_than_may_be_has_none() {
        let store = Arc::new(MemoryStore::new());
        make(&store, 1).await;
        let mailboxes = Mailboxes::new(store.clone(), store.clone());
        for number in 2..=3 {
            assert_eq!(mailboxes.place(&name(number), 3).await.unwrap(), Place::Found);
            make(&store, number).await;
            mailboxes.note(&name(number));
        }
        assert_eq!(mailboxes.place(&name(4), 3).await.unwrap(), Place::None);
        for number in 1..=3 {
            assert_eq!(mailboxes.place(&name(number), 3).await.unwrap(), Place::Found);
        }
        assert_eq!(mailboxes.place(&name(4), 4).await.unwrap(), Place::Found);
        assert_eq!(mailboxes.place(&name(4), 2).await.unwrap(), Place::None);
    }

    #[tokio::test]
    async fn the_place_of_a_mailbox_that_is_gone_is_free() {
        let store = Arc::new(MemoryStore::new());
        make(&store, 1).await;
        let mailboxes = Mailboxes::new(store.clone(), store.clone());
        assert_eq!(mailboxes.place(&name(1), 1).await.unwrap(), Place::Found);
        assert_eq!(mailboxes.place(&name(2), 1).await.unwrap(), Place::None);
        store.drop_mail(&name(1), Selection::All, Timestamp::EPOCH).await.unwrap();
        let moment = Timestamp::from_millis(1);
        let lapse = Lapse {
            called_before: moment,
            unused_before: moment,
            now: moment,
            spared: Arc::new([]),
        };
        let gone = store.lapse(&lapse, None, 10).await.unwrap().mailboxes;
        assert_eq!(gone, [name(1)]);
        mailboxes.note_gone(&gone);
        assert_eq!(mailboxes.place(&name(2), 1).await.unwrap(), Place::Found);
        make(&store, 2).await;
        mailboxes.note(&name(2));
        assert_eq!(mailboxes.place(&name(1), 1).await.unwrap(), Place::None);
    }

    #[tokio::test]
    async fn mail_for_the_same_mailbox_again_and_again_uses_up_no_places() {
        let store = Arc::new(MemoryStore::new());
        make(&store, 1).await;
        let mailboxes = Mailboxes::new(store.clone(), store.clone());
        for _ in 0..10 {
            assert_eq!(mailboxes.place(&name(1), 2).await.unwrap(), Place::Found);
            mailboxes.note(&name(1));
        }
        assert_eq!(mailboxes.place(&name(2), 2).await.unwrap(), Place::Found);
    }
}
