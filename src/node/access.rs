//! [`Access`]: what it takes to be let in by a node, and how long to wait for it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::NodeTls;
use crate::units::Secret;

/// What it takes to be let in by a node, and how long to wait for it. The default is that of workers: their sockets are on this
/// machine, and the supervisor knows when they are stuck.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// For `https`.
    pub tls: Option<Arc<Tls>>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Whether it goes on with an assistant's turn that it is given.
    pub prefill: bool,
}

/// How long to wait for a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// From one piece of the answer to the next.
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    /// A worker's socket is on this machine: connecting takes microseconds or does not work.
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), first_byte: None, idle: None }
    }
}

/// Whom to trust, and who this is, in Pingora's form.
pub struct Tls {
    /// In place of the system's.
    pub ca: Option<Arc<CaType>>,
    /// The client's certificate and key.
    pub identity: Option<Arc<CertKey>>,
    /// The name to ask for and to verify, in place of the URL's.
    pub server_name: Option<String>,
    /// Whether the certificate is verified at all.
    pub verify: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).field("verify", &self.verify).finish()
    }
}

/// A file that TLS cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TlsFault {
    /// Which of the entry's keys names it, such as `tls.ca`.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Tls {
    /// Reads the files that `config` names. Pingora panics at what it cannot parse, so all of it is parsed here before.
    pub fn load(config: &NodeTls) -> Result<Self, TlsFault> {
        let ca = config.ca.as_deref().map(|path| certificates("tls.ca", path)).transpose()?;
        let identity = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some(identity(cert, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(TlsFault { key: "tls.key", message: "required with cert".into() }),
            (None, Some(_)) => return Err(TlsFault { key: "tls.cert", message: "required with key".into() }),
        };
        let parsed = |ca: Vec<Vec<u8>>| {
            let parse = |der| parse(der).ok_or_else(|| not_a("tls.ca", "certificate"));
            ca.into_iter().map(parse).collect::<Result<Arc<CaType>, _>>()
        };
        Ok(Self {
            ca: ca.map(parsed).transpose()?,
            identity: identity.map(Arc::new),
            server_name: config.server_name.clone(),
            verify: config.verify,
        })
    }
}

fn identity(cert: &Path, key: &Path) -> Result<CertKey, TlsFault> {
    let certificates = certificates("tls.cert", cert)?;
    if certificates.iter().any(|der| parse(der.clone()).is_none()) {
        return Err(not_a("tls.cert", "certificate"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(&read("tls.key", key)?).map_err(|_| not_a("tls.key", "private key"))?;
    Ok(CertKey::new(certificates, key.secret_der().to_vec()))
}

/// The certificates in a PEM file, at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<Vec<u8>>, TlsFault> {
    let pem = read(key, path)?;
    let found = CertificateDer::pem_slice_iter(&pem).map(|der| der.map(|der| der.as_ref().to_vec()));
    match found.collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(not_a(key, "certificate")),
    }
}

fn parse(der: Vec<u8>) -> Option<WrappedX509> {
    // Twice, because the parsed form borrows what Pingora wants to own.
    X509Certificate::from_der(&der).ok()?;
    Some(WrappedX509::new(der, pingora::utils::tls::parse_x509))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path)
        .map_err(|error| TlsFault { key, message: format!("{} cannot be read: {error}", path.display()) })
}

fn not_a(key: &'static str, what: &str) -> TlsFault {
    TlsFault { key, message: format!("expected a PEM file with a {what}") }
}
