//! The service manager's side of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The socket that `NOTIFY_SOCKET` names.
pub(crate) struct Manager {
    pub(crate) path: PathBuf,
    socket: UnixDatagram,
    told: std::sync::Mutex<Vec<String>>,
}

impl Manager {
    pub(crate) fn start(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { path, socket, told: std::sync::Mutex::default() }
    }

    /// All it was told so far, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut told = self.told.lock().unwrap();
        let mut message = [0; 4_096];
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            told.extend(text.lines().map(str::to_owned));
        }
        told.clone()
    }

    pub(crate) fn count(&self, word: &str) -> usize {
        self.told().iter().filter(|told| *told == word).count()
    }
}
