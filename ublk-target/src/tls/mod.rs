//! TLS for connections from other machines.
//!
//! [`server`] makes the configuration: TLS 1.2 and 1.3, a certificate of our own, and
//! **clients without a certificate that the given authority signed are turned away**.
//! [`Pump`] carries one connection: it speaks TLS to the client and plain bytes to one
//! end of a pair of sockets, whose other end is served like any local connection.

mod pump;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

pub use pump::{Pump, PumpError};

/// Where certificates and keys are, as PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// Our certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose clients are let in.
    pub authority: PathBuf,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot use {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate.
    #[error("{0} has no certificate")]
    Empty(PathBuf),
    /// The client authorities cannot be used.
    #[error("no client could be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// What is in the files does not fit.
    #[error("the certificate and the key cannot be used: {0}")]
    Config(#[from] rustls::Error),
}

/// The configuration of the server.
///
/// # Errors
/// When a file cannot be used.
pub fn server(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.authority)? {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(at(&files.key))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key)?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(at(path))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(at(path))?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(found)
}

fn at(path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> TlsError {
    let path = path.to_owned();
    move |error| TlsError::File { path, error }
}
