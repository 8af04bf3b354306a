//! A runtime of one thread that handles requests in batches. Decides how many connections it holds and how often it
//! polls them: when nothing is left to do, the thread sleeps for [`POLL_INTERVAL`], so that all requests of that time
//! cost one wakeup together.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::shutdown::{SHUTDOWN_GRACE, requested};

/// How long the thread sleeps when it is idle; a request may wait so long. The delay is harmless, because the engine
/// takes the reports of players once a tick. On a node with 1,400 viewers, five or more reports arrive in this time.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A handle of the runtime.
#[derive(Clone, Debug)]
pub(crate) struct BatchingRuntime {
    runtime: Handle,
    permits: Arc<Semaphore>,
}

impl BatchingRuntime {
    /// Starts the thread, for at most `connections` connections. It ends [`SHUTDOWN_GRACE`] after `stop` turns true.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(connections: usize, mut stop: watch::Receiver<bool>) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_io().enable_time().on_thread_park(|| std::thread::sleep(POLL_INTERVAL)).build()?;
        let handle = Self {
            runtime: runtime.handle().clone(),
            permits: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
        };
        let until_stopped = async move {
            requested(&mut stop).await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        std::thread::Builder::new().name("players".to_owned()).spawn(move || runtime.block_on(until_stopped))?;
        Ok(handle)
    }

    /// One permit for each connection that the runtime may hold.
    #[must_use]
    pub(crate) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// A permit for one connection.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.permits().try_acquire_owned()
    }

    /// Registers a listener, which was opened on another runtime, with this one.
    ///
    /// # Errors
    /// When the listener cannot be moved.
    pub(crate) fn adopt(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _entered = self.runtime.enter();
        TcpListener::from_std(listener)
    }

    /// Runs a task on the thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }
}
