//! One look at a worker: `GET /health` over its socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::action::Report;
use crate::generation::seam::Vitals;

/// They are below 1 KB.
const MAX_BODY: usize = 64 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Waits for `delay`, then asks the worker at `socket`, who has `patience` to answer.
pub(super) async fn probe(socket: &Path, delay: Duration, patience: Duration) -> Report {
    tokio::time::sleep(delay).await;
    match tokio::time::timeout(patience, vitals(socket)).await {
        Ok(Ok(vitals)) => Report::Vitals(Box::new(vitals)),
        Ok(Err(_)) | Err(_) => Report::Missed,
    }
}

/// A connection of its own each time: a worker that accepts none is as dead as one that answers none.
async fn vitals(socket: &Path) -> Result<Vitals, Failure> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let request = http::Request::get("/health").header(http::header::HOST, "worker");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        // Whatever the status: a worker that loads or has failed says so with a 503 and the same body.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    // The connection ends when the sender is dropped; its own errors show in the exchange.
    let (vitals, _) = tokio::join!(exchange, connection);
    vitals
}
