//! Notifies the service manager: `sd_notify(3)`. Messages are sent in order by a thread of their own, so that a service
//! manager that does not read delays neither a tick nor the stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// The connection to the service manager; without one, notifications are dropped.
pub(super) struct ServiceManager {
    queue: Option<SyncSender<NotifyState<'static>>>,
    all_sent: Receiver<()>,
    watchdog_waits: Arc<AtomicBool>,
}

impl ServiceManager {
    /// The service manager in `NOTIFY_SOCKET`.
    pub(super) fn of_environment() -> Self {
        let (queue, waiting) = sync_channel::<NotifyState<'static>>(MAX_WAITING);
        let (done, all_sent) = sync_channel(1);
        let watchdog_waits = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&watchdog_waits);
        let send = move || {
            for state in waiting {
                if matches!(state, NotifyState::Watchdog) {
                    waits.store(false, Ordering::Relaxed);
                }
                // A notification that cannot be sent is dropped; the next one is tried again.
                sd_notify::notify(&[state]).unwrap_or_default();
            }
            done.send(()).unwrap_or_default();
        };
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some()
            && std::thread::Builder::new().name("manager".to_owned()).spawn(send).is_ok();
        Self { queue: is_there.then_some(queue), all_sent, watchdog_waits }
    }

    /// Queues a notification.
    pub(super) fn notify(&self, state: NotifyState<'static>) {
        if let Some(queue) = &self.queue {
            queue.try_send(state).unwrap_or_default();
        }
    }

    /// Returns the notification of a tick. Only one waits at a time, so that a service manager that reads late is not
    /// flooded.
    pub(super) fn watchdog(&self) -> impl Fn() + Send + 'static {
        let (queue, watchdog_waits) = (self.queue.clone(), Arc::clone(&self.watchdog_waits));
        move || {
            if let Some(queue) = &queue
                && !watchdog_waits.swap(true, Ordering::Relaxed)
            {
                queue.try_send(NotifyState::Watchdog).unwrap_or_default();
            }
        }
    }

    /// Waits shortly until all notifications are sent. All watchdog functions must be dropped before.
    pub(super) fn close(mut self) {
        if self.queue.take().is_some() {
            // A service manager that still does not read will notice that the process ended.
            self.all_sent.recv_timeout(CLOSE_TIMEOUT).unwrap_or_default();
        }
    }
}

/// Largest number of waiting notifications: one watchdog's and those of a few reloads.
const MAX_WAITING: usize = 16;
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
