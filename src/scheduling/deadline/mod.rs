//! When to wait for spot, when to sit on it, and when to pay for on-demand, so that a deadline is kept at the least cost.
//!
//! ```text
//!  spells seen ─ learn ─► Behaviour ─ solve ─► Table ─ values ─► Values ─ choose ─► Verdict
//!                             └── doubt ──► many markets ── forecast ──► Forecast: cost and end as intervals
//! ```
//! The published policies follow a fixed rule (Wu et al., "Can't Be Late", NSDI 2024: even progress, with a hysteresis).
//! Here the market is learned ([`behaviour`]), the rest of the job is a Markov decision process on it ([`value`], Puterman,
//! "Markov Decision Processes", chapter 4), and the choice is the one with the least expected cost. That a deadline is kept
//! does not rest on what was learned: the caller's safety net starts on-demand while there is still time.
//! Pure statistics; knows neither jobs nor clouds. docs/reference/scheduling.md tells how well it does.

pub mod behaviour;
pub mod doubt;
pub mod forecast;
pub mod memo;
pub mod value;

pub use behaviour::{Behaviour, Spell};
pub use forecast::{Forecast, Interval, Outlook, forecast};
pub use value::{Market, Sitting, Table, Terms, Values};

/// What to do for the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Spot,
    OnDemand,
}

/// Idling beside spot that is up must promise more than this part of a launch: what was learned is never quite true, and a
/// launch put off for a better zone may be put off for ever.
const IDLING_LAUNCHES: f64 = 0.5;
/// A change of seat must promise more than this part of a step: the grid's own error.
const CHANGE_STEPS: f64 = 0.05;

impl Values {
    /// As the choice sees them: with what speaks against idling and against change.
    pub fn weighed(self, terms: &Terms, market: Market, sitting: Sitting) -> Values {
        let change = CHANGE_STEPS * terms.step_hours * terms.spot_price;
        let idling = IDLING_LAUNCHES * terms.overhead_hours * terms.spot_price;
        let mut values = self;
        match (sitting, market) {
            // Who leaves spot that is up and as dear as the rest pays for another launch and gains nothing.
            (Sitting::Spot, _) => {
                values.idle = f64::INFINITY;
                values.spot -= change;
            }
            (Sitting::OnDemand, Market::Up { .. }) => {
                values.idle += idling;
                values.on_demand -= change;
            }
            (Sitting::OnDemand, Market::Down { .. }) => values.on_demand -= change,
            (Sitting::Nowhere, Market::Up { .. }) => values.idle += idling,
            (Sitting::Nowhere, Market::Down { .. }) => {}
        }
        values
    }

    pub fn least(&self) -> f64 {
        self.idle.min(self.spot).min(self.on_demand)
    }

    /// Spot before waiting before on-demand where they promise the same.
    pub fn verdict(&self) -> Verdict {
        match self {
            values if values.spot <= values.idle && values.spot <= values.on_demand => Verdict::Spot,
            values if values.idle <= values.on_demand => Verdict::Wait,
            _ => Verdict::OnDemand,
        }
    }
}
