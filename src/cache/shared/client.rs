//! The way to the server: where it is, who this is to it, and by whose word it is the right one.

use redis::{Client, IntoConnectionInfo as _, TlsCertificates};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cache::SharedConfig;

/// What cannot be used, by its key in `cache`.
pub type ClientFault = (&'static str, String);

const URL: &str = "responses.shared.url";
const CA: &str = "responses.shared.ca";

/// What there is a TLS for.
const ENCRYPTED: [&str; 2] = ["rediss://", "valkeys://"];
const PLAIN: [&str; 3] = ["redis://", "valkey://", "unix:"];

/// The client of a server, which is not connected yet. Reads the file of `ca`.
pub fn client(config: &SharedConfig) -> Result<Client, ClientFault> {
    let is_one_of = |schemes: &[&str]| schemes.iter().any(|scheme| config.url.starts_with(scheme));
    if config.url.contains('@') {
        return Err((URL, "must not have a password in it: there are user and password".to_owned()));
    }
    let wrong = || (URL, "must be redis://HOST:PORT, rediss://HOST:PORT or unix:/PATH".to_owned());
    // What is behind a # is to switch the verification off.
    if !(is_one_of(&PLAIN) || is_one_of(&ENCRYPTED)) || config.url.contains('#') {
        return Err(wrong());
    }
    let info = config.url.as_str().into_connection_info().map_err(|_| wrong())?;
    let mut login = info.redis_settings().clone();
    if let Some(user) = &config.user {
        login = login.set_username(user);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.reveal());
    }
    let info = info.set_redis_settings(login);
    let Some(path) = &config.ca else { return Client::open(info).map_err(|_| wrong()) };
    if !is_one_of(&ENCRYPTED) {
        return Err((CA, "is for rediss, and the url is not".to_owned()));
    }
    let pem =
        std::fs::read(path).map_err(|error| (CA, format!("{} cannot be read: {error}", path.display())))?;
    let not_a = || (CA, "expected a PEM file with a certificate".to_owned());
    // Of a file without any it would be said that nobody is trusted.
    CertificateDer::pem_slice_iter(&pem).next().ok_or_else(not_a)?.map_err(|_| not_a())?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Client::build_with_tls(info, certificates).map_err(|_| not_a())
}
