//! The proxies under test: started with the stub behind them, pinned to a core, ended with the bench.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::child::{Process, example, family, resident};
use crate::client::{Client, request};
use crate::{Outcome, stub};

/// One way to the stub.
pub struct Target {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The path asked for; the stub answers the same on all.
    pub path: &'static str,
    process: Option<Process>,
}

impl Target {
    /// Resident memory of its processes in bytes.
    pub fn resident(&self) -> u64 {
        self.pids().iter().map(|pid| resident(*pid)).sum()
    }

    /// CPU time its processes have used, in nanoseconds.
    pub fn cpu(&self) -> u64 {
        self.pids().iter().map(|pid| cpu(*pid)).sum()
    }

    /// The request with this number, about 500 bytes long: each asks for something else, and always the same.
    pub fn numbered(&self, number: usize) -> Vec<u8> {
        let prompt = format!("@1,0@ {number:08} {}", "why is the sky blue? ".repeat(17));
        let options = "{\"temperature\":0}";
        let body =
            format!("{{\"model\":\"stub\",\"prompt\":\"{prompt}\",\"stream\":false,\"options\":{options}}}");
        request(self.path, &body)
    }

    /// A prepared request of about 500 bytes.
    pub fn request(&self, events: u32, pause_micros: u64, is_stream: bool) -> Vec<u8> {
        let prompt = format!("@{events},{pause_micros}@ {}", "why is the sky blue? ".repeat(19));
        request(self.path, &format!("{{\"model\":\"stub\",\"prompt\":\"{prompt}\",\"stream\":{is_stream}}}"))
    }

    fn pids(&self) -> Vec<u32> {
        self.process.as_ref().map_or(Vec::new(), |process| family(process.0.id()))
    }
}

/// All ways to one stub.
pub struct Stage {
    pub targets: Vec<Target>,
    _dir: TempDir,
}

impl Stage {
    pub async fn set() -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let upstream = tcp.local_addr()?;
        let socket = dir.path().join("stub.sock");
        stub::spawn(tcp, &socket)?;
        let mut targets =
            vec![Target { name: "direct", address: upstream, path: "/api/generate", process: None }];
        targets.push(spawn("nginx", dir.path(), |port| nginx(dir.path(), port, upstream)).await?);
        targets.push(spawn("HAProxy", dir.path(), |port| haproxy(dir.path(), port, upstream)).await?);
        targets.push(
            spawn("bare Pingora", dir.path(), |port| {
                let mut command = Command::new(example("bare_pingora")?);
                command.args([format!("127.0.0.1:{port}"), upstream.to_string()]);
                Ok(command)
            })
            .await?,
        );
        targets
            .push(spawn("Arriero", dir.path(), |port| arriero(dir.path(), port, &socket, upstream)).await?);
        let mut passing =
            spawn("Arriero, passthrough", dir.path(), |port| arriero(dir.path(), port, &socket, upstream))
                .await?;
        passing.path = "/api/pull";
        targets.push(passing);
        match std::env::var_os("SGLANG_ROUTER") {
            Some(program) => {
                let scrapes = free_port().await?;
                let mut router = spawn("SGLang's router", dir.path(), |port| {
                    Ok(sglang(&program, port, scrapes, upstream))
                })
                .await?;
                router.path = "/v1/completions";
                targets.push(router);
            }
            None => eprintln!("SGLANG_ROUTER is not set: no comparison with it"),
        }
        for target in &targets {
            ready(target).await?;
        }
        Ok(Self { targets, _dir: dir })
    }
}

impl Stage {
    /// The same stub behind what keeps answers: nginx, Arriero, and an Arriero that keeps nothing.
    pub async fn caching() -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let upstream = tcp.local_addr()?;
        let socket = dir.path().join("stub.sock");
        stub::spawn(tcp, &socket)?;
        let mut targets =
            vec![Target { name: "direct", address: upstream, path: "/api/generate", process: None }];
        let cache = format!("{}/cache", dir.path().display());
        let zone =
            format!("proxy_cache_path {cache} levels=1:2 keys_zone=answers:16m max_size=1g inactive=1h;");
        let keeping =
            "proxy_cache answers; proxy_cache_methods POST; proxy_cache_key $request_uri$request_body;
                       proxy_cache_valid 200 1h; client_body_buffer_size 64k;";
        let nginx = |port| nginx_with(dir.path(), port, upstream, &zone, keeping);
        targets.push(spawn("nginx, proxy_cache", dir.path(), nginx).await?);
        let off = "coalesce: { mode: \"off\" }\ncache: { responses: { enabled: false } }\n";
        for (name, more) in
            [("Arriero", "cache: { responses: { ttl: 1h } }\n"), ("Arriero, nothing kept", off)]
        {
            let command = |port| arriero_with(dir.path(), port, &socket, upstream, more);
            targets.push(spawn(name, dir.path(), command).await?);
        }
        for target in &targets {
            ready(target).await?;
        }
        Ok(Self { targets, _dir: dir })
    }
}

async fn spawn(
    name: &'static str,
    dir: &Path,
    command: impl FnOnce(u16) -> Outcome<Command>,
) -> Outcome<Target> {
    let port = free_port().await?;
    let inner = command(port)?;
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "1"]).arg(inner.get_program()).args(inner.get_args());
    let log = std::fs::File::create(dir.join(format!("{}.log", name.replace([' ', ','], "_"))))?;
    let child = pinned.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok(Target {
        name,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        path: "/api/generate",
        process: Some(Process(child)),
    })
}

/// Free now, and nobody else here asks for ports.
async fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// Waits until a request gets through.
async fn ready(target: &Target) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let request = target.request(1, 0, false);
    loop {
        let answered = match Client::connect(target.address).await {
            Ok(mut client) => client.time(&request).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(format!("{}: {error}", target.name).into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn nginx(dir: &Path, port: u16, upstream: SocketAddr) -> Outcome<Command> {
    nginx_with(dir, port, upstream, "", "proxy_buffering off;")
}

/// nginx with more in its sections `http` and `location`.
fn nginx_with(dir: &Path, port: u16, upstream: SocketAddr, http: &str, location: &str) -> Outcome<Command> {
    let config = dir.join("nginx.conf");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", dir.display()))
        .concat();
    std::fs::write(
        &config,
        format!(
            "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/nginx.err;
             events {{ worker_connections 4096; }}
             http {{ access_log off; {temporary} {http}
               upstream stub {{ server {upstream}; keepalive 512; keepalive_requests 100000000; }}
               keepalive_requests 100000000;
               server {{ listen 127.0.0.1:{port}; client_max_body_size 0;
                 location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection \"\";
                   {location} proxy_read_timeout 600s; }} }} }}",
            dir.display()
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(config).arg("-e").arg(dir.join("nginx.err"));
    Ok(command)
}

fn haproxy(dir: &Path, port: u16, upstream: SocketAddr) -> Outcome<Command> {
    let config = dir.join("haproxy.cfg");
    std::fs::write(
        &config,
        format!(
            "global\n  maxconn 4096\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  \
             timeout server 600s\n  option http-no-delay\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
             backend b\n  server stub {upstream}\n"
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-q").arg("-db").arg("-f").arg(config);
    Ok(command)
}

/// A router that reads requests as Arriero does; from PyPI, package sglang-router.
fn sglang(program: &OsStr, port: u16, scrapes: u16, upstream: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["launch", "--host", "127.0.0.1", "--policy", "round_robin", "--log-level", "error"]);
    command.arg("--port").arg(port.to_string()).arg("--worker-urls").arg(format!("http://{upstream}"));
    // Where it listens for scrapes: nobody does.
    command.args(["--prometheus-host", "127.0.0.1", "--prometheus-port"]).arg(scrapes.to_string());
    command
}

fn arriero(dir: &Path, port: u16, socket: &Path, upstream: SocketAddr) -> Outcome<Command> {
    // What is asked again is computed again.
    arriero_with(dir, port, socket, upstream, "cache: { responses: { enabled: false } }\n")
}

/// Arriero with more sections in its configuration.
fn arriero_with(dir: &Path, port: u16, socket: &Path, upstream: SocketAddr, more: &str) -> Outcome<Command> {
    let config = dir.join(format!("arriero-{port}.yaml"));
    std::fs::write(
        &config,
        format!(
            "{more}listen: 127.0.0.1:{port}\nadmin: \"off\"\nlog: {{ level: warn }}\nthreads: 1\n\
             workers: {{ runtime_dir: {} }}\npassthrough: {{ url: \"http://{upstream}\" }}\n\
             nodes:\n  - {{ name: stub, url: \"unix:{}\", protocol: worker, models: [stub], max_in_flight: 4096 }}\n",
            dir.display(),
            socket.display()
        ),
    )?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("serve").arg("--config").arg(config);
    Ok(command)
}

/// Puts this process, client and stub, on core 0.
pub fn pin_self() -> Outcome<()> {
    taskset("0")
}

fn taskset(cores: &str) -> Outcome<()> {
    let pid = std::process::id().to_string();
    let done =
        Command::new("taskset").args(["-a", "-c", "-p", cores, &pid]).stdout(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err("taskset failed".into()) }
}

/// CPU time in nanoseconds, all threads.
fn cpu(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}
