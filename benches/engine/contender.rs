//! The servers that are compared, and a client that notes when each token came.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::child::Process;

/// What a server is started for.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Sequences that run at once.
    pub parallel: usize,
    /// Tokens of each.
    pub context: usize,
    /// Whether Arriero's sequences share their cells.
    pub is_pool: bool,
    /// Whether Arriero guesses ahead.
    pub speculates: bool,
}

/// What both have by default.
pub const TEMPERATURE: f64 = 0.8;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server under test.
pub struct Contender {
    pub name: &'static str,
    command: Box<dyn Fn(u16) -> Command>,
    path: &'static str,
    body: fn(&str, usize, f64) -> Value,
}

/// When the tokens of one answer came; the first entry is when it was asked for.
pub struct Answer(pub Vec<Instant>);

impl Answer {
    /// Seconds to the first token.
    pub fn ttft(&self) -> f64 {
        self.0.get(1).map_or(f64::NAN, |first| (*first - self.0[0]).as_secs_f64())
    }

    /// Tokens per second, from the first to the last.
    pub fn rate(&self) -> f64 {
        match self.0.as_slice() {
            [_, first, .., last] => (self.0.len() - 2) as f64 / (*last - *first).as_secs_f64(),
            _ => f64::NAN,
        }
    }

    /// Mean seconds per token of those that came between two moments.
    pub fn tpot(&self, from: Instant, to: Instant) -> f64 {
        let tokens = self.0.get(1..).unwrap_or_default();
        let between: Vec<_> = tokens.iter().copied().filter(|at| (from..=to).contains(at)).collect();
        match between.as_slice() {
            [first, .., last] => (*last - *first).as_secs_f64() / (between.len() - 1) as f64,
            _ => f64::NAN,
        }
    }

    /// The longest pause between two tokens, in seconds, of those that ended between two moments.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> f64 {
        let tokens = self.0.get(1..).unwrap_or_default();
        let gaps = tokens.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
        gaps.map(|pair| (pair[1] - pair[0]).as_secs_f64()).fold(0.0, f64::max)
    }
}

impl Contender {
    /// Arriero with the demo model, or with `model`.
    pub fn arriero(dir: &Path, model: Option<&Path>, shape: Shape) -> Outcome<Self> {
        let Shape { parallel, context, is_pool, speculates } = shape;
        let cells = if is_pool { parallel * context } else { 0 };
        let mode = if speculates { "auto" } else { "off" };
        let name = if model.is_some() { "model" } else { "demo" };
        let config = dir.join(format!("{name}-{context}-{cells}-{mode}.yaml"));
        let path = model.map_or("builtin:demo".into(), |path| path.display().to_string());
        let text = format!(
            "admin: \"off\"\nlog: {{ level: error }}\ncache: {{ responses: {{ enabled: false }} }}\nworkers: {{ snapshots: {{ dir: {} }} }}\nmodels:\n  \
             m: {{ path: \"{path}\", preload: true, parallel: {parallel}, context: {context}, cells: {cells}, \
             speculate: {{ mode: {mode} }} }}\n",
            dir.join("snapshots").display()
        );
        std::fs::write(&config, text)?;
        let command = move |port: u16| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
            command
                .arg("serve")
                .arg("--config")
                .arg(&config)
                .arg("--listen")
                .arg(format!("127.0.0.1:{port}"));
            command
        };
        let body = |prompt: &str, tokens, temperature| {
            let options = json!({"num_predict": tokens, "temperature": temperature, "top_p": 1.0});
            json!({"model": "m", "prompt": prompt, "raw": true, "options": options})
        };
        let name = match (is_pool, speculates) {
            (true, _) => "Arriero, cells in a pool",
            (false, true) => "Arriero",
            (false, false) => "Arriero, no speculation",
        };
        Ok(Self { name, command: Box::new(command), path: "/api/generate", body })
    }

    /// llama-server with the same sequences; threads are left to each server's own default, which is the cores here.
    pub fn llama_server(program: PathBuf, model: PathBuf, shape: Shape) -> Self {
        let command = move |port: u16| {
            let mut command = Command::new(&program);
            let cells = (shape.parallel * shape.context).to_string();
            command.arg("-m").arg(&model).args(["-np", &shape.parallel.to_string(), "-c", &cells]);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command
        };
        let body = |prompt: &str, tokens, temperature| {
            json!({"prompt": prompt, "stream": true, "n_predict": tokens, "temperature": temperature, "top_p": 1.0,
                   "min_p": 0.0})
        };
        Self { name: "llama-server", command: Box::new(command), path: "/completion", body }
    }

    /// Starts it and waits for its first token; the seconds that took.
    pub async fn start(&self) -> Outcome<(Process, SocketAddr, f64)> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let from = Instant::now();
        let mut command = (self.command)(port);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let (process, address) = (Process(child), SocketAddr::from(([127, 0, 0, 1], port)));
        // As an impatient client asks: again and again.
        while self.ask(address, "Tell me a story.", 1, TEMPERATURE).await.is_err() {
            if from.elapsed() > PATIENCE {
                return Err(format!("{} gave no token", self.name).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok((process, address, from.elapsed().as_secs_f64()))
    }

    /// Asks for `tokens` tokens and reads the answer to its end.
    pub async fn ask(
        &self,
        address: SocketAddr,
        prompt: &str,
        tokens: usize,
        temperature: f64,
    ) -> Outcome<Answer> {
        let mut stream = TcpStream::connect(address).await?;
        let body = (self.body)(prompt, tokens, temperature).to_string();
        // Neither server keeps the connection then, so its end is the answer's end.
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.path,
            body.len()
        );
        let mut answer = Answer(vec![Instant::now()]);
        stream.write_all((head + &body).as_bytes()).await?;
        let (mut buffer, mut seen) = (Vec::new(), 0);
        while stream.read_buf(&mut buffer).await? > 0 {
            let now = Instant::now();
            // One line per token, `{...}` or `data: {...}`, among those of head and chunks.
            while let Some(length) = buffer[seen..].iter().position(|&byte| byte == b'\n') {
                let line = &buffer[seen..seen + length];
                seen += length + 1;
                if line.starts_with(b"{") || line.starts_with(b"data: {") {
                    answer.0.push(now);
                }
            }
        }
        if buffer.starts_with(b"HTTP/1.1 200") { Ok(answer) } else { Err("not yet".into()) }
    }
}
