//! A bound on the memory that all request bodies take together.
//!
//! Every request reserves memory for its body and releases it when its response begins. It waits only
//! for its first reservation, which covers the whole body if its length was declared. A later one is
//! granted at once or refused, because requests that wait while they hold memory could deadlock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory per byte of a body: the body, the values parsed from it, their encoding for the database,
/// and the driver's buffer.
const BYTES_PER_BODY_BYTE: usize = 4;

/// Bytes per permit of the semaphore, which counts up to 2³².
const UNIT_BYTES: usize = 1024;

const MAX_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct BodyMemory {
    free: Arc<Semaphore>,
    units: u32,
}

impl BodyMemory {
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES as u64)
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    pub async fn reserve(&self, share: &Share, length: usize) -> Result<(), OutOfBodyMemory> {
        let permits = Arc::clone(&self.free).acquire_many_owned(self.units_for(length, 0));
        match tokio::time::timeout(MAX_WAIT, permits).await {
            Ok(Ok(permits)) => {
                share.add(permits);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(OutOfBodyMemory),
        }
    }

    /// Extends a reservation to a body of `length` bytes and a parsed tree of `tree` bytes. Does not
    /// wait.
    pub fn extend(&self, share: &Share, length: usize, tree: usize) -> Result<(), OutOfBodyMemory> {
        let more = self.units_for(length, tree).saturating_sub(share.units());
        if more == 0 {
            return Ok(());
        }
        let permits = Arc::clone(&self.free).try_acquire_many_owned(more);
        share.add(permits.map_err(|_| OutOfBodyMemory)?);
        Ok(())
    }

    /// The permits for a request; at most all of them, so that no request waits forever.
    fn units_for(&self, length: usize, tree: usize) -> u32 {
        let bytes = length
            .saturating_mul(BYTES_PER_BODY_BYTE)
            .saturating_add(tree);
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_or(self.units, |units| units.min(self.units))
    }
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the memory for request bodies is in use")]
pub struct OutOfBodyMemory;

/// The memory that one request has reserved. It is released when the last clone is dropped, if not
/// before.
#[derive(Debug, Clone, Default)]
pub struct Share(Arc<Mutex<Option<Reserved>>>);

impl Share {
    fn units(&self) -> u32 {
        let reserved = self.0.lock();
        let units = reserved
            .as_ref()
            .map_or(0, |Reserved(permits)| permits.num_permits());
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn add(&self, more: OwnedSemaphorePermit) {
        bytes_gauge().increment(bytes(&more));
        match &mut *self.0.lock() {
            Some(Reserved(permits)) => permits.merge(more),
            none => *none = Some(Reserved(more)),
        }
    }

    pub fn release(&self) {
        self.0.lock().take();
    }
}

#[derive(Debug)]
struct Reserved(OwnedSemaphorePermit);

impl Drop for Reserved {
    fn drop(&mut self) {
        bytes_gauge().decrement(bytes(&self.0));
    }
}

fn bytes_gauge() -> metrics::Gauge {
    metrics::gauge!("assistd_body_memory_bytes")
}

fn bytes(permits: &OwnedSemaphorePermit) -> f64 {
    (permits.num_permits() * UNIT_BYTES) as f64
}
