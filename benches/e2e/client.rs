//! A client that costs little: prepared requests over kept connections, answers read to their end.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::stub;

/// One kept connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request ready to be written.
pub fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends the request and reads the whole answer; nanoseconds. An answer that is not 200 is an error.
    pub async fn time(&mut self, request: &[u8]) -> Outcome<u64> {
        let from = Instant::now();
        self.exchange(request, |_| {}).await?;
        Ok(from.elapsed().as_nanos() as u64)
    }

    /// The same, handing every time stamp of the stub to `stamped` when it is read.
    pub async fn exchange(&mut self, request: &[u8], mut stamped: impl FnMut(u64)) -> Outcome<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (mut seen, mut end) = (0, None);
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed in the middle of an answer".into());
            }
            // Stamps are `T` + 20 digits + `T`.
            while let Some(at) = self.buffer[seen..].iter().position(|&byte| byte == b'T') {
                let digits = self.buffer.get(seen + at + 1..seen + at + 21);
                let stamp = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                match (stamp, digits) {
                    (Some(stamp), _) => {
                        stamped(stamp);
                        seen += at + 22;
                    }
                    (None, Some(_)) => seen += at + 1,
                    (None, None) => break,
                }
            }
            if end.is_none() {
                end = self.head()?;
            }
            match end {
                Some(End::At(length)) if self.buffer.len() >= length => return Ok(()),
                Some(End::Chunked) if self.buffer.ends_with(b"0\r\n\r\n") => return Ok(()),
                _ => {}
            }
        }
    }

    /// Writes a request and reads until the first time stamp has come; the connection stays open, mid-answer.
    pub async fn open(&mut self, request: &[u8]) -> Outcome<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        while !self.buffer.windows(6).any(|window| window == b"\"T0000") {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed before the first event".into());
            }
        }
        Ok(())
    }

    /// How the answer will end, once its head is whole.
    fn head(&self) -> Outcome<Option<End>> {
        let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&self.buffer[..at]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
        }
        let length =
            head.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        Ok(Some(length.map_or(End::Chunked, |length: usize| End::At(at + 4 + length))))
    }
}

#[derive(Clone, Copy)]
enum End {
    At(usize),
    Chunked,
}

/// How late a stamp of the stub is now, in nanoseconds.
pub fn age(stamp: u64) -> u64 {
    stub::now().saturating_sub(stamp)
}
