//! The service manager's side of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The socket that `NOTIFY_SOCKET` names.
pub(crate) struct Manager {
    pub(crate) path: PathBuf,
    socket: UnixDatagram,
    messages: std::sync::Mutex<Vec<String>>,
}

impl Manager {
    pub(crate) fn start(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { path, socket, messages: std::sync::Mutex::default() }
    }

    /// All messages so far, in order.
    pub(crate) fn messages(&self) -> Vec<String> {
        let mut messages = self.messages.lock().unwrap();
        let mut buffer = [0; 4_096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            messages.extend(text.lines().map(str::to_owned));
        }
        messages.clone()
    }

    pub(crate) fn count(&self, message: &str) -> usize {
        self.messages().iter().filter(|one| *one == message).count()
    }
}
