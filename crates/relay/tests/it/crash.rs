//! Kills a relay in the middle of its work, again and again: what it answered holds, and nothing comes twice.
//!
//! A process that is killed must be another process, so the test starts this test binary again: see [`relay_process`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation::{
    ClientConfig, Exchange, FederationClient, Patience, Peer, collect_limited, signed_request,
};
use restante_federation_proto::{Clock, RequestTarget, SystemClock, canonicalise};
use restante_relay::{Relay, RelayConfig};
use restante_relay_api::endpoints::{COLLECT, send_relay_target};
use restante_relay_api::{CollectRequest, CollectResponse, WireEnvelope};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{TestServer, acknowledge_all, texts};

/// Deaths of the relay. Each takes about a fifth of a second.
const KILLS: usize = 50;
/// Servers that leave mail at once, so that commits are shared and the kill meets several in the middle.
const SENDERS: u8 = 8;
/// The relay is killed once between 1 and so many deposits were answered.
const DEPOSITS_PER_LIFE_MAX: usize = 60;

/// Names the data folder to the process that is to be a relay.
const DATA: &str = "RESTANTE_TEST_CRASH_DATA";
/// Precedes the relay's name and address in what that process prints.
const READY: &str = "relay ready: ";

#[tokio::test]
#[ignore = "not a test: the crash test starts it as a process to be killed"]
async fn relay_process() {
    let Ok(data) = std::env::var(DATA) else { return };
    let mut config = RelayConfig { data: data.into(), ..RelayConfig::default() };
    config.listen = ([127, 0, 0, 1], 0).into();
    config.federation.dns = DnsSection::Word(DnsWord::Off);
    let shutdown = CancellationToken::new();
    let relay = Relay::start(config, Arc::new(SystemClock), shutdown.clone()).await.unwrap();
    println!("{READY}{} {}", relay.server_name(), relay.local_address());
    // The end of its input says that whoever started it is gone.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        shutdown.cancel();
    });
    relay.run().await;
}

/// A relay in a process of its own.
struct Victim {
    process: Mutex<Child>,
    peer: Peer,
    _input: ChildStdin,
}

impl Victim {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["crash::relay_process", "--exact", "--ignored", "--nocapture"])
            .env(DATA, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let ready = output.lines().map(Result::unwrap).find_map(|line| {
            let (_, ready) = line.split_once(READY)?;
            let (name, address) = ready.split_once(' ')?;
            let url = format!("http://{address}").parse().unwrap();
            Some(Peer { name: name.parse().unwrap(), url: Some(url) })
        });
        let peer = ready.expect("the relay process ended before it was ready");
        Self { process: Mutex::new(process), peer, _input: input }
    }

    fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the callers know for sure.
#[derive(Default)]
struct Known {
    /// Texts whose deposit was answered 200.
    left: BTreeSet<String>,
    /// Texts whose acknowledgement was answered 200.
    acknowledged: BTreeSet<String>,
    /// Texts whose acknowledgement was sent, answered or not.
    perhaps_acknowledged: BTreeSet<String>,
    /// What was found under each id.
    ids: BTreeMap<u64, String>,
}

/// A server's next message, and the body that is left again if nobody answered.
struct Sender {
    server: TestServer,
    number: usize,
    unanswered: Option<(String, Value)>,
}

impl Sender {
    fn new(seed: u8) -> Self {
        Self { server: TestServer::new(seed), number: 0, unanswered: None }
    }

    fn next(&mut self) -> (String, Value) {
        self.number += 1;
        let text = format!("{}-{:06}", &self.server.name().as_str()[..8], self.number);
        let body = json!({
            "origin": self.server.name(), "origin_server_ts": SystemClock.now().as_millis(),
            "pdus": [{ "type": "m.room.message", "content": { "body": text } }], "edus": []
        });
        (text, body)
    }

    /// Leaves mail until the relay dies.
    async fn leave_until_dead(&mut self, world: &World, victim: &Victim, answered: &Life) {
        loop {
            let (text, body) = self.unanswered.take().unwrap_or_else(|| self.next());
            let target = send_relay_target(&text, world.recipient.name());
            let sent = world.call(victim, &self.server, Method::PUT, &target, &body).await;
            if sent.is_none() {
                self.unanswered = Some((text, body));
                return;
            }
            world.known().left.insert(text);
            if answered.one_more() {
                victim.kill();
            }
        }
    }
}

/// Counts the answers of one life, and says when it is to end.
struct Life {
    answered: AtomicUsize,
    ends_after: usize,
}

impl Life {
    fn one_more(&self) -> bool {
        self.answered.fetch_add(1, Ordering::Relaxed) + 1 == self.ends_after
    }
}

struct World {
    client: FederationClient,
    recipient: TestServer,
    known: Mutex<Known>,
}

impl World {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// The body of a 200; `None` when the relay died under the request.
    async fn call(
        &self,
        victim: &Victim,
        caller: &TestServer,
        method: Method,
        target: &RequestTarget,
        body: &Value,
    ) -> Option<bytes::Bytes> {
        let body = canonicalise(body.to_string().as_bytes()).unwrap().into_owned();
        let request =
            signed_request(&caller.identity, method, target, &victim.peer.name, Some(body.into()));
        let patience =
            Patience { connect: Duration::from_secs(30), answer: Duration::from_secs(60) };
        let answer = self.client.exchange(&victim.peer, request, patience).await.ok()?;
        assert_eq!(answer.status(), 200);
        collect_limited(answer.into_body(), 1 << 26).await.ok()
    }

    /// One collect of the recipient.
    async fn collect(&self, victim: &Victim, request: &CollectRequest) -> Option<CollectResponse> {
        let body = serde_json::to_value(request).unwrap();
        let target = COLLECT.parse().unwrap();
        let answer = self.call(victim, &self.recipient, Method::POST, &target, &body).await?;
        Some(CollectResponse::parse(&answer).unwrap())
    }

    /// Everything in the mailbox, page by page.
    async fn everything(&self, victim: &Victim) -> Vec<WireEnvelope> {
        let (mut all, mut request) = (Vec::new(), ask());
        loop {
            let page = self.collect(victim, &request).await.expect("nobody kills it here");
            let Some(last) = page.envelopes.last() else { return all };
            request.after = last.id;
            all.extend(page.envelopes);
        }
    }

    /// Acknowledges every second envelope of `held`, while mail arrives and the relay may die.
    async fn acknowledge(&self, victim: &Victim, held: CollectResponse) {
        let every_second = held.envelopes.into_iter().step_by(2).collect();
        let taken = CollectResponse { envelopes: every_second, ..held };
        let mut request = ask();
        request.limit = 1;
        request.acknowledge = acknowledge_all(&taken);
        self.known().perhaps_acknowledged.extend(texts(&taken));
        if self.collect(victim, &request).await.is_some() {
            self.known().acknowledged.extend(texts(&taken));
        }
    }

    /// Checks what the mailbox holds against what is known.
    fn check(&self, held: &CollectResponse) {
        let mut known = self.known();
        let held_texts = texts(held);
        let distinct: BTreeSet<_> = held_texts.iter().cloned().collect();
        assert_eq!(distinct.len(), held_texts.len(), "something is held twice: {held_texts:?}");
        let back: Vec<_> = distinct.intersection(&known.acknowledged).collect();
        assert!(back.is_empty(), "acknowledged, and back: {back:?}");
        let missing: Vec<_> = known
            .left
            .iter()
            .filter(|text| !distinct.contains(*text) && !known.perhaps_acknowledged.contains(*text))
            .collect();
        assert!(missing.is_empty(), "answered 200, and lost: {missing:?}");
        let mut last_of_sender: BTreeMap<&str, &str> = BTreeMap::new();
        for text in &held_texts {
            let (sender, number) = text.split_once('-').unwrap();
            let before = last_of_sender.insert(sender, number);
            assert!(before < Some(number), "{text} came after {before:?}");
        }
        for (envelope, text) in held.envelopes.iter().zip(held_texts) {
            let first = known.ids.entry(envelope.id).or_insert_with(|| text.clone());
            assert_eq!(*first, text, "id {} was given twice", envelope.id);
        }
        assert_eq!(held.queued.count, held.envelopes.len() as u64);
    }
}

fn ask() -> CollectRequest {
    CollectRequest {
        after: 0,
        acknowledge: Vec::new(),
        limit: 500,
        max_bytes: 1 << 22,
        wait_ms: 0,
        signed_at: SystemClock.now(),
    }
}

#[tokio::test]
async fn what_was_answered_survives_being_killed_and_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let client = FederationClient::new(ClientConfig::default(), Arc::new(SystemClock)).unwrap();
    let world = World { client, recipient: TestServer::new(200), known: Mutex::default() };
    let mut senders: Vec<_> = (1..=SENDERS).map(Sender::new).collect();
    for life in 0..=KILLS {
        let victim = Victim::start(folder.path());
        let queued = world.collect(&victim, &ask()).await.unwrap().queued;
        let held = CollectResponse { envelopes: world.everything(&victim).await, queued };
        world.check(&held);
        // A number without a common factor walks through all lengths of life.
        let ends_after = 1 + life * 37 % DEPOSITS_PER_LIFE_MAX;
        let life = Life { answered: AtomicUsize::new(0), ends_after };
        let leaving = senders.iter_mut().map(|s| s.leave_until_dead(&world, &victim, &life));
        let leaving = futures_util::future::join_all(leaving);
        tokio::join!(leaving, world.acknowledge(&victim, held));
    }
    let known = world.known();
    assert!(known.left.len() > KILLS && !known.acknowledged.is_empty());
}
