//! Answers kept for a while, one asker a key at a time.
//!
//! Two clocks: a real age for everything, and a market age as well for what follows the market (prices).

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::MarketClock;
use super::failure::Optional;

/// Permissions may be granted and services come back, but asking in vain every second helps nobody.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How long an answer holds: until the first of both is over.
#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    pub real: Duration,
    pub market: Option<TimeDelta>,
}

impl Lifetime {
    pub const fn real(real: Duration) -> Lifetime {
        Lifetime { real, market: None }
    }
}

struct Kept<V> {
    at: Instant,
    market_at: DateTime<Utc>,
    lifetime: Lifetime,
    value: V,
}

type Slot<V> = Arc<tokio::sync::Mutex<Option<Kept<V>>>>;

/// Values by key, each with the time it was learnt.
pub(super) struct Cached<K, V> {
    clock: MarketClock,
    lifetime: Lifetime,
    slots: Mutex<HashMap<K, Slot<V>>>,
}

impl<K: Eq + Hash, V: Clone> Cached<K, V> {
    pub fn new(clock: &MarketClock, lifetime: Lifetime) -> Self {
        Cached { clock: Arc::clone(clock), lifetime, slots: Mutex::default() }
    }

    /// The kept value, or what `load` learns. An error is not kept: the next asker tries again.
    pub async fn get<E, F: Future<Output = Result<V, E>>>(&self, key: K, load: impl FnOnce() -> F) -> Result<V, E> {
        self.get_for(key, load, |_| self.lifetime).await
    }

    async fn get_for<E, F: Future<Output = Result<V, E>>>(&self, key: K, load: impl FnOnce() -> F, lifetime_of: impl FnOnce(&V) -> Lifetime) -> Result<V, E> {
        let slot = Arc::clone(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let mut kept = slot.lock().await;
        if let Some(fresh) = kept.as_ref().filter(|kept| self.is_fresh(kept)) {
            return Ok(fresh.value.clone());
        }
        let (at, market_at) = (Instant::now(), (self.clock)());
        let value = load().await?;
        *kept = Some(Kept { at, market_at, lifetime: lifetime_of(&value), value: value.clone() });
        Ok(value)
    }

    /// For when an action has made all of it stale.
    pub fn forget(&self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn is_fresh(&self, kept: &Kept<V>) -> bool {
        // A market clock that was set back makes everything stale.
        let market_age = (self.clock)() - kept.market_at;
        kept.at.elapsed() < kept.lifetime.real && kept.lifetime.market.is_none_or(|lifetime| TimeDelta::zero() <= market_age && market_age < lifetime)
    }
}

impl<K: Eq + Hash, T: Clone> Cached<K, Optional<T>> {
    /// The same for knowledge that may be missing: "not known" is kept too, but for a minute at most.
    pub async fn get_optional<F: Future<Output = Optional<T>>>(&self, key: K, load: impl FnOnce() -> F) -> Optional<T> {
        let load = || async { Ok::<_, Infallible>(load().await) };
        let lifetime_of = |value: &Optional<T>| match value {
            Ok(_) => self.lifetime,
            Err(_) => Lifetime { real: self.lifetime.real.min(UNKNOWN_FOR), ..self.lifetime },
        };
        let Ok(value) = self.get_for(key, load, lifetime_of).await;
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_the_market_has_overtaken_is_asked_again_and_errors_are_not_kept() {
        let minutes = Arc::new(AtomicI64::new(0));
        let clock: MarketClock = Arc::new({
            let minutes = Arc::clone(&minutes);
            move || DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes.load(Ordering::Relaxed))
        });
        let cache: Cached<&str, u32> = Cached::new(&clock, Lifetime { real: Duration::from_secs(3600), market: Some(TimeDelta::minutes(5)) });
        let asked = AtomicU32::new(0);
        let ask = || async { Ok::<_, ()>(asked.fetch_add(1, Ordering::Relaxed)) };

        assert_eq!(cache.get("a", || async { Err::<u32, ()>(()) }).await, Err(()));
        assert_eq!((cache.get("a", ask).await, cache.get("a", ask).await), (Ok(0), Ok(0)));
        minutes.store(5, Ordering::Relaxed);
        assert_eq!(cache.get("a", ask).await, Ok(1));
        minutes.store(4, Ordering::Relaxed);
        assert_eq!(cache.get("a", ask).await, Ok(2), "the clock was set back");
        cache.forget();
        assert_eq!((cache.get("a", ask).await, cache.get("b", ask).await), (Ok(3), Ok(4)));
    }
}
