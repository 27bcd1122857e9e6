//! An AWS endpoint on this machine, over a simulated market: `purser twin`.
//!
//! ```text
//!  SDK ── EC2 Query, SQS/Pricing/Quotas JSON, STS, S3 ──► server ──► ec2 · sqs · pricing · quotas · sts · s3
//!                                                                       │ Twin::with (one lock)
//!  market (pure) ── Fleet: facts at exact market seconds ───────────► World ──► journal (JSON lines) ──► ledger
//!                                                                       └─► eventbridge → queues,  nodes (kwok)
//! ```
//! It behaves like EC2 where money is at stake: client tokens, capacity errors, partial fleets, interruptions, quotas,
//! eventual consistency. It does not verify signatures. Its ledger is the judge of what was spent, so nothing here may use
//! `crate::cost` or `crate::capacity::billing` (the tidy test sees to it).

pub mod clock;
mod ec2;
mod eventbridge;
mod journal;
pub mod ledger;
pub mod nodes;
mod pricing;
mod protocol;
mod queues;
mod quotas;
mod s3;
mod server;
mod sqs;
mod sts;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::Notify;

pub use journal::Entry;
pub use server::serve;
pub use world::{IMAGE, MarketSource, OpenError, Settings, World};

/// The twin while it runs.
pub struct Twin {
    world: Mutex<World>,
    objects: s3::Objects,
    /// Something happened: a message was posted, or an instance changed.
    changed: Notify,
}

impl Twin {
    pub fn open(settings: Settings) -> Result<Arc<Twin>, OpenError> {
        let objects = s3::Objects::open(settings.state.as_deref())?;
        let world = Mutex::new(World::open(settings, Utc::now())?);
        Ok(Arc::new(Twin { world, objects, changed: Notify::new() }))
    }

    /// Lets the market catch up, does something with the world, and writes down what happened.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        world.catch_up(Utc::now());
        let answer = act(&mut world);
        let happened = self.commit(&mut world);
        drop(world);
        if happened {
            self.changed.notify_waiters();
        }
        answer
    }

    fn commit(&self, world: &mut World) -> bool {
        match world.commit() {
            Ok(news) => !news.is_empty(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the twin's journal is behind");
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A panic while the lock was held cannot have left half a fact: facts are applied one by one.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A future that ends when something has happened since this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    /// Lets things happen at their time, for as long as it is polled.
    pub async fn run_market(&self) {
        loop {
            let changed = self.changed.notified();
            let wait = self.with(|world| world.fleet.next_event().map(|at| world.clock.real(at) - Utc::now()));
            // Not longer than a minute: real time may be set.
            let wait = wait.and_then(|wait| wait.to_std().ok().or(Some(Duration::ZERO))).unwrap_or(Duration::from_secs(60));
            tokio::select! {
                () = tokio::time::sleep(wait.min(Duration::from_secs(60))) => {}
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
