//! The hall: one thread on which players are served, apart from everybody who waits for an answer. Decides how many
//! have a place there, and how often it looks at what they sent: after each look it rests for [`REST`], so that the
//! reports of that time cost one wake together. It never rests while work is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::server::{LAST_WORD, told};

/// How long the hall rests after it did all there was: a report may wait so long. Nobody sees it, since what players
/// tell is looked at once a tick; of the reports of a node with 1,400 viewers five and more come in that time.
pub(super) const REST: Duration = Duration::from_millis(20);

/// A way to have players served in the hall.
#[derive(Clone, Debug)]
pub(crate) struct BatchingRuntime {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl BatchingRuntime {
    /// Opens a hall with so many places, until `stop` turns true and its guests had their last word.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub(crate) fn open(places: usize, mut stop: watch::Receiver<bool>) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_io().enable_time().on_thread_park(|| std::thread::sleep(REST)).build()?;
        let hall = Self {
            runtime: runtime.handle().clone(),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
        };
        let guests_leave = async move {
            told(&mut stop).await;
            tokio::time::sleep(LAST_WORD).await;
        };
        std::thread::Builder::new().name("players".to_owned()).spawn(move || runtime.block_on(guests_leave))?;
        Ok(hall)
    }

    /// Its places.
    #[must_use]
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    /// A place, where one is free.
    ///
    /// # Errors
    /// When none is.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.places().try_acquire_owned()
    }

    /// Has it wait for the connections of `listener`, which was opened elsewhere.
    ///
    /// # Errors
    /// When the listener cannot be moved.
    pub(crate) fn adopt(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _here = self.runtime.enter();
        TcpListener::from_std(listener)
    }

    /// Lets it do `work`.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }
}
