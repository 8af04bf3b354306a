//! A listener that resets each connection after its first bytes.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The running listener.
#[derive(Debug)]
pub struct ResettingListener {
    task: JoinHandle<()>,
}

impl ResettingListener {
    /// Starts it on `address`.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let _read = connection.read(&mut [0; 64]).await;
                connection.set_zero_linger().unwrap();
            }
        });
        Self { task }
    }

    /// Stops listening.
    pub async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}
