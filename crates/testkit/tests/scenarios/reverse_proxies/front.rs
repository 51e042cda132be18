//! nginx and Caddy with the files of contrib, on loopback, in a folder of the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use restante_testkit::{HttpServer, Port, Process, Program, eventually};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::relay::ask_claiming;

/// Both start in well under a second on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Caddy,
}

/// A proxy that runs.
pub(super) struct Front {
    _process: Process,
    pub(super) port: Port,
    /// The authority that its certificate comes from.
    pub(super) authority: PathBuf,
    /// What stands behind it, if the test itself does, and what that saw.
    recorder: Option<(HttpServer, Arc<Mutex<Vec<String>>>)>,
    _folder: TempDir,
}

impl Front {
    /// A proxy in front of `upstream` (`127.0.0.1:PORT`), with `changes` to the file of contrib.
    pub(super) async fn before(kind: Kind, upstream: &str, changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let port = Port::reserve();
        let authority = write_certificates(folder.path());
        let program = match kind {
            Kind::Nginx => nginx(folder.path(), &port, upstream, changes),
            Kind::Caddy => caddy(folder.path(), &port, upstream, changes),
        };
        let mut process = Process::start(program);
        process
            .until_ready(READY_DEADLINE, async || TcpStream::connect(port.address()).await.ok())
            .await;
        Self { _process: process, port, authority, recorder: None, _folder: folder }
    }

    /// A proxy in front of a server that remembers each `X-Forwarded-For`.
    pub(super) async fn before_a_recorder(kind: Kind) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let notes = seen.clone();
        let server = HttpServer::start(move |request: Request<Bytes>| {
            let lines = request.headers().get_all("x-forwarded-for").iter();
            let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
            notes.lock().expect("nobody panics with it").extend(lines);
            Box::pin(async { Response::new(Full::new(Bytes::from_static(b"{}"))) })
        })
        .await;
        let upstream = server.url().trim_start_matches("http://").to_owned();
        let front = Self::before(kind, &upstream, &[]).await;
        Self { recorder: Some((server, seen)), ..front }
    }

    /// What the server behind is told of a caller that claims to be `claimed`.
    pub(super) async fn forwarded_for(&self, claimed: &str) -> Vec<String> {
        let (_, seen) = self.recorder.as_ref().expect("a recorder stands behind it");
        let url = format!("https://{}/_matrix/federation/v1/version", self.port.address());
        eventually("the recorder is asked", READY_DEADLINE, async || {
            let answer = ask_claiming(&url, &self.authority, claimed);
            answer.await;
            let seen = seen.lock().expect("nobody panics with it").clone();
            (!seen.is_empty()).then_some(seen)
        })
        .await
    }
}

/// A certificate for loopback, and the authority that others have to trust for it.
fn write_certificates(folder: &Path) -> PathBuf {
    let authority_key = rcgen::KeyPair::generate().expect("a key can be made");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are valid");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&authority_key).expect("it signs itself");
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .expect("an address is a valid name");
    let leaf = parameters.signed_by(&key, &issuer).expect("the authority signs it");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the test's folder is writable");
        path
    };
    write("chain.pem", leaf.pem());
    write("key.pem", key.serialize_pem());
    write("authority.pem", certificate.pem())
}

/// Replaces each text once; a file of contrib that has changed shows itself here.
fn substituted(file: &str, changes: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("contrib").join(file);
    let mut text = std::fs::read_to_string(&path).expect("contrib is part of the project");
    for (from, to) in changes {
        assert!(text.contains(from), "{} has no {from:?}", path.display());
        text = text.replacen(from, to, 1);
    }
    text
}

fn nginx(folder: &Path, port: &Port, upstream: &str, changes: &[(&str, &str)]) -> Program {
    let at = |name: &str| folder.join(name).display().to_string();
    let listen = format!("listen {} ssl;", port.address());
    let (chain, key) = (at("chain.pem"), at("key.pem"));
    let site = substituted(
        "nginx/restante.conf",
        &[
            &[
                ("server 127.0.0.1:8090;", format!("server {upstream};").as_str()),
                ("listen 443 ssl;", listen.as_str()),
                ("listen [::]:443 ssl;", ""),
                ("listen 8448 ssl;", ""),
                ("listen [::]:8448 ssl;", ""),
                ("/etc/letsencrypt/live/relay.example/fullchain.pem", chain.as_str()),
                ("/etc/letsencrypt/live/relay.example/privkey.pem", key.as_str()),
            ],
            changes,
        ]
        .concat(),
    );
    std::fs::write(folder.join("restante.conf"), site).expect("the test's folder is writable");
    // Everything that nginx writes of itself stays in the folder; started by root, its workers stay root to reach it.
    let user = if is_root() { "user root;\n" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .concat();
    let main = format!(
        "{user}daemon off;\nworker_processes 1;\npid {};\nerror_log {};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}include {};\n}}\n",
        at("nginx.pid"),
        at("error.log"),
        at("restante.conf")
    );
    std::fs::write(folder.join("nginx.conf"), main).expect("the test's folder is writable");
    let arguments =
        ["-p", &at(""), "-c", &at("nginx.conf"), "-e", &at("error.log")].map(Into::into);
    program("nginx", folder, arguments.to_vec())
}

fn caddy(folder: &Path, port: &Port, upstream: &str, changes: &[(&str, &str)]) -> Program {
    let at = |name: &str| folder.join(name).display().to_string();
    let site =
        format!("https://{} {{\n\ttls {} {}", port.address(), at("chain.pem"), at("key.pem"));
    let text = substituted(
        "caddy/Caddyfile",
        &[
            &[
                ("relay.example, relay.example:8448 {", site.as_str()),
                ("127.0.0.1:8090 {", format!("{upstream} {{").as_str()),
            ],
            changes,
        ]
        .concat(),
    );
    // No door for administration, no port 80, no certificates of its own.
    let file = format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}");
    std::fs::write(folder.join("Caddyfile"), file).expect("the test's folder is writable");
    // What Caddy keeps of its own stays in the folder as well.
    let homes =
        ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].map(|name| format!("{name}={}", at("")));
    let run =
        ["caddy", "run", "--adapter", "caddyfile", "--config", &at("Caddyfile")].map(str::to_owned);
    let arguments = homes.into_iter().chain(run).map(Into::into).collect();
    Program { executable: "env".into(), ..program("caddy", folder, arguments) }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is part of every system");
    id.stdout.trim_ascii() == b"0"
}

fn program(name: &str, folder: &Path, arguments: Vec<std::ffi::OsString>) -> Program {
    let is_there = Command::new(name).arg(if name == "nginx" { "-v" } else { "version" }).output();
    assert!(
        is_there.is_ok(),
        "{name} is not installed; on Debian: apt-get install --no-install-recommends nginx caddy"
    );
    Program {
        name: name.to_owned(),
        executable: name.into(),
        arguments,
        directory: folder.to_owned(),
        log: folder.join(format!("{name}.log")),
    }
}
