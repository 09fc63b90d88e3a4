//! The upstream: a server so small that the proxies in front of it are what is measured. It answers as a worker on a unix
//! socket and as Ollama on TCP. `@EVENTS,MICROSECONDS@` in the request body says how many tokens to send at which pace;
//! each token's text is the time at which it was written.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::Outcome;

/// Serves until the runtime ends.
pub fn spawn(tcp: TcpListener, socket: &Path) -> Outcome<()> {
    let unix = UnixListener::bind(socket)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = unix.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(())
}

/// Nanoseconds since the first call; client and stub are one process, so they share it.
pub fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let Some((head, length)) = request(&mut stream, &mut buffer).await else { return };
        let is_worker = buffer.starts_with(b"POST /generate ");
        let body = &buffer[head..head + length];
        let (events, pause) = directive(body);
        // Whoever only looks whether it is alive gets something short.
        let is_stream = is_worker || buffer.starts_with(b"POST ") && !contains(body, b"\"stream\":false");
        let sent = if is_stream {
            streamed(&mut stream, is_worker, events, pause).await
        } else {
            whole(&mut stream).await
        };
        if sent.is_err() {
            return;
        }
        buffer.drain(..head + length);
    }
}

/// Reads until one request is whole; the lengths of its head and body.
async fn request<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<(usize, usize)> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
            let length = head
                .split("content-length:")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            if buffer.len() >= at + 4 + length {
                return Some((at + 4, length));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn directive(body: &[u8]) -> (u32, Duration) {
    let text = String::from_utf8_lossy(body);
    let parsed = text.split('@').nth(1).and_then(|inner| {
        let (events, micros) = inner.split_once(',')?;
        Some((events.parse().ok()?, Duration::from_micros(micros.parse().ok()?)))
    });
    parsed.unwrap_or((1, Duration::ZERO))
}

async fn whole<S: AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    let body = format!(
        "{{\"model\":\"stub\",\"created_at\":\"2026-01-01T00:00:00Z\",\"response\":\"{}\",\"done\":true,\"done_reason\":\"stop\"}}",
        "x".repeat(380)
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

async fn streamed<S: AsyncWrite + Unpin>(
    stream: &mut S,
    is_worker: bool,
    events: u32,
    pause: Duration,
) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    if !pause.is_zero() {
        stream.write_all(head.as_bytes()).await?;
    }
    let mut out = if pause.is_zero() { head.to_owned() } else { String::new() };
    let mut ticks = tokio::time::interval(if pause.is_zero() { Duration::from_secs(1) } else { pause });
    for _ in 0..events {
        if !pause.is_zero() {
            ticks.tick().await;
        }
        let stamp = if pause.is_zero() { "x".repeat(380) } else { format!("T{:020}T", now()) };
        let line = if is_worker {
            format!("{{\"delta\":{{\"text\":\"{stamp}\",\"tokens\":[7]}}}}\n")
        } else {
            format!(
                "{{\"model\":\"stub\",\"created_at\":\"2026-01-01T00:00:00Z\",\"response\":\"{stamp}\",\"done\":false}}\n"
            )
        };
        out.push_str(&format!("{:x}\r\n{line}\r\n", line.len()));
        if !pause.is_zero() {
            stream.write_all(out.as_bytes()).await?;
            out.clear();
        }
    }
    let last = if is_worker {
        "{\"done\":{\"reason\":\"stop\",\"prompt_tokens\":9,\"completion_tokens\":9,\"prompt_duration\":1,\"completion_duration\":1}}\n"
    } else {
        "{\"model\":\"stub\",\"response\":\"\",\"done\":true,\"done_reason\":\"stop\"}\n"
    };
    out.push_str(&format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len()));
    stream.write_all(out.as_bytes()).await
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
