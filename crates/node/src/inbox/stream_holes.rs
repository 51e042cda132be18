//! Reports numbers of an origin's stream that no relay gave.

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

use super::Inbox;
use super::order::Head;
use crate::store::holes::{self, Hole};

impl Inbox {
    /// An envelope is delivered though numbers before it never came: all relays were asked for them, as far as they
    /// answer.
    pub(super) async fn report_hole(
        &self,
        origin: &ServerName,
        head: Option<&Head>,
    ) -> Result<(), StoreError> {
        let Some((head, place)) = head.and_then(|head| Some((head, head.place.as_ref()?))) else {
            return Ok(());
        };
        let Some(done) = place.done_through.filter(|done| place.seq > done.saturating_add(1))
        else {
            return Ok(());
        };
        if self.state().holes_reported.insert(origin.clone(), head.id) == Some(head.id) {
            return Ok(());
        }
        let relays = self.site().relays.of(self.site().server_name());
        let relays: Vec<String> = relays.iter().map(|relay| relay.peer.name.to_string()).collect();
        let (first, last, relays) = (done + 1, place.seq - 1, relays.join(", "));
        tracing::warn!(%origin, first, last, relays, "numbers of an origin's mail never came from its relays");
        let hole = Hole {
            origin: origin.clone(),
            stream: place.stream.clone(),
            first,
            last,
            relays,
            noticed_at: self.now(),
        };
        holes::report(self.database(), hole).await?;
        self.site().bells.receipts.notify_one();
        Ok(())
    }
}

/// Why an envelope behind a hole waits.
pub(super) fn hole_reason(missing: (Option<u64>, u64)) -> String {
    match missing {
        (Some(first), last) if first == last => {
            format!("number {last} of its stream is missing; the relays are asked for it")
        }
        (Some(first), last) => {
            format!(
                "numbers {first} to {last} of its stream are missing; the relays are asked for them"
            )
        }
        (None, _) => {
            "first mail of this stream; the relays are asked whether older mail waits".into()
        }
    }
}
