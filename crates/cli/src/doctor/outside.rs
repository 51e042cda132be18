//! Steps from outside in: from a name to addresses, to a connection, to TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use restante_federation::FederationClient;
use restante_federation_proto::{Clock as _, SystemClock};
use rustls_pki_types::ServerName as TlsName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::certificate;
use super::report::{Outcome, Report};

/// A name server that takes longer is as good as none for those who want to reach this server.
const DNS_PATIENCE: Duration = Duration::from_secs(10);

/// The limit within which nodes connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Where others connect.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whom the certificate must name; none for plain HTTP.
    pub(super) certificate_of: Option<String>,
}

/// Takes the steps to `place`; `false` when nobody gets through.
pub(super) async fn reach(report: &mut Report, client: &FederationClient, place: &Place) -> bool {
    let bare = place.host.trim_start_matches('[').trim_end_matches(']');
    let is_address = bare.parse::<IpAddr>().is_ok();
    let found = timeout(DNS_PATIENCE, client.addresses(&place.host)).await;
    let addresses = match found.unwrap_or_else(|_| Err("DNS did not answer in time".to_owned())) {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return dns_failed(report, &place.host, "it has no address"),
        Err(reason) => return dns_failed(report, &place.host, &reason),
    };
    let dns = if is_address || bare == "localhost" {
        Outcome::skipped(format!("{bare} needs no name server"))
    } else {
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Outcome::ok(format!("{bare} is at {}", shown.join(", ")))
    };
    report.step("dns", dns);
    let Some(stream) = connect(report, &addresses, place.port).await else { return false };
    match &place.certificate_of {
        Some(name) => tls(report, client, stream, name).await,
        None => {
            plain(report, &addresses);
            true
        }
    }
}

fn dns_failed(report: &mut Report, host: &str, reason: &str) -> bool {
    let what_to_do = format!("add an A or AAAA record for {host}, and see it with: dig {host}");
    report.step("dns", Outcome::failed(format!("{host}: {reason}"), what_to_do));
    false
}

/// Every address is tried, as others may only reach one of them.
async fn connect(report: &mut Report, addresses: &[IpAddr], port: u16) -> Option<TcpStream> {
    let (mut connected, mut closed) = (None, Vec::new());
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => connected = connected.or(Some(stream)),
            Ok(Err(error)) => closed.push(format!("{address}: {error}")),
            Err(_) => {
                closed.push(format!("{address}: no answer in {} s", CONNECT_PATIENCE.as_secs()))
            }
        }
    }
    // `localhost` has two addresses, and few programs listen on both.
    let is_here = addresses.iter().all(IpAddr::is_loopback);
    let outcome = match &connected {
        Some(stream) if closed.is_empty() || is_here => Outcome::ok(connected_to(stream)),
        Some(_) => Outcome::warn(
            format!("only some addresses take connections; {}", closed.join("; ")),
            "listen there as well, or take the address out of the DNS",
        ),
        None => Outcome::failed(
            closed.join("; "),
            "start what listens there (reverse proxy or relay), open the port in the firewall, and forward it to this machine",
        ),
    };
    report.step("tcp", outcome);
    connected
}

fn connected_to(stream: &TcpStream) -> String {
    stream.peer_addr().map_or_else(|_| "connected".to_owned(), |at| format!("connected to {at}"))
}

async fn tls(
    report: &mut Report,
    client: &FederationClient,
    stream: TcpStream,
    name: &str,
) -> bool {
    let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let Ok(name) = TlsName::try_from(host.clone()) else {
        let what_to_do = "use a DNS name or an address";
        report.step("tls", Outcome::failed(format!("{host} can be in no certificate"), what_to_do));
        return false;
    };
    let connector = TlsConnector::from(Arc::clone(&client.tls()));
    let connected = timeout(CONNECT_PATIENCE, connector.connect(name, stream)).await;
    let outcome = match connected {
        Err(_) => Outcome::failed(
            "no TLS handshake in time",
            "see that the port speaks TLS, and is not plain HTTP",
        ),
        Ok(Err(error)) => Outcome::failed(error.to_string(), advice(&error.to_string(), &host)),
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            let leaf = session.peer_certificates().and_then(|chain| chain.first());
            leaf.map_or_else(
                || Outcome::warn("no certificate was shown", "see the server's configuration"),
                |leaf| certificate::outcome(leaf, SystemClock.now()),
            )
        }
    };
    let is_good = !outcome.is_failed();
    report.step("tls", outcome);
    is_good
}

/// What rustls says is exact; what to do about it is ours.
fn advice(error: &str, host: &str) -> String {
    let error = error.to_ascii_lowercase();
    if error.contains("expired") {
        return "renew the certificate, and have the proxy or relay read it again".to_owned();
    }
    if error.contains("unknownissuer") || error.contains("unknown issuer") {
        return "serve the whole chain with the certificate (fullchain.pem), from an authority that others trust; for one of your own, name it in federation.extra_ca_files on both sides".to_owned();
    }
    if error.contains("not valid for name") || error.contains("notvalidforname") {
        return format!("get a certificate that names {host}");
    }
    "see that the port speaks TLS, and is not plain HTTP".to_owned()
}

fn plain(report: &mut Report, addresses: &[IpAddr]) {
    let outcome = if addresses.iter().all(IpAddr::is_loopback) {
        Outcome::skipped("plain HTTP on loopback")
    } else {
        Outcome::warn(
            "plain HTTP: whoever is on the way reads all mail, and learns who writes to whom",
            "put TLS in front, with [tls] or a reverse proxy, and give an https URL",
        )
    };
    report.step("tls", outcome);
}
