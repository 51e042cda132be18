//! A meddler between two servers: it carries their requests, and can delay, refuse and alter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::sync::watch;

use crate::eventually;
use crate::http_server::{HttpServer, json, pass_on};
use crate::relay::{RelayAddress, RelayProcess};

/// Changes an answer's JSON.
type Alteration = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// Makes an answer of a request's body.
type Invention = Arc<dyn Fn(&[u8]) -> Value + Send + Sync>;

/// What is done to requests whose target begins with a prefix.
#[derive(Clone)]
enum Trick {
    Hold,
    Refuse,
    Alter(Alteration),
    Answer(Invention),
}

/// An HTTP server in front of another, honest until it is told a trick.
pub struct Meddler {
    server: HttpServer,
    tricks: watch::Sender<Vec<(String, Trick)>>,
    played: Arc<AtomicUsize>,
}

impl Meddler {
    /// A meddler in front of the server at `url`.
    pub async fn in_front_of(url: String) -> Self {
        let (tricks, told) = watch::channel(Vec::new());
        let played = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&played);
        let server = HttpServer::start(move |request| {
            Box::pin(meddle(request, url.clone(), told.clone(), Arc::clone(&count)))
        })
        .await;
        Self { server, tricks, played }
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where nodes find `relay`, when all that they say to it goes through here.
    pub fn address_of(&self, relay: &RelayProcess) -> RelayAddress {
        RelayAddress { server_name: relay.server_name().clone(), url: self.url() }
    }

    /// Lets requests wait whose target begins with `prefix`, until [`Meddler::behave`].
    pub fn hold(&self, prefix: &str) {
        self.learn(prefix, Trick::Hold);
    }

    /// Answers such requests 502.
    pub fn refuse(&self, prefix: &str) {
        self.learn(prefix, Trick::Refuse);
    }

    /// Changes the answers to such requests.
    pub fn alter(&self, prefix: &str, alteration: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.learn(prefix, Trick::Alter(Arc::new(alteration)));
    }

    /// Answers such requests with 200 itself, and passes nothing on.
    pub fn answer(&self, prefix: &str, invention: impl Fn(&[u8]) -> Value + Send + Sync + 'static) {
        self.learn(prefix, Trick::Answer(Arc::new(invention)));
    }

    /// Ends all tricks.
    pub fn behave(&self) {
        self.tricks.send_replace(Vec::new());
    }

    /// Waits until it has played a trick on `count` requests.
    pub async fn wait_until_played(&self, count: usize, deadline: Duration) {
        let what = format!("{count} requests were meddled with");
        let played = async || (self.played.load(Ordering::Relaxed) >= count).then_some(());
        eventually(&what, deadline, played).await;
    }

    fn learn(&self, prefix: &str, trick: Trick) {
        self.tricks.send_modify(|tricks| tricks.push((prefix.to_owned(), trick)));
    }
}

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meddler").field("server", &self.server).finish_non_exhaustive()
    }
}

async fn meddle(
    request: Request<Bytes>,
    url: String,
    mut told: watch::Receiver<Vec<(String, Trick)>>,
    played: Arc<AtomicUsize>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let trick = trick_for(&told.borrow(), &path);
    if trick.is_some() {
        played.fetch_add(1, Ordering::Relaxed);
    }
    match trick {
        None => pass_on(request, &url).await,
        Some(Trick::Refuse) => json(StatusCode::BAD_GATEWAY, Bytes::from_static(b"{}")),
        Some(Trick::Hold) => {
            // An error means that the meddler has gone, and with it the test.
            let _ = told.wait_for(|tricks| trick_for(tricks, &path).is_none()).await;
            pass_on(request, &url).await
        }
        Some(Trick::Answer(invention)) => {
            json(StatusCode::OK, invention(request.body()).to_string().into())
        }
        Some(Trick::Alter(alteration)) => alter(pass_on(request, &url).await, &alteration).await,
    }
}

fn trick_for(tricks: &[(String, Trick)], path: &str) -> Option<Trick> {
    let mut tricks = tricks.iter();
    tricks.find(|(prefix, _)| path.starts_with(prefix)).map(|(_, trick)| trick.clone())
}

async fn alter(answer: Response<Full<Bytes>>, alteration: &Alteration) -> Response<Full<Bytes>> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a body in memory is whole").to_bytes();
    let Ok(mut value) = serde_json::from_slice(&body) else { return json(head.status, body) };
    alteration(&mut value);
    json(head.status, value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_probe::get;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn ask(meddler: &Meddler, path: &str) -> (StatusCode, Value) {
        let answer = get(&format!("{}{path}", meddler.url())).await;
        let (status, body) = answer.expect("a meddler answers");
        (status, serde_json::from_slice(&body).expect("it answers JSON"))
    }

    async fn honest_server() -> HttpServer {
        let answer = || json(StatusCode::OK, Bytes::from_static(b"{\"n\":1}"));
        HttpServer::start(move |_| Box::pin(async move { answer() })).await
    }

    #[tokio::test]
    async fn it_plays_its_tricks_on_what_they_are_meant_for_until_it_behaves() {
        let server = honest_server().await;
        let meddler = Meddler::in_front_of(server.url()).await;
        let honest = (StatusCode::OK, serde_json::json!({ "n": 1 }));
        assert_eq!(ask(&meddler, "/alter/1").await, honest);

        meddler.alter("/alter/", |answer| answer["n"] = 2.into());
        meddler.refuse("/refuse/");
        meddler.answer("/answer/", |_| serde_json::json!({ "n": 3 }));
        assert_eq!(ask(&meddler, "/answer/1").await.1, serde_json::json!({ "n": 3 }));
        assert_eq!(ask(&meddler, "/alter/1").await.1, serde_json::json!({ "n": 2 }));
        assert_eq!(ask(&meddler, "/refuse/1").await.0, StatusCode::BAD_GATEWAY);
        assert_eq!(ask(&meddler, "/other").await, honest);
        meddler.behave();
        assert_eq!(ask(&meddler, "/refuse/1").await, honest);
    }

    #[tokio::test]
    async fn what_it_holds_goes_on_when_it_behaves() {
        let server = honest_server().await;
        let meddler = Meddler::in_front_of(server.url()).await;
        meddler.hold("/hold/");
        let release = async {
            meddler.wait_until_played(1, DEADLINE).await;
            meddler.behave();
        };
        let (answer, ()) = tokio::join!(ask(&meddler, "/hold/1"), release);
        assert_eq!(answer.0, StatusCode::OK);
    }
}
