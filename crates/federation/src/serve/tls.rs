//! TLS as a server: certificate files, read when the listener is bound and again whenever they change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::{ListenerError, TlsFiles};

/// How often the files are read again: two small reads cost nothing, and nobody waits long for a renewed certificate.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate of a listener, for which a renewed one can be read while it serves.
#[derive(Clone)]
pub struct Certificate(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    /// Of what `acceptor` was made from.
    fingerprint: u64,
    /// What was last said to be wrong with the files, so that it is logged once.
    problem: Option<String>,
}

/// What reading the certificate files again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// New connections get what the files hold now; those that are open go on.
    Renewed,
    /// The files hold what is in use.
    Unchanged,
}

impl Certificate {
    pub(super) async fn open(files: TlsFiles) -> Result<Self, String> {
        let text = Text::read(&files).await?;
        let (acceptor, fingerprint) = (text.acceptor(&files)?, text.fingerprint());
        let state = Mutex::new(State { acceptor, fingerprint, problem: None });
        Ok(Self(Arc::new(Shared { files, state })))
    }

    /// Reads the files again. What can't be used, such as a chain whose key is not written yet, changes nothing.
    pub async fn reload(&self) -> Result<Reloaded, ListenerError> {
        self.read_again().await.map_err(ListenerError::Tls)
    }

    async fn read_again(&self) -> Result<Reloaded, String> {
        let files = &self.0.files;
        let text = Text::read(files).await?;
        let fingerprint = text.fingerprint();
        if self.state().fingerprint == fingerprint {
            return Ok(Reloaded::Unchanged);
        }
        let acceptor = text.acceptor(files)?;
        *self.state() = State { acceptor, fingerprint, problem: None };
        tracing::info!(certificate = %files.certificate.display(), "the certificate is renewed");
        Ok(Reloaded::Renewed)
    }

    /// Looks for renewed files for as long as it is polled.
    pub(super) async fn keep_up(&self) {
        loop {
            sleep(CHECK_INTERVAL).await;
            let problem = self.read_again().await.err();
            self.note(problem);
        }
    }

    fn note(&self, problem: Option<String>) {
        let mut state = self.state();
        if let Some(problem) = &problem
            && state.problem.as_ref() != Some(problem)
        {
            tracing::warn!(
                "the certificate files can't be used and the earlier certificate stays; correct them, they are read \
                 again every minute: {problem}"
            );
        }
        state.problem = problem;
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.state().acceptor.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the two files hold.
#[derive(Hash)]
struct Text {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Text {
    async fn read(files: &TlsFiles) -> Result<Self, String> {
        Ok(Self { chain: read(&files.certificate).await?, key: read(&files.key).await? })
    }

    /// Of the content rather than of times: renewal programs switch symbolic links, and copies keep old times.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn acceptor(&self, files: &TlsFiles) -> Result<TlsAcceptor, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{}: {error}", files.certificate.display()))?;
        if chain.is_empty() {
            return Err(format!("{}: it holds no PEM certificate", files.certificate.display()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("{}: {error}", files.key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| {
                let (certificate, key) = (files.certificate.display(), files.key.display());
                format!("{certificate} and {key} don't fit together: {error}")
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(file).await.map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    fn write_certificate(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    async fn a_check_passes(certificate: &Certificate) {
        timeout(CHECK_INTERVAL * 3 / 2, certificate.keep_up()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_noticed_and_what_can_not_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let files = TlsFiles { certificate: file("chain.pem"), key: file("key.pem") };
        write_certificate(&files);
        let certificate = Certificate::open(files.clone()).await.unwrap();
        let first = certificate.state().fingerprint;

        write_certificate(&files);
        let key = fs::read(&files.key).unwrap();
        fs::write(&files.key, "half").unwrap();
        a_check_passes(&certificate).await;
        assert_eq!(certificate.state().fingerprint, first);
        let problem = certificate.state().problem.clone().unwrap();
        assert!(problem.contains("key.pem"), "{problem}");

        fs::write(&files.key, key).unwrap();
        a_check_passes(&certificate).await;
        assert_ne!(certificate.state().fingerprint, first);
        assert_eq!(certificate.state().problem, None);
    }
}
