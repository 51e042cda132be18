//! What never came, by the word of the relays that lost it: kept until it is old, so that the operator hears of it.

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::LOSSES_MAX;
use restante_relay_api::{Fullness, Losses, OriginLosses, Told};
use restante_sqlite::{Database, StoreError};
use serde::Serialize;

use crate::store::losses as rows;

/// The largest count that is kept: what JSON readers keep exactly, and sums of which the database still holds.
const COUNTED_MAX: u64 = 1 << 53;

/// How mail was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LossKind {
    /// Turned away: the mailbox was full.
    MailboxFull,
    /// Turned away: its origin's share of the mailbox was full.
    ShareFull,
    /// Turned away: the relay was full.
    RelayFull,
    /// Turned away, and the relay does not say why.
    TurnedAway,
    /// Nobody collected it in time.
    Expired,
    /// The relay's operator removed it.
    Dropped,
}

/// A relay's line of losses: one kind, one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// How.
    pub(crate) kind: LossKind,
    /// Whose mail; `None` for the sum of those for whom there was no line.
    pub(crate) origin: Option<ServerName>,
    /// How many transactions, how many bytes, since when and until when.
    pub(crate) amount: Amount,
}

/// How much was lost, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Amount {
    /// Transactions; what was turned away is counted at each try.
    pub(crate) count: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// When the first was lost, by the relay's clock.
    pub(crate) since: Timestamp,
    /// When the last was lost.
    pub(crate) until: Timestamp,
}

/// What the operator sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lost {
    /// The relay that says so.
    pub(crate) relay: ServerName,
    /// How.
    pub(crate) kind: LossKind,
    /// Whose mail; absent for the sum of those for whom there was no line.
    pub(crate) origin: Option<ServerName>,
    /// How much.
    #[serde(flatten)]
    pub(crate) amount: Amount,
}

impl LossKind {
    const ALL: [Self; 6] = [
        Self::MailboxFull,
        Self::ShareFull,
        Self::RelayFull,
        Self::TurnedAway,
        Self::Expired,
        Self::Dropped,
    ];

    /// The word in the database and in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MailboxFull => "mailbox_full",
            Self::ShareFull => "share_full",
            Self::RelayFull => "relay_full",
            Self::TurnedAway => "turned_away",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }

    /// The kind that was written so.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    fn turned_away(full: Option<Fullness>) -> Self {
        match full {
            Some(Fullness::Mailbox) => Self::MailboxFull,
            Some(Fullness::Share) => Self::ShareFull,
            Some(Fullness::Relay) => Self::RelayFull,
            None => Self::TurnedAway,
        }
    }
}

/// Keeps what `relay` told; durable on return. What is news is logged, once.
pub(crate) async fn keep(
    database: &Database,
    relay: &ServerName,
    told: &Told,
    now: Timestamp,
) -> Result<(), StoreError> {
    let news = rows::keep(database, relay.clone(), lines(told), now).await?;
    if let Some(first) = news.first() {
        // One line, whatever a relay makes up.
        let (kind, count) = (first.kind.as_str(), first.amount.count);
        let origin = first.origin.as_ref().map_or("others", ServerName::as_str);
        let more = news.len() - 1;
        tracing::warn!(%relay, origin, kind, count, more, "mail for us was lost at a relay; `restante node status` shows all");
    }
    Ok(())
}

/// Everything that is known, the newest first.
pub(crate) async fn all(database: &Database) -> Result<Vec<Lost>, StoreError> {
    rows::all(database).await
}

/// What an answer told, as lines. A relay that tells more than the contract allows is heard so far.
fn lines(told: &Told) -> Vec<Line> {
    let of = |losses: &Losses, kind: fn(Option<Fullness>) -> LossKind| {
        let line = move |told: &OriginLosses| Line {
            kind: kind(told.full),
            origin: told.origin.clone(),
            amount: Amount {
                count: told.count.min(COUNTED_MAX),
                bytes: told.bytes.min(COUNTED_MAX),
                since: told.since,
                until: told.until,
            },
        };
        // The sums of those beyond the limit come beside it, one for each reason.
        let most = LOSSES_MAX * 3 + 3;
        losses.origins.iter().take(most).map(line).collect::<Vec<_>>()
    };
    [
        of(&told.turned_away, LossKind::turned_away),
        of(&told.expired, |_| LossKind::Expired),
        of(&told.dropped, |_| LossKind::Dropped),
    ]
    .concat()
}

/// Joins what a relay says in a line with what it said before: the amount of its earlier lines, and of this one.
///
/// Pure. A relay counts on in a line, whose beginning stays, until it hears that we know it; then it begins another. So a
/// line that is told twice counts once.
pub(crate) fn joined(earlier: (u64, u64), before: Amount, told: Amount) -> ((u64, u64), Amount) {
    if told.since == before.since {
        return (earlier, told);
    }
    let sum = |one: u64, other: u64| one.saturating_add(other).min(COUNTED_MAX);
    ((sum(earlier.0, before.count), sum(earlier.1, before.bytes)), told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{TestSite, name};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn told(origin: Option<&str>, count: u64, (since, until): (u64, u64)) -> Told {
        let origin = origin.map(name);
        let line = OriginLosses {
            origin,
            full: Some(Fullness::Share),
            count,
            bytes: count * 10,
            since: at(since),
            until: at(until),
        };
        Told { turned_away: Losses { origins: vec![line] }, ..Told::default() }
    }

    async fn kept(site: &TestSite, told: &Told) -> Vec<(String, Option<String>, u64, u64, u64)> {
        keep(&site.database, &name("r.test"), told, at(1_000)).await.unwrap();
        let all = all(&site.database).await.unwrap().into_iter();
        all.map(|lost| {
            let origin = lost.origin.map(|origin| origin.to_string());
            let Amount { count, since, until, .. } = lost.amount;
            (lost.kind.as_str().to_owned(), origin, count, since.as_millis(), until.as_millis())
        })
        .collect()
    }

    fn line(
        origin: Option<&str>,
        count: u64,
        since: u64,
        until: u64,
    ) -> (String, Option<String>, u64, u64, u64) {
        ("share_full".to_owned(), origin.map(str::to_owned), count, since, until)
    }

    #[tokio::test]
    async fn a_line_that_is_told_again_counts_once_and_the_next_line_is_added() {
        let site = TestSite::new().await;
        let a = Some("a.test");
        assert_eq!(kept(&site, &told(a, 3, (10, 20))).await, [line(a, 3, 10, 20)]);
        assert_eq!(kept(&site, &told(a, 3, (10, 20))).await, [line(a, 3, 10, 20)]);
        assert_eq!(kept(&site, &told(a, 5, (10, 30))).await, [line(a, 5, 10, 30)]);
        assert_eq!(kept(&site, &told(a, 2, (40, 50))).await, [line(a, 7, 10, 50)]);
        let site = site.restarted().await;
        assert_eq!(kept(&site, &Told::default()).await, [line(a, 7, 10, 50)]);
    }

    #[tokio::test]
    async fn those_without_a_line_are_told_as_one() {
        let site = TestSite::new().await;
        assert_eq!(kept(&site, &told(None, 9, (10, 20))).await, [line(None, 9, 10, 20)]);
    }

    #[tokio::test]
    async fn a_relay_that_makes_names_up_takes_no_more_than_its_lines() {
        let site = TestSite::new().await;
        for n in 0..3 * rows::LINES_OF_A_RELAY_MAX {
            let (origin, until) = (format!("o{n}.test"), 20 + n as u64);
            let told = told(Some(&origin), 1, (10, until));
            keep(&site.database, &name("r.test"), &told, at(1)).await.unwrap();
        }
        let all = all(&site.database).await.unwrap();
        assert_eq!(all.len(), rows::LINES_OF_A_RELAY_MAX);
        assert_eq!(
            all[0].amount.until,
            at(19 + 3 * rows::LINES_OF_A_RELAY_MAX as u64),
            "the newest stay"
        );
    }

    #[tokio::test]
    async fn what_is_old_is_forgotten() {
        let site = TestSite::new().await;
        keep(&site.database, &name("r.test"), &told(None, 1, (10, 20)), at(20)).await.unwrap();
        let later = at(21).after(rows::REMEMBERED);
        let other = told(Some("a.test"), 1, (30, later.as_millis()));
        keep(&site.database, &name("r.test"), &other, later).await.unwrap();
        assert_eq!(all(&site.database).await.unwrap().len(), 1);
    }
}
