use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use serde_json::json;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::super::entry::tests::{TTL, entry, identity, wanted};
use super::*;

/// A server of its own on a unix socket; it ends with the test.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { child: spawn(folder.path()), folder };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.folder.path().join("s")).is_err() {
            assert!(Instant::now() < deadline, "the server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn tier(&self, deadline: &str, pause: &str) -> (Arc<Shared>, Arc<Metrics>) {
        let url = format!("unix:{}", self.folder.path().join("s").display());
        let config = json!({ "url": url, "deadline": deadline, "pause": pause, "lease": { "time": "600ms", "wait": "5s" } });
        let metrics = Arc::new(Metrics::new().unwrap());
        let config: SharedConfig = serde_json::from_value(config).unwrap();
        (Arc::new(Shared::new(&config, Arc::clone(&metrics)).unwrap()), metrics)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Speaks TLS on a port of its own in front of the server, with a certificate that the file is the authority of.
async fn encrypted(server: &Server) -> (SocketAddr, std::path::PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = server.folder.path().join("ca.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let (acceptor, socket) = (TlsAcceptor::from(Arc::new(config)), server.folder.path().join("s"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut far = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
        }
    });
    (address, file)
}

fn spawn(folder: &Path) -> Child {
    let socket = folder.join("s");
    let arguments = ["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"];
    let mut last = None;
    for program in ["valkey-server", "redis-server"] {
        let mut command = Command::new(program);
        command.args(arguments).arg(&socket).arg("--dir").arg(folder);
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => return child,
            Err(error) => last = Some(error),
        }
    }
    panic!("neither valkey-server nor redis-server (.ci/prepare test installs one): {last:?}");
}

fn fresh(prompt: &str) -> Arc<Entry> {
    let now = SystemTime::now();
    Arc::new(Entry { created: now, expires: now + TTL, ..entry(prompt, "x") })
}

fn now(identity: &crate::generation::Identity) -> Wanted<'_> {
    Wanted { now: SystemTime::now(), ..wanted(identity) }
}

#[tokio::test]
async fn what_one_instance_keeps_another_finds_until_it_expires_or_is_purged() {
    let server = Server::start();
    let ((one, _), (other, _)) = (server.tier("1s", "1s"), server.tier("1s", "1s"));
    let identity = identity("p");
    assert!(other.get(&now(&identity)).await.is_none());
    one.put(&fresh("p")).await;
    assert_eq!(other.get(&now(&identity)).await.unwrap().events, entry("p", "x").events);
    let of = |model: &str| Which { model: Some(model.to_owned()), ..Which::default() };
    assert_eq!(other.purge(&of("*")).await, 0, "a name is no pattern");
    assert_eq!(other.purge(&of("m")).await, 1);
    assert!(one.get(&now(&identity)).await.is_none());
    one.put(&Arc::new(entry("p", "of 1970"))).await;
    assert!(one.get(&now(&identity)).await.is_none());
}

#[tokio::test]
async fn a_server_is_asked_over_tls_if_its_certificate_is_trusted() {
    let server = Server::start();
    let (address, file) = encrypted(&server).await;
    let metrics = Arc::new(Metrics::new().unwrap());
    let tier = |ca: Option<&Path>| {
        let config = json!({ "url": format!("rediss://{address}"), "ca": ca, "deadline": "1s" });
        let config: SharedConfig = serde_json::from_value(config).unwrap();
        Shared::new(&config, Arc::clone(&metrics)).unwrap()
    };
    let identity = identity("p");
    let trusting = tier(Some(&file));
    trusting.put(&fresh("p")).await;
    assert!(trusting.get(&now(&identity)).await.is_some());
    assert!(tier(None).get(&now(&identity)).await.is_none(), "the system knows nothing of it");
}

#[tokio::test]
async fn what_another_program_wrote_there_is_no_answer() {
    let server = Server::start();
    let (tier, metrics) = server.tier("1s", "1s");
    let identity = identity("p");
    let name = name("t", "m", &identity.key().to_string());
    let _: () = tier.ask(cmd("SET").arg(name).arg("nonsense")).await.unwrap();
    assert!(tier.get(&now(&identity)).await.is_none());
    assert_eq!(metrics.cache_requests.with_label_values(&["shared", "damaged"]).get(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_deadline_once() {
    let server = Server::start();
    let (tier, metrics) = server.tier("200ms", "10m");
    tier.put(&fresh("p")).await;
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    let (from, identity) = (Instant::now(), identity("p"));
    for _ in 0..100 {
        assert!(tier.get(&now(&identity)).await.is_none());
    }
    assert!(matches!(tier.turn(&now(&identity)).await, Turn::Free));
    let took = from.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(900), "{took:?}");
    assert_eq!(metrics.cache_requests.with_label_values(&["shared", "failed"]).get(), 1);
    server.signal(nix::sys::signal::Signal::SIGCONT);
}

#[tokio::test]
async fn a_server_that_was_gone_is_used_again() {
    let mut server = Server::start();
    let (tier, _) = server.tier("1s", "10ms");
    tier.put(&fresh("p")).await;
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let identity = identity("p");
    assert!(tier.get(&now(&identity)).await.is_none());
    server.child = spawn(server.folder.path());
    let deadline = Instant::now() + Duration::from_secs(20);
    while tier.get(&now(&identity)).await.is_none() {
        assert!(Instant::now() < deadline, "it is not used again");
        tier.tend().await;
        tier.put(&fresh("p")).await;
    }
}

#[tokio::test]
async fn of_two_instances_one_computes_and_the_other_gets_its_answer() {
    let server = Server::start();
    let ((one, _), (other, _)) = (server.tier("1s", "1s"), server.tier("1s", "1s"));
    let identity = identity("p");
    let Turn::Ours(lease) = one.turn(&now(&identity)).await else { panic!("nobody else has it") };
    let waiting = tokio::spawn({
        let (other, identity) = (Arc::clone(&other), identity.clone());
        async move { other.turn(&now(&identity)).await }
    });
    // Longer than the lease's time, so it is prolonged.
    let keeping = tokio::time::timeout(Duration::from_millis(1500), lease.keep());
    assert!(keeping.await.is_err() && !waiting.is_finished());
    one.put(&fresh("p")).await;
    drop(lease);
    assert!(matches!(waiting.await.unwrap(), Turn::Answered(_)));
    assert!(matches!(other.turn(&now(&identity)).await, Turn::Answered(_)));
}

#[tokio::test]
async fn an_instance_that_died_or_kept_nothing_is_not_waited_for() {
    let server = Server::start();
    let ((one, _), (other, _)) = (server.tier("1s", "1s"), server.tier("1s", "1s"));
    let identity = identity("p");
    let Turn::Ours(lost) = one.turn(&now(&identity)).await else { panic!("nobody else has it") };
    // As if its process were killed: nobody says that it is given up.
    let (name, mark) = (lost.name.clone(), lost.mark);
    std::mem::forget(lost);
    let from = Instant::now();
    let Turn::Ours(lease) = other.turn(&now(&identity)).await else { panic!("the lease has run out") };
    assert!(from.elapsed() < Duration::from_secs(4));
    // Who had it before gives back only its own.
    drop(Lease { shared: Arc::clone(&one), name: name.clone(), mark });
    one.settle().await;
    let mut ask = cmd("GET");
    let held: Option<u64> = one.ask(ask.arg(name)).await.unwrap();
    assert_eq!(held, Some(lease.mark));
    // And who leaves in the middle lets the next one in at once.
    drop(lease);
    other.settle().await;
    let held: Option<u64> = one.ask(&ask).await.unwrap();
    assert_eq!(held, None);
}
