//! Market time: an affine map of real time.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// `market = market_epoch + (real - real_epoch) × speed`. What `GET /purser/clock` answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    pub real_epoch: DateTime<Utc>,
    pub market_epoch: DateTime<Utc>,
    pub speed: f64,
}

impl Clock {
    /// Market time in whole seconds, as EC2 tells it.
    pub fn market(&self, real: DateTime<Utc>) -> DateTime<Utc> {
        let passed = (real - self.real_epoch).as_seconds_f64() * self.speed;
        (self.market_epoch + delta(passed)).trunc_subsecs(0)
    }

    /// When a market time comes, or came, in real time.
    pub fn real(&self, market: DateTime<Utc>) -> DateTime<Utc> {
        let passed = (market - self.market_epoch).as_seconds_f64() / self.speed;
        // Rounded up, so that whoever sleeps until then finds that the time has come.
        self.real_epoch + delta(passed) + TimeDelta::milliseconds(1)
    }

    /// The same market time now, running on at another speed.
    pub fn at_speed(&self, speed: f64, real: DateTime<Utc>) -> Clock {
        Clock { real_epoch: real, market_epoch: self.market(real), speed }
    }
}

fn delta(seconds: f64) -> TimeDelta {
    TimeDelta::microseconds((seconds * 1e6) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_a_fast_market_passes_in_a_second() {
        let clock = Clock { real_epoch: DateTime::UNIX_EPOCH, market_epoch: DateTime::UNIX_EPOCH + TimeDelta::days(1), speed: 60.0 };
        let market = clock.market(DateTime::UNIX_EPOCH + TimeDelta::seconds(2));
        assert_eq!(market, clock.market_epoch + TimeDelta::seconds(120));
        assert!(clock.market(clock.real(market)) >= market);
        let slower = clock.at_speed(1.0, DateTime::UNIX_EPOCH + TimeDelta::seconds(2));
        assert_eq!(slower.market(DateTime::UNIX_EPOCH + TimeDelta::seconds(3)), market + TimeDelta::seconds(1));
    }
}
