//! Exchanges with scripted servers over TCP and TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::generation::{Done, Generation};
use crate::node::NodeConfig;

/// A server that says the same to everybody.
struct Far {
    address: SocketAddr,
    /// The requests that came.
    asked: UnboundedReceiver<String>,
}

/// What a server does.
#[derive(Clone)]
struct Script {
    /// What it says, then it closes.
    answer: Vec<u8>,
    /// It stays silent instead of closing.
    hangs: bool,
    tls: Option<TlsAcceptor>,
}

impl Script {
    fn says(answer: impl Into<Vec<u8>>) -> Self {
        Self { answer: answer.into(), hangs: false, tls: None }
    }

    async fn run(self) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tell) = (self.clone(), tell.clone());
                tokio::spawn(async move {
                    let request = match script.tls.clone() {
                        None => script.serve(stream).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => script.serve(stream).await,
                            Err(_) => return,
                        },
                    };
                    // The test may be over.
                    tell.send(request).ok();
                    if script.hangs {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Far { address, asked }
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        let mut request = Vec::new();
        while !is_whole(&request) {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(count @ 1..) => request.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
        stream.write_all(&self.answer).await.ok();
        stream.flush().await.ok();
        if self.hangs {
            // Kept open by whoever holds the task.
            std::mem::forget(stream);
        } else {
            stream.shutdown().await.ok();
        }
        String::from_utf8(request).unwrap()
    }
}

/// Whether a request has its head and the body that the head announces.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn node(url: String, more: Value) -> Node {
    let mut config = json!({"name": "box", "url": url, "protocol": "openai"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: NodeConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.faults(), []);
    Node::remote(&config).unwrap()
}

async fn ask(node: &Node) -> Result<Bytes, Fault> {
    Upstream::default().ask(node, Request::get("/v1/models")).await
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn generation() -> Generation {
    serde_json::from_value(json!({"model": "m", "input": {"kind": "raw", "prompt": "p"}})).unwrap()
}

/// The end of a whole stream.
async fn run(node: &Node) -> Result<Option<Done>, Fault> {
    let (upstream, generation) = (Upstream::default(), generation());
    let request = node.protocol.generate(&generation, "m", None);
    let mut exchange = upstream.start(node, request).await?;
    let mut decoder = node.protocol.decoder(&generation);
    loop {
        match exchange.next(&mut *decoder).await? {
            Some(Event::Done(done)) => return Ok(Some(done)),
            Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

#[tokio::test]
async fn a_request_has_the_prefix_the_host_its_way_and_the_key() {
    let mut far = Script::says(answer("hi")).run().await;
    let url = format!("http://{}/llm/", far.address);
    let upstream = Upstream::default();
    let node = node(url, json!({"api_key": "secret"}));
    let asked = upstream.ask(&node, Request::get("/v1/models"));
    assert_eq!(asked.await.unwrap(), "hi");
    let head = far.asked.recv().await.unwrap();
    let (host, hop) = (far.address, upstream.hop());
    assert_eq!(
        head,
        format!(
            "GET /llm/v1/models HTTP/1.1\r\nHost: {host}\r\nVia: 1.1 {hop}\r\nAuthorization: Bearer secret\r\n\r\n"
        )
    );
    assert_eq!(node.hop(), None, "it did not say that it is an Arriero");
}

#[tokio::test]
async fn an_arriero_is_known_by_its_answers() {
    let far = Hop::random();
    let says = format!("HTTP/1.1 200 OK\r\nVia: 1.1 {far}, 1.1 nginx\r\nContent-Length: 2\r\n\r\nhi");
    let node = node(format!("http://{}", Script::says(says).run().await.address), json!({}));
    ask(&node).await.unwrap();
    assert_eq!(node.hop(), Some(far));
}

#[tokio::test]
async fn a_name_is_tried_at_each_of_its_addresses() {
    let far = Script::says(answer("hi")).run().await;
    // Where it has two, only one of them is listened at.
    let url = format!("http://localhost:{}", far.address.port());
    assert_eq!(ask(&node(url, json!({}))).await.unwrap(), "hi");
}

#[tokio::test]
async fn what_goes_wrong_has_a_reason() {
    let refused = |status: &str| Script::says(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
    let limited = || Script::says("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let hangs = |answer: &str| Script { hangs: true, ..Script::says(answer) };
    let cases = [
        (refused("400 Bad Request"), "refused", false),
        (refused("500 Oops"), "refused", true),
        (refused("503 Busy"), "refused", true),
        (refused("429 Too Many Requests"), "rate_limited", true),
        (limited(), "rate_limited", true),
        (Script::says(""), "broken", true),
        (Script::says("nonsense\r\n\r\n"), "broken", true),
        (Script::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"), "broken", true),
        (hangs(""), "timeout", true),
        (hangs("HTTP/1.1 200 OK\r\n"), "timeout", true),
        (hangs("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"), "timeout", true),
    ];
    for (script, reason, is_retryable) in cases {
        let told = String::from_utf8_lossy(&script.answer).into_owned();
        let far = script.run().await;
        let timeouts = json!({"timeouts": {"first_byte": "300ms", "idle": "300ms"}});
        let fault = ask(&node(format!("http://{}", far.address), timeouts)).await.unwrap_err();
        assert_eq!((fault.reason(), fault.is_retryable()), (reason, is_retryable), "{told:?}: {fault}");
    }
    let far = limited().run().await;
    let fault = ask(&node(format!("http://{}", far.address), json!({}))).await.unwrap_err();
    let Fault::RateLimited { retry_after, .. } = fault else { panic!("{fault}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn who_does_not_listen_cannot_be_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(ask(&node(url, json!({}))).await.unwrap_err().reason(), "connect");
    let unknown = node("http://no-such-host.invalid:1".into(), json!({}));
    assert_eq!(ask(&unknown).await.unwrap_err().reason(), "connect");
}

/// What each protocol's server says to a generation.
fn streams() -> [(&'static str, &'static str); 3] {
    [
        (
            "worker",
            "{\"delta\":{\"text\":\"hi\",\"tokens\":[1]}}\n{\"done\":{\"reason\":\"stop\",\"prompt_tokens\":1,\"completion_tokens\":1,\"prompt_duration\":1,\"completion_duration\":1}}\n",
        ),
        (
            "ollama",
            "{\"response\":\"hi\",\"done\":false}\n{\"response\":\"\",\"done\":true,\"done_reason\":\"stop\"}\n",
        ),
        (
            "openai",
            "data: {\"choices\":[{\"text\":\"hi\"}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        ),
    ]
}

#[tokio::test]
async fn a_stream_torn_at_any_byte_is_never_taken_for_whole() {
    for (protocol, body) in streams() {
        let chunk = |body: &str| format!("{:x}\r\n{body}\r\n", body.len());
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let lines: String = body.split_inclusive('\n').map(chunk).collect();
        let wire = format!("{head}{lines}0\r\n\r\n");
        // The byte that ends the line with the end.
        let last = if protocol == "openai" { "[DONE]\n" } else { body };
        let end = wire.len()
            - if protocol == "openai" { wire.len() - wire.find(last).unwrap() - last.len() } else { 7 };
        for length in 0..=wire.len() {
            let far = Script::says(&wire.as_bytes()[..length]).run().await;
            let node =
                node(format!("http://{}", far.address), json!({"protocol": protocol, "models": ["m"]}));
            let told = run(&node).await;
            match length >= end {
                true => assert!(matches!(told, Ok(Some(_))), "{protocol}, {length} bytes: {told:?}"),
                false => assert!(!matches!(told, Ok(Some(_))), "{protocol}, {length} bytes"),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_closes_instead_of_an_end_is_never_taken_for_one() {
    for (protocol, body) in streams() {
        let whole = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
        let half = &whole[..whole.find("hi").unwrap() + 6];
        for (wire, is_whole) in [(whole.as_str(), true), (half, false)] {
            let far = Script::says(wire).run().await;
            let node =
                node(format!("http://{}", far.address), json!({"protocol": protocol, "models": ["m"]}));
            assert_eq!(matches!(run(&node).await, Ok(Some(_))), is_whole, "{protocol}: {wire:?}");
        }
    }
}

/// A CA, and what it has signed, as PEM files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key), root: certificate.der().clone() }
    }

    /// A certificate for `name` and its key: the files `name.pem` and `name.key`, and their content.
    fn sign(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A server called `name`, which lets in whom this CA knows if `asks`.
    async fn serve(&self, name: &str, asks: bool) -> Far {
        let (certificate, key) = self.sign(name);
        let builder = ServerConfig::builder();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![certificate], key).unwrap();
        Script { tls: Some(TlsAcceptor::from(Arc::new(config))), ..Script::says(answer("hi")) }.run().await
    }
}

async fn ask_over_tls(far: &Far, tls: Value) -> Result<Bytes, &'static str> {
    let node = node(format!("https://{}", far.address), json!({"tls": tls}));
    ask(&node).await.map_err(|fault| fault.reason())
}

#[tokio::test]
async fn only_who_the_given_ca_knows_by_the_right_name_is_trusted() {
    // Whoever is first in the process decides which cryptography rustls uses.
    let upstream = Upstream::default();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let far = ours.serve("box.test", false).await;
    let named =
        |authority: &Authority, name: &str| json!({"ca": authority.path("ca.pem"), "server_name": name});
    assert_eq!(ask_over_tls(&far, named(&ours, "box.test")).await.as_deref(), Ok(&b"hi"[..]));
    assert_eq!(ask_over_tls(&far, named(&ours, "other.test")).await, Err("connect"));
    assert_eq!(ask_over_tls(&far, named(&theirs, "box.test")).await, Err("connect"));
    assert_eq!(ask_over_tls(&far, json!({"server_name": "box.test"})).await, Err("connect"), "the system's");
    assert_eq!(ask_over_tls(&far, json!({"verify": false})).await.as_deref(), Ok(&b"hi"[..]));
    drop(upstream);
}

#[tokio::test]
async fn who_has_a_certificate_shows_it() {
    let upstream = Upstream::default();
    let authority = Authority::new();
    authority.sign("me.test");
    let far = authority.serve("box.test", true).await;
    let tls = |more: Value| {
        let mut tls = json!({"ca": authority.path("ca.pem"), "server_name": "box.test"});
        tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tls
    };
    let identity = json!({"cert": authority.path("me.test.pem"), "key": authority.path("me.test.key")});
    assert_eq!(ask_over_tls(&far, tls(identity)).await.as_deref(), Ok(&b"hi"[..]));
    // TLS 1.3 learns of it with the first byte.
    assert!(matches!(ask_over_tls(&far, tls(json!({}))).await, Err("connect" | "broken")));
    drop(upstream);
}
