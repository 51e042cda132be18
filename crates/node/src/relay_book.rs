//! Who holds whose mail: the relays of each server, by the operator's word (the configuration and commands), else by the
//! server's own relay record; and which of our own are being left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::LeftMail;
use restante_sqlite::rusqlite::{self, Connection};
use restante_sqlite::{Database, StoreError};
use tokio::sync::watch;

use crate::config::NodeConfig;
use crate::relay_records::Recorded;
use crate::store;

/// Where a relay's entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelaySource {
    /// The configuration file.
    Configuration,
    /// `restante relays add`.
    Operator,
}

/// One relay of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownRelay {
    /// The relay.
    pub(crate) peer: Peer,
    /// Where we know it from.
    pub(crate) source: RelaySource,
    /// Of our own relays: that it is being left.
    pub(crate) departure: Option<Departure>,
}

/// Whether a relay of our own delivers our mail onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// It keeps mail for us, and that is all.
    No,
    /// It does.
    Yes,
}

/// How far the homeserver has got with leaving one of its relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Departure {
    /// What becomes of the mail there.
    pub(crate) mail: LeftMail,
    /// The step.
    pub(crate) state: DepartureState,
    /// Since when it is at this step.
    pub(crate) since: Timestamp,
}

/// The steps of leaving a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DepartureState {
    /// The relay is to be told.
    Asked,
    /// It takes nothing more for us; what it holds is collected.
    Told,
    /// It holds nothing more.
    Done,
}

/// All relays that the operator named, by the server whose mail they hold.
pub(crate) type RelaysByServer = BTreeMap<ServerName, Vec<KnownRelay>>;

/// The book; changes take effect at once. Clones share it.
#[derive(Clone)]
pub(crate) struct RelayBook {
    shared: Arc<Inner>,
}

struct Inner {
    database: Database,
    own: ServerName,
    configured: Mutex<BTreeMap<ServerName, Vec<Peer>>>,
    relays: watch::Sender<RelaysByServer>,
    /// Those of our own that deliver our mail onward, as each said when we registered there last.
    outgoing: Mutex<BTreeSet<ServerName>>,
    /// Changes in the order in which the database made them, so that the newest is what is shown last.
    changes: AtomicU64,
    shown: Mutex<u64>,
}

impl RelayBook {
    /// Reads the operator's entries from the database and joins them with `configured`.
    pub(crate) async fn open(
        database: Database,
        own: ServerName,
        configured: BTreeMap<ServerName, Vec<Peer>>,
    ) -> Result<Self, StoreError> {
        let named = named_for(&configured, &own);
        let entries = database.write(move |connection| entries(connection, &named)).await?;
        let relays = watch::Sender::new(join(&configured, entries, &own));
        let inner = Inner {
            database,
            own,
            configured: Mutex::new(configured),
            relays,
            outgoing: Mutex::default(),
            changes: AtomicU64::new(0),
            shown: Mutex::new(0),
        };
        Ok(Self { shared: Arc::new(inner) })
    }

    /// The relays that the operator named for `server`.
    pub(crate) fn of(&self, server: &ServerName) -> Vec<KnownRelay> {
        self.shared.relays.borrow().get(server).cloned().unwrap_or_default()
    }

    /// Whether the operator said which relays `server` has, be it none: then its record counts for nothing.
    pub(crate) fn is_named(&self, server: &ServerName) -> bool {
        self.shared.relays.borrow().contains_key(server)
    }

    /// Whether the operator said that `server` has none.
    pub(crate) fn has_none(&self, server: &ServerName) -> bool {
        self.shared.relays.borrow().get(server).is_some_and(Vec::is_empty)
    }

    /// The relays that hold `server`'s mail: those that the operator named, else those of its newest record, in the order in
    /// which it wants them tried. This node is none of them. One that the operator named for somebody is where the operator
    /// says, whatever the record does: it may be on a private address.
    pub(crate) async fn holding(&self, server: &ServerName) -> Result<Vec<Peer>, StoreError> {
        if self.is_named(server) {
            return Ok(self.of(server).into_iter().map(|known| known.peer).collect());
        }
        let recorded = self.record_of(server).await?;
        let relays = recorded.map(|recorded| recorded.relays()).unwrap_or_default();
        let others = relays.into_iter().filter(|relay| relay.name != self.shared.own);
        Ok(others.map(|relay| self.named_peer(&relay.name).unwrap_or(relay)).collect())
    }

    fn named_peer(&self, relay: &ServerName) -> Option<Peer> {
        let named = self.shared.relays.borrow();
        let mut all = named.values().flatten();
        all.find(|known| known.peer.name == *relay).map(|known| known.peer.clone())
    }

    /// The newest record of another server that is known.
    pub(crate) async fn record_of(
        &self,
        server: &ServerName,
    ) -> Result<Option<Recorded>, StoreError> {
        let server = server.clone();
        let read = move |connection: &Connection| store::relay_records::load(connection, &server);
        self.shared.database.read(read).await
    }

    /// The records that were learned last, at most `limit`.
    pub(crate) async fn records(&self, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let read = move |connection: &Connection| store::relay_records::newest(connection, limit);
        self.shared.database.read(read).await
    }

    /// What the operator named, now and after every change.
    pub(crate) fn watch(&self) -> watch::Receiver<RelaysByServer> {
        self.shared.relays.subscribe()
    }

    /// Adds a relay for `server`, or changes its URL; durable on return. An entry of the operator's goes before a
    /// configured one of the same name.
    pub(crate) async fn add(&self, server: ServerName, relay: Peer) -> Result<(), StoreError> {
        let is_own = server == self.shared.own;
        self.change(move |connection| {
            if is_own {
                store::departures::remove(connection, &relay.name)?;
            }
            store::relays::add(connection, &server, &relay)
        })
        .await
    }

    /// Removes a relay that the operator added. `false` if there is none; configured ones stay.
    pub(crate) async fn remove(
        &self,
        server: &ServerName,
        relay: &ServerName,
    ) -> Result<bool, StoreError> {
        let is_own = *server == self.shared.own;
        let (server, relay) = (server.clone(), relay.clone());
        self.change(move |connection| {
            let is_removed = store::relays::remove(connection, &server, &relay)?;
            if is_own && is_removed {
                store::departures::remove(connection, &relay)?;
            }
            Ok(is_removed)
        })
        .await
    }

    /// Our own relays that are not left yet.
    pub(crate) fn own(&self) -> Vec<KnownRelay> {
        self.of(&self.shared.own)
    }

    /// Our own relays that deliver our mail onward and are not being left.
    pub(crate) fn outgoing(&self) -> Vec<Peer> {
        let outgoing = self.outgoing_names();
        let own = self.own().into_iter().filter(|known| known.departure.is_none());
        own.map(|known| known.peer).filter(|relay| outgoing.contains(&relay.name)).collect()
    }

    /// Notes whether one of our own relays delivers our mail onward.
    pub(crate) fn note_outgoing(&self, relay: &ServerName, outgoing: Outgoing) {
        let mut names = self.outgoing_names();
        match outgoing {
            Outgoing::Yes => drop(names.insert(relay.clone())),
            Outgoing::No => drop(names.remove(relay)),
        }
    }

    fn outgoing_names(&self) -> MutexGuard<'_, BTreeSet<ServerName>> {
        self.shared.outgoing.lock().expect("nothing panics while it reads or changes names")
    }

    /// Notes how far leaving one of our own relays is; durable on return. When it is done, the operator's entry goes as
    /// well; what the configuration names is remembered as left.
    pub(crate) async fn depart(
        &self,
        relay: ServerName,
        departure: Departure,
    ) -> Result<(), StoreError> {
        let own = self.shared.own.clone();
        self.change(move |connection| put_departure(connection, &own, &relay, departure)).await
    }

    /// Takes back that one of our own relays is being left; durable on return.
    pub(crate) async fn stay(&self, relay: ServerName) -> Result<(), StoreError> {
        self.change(move |connection| store::departures::remove(connection, &relay)).await
    }

    /// A relay said in answer to a question of `asked_at` that it holds nothing for us: if it has been told by then that
    /// we leave, that is done.
    pub(crate) async fn emptied(&self, relay: &ServerName, asked_at: Timestamp) {
        let known = self.own().into_iter().find(|known| known.peer.name == *relay);
        let Some(told) = known.and_then(|known| known.departure) else { return };
        if told.state != DepartureState::Told || asked_at < told.since {
            return;
        }
        let done = Departure { state: DepartureState::Done, since: asked_at, ..told };
        let (own, left) = (self.shared.own.clone(), relay.clone());
        let finished = self.change(move |connection| {
            // It may have been joined anew, or told something else, since the book was read.
            let is_still_told = store::departures::load(connection)?.get(&left) == Some(&told);
            if is_still_told {
                put_departure(connection, &own, &left, done)?;
            }
            Ok(is_still_told)
        });
        match finished.await {
            Ok(true) => {
                tracing::info!(%relay, "the relay is left, and everything there was collected")
            }
            Ok(false) => {}
            // It is asked again, and says so again.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %relay, "a relay that is left can't be removed now");
            }
        }
    }

    /// Replaces what the configuration names; what the operator added stays.
    pub(crate) async fn configure(
        &self,
        configured: BTreeMap<ServerName, Vec<Peer>>,
    ) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut *self.configured(), configured);
        let shown = self.change(|_| Ok(())).await;
        if shown.is_err() {
            *self.configured() = before;
        }
        shown
    }

    fn configured(&self) -> MutexGuard<'_, BTreeMap<ServerName, Vec<Peer>>> {
        self.shared.configured.lock().expect("nothing panics while it reads them")
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let named = named_for(&self.configured(), &self.shared.own);
        let changed = self.shared.database.write(move |connection| {
            let result = change(connection)?;
            let entries = entries(connection, &named)?;
            Ok((result, entries, shared.changes.fetch_add(1, Ordering::SeqCst) + 1))
        });
        let (result, entries, number) = changed.await?;
        self.show(entries, number);
        Ok(result)
    }

    fn show(&self, entries: Entries, number: u64) {
        let mut shown = self.shared.shown.lock().expect("nothing panics while it shows a change");
        if *shown < number {
            *shown = number;
            let joined = join(&self.configured(), entries, &self.shared.own);
            self.shared.relays.send_replace(joined);
        }
    }
}

fn put_departure(
    connection: &Connection,
    own: &ServerName,
    relay: &ServerName,
    departure: Departure,
) -> rusqlite::Result<()> {
    store::departures::put(connection, relay, departure)?;
    if departure.state == DepartureState::Done {
        store::relays::remove(connection, own, relay)?;
    }
    Ok(())
}

/// What the configuration names.
pub(crate) fn configured(config: &NodeConfig) -> BTreeMap<ServerName, Vec<Peer>> {
    let relays = config.relays.iter();
    relays
        .map(|(server, relays)| (server.clone(), relays.iter().cloned().map(Into::into).collect()))
        .collect()
}

/// What the database says.
struct Entries {
    added: Vec<(ServerName, Peer)>,
    departures: BTreeMap<ServerName, Departure>,
}

/// Reads the entries. That a relay was left is forgotten once the configuration does not name it: whoever names it again
/// means it.
fn entries(connection: &Connection, named: &BTreeSet<ServerName>) -> rusqlite::Result<Entries> {
    let mut departures = store::departures::load(connection)?;
    let is_over = |(relay, departure): &(&ServerName, &Departure)| {
        departure.state == DepartureState::Done && !named.contains(*relay)
    };
    let over: Vec<ServerName> =
        departures.iter().filter(is_over).map(|(relay, _)| relay.clone()).collect();
    for relay in over {
        store::departures::remove(connection, &relay)?;
        departures.remove(&relay);
    }
    Ok(Entries { added: store::relays::load(connection)?, departures })
}

/// The relays of `own` that the configuration names.
fn named_for(
    configured: &BTreeMap<ServerName, Vec<Peer>>,
    own: &ServerName,
) -> BTreeSet<ServerName> {
    configured.get(own).into_iter().flatten().map(|peer| peer.name.clone()).collect()
}

fn join(
    configured: &BTreeMap<ServerName, Vec<Peer>>,
    entries: Entries,
    own: &ServerName,
) -> RelaysByServer {
    let Entries { added, departures } = entries;
    let known =
        |source| move |peer: &Peer| KnownRelay { peer: peer.clone(), source, departure: None };
    let mut relays: RelaysByServer = configured
        .iter()
        .map(|(server, peers)| {
            (server.clone(), peers.iter().map(known(RelaySource::Configuration)).collect())
        })
        .collect();
    for (server, peer) in added {
        let of_server = relays.entry(server).or_default();
        of_server.retain(|known| known.peer.name != peer.name);
        of_server.push(known(RelaySource::Operator)(&peer));
    }
    if let Some(of_own) = relays.get_mut(own) {
        for relay in of_own.iter_mut() {
            relay.departure = departures.get(&relay.peer.name).copied();
        }
        let is_left = |departure: &Departure| departure.state == DepartureState::Done;
        of_own.retain(|relay| !relay.departure.as_ref().is_some_and(is_left));
    }
    relays
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn relay(relay: &str, url: Option<&str>) -> Peer {
        Peer::new(name(relay), url.map(|url| url.parse().unwrap()))
    }

    fn names(relays: &[KnownRelay]) -> Vec<(&str, RelaySource)> {
        relays.iter().map(|known| (known.peer.name.as_str(), known.source)).collect()
    }

    async fn open(folder: &tempfile::TempDir) -> RelayBook {
        let configured = BTreeMap::from([(name("b.test"), vec![relay("r1.test", None)])]);
        let database = crate::store::open(folder.path()).unwrap();
        RelayBook::open(database, name("b.test"), configured).await.unwrap()
    }

    fn departure(state: DepartureState, since: u64) -> Departure {
        Departure { mail: LeftMail::Keep, state, since: Timestamp::from_millis(since) }
    }

    #[tokio::test]
    async fn a_relay_is_left_once_it_was_told_and_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let (b, r2) = (name("b.test"), name("r2.test"));
        book.add(b.clone(), relay("r2.test", None)).await.unwrap();
        book.depart(r2.clone(), departure(DepartureState::Asked, 5)).await.unwrap();
        book.emptied(&r2, Timestamp::from_millis(9)).await;
        assert_eq!(book.own().len(), 2, "it may take more before it is told");
        book.depart(r2.clone(), departure(DepartureState::Told, 7)).await.unwrap();
        book.emptied(&r2, Timestamp::from_millis(6)).await;
        assert_eq!(book.own().len(), 2, "that was asked before it was told");

        drop(book);
        let book = open(&folder).await;
        book.emptied(&r2, Timestamp::from_millis(9)).await;
        assert_eq!(names(&book.own()), [("r1.test", RelaySource::Configuration)]);
        book.add(b, relay("r2.test", None)).await.unwrap();
        assert_eq!(book.own()[1].departure, None, "it was added anew");
    }

    #[tokio::test]
    async fn a_relay_that_is_joined_anew_while_it_says_that_it_is_empty_stays() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let r2 = name("r2.test");
        book.add(name("b.test"), relay("r2.test", None)).await.unwrap();
        book.depart(r2.clone(), departure(DepartureState::Told, 7)).await.unwrap();
        // The join is in the database, and not yet in what is shown.
        let joined = r2.clone();
        let join = book
            .shared
            .database
            .write(move |connection| crate::store::departures::remove(connection, &joined));
        join.await.unwrap();
        book.emptied(&r2, Timestamp::from_millis(9)).await;
        assert_eq!(book.own().len(), 2);
        assert_eq!(book.own()[1].departure, None);
    }

    #[tokio::test]
    async fn a_configured_relay_that_was_left_stays_left_until_the_configuration_drops_it() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        book.depart(name("r1.test"), departure(DepartureState::Done, 5)).await.unwrap();
        assert_eq!(book.own(), []);
        drop(book);
        let book = open(&folder).await;
        assert_eq!(book.own(), []);
        book.configure(BTreeMap::new()).await.unwrap();
        let named = BTreeMap::from([(name("b.test"), vec![relay("r1.test", None)])]);
        book.configure(named).await.unwrap();
        assert_eq!(names(&book.own()), [("r1.test", RelaySource::Configuration)]);
    }

    #[tokio::test]
    async fn what_the_operator_adds_is_seen_at_once_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let mut watch = book.watch();
        book.add(name("b.test"), relay("r2.test", Some("http://127.0.0.1:1"))).await.unwrap();
        assert!(watch.has_changed().unwrap());
        let expected =
            [("r1.test", RelaySource::Configuration), ("r2.test", RelaySource::Operator)];
        assert_eq!(names(&watch.borrow_and_update()[&name("b.test")]), expected);

        drop((book, watch));
        let book = open(&folder).await;
        assert_eq!(names(&book.of(&name("b.test"))), expected);
        assert_eq!(book.of(&name("c.test")), []);
    }

    #[tokio::test]
    async fn only_the_operators_entries_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let (b, r1) = (name("b.test"), name("r1.test"));
        assert!(!book.remove(&b, &r1).await.unwrap());
        book.add(b.clone(), relay("r1.test", Some("http://127.0.0.1:1"))).await.unwrap();
        assert_eq!(names(&book.of(&b)), [("r1.test", RelaySource::Operator)]);
        assert!(book.remove(&b, &r1).await.unwrap());
        assert_eq!(names(&book.of(&b)), [("r1.test", RelaySource::Configuration)]);
    }

    #[tokio::test]
    async fn a_changed_configuration_leaves_what_the_operator_added() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let b = name("b.test");
        book.add(b.clone(), relay("r2.test", None)).await.unwrap();
        let watch = book.watch();
        let changed = BTreeMap::from([(b.clone(), vec![relay("r3.test", None)])]);
        book.configure(changed).await.unwrap();
        let expected =
            [("r3.test", RelaySource::Configuration), ("r2.test", RelaySource::Operator)];
        assert_eq!(names(&watch.borrow()[&b]), expected);
    }

    #[tokio::test]
    async fn changes_at_once_all_end_up_in_the_book() {
        let folder = tempfile::tempdir().unwrap();
        let book = open(&folder).await;
        let adds = (0..20).map(|n| book.add(name("c.test"), relay(&format!("r{n}.test"), None)));
        for added in futures_util::future::join_all(adds).await {
            added.unwrap();
        }
        assert_eq!(book.of(&name("c.test")).len(), 20);
    }
}
