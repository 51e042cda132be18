//! Whether everything has arrived that had to, once and in order.

use std::collections::BTreeSet;
use std::time::Duration;

use restante_testkit::eventually;
use serde_json::Value;

use super::letters::{Written, to_device_text};
use super::world::{ROOM, Side, World};

/// Until everything that was written has arrived: probes, back-offs and gaps that time out on a loaded machine.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

impl World {
    /// Waits until both sides have what was written, and nothing is under way.
    pub(crate) async fn settle(&self) {
        self.wait_until("everything has arrived", async || {
            let is_quiet = self.is_quiet(Side::A).await && self.is_quiet(Side::B).await;
            let sent = self.sites.iter().all(|site| site.host.look(|state| state.has_sent_all()));
            let seen = [Side::A, Side::B].into_iter().all(|side| self.unseen(side).is_empty());
            is_quiet && sent && seen
        })
        .await;
    }

    /// Waits until the side that is left has what was promised to it, and nothing more to take.
    pub(crate) async fn settle_without(&self, lost: Side) {
        self.wait_until("what was promised has arrived", async || {
            self.broken_promises(lost).is_empty() && self.is_quiet(lost.other()).await
        })
        .await;
    }

    async fn wait_until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let far = 2 * SETTLE_DEADLINE;
        let waiting = eventually(what, far, async || is_so().await.then_some(()));
        if tokio::time::timeout(SETTLE_DEADLINE, waiting).await.is_err() {
            panic!("{what}: not within {} s\n{}", SETTLE_DEADLINE.as_secs(), self.report().await);
        }
    }

    /// Where what has not arrived may be.
    async fn report(&self) -> String {
        let mut report = String::new();
        for side in [Side::A, Side::B] {
            let site = self.site(side);
            report += &format!("{side:?} wrote, and the other has not: {:?}\n", self.unseen(side));
            report += &format!("of that promised: {:?}\n", self.broken_promises(side));
            let dropped = site.host.look(|state| state.seen().dropped.clone());
            report += &format!("{side:?}'s homeserver dropped {dropped:?}\n");
            for path in ["/status", "/parked"] {
                let answer = site.node.ask(path).await.unwrap_or_default();
                report += &format!("{side:?}'s node, {path}: {answer}\n");
            }
            for relay in &self.relays {
                let mailbox = relay.mailbox(&site.identity.server_name, &site.identity.key);
                report += &format!("a relay holds for {side:?}: {:?}\n", mailbox.texts().await);
            }
        }
        report
    }

    /// What the node of `from` has answered 200 and the other side has not.
    fn broken_promises(&self, from: Side) -> Vec<String> {
        let promised = self.site(from).handed.promised();
        self.unseen(from).into_iter().filter(|text| promised.contains(text)).collect()
    }

    /// Whether nothing waits for `side`, neither at a relay nor in its node.
    async fn is_quiet(&self, side: Side) -> bool {
        let site = self.site(side);
        let Some(status) = site.node.ask("/status").await else { return false };
        let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
        if !is_empty(&status["inbox"]["waiting"]) || !is_empty(&status["inbox"]["backlog"]) {
            return false;
        }
        for relay in &self.relays {
            let mailbox = relay.mailbox(&site.identity.server_name, &site.identity.key);
            if !mailbox.envelopes().await.is_empty() {
                return false;
            }
        }
        true
    }

    /// What the user of `from` wrote and the other side's user has not seen.
    fn unseen(&self, from: Side) -> Vec<String> {
        let (timeline, to_device) = self.seen(from);
        let seen: BTreeSet<_> = timeline.into_iter().chain(to_device).collect();
        let Written { messages, to_device } = &self.site(from).written;
        messages.iter().chain(to_device).filter(|text| !seen.contains(*text)).cloned().collect()
    }

    /// What the other side's user has seen of the user of `from`: in the room, and at the devices.
    fn seen(&self, from: Side) -> (Vec<String>, Vec<String>) {
        let origin = &self.site(from).identity.server_name;
        self.site(from.other()).host.look(|state| {
            let room = state.room(ROOM).unwrap();
            let events = room.timeline().iter().filter_map(|id| room.event(id));
            let own = events.filter(|pdu| pdu.server == *origin);
            let messages = own.filter_map(|pdu| pdu.body().map(str::to_owned)).collect();
            let edus = state.seen().edus.iter().filter(|edu| edu.origin == *origin);
            (messages, edus.filter_map(|edu| to_device_text(&edu.content)).collect())
        })
    }

    /// Everything has arrived, once, in the order in which it was written; how much it was.
    pub(crate) fn check_both_ways(&self) -> usize {
        let mut arrived = 0;
        for from in [Side::A, Side::B] {
            let (messages, to_device) = self.seen(from);
            let written = &self.site(from).written;
            assert_eq!(messages, written.messages, "in the room, from {from:?}");
            assert_eq!(to_device, written.to_device, "at the devices, from {from:?}");
            self.check_nameless(from);
            arrived += messages.len() + to_device.len();
        }
        arrived
    }

    /// EDUs that only their transaction's id tells from copies have arrived once per transaction.
    fn check_nameless(&self, from: Side) {
        let origin = &self.site(from).identity.server_name;
        let seen = self.site(from.other()).host.look(|state| {
            let edus = state.seen().edus.iter();
            edus.filter(|edu| edu.origin == *origin && edu.kind == "m.typing").count()
        });
        let expected = self.site(from).handed.nameless();
        assert!(expected.contains(&seen), "{seen} times typing from {from:?}, not {expected:?}");
    }

    /// What the node of `lost` has answered 200 has arrived, and what has arrived is in order.
    pub(crate) fn check_promised(&self, lost: Side, left: Side) {
        let broken = self.broken_promises(lost);
        assert!(
            broken.is_empty(),
            "{lost:?}'s node said 200, and {left:?} does not have: {broken:?}"
        );
        let (messages, to_device) = self.seen(lost);
        let written = &self.site(lost).written;
        assert!(is_in_order(&messages, &written.messages), "{messages:?}");
        assert!(is_in_order(&to_device, &written.to_device), "{to_device:?}");
        self.check_nameless(lost);
    }
}

/// Whether `part` is `whole` with some left out.
fn is_in_order(part: &[String], whole: &[String]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|text| whole.any(|written| written == text))
}
