//! What `/healthz` and `/readyz` answer: shared between the loops that know and the server that tells.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A leader whose last good cycle is older is not ready.
const STALE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct State {
    webhook_serves: bool,
    leads: bool,
    last_good_cycle: Option<Instant>,
    failure: Option<String>,
}

#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

impl Health {
    pub fn webhook_serves(&self) {
        self.with(|state| state.webhook_serves = true);
    }

    pub fn leads(&self) {
        self.with(|state| state.leads = true);
    }

    pub fn cycle_succeeded(&self) {
        self.with(|state| {
            state.last_good_cycle = Some(Instant::now());
            state.failure = None;
        });
    }

    /// Whether this failure is news.
    pub fn cycle_failed(&self, why: &str) -> bool {
        self.with(|state| {
            let news = state.failure.as_deref() != Some(why);
            state.failure = Some(why.to_owned());
            news
        })
    }

    /// A standby is ready (it answers the webhook); a leader only while its cycles succeed.
    pub fn ready(&self, needs_webhook: bool) -> Result<(), String> {
        self.with(|state| {
            if needs_webhook && !state.webhook_serves {
                return Err("the admission webhook does not serve yet".to_owned());
            }
            match (&state.failure, state.last_good_cycle) {
                (Some(why), _) => Err(format!("the last cycle failed: {why}")),
                (None, Some(at)) if at.elapsed() > STALE => Err(format!("no cycle has succeeded for {} s", at.elapsed().as_secs())),
                (None, None) if state.leads => Err("the first cycle is under way".to_owned()),
                (None, _) => Ok(()),
            }
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_ready_and_a_leader_only_after_a_good_cycle() {
        let health = Health::default();
        assert!(health.ready(false).is_ok());
        health.leads();
        assert!(health.ready(false).is_err());
        health.cycle_succeeded();
        assert!(health.ready(false).is_ok());
        assert!(health.cycle_failed("no API server"));
        assert!(!health.cycle_failed("no API server"), "the same failure is logged once");
        assert!(health.ready(false).unwrap_err().contains("no API server"));
    }
}
