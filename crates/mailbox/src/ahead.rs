//! Remembers names of mail that never came, and that its recipient has from elsewhere.
//!
//! Pure, and in memory alone: strangers who register can fill no disk with what they claim to have, and what is forgotten
//! costs its owner one download.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};

use crate::NAMES_AHEAD_MAX;
use crate::duplicate::{AheadKey, DuplicateKey, OwnerKey, owner_of};

/// Names that are remembered for all mailboxes together: less than twenty megabytes.
pub(crate) const ALL_NAMES_AHEAD_MAX: usize = 100_000;

/// How long a name is remembered: whoever leaves mail with several relays does so within that time, even if one of them is away
/// for a day.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_secs(2 * 24 * 3600);

/// Names by mailbox and by age.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    names: BTreeMap<AheadKey, Place>,
    by_age: BTreeMap<Place, AheadKey>,
    counts: HashMap<OwnerKey, u64>,
    remembered: u64,
}

/// When a name was remembered, and which of that time it is.
type Place = (Timestamp, u64);

impl Ahead {
    /// Remembers `key`, unless its mailbox has [`NAMES_AHEAD_MAX`] already. Of all mailboxes' the oldest makes room.
    pub(crate) fn remember(&mut self, key: AheadKey, now: Timestamp) {
        self.forget_old(now);
        let owner = owner_of(&key);
        let count = self.counts.get(&owner).copied().unwrap_or_default();
        if count >= NAMES_AHEAD_MAX || self.names.contains_key(&key) {
            return;
        }
        if self.names.len() >= ALL_NAMES_AHEAD_MAX
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            self.forget(&oldest.clone());
        }
        let place = (now, self.remembered);
        self.remembered += 1;
        self.names.insert(key, place);
        self.by_age.insert(place, key);
        *self.counts.entry(owner).or_default() += 1;
    }

    /// The mail of that name is here: whether its recipient has it. The name is forgotten; from here on it is remembered like
    /// that of any mail that came.
    pub(crate) fn meet(&mut self, key: &AheadKey, now: Timestamp) -> bool {
        self.forget_old(now);
        self.forget(key)
    }

    /// Forgets all that was remembered for `recipient`.
    pub(crate) fn forget_all_of(&mut self, recipient: &ServerName) {
        let (first, last) = DuplicateKey::all_ahead_of(recipient);
        let keys: Vec<_> = self.names.range(first..=last).map(|(key, _)| *key).collect();
        for key in &keys {
            self.forget(key);
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((_, key)) = self
            .by_age
            .first_key_value()
            .filter(|((since, _), _)| since.after(REMEMBERED_FOR) < now)
        {
            self.forget(&key.clone());
        }
    }

    fn forget(&mut self, key: &AheadKey) -> bool {
        let Some(place) = self.names.remove(key) else { return false };
        self.by_age.remove(&place);
        let owner = owner_of(key);
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(recipient: &str, number: u64) -> AheadKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        DuplicateKey(key).ahead_of(&recipient.parse().unwrap())
    }

    fn time(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn names_of_all_mailboxes_are_bounded_and_the_oldest_go_first() {
        let mut ahead = Ahead::default();
        let mailboxes = ALL_NAMES_AHEAD_MAX as u64 / NAMES_AHEAD_MAX + 1;
        for mailbox in 0..mailboxes {
            for number in 0..NAMES_AHEAD_MAX + 1 {
                ahead.remember(key(&format!("m{mailbox}.test"), number), time(mailbox));
            }
        }
        assert_eq!(ahead.names.len(), ALL_NAMES_AHEAD_MAX);
        assert_eq!(ahead.by_age.len(), ALL_NAMES_AHEAD_MAX);
        assert_eq!(ahead.counts.values().sum::<u64>(), ALL_NAMES_AHEAD_MAX as u64);
        assert!(!ahead.meet(&key("m0.test", NAMES_AHEAD_MAX - 1), time(0)), "the oldest");
        assert!(ahead.meet(&key("m1.test", 0), time(0)));
        let last = format!("m{}.test", mailboxes - 1);
        assert!(ahead.meet(&key(&last, NAMES_AHEAD_MAX - 1), time(0)));
        assert!(!ahead.meet(&key(&last, NAMES_AHEAD_MAX), time(0)), "more than of one mailbox");
    }

    #[test]
    fn a_name_is_met_once_in_its_own_mailbox_and_for_two_days() {
        let mut ahead = Ahead::default();
        let day = Duration::from_secs(24 * 3600);
        for number in 0..3 {
            ahead.remember(key("b.test", number), time(1));
        }
        assert!(!ahead.meet(&key("c.test", 0), time(1)));
        assert!(ahead.meet(&key("b.test", 0), time(1).after(2 * day)));
        assert!(!ahead.meet(&key("b.test", 0), time(1)));
        assert!(!ahead.meet(&key("b.test", 1), time(2).after(2 * day)));
        assert!(ahead.names.is_empty() && ahead.by_age.is_empty() && ahead.counts.is_empty());
    }

    #[test]
    fn a_name_that_is_told_again_takes_no_other_place() {
        let mut ahead = Ahead::default();
        for millis in 1..=3 {
            ahead.remember(key("b.test", 0), time(millis));
        }
        assert_eq!((ahead.by_age.len(), ahead.counts.values().sum::<u64>()), (1, 1));
        assert!(ahead.meet(&key("b.test", 0), time(3)));
        assert!(ahead.names.is_empty() && ahead.by_age.is_empty() && ahead.counts.is_empty());
    }

    #[test]
    fn names_past_their_time_make_room_in_their_mailbox() {
        let mut ahead = Ahead::default();
        for number in 0..NAMES_AHEAD_MAX {
            ahead.remember(key("b.test", number), time(1));
        }
        let later = time(2).after(REMEMBERED_FOR);
        ahead.remember(key("b.test", NAMES_AHEAD_MAX), later);
        assert!(ahead.meet(&key("b.test", NAMES_AHEAD_MAX), later));
    }

    #[test]
    fn who_leaves_is_forgotten_and_nobody_else() {
        let mut ahead = Ahead::default();
        for number in 0..3 {
            ahead.remember(key("b.test", number), time(1));
            ahead.remember(key("c.test", number), time(1));
        }
        ahead.forget_all_of(&"b.test".parse().unwrap());
        assert!(!ahead.meet(&key("b.test", 1), time(1)));
        assert!(ahead.meet(&key("c.test", 1), time(1)));
        assert_eq!(ahead.names.len(), 2);
    }
}
