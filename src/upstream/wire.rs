//! [`Wire`]: one HTTP/1.1 exchange on a connection (RFC 9112): a request out, the head of the answer, its body piece by piece.
//!
//! Pingora's own client session keeps two buffers of kilobytes for as long as an answer lasts. Most of an answer's time nothing
//! comes; so here what arrives is read on the stack, and a connection that waits costs little more than its descriptor.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pingora::protocols::Stream;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::AsyncWriteExt;

use super::framing::Framing;
use super::piece;
use crate::node::{Hop, Via};

/// Longest head of an answer.
const HEAD_LIMIT: usize = 64 << 10;
/// Most fields in it.
const FIELDS: usize = 100;

/// Why an exchange went no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("not an HTTP/1.1 answer: {0}")]
    Malformed(String),
}

/// A connection with an exchange under way.
pub(super) struct Wire {
    stream: Stream,
    framing: Framing,
    /// Whether the connection may serve another exchange when the answer is read.
    is_reusable: bool,
}

/// What a caller needs to know of an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    /// `Retry-After`, where it is one.
    pub retry_after: Option<Duration>,
    /// The Arriero that answered, where one did and said so.
    pub hop: Option<Hop>,
}

/// What the head of an answer says.
struct Head {
    answer: Answer,
    framing: Framing,
    is_reusable: bool,
    /// Bytes of it.
    length: usize,
}

impl Wire {
    /// Sends a request, `head` with its blank line, and reads the head of the answer; what came of the answer's body is in `body`.
    pub(super) async fn send(
        mut stream: Stream,
        head: String,
        json: Bytes,
        body: &mut BytesMut,
    ) -> Result<(Self, Answer), Broken> {
        stream.write_all_buf(&mut head.as_bytes().chain(json)).await?;
        stream.flush().await?;
        let mut received = BytesMut::new();
        let mut head = loop {
            match parse(&received)? {
                // 100 and the like announce the answer and are none.
                Some(head) if head.answer.status < 200 => {
                    received.advance(head.length);
                    continue;
                }
                Some(head) => break head,
                None if received.len() > HEAD_LIMIT => {
                    return Err(Broken::Malformed("its head is longer than 64 KiB".into()));
                }
                None => {}
            }
            if piece::read(&mut stream, |bytes| received.extend_from_slice(bytes)).await? == 0 {
                return Err(Broken::Closed);
            }
        };
        received.advance(head.length);
        let used = head.framing.decode(&received, body).map_err(malformed)?;
        let wire =
            Self { stream, framing: head.framing, is_reusable: head.is_reusable && used == received.len() };
        Ok((wire, head.answer))
    }

    /// Appends what comes next of the body to `body`. False: it is complete, and nothing was appended.
    pub(super) async fn read(&mut self, body: &mut BytesMut) -> Result<bool, Broken> {
        let length = body.len();
        while body.len() == length && !self.framing.is_done() {
            let (framing, mut decoded) = (&mut self.framing, Ok(0));
            let count = piece::read(&mut self.stream, |bytes| decoded = framing.decode(bytes, body)).await?;
            // Whatever comes behind an answer nobody asked for.
            self.is_reusable &= decoded.map_err(malformed)? == count;
            match (count, &self.framing) {
                (0, Framing::Close) => self.framing = Framing::Length(0),
                (0, _) => return Err(Broken::Closed),
                _ => {}
            }
        }
        Ok(body.len() > length)
    }

    /// From now on only the end of the connection is the end of the body.
    pub(super) fn never_end(&mut self) {
        self.framing = Framing::Close;
        self.is_reusable = false;
    }

    /// The connection, if another exchange can use it: the body was read to its end.
    pub(super) fn into_reusable(self) -> Option<Stream> {
        (self.is_reusable && self.framing.is_done()).then_some(self.stream)
    }
}

/// The head that `received` begins with, once it is complete.
fn parse(received: &[u8]) -> Result<Option<Head>, Broken> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = answer.parse(received).map_err(malformed)? else {
        return Ok(None);
    };
    let status = answer.code.unwrap_or_default();
    let mut head = Head {
        answer: Answer { status, retry_after: None, hop: None },
        framing: Framing::Close,
        is_reusable: answer.version == Some(1),
        length,
    };
    let mut announced = None;
    for field in answer.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(Broken::Malformed(format!("it is encoded as {value:?}")));
            }
            head.framing = Framing::CHUNKED;
        } else if field.name.eq_ignore_ascii_case("content-length") {
            let length: u64 = value.parse().map_err(malformed)?;
            if announced.replace(length).is_some_and(|other| other != length) {
                return Err(Broken::Malformed("it has two lengths".into()));
            }
        } else if field.name.eq_ignore_ascii_case("retry-after") {
            head.answer.retry_after = retry_after(value, OffsetDateTime::now_utc());
        } else if field.name.eq_ignore_ascii_case("via") {
            head.answer.hop = Via::read([value]).last();
        } else if field.name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            head.is_reusable = false;
        }
    }
    match (status, &head.framing, announced) {
        (204 | 304, ..) => head.framing = Framing::Length(0),
        (_, Framing::Close, Some(length)) => head.framing = Framing::Length(length),
        (_, Framing::Close, None) => head.is_reusable = false,
        _ => {}
    }
    Ok(Some(head))
}

/// A number of seconds or a date (RFC 9110, section 10.2.3), as the time from `now`.
fn retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(value, &Rfc2822).ok()?;
    Some(Duration::try_from(date - now).unwrap_or_default())
}

fn malformed(error: impl std::fmt::Display) -> Broken {
    Broken::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use pingora::protocols::l4::stream::Stream as L4;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    /// What comes of an exchange with a node that answers `answer` in pieces of `size` bytes and then closes: status, body,
    /// and whether the connection could be used again.
    async fn exchange(answer: &str, size: usize) -> Result<(u16, String, bool), Broken> {
        let (near, mut far) = UnixStream::pair().unwrap();
        let answer = answer.to_owned();
        let node = tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let length = far.read(&mut request).await.unwrap();
            for piece in answer.as_bytes().chunks(size) {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let mut body = BytesMut::new();
        let stream: Stream = Box::new(L4::from(near));
        let head = "POST /generate HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        let (mut wire, answer) = Wire::send(stream, head.into(), Bytes::from("{}"), &mut body).await?;
        while wire.read(&mut body).await? {}
        assert_eq!(node.await.unwrap(), format!("{head}{{}}"));
        Ok((answer.status, String::from_utf8_lossy(&body).into_owned(), wire.into_reusable().is_some()))
    }

    #[tokio::test]
    async fn an_answer_is_read_however_it_is_framed_and_cut() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, "hello", true)),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
                (200, "hello", true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", (200, "hello", false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, "hello", false)),
            ("HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", (503, "no", false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                (200, "ok", true),
            ),
            ("HTTP/1.1 204 None\r\n\r\n", (204, "", true)),
        ];
        for (answer, (status, body, is_reusable)) in cases {
            for size in [1, 7, 4096] {
                let told = exchange(answer, size).await.unwrap();
                assert_eq!(told, (status, body.to_owned(), is_reusable), "{answer:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now = time::macros::datetime!(2015-10-21 07:27:00 UTC);
        let told = |value| retry_after(value, now).map(|after| after.as_secs());
        assert_eq!((told("5"), told("Wed, 21 Oct 2015 07:28:00 GMT")), (Some(5), Some(60)));
        assert_eq!((told("Wed, 21 Oct 2015 07:26:00 GMT"), told("soon"), told("-1")), (Some(0), None, None));
    }

    #[tokio::test]
    async fn a_connection_with_more_than_the_answer_is_not_used_again() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
        assert_eq!(exchange(answer, 4096).await.unwrap(), (200, "ok".to_owned(), false));
    }

    #[tokio::test]
    async fn what_is_no_answer_or_half_of_one_is_told() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_LIMIT));
        let cases = [
            ("", "closed"),
            ("HTTP/1.1 200 OK\r\nContent-", "closed"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "closed"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n", "malformed chunk"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "encoded as"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "two lengths"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "not an HTTP/1.1 answer"),
            ("SSH-2.0-OpenSSH_9.9\r\n", "not an HTTP/1.1 answer"),
            (&long, "longer than 64 KiB"),
        ];
        for (answer, reason) in cases {
            let error = exchange(answer, 4096).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{answer:.60?}: {error}");
        }
    }
}
