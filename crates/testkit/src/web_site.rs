//! A web site of static files, which is up when the homeserver of its name is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use restante_relay_api::endpoints::RECORD_FILE;

use crate::eventually;
use crate::http_server::{HttpServer, json};

/// How long a node may take to write its record.
const WRITTEN_DEADLINE: Duration = Duration::from_secs(60);

/// A web site whose files are in a folder.
#[derive(Debug)]
pub struct WebSite {
    server: HttpServer,
    folder: PathBuf,
}

impl WebSite {
    pub(crate) async fn start(folder: PathBuf) -> Self {
        let file = record_file(&folder);
        let parent = file.parent().expect("the file is in a folder");
        std::fs::create_dir_all(parent).expect("the test's folder is writable");
        let server = HttpServer::start(move |request: Request<Bytes>| {
            let wanted = (request.uri().path() == RECORD_FILE).then(|| std::fs::read(&file));
            Box::pin(async move {
                match wanted {
                    Some(Ok(file)) => json(StatusCode::OK, file.into()),
                    _ => json(StatusCode::NOT_FOUND, Bytes::new()),
                }
            })
        });
        Self { server: server.await, folder }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        record_file(&self.folder)
    }

    /// Waits until the node of this name has put its relay record here.
    pub async fn wait_for_record(&self) {
        let file = self.record_file();
        let look = async || std::fs::exists(&file).is_ok_and(|is_there| is_there).then_some(());
        eventually("the relay record is on the web site", WRITTEN_DEADLINE, look).await;
    }
}

fn record_file(folder: &Path) -> PathBuf {
    folder.join(RECORD_FILE.trim_start_matches('/'))
}
