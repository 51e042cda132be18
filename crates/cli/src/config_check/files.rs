//! Files and folders that a configuration names: there, readable, and what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use restante_federation::config::TlsSection;
use restante_federation_proto::SigningKey;
use restante_mailbox::Keys;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::finding::Remark;

/// What each certificate file of the section `section` lacks.
pub(super) fn tls(section: &str, tls: Option<&TlsSection>) -> Vec<Remark> {
    let Some(tls) = tls else { return Vec::new() };
    let mut remarks = Vec::new();
    remarks.extend(certificates(&format!("{section}.certificate"), &tls.certificate));
    let key = format!("{section}.key");
    remarks.extend(read(&key, &tls.key).err());
    if remarks.is_empty() && PrivateKeyDer::from_pem_file(&tls.key).is_err() {
        let text = format!("{} holds no private key in PEM", tls.key.display());
        remarks.push(Remark::wrong(key, text));
    }
    remarks
}

/// What a file with certificates lacks.
pub(super) fn certificates(key: &str, file: &Path) -> Option<Remark> {
    if let Err(remark) = read(key, file) {
        return Some(remark);
    }
    let mut found = CertificateDer::pem_file_iter(file).ok()?;
    let is_good =
        found.next().is_some_and(|first| first.is_ok()) && found.all(|other| other.is_ok());
    let text = || format!("{} holds no certificates in PEM, or a broken one", file.display());
    (!is_good).then(|| Remark::wrong(key, text()))
}

/// What a signing key file lacks.
pub(super) fn signing_key(key: &str, file: &Path) -> Vec<Remark> {
    let text = match read(key, file) {
        Ok(text) => text,
        Err(remark) => return vec![remark],
    };
    if SigningKey::from_file_text(&text).is_err() {
        let text = format!(
            "{} is no signing key; expected one line: ed25519 VERSION SEED",
            file.display()
        );
        return vec![Remark::wrong(key, text)];
    }
    private(key, file).into_iter().collect()
}

/// A secret that others can read.
pub(super) fn private(key: &str, file: &Path) -> Option<Remark> {
    let mode = fs::metadata(file).ok()?.permissions().mode() & 0o777;
    let text = || {
        format!(
            "everybody on this machine can read {} (mode {mode:03o}); chmod o-rwx it",
            file.display()
        )
    };
    (mode & 0o007 != 0).then(|| Remark::odd(key, text()))
}

/// The data folder, or the first folder above it that is there.
pub(super) fn data_folder(key: &str, folder: &Path) -> Option<Remark> {
    if folder.exists() && !folder.is_dir() {
        return Some(Remark::wrong(key, format!("{} is no folder", folder.display())));
    }
    None
}

fn read(key: &str, file: &Path) -> Result<String, Remark> {
    fs::read_to_string(file)
        .map_err(|error| Remark::wrong(key, format!("cannot read {}: {error}", file.display())))
}

/// What a file with keys for mail at rest lacks.
pub(super) fn at_rest_keys(key: &str, file: &Path) -> Option<Remark> {
    Keys::read(file).err().map(|error| Remark::wrong(key, error.to_string()))
}
