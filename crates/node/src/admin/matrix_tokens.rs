//! A homeserver administrator's access token opens `/relays` of the admin API, for apps; nothing else.
//!
//! Whose token it is the homeserver says. Who administers it, the configuration says, or Synapse.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use restante_federation::BoundedMap;
use restante_federation_proto::{ErrorCode, MatrixError, Timestamp};
use restante_operators::{Admission, OtherTokens, Refusal};
use sha2::{Digest as _, Sha256};

use crate::homeserver::Unavailable;
use crate::site::Site;

/// Tokens of which is remembered what they are good for: an administrator has a few devices.
const REMEMBERED_MAX: usize = 64;

/// How long an administrator's token is taken for one: whoever logs out is out after that.
const ADMITTED_FOR: Duration = Duration::from_secs(60);

/// How long a token that was an administrator's may be asked about, once in [`ADMITTED_FOR`], however many others are: who
/// makes tokens up must not lock administrators out. An app is used once a week or so.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long any other is refused without asking.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Unknown tokens that the homeserver is asked about within [`QUESTIONS_TIME`]: an app has one, and whoever guesses has many.
const QUESTIONS_MAX: u32 = 20;

/// See [`QUESTIONS_MAX`].
const QUESTIONS_TIME: Duration = Duration::from_secs(60);

/// Bytes of an access token: Synapse's have 40 to some hundred.
const TOKEN_BYTES_MAX: usize = 4096;

/// Whether a token opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Administrator,
    /// It is somebody's who is none.
    Other,
    Nobody,
}

/// Asks the homeserver about tokens.
pub(crate) struct MatrixTokens {
    site: Site,
    admins: Vec<String>,
    memory: Mutex<Memory>,
}

struct Memory {
    /// By the tokens' SHA-256, as the others.
    administrators: BoundedMap<[u8; 32], Admitted>,
    others: BoundedMap<[u8; 32], (Verdict, Timestamp)>,
    asked: u32,
    since: Timestamp,
}

/// When a token was an administrator's last, and when it was asked about.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    at: Timestamp,
    asked_at: Timestamp,
}

impl MatrixTokens {
    /// `admins` are administrators whatever Synapse says of them.
    pub(crate) fn new(site: Site, admins: Vec<String>) -> Self {
        let memory = Memory {
            administrators: BoundedMap::new(REMEMBERED_MAX),
            others: BoundedMap::new(REMEMBERED_MAX),
            asked: 0,
            since: Timestamp::EPOCH,
        };
        Self { site, admins, memory: Mutex::new(memory) }
    }

    async fn judge(&self, token: &str) -> Result<Verdict, Unavailable> {
        let homeserver = &self.site.homeserver;
        let Some(user_id) = homeserver.holder_of(token).await? else { return Ok(Verdict::Nobody) };
        let own = self.site.server_name().as_str();
        let is_local = user_id.split_once(':').is_some_and(|(_, server)| server == own);
        let is_admin = is_local
            && (self.admins.contains(&user_id)
                || homeserver.is_synapse_admin(&user_id, token).await?);
        if !is_admin {
            return Ok(Verdict::Other);
        }
        tracing::info!(
            user_id,
            "an administrator's access token opens the relays of the admin API"
        );
        Ok(Verdict::Administrator)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn verdict(&mut self, token: &[u8; 32], now: Timestamp) -> Option<Verdict> {
        let admitted = self.administrators.get(token);
        if admitted.is_some_and(|admitted| is_within(ADMITTED_FOR, admitted.at, now)) {
            return Some(Verdict::Administrator);
        }
        let (verdict, at) = *self.others.get(token)?;
        is_within(REFUSED_FOR, at, now).then_some(verdict)
    }

    fn learn(&mut self, token: [u8; 32], verdict: Verdict, now: Timestamp) {
        if verdict == Verdict::Administrator {
            self.administrators.insert(token, Admitted { at: now, asked_at: now });
        } else {
            self.administrators.remove(&token);
            self.others.insert(token, (verdict, now));
        }
    }

    /// Whether the homeserver may be asked about this token.
    fn may_ask(&mut self, token: &[u8; 32], now: Timestamp) -> bool {
        let admitted = self.administrators.get(token).copied();
        let admitted = admitted.filter(|admitted| is_within(KNOWN_FOR, admitted.at, now));
        if let Some(admitted) = admitted
            && !is_within(ADMITTED_FOR, admitted.asked_at, now)
        {
            self.administrators.insert(*token, Admitted { asked_at: now, ..admitted });
            return true;
        }
        if self.since > now || now.since(self.since) >= QUESTIONS_TIME {
            (self.since, self.asked) = (now, 0);
        }
        self.asked += 1;
        self.asked <= QUESTIONS_MAX
    }
}

fn is_within(time: Duration, at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < time
}

#[async_trait]
impl OtherTokens for MatrixTokens {
    async fn admit(&self, path: &str, token: &str) -> Admission {
        let is_of_relays = path == "/relays" || path.starts_with("/relays/");
        if !is_of_relays || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Admission::Unknown;
        }
        let (sha256, now) = (Sha256::digest(token).into(), self.site.clock.now());
        let known = self.memory().verdict(&sha256, now);
        let verdict = match known {
            Some(verdict) => verdict,
            None => {
                if !self.memory().may_ask(&sha256, now) {
                    return Admission::Refused(too_many());
                }
                match self.judge(token).await {
                    Ok(verdict) => verdict,
                    Err(error) => return Admission::Refused(unanswered(&error)),
                }
            }
        };
        if known.is_none() {
            self.memory().learn(sha256, verdict, now);
        }
        match verdict {
            Verdict::Administrator => Admission::Admitted,
            Verdict::Other => Admission::Refused(not_an_administrator()),
            Verdict::Nobody => Admission::Unknown,
        }
    }
}

fn refusal(status: StatusCode, code: ErrorCode, text: String) -> MatrixError {
    MatrixError::new(status, code, text)
}

fn not_an_administrator() -> Refusal {
    let text = "This access token's user does not administer the homeserver; name it in matrix_admins in [admin], or make it an admin in Synapse";
    Refusal(refusal(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text.to_owned()))
}

fn unanswered(error: &Unavailable) -> Refusal {
    let text = format!("Whose access token this is can't be asked now: {error}");
    Refusal(refusal(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text))
}

fn too_many() -> Refusal {
    let text = "Too many access tokens that are not known here; try again in a minute".to_owned();
    let error = refusal(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, text);
    Refusal(error.retry_after(QUESTIONS_TIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{OWN_NAME, Reply, TestSite, name};

    const ALICE: Reply = Reply::Json(200, r#"{"user_id":"@alice:a.test"}"#);
    const NO_ADMIN: Reply = Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#);

    async fn admitted(tokens: &MatrixTokens, path: &str, token: &str) -> u16 {
        match tokens.admit(path, token).await {
            Admission::Admitted => 200,
            Admission::Unknown => 401,
            Admission::Refused(Refusal(error)) => error.status.as_u16(),
        }
    }

    fn says(site: &TestSite, replies: impl IntoIterator<Item = Reply>) {
        site.own_homeserver.script(&name(OWN_NAME), replies);
    }

    #[tokio::test]
    async fn a_synapse_administrators_token_opens_the_relays_and_nothing_else() {
        let site = TestSite::new().await;
        let tokens = MatrixTokens::new(site.site.clone(), Vec::new());
        says(&site, [ALICE, Reply::Json(200, r#"{"admin":true}"#)]);
        for (path, status) in [
            ("/keys", 401),
            ("/status", 401),
            ("/relaysx", 401),
            ("/relays", 200),
            ("/relays/b/r", 200),
        ] {
            assert_eq!(admitted(&tokens, path, "secret").await, status, "{path}");
        }
        let asked = site.own_homeserver.seen();
        let targets: Vec<_> = asked.iter().map(|seen| seen.target.as_str()).collect();
        assert_eq!(targets, [WHO_AM_I, "/_synapse/admin/v1/users/@alice:a.test/admin"]);
        assert!(asked.iter().all(|seen| seen.headers["authorization"] == "Bearer secret"));

        says(&site, [Reply::Json(401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#)]);
        site.clock.advance(ADMITTED_FOR);
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 401, "it was logged out");
    }

    const WHO_AM_I: &str = "/_matrix/client/v3/account/whoami";

    #[tokio::test]
    async fn other_users_tokens_open_nothing_unless_the_configuration_names_them() {
        let site = TestSite::new().await;
        let tokens = MatrixTokens::new(site.site.clone(), vec!["@bob:a.test".to_owned()]);
        says(&site, [ALICE, NO_ADMIN]);
        assert_eq!(admitted(&tokens, "/relays", "of alice").await, 403);
        says(&site, [ALICE, Reply::Json(200, r#"{"admin":false}"#)]);
        assert_eq!(admitted(&tokens, "/relays", "of alice, too").await, 403);
        says(&site, [Reply::Json(200, r#"{"user_id":"@bob:a.test"}"#), NO_ADMIN]);
        assert_eq!(admitted(&tokens, "/relays", "of bob").await, 200);
        for nobody in [
            r#"{"user_id":"@bob:a.test","is_guest":true}"#,
            r#"{"user_id":"@bob:a.test.evil.test"}"#,
            "{}",
        ] {
            let tokens = MatrixTokens::new(site.site.clone(), vec!["@bob:a.test".to_owned()]);
            says(&site, [Reply::Json(200, nobody), Reply::Json(200, r#"{"admin":true}"#)]);
            assert_ne!(admitted(&tokens, "/relays", "guest").await, 200, "{nobody}");
        }
    }

    #[tokio::test]
    async fn whoever_guesses_locks_no_administrator_out_who_was_admitted_before() {
        let site = TestSite::new().await;
        let tokens = MatrixTokens::new(site.site.clone(), Vec::new());
        let is_admin = || says(&site, [ALICE, Reply::Json(200, r#"{"admin":true}"#)]);
        let unknown = Reply::Json(401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#);
        let guess = async |round: u32| {
            says(&site, [unknown.clone()]);
            for guess in 0..100 {
                admitted(&tokens, "/relays", &format!("guess {round} {guess}")).await;
            }
        };
        is_admin();
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 200);
        site.clock.advance(Duration::from_secs(6 * 24 * 3600));
        guess(1).await;
        is_admin();
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 200, "it was asked about");
        guess(2).await;
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 200, "it is remembered");
        assert_eq!(admitted(&tokens, "/relays", "of another").await, 429);

        site.clock.advance(ADMITTED_FOR);
        guess(3).await;
        says(&site, [Reply::Refused]);
        let statuses = [
            admitted(&tokens, "/relays", "secret").await,
            admitted(&tokens, "/relays", "secret").await,
        ];
        assert_eq!(statuses, [503, 429], "once a minute");
        site.clock.advance(ADMITTED_FOR);
        guess(4).await;
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 401, "it was logged out");
        site.clock.advance(REFUSED_FOR);
        assert_eq!(admitted(&tokens, "/relays", "secret").await, 429, "it is one of many");
    }

    #[tokio::test]
    async fn whoever_guesses_does_not_make_the_homeserver_answer_for_each_guess() {
        let site = TestSite::new().await;
        let tokens = MatrixTokens::new(site.site.clone(), Vec::new());
        says(&site, [Reply::Json(401, r#"{"errcode":"M_UNKNOWN_TOKEN"}"#)]);
        for guess in 0..100 {
            let status = admitted(&tokens, "/relays", &format!("guess {guess}")).await;
            assert_eq!(status, if guess < QUESTIONS_MAX { 401 } else { 429 });
        }
        assert_eq!(site.own_homeserver.seen().len(), QUESTIONS_MAX as usize);
        site.clock.advance(QUESTIONS_TIME);
        assert_eq!(admitted(&tokens, "/relays", "guess").await, 401);
        says(&site, [Reply::Refused]);
        assert_eq!(admitted(&tokens, "/relays", "another").await, 503);
    }
}
