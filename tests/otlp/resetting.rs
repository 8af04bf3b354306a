//! A server that throws each connection away with what has come.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::receiver::LOOPBACK;

pub(crate) struct Resetting {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Resetting {
    pub(crate) async fn begin() -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let _read = connection.read(&mut [0; 64]).await;
                connection.set_zero_linger().unwrap();
            }
        });
        Self { address, task }
    }

    /// Leaves its port.
    pub(crate) async fn end(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}
