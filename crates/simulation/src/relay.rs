//! A relay machine: the real relay on a store in memory, which survives that the relay stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use restante_federation::{Exchange, Identity, MemoryKeyStore};
use restante_federation_proto::{Clock, ServerName};
use restante_mailbox::MemoryStore;
use restante_relay::{NoDisk, RelayConfig, Service, ServiceParts, Stores};
use restante_relay_api::endpoints::COLLECT;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::clock::MachineClock;
use crate::lies::Liar;
use crate::machine::{identity, serve};
use crate::network::{Handler, Network, Sabotage};
use crate::plan::RelayPlan;
use crate::wire::{Way, Wire, front_door};

/// A relay, on or off.
pub(crate) struct RelayMachine {
    pub(crate) identity: Identity,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) liar: Arc<Liar>,
    pub(crate) clock: Arc<MachineClock>,
    keys: Arc<MemoryKeyStore>,
    dice: Arc<Chance>,
    network: Arc<Network>,
    running: Option<(CancellationToken, Arc<AtomicBool>)>,
}

impl RelayMachine {
    pub(crate) fn new(plan: &RelayPlan, network: Arc<Network>, chance: &Chance) -> Self {
        let identity = identity(&plan.name);
        Self {
            store: Arc::new(MemoryStore::with_dice(Arc::new(chance.branch()))),
            liar: Arc::new(Liar::new(plan.manner, chance.branch())),
            clock: Arc::new(MachineClock::new(plan.clock_error_ms)),
            keys: Arc::default(),
            // Names of requests change nothing, and drawing them from the seed would change every course of events.
            dice: Arc::new(Chance::new(0)),
            identity,
            network,
            running: None,
        }
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.identity.server_name
    }

    pub(crate) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let (shutdown, is_alive) = (CancellationToken::new(), Arc::new(AtomicBool::new(true)));
        let exchange: Arc<dyn Exchange> = Arc::new(Wire {
            network: self.network.clone(),
            from: self.name().clone(),
            way: Way::Out,
            is_alive: is_alive.clone(),
        });
        let clock: Arc<dyn Clock> = self.clock.clone();
        let parts = ServiceParts {
            identity: self.identity.clone(),
            exchange,
            key_store: self.keys.clone(),
            stores: Stores::of(self.store.clone()),
            disk: Arc::new(NoDisk),
            clock,
            dice: self.dice.clone(),
        };
        let service = Service::new(&RelayConfig::default(), parts, shutdown.clone());
        let door = self.door(service.routes());
        self.network.set_door(&front_door(self.name()), Some(door));
        tokio::spawn(service.run(shutdown.clone().cancelled_owned()));
        self.running = Some((shutdown, is_alive));
    }

    pub(crate) fn stop(&mut self) {
        let Some((shutdown, is_alive)) = self.running.take() else { return };
        is_alive.store(false, Ordering::SeqCst);
        self.network.set_door(&front_door(self.name()), None);
        shutdown.cancel();
    }

    fn door(&self, routes: axum::Router) -> Handler {
        let (network, liar) = (self.network.clone(), self.liar.clone());
        Arc::new(move |request: Request<Bytes>| {
            let (network, liar, routes) = (network.clone(), liar.clone(), routes.clone());
            Box::pin(async move {
                let cargo = network.copies.cargo(&request);
                let is_collect = request.uri().path() == COLLECT;
                let forgets = network.sabotage == Some(Sabotage::RelaysForget);
                let answer = if cargo.is_some() && (forgets || liar.swallows()) {
                    Response::new(Bytes::from_static(b"{}"))
                } else {
                    serve(routes, request).await
                };
                if answer.status() != StatusCode::OK {
                    return answer;
                }
                if let Some(cargo) = cargo
                    && let Some(destination) = cargo.destination.clone()
                {
                    network.copies.took(&destination, cargo, liar.keeps_mail());
                }
                if is_collect { answer.map(|body| liar.answer(body)) } else { answer }
            })
        })
    }
}
