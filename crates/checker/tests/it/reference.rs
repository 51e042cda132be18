//! A relay's mailboxes in a few lines, right or with one bug.

use std::collections::{BTreeMap, BTreeSet};

use restante_checker::{Acknowledged, Collected, Deposit, Digest, Had, Key, Seen};
use restante_federation_proto::ServerName;

use crate::bug::Bug;

/// Mailboxes count from the same number, so that an id means something in each of them.
const FIRST_ID: u64 = 100;

/// Everything a relay keeps.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) bug: Option<Bug>,
    /// Whether the bug has done harm that the checker is to find.
    pub(crate) has_erred: bool,
    mailboxes: BTreeMap<ServerName, Mailbox>,
    swallowed: BTreeSet<(ServerName, Key)>,
    /// What a crash undoes, with the bugs that forget.
    unsafe_deposits: Vec<(ServerName, u64)>,
    unsafe_acknowledgements: Vec<(ServerName, u64, Deposit)>,
}

#[derive(Default)]
struct Mailbox {
    held: BTreeMap<u64, Deposit>,
    hidden: BTreeSet<u64>,
    shown: BTreeSet<u64>,
    known: BTreeSet<Key>,
    last: Option<u64>,
    gone: Vec<(u64, Deposit)>,
}

impl Reference {
    pub(crate) fn with(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The bug does its harm, once.
    fn errs(&mut self, bug: Bug) -> bool {
        let errs = self.is(bug) && !self.has_erred;
        self.has_erred |= errs;
        errs
    }

    /// Stores; `before_it` are deposits whose call was over when this one began.
    pub(crate) fn deposit(&mut self, deposit: &Deposit, before_it: &BTreeSet<Key>) {
        let place = (deposit.mailbox.clone(), deposit.key.clone());
        if self.swallowed.contains(&place) {
            return;
        }
        let mailbox = self.mailboxes.entry(deposit.mailbox.clone()).or_default();
        let is_known = mailbox.known.contains(&deposit.key);
        let is_held = mailbox.held.values().any(|held| held.key == deposit.key);
        let once_more = (is_held && self.bug == Some(Bug::StoresTwice))
            || (is_known && !is_held && self.bug == Some(Bug::ForgetsDuplicates));
        if is_known && !once_more {
            return;
        }
        self.has_erred |= once_more;
        if !is_known && self.errs(Bug::LosesOne) {
            self.swallowed.insert(place);
            return;
        }
        self.store(deposit, before_it);
    }

    fn store(&mut self, deposit: &Deposit, before_it: &BTreeSet<Key>) {
        let (bug, has_erred) = (self.bug, self.has_erred);
        let mailbox = self.mailboxes.entry(deposit.mailbox.clone()).or_default();
        let mut id = mailbox.last.map_or(FIRST_ID, |last| last + 1);
        if bug == Some(Bug::ReusesIds)
            && let Some((gone, _)) =
                mailbox.gone.iter().find(|(gone, _)| Some(*gone) == mailbox.last)
        {
            id = *gone;
            self.has_erred = true;
        }
        mailbox.last = Some(id);
        mailbox.known.insert(deposit.key.clone());
        mailbox.held.insert(id, deposit.clone());
        self.unsafe_deposits.push((deposit.mailbox.clone(), id));
        if bug == Some(Bug::AppearsBehind) && !has_erred && mailbox.hidden.is_empty() {
            mailbox.hidden.insert(id);
        }
        let below = mailbox.held.get(&(id - 1));
        let can_swap = below.is_some_and(|below| before_it.contains(&below.key));
        if bug == Some(Bug::SwapsTwo)
            && !has_erred
            && can_swap
            && !mailbox.shown.contains(&(id - 1))
        {
            let (one, other) = (mailbox.held[&id].clone(), mailbox.held[&(id - 1)].clone());
            mailbox.held.insert(id - 1, one);
            mailbox.held.insert(id, other);
            self.has_erred = true;
        }
        if self.is(Bug::Leaks) && !self.has_erred {
            let here = deposit.mailbox.clone();
            let Some((_, other)) = self.mailboxes.iter_mut().find(|(name, _)| **name != here)
            else {
                return;
            };
            let id = other.last.map_or(FIRST_ID, |last| last + 1);
            other.last = Some(id);
            other.held.insert(id, deposit.clone());
            self.has_erred = true;
        }
    }

    pub(crate) fn acknowledge(&mut self, owner: &ServerName, all: &[Acknowledged]) {
        let ignores_hashes = self.is(Bug::IgnoresHashes);
        let everywhere = self.is(Bug::AcknowledgesEverywhere);
        for one in all {
            for (name, mailbox) in &mut self.mailboxes {
                let is_owner = name == owner;
                let Some(held) = mailbox.held.get(&one.id).filter(|_| is_owner || everywhere)
                else {
                    continue;
                };
                let fits = one.sha256.is_none_or(|sha256| sha256 == held.key.sha256);
                if !fits && !ignores_hashes {
                    continue;
                }
                self.has_erred |= !fits || !is_owner;
                if let Some(deposit) = mailbox.held.remove(&one.id) {
                    self.unsafe_acknowledgements.push((name.clone(), one.id, deposit.clone()));
                    mailbox.gone.push((one.id, deposit));
                }
            }
        }
    }

    /// Removes what `owner` has from elsewhere, and remembers it ahead.
    pub(crate) fn acknowledge_copies(&mut self, owner: &ServerName, copies: &[Had]) {
        let (hands_over, everywhere) =
            (self.is(Bug::HandsOverWhatIsHad), self.is(Bug::TakesAnyDigest));
        for Had { mailbox: name, key } in copies {
            if name != owner && !everywhere {
                continue;
            }
            let mailbox = self.mailboxes.entry(name.clone()).or_default();
            let held = mailbox.held.iter().find(|(_, held)| held.key == *key).map(|(id, _)| *id);
            self.has_erred |= held.is_some() && (hands_over || name != owner);
            if hands_over {
                continue;
            }
            mailbox.known.insert(key.clone());
            if let Some(id) = held
                && let Some(deposit) = mailbox.held.remove(&id)
            {
                mailbox.gone.push((id, deposit));
            }
        }
    }

    /// What a page holds.
    pub(crate) fn collect(
        &mut self,
        owner: &ServerName,
        after: u64,
        limit: u64,
        max_bytes: u64,
    ) -> Vec<Seen> {
        let (bug, has_erred) = (self.bug, self.has_erred);
        let Some(mailbox) = self.mailboxes.get_mut(owner) else { return Vec::new() };
        if bug == Some(Bug::CursorAcknowledges) {
            let before = mailbox.held.len();
            mailbox.held.retain(|id, _| *id > after);
            self.has_erred |= mailbox.held.len() < before;
        }
        if bug == Some(Bug::ComesBack)
            && !has_erred
            && let Some((id, deposit)) = mailbox.gone.pop()
        {
            mailbox.held.insert(id, deposit);
            self.has_erred = true;
        }
        if bug == Some(Bug::ForgetsWhatWasSeen)
            && !has_erred
            && let Some(id) = mailbox.shown.iter().copied().find(|id| mailbox.held.contains_key(id))
        {
            mailbox.held.remove(&id);
            self.has_erred = true;
        }
        let limit = if bug == Some(Bug::IgnoresTheLimit) { limit + 1 } else { limit };
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (&id, deposit) in mailbox.held.range(after + 1..) {
            bytes += deposit.bytes;
            if page.len() as u64 >= limit || (bytes > max_bytes && !page.is_empty()) {
                break;
            }
            if !mailbox.hidden.contains(&id) {
                page.push(seen(id, deposit));
            }
        }
        self.has_erred |= bug == Some(Bug::IgnoresTheLimit) && page.len() as u64 == limit;
        mailbox.shown.extend(page.iter().map(|seen| seen.id));
        if let Some(last) = page.last()
            && let Some(hidden) =
                mailbox.hidden.iter().copied().find(|id| (after + 1..last.id).contains(id))
        {
            mailbox.hidden.remove(&hidden);
            self.has_erred = true;
        }
        self.spoil(&mut page);
        page
    }

    /// Spoils one envelope of a page, with the bugs that do.
    fn spoil(&mut self, page: &mut [Seen]) {
        let Some(first) = page.first_mut() else { return };
        if self.errs(Bug::Truncates) {
            first.content = Digest::of(b"shorter");
        } else if self.errs(Bug::DropsMembers) {
            first.members = Digest::of(b"");
        }
    }

    /// Count and bytes of what waits.
    pub(crate) fn queued(&mut self, owner: &ServerName) -> (u64, u64) {
        let held = self.mailboxes.get(owner).map(|mailbox| &mailbox.held);
        let count = held.map_or(0, |held| held.len() as u64);
        let bytes = held.map_or(0, |held| held.values().map(|deposit| deposit.bytes).sum());
        self.has_erred |= match self.bug {
            Some(Bug::CountsOneMore) => true,
            Some(Bug::CountsOneLess) => count > 0,
            Some(Bug::CountsFewerBytes) => bytes > 0,
            _ => false,
        };
        match self.bug {
            Some(Bug::CountsOneMore) => (count + 1, bytes),
            Some(Bug::CountsOneLess) => (count.saturating_sub(1), bytes),
            Some(Bug::CountsFewerBytes) => (count, bytes.saturating_sub(1)),
            _ => (count, bytes),
        }
    }

    /// What was done so far is safe from the crashes to come, also with the bugs that forget.
    pub(crate) fn commit(&mut self) {
        self.unsafe_deposits.clear();
        self.unsafe_acknowledgements.clear();
    }

    /// Dies and comes back. `answered` are deposits that were answered 200.
    pub(crate) fn crash(
        &mut self,
        answered: &BTreeSet<Key>,
        acknowledged: &BTreeSet<(ServerName, u64)>,
    ) {
        let forgets_deposits = self.is(Bug::AnswersBeforeTheCommit);
        let forgets_acknowledgements = self.is(Bug::ForgetsAcknowledgements);
        for (name, id) in std::mem::take(&mut self.unsafe_deposits) {
            let Some(mailbox) = self.mailboxes.get_mut(&name).filter(|_| forgets_deposits) else {
                continue;
            };
            if let Some(deposit) = mailbox.held.remove(&id) {
                // Its number goes with it.
                mailbox.last = mailbox.last.map(|last| last.min(id - 1));
                mailbox.known.remove(&deposit.key);
                self.has_erred |= answered.contains(&deposit.key);
                self.swallowed.insert((name, deposit.key));
            }
        }
        for (name, id, deposit) in std::mem::take(&mut self.unsafe_acknowledgements) {
            let Some(mailbox) = self.mailboxes.get_mut(&name).filter(|_| forgets_acknowledgements)
            else {
                continue;
            };
            self.has_erred |= acknowledged.contains(&(name, id));
            mailbox.held.insert(id, deposit);
        }
    }
}

fn seen(id: u64, deposit: &Deposit) -> Seen {
    Seen {
        id,
        key: Some(deposit.key.clone()),
        content: deposit.key.sha256,
        members: deposit.members,
        bytes: deposit.bytes,
    }
}

/// What Dendrite's call shows of a page.
pub(crate) fn without_key(seen: Vec<Seen>) -> Collected {
    let envelopes = seen.into_iter().map(|seen| Seen { key: None, ..seen }).collect();
    Collected { envelopes, queued: None }
}
