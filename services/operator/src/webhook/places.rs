//! How many connections there may be: whoever reaches the port can open them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

/// Accepts as `inner` does, while there is a place; a connection beyond them is closed at once.
#[derive(Debug, Clone)]
pub(super) struct Places<A> {
    inner: A,
    places: Arc<Semaphore>,
}

impl<A> Places<A> {
    pub(super) fn new(inner: A, count: usize) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(count)) }
    }
}

impl<I, S, A> Accept<I, S> for Places<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Placed<A::Service>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let accepting = place.map(|place| (self.inner.accept(stream, service), place));
        Box::pin(async move {
            let (accepting, place) = accepting.map_err(|_| io::Error::other("there are too many connections"))?;
            let (stream, service) = accepting.await?;
            Ok((stream, Placed { service, _place: Arc::new(place) }))
        })
    }
}

/// What serves one connection, and ends with it.
#[derive(Debug, Clone)]
pub(super) struct Placed<S> {
    service: S,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<R, S: Service<R>> Service<R> for Placed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.service.call(request)
    }
}
