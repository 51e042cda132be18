//! Callers who hang up, and callers who take more than their share.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use http::header::AUTHORIZATION;
use restante_federation::signed_request;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Loss, MailboxStore, MailboxSummary, MemoryStore, Page, Quotas, StoreError,
};
use restante_relay::Stores;
use restante_relay_api::endpoints::send_relay_target;
use restante_relay_api::limits::BODY_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::harness::{TestRelay, TestServer, collect_all, texts};

async fn connect(relay: &TestRelay) -> TcpStream {
    let port = relay.peer.url.as_ref().unwrap().port;
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// A store whose deposits wait for the test, in a task of their own, as they wait for a disk.
struct GatedStore {
    store: Arc<MemoryStore>,
    /// One for each deposit that has begun.
    begun: Arc<Semaphore>,
    /// One for each deposit that may end.
    may_end: Arc<Semaphore>,
    /// One for each look into a mailbox.
    looks: Arc<Semaphore>,
}

impl GatedStore {
    fn new() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        let store = Arc::new(MemoryStore::new());
        Self { store, begun: none(), may_end: none(), looks: none() }
    }
}

async fn wait_for(event: &Semaphore) {
    event.acquire().await.unwrap().forget();
}

#[async_trait]
impl MailboxStore for GatedStore {
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError> {
        let (store, may_end) = (self.store.clone(), self.may_end.clone());
        let storing = tokio::spawn(async move {
            wait_for(&may_end).await;
            store.deposit(deposit, quotas).await
        });
        self.begun.add_permits(1);
        storing.await.unwrap()
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        let collected = self.store.collect(recipient, after, page).await;
        self.looks.add_permits(1);
        collected
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        self.store.acknowledge(recipient, acknowledgements).await
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        self.store.depth(recipient).await
    }

    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError> {
        self.store.expire(due, batch_max).await
    }

    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError> {
        self.store.losses(recipient).await
    }

    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        self.store.standing(recipient).await
    }

    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.forget_losses(recipient, until).await
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        self.store.list(after, limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.store.health().await
    }
}

#[tokio::test]
async fn mail_whose_sender_hung_up_still_wakes_the_one_who_waits_for_it() {
    let store = Arc::new(GatedStore::new());
    let stores = Stores { mail: store.clone(), ..Stores::of(store.store.clone()) };
    let relay = TestRelay::start_on(stores, "").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut request = collect_all(&relay);
    request.wait_ms = 50_000;
    let leave_and_hang_up = async {
        wait_for(&store.looks).await;
        let body = a.transaction(&relay, "left in passing");
        let target = send_relay_target("t", b.name());
        let signed = signed_request(
            &a.identity,
            Method::PUT,
            &target,
            relay.name(),
            Some(
                restante_federation_proto::canonicalise(body.as_bytes())
                    .unwrap()
                    .into_owned()
                    .into(),
            ),
        );
        let authorization = signed.headers()[AUTHORIZATION].to_str().unwrap();
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n",
            target.as_str(),
            body.len()
        );
        let mut connection = connect(&relay).await;
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(body.as_bytes()).await.unwrap();
        wait_for(&store.begun).await;
        connection.shutdown().await.unwrap();
        // The relay has noticed when it closes its side.
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        store.may_end.add_permits(1);
        // The look that found nothing is counted; the next one is the one that was woken.
        wait_for(&store.looks).await;
    };
    let waiting = async { tokio::join!(b.collect(&relay, &request), leave_and_hang_up).0 };
    let woken = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    assert_eq!(texts(&woken.expect("nobody woke the collect")), ["left in passing"]);
}

#[tokio::test]
async fn strangers_with_large_bodies_take_bounded_memory_and_keep_nobody_out() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let almost_all = vec![b'x'; BODY_BYTES_MAX - 1];
    let authorization = TestServer::new(9).misplaced_signature(&relay);
    let mut strangers = Vec::new();
    let mut refused = false;
    while !refused {
        assert!(strangers.len() < 20, "the relay took 20 unfinished bodies of the largest size");
        let (mut answer, mut body) = connect(&relay).await.into_split();
        let head = format!(
            "PUT /_matrix/federation/v1/send_relay/t/@u:b HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {BODY_BYTES_MAX}\r\n\r\n"
        );
        body.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        // Whoever is refused is answered, or cut, before the body is through.
        refused = tokio::select! {
            biased;
            read = answer.read_exact(&mut said) => {
                assert!(read.is_err() || said == *b"HTTP/1.1 503", "{said:?}");
                true
            }
            sent = body.write_all(&almost_all) => sent.is_err(),
        };
        strangers.push((answer, body));
    }
    a.leave(&relay, &b, "t", &a.transaction(&relay, "honest")).await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["honest"]);
}
