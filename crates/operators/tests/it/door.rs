//! What the door shows to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use restante_federation_proto::Timestamp;
use restante_operators::{
    BASE, Condition, Door, Endpoint, Metrics, Readiness, Routes, Token, Unmet, done, tidy,
    undocumented,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::OpenApi as _;

/// Met until it is broken; counts how often it was checked.
#[derive(Clone, Default)]
struct Disk {
    broken: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
}

#[async_trait]
impl Condition for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn check(&self) -> Result<(), Unmet> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        if self.broken.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(Unmet { problem: "the disk is full".into(), what_to_do: "free some space".into() })
    }
}

/// Never answers.
struct Stuck;

#[async_trait]
impl Condition for Stuck {
    fn name(&self) -> &'static str {
        "storage"
    }

    async fn check(&self) -> Result<(), Unmet> {
        std::future::pending().await
    }
}

#[utoipa::path(get, path = "/_restante/admin/v1/things/{id}", responses((status = 200)))]
async fn thing() -> Response<Body> {
    done()
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(thing))]
struct Document;

fn door(conditions: Vec<Arc<dyn Condition>>) -> Door {
    let mut registry = Registry::default();
    let things: Counter = Counter::default();
    things.inc_by(3);
    registry.sub_registry_with_prefix("restante_test").register("things", "Things so far", things);
    Door {
        token: Token::of("secret"),
        readiness: Arc::new(Readiness::of(conditions)),
        metrics: Arc::new(Metrics::of(registry, Vec::new(), Timestamp::from_millis(1500))),
        routes: Routes::new().get("/things/{id}", thing),
        document: tidy(Document::openapi()),
    }
}

async fn ask(door: Door, method: Method, target: &str, token: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(target).header("authorization", token);
    let response = door.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn errcode(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["errcode"].clone()
}

#[tokio::test]
async fn monitors_need_no_token_and_commands_do() {
    for target in ["/health", "/ready", "/metrics", "/_restante/admin/v1/openapi.json"] {
        assert_eq!(ask(door(Vec::new()), Method::GET, target, "").await.0, 200, "{target}");
    }
    let thing = format!("{BASE}/things/1");
    for wrong in ["", "secret", "Bearer", "Bearer secre", "Bearer secrets", "Basic secret"] {
        let (status, body) = ask(door(Vec::new()), Method::GET, &thing, wrong).await;
        assert_eq!((status, errcode(&body)), (401, json!("M_UNAUTHORIZED")), "{wrong}");
    }
    for right in ["Bearer secret", "bearer secret"] {
        assert_eq!(ask(door(Vec::new()), Method::GET, &thing, right).await.0, 200, "{right}");
    }
}

#[tokio::test]
async fn what_the_door_does_not_have_is_a_matrix_error() {
    let token = "Bearer secret";
    for (method, target, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/_restante/admin/v1", 404),
        (Method::GET, "/_restante/admin/v1/other", 404),
        (Method::POST, "/health", 405),
        (Method::DELETE, "/_restante/admin/v1/things/1", 405),
    ] {
        let (found, body) = ask(door(Vec::new()), method, target, token).await;
        assert_eq!((found, errcode(&body)), (status, json!("M_UNRECOGNIZED")), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_is_named_with_what_to_do() {
    let disk = Disk::default();
    disk.broken.store(1, Ordering::Relaxed);
    let door = door(vec![Arc::new(disk), Arc::new(Stuck)]);
    let (status, body) = ask(door, Method::GET, "/ready", "").await;
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &report["ready"]), (503, &json!(false)));
    assert_eq!(report["not_met"][0]["condition"], "disk");
    assert_eq!(report["not_met"][0]["problem"], "the disk is full");
    assert_eq!(report["not_met"][0]["what_to_do"], "free some space");
    assert_eq!(report["not_met"][1]["condition"], "storage");
}

#[tokio::test(start_paused = true)]
async fn many_looks_cost_one_check_a_second() {
    let disk = Disk::default();
    let readiness = Readiness::of(vec![Arc::new(disk.clone())]);
    for _ in 0..100 {
        assert!(readiness.look().await.ready);
    }
    assert_eq!(disk.checks.load(Ordering::Relaxed), 1);
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    disk.broken.store(1, Ordering::Relaxed);
    assert!(!readiness.look().await.ready);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (_, text) = ask(door(Vec::new()), Method::GET, "/metrics", "").await;
    assert!(text.contains("restante_test_things_total 3\n"), "{text}");
    assert!(text.contains("\nprocess_start_time_seconds 1.5\n"), "{text}");
}

#[test]
fn a_route_that_is_not_documented_is_found_and_so_is_the_reverse() {
    let document = tidy(Document::openapi());
    let same = Routes::<()>::new().get("/things/{id}", thing);
    assert_eq!(undocumented(same.endpoints(), &document), []);
    let other = Endpoint { method: Method::POST, path: "/other".into() };
    let more = same.post("/other", thing);
    assert_eq!(undocumented(more.endpoints(), &document), [other]);
    let thing = Endpoint { method: Method::GET, path: "/things/{id}".into() };
    assert_eq!(undocumented(&[], &document), [thing]);
}
