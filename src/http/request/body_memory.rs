//! The memory that request bodies may take, all of them together.
//!
//! Every body takes its share and gives it back once its request is answered. It waits for its first
//! share only, which is all of it if its length was declared. One that turns out to need more gets it
//! at once or is refused: bodies that wait while they hold memory could wait for each other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::response::error::ApiError;

/// What a request may take for each byte of its body: the body, the typed values made of it, their
/// form for the database, and the driver's buffer.
const BYTES_PER_BODY_BYTE: usize = 4;

/// Bytes are counted in units of this many, because semaphores count up to 2³².
const UNIT: usize = 1024;

/// How long a body waits for others to give memory back.
const WAIT: Duration = Duration::from_secs(5);

/// The memory of all bodies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    free: Arc<Semaphore>,
    units: u32,
}

impl BodyMemory {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT as u64)
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Takes what a body of this length needs, as soon as it is free.
    pub async fn wait_for(&self, share: &Share, length: usize) -> Result<(), ApiError> {
        let units = self.units_for(length, 0);
        let taken = Arc::clone(&self.free).acquire_many_owned(units);
        match tokio::time::timeout(WAIT, taken).await {
            Ok(Ok(taken)) => {
                share.add(taken);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(none_left()),
        }
    }

    /// Reserves what a body of `length` bytes and its parsed tree of `tree` bytes need beyond what
    /// the share holds already. Does not wait.
    pub fn grow(&self, share: &Share, length: usize, tree: usize) -> Result<(), ApiError> {
        let more = self.units_for(length, tree).saturating_sub(share.units());
        if more == 0 {
            return Ok(());
        }
        let taken = Arc::clone(&self.free).try_acquire_many_owned(more);
        share.add(taken.map_err(|_| none_left())?);
        Ok(())
    }

    /// A request that needs more than there is may take all of it.
    fn units_for(&self, length: usize, tree: usize) -> u32 {
        let bytes = length
            .saturating_mul(BYTES_PER_BODY_BYTE)
            .saturating_add(tree);
        u32::try_from(bytes.div_ceil(UNIT)).map_or(self.units, |units| units.min(self.units))
    }
}

fn none_left() -> ApiError {
    ApiError::unavailable(
        "The server has too many large requests at the moment. Please retry your request in a \
         moment.",
    )
}

/// The share of one request. What is left of it returns when the last clone is dropped.
#[derive(Debug, Clone, Default)]
pub struct Share(Arc<Mutex<Option<Taken>>>);

impl Share {
    fn units(&self) -> u32 {
        let taken = self.0.lock();
        let units = taken.as_ref().map_or(0, |Taken(units)| units.num_permits());
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn add(&self, more: OwnedSemaphorePermit) {
        in_use().increment(bytes(&more));
        match &mut *self.0.lock() {
            Some(Taken(units)) => units.merge(more),
            none => *none = Some(Taken(more)),
        }
    }

    /// Returns all of it.
    pub fn give_back(&self) {
        self.0.lock().take();
    }
}

/// Units that a request has, which are counted as long as it has them.
#[derive(Debug)]
struct Taken(OwnedSemaphorePermit);

impl Drop for Taken {
    fn drop(&mut self) {
        in_use().decrement(bytes(&self.0));
    }
}

fn in_use() -> metrics::Gauge {
    metrics::gauge!("assistd_body_memory_bytes")
}

fn bytes(units: &OwnedSemaphorePermit) -> f64 {
    (units.num_permits() * UNIT) as f64
}

/// Gives every request a [`Share`] that lasts until its answer begins.
pub async fn hold(mut request: Request, next: Next) -> Response {
    let share = Share::default();
    request.extensions_mut().insert(share.clone());
    let response = next.run(request).await;
    share.give_back();
    response
}
