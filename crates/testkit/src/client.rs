//! A user's client: matrix-nio in a process of its own, driven over JSON lines.

mod conversation;

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::homeserver::python;
use crate::process::Program;
pub use conversation::ClientError;
use conversation::Conversation;

/// How long a call may take: the 60 s of Synapse's own federation calls, and some more.
const CALL_DEADLINE: Duration = Duration::from_secs(90);

/// Longest wait for news within one call.
const CHANGE_WAIT: Duration = Duration::from_secs(5);

/// The password of every user; nobody but the test can reach the homeserver.
const PASSWORD: &str = "correct horse";

/// An event as its homeserver gave it to the client.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Its id; to-device messages have none.
    #[serde(default)]
    pub event_id: String,
    /// Who sent it.
    pub sender: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its content.
    pub content: Value,
}

impl Event {
    /// The text, if this is a message with one.
    pub fn body(&self) -> Option<&str> {
        if self.kind == "m.room.message" { self.content["body"].as_str() } else { None }
    }
}

/// Whether a user administers its homeserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    Administrator,
    User,
}

/// Whether a client encrypts in encrypted rooms, which takes keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    On,
    Off,
}

/// A logged-in user. Follows `/sync` all the time, through restarts of its homeserver.
#[derive(Debug)]
pub struct Client {
    name: String,
    conversation: Conversation,
    account: OnceCell<Account>,
}

#[derive(Debug, Deserialize)]
struct Account {
    user_id: String,
    device_id: String,
    access_token: String,
}

impl Client {
    pub(crate) fn start(name: &str, directory: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
        let program = Program {
            name: name.to_owned(),
            executable: python(),
            arguments: vec![script.into()],
            directory: directory.to_owned(),
            log: directory.join(format!("{name}.log")),
        };
        let conversation = Conversation::start(program);
        Self { name: name.to_owned(), conversation, account: OnceCell::new() }
    }

    pub(crate) async fn register(
        &self,
        homeserver: &str,
        shared_secret: &str,
        user: &str,
        rank: Rank,
    ) {
        let arguments = json!({
            "homeserver": homeserver, "shared_secret": shared_secret, "user": user, "password": PASSWORD,
            "admin": rank == Rank::Administrator,
        });
        let registered: Result<String, _> = self.call("register", arguments).await;
        registered.unwrap_or_else(|error| panic!("{} cannot register: {error}", self.name));
    }

    pub(crate) async fn log_in(&self, homeserver: &str, user: &str, encryption: Encryption) {
        let arguments = json!({
            "homeserver": homeserver, "user": user, "password": PASSWORD,
            "encrypting": encryption == Encryption::On,
        });
        let account = self.call("login", arguments).await;
        let account =
            account.unwrap_or_else(|error| panic!("{} cannot log in: {error}", self.name));
        self.account.set(account).expect("a client logs in once");
    }

    fn account(&self) -> &Account {
        self.account.get().expect("a client is handed out logged in")
    }

    /// What an app would show the homeserver.
    pub fn access_token(&self) -> &str {
        &self.account().access_token
    }

    /// The user.
    pub fn user_id(&self) -> &str {
        &self.account().user_id
    }

    /// The device that it logged in as.
    pub fn device_id(&self) -> &str {
        &self.account().device_id
    }

    /// Makes a private room with the homeserver's default version, invites `invited`, returns the room's id.
    pub async fn create_room(&self, invited: &[&str]) -> Result<String, ClientError> {
        self.create_room_with(json!({ "invite": invited })).await
    }

    /// Makes a public room with a local alias, returns the room's id.
    pub async fn create_public_room(&self, alias: &str) -> Result<String, ClientError> {
        self.create_room_with(json!({ "alias": alias, "public": true })).await
    }

    /// Makes a private room of a version, returns the room's id.
    pub async fn create_room_of_version(
        &self,
        version: &str,
        invited: &[&str],
    ) -> Result<String, ClientError> {
        self.create_room_with(json!({ "room_version": version, "invite": invited })).await
    }

    async fn create_room_with(&self, wishes: Value) -> Result<String, ClientError> {
        let mut arguments = json!({ "name": null, "invite": [], "room_version": null, "alias": null, "public": false });
        if let (Value::Object(arguments), Value::Object(wishes)) = (&mut arguments, wishes) {
            arguments.extend(wishes);
        }
        self.call("create_room", arguments).await
    }

    /// Invites a user.
    pub async fn invite(&self, room: &str, user: &str) -> Result<(), ClientError> {
        self.call("invite", json!({ "room": room, "user": user })).await
    }

    /// Joins a room by id or alias, returns its id.
    pub async fn join(&self, room_or_alias: &str) -> Result<String, ClientError> {
        self.call("join", json!({ "room": room_or_alias })).await
    }

    /// Joins a room by way of these servers, in this order of preference.
    pub async fn join_through(&self, room: &str, servers: &[&str]) -> Result<String, ClientError> {
        self.call("join_through", json!({ "room": room, "servers": servers })).await
    }

    /// Whether the homeserver has the event, whatever `/sync` has told so far.
    pub async fn has_event(&self, room: &str, event_id: &str) -> bool {
        self.recall("has_event", json!({ "room": room, "event": event_id })).await
    }

    /// Asks for the devices of a user, whose homeserver may have to be asked; servers that did not answer.
    pub async fn query_devices(&self, user: &str) -> Result<Vec<String>, ClientError> {
        let told: Value = self.call("query_devices", json!({ "user": user })).await?;
        let failures = told["failures"].as_object().into_iter().flatten();
        Ok(failures.map(|(server, _)| server.clone()).collect())
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &str) -> Result<(), ClientError> {
        self.call("leave", json!({ "room": room })).await
    }

    /// Sends a text message, returns the event's id.
    pub async fn send_text(&self, room: &str, text: &str) -> Result<String, ClientError> {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.call("send", json!({ "room": room, "type": "m.room.message", "content": content }))
            .await
    }

    /// Encrypts a room; returns when this client knows that it is.
    pub async fn encrypt_room(&self, room: &str) -> Result<(), ClientError> {
        let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        self.put_state(room, ("m.room.encryption", ""), content).await?;
        self.wait_until_encrypted(room, CALL_DEADLINE).await;
        Ok(())
    }

    /// Waits until this client knows that the room is encrypted, and who is in it.
    pub async fn wait_until_encrypted(&self, room: &str, deadline: Duration) {
        self.wait_for(&format!("that {room} is encrypted"), deadline, async || {
            let encrypted: bool = self.recall("knows_encrypted", json!({ "room": room })).await;
            if encrypted { Ok(()) } else { Err("it is not".to_owned()) }
        })
        .await;
    }

    /// Forgets the key for its next messages in the room, so that it sends a fresh one along.
    pub async fn rotate_room_key(&self, room: &str) {
        let () = self.recall("rotate_room_key", json!({ "room": room })).await;
    }

    /// Sets a state event, returns its id.
    pub async fn put_state(
        &self,
        room: &str,
        (kind, state_key): (&str, &str),
        content: Value,
    ) -> Result<String, ClientError> {
        let arguments =
            json!({ "room": room, "type": kind, "state_key": state_key, "content": content });
        self.call("put_state", arguments).await
    }

    /// Redacts an event, returns the redaction's id.
    pub async fn redact(&self, room: &str, event_id: &str) -> Result<String, ClientError> {
        self.call("redact", json!({ "room": room, "event": event_id })).await
    }

    /// Gives a room another alias.
    pub async fn put_alias(&self, room: &str, alias: &str) -> Result<(), ClientError> {
        self.call("put_alias", json!({ "room": room, "alias": alias })).await
    }

    /// The joined members' user ids, sorted.
    pub async fn members(&self, room: &str) -> Result<Vec<String>, ClientError> {
        self.call("members", json!({ "room": room })).await
    }

    /// A user's display name.
    pub async fn display_name(&self, user: &str) -> Result<Option<String>, ClientError> {
        let profile: Value = self.call("profile", json!({ "user": user })).await?;
        Ok(profile["displayname"].as_str().map(str::to_owned))
    }

    /// Sends a to-device message to one device of another client's user. The content must not be empty: the client
    /// on the other side takes an empty one for a redacted message, and drops it.
    pub async fn send_to_device(
        &self,
        recipient: &Client,
        kind: &str,
        content: Value,
    ) -> Result<(), ClientError> {
        let arguments = json!({
            "type": kind, "user": recipient.user_id(), "device": recipient.device_id(), "content": content,
        });
        self.call("send_to_device", arguments).await
    }

    /// Everything in a room's timeline so far, gaps filled, in order.
    pub async fn timeline(&self, room: &str) -> Vec<Event> {
        self.recall("timeline", json!({ "room": room })).await
    }

    /// The texts in a room's timeline so far, in order.
    pub async fn texts(&self, room: &str) -> Vec<String> {
        let timeline = self.timeline(room).await;
        timeline.iter().filter_map(Event::body).map(str::to_owned).collect()
    }

    /// The texts of one sender in a room's timeline so far, in order.
    pub async fn texts_of(&self, sender: &Client, room: &str) -> Vec<String> {
        let mut timeline = self.timeline(room).await;
        timeline.retain(|event| event.sender == sender.user_id());
        timeline.iter().filter_map(Event::body).map(str::to_owned).collect()
    }

    /// The to-device messages so far, in order.
    pub async fn to_device(&self) -> Vec<Event> {
        self.recall("received_to_device", json!({})).await
    }

    /// Waits until the room's timeline has `count` texts, and returns them all.
    pub async fn wait_for_texts(
        &self,
        room: &str,
        count: usize,
        deadline: Duration,
    ) -> Vec<String> {
        let what = format!("{count} texts in {room}");
        self.wait_for(&what, deadline, async || {
            let texts = self.texts(room).await;
            if texts.len() >= count { Ok(texts) } else { Err(format!("{} texts", texts.len())) }
        })
        .await
    }

    /// Waits until there are `count` to-device messages of the type `kind`, and returns these.
    pub async fn wait_for_to_device(
        &self,
        kind: &str,
        count: usize,
        deadline: Duration,
    ) -> Vec<Event> {
        let what = format!("{count} to-device messages {kind}");
        self.wait_for(&what, deadline, async || {
            let mut messages = self.to_device().await;
            messages.retain(|message| message.kind == kind);
            if messages.len() >= count { Ok(messages) } else { Err(format!("{messages:?}")) }
        })
        .await
    }

    /// Waits until the homeserver shows `room` as joined.
    pub async fn wait_for_room(&self, room: &str, deadline: Duration) {
        self.wait_for(&format!("the room {room}"), deadline, async || {
            let timeline = self.timeline(room).await;
            if timeline.is_empty() { Err("no such room".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until the user is invited to `room`.
    pub async fn wait_for_invite(&self, room: &str, deadline: Duration) {
        self.wait_for(&format!("an invite to {room}"), deadline, async || {
            let invites: Value = self.recall("invited_to", json!({})).await;
            if invites.get(room).is_some() { Ok(()) } else { Err(invites.to_string()) }
        })
        .await;
    }

    /// Looks after every sync until `look` finds what is waited for; its error says what there is so far.
    async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        look: impl AsyncFn() -> Result<T, String>,
    ) -> T {
        let end = Instant::now() + deadline;
        let mut version: u64 = 0;
        loop {
            let found = match look().await {
                Ok(found) => return found,
                Err(found) => found,
            };
            if Instant::now() >= end {
                let waited = deadline.as_secs();
                panic!("{} did not see {what} within {waited} s, but: {found}", self.name);
            }
            let wait = CHANGE_WAIT.min(end - Instant::now());
            let timeout_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let arguments = json!({ "after": version, "timeout_ms": timeout_ms });
            version = self.recall("wait_for_change", arguments).await;
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        arguments: Value,
    ) -> Result<T, ClientError> {
        let answer =
            tokio::time::timeout(CALL_DEADLINE, self.conversation.call(call, arguments)).await;
        let Ok(answer) = answer else {
            panic!("{}: {call} was not answered within {} s", self.name, CALL_DEADLINE.as_secs())
        };
        let answer = serde_json::from_value(answer?);
        Ok(answer
            .unwrap_or_else(|error| panic!("{}: {call} gave an odd answer: {error}", self.name)))
    }

    /// A call that asks only the client's own memory, so that no homeserver can refuse it.
    async fn recall<T: DeserializeOwned>(&self, call: &str, arguments: Value) -> T {
        let answer = self.call(call, arguments).await;
        answer.unwrap_or_else(|error| panic!("{}: {call} failed: {error}", self.name))
    }
}
