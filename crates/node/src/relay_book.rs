//! Who holds whose mail: the relays of each server, from the configuration and from the operator's commands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_sqlite::rusqlite::{self, Connection};
use restante_sqlite::{Database, StoreError};
use tokio::sync::watch;

use crate::config::NodeConfig;
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
}

/// All relays, by the server whose mail they hold.
pub(crate) type RelaysByServer = BTreeMap<ServerName, Vec<KnownRelay>>;

/// The book; changes take effect at once. Clones share it.
#[derive(Clone)]
pub(crate) struct RelayBook {
    shared: Arc<Inner>,
}

struct Inner {
    database: Database,
    configured: Mutex<BTreeMap<ServerName, Vec<Peer>>>,
    relays: watch::Sender<RelaysByServer>,
    /// Changes in the order in which the database made them, so that the newest is what is shown last.
    changes: AtomicU64,
    shown: Mutex<u64>,
}

impl RelayBook {
    /// Reads the operator's entries from the database and joins them with `configured`.
    pub(crate) async fn open(
        database: Database,
        configured: BTreeMap<ServerName, Vec<Peer>>,
    ) -> Result<Self, StoreError> {
        let added = database.read(store::relays::load).await?;
        let relays = watch::Sender::new(join(&configured, added));
        let inner = Inner {
            database,
            configured: Mutex::new(configured),
            relays,
            changes: AtomicU64::new(0),
            shown: Mutex::new(0),
        };
        Ok(Self { shared: Arc::new(inner) })
    }

    /// The relays that hold `server`'s mail.
    pub(crate) fn of(&self, server: &ServerName) -> Vec<KnownRelay> {
        self.shared.relays.borrow().get(server).cloned().unwrap_or_default()
    }

    /// All relays now and after every change.
    pub(crate) fn watch(&self) -> watch::Receiver<RelaysByServer> {
        self.shared.relays.subscribe()
    }

    /// Adds a relay for `server`, or changes its URL; durable on return. An entry of the operator's goes before a
    /// configured one of the same name.
    pub(crate) async fn add(&self, server: ServerName, relay: Peer) -> Result<(), StoreError> {
        self.change(move |connection| store::relays::add(connection, &server, &relay)).await
    }

    /// Removes a relay that the operator added. `false` if there is none; configured ones stay.
    pub(crate) async fn remove(
        &self,
        server: &ServerName,
        relay: &ServerName,
    ) -> Result<bool, StoreError> {
        let (server, relay) = (server.clone(), relay.clone());
        self.change(move |connection| store::relays::remove(connection, &server, &relay)).await
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
        let changed = self.shared.database.write(move |connection| {
            let result = change(connection)?;
            let added = store::relays::load(connection)?;
            Ok((result, added, shared.changes.fetch_add(1, Ordering::SeqCst) + 1))
        });
        let (result, added, number) = changed.await?;
        self.show(added, number);
        Ok(result)
    }

    fn show(&self, added: Vec<(ServerName, Peer)>, number: u64) {
        let mut shown = self.shared.shown.lock().expect("nothing panics while it shows a change");
        if *shown < number {
            *shown = number;
            self.shared.relays.send_replace(join(&self.configured(), added));
        }
    }
}

/// What the configuration names.
pub(crate) fn configured(config: &NodeConfig) -> BTreeMap<ServerName, Vec<Peer>> {
    let relays = config.relays.iter();
    relays
        .map(|(server, relays)| (server.clone(), relays.iter().cloned().map(Into::into).collect()))
        .collect()
}

fn join(
    configured: &BTreeMap<ServerName, Vec<Peer>>,
    added: Vec<(ServerName, Peer)>,
) -> RelaysByServer {
    let known = |source| move |peer: &Peer| KnownRelay { peer: peer.clone(), source };
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
    relays
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn relay(relay: &str, url: Option<&str>) -> Peer {
        Peer { name: name(relay), url: url.map(|url| url.parse().unwrap()) }
    }

    fn names(relays: &[KnownRelay]) -> Vec<(&str, RelaySource)> {
        relays.iter().map(|known| (known.peer.name.as_str(), known.source)).collect()
    }

    async fn open(folder: &tempfile::TempDir) -> RelayBook {
        let configured = BTreeMap::from([(name("b.test"), vec![relay("r1.test", None)])]);
        RelayBook::open(crate::store::open(folder.path()).unwrap(), configured).await.unwrap()
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
