//! The service manager, as far as the daemon speaks to it: `sd_notify(3)`. Decides that its words leave in order from a
//! thread of their own; refuses to wait for a manager that does not read, which would hold up a tick or the stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// The way to the service manager; without one nobody is told.
pub(super) struct Manager {
    words: Option<SyncSender<NotifyState<'static>>>,
    told_all: Receiver<()>,
    alive: Arc<AtomicBool>,
}

impl Manager {
    /// The manager that `NOTIFY_SOCKET` names.
    pub(super) fn of_environment() -> Self {
        let (words, waiting) = sync_channel::<NotifyState<'static>>(MAX_WAITING);
        let (done, told_all) = sync_channel(1);
        let alive = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&alive);
        let tell = move || {
            for word in waiting {
                if matches!(word, NotifyState::Watchdog) {
                    asked.store(false, Ordering::Relaxed);
                }
                // A manager that cannot be told now is told the next time.
                sd_notify::notify(&[word]).unwrap_or_default();
            }
            done.send(()).unwrap_or_default();
        };
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some()
            && std::thread::Builder::new().name("manager".to_owned()).spawn(tell).is_ok();
        Self { words: is_there.then_some(words), told_all, alive }
    }

    /// Tells it this, after what it was told before.
    pub(super) fn tell(&self, word: NotifyState<'static>) {
        if let Some(words) = &self.words {
            words.try_send(word).unwrap_or_default();
        }
    }

    /// What tells it of a tick: only one such word waits at a time, so that a manager that reads late gets no flood.
    pub(super) fn heartbeat(&self) -> impl Fn() + Send + 'static {
        let (words, alive) = (self.words.clone(), Arc::clone(&self.alive));
        move || {
            if let Some(words) = &words
                && !alive.swap(true, Ordering::Relaxed)
            {
                words.try_send(NotifyState::Watchdog).unwrap_or_default();
            }
        }
    }

    /// Waits a moment until it was told everything; whoever still holds a heartbeat must be gone.
    pub(super) fn close(mut self) {
        if self.words.take().is_some() {
            // A manager that still does not read learns of the end by the end.
            self.told_all.recv_timeout(LAST_WORDS).unwrap_or_default();
        }
    }
}

/// Words waiting for the manager: one watchdog's, and what a few reloads say.
const MAX_WAITING: usize = 16;
const LAST_WORDS: Duration = Duration::from_millis(200);
