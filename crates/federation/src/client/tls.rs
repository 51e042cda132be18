//! TLS as a client: who is trusted, and one crypto provider, named here.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Trusts the system's certificate authorities and those in `extra_ca_files`.
pub(crate) fn client_config(
    extra_ca_files: &[impl AsRef<Path>],
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a certificate authority of the system can't be read");
    }
    roots.add_parsable_certificates(native.certs);
    for file in extra_ca_files {
        add_file(&mut roots, file.as_ref())?;
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authorities are known; no HTTPS server can be reached");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let refused = |reason: String| {
        format!("cannot use the certificate authority file {}: {reason}", file.display())
    };
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?;
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(refused("it holds no PEM certificate".into()));
    }
    Ok(())
}
