//! [`read`]: what a connection has to say, without a buffer that waits with it.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// Most that is read at once.
const PIECE: usize = 16 << 10;

/// Reads once, on the stack, and hands what came to `take`. Returns how many bytes that were; 0 at the end of the stream.
/// Cancel-safe.
pub async fn read(stream: &mut Stream, mut take: impl FnMut(&[u8])) -> std::io::Result<usize> {
    poll_fn(|context| {
        let mut space = [const { MaybeUninit::uninit() }; PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut piece))?;
        take(piece.filled());
        Ok(piece.filled().len()).into()
    })
    .await
}
