//! Serving the admin port.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AdminState, router};

/// What a slow reader of `/metrics` gets after the order to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Answers on `listener` until `shutdown` resolves, then for at most a second more. Errors if the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop = CancellationToken::new();
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let deadline = async {
        shutdown.await;
        stop.cancel();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = server => outcome,
        () = deadline => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::admin::{Entry, Loads, Nodes, NotRegistered, Registrar};
    use crate::dialect::Endpoint;
    use crate::dispatch::Deed;
    use crate::proxy::Access;
    use crate::telemetry::Metrics;
    use crate::units::KeepAlive;

    struct Nothing;

    impl Nodes for Nothing {
        fn list(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn show_shares(&self) {}

        fn act(&self, _: &str, _: Deed, _: &str) -> Result<(), crate::error::Error> {
            Ok(())
        }

        fn explain(&self, _: &Endpoint, _: &[u8]) -> Result<serde_json::Value, crate::error::Error> {
            Ok(serde_json::Value::Null)
        }

        fn decisions(&self, _: usize) -> serde_json::Value {
            serde_json::Value::Null
        }
    }

    impl Registrar for Nothing {
        fn create(&self, _: Entry) -> Result<String, NotRegistered> {
            Ok(String::new())
        }

        fn put(&self, _: &str, _: Entry) -> Result<bool, NotRegistered> {
            Ok(true)
        }

        fn remove(&self, _: &str) -> Result<(), NotRegistered> {
            Ok(())
        }
    }

    impl Loads for Nothing {
        fn load(&self, _: String, _: Option<KeepAlive>) -> BoxFuture<'_, Result<(), crate::error::Error>> {
            Box::pin(async { Ok(()) })
        }

        fn unload(&self, _: String) -> Result<(), crate::error::Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn it_answers_until_told_to_stop_even_with_a_connection_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let state = AdminState {
            kept: crate::admin::cache::tests::nothing(&metrics),
            metrics,
            readiness: Arc::new(|| Ok(())),
            models: Arc::new(|| serde_json::Value::Null),
            status: Arc::new(|| serde_json::Value::Null),
            access: Arc::new(Access::new(Vec::new(), address.ip())),
            reload: Arc::new(|| Ok(Vec::new())),
            nodes: Arc::new(Nothing),
            registrar: Arc::new(Nothing),
            change_settings: Arc::new(|_, _| Box::pin(async { Ok(Vec::new()) })),
            save_snapshot: Arc::new(|_| Box::pin(async { Ok(Vec::new()) })),
            loads: Arc::new(Nothing),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, state, async {
            let _ = stopped.await;
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 512];
        let length = client.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK\r\n"));
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
    }
}
