//! A server's machine: a scripted homeserver, and beside it the real node, or none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use restante_federation::{Exchange, Identity, MemoryKeyStore};
use restante_federation_proto::{Clock, ServerName, SigningKey};
use restante_node::{Doors, NodeConfig, Service, ServiceParts, Token};
use restante_relay_api::endpoints::SEND;
use restante_scripted_homeserver::{Habits, Homeserver, Host, HostParts, Room};
use restante_sqlite::Database;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::chance::Chance;
use crate::clock::{BEGINNING, MachineClock};
use crate::network::{Handler, Network, Sabotage};
use crate::plan::{Plan, ServerPlan};
use crate::wire::{SECRET, Way, Wire, back_door, front_door, hook_door};

/// The longest that an operation of a node's database takes.
const DISK_MAX: Duration = Duration::from_millis(4);

/// A server, on or off.
pub(crate) struct Machine {
    pub(crate) plan: ServerPlan,
    pub(crate) host: Host,
    pub(crate) clock: Arc<MachineClock>,
    /// What its node said without reason.
    pub(crate) broken_words: Arc<Mutex<Vec<String>>>,
    identity: Identity,
    network: Arc<Network>,
    node: Option<NodeState>,
    running: Option<Running>,
}

/// What survives that the node stops.
struct NodeState {
    config: NodeConfig,
    database: Database,
    keys: Arc<MemoryKeyStore>,
    chance: Chance,
}

/// A node that runs, or is about to.
struct Running {
    shutdown: CancellationToken,
    is_alive: Arc<AtomicBool>,
    doors: Arc<Mutex<Option<Doors>>>,
}

/// The identity of a server, its key derived from its name.
pub(crate) fn identity(server: &str) -> Identity {
    let mut seed = [0; 32];
    for (byte, letter) in seed.iter_mut().zip(server.bytes()) {
        *byte = letter;
    }
    let id = "ed25519:1".parse().expect("a key id");
    let server_name = server.parse().expect("plans hold server names");
    Identity { server_name, key: Arc::new(SigningKey::from_seed(id, &seed)) }
}

/// Answers `request` by `routes`, whole.
pub(crate) async fn serve(routes: axum::Router, request: Request<Bytes>) -> Response<Bytes> {
    let Ok(answer) = routes.oneshot(request.map(axum::body::Body::from)).await;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(parts, body)
}

impl Machine {
    pub(crate) fn new(
        plan: &Plan,
        server: &ServerPlan,
        network: Arc<Network>,
        rooms: Vec<Room>,
        chance: &Chance,
    ) -> Self {
        let identity = identity(&server.name);
        let clock = Arc::new(MachineClock::new(server.clock_error_ms));
        let way = if server.has_node { Way::ThroughNode } else { Way::Out };
        let exchange: Arc<dyn Exchange> = Arc::new(Wire {
            network: network.clone(),
            from: identity.server_name.clone(),
            way,
            is_alive: Arc::new(AtomicBool::new(true)),
        });
        let mut homeserver = Homeserver::new(identity.clone(), Habits::default(), BEGINNING);
        rooms.into_iter().for_each(|room| homeserver.enter(room));
        let host_clock: Arc<dyn Clock> = clock.clone();
        let host = Host::start(HostParts { homeserver, exchange, clock: host_clock });
        let node = server.has_node.then(|| NodeState::new(plan, server, chance));
        Self {
            plan: server.clone(),
            host,
            clock,
            broken_words: Arc::default(),
            identity,
            network,
            node,
            running: None,
        }
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.identity.server_name
    }

    /// Whether its homeserver runs.
    pub(crate) fn has_homeserver(&self) -> bool {
        self.network.door(&back_door(self.name())).is_some()
    }

    pub(crate) fn start_homeserver(&self) {
        if self.has_homeserver() {
            return;
        }
        let (host, network, own) = (self.host.clone(), self.network.clone(), self.name().clone());
        let chance = Arc::new(Chance::new(u64::from(own.as_str().as_bytes()[0])));
        let is_stock = self.node.is_none();
        let door: Handler = Arc::new(move |request: Request<Bytes>| {
            let (host, network, own) = (host.clone(), network.clone(), own.clone());
            let chance = chance.clone();
            Box::pin(async move {
                let cargo = network.copies.cargo(&request);
                let is_transaction = request.uri().path().starts_with(SEND);
                let forgets = network.sabotage == Some(Sabotage::HomeserversForget);
                if is_transaction && forgets && chance.happens(500) {
                    return Response::new(Bytes::from_static(br#"{"pdus":{}}"#));
                }
                let answer = host.answer(request).await;
                if let Some(cargo) = cargo.filter(|_| answer.status() == StatusCode::OK) {
                    network.copies.reached_homeserver(&own, cargo.clone());
                    if is_stock {
                        network.copies.took(&own, cargo, false);
                    }
                }
                answer
            })
        });
        self.network.set_door(&back_door(self.name()), Some(door.clone()));
        if is_stock {
            self.network.set_door(&front_door(self.name()), Some(door));
        }
        self.host.restart();
    }

    pub(crate) fn stop_homeserver(&self) {
        self.network.set_door(&back_door(self.name()), None);
        if self.node.is_none() {
            self.network.set_door(&front_door(self.name()), None);
        }
        self.host.stop();
    }

    /// Starts the node, which opens its doors when it is ready.
    pub(crate) fn start_node(&mut self) {
        let Some(node) = &mut self.node else { return };
        if self.running.is_some() {
            return;
        }
        let (shutdown, is_alive) = (CancellationToken::new(), Arc::new(AtomicBool::new(true)));
        let doors = Arc::<Mutex<Option<Doors>>>::default();
        let starting = Starting {
            parts: node.parts(&self.identity, &self.network, &self.clock, &is_alive),
            config: node.config.clone(),
            network: self.network.clone(),
            own: self.identity.server_name.clone(),
            is_alive: is_alive.clone(),
            doors: doors.clone(),
            broken_words: self.broken_words.clone(),
        };
        tokio::spawn(starting.run(shutdown.clone()));
        self.running = Some(Running { shutdown, is_alive, doors });
    }

    /// The node stops dead: nothing that it was doing has any further effect.
    pub(crate) fn stop_node(&mut self) {
        let (Some(running), Some(node)) = (self.running.take(), &mut self.node) else { return };
        running.is_alive.store(false, Ordering::SeqCst);
        self.network.set_door(&front_door(&self.identity.server_name), None);
        self.network.set_door(&hook_door(&self.identity.server_name), None);
        running.shutdown.cancel();
        node.database = node.database.reopened().expect("it is in memory");
    }

    /// What the node's operator sees; `None` without a node that runs.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.ask_operator("/status").await
    }

    /// What is parked there.
    pub(crate) async fn parked(&self) -> Option<Value> {
        self.ask_operator("/parked").await
    }

    /// What its node knows of the keys of `server`.
    pub(crate) async fn keys_of(&self, server: &ServerName) -> Option<Value> {
        self.ask_operator(&format!("/keys/{server}")).await
    }

    async fn ask_operator(&self, target: &str) -> Option<Value> {
        let running = self.running.as_ref()?;
        let doors = running.doors.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let target = format!("/_restante/admin/v1{target}");
        let request = Request::builder().uri(target).header("authorization", "Bearer operator");
        let answer = serve(doors.admin, request.body(Bytes::new()).ok()?).await;
        serde_json::from_slice(answer.body()).ok()
    }

    pub(crate) fn has_node(&self) -> bool {
        self.node.is_some()
    }
}

impl NodeState {
    fn new(plan: &Plan, server: &ServerPlan, chance: &Chance) -> Self {
        let disk = chance.branch();
        let duration = move || disk.duration(Duration::ZERO..DISK_MAX);
        let database = Database::open_in_place(&restante_node::SCHEMA, duration)
            .expect("a database in memory opens");
        Self {
            config: config(plan, server),
            database,
            keys: Arc::default(),
            chance: chance.branch(),
        }
    }

    fn parts(
        &self,
        identity: &Identity,
        network: &Arc<Network>,
        clock: &Arc<MachineClock>,
        is_alive: &Arc<AtomicBool>,
    ) -> ServiceParts {
        let wire = |way: Way| -> Arc<dyn Exchange> {
            Arc::new(Wire {
                network: network.clone(),
                from: identity.server_name.clone(),
                way,
                is_alive: is_alive.clone(),
            })
        };
        ServiceParts {
            identity: identity.clone(),
            other_keys: Vec::new(),
            exchange: wire(Way::Out),
            homeserver: wire(Way::ToOwnHomeserver),
            database: self.database.clone(),
            key_store: self.keys.clone(),
            clock: clock.clone(),
            dice: Arc::new(self.chance.branch()),
            admin_token: Token::of("operator"),
        }
    }
}

/// A node's configuration: every server's relays are known to every node.
fn config(plan: &Plan, server: &ServerPlan) -> NodeConfig {
    let mut text = format!(
        "server_name = \"{}\"\nsigning_key = \"none\"\nhomeserver = \"http://127.0.0.1:8008\"\n\
         [outbound]\nsecret = \"{SECRET}\"\n[collect]\nwait = \"50s\"\n[relays]\n",
        server.name
    );
    for server in plan.servers.iter().filter(|server| server.has_node) {
        let relays = server.relays.iter().map(|relay| &plan.relays[*relay].name);
        let relays: Vec<String> =
            relays.map(|relay| format!("{{ server_name = \"{relay}\" }}")).collect();
        text += &format!("\"{}\" = [{}]\n", server.name, relays.join(", "));
    }
    toml::from_str(&text).expect("a plan makes a configuration")
}

/// What a node needs to start.
struct Starting {
    parts: ServiceParts,
    config: NodeConfig,
    network: Arc<Network>,
    own: ServerName,
    is_alive: Arc<AtomicBool>,
    doors: Arc<Mutex<Option<Doors>>>,
    broken_words: Arc<Mutex<Vec<String>>>,
}

impl Starting {
    async fn run(self, shutdown: CancellationToken) {
        let Self { parts, config, network, own, is_alive, doors, broken_words } = self;
        let Ok(service) = Service::open(config, parts).await else { return };
        if !is_alive.load(Ordering::SeqCst) {
            return;
        }
        let opened = service.doors();
        let front = front_handler(network.clone(), own.clone(), opened.inbound.clone());
        network.set_door(&front_door(&own), Some(front));
        let hook = hook_handler(network.clone(), opened.outbound.clone(), broken_words);
        network.set_door(&hook_door(&own), Some(hook));
        *doors.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        service.run(shutdown.clone().cancelled_owned(), shutdown).await;
    }
}

fn front_handler(network: Arc<Network>, own: ServerName, routes: axum::Router) -> Handler {
    Arc::new(move |request: Request<Bytes>| {
        let (network, own, routes) = (network.clone(), own.clone(), routes.clone());
        Box::pin(async move {
            let cargo = network.copies.cargo(&request);
            let answer = serve(routes, request).await;
            if let Some(cargo) = cargo.filter(|_| answer.status() == StatusCode::OK) {
                let is_kept = !network.copies.is_at_homeserver(&own, &cargo);
                network.copies.took(&own, cargo, is_kept);
            }
            answer
        })
    })
}

/// Notes every "sent" that nobody's word stands behind.
fn hook_handler(
    network: Arc<Network>,
    routes: axum::Router,
    broken_words: Arc<Mutex<Vec<String>>>,
) -> Handler {
    Arc::new(move |request: Request<Bytes>| {
        let (network, routes) = (network.clone(), routes.clone());
        let broken_words = broken_words.clone();
        Box::pin(async move {
            let cargo = network.copies.cargo(&request);
            let destination = request.uri().authority().and_then(|name| name.as_str().parse().ok());
            let answer = serve(routes, request).await;
            if let (Some(cargo), Some(destination)) = (cargo, destination)
                && let Some(origin) = cargo.origin
                && answer.status() == StatusCode::OK
            {
                let key = (origin, cargo.txn_id);
                if !network.copies.for_server(&destination).transactions.contains(&key) {
                    let (origin, txn_id) = key;
                    let text = format!(
                        "the node of {origin} said that {txn_id} to {destination} was sent"
                    );
                    broken_words.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
            answer
        })
    })
}
