//! A store on a disk that can fail, beside the model of all that it answered.
//!
//! A call that was answered is checked against the model and played there. One that failed may have taken effect or not,
//! but whole: that is settled at the next start, by what is found there.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use restante_sqlite_faults::{Disk, Lie, Site, Tally, possible_effects};
use sha2::{Digest as _, Sha256};

use super::call::{Answer, Brief, Call, named};
use super::*;
use crate::at_rest::Keys;
use crate::conformance::model::{Lost, Model, Verdict, key};
use crate::{Full, HandedOn, Hold, MailName, Registered, StoredEnvelope, Totals, Withdrawal};

const RECIPIENTS: [&str; 3] = ["b.example", "c.example", "d.example"];

/// A broken promise, told.
pub(super) type Outcome<T> = Result<T, String>;

/// The store, its disk, and what it must hold.
pub(super) struct Trial {
    site: Site,
    pub(super) tally: Tally,
    pub(super) rng: StdRng,
    store: Option<SqliteStore>,
    model: Model,
    /// Calls that failed since the last start.
    unanswered: Vec<Call>,
    /// What they were told.
    pub(super) errors: Vec<StoreError>,
    /// What a collect showed since the last start, which must stay as good as answered.
    shown: Vec<StoredEnvelope>,
    /// Deposits so far, so that each has a time of its own.
    deposits: u64,
    /// Attempts to start so far; keys change with each.
    starts: u64,
    sealing: Sealing,
    story: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
    None,
    Rotating,
}

/// All that a store has.
struct Found {
    envelopes: Vec<StoredEnvelope>,
    list: Vec<MailboxSummary>,
    /// Keys of acknowledged mail.
    remembered: u64,
    /// Of each recipient.
    losses: Vec<Vec<Lost>>,
    shares: Vec<Vec<(ServerName, u64, u64)>>,
    totals: Totals,
    /// How many envelopes each key is said to seal, and how many it seals.
    sealed: Vec<(i64, i64)>,
}

impl Found {
    /// Plays those of `deposits` that are there.
    fn take_over(&self, deposits: &[Call], model: &mut Model) -> Outcome<()> {
        let left = |held: &&StoredEnvelope| {
            let is_it = |call: &Call| matches!(call, Call::Deposit(mail) if *mail == held.deposit);
            deposits.iter().any(is_it) && model.verdict(&held.deposit, ROOMY) == Verdict::Stored
        };
        let mut left: Vec<_> = self.envelopes.iter().filter(left).cloned().collect();
        left.sort_by_key(|held| held.id);
        left.into_iter().try_for_each(|held| model.store(held.id, held.deposit))
    }

    fn compare(&self, model: &Model) -> Outcome<()> {
        let recipients = RECIPIENTS.map(|recipient| recipient.parse().unwrap());
        let of = |whose: &ServerName| {
            let whose = whose.clone();
            model.held().iter().filter(move |held| held.deposit.recipient == whose).cloned()
        };
        let held: Vec<_> = recipients.iter().flat_map(of).collect();
        let trouble = || format!("found {}\nnot {}", Brief(&self.envelopes), Brief(&held));
        ensure(self.envelopes == held, &trouble())?;
        let summaries = model.summaries();
        ensure(self.list == summaries, &format!("found {:?}\nnot {summaries:?}", self.list))?;
        let remembered = model.remembered();
        ensure(self.remembered == remembered, "acknowledged mail is forgotten or made up")?;
        let losses: Vec<_> = recipients.iter().map(|whose| model.losses(whose)).collect();
        ensure(self.losses == losses, &format!("lost {:?}\nnot {losses:?}", self.losses))?;
        let shares: Vec<_> = recipients.iter().map(|whose| model.shares(whose)).collect();
        ensure(self.shares == shares, &format!("shares {:?}\nnot {shares:?}", self.shares))?;
        let registered = summaries.iter().filter(|line| line.registered == Registered::Yes);
        let totals = Totals {
            mailboxes: summaries.len() as u64,
            onward_mailboxes: model.onward_mailboxes(),
            registrations: registered.count() as u64,
            envelopes: summaries.iter().map(|line| line.depth.count).sum(),
            bytes: summaries.iter().map(|line| line.depth.bytes).sum(),
            ..self.totals.clone()
        };
        ensure(self.totals == totals, &format!("totals {:?}\nnot {totals:?}", self.totals))?;
        let sealed = format!("keys seal what they are not said to: {:?}", self.sealed);
        ensure(self.sealed.iter().all(|(said, true_count)| said == true_count), &sealed)
    }
}

impl Trial {
    /// Not yet started.
    pub(super) fn new(seed: u64, lie: Option<Lie>) -> Self {
        Self {
            site: Site::new(seed, lie).unwrap(),
            tally: Tally::default(),
            rng: StdRng::seed_from_u64(seed),
            store: None,
            model: Model::default(),
            unanswered: Vec::new(),
            errors: Vec::new(),
            shown: Vec::new(),
            deposits: 0,
            starts: 0,
            sealing: if seed.is_multiple_of(2) { Sealing::None } else { Sealing::Rotating },
            story: Vec::new(),
        }
    }

    /// Opens the store; whether that was possible.
    pub(super) async fn start(&mut self) -> bool {
        self.starts += 1;
        let path = self.site.path().join("relay.sqlite");
        // So that losses and faults fall into the moving of the log as well, be it the thread's or SQLite's own.
        let is_threads = self.rng.random_bool(0.5);
        let pages = self.rng.random_range(4..40_u32);
        let limits = match is_threads {
            true => Limits { log_pages: pages as usize / 4, ..Limits::default() },
            false => Limits::default(),
        };
        let keys = self.keys();
        let opened = SqliteStore::open_within(&path, &keys, schema::FIRST_TIME_TO_LIVE, limits);
        self.tell(format!("start: {:?}", opened.as_ref().map(drop)));
        let Ok(store) = opened else { return false };
        self.model.restart();
        if is_threads {
            self.tell(format!("a thread moves the log from {} pages on", pages / 4));
            self.store = Some(store);
            return true;
        }
        let often = store.database.write(move |connection| {
            let sql = "PRAGMA wal_autocheckpoint";
            connection.pragma_update_and_check(None, &sql[7..], pages, |_| Ok(()))
        });
        let often = often.await;
        self.tell(format!("move the log every {pages} pages: {often:?}"));
        self.store = often.is_ok().then_some(store);
        often.is_ok()
    }

    /// No keys, or two of which the other one seals after each start.
    fn keys(&self) -> Keys {
        let mut lines = [
            "a AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "b BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=",
        ];
        lines.rotate_left(usize::from(self.starts.is_multiple_of(2)));
        match self.sealing {
            Sealing::None => Keys::none(),
            Sealing::Rotating => Keys::parse(&lines.join("\n")).unwrap(),
        }
    }

    /// Closes the store in good order, as far as the disk lets it.
    pub(super) fn stop(&mut self) {
        self.tell("stop".to_owned());
        self.store = None;
    }

    pub(super) fn disk(&self) -> &Disk {
        self.site.disk()
    }

    pub(super) fn is_started(&self) -> bool {
        self.store.is_some()
    }

    /// The power goes and is back, and the store is not started.
    pub(super) fn lose_power(&mut self) {
        let seed = self.rng.random();
        let loss = self.site.lose_power(seed).unwrap();
        self.store = None;
        self.tally.losses += 1;
        self.tell(format!("power lost: {loss:?}"));
    }

    /// Some calls at once; whether all were answered.
    pub(super) async fn step(&mut self) -> Outcome<bool> {
        let calls = self.draw();
        self.call(calls).await
    }

    /// These calls at once, none of which has to do with another; whether all were answered.
    pub(super) async fn call(&mut self, calls: Vec<Call>) -> Outcome<bool> {
        let Some(store) = self.store.clone() else { return Err("no store".to_owned()) };
        let leaving = named(&calls);
        let answers = join_all(calls.iter().map(|call| call.on(&store))).await;
        let mut all = true;
        let mut answered = Vec::new();
        for (call, answer) in calls.into_iter().zip(answers) {
            self.tell(format!("{call}: {answer:?}"));
            match answer {
                Ok(answer) => answered.push((call, answer)),
                Err(error) => {
                    all = false;
                    self.unanswered.push(call);
                    self.errors.push(error);
                }
            }
        }
        // In the order in which the store took them, which ids tell.
        answered.sort_by_key(|(_, answer)| match answer {
            Answer::Deposit(Deposited::Stored(id)) => id.get(),
            _ => 0,
        });
        self.tally.answers += answered.len() as u64;
        let before = self.model.clone();
        for (call, answer) in answered {
            self.check((&before, &leaving), call, answer).map_err(|trouble| self.tale(&trouble))?;
        }
        Ok(all)
    }

    /// `before` is what was there when the calls began, and what they acknowledge of it.
    fn check(&mut self, before: (&Model, &[EntryId]), call: Call, answer: Answer) -> Outcome<()> {
        match (call, answer) {
            (Call::Deposit(deposit), Answer::Deposit(deposited)) => {
                let expected = self.model.verdict(&deposit, ROOMY);
                match (deposited, expected) {
                    (Deposited::Stored(id), Verdict::Stored) => self.model.store(id, deposit)?,
                    (Deposited::Duplicate(_), Verdict::Duplicate) => self.model.meet(&deposit),
                    (Deposited::Full(_), Verdict::Full(_)) => {}
                    _ => return Err(format!("{deposited:?} where it is {expected:?}")),
                }
            }
            (Call::Collect(recipient, after, page), Answer::Collect(collected)) => {
                ensure(collected.quarantined.is_empty(), "something is damaged")?;
                // What is under way at the same time may be seen or not; what was there before must be.
                let (model, leaving) = before;
                let due = model.page(&recipient, after, page);
                let mut due = due.iter().filter(|held| !leaving.contains(&held.id));
                ensure(
                    due.all(|held| collected.envelopes.contains(held)),
                    "a collect misses mail",
                )?;
                self.shown.extend(collected.envelopes);
            }
            (Call::Acknowledge(recipient, named), Answer::Acknowledge(acknowledged)) => {
                let expected = self.model.acknowledge(&recipient, &named);
                ensure(acknowledged == expected, &format!("{acknowledged:?}, not {expected:?}"))?;
            }
            (Call::Have(recipient, copies), Answer::Acknowledge(acknowledged)) => {
                let expected = self.model.acknowledge_copies(&recipient, &copies);
                ensure(acknowledged == expected, &format!("{acknowledged:?}, not {expected:?}"))?;
            }
            (Call::Expire(before, batch_max), Answer::Expire(expired)) => {
                let expected = self.model.expire(before, batch_max);
                ensure(expired == expected, &format!("{expired:?}, not {expected:?}"))?;
            }
            (Call::Refused(deposit), Answer::Deposit(deposited)) => {
                let full = Deposited::Full(Full::Mailbox);
                ensure(deposited == full, &format!("{deposited:?} without room"))?;
                self.model.turn_away(&deposit, Full::Mailbox);
            }
            (Call::Drop(recipient, selection), Answer::Drop(dropped)) => {
                let expected = self.model.drop_mail(&recipient, &selection);
                ensure(dropped == expected, &format!("{dropped} dropped, not {expected}"))?;
            }
            (call, Answer::Done) => call.play(&mut self.model),
            _ => {}
        }
        Ok(())
    }

    /// A start that must succeed, and must find all that was answered.
    pub(super) async fn start_again(&mut self) -> Outcome<()> {
        if !self.start().await {
            return Err(self.tale("the store does not start"));
        }
        self.after_start().await
    }

    /// After a start everything that was answered is there, and what failed is there whole or not at all.
    pub(super) async fn after_start(&mut self) -> Outcome<()> {
        let found = self.found().await?;
        self.settle(&found).map_err(|trouble| self.tale(&trouble))?;
        self.recognise().await.map_err(|trouble| self.tale(&trouble))
    }

    /// What is there must be what was answered, and nothing of what failed.
    pub(super) async fn nothing_unanswered_is_there(&mut self) -> Outcome<()> {
        let found = self.found().await?;
        found.compare(&self.model).map_err(|trouble| self.tale(&trouble))
    }

    async fn found(&mut self) -> Outcome<Found> {
        let mut found = self.read().await;
        if found.is_err() && self.site.disk().failed() > 0 {
            // The fault may be meant for one of the calls that only look.
            self.site.disk().heal();
            found = self.read().await;
        }
        let found = found.map_err(|error| self.tale(&format!("{error:?}")))?;
        let (found, quarantined) = found;
        ensure(quarantined.is_empty(), "something is damaged").map_err(|end| self.tale(&end))?;
        Ok(found)
    }

    async fn read(&self) -> Result<(Found, Vec<EntryId>), StoreError> {
        let store = self.store.clone().ok_or(StoreError::Busy)?;
        let (mut envelopes, mut quarantined) = (Vec::new(), Vec::new());
        let (mut losses, mut shares) = (Vec::new(), Vec::new());
        for recipient in RECIPIENTS {
            let recipient = recipient.parse().unwrap();
            let collected = store.export(&recipient, None, EVERYTHING).await?;
            envelopes.extend(collected.envelopes);
            quarantined.extend(collected.quarantined);
            let lost = store.losses(&recipient).await?.into_iter();
            losses
                .push(lost.map(|loss| (loss.kind, loss.origin, loss.count, loss.bytes)).collect());
            let share = store.shares(&recipient, None, 10).await?.into_iter();
            shares.push(share.map(|share| (share.origin, share.envelopes, share.bytes)).collect());
        }
        let totals = store.totals().await?;
        let list = store.list(None, 10).await?;
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM acknowledged", [], |row| row.get(0))
        };
        let remembered = unsigned(store.database.read(count).await?);
        let sealed = store.database.read(sealed).await?;
        Ok((Found { envelopes, list, remembered, losses, shares, totals, sealed }, quarantined))
    }

    /// Plays in the model what turns out to have taken effect, each call whole.
    fn settle(&mut self, found: &Found) -> Outcome<()> {
        let unanswered = std::mem::take(&mut self.unanswered);
        let (deposits, others): (Vec<_>, Vec<_>) =
            unanswered.into_iter().partition(|call| matches!(call, Call::Deposit(_)));
        for effective in possible_effects(&others) {
            let mut model = self.model.clone();
            effective.into_iter().for_each(|call| call.play(&mut model));
            if found.take_over(&deposits, &mut model).is_ok() && found.compare(&model).is_ok() {
                self.model = model;
                break;
            }
        }
        found.compare(&self.model)?;
        let ids = self.model.ids();
        for shown in self.shown.drain(..) {
            let given = (shown.deposit.recipient, shown.id, shown.deposit.content_hash);
            ensure(ids.contains(&given), &format!("{given:?} was shown and is not known"))?;
        }
        Ok(())
    }

    /// Mail that is held or was acknowledged is a duplicate.
    async fn recognise(&mut self) -> Outcome<()> {
        let Some(store) = self.store.clone() else { return Err("no store".to_owned()) };
        for held in self.model.held().iter().rev().take(3) {
            let mut again = store.deposit(held.deposit.clone(), ROOMY).await;
            if again.is_err() && self.site.disk().failed() > 0 {
                self.site.disk().heal();
                again = store.deposit(held.deposit.clone(), ROOMY).await;
            }
            let again = again.map_err(|error| format!("{error:?}"))?;
            ensure(
                matches!(again, Deposited::Duplicate(_)),
                &format!("{:?} left anew", key(&held.deposit)),
            )?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Vec<Call> {
        match self.rng.random_range(0..16) {
            0..5 => vec![self.mail()],
            5 => (0..self.rng.random_range(2..5)).map(|_| self.mail()).collect(),
            6 | 7 => vec![self.acknowledgement()],
            8 => vec![self.mail(), self.collect(), self.acknowledgement()],
            9 => vec![self.collect()],
            12..15 => vec![self.command()],
            15 => vec![Call::Reseal],
            10 => vec![Call::Expire(self.due(), self.rng.random_range(0..4))],
            _ => vec![self.again(), Call::Health],
        }
    }

    pub(super) fn mail(&mut self) -> Call {
        self.deposits += 1;
        let length = match self.rng.random_range(0..20) {
            0 => 60_000,
            1..5 => 9_000,
            _ => 300,
        };
        let mut content = vec![0; self.rng.random_range(0..length)];
        self.rng.fill(&mut content[..]);
        Call::Deposit(Deposit {
            recipient: self.recipient(),
            origin: "a.example".parse().unwrap(),
            txn_id: self.deposits.to_string(),
            content_hash: ContentHash(Sha256::digest(&content).into()),
            content: content.into(),
            members: Bytes::from_static(br#"{"org.restante.proof":{}}"#),
            deposited_at: Timestamp::from_millis(self.deposits * 10),
            expires_at: Timestamp::from_millis(self.deposits * 10),
            onward: if self.deposits.is_multiple_of(3) { Onward::Wanted } else { Onward::No },
        })
    }

    /// Something that is not of every day.
    fn command(&mut self) -> Call {
        let recipient = self.recipient();
        match self.rng.random_range(0..12) {
            11 => self.copies(),
            0 | 1 => match self.mail() {
                Call::Deposit(deposit) => Call::Refused(deposit),
                other => other,
            },
            2 => Call::ForgetLosses(recipient),
            3 => Call::Set(recipient, Hold::Held),
            4 => Call::Set(recipient, Hold::Released),
            5 => Call::Drop(recipient, self.selection()),
            6 => Call::Register(recipient),
            8..11 => self.onward(),
            _ => Call::Leave(recipient),
        }
    }

    /// Some of what is held. What is not held is remembered or not, as there is room.
    fn copies(&mut self) -> Call {
        let recipient = self.recipient();
        let held = self.model.held().iter().filter(|held| held.deposit.recipient == recipient);
        let rng = &mut self.rng;
        let some = held.filter(|_| rng.random_bool(0.5)).map(|held| held.deposit.clone());
        let name = |Deposit { origin, txn_id, content_hash, .. }: Deposit| MailName {
            origin,
            txn_id,
            content_hash,
        };
        let copies = some.map(name).collect();
        Call::Have(recipient, copies)
    }

    /// What becomes of mail that is to be delivered onward; any other is withdrawn or refused in vain.
    fn onward(&mut self) -> Call {
        let held = self.model.held();
        if held.is_empty() {
            return Call::Health;
        }
        let envelope = held[self.rng.random_range(0..held.len())].clone();
        let Deposit { recipient, origin, txn_id, content_hash, .. } = envelope.deposit;
        match self.rng.random_range(0..4) {
            0 => Call::HandOn(recipient, envelope.id, HandedOn::Delivered),
            1 => Call::HandOn(recipient, envelope.id, HandedOn::PassedOn),
            2 => Call::RefuseOnward(recipient, envelope.id),
            _ => Call::Withdraw(origin, Withdrawal { recipient, txn_id, content_hash }),
        }
    }

    fn selection(&mut self) -> Selection {
        let held = self.model.held();
        let one = (!held.is_empty()).then(|| held[self.rng.random_range(0..held.len())].id);
        match (self.rng.random_range(0..3), one) {
            (0, _) => Selection::All,
            (1, Some(id)) => Selection::Envelope(id),
            _ => Selection::Origin("a.example".parse().unwrap()),
        }
    }

    /// Mail that is held, if there is any, left again.
    fn again(&mut self) -> Call {
        let held = self.model.held();
        match held.len() {
            0 => Call::Health,
            count => Call::Deposit(held[self.rng.random_range(0..count)].deposit.clone()),
        }
    }

    pub(super) fn acknowledgement(&mut self) -> Call {
        let recipient = self.recipient();
        let held = self.model.page(&recipient, None, EVERYTHING);
        let rng = &mut self.rng;
        let some = held.iter().filter(|_| rng.random_bool(0.5));
        let named = some.map(|held| Acknowledgement {
            id: held.id,
            content_hash: Some(held.deposit.content_hash),
        });
        Call::Acknowledge(recipient, named.collect())
    }

    pub(super) fn collect(&mut self) -> Call {
        let page = Page { envelopes_max: self.rng.random_range(1..5), ..EVERYTHING };
        Call::Collect(self.recipient(), None, page)
    }

    fn recipient(&mut self) -> ServerName {
        RECIPIENTS[self.rng.random_range(0..RECIPIENTS.len())].parse().unwrap()
    }

    fn due(&mut self) -> Due {
        due(self.rng.random_range(0..self.deposits * 10 + 10))
    }

    fn tell(&mut self, line: String) {
        const LINE_CHARACTERS_MAX: usize = 400;
        self.story.push(line.chars().take(LINE_CHARACTERS_MAX).collect());
    }

    /// The story with its end.
    pub(super) fn tale(&self, end: &str) -> String {
        let end: String = end.chars().take(4000).collect();
        format!("{}\n{end}", self.story.join("\n"))
    }
}

fn sealed(connection: &Connection) -> rusqlite::Result<Vec<(i64, i64)>> {
    let sql = "SELECT envelopes, (SELECT count(*) FROM envelopes AS held
                   WHERE held.seal = seals.seal AND held.quarantined = 0) FROM seals";
    let counts = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    connection.prepare(sql)?.query_map([], counts)?.collect()
}

fn ensure(is_kept: bool, broken: &str) -> Outcome<()> {
    if is_kept { Ok(()) } else { Err(broken.to_owned()) }
}
