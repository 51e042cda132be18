//! Writes a Synapse's configuration, log configuration and signing key.

use restante_federation_proto::SigningKey;
use serde_json::{Value, json};

use super::HomeserverPlan;
use crate::ports::Port;

/// The configuration, in the homeserver's folder.
pub(super) const FILE: &str = "homeserver.yaml";

/// The signing key, in the homeserver's folder.
pub(super) const SIGNING_KEY_FILE: &str = "homeserver.signing.key";

/// The database, in the homeserver's folder.
pub(super) const DATABASE_FILE: &str = "homeserver.db";

const LOG_CONFIG_FILE: &str = "log.yaml";

/// Overrides the level of the homeservers' logs.
const LOG_LEVEL_VARIABLE: &str = "RESTANTE_HOMESERVER_LOG";

pub(super) fn write(
    plan: &HomeserverPlan,
    key: &SigningKey,
    port: &Port,
    registration_secret: &str,
) {
    let mut config = ordinary(plan, port, registration_secret);
    let additions = match &plan.outbound {
        Some(hook) => json!({
            "worker_replication_secret": hook.secret,
            "instance_map": { "agent": { "host": "127.0.0.1", "port": hook.port } },
            "outbound_federation_restricted_to": ["agent"],
        }),
        // Nobody: without a node it would ask the machine's resolver for names.
        None => json!({ "federation_domain_whitelist": [] }),
    };
    if let (Value::Object(config), Value::Object(additions)) = (&mut config, additions) {
        config.extend(additions);
    }
    // JSON is YAML.
    write_file(plan, FILE, &config.to_string());
    write_file(plan, LOG_CONFIG_FILE, &log_config().to_string());
    write_file(plan, SIGNING_KEY_FILE, &key.to_file_text());
}

/// What an operator has in it, but for generous client limits: tests type faster than people. What
/// concerns federation is left at the defaults, with which the product must cope.
fn ordinary(plan: &HomeserverPlan, port: &Port, registration_secret: &str) -> Value {
    let unlimited = json!({ "per_second": 10_000, "burst_count": 10_000 });
    json!({
        "server_name": plan.server_name,
        "public_baseurl": port.url(),
        "listeners": [{
            "type": "http",
            "bind_addresses": ["127.0.0.1"],
            "port": port.number(),
            "tls": false,
            "x_forwarded": true,
            "resources": [{ "names": ["client", "federation"], "compress": false }],
        }],
        "database": { "name": "sqlite3", "args": { "database": plan.directory.join(DATABASE_FILE) } },
        "media_store_path": plan.directory.join("media"),
        "signing_key_path": plan.directory.join(SIGNING_KEY_FILE),
        "log_config": plan.directory.join(LOG_CONFIG_FILE),
        "registration_shared_secret": registration_secret,
        "macaroon_secret_key": "macaroons",
        "form_secret": "forms",
        "bcrypt_rounds": 4,
        "report_stats": false,
        "trusted_key_servers": [],
        "ip_range_whitelist": ["127.0.0.0/8"],
        "presence": { "enabled": true },
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_room_creation": unlimited,
        "rc_login": { "address": unlimited, "account": unlimited, "failed_attempts": unlimited },
        "rc_joins": { "local": unlimited, "remote": unlimited },
        "rc_joins_per_room": unlimited,
        "rc_invites": { "per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited },
    })
}

fn log_config() -> Value {
    let level = std::env::var(LOG_LEVEL_VARIABLE).unwrap_or_else(|_| "INFO".to_owned());
    json!({
        "version": 1,
        "formatters": { "plain": {
            "format": "%(asctime)s %(name)s:%(lineno)d %(levelname)s %(request)s %(message)s",
        } },
        "handlers": { "console": { "class": "logging.StreamHandler", "formatter": "plain" } },
        "root": { "level": level, "handlers": ["console"] },
        "disable_existing_loggers": false,
    })
}

fn write_file(plan: &HomeserverPlan, name: &str, text: &str) {
    std::fs::write(plan.directory.join(name), text).expect("the test's folder is writable");
}
