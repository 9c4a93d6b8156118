//! What a write that does not come to its end leaves in a place over the network.

use std::pin::Pin;

use tokio::runtime::Handle;

/// Work that is done when a write fails, and also when nobody waits for it any more.
pub(super) struct Cleanup(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Cleanup {
    pub(super) fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }

    /// Does it now if `result` is an error; not at all if it is none.
    pub(super) async fn after<T, E>(mut self, result: Result<T, E>) -> Result<T, E> {
        let work = self.0.take();
        if let (Err(_), Some(work)) = (&result, work) {
            work.await;
        }
        result
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
