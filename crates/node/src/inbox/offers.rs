//! Key documents that unverified mail brought along, for the operator to compare and trust; nothing believes them.

use std::collections::BTreeSet;

use restante_federation_proto::{KeyDocument, ServerName};
use restante_relay_api::Extras;
use restante_sqlite::StoreError;

use super::Inbox;
use crate::store::inbox as rows;

/// Envelopes that are read at once.
const PAGE: u32 = 20;

/// Different documents that are shown; more than two are a sign of mischief already.
const OFFERS_MAX: usize = 20;

/// A document, and the mail that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The newest of those that list the same keys.
    pub(crate) document: KeyDocument,
    /// Envelopes that brought one of these.
    pub(crate) envelopes: u64,
    /// The relays that gave them.
    pub(crate) relays: BTreeSet<String>,
}

impl Inbox {
    /// What the unverified mail of `server` offers, one for each set of keys; oldest mail first.
    pub(crate) async fn offered_keys(&self, server: &ServerName) -> Result<Vec<Offer>, StoreError> {
        let (mut offers, mut after) = (Vec::new(), 0);
        loop {
            let page = rows::unverified(self.database(), server.clone(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(offers) };
            after = last.id;
            for unverified in page {
                let mail = unverified.mail;
                if let Some(document) = document(mail.extras, server) {
                    add(&mut offers, document, mail.source);
                }
            }
        }
    }

    /// Has the unverified mail of `origin` judged at once.
    pub(crate) fn judge_soon(&self, origin: &ServerName) {
        self.state().to_judge.insert(origin.clone());
        self.shared.judging_due.notify_one();
    }
}

fn document(extras: bytes::Bytes, server: &ServerName) -> Option<KeyDocument> {
    let document = KeyDocument::parse(Extras::parse(extras).ok()?.keys?).ok()?;
    (document.server_name() == server).then_some(document)
}

fn add(offers: &mut Vec<Offer>, document: KeyDocument, relay: String) {
    let same = |offer: &&mut Offer| offer.document.verify_keys() == document.verify_keys();
    if let Some(offer) = offers.iter_mut().find(same) {
        offer.envelopes += 1;
        offer.relays.insert(relay);
        if document.valid_until() > offer.document.valid_until() {
            offer.document = document;
        }
    } else if offers.len() < OFFERS_MAX {
        offers.push(Offer { document, envelopes: 1, relays: BTreeSet::from([relay]) });
    }
}
