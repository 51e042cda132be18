//! Publishes the own record whenever our relays change, and keeps it written as a file for a web server.

use std::time::Duration;

use restante_federation::Peer;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{OwnRecord, file};
use crate::relay_book::RelayBook;
use crate::restart::kept_running;
use crate::site::Site;

/// The wait before what could not be done is tried again: somebody has to free a disk, or change who may write.
const RETRY: Duration = Duration::from_secs(60);

/// How often the file is looked at: whoever rolls a web site out anew removes it, and mail for us depends on it.
const LOOKED_AT: Duration = Duration::from_secs(3600);

/// Whether something has to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    All,
    Not,
}

/// Publishes until `shutdown`.
pub(crate) async fn run(site: Site, shutdown: CancellationToken) {
    let work = || async {
        shutdown.run_until_cancelled(keep_published(&site)).await;
    };
    kept_running("publishing the relay record", &shutdown, work).await;
}

async fn keep_published(site: &Site) {
    let own = &site.own_record;
    let (mut book, mut published) = (site.relays.watch(), own.shared.published.subscribe());
    loop {
        book.mark_unchanged();
        let made = match own.publish(named(&site.relays), site.clock.now()).await {
            Ok(()) => Done::All,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the relay record can't be made; it is tried again");
                Done::Not
            }
        };
        published.mark_unchanged();
        let written = own.write_file().await;
        let again = async {
            match (made, written) {
                (Done::All, Done::All) => sleep(LOOKED_AT).await,
                _ => sleep(RETRY).await,
            }
        };
        tokio::select! {
            biased;
            _ = book.changed() => {}
            _ = published.changed() => {}
            () = again => {}
        }
    }
}

/// The relays that our record names: those that are not being left.
pub(crate) fn named(book: &RelayBook) -> Vec<Peer> {
    let own = book.own().into_iter().filter(|known| known.departure.is_none());
    own.map(|known| known.peer).collect()
}

impl OwnRecord {
    async fn write_file(&self) -> Done {
        let (Some(path), Some(record)) = (self.shared.file.clone(), self.published()) else {
            return Done::All;
        };
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || file::write(&path, &record)).await;
        let problem = match written {
            Ok(Ok(file::Written::Anew)) => {
                tracing::info!(file = shown, "the relay record is written for the web server");
                None
            }
            Ok(Ok(file::Written::AsBefore)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let done = if problem.is_none() { Done::All } else { Done::Not };
        let is_news = self.shared.file_problem.send_if_modified(|before| {
            let is_other = *before != problem;
            before.clone_from(&problem);
            is_other
        });
        if is_news && let Some(problem) = problem {
            let advice = file::ADVICE;
            tracing::warn!(
                file = shown,
                problem,
                advice,
                "the relay record can't be written for the web server"
            );
        }
        done
    }
}
