//! Measures durable deposits per second, by the number of callers at once.
//!
//! `cargo run --release -p restante-mailbox --example deposits [FOLDER]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use restante_federation_proto::Timestamp;
use restante_mailbox::{
    ContentHash, Deposit, Deposited, MailboxLimits, MailboxStore, MemoryStore, Onward, Quotas,
    SqliteStore,
};
use tokio::task::JoinSet;

const EACH: Duration = Duration::from_secs(2);
const CALLERS: [usize; 4] = [1, 16, 128, 1000];
const BODY_BYTES: usize = 4096;
const MAILBOXES: usize = 1000;
const QUOTAS: Quotas = Quotas::of_mailboxes(MailboxLimits::UNBOUNDED);

#[tokio::main]
async fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder for the database");
    for callers in CALLERS {
        let path = folder.path().join(format!("{callers}.sqlite"));
        let sqlite = Arc::new(SqliteStore::open(&path).expect("opens"));
        measure("SQLite", sqlite, callers).await;
    }
    measure("memory", Arc::new(MemoryStore::new()), 128).await;
}

async fn measure(name: &str, store: Arc<dyn MailboxStore>, callers: usize) {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while start.elapsed() < EACH {
                let deposited = store.deposit(mail(caller, count), QUOTAS).await.expect("deposits");
                assert!(matches!(deposited, Deposited::Stored(_)));
                count += 1;
            }
            count
        });
    }
    let count: usize = tasks.join_all().await.into_iter().sum();
    let per_second = count as f64 / start.elapsed().as_secs_f64();
    println!("{name}, {callers} callers: {per_second:.0} deposits of {BODY_BYTES} B per second");
}

fn mail(caller: usize, number: usize) -> Deposit {
    let mut ciphertext = vec![0; BODY_BYTES * 3 / 4];
    rand::fill(&mut ciphertext[..]);
    let mut content_hash = [0; 32];
    rand::fill(&mut content_hash[..]);
    let recipient = format!("server-{}.example", (caller + number) % MAILBOXES);
    Deposit {
        recipient: recipient.parse().expect("a server name"),
        origin: format!("origin-{caller}.example").parse().expect("a server name"),
        txn_id: number.to_string(),
        content_hash: ContentHash(content_hash),
        content: STANDARD_NO_PAD.encode(ciphertext).into(),
        members: bytes::Bytes::new(),
        deposited_at: Timestamp::from_millis(1_700_000_000_000 + number as u64),
        expires_at: Timestamp::from_millis(1_702_592_000_000 + number as u64),
        onward: Onward::No,
    }
}
