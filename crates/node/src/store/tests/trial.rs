//! A node's database on a disk that can fail, beside a twin of which the same was asked on a disk that never does.
//!
//! What the twin did not do is lost or made up. A call that failed may have taken effect or not, but whole: that is
//! settled at the next start, by comparing every row of every table.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use restante_federation_proto::Timestamp;
use restante_sqlite::{Limits, StoreError};
use restante_sqlite_faults::{Disk, Lie, Site, Tally, possible_effects};
use rusqlite::Connection;

use super::call::{Call, Stores};

/// A broken promise, told.
pub(super) type Outcome<T> = Result<T, String>;

/// The database, its disk, and its twin.
pub(super) struct Trial {
    pub(super) tally: Tally,
    pub(super) rng: StdRng,
    /// What callers were told.
    pub(super) errors: Vec<StoreError>,
    site: Site,
    stores: Option<Stores>,
    twin: Twin,
    /// Calls that failed since the last start.
    unanswered: Vec<Rc<Call>>,
    now: Timestamp,
    story: Vec<String>,
}

impl Trial {
    /// Not yet started.
    pub(super) async fn new(seed: u64, lie: Option<Lie>) -> Self {
        Self {
            tally: Tally::default(),
            rng: StdRng::seed_from_u64(seed),
            errors: Vec::new(),
            site: Site::new(seed, lie).unwrap(),
            stores: None,
            twin: Twin::of(&[]).await,
            unanswered: Vec::new(),
            now: Timestamp::from_millis(1_700_000_000_000),
            story: Vec::new(),
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        self.site.disk()
    }

    pub(super) fn is_started(&self) -> bool {
        self.stores.is_some()
    }

    /// Opens the database; whether that was possible.
    pub(super) async fn start(&mut self) -> bool {
        // So that losses and faults fall into the moving of the log as well, by the thread beside the writer or, as where there is
        // none, by the writer itself.
        let is_threads = self.rng.random_bool(0.5);
        let pages = self.rng.random_range(4..40_u32);
        let limits = match is_threads {
            true => Limits { log_pages: pages as usize / 4, ..Limits::default() },
            false => Limits::default(),
        };
        let opened = Stores::open_within(self.site.path(), limits).await;
        self.tell(format!("start: {opened:?}"));
        let Ok(stores) = opened else { return false };
        if is_threads {
            self.tell(format!("a thread moves the log from {} pages on", pages / 4));
            self.stores = Some(stores);
            return true;
        }
        let often = stores.database.write(move |connection| {
            connection.pragma_update_and_check(None, "wal_autocheckpoint", pages, |_| Ok(()))
        });
        let is_set = often.await.is_ok();
        self.stores = is_set.then_some(stores);
        is_set
    }

    /// Closes the database in good order, as far as the disk lets it.
    pub(super) fn stop(&mut self) {
        self.tell("stop".to_owned());
        self.stores = None;
    }

    /// The power goes and is back, and the database is not opened.
    pub(super) fn lose_power(&mut self) {
        let seed = self.rng.random();
        let loss = self.site.lose_power(seed).unwrap();
        self.stores = None;
        self.tally.losses += 1;
        self.tell(format!("power lost: {loss:?}"));
    }

    /// Up to `calls_max` calls at once, which the writer takes in this order; whether all were answered.
    pub(super) async fn step(&mut self, calls_max: usize) -> Outcome<bool> {
        self.now = self.now.after(Duration::from_secs(1));
        let count = self.rng.random_range(1..=calls_max);
        let calls: Vec<_> =
            (0..count).map(|_| Rc::new(Call::draw(&mut self.rng, self.now))).collect();
        let Some(stores) = self.stores.clone() else { return Err(self.tale("no database")) };
        let answers = join_all(calls.iter().map(|call| call.on(&stores))).await;
        let mut all = true;
        for (call, answer) in calls.into_iter().zip(answers) {
            self.tell(format!("{}: {answer:?}", call.name));
            match answer {
                Ok(answer) => self.answered(call, &answer).await?,
                Err(error) => {
                    all = false;
                    self.unanswered.push(call);
                    self.errors.push(error);
                }
            }
        }
        Ok(all)
    }

    async fn answered(&mut self, call: Rc<Call>, answer: &str) -> Outcome<()> {
        self.tally.answers += 1;
        let twins = self.twin.play(call).await;
        if twins != answer {
            return Err(self.tale(&format!("on a disk that never fails it is {twins}")));
        }
        Ok(())
    }

    /// A start that must succeed, and must find all that was answered.
    pub(super) async fn start_again(&mut self) -> Outcome<()> {
        if !self.start().await {
            return Err(self.tale("the database does not open"));
        }
        self.after_start().await
    }

    /// After a start everything that was answered is there, and what failed is there whole or not at all.
    pub(super) async fn after_start(&mut self) -> Outcome<()> {
        let found = self.found().await?;
        let unanswered = std::mem::take(&mut self.unanswered);
        if self.twin.rows().await == found {
            return Ok(());
        }
        for effective in possible_effects(&unanswered).into_iter().skip(1) {
            let mut calls = self.twin.calls.clone();
            calls.extend(effective);
            let twin = Twin::of(&calls).await;
            if twin.rows().await == found {
                self.twin = twin;
                return Ok(());
            }
        }
        self.compare(&found).await
    }

    /// What is there must be what was answered, and nothing of what failed.
    pub(super) async fn nothing_unanswered_is_there(&mut self) -> Outcome<()> {
        let found = self.found().await?;
        self.compare(&found).await
    }

    async fn compare(&self, found: &BTreeSet<String>) -> Outcome<()> {
        let twins = self.twin.rows().await;
        if *found == twins {
            return Ok(());
        }
        let missing: Vec<_> = twins.difference(found).collect();
        let surplus: Vec<_> = found.difference(&twins).collect();
        Err(self.tale(&format!("missing {missing:#?}\nand made up {surplus:#?}")))
    }

    async fn found(&mut self) -> Outcome<BTreeSet<String>> {
        let Some(stores) = self.stores.clone() else { return Err(self.tale("no database")) };
        let mut found = stores.database.read(rows).await;
        if found.is_err() && self.disk().failed() > 0 {
            // The fault may be meant for one of the calls that only look.
            self.disk().heal();
            found = stores.database.read(rows).await;
        }
        found.map_err(|error| self.tale(&format!("{error:?}")))
    }

    fn tell(&mut self, line: String) {
        const LINE_CHARACTERS_MAX: usize = 300;
        self.story.push(line.chars().take(LINE_CHARACTERS_MAX).collect());
    }

    /// The story with its end.
    pub(super) fn tale(&self, end: &str) -> String {
        let end: String = end.chars().take(4000).collect();
        format!("{}\n{end}", self.story.join("\n"))
    }
}

/// A database on a disk that never fails.
struct Twin {
    calls: Vec<Rc<Call>>,
    stores: Stores,
    _site: Site,
}

impl Twin {
    /// One of which this was asked.
    async fn of(calls: &[Rc<Call>]) -> Self {
        // Watched, since then nothing is synced for real.
        let site = Site::new(0, None).unwrap();
        let stores = Stores::open(site.path()).await.unwrap();
        let mut twin = Self { calls: Vec::new(), stores, _site: site };
        for call in calls {
            twin.play(call.clone()).await;
        }
        twin
    }

    async fn play(&mut self, call: Rc<Call>) -> String {
        let answer = call.on(&self.stores).await.unwrap();
        self.calls.push(call);
        answer
    }

    async fn rows(&self) -> BTreeSet<String> {
        self.stores.database.read(rows).await.unwrap()
    }
}

/// Every row of every table.
fn rows(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut rows = BTreeSet::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let values = (0..columns).map(|index| row.get(index));
            let values = values.collect::<Result<Vec<rusqlite::types::Value>, _>>()?;
            rows.insert(format!("{table}: {values:?}"));
        }
    }
    Ok(rows)
}
