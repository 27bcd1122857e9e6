//! Two clocks: real time, and market time, an affine map of it.
//!
//! Against AWS both are the same. Against the twin the market runs faster; its map is fetched once, so that nobody has to
//! ask for the time again. Prices, deadlines, metering and notices are market time; leases, certificates, tokens and grace
//! are real time.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

const PATH: &str = "/purser/clock";

/// `market = market_epoch + (real - real_epoch) × speed`, as `GET /purser/clock` of the twin serves it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarketClock {
    real_epoch: DateTime<Utc>,
    market_epoch: DateTime<Utc>,
    speed: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("could not read the market's clock at {url}; is the twin running?")]
    Fetch { url: String, #[source] source: reqwest::Error },
    #[error("the market's clock at {url} runs at speed {speed}; a clock runs at more than 0 and at most 100000")]
    Speed { url: String, speed: f64 },
}

impl MarketClock {
    /// Market time is real time.
    pub fn identity() -> MarketClock {
        MarketClock { real_epoch: DateTime::UNIX_EPOCH, market_epoch: DateTime::UNIX_EPOCH, speed: 1.0 }
    }

    /// `url` is the clock itself or the server that has it.
    pub async fn fetch(url: &str) -> Result<MarketClock, ClockError> {
        let url = &if url.ends_with(PATH) { url.to_owned() } else { format!("{}{PATH}", url.trim_end_matches('/')) };
        let failed = |source| ClockError::Fetch { url: url.to_owned(), source };
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(10)).build().map_err(failed)?;
        let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let clock: MarketClock = answer.json().await.map_err(failed)?;
        if !(clock.speed > 0.0 && clock.speed <= 100_000.0) {
            return Err(ClockError::Speed { url: url.to_owned(), speed: clock.speed });
        }
        Ok(clock)
    }

    pub fn speed(&self) -> f64 {
        self.speed
    }

    pub fn real_now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.market(self.real_now())
    }

    /// The market time of a real time.
    pub fn market(&self, real: DateTime<Utc>) -> DateTime<Utc> {
        self.market_epoch + scaled(real - self.real_epoch, self.speed)
    }

    /// How long so much market time takes.
    pub fn real_span(&self, market: TimeDelta) -> TimeDelta {
        scaled(market, 1.0 / self.speed)
    }
}

/// The factor 1 must not go through floating point: times since 1970 in microseconds would lose their last digits.
fn scaled(span: TimeDelta, factor: f64) -> TimeDelta {
    if factor == 1.0 {
        return span;
    }
    let microseconds = span.num_microseconds().unwrap_or(i64::MAX) as f64 * factor;
    TimeDelta::microseconds(microseconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_market_runs_ahead_and_its_spans_shrink() {
        let clock: MarketClock = serde_json::from_value(serde_json::json!({
            "realEpoch": "2026-01-01T00:00:00Z", "marketEpoch": "2024-05-01T00:00:00Z", "speed": 60.0
        }))
        .unwrap();
        let real = DateTime::parse_from_rfc3339("2026-01-01T00:01:00Z").unwrap().to_utc();
        assert_eq!(clock.market(real).to_rfc3339(), "2024-05-01T01:00:00+00:00");
        assert_eq!(clock.real_span(TimeDelta::seconds(120)), TimeDelta::seconds(2));
    }

    #[test]
    fn the_identity_keeps_every_digit() {
        let now = Utc::now();
        assert_eq!(MarketClock::identity().market(now), now);
    }
}
