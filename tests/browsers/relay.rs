//! The way to one viewer, in user space: a relay whose rate can be set and which can be cut. Decides that what waits,
//! waits at the server: its buffers are small, so the server's sockets back up as on a real narrow link. Requests
//! towards the server are not slowed down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, tcp};
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// What the link is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// As fast as it goes.
    Free,
    /// At most so many bytes a second to the viewer, over all its connections.
    Narrow(u32),
    /// Nothing passes; connections stay open.
    Silent,
    /// Connections are cut and refused.
    Refused,
}

/// A relay to one port of this host; ends when dropped.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) port: u16,
    link: watch::Sender<Link>,
    task: AbortHandle,
}

impl Relay {
    /// Starts it, free.
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let (link, seen) = watch::channel(Link::Free);
        let way = Way { link: seen, next: Arc::new(Mutex::new(Instant::now())) };
        let task = tokio::spawn(listen(listener, own, ([127, 0, 0, 1], port).into(), way));
        Self { port: own.port(), link, task: task.abort_handle() }
    }

    /// Sets what the link is like from now on.
    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all connections of a relay share.
#[derive(Clone)]
struct Way {
    link: watch::Receiver<Link>,
    /// When the next byte may pass.
    next: Arc<Mutex<Instant>>,
}

async fn listen(listener: TcpListener, own: SocketAddr, server: SocketAddr, mut way: Way) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let accepting = listener.is_some();
        tokio::select! {
            accepted = accept(listener.as_ref()), if accepting => {
                let (way, viewer) = (way.clone(), accepted);
                connections.spawn(relay(viewer, server, way));
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
            changed = way.link.changed() => {
                if changed.is_err() {
                    return;
                }
                if *way.link.borrow_and_update() == Link::Refused {
                    listener = None;
                    connections.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(TcpListener::bind(own).await.unwrap());
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

async fn relay(viewer: TcpStream, server: SocketAddr, way: Way) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    let Ok(server) = socket.connect(server).await else {
        return;
    };
    viewer.set_nodelay(true).unwrap();
    let ((from_viewer, to_viewer), (from_server, to_server)) = (viewer.into_split(), server.into_split());
    tokio::join!(up(from_viewer, to_server, way.clone()), down(from_server, to_viewer, way));
}

async fn up(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut way: Way) {
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        way.opens().await;
        if to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
}

async fn down(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut way: Way) {
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        way.passes(count).await;
        if to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
}

impl Way {
    /// Waits until anything passes at all; returns the rate then.
    async fn opens(&mut self) -> Option<u32> {
        let link = self.link.wait_for(|link| !matches!(link, Link::Silent | Link::Refused)).await;
        match link.as_deref() {
            Ok(Link::Narrow(rate)) => Some(*rate),
            _ => None,
        }
    }

    /// Waits until `count` bytes more may pass.
    async fn passes(&mut self, count: usize) {
        let Some(rate) = self.opens().await else {
            return;
        };
        let due = {
            let mut next = self.next.lock().await;
            // A relay that was kept from running makes up for it.
            let due = (*next).max(Instant::now() - CREDIT);
            *next = due + Duration::from_secs_f64(count as f64 / f64::from(rate));
            due
        };
        tokio::time::sleep_until(due).await;
        self.opens().await;
    }
}

const RECEIVE_BUFFER: u32 = 8 * 1024;
/// How long ago a narrow link may have had room that is used now.
const CREDIT: Duration = Duration::from_secs(1);
const PIECE: usize = 4 * 1024;
