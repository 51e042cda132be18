//! ac: an app of the homeserver's administrator sets relays with a Matrix access token; others' tokens open nothing.

use http::Method;
use restante_testkit::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrators_app_sets_relays_and_others_apps_can_not() {
    let mut world = World::with_sites(&["a.test"]);
    let a = world.start_site("a.test", "alice").await;
    let administrator = a.homeserver.administrator("root").await;
    let ask =
        async |method, path: &str, token: &str| a.node.ask_with_token(method, path, token).await;

    let path = "/relays/b.test/relay.test";
    for (token, status) in [("nobody's", 401), (a.client.access_token(), 403)] {
        let (refused, answer) = ask(Method::PUT, path, token).await;
        assert_eq!(refused, status, "{answer}");
    }
    let token = administrator.access_token();
    assert_eq!(ask(Method::PUT, path, token).await.0, 200);
    let (_, relays) = ask(Method::GET, "/relays?server=b.test", token).await;
    assert_eq!(relays[0]["server_name"], "relay.test");
    assert_eq!(ask(Method::GET, "/status", token).await.0, 401, "it opens the relays alone");
    assert_eq!(ask(Method::DELETE, path, token).await.0, 200);
    assert_eq!(a.node.relays_of("b.test").await, Vec::<serde_json::Value>::new());
}
