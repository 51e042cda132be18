//! A relay behind the very files of contrib/nginx and contrib/caddy: what `restante doctor` tries from outside gets
//! through, and what a proxy commonly breaks is found.

mod front;
mod relay;

use front::{Front, Kind};
use relay::FrontedRelay;

/// What proxies break, as `restante doctor relay` names it.
const STEPS: [&str; 8] = [
    "tls",
    "GET with a body",
    "percent-encoded path",
    "deposit",
    "large deposit",
    "collect",
    "acknowledge",
    "long poll",
];

async fn everything_gets_through(kind: Kind) {
    let relay = FrontedRelay::start(kind).await;
    let report = relay.examine(&["--long-poll"]).await;
    for step in STEPS {
        assert_eq!(report.verdict(step), "ok", "{step}: {report:#?}");
    }
    assert!(report.healthy(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_relay_needs_gets_through_nginx_and_caddy_as_contrib_configures_them() {
    // At once, since each waits for a long poll.
    tokio::join!(everything_gets_through(Kind::Nginx), everything_gets_through(Kind::Caddy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_learns_who_called_and_not_what_the_caller_wrote() {
    for kind in [Kind::Nginx, Kind::Caddy] {
        let front = Front::before_a_recorder(kind).await;
        let seen = front.forwarded_for("203.0.113.9").await;
        assert_eq!(seen, ["127.0.0.1"], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_a_proxy_that_decodes_paths_and_one_that_takes_only_small_bodies() {
    let decoding = FrontedRelay::start_changed(
        Kind::Nginx,
        &[("proxy_pass http://restante;", "proxy_pass http://restante/_matrix/;")],
    );
    let narrow = FrontedRelay::start_changed(
        Kind::Nginx,
        &[("client_max_body_size 17m;", "client_max_body_size 1m;")],
    );
    let (decoding, narrow) = tokio::join!(decoding, narrow);
    let (decoding, narrow) = tokio::join!(decoding.examine(&[]), narrow.examine(&[]));
    assert_eq!(decoding.verdict("GET with a body"), "ok", "{decoding:#?}");
    assert_eq!(decoding.verdict("percent-encoded path"), "failed", "{decoding:#?}");
    assert!(decoding.advice("percent-encoded path").contains("contrib/nginx"), "{decoding:#?}");
    assert_eq!(narrow.verdict("deposit"), "ok", "{narrow:#?}");
    assert_eq!(narrow.verdict("large deposit"), "failed", "{narrow:#?}");
    assert!(narrow.advice("large deposit").contains("client_max_body_size"), "{narrow:#?}");
    assert!(!decoding.healthy() && !narrow.healthy());
}
