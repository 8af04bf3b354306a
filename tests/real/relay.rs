//! A slow way to a viewer, in user space: it reads so slowly that the media server's socket backs up.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::AbortHandle;

/// A relay to one server for one viewer; ends when dropped.
pub(crate) struct SlowRelay {
    pub(crate) port: u16,
    task: AbortHandle,
}

impl SlowRelay {
    /// A relay to `port` of this host that takes at most `bytes_per_second` from it.
    pub(crate) async fn start(port: u16, bytes_per_second: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let task = tokio::spawn(relay(listener, ([127, 0, 0, 1], port).into(), bytes_per_second));
        Self { port: own, task: task.abort_handle() }
    }
}

impl Drop for SlowRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(listener: TcpListener, server: SocketAddr, bytes_per_second: usize) {
    let (viewer, _) = listener.accept().await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // What waits must wait at the server, not here.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let server = socket.connect(server).await.unwrap();
    let ((mut from_viewer, mut to_viewer), (mut from_server, mut to_server)) =
        (viewer.into_split(), server.into_split());
    let down = async {
        let mut piece = vec![0; bytes_per_second / PIECES_PER_SECOND];
        while let Ok(count @ 1..) = from_server.read(&mut piece).await {
            if to_viewer.write_all(&piece[..count]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1) / PIECES_PER_SECOND as u32).await;
        }
    };
    tokio::select! {
        () = down => {}
        _ = copy(&mut from_viewer, &mut to_server) => {}
    }
}

const PIECES_PER_SECOND: usize = 20;
