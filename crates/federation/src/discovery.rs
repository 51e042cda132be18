//! Matrix server discovery (server-server API, "Resolving server names"): from a server name to the name that stands
//! for it ([`Discovery::named`]), and from there to where to connect ([`Discovery::destinations`]).
//!
//! The rules are in the files below; this one asks in their order and remembers what was delegated.

pub(crate) mod deny_list;
pub(crate) mod name;
pub(crate) mod resolver;
pub(crate) mod srv;
pub(crate) mod well_known;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use restante_federation_proto::{Clock, ServerName, Timestamp};

use crate::bounded_map::BoundedMap;
use name::{FEDERATION_PORT, Host, Named};
use resolver::{ResolveError, Resolver};
use srv::in_order_of_trial;
use well_known::{
    Meaning, REDIRECTS_MAX, SERVER_FILE, WebAnswer, WellKnownUrl, elsewhere, meaning,
};

/// Hosts whose delegation, or lack of one, is remembered.
const REMEMBERED_MAX: usize = 4096;
/// A host without a delegation is asked again after this. Shorter than the hour that the specification suggests: an
/// operator who adds the file wants to see it work.
const NOTHING_LIFETIME: Duration = Duration::from_mins(10);
/// What was cut short by a hurried caller is asked again sooner.
const HURRIED_LIFETIME: Duration = Duration::from_mins(1);
/// A delegation that can't be refreshed is used for so long after it was learned.
const STALE_MAX: Duration = Duration::from_hours(48);
/// The whole of a well-known look-up, redirects included.
const WELL_KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// SRV targets that are tried.
const SRV_TARGETS_MAX: usize = 8;
/// Both service names, in the order in which they are asked.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// A host and port to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// Asks a web server, over TLS, addresses checked against the deny list.
#[async_trait]
pub(crate) trait Web: Send + Sync + 'static {
    /// One GET; follows nothing.
    async fn ask(&self, url: &WellKnownUrl) -> Result<WebAnswer, String>;
}

/// Server discovery with a memory.
pub(crate) struct Discovery {
    resolver: Arc<dyn Resolver>,
    web: Arc<dyn Web>,
    clock: Arc<dyn Clock>,
    remembered: Mutex<BoundedMap<String, Remembered>>,
}

#[derive(Clone)]
struct Remembered {
    delegated: Option<Named>,
    learned_at: Timestamp,
    until: Timestamp,
}

impl Discovery {
    pub(crate) fn new(
        resolver: Arc<dyn Resolver>,
        web: Arc<dyn Web>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let remembered = Mutex::new(BoundedMap::new(REMEMBERED_MAX));
        Self { resolver, web, clock, remembered }
    }

    /// The name that stands for `server`: what it delegates to, or itself. `Host` and certificate are this name's.
    pub(crate) async fn named(&self, server: &ServerName, patience: Duration) -> Option<Named> {
        let own = Named::parse(server.as_str())?;
        if own.fixed_port().is_some() {
            return Some(own);
        }
        let Host::Dns(host) = &own.host else { return Some(own) };
        Some(self.delegated(host, patience).await.unwrap_or(own))
    }

    /// Where to connect for `named`, in the order of trial.
    pub(crate) async fn destinations(
        &self,
        named: &Named,
    ) -> Result<Vec<Destination>, ResolveError> {
        let at = |port| vec![Destination { host: named.host.clone(), port }];
        let host = match (&named.host, named.fixed_port()) {
            (_, Some(port)) => return Ok(at(port)),
            (Host::Ip(_), None) => return Ok(at(FEDERATION_PORT)),
            (Host::Dns(host), None) => host,
        };
        for service in SERVICES {
            // A failure is taken for "no such record": some name servers answer SERVFAIL to every SRV question, and
            // the certificate is checked wherever the connection goes.
            let Ok(records) = self.resolver.services(&format!("{service}.{host}")).await else {
                continue;
            };
            if records.is_empty() {
                continue;
            }
            let ordered = in_order_of_trial(records, &mut rand::rng());
            let targets = ordered.into_iter().filter_map(|record| {
                Some(Destination { host: Host::parse(&record.target)?, port: record.port })
            });
            let targets: Vec<_> = targets.take(SRV_TARGETS_MAX).collect();
            if targets.is_empty() {
                return Err(ResolveError::Nothing(format!("a usable target of {service}.{host}")));
            }
            return Ok(targets);
        }
        Ok(at(FEDERATION_PORT))
    }

    async fn delegated(&self, host: &str, patience: Duration) -> Option<Named> {
        let now = self.clock.now();
        let known = self.memory().get(host).cloned();
        if let Some(known) = &known
            // A later one was learned by a clock that was ahead.
            && (known.learned_at..known.until).contains(&now)
        {
            return known.delegated.clone();
        }
        let timeout = patience.min(WELL_KNOWN_TIMEOUT);
        let asked = tokio::time::timeout(timeout, self.ask_well_known(host)).await;
        let learned = match asked {
            Ok(Ok((named, lifetime))) => {
                Remembered { delegated: Some(named), learned_at: now, until: now.after(lifetime) }
            }
            Ok(Err(reason)) => {
                tracing::debug!(discovery.host = host, reason, "nothing is delegated");
                without_answer(known, now, NOTHING_LIFETIME)
            }
            Err(_) if timeout < WELL_KNOWN_TIMEOUT => without_answer(known, now, HURRIED_LIFETIME),
            Err(_) => without_answer(known, now, NOTHING_LIFETIME),
        };
        self.memory().insert(host.to_owned(), learned.clone());
        learned.delegated
    }

    async fn ask_well_known(&self, host: &str) -> Result<(Named, Duration), String> {
        let mut url = WellKnownUrl::of(host, SERVER_FILE);
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.web.ask(&url).await?;
            match meaning(&url, &answer, self.clock.now()) {
                Meaning::Delegated(named, lifetime) => return Ok((named, lifetime)),
                Meaning::Elsewhere(there) => url = there,
                Meaning::Nothing(reason) => return Err(reason),
            }
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }

    /// The file at `path` of the web site that `server`'s name is, redirects followed; nothing is remembered.
    pub(crate) async fn web_file(&self, server: &ServerName, path: &str) -> Result<Bytes, String> {
        let named = Named::parse(server.as_str()).filter(|_| server.public_key().is_none());
        let Some(Named { host: Host::Dns(host), .. }) = named else {
            return Err(format!("{server} is no DNS name, and has no web site"));
        };
        let mut url = WellKnownUrl::of(&host, path);
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.web.ask(&url).await?;
            match elsewhere(&url, &answer)? {
                Some(there) => url = there,
                None => return Ok(answer.body.into()),
            }
        }
        Err(format!("more than {REDIRECTS_MAX} redirects"))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, BoundedMap<String, Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to go on with when the host gave no delegation: the last one while it is not too old, else none.
fn without_answer(known: Option<Remembered>, now: Timestamp, lifetime: Duration) -> Remembered {
    let until = now.after(lifetime);
    match known.filter(|known| now.since(known.learned_at) < STALE_MAX) {
        Some(known) if known.delegated.is_some() => Remembered { until, ..known },
        _ => Remembered { delegated: None, learned_at: now, until },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::{HeaderMap, StatusCode};
    use restante_federation_proto::ManualClock;

    use super::resolver::TableResolver;
    use super::srv::SrvRecord;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Web servers by authority: status, `Location`, body. What is not there refuses connections.
    #[derive(Default)]
    struct TableWeb {
        pages: Mutex<HashMap<String, (u16, &'static str, &'static str)>>,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Web for TableWeb {
        async fn ask(&self, url: &WellKnownUrl) -> Result<WebAnswer, String> {
            self.asked.lock().unwrap().push(format!("{}{}", url.authority, url.path_and_query));
            let page = self.pages.lock().unwrap().get(&url.authority).copied();
            let (status, location, body) = page.ok_or("connection refused")?;
            if status == 0 {
                std::future::pending::<()>().await;
            }
            let mut headers = HeaderMap::new();
            headers.insert("location", location.parse().unwrap());
            Ok(WebAnswer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: body.into(),
            })
        }
    }

    struct World {
        discovery: Discovery,
        web: Arc<TableWeb>,
        clock: Arc<ManualClock>,
    }

    impl World {
        fn new(resolver: TableResolver) -> Self {
            let web = Arc::new(TableWeb::default());
            let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
            let discovery = Discovery::new(Arc::new(resolver), web.clone(), clock.clone());
            Self { discovery, web, clock }
        }

        fn page(&self, host: &str, status: u16, location: &'static str, body: &'static str) {
            self.web.pages.lock().unwrap().insert(host.into(), (status, location, body));
        }

        async fn named(&self, server: &str) -> String {
            let server = server.parse().unwrap();
            self.discovery.named(&server, PATIENCE).await.unwrap().text
        }

        async fn destinations(&self, text: &str) -> Vec<String> {
            let named = Named::parse(text).unwrap();
            let found = self.discovery.destinations(&named).await.unwrap();
            let shown = found.into_iter().map(|destination| match destination.host {
                Host::Ip(ip) => format!("{ip}/{}", destination.port),
                Host::Dns(name) => format!("{name}/{}", destination.port),
            });
            shown.collect()
        }

        fn questions(&self) -> usize {
            self.web.asked.lock().unwrap().len()
        }
    }

    fn services(records: &[(&str, u16, &str, u16)]) -> TableResolver {
        let mut resolver = TableResolver::default();
        for (name, priority, target, port) in records {
            let record =
                SrvRecord { priority: *priority, weight: 0, port: *port, target: (*target).into() };
            resolver.services.entry((*name).into()).or_default().push(record);
        }
        resolver
    }

    #[tokio::test]
    async fn literals_and_names_with_a_port_ask_nobody() {
        let world = World::new(TableResolver::default());
        for (server, destination) in [
            ("1.2.3.4", "1.2.3.4/8448"),
            ("1.2.3.4:80", "1.2.3.4/80"),
            ("[2606::1]", "2606::1/8448"),
            ("b.example:443", "b.example/443"),
        ] {
            assert_eq!(world.named(server).await, server);
            assert_eq!(world.destinations(server).await, [destination]);
        }
        assert_eq!(world.questions(), 0);
    }

    #[tokio::test]
    async fn a_delegation_stands_for_the_server() {
        let world = World::new(TableResolver::default());
        world.page("b.example", 200, "", r#"{"m.server":"fed.b.example:443"}"#);
        assert_eq!(world.named("b.example").await, "fed.b.example:443");
    }

    #[tokio::test]
    async fn without_a_port_the_newer_service_name_goes_first_then_the_older_then_8448() {
        let world = World::new(services(&[
            ("_matrix-fed._tcp.b.example", 20, "relay.example", 444),
            ("_matrix-fed._tcp.b.example", 10, "home.example", 443),
            ("_matrix._tcp.b.example", 10, "old.example", 1),
            ("_matrix._tcp.c.example", 10, "old.example", 1),
        ]));
        assert_eq!(
            world.destinations("b.example").await,
            ["home.example/443", "relay.example/444"]
        );
        assert_eq!(world.destinations("c.example").await, ["old.example/1"]);
        assert_eq!(world.destinations("d.example").await, ["d.example/8448"]);
    }

    #[tokio::test]
    async fn a_service_that_says_it_is_not_there_is_believed() {
        let world = World::new(services(&[("_matrix-fed._tcp.b.example", 0, "", 0)]));
        let named = Named::parse("b.example").unwrap();
        assert!(world.discovery.destinations(&named).await.is_err());
    }

    #[tokio::test]
    async fn redirects_are_followed_five_times_and_no_more() {
        let world = World::new(TableResolver::default());
        for (host, location) in [
            ("b.example", "https://1.example/"),
            ("1.example", "https://2.example/"),
            ("2.example", "https://3.example/"),
            ("3.example", "https://4.example/"),
            ("4.example", "https://5.example/"),
        ] {
            world.page(host, 302, location, "");
        }
        world.page("5.example", 200, "", r#"{"m.server":"fed.b.example:1"}"#);
        assert_eq!(world.named("b.example").await, "fed.b.example:1");

        world.page("loop.example", 302, "https://loop.example/", "");
        let before = world.questions();
        assert_eq!(world.named("loop.example").await, "loop.example");
        assert_eq!(world.questions() - before, 6);
    }

    #[tokio::test]
    async fn answers_and_their_lack_are_remembered_for_a_while() {
        let world = World::new(TableResolver::default());
        assert_eq!(world.named("b.example").await, "b.example");
        world.page("b.example", 200, "", r#"{"m.server":"fed.b.example:443"}"#);
        assert_eq!(world.named("b.example").await, "b.example");
        assert_eq!(world.questions(), 1);

        world.clock.advance(NOTHING_LIFETIME);
        assert_eq!(world.named("b.example").await, "fed.b.example:443");
        assert_eq!(world.named("b.example").await, "fed.b.example:443");
        assert_eq!(world.questions(), 2);
    }

    #[tokio::test]
    async fn a_delegation_that_cannot_be_refreshed_is_kept_for_two_days() {
        let world = World::new(TableResolver::default());
        world.page("b.example", 200, "", r#"{"m.server":"fed.b.example:443"}"#);
        assert_eq!(world.named("b.example").await, "fed.b.example:443");
        world.page("b.example", 503, "", "");
        world.clock.advance(Duration::from_hours(25));
        assert_eq!(world.named("b.example").await, "fed.b.example:443");
        world.clock.advance(Duration::from_hours(24));
        assert_eq!(world.named("b.example").await, "b.example");
    }

    #[tokio::test]
    async fn a_web_sites_file_comes_over_redirects_and_only_from_a_dns_name() {
        let world = World::new(TableResolver::default());
        world.page("b.example", 307, "https://www.b.example/elsewhere", "");
        world.page("www.b.example", 200, "", "the file");
        let file = async |server: &str| {
            let server = server.parse().unwrap();
            world.discovery.web_file(&server, "/.well-known/matrix/other").await
        };
        assert_eq!(file("b.example:8448").await.unwrap(), "the file");
        let asked = world.web.asked.lock().unwrap().clone();
        assert_eq!(asked, ["b.example/.well-known/matrix/other", "www.b.example/elsewhere"]);

        world.page("c.example", 404, "", "");
        world.page("d.example", 302, "http://d.example/plain", "");
        world.page("e.example", 302, "https://e.example/", "");
        let key = "0123456789abcdef".repeat(4);
        for none in ["c.example", "d.example", "e.example", "192.0.2.1", "[2606::1]", &key] {
            assert!(file(none).await.is_err(), "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_web_server_costs_the_callers_patience_once() {
        let world = World::new(TableResolver::default());
        world.page("b.example", 0, "", "");
        let server = "b.example".parse().unwrap();
        for _ in 0..2 {
            let named = world.discovery.named(&server, Duration::from_secs(1)).await.unwrap();
            assert_eq!(named.text, "b.example");
        }
        assert_eq!(world.questions(), 1);
    }
}
