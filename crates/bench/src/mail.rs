//! Mail of any size, as homeservers write it in encrypted rooms, prepared as signed requests: nothing of it is made while
//! anything is timed.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use rand::RngExt as _;
use restante_federation_proto::{Clock as _, ServerName, SystemClock};
use restante_relay_api::Content;
use restante_relay_api::endpoints::send_relay_target;

use crate::letters::{Letters, random_text};
use crate::origin::Origin;

/// Servers that write.
const ORIGINS: usize = 20;

/// Ciphertext in one event at most, so that it stays under the 64 KiB of an event.
const CIPHERTEXT_BYTES_MAX: usize = 48 * 1024;

/// Text to cut from: more than the largest body, so that none repeats itself, which would compress as no mail does.
const TEXT_BYTES: usize = 1024 * 1024;

/// Of a room's id.
const ROOM_CHARS: usize = 18;

/// Writes to servers with a mailbox at one relay.
pub(crate) struct Writers {
    relay: ServerName,
    origins: Vec<Letters>,
    /// The room in which all is written, without its server.
    room: String,
    /// As long twice over, so that a piece may begin anywhere.
    text: String,
}

/// What deposits bring beside the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing, as Dendrite's.
    Nothing,
    /// What a node adds: proof, waybill and key document.
    Proof,
}

impl Writers {
    pub(crate) fn to(relay: &ServerName) -> Self {
        let origins = (0..ORIGINS).map(|_| Letters::of(Origin::on_this_machine())).collect();
        let (room, text) = (random_text(ROOM_CHARS), random_text(TEXT_BYTES).repeat(2));
        Self { relay: relay.clone(), origins, room, text }
    }

    /// So many deposits with bodies of about `bytes`, for each of `recipients` in turn.
    pub(crate) fn deposits(
        &self,
        count: usize,
        bytes: usize,
        recipients: &[ServerName],
        beside: Beside,
    ) -> anyhow::Result<Arc<[Bytes]>> {
        let each = recipients.iter().cycle().take(count).enumerate();
        each.map(|(number, recipient)| self.deposit(number, bytes, recipient, beside)).collect()
    }

    fn deposit(
        &self,
        number: usize,
        bytes: usize,
        recipient: &ServerName,
        beside: Beside,
    ) -> anyhow::Result<Bytes> {
        let letters = &self.origins[number % ORIGINS];
        let txn_id = format!("{:016x}", rand::random::<u64>());
        let content = self.transaction(&letters.origin.name, bytes);
        let body = match beside {
            Beside::Nothing => content.into(),
            Beside::Proof => {
                let content = Content::parse(content.into())?;
                letters.with_proof(&content, (&txn_id, number as u64), recipient)?
            }
        };
        let target = send_relay_target(&txn_id, recipient);
        Ok(letters.origin.signed_bytes(&Method::PUT, &target, &self.relay, &body))
    }

    /// A transaction of about `bytes`, in canonical form.
    pub(crate) fn transaction(&self, origin: &ServerName, bytes: usize) -> String {
        let events = bytes.div_ceil(CIPHERTEXT_BYTES_MAX).max(1);
        let frame = self.with_events(origin, &vec![""; events]).len();
        if frame > bytes {
            return self.short(origin, bytes);
        }
        let ciphertext = (bytes - frame) / events;
        let start = rand::rng().random_range(0..TEXT_BYTES);
        let pieces: Vec<&str> = (0..events)
            .map(|event| {
                let from = start + event * ciphertext;
                &self.text[from..from + ciphertext]
            })
            .collect();
        self.with_events(origin, &pieces)
    }

    /// One that is shorter than any event: something for a device.
    fn short(&self, origin: &ServerName, bytes: usize) -> String {
        let now = SystemClock.now().as_millis();
        let with = |text: &str| {
            format!(
                r#"{{"edus":[{{"content":{{"text":"{text}"}},"edu_type":"m.direct_to_device"}}],"origin":"{origin}","origin_server_ts":{now},"pdus":[]}}"#
            )
        };
        with(self.cut(bytes.saturating_sub(with("").len())))
    }

    fn with_events(&self, origin: &ServerName, ciphertexts: &[&str]) -> String {
        let now = SystemClock.now().as_millis();
        let events: Vec<String> =
            ciphertexts.iter().map(|ciphertext| self.event(origin, now, ciphertext)).collect();
        format!(
            r#"{{"edus":[],"origin":"{origin}","origin_server_ts":{now},"pdus":[{}]}}"#,
            events.join(",")
        )
    }

    fn event(&self, origin: &ServerName, now: u64, ciphertext: &str) -> String {
        let [before, auth, hash, device] = [43, 43, 43, 10].map(|length| self.cut(length));
        let room = &self.room;
        let signature = self.cut(86);
        format!(
            r#"{{"auth_events":["${auth}"],"content":{{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{ciphertext}","device_id":"{device}"}},"depth":7,"hashes":{{"sha256":"{hash}"}},"origin_server_ts":{now},"prev_events":["${before}"],"room_id":"!{room}:{origin}","sender":"@somebody:{origin}","signatures":{{"{origin}":{{"ed25519:bench":"{signature}"}}}},"type":"m.room.encrypted"}}"#
        )
    }

    fn cut(&self, length: usize) -> &str {
        let from = rand::rng().random_range(0..TEXT_BYTES);
        &self.text[from..from + length]
    }
}

/// Names of servers that nobody has met; mail for them waits.
pub(crate) fn strangers(count: usize) -> Vec<ServerName> {
    let name = |_| {
        let digits = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        digits.parse().expect("hex digits are a host name")
    };
    (0..count).map(name).collect()
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::canonicalise;

    use super::*;

    #[test]
    fn transactions_are_canonical_and_as_long_as_wanted() {
        let origin: ServerName = "a.example".parse().unwrap();
        let writers = Writers::to(&"r.example".parse().unwrap());
        for bytes in [300, 1024, 4096, 64 * 1024, 512 * 1024] {
            let text = writers.transaction(&origin, bytes);
            assert!(text.len() <= bytes && text.len() + 16 > bytes, "{} for {bytes}", text.len());
            assert_eq!(canonicalise(text.as_bytes()).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn no_two_deposits_are_one() {
        let writers = Writers::to(&"r.example".parse().unwrap());
        let to = strangers(2);
        let deposits = writers.deposits(4, 1024, &to, Beside::Proof).unwrap();
        let mut first_lines: Vec<_> =
            deposits.iter().map(|request| &request[..request.len().min(80)]).collect();
        first_lines.sort_unstable();
        first_lines.dedup();
        assert_eq!(first_lines.len(), 4);
    }
}
