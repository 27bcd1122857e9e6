//! Metering: what the machines of all claims cost in one closed clock hour.
//!
//! ```text
//!   claims' records ─┐
//!   price histories ─┼─► Meter::close(window) ─► rows: the window's own charges
//!   what is booked  ─┘          │                     + corrections of earlier windows
//!                               └─► or NotYet: what has to be known first
//! ```
//! A window closes once every machine that was open in it is known to have ended, or was seen alive at or after its end;
//! after a grace time it closes with an estimate. A closed window never changes: what turns out differently later (the
//! minute that a short run costs at least, the free first hour of an interrupted spot instance, an end nobody saw, a
//! price that came late) is booked as a correction in the next window that closes, and names the one it mends. So the sum
//! over all windows is what [`billing::charges`] says of the final record, in whatever order knowledge arrives.
//!
//! Knows nothing of where rows are kept (`crate::ledger`), nor of the time: `now` is market time and is given.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::charge::{Charge, Class, Payer, Usage};
use super::prices::PriceBook;
use crate::capacity::billing::{self, BillingError, Run, Term, Until, hour_of};
use crate::capacity::{Claim, ClaimPhase, ClaimedInstance, EndCause};
use crate::units::{Currency, Money, MoneyError};

pub use crate::capacity::billing::is_settled;

/// One machine's sum in one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BookingKey {
    pub claim: String,
    pub instance: String,
    /// The window that the rows count to: the mended one for corrections.
    pub window: DateTime<Utc>,
}

/// What the ledger holds by machine and window, corrections counted to the window they mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookings(BTreeMap<BookingKey, Money>);

impl Bookings {
    pub fn add(&mut self, key: BookingKey, amount: Money) -> Result<(), MoneyError> {
        let sum = self.0.get(&key).map_or(Ok(amount), |booked| booked.checked_add(amount))?;
        self.0.insert(key, sum);
        Ok(())
    }

    /// Counts the rows of a window that was just committed.
    pub fn add_rows(&mut self, rows: &[Charge]) -> Result<(), MoneyError> {
        rows.iter().try_for_each(|row| {
            let key = BookingKey { claim: row.payer.claim.clone(), instance: row.resource.clone(), window: row.counts_to() };
            self.add(key, row.cost)
        })
    }

    fn of<'a>(&'a self, claim: &str, instance: &str) -> impl Iterator<Item = (DateTime<Utc>, Money)> + 'a {
        let first = BookingKey { claim: claim.to_owned(), instance: instance.to_owned(), window: DateTime::<Utc>::MIN_UTC };
        let last = BookingKey { window: DateTime::<Utc>::MAX_UTC, ..first.clone() };
        self.0.range(first..=last).map(|(key, amount)| (key.window, *amount))
    }
}

/// Why a window cannot close yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    #[error("the window ends at {ends}")]
    Open { ends: DateTime<Utc> },
    #[error("the cloud's answer to {claim} is not recorded yet")]
    Unanswered { claim: String },
    #[error("it is not known yet when {instance} of {claim} began to run")]
    StartUnknown { claim: String, instance: String },
    #[error("{instance} of {claim} was not seen alive after the window, nor has its end been seen")]
    NotSeen { claim: String, instance: String },
    #[error("the price history of {offer} is missing")]
    NoPrices { offer: String },
    #[error("{instance} of {claim} cannot be charged: {source}")]
    Charge { claim: String, instance: String, source: BillingError },
}

/// How far a claim's charges are in the ledger for certain, and their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    pub until: DateTime<Utc>,
    pub amount: Money,
}

/// Everything that closing a window depends on.
pub struct Meter<'a> {
    pub claims: &'a [Claim],
    pub prices: &'a PriceBook,
    pub booked: &'a Bookings,
    /// How long (market time) a window waits for knowledge before it closes with an estimate.
    pub grace: TimeDelta,
}

impl Meter<'_> {
    /// The rows of a window, by its start: its own charges, and corrections of earlier windows.
    pub fn close(&self, window: DateTime<Utc>, now: DateTime<Utc>) -> Result<Vec<Charge>, NotYet> {
        let ends = window + TimeDelta::hours(1);
        if now < ends {
            return Err(NotYet::Open { ends });
        }
        let horizon = Horizon { ends, patience_is_over: now >= ends + self.grace };
        let mut rows = Vec::new();
        for claim in self.claims {
            if claim.status.phase == ClaimPhase::Written && claim.record.decided_at < ends && !horizon.patience_is_over {
                return Err(NotYet::Unanswered { claim: claim.name.clone() });
            }
            for instance in &claim.status.instances {
                let due = self.due(claim, instance, horizon)?;
                rows.extend(self.rows_of(claim, instance, window, &due).map_err(|source| refused(claim, instance, source.into()))?);
            }
        }
        Ok(rows)
    }

    /// How far this claim is in the ledger, given that every window before `closed_until` is closed. Estimates count only
    /// once nothing can contradict them any more.
    pub fn progress(&self, claim: &Claim, closed_until: DateTime<Utc>) -> Result<Metered, NotYet> {
        let horizon = Horizon { ends: closed_until, patience_is_over: true };
        let mut until = closed_until;
        if claim.status.phase == ClaimPhase::Written {
            until = until.min(hour_of(claim.record.decided_at));
        }
        let mut booked = Vec::new();
        for instance in &claim.status.instances {
            let due = self.due(claim, instance, horizon)?;
            let first_unsure = due.first_unsure(closed_until);
            let first_unbooked = self.differences(claim, instance, &due).map_err(|source| refused(claim, instance, source.into()))?.into_iter().map(|(of, _)| of).min();
            until = [first_unsure, first_unbooked].into_iter().flatten().fold(until, DateTime::min);
            booked.extend(self.booked.of(&claim.name, &instance.id).map(|(_, amount)| amount));
        }
        let currency = booked.first().map_or_else(|| claim.record.offer.price.0.currency(), Money::currency);
        let amount = crate::units::money::sum(currency, booked).map_err(|source| NotYet::Charge {
            claim: claim.name.clone(),
            instance: "any".to_owned(),
            source: source.into(),
        })?;
        Ok(Metered { until, amount })
    }

    /// What a machine costs by window, up to the horizon, as far as is known.
    fn due(&self, claim: &Claim, instance: &ClaimedInstance, horizon: Horizon) -> Result<Due, NotYet> {
        if let Some(end) = instance.end.as_ref().filter(|end| end.cause == EndCause::NeverRan) {
            // A late message may still say that it ran: after a crash those received before it come again last.
            return Ok(Due { terms: Vec::new(), unsure: vec![Guess { at: end.at, recorded: true }] });
        }
        let Some(Known { run, unsure }) = known(claim, instance, horizon)? else { return Ok(Due::default()) };
        let offer = &claim.record.offer;
        let prices = self.prices.of(offer).ok_or_else(|| NotYet::NoPrices { offer: offer.to_string() })?;
        let mut terms = billing::charges(&run, &prices).map_err(|source| refused(claim, instance, source))?;
        terms.retain(|term| term.window < horizon.ends);
        Ok(Due { terms, unsure })
    }

    fn rows_of(&self, claim: &Claim, instance: &ClaimedInstance, window: DateTime<Utc>, due: &Due) -> Result<Vec<Charge>, MoneyError> {
        let own = due.terms.iter().filter(|term| term.window == window).map(|term| own_charge(claim, instance, term, due));
        let mended = self.differences(claim, instance, due)?.into_iter().filter(|(of, _)| *of < window);
        Ok(own.chain(mended.map(|(of, difference)| correction(claim, instance, window, of, difference, due))).collect())
    }

    /// The windows whose bookings differ from what is due, with what is missing (or too much, when negative).
    fn differences(&self, claim: &Claim, instance: &ClaimedInstance, due: &Due) -> Result<Vec<(DateTime<Utc>, Money)>, MoneyError> {
        let booked: BTreeMap<DateTime<Utc>, Money> = self.booked.of(&claim.name, &instance.id).collect();
        let windows: BTreeSet<DateTime<Utc>> = due.terms.iter().map(|term| term.window).chain(booked.keys().copied()).collect();
        let mut differences = Vec::new();
        for window in windows {
            let zero = Money::zero(currency_of(&booked, due));
            let due = crate::units::money::sum(zero.currency(), due.terms.iter().filter(|term| term.window == window).map(|term| term.amount))?;
            let difference = due.checked_sub(booked.get(&window).copied().unwrap_or(zero))?;
            if !difference.is_zero() {
                differences.push((window, difference));
            }
        }
        Ok(differences)
    }
}

/// The end of the window that is closing, and whether it has waited long enough.
#[derive(Clone, Copy)]
struct Horizon {
    ends: DateTime<Utc>,
    patience_is_over: bool,
}

/// A run as far as it is known.
struct Known {
    run: Run,
    /// Times that are guesses, with whether anything later may still contradict them.
    unsure: Vec<Guess>,
}

#[derive(Clone, Copy)]
struct Guess {
    at: DateTime<Utc>,
    /// The record holds it as final, after everybody who could know better was asked; messages may still come late.
    recorded: bool,
}

#[derive(Default)]
struct Due {
    terms: Vec<Term>,
    unsure: Vec<Guess>,
}

impl Due {
    fn is_estimated(&self, window: DateTime<Utc>) -> bool {
        self.unsure.iter().any(|guess| hour_of(guess.at) == window)
    }

    /// The earliest window that rests on a guess which may still be contradicted.
    fn first_unsure(&self, closed_until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let settles_after = TimeDelta::seconds(billing::ESTIMATE_SETTLES_AFTER_SECONDS);
        self.unsure.iter().filter(|guess| !guess.recorded || closed_until < guess.at + settles_after).map(|guess| hour_of(guess.at)).min()
    }
}

/// `None` where the machine costs nothing before the horizon.
fn known(claim: &Claim, instance: &ClaimedInstance, horizon: Horizon) -> Result<Option<Known>, NotYet> {
    if instance.running_at.unwrap_or(instance.launched_at) >= horizon.ends {
        return Ok(None);
    }
    let mut unsure = Vec::new();
    let running = match instance.running_at {
        Some(at) => at,
        None if horizon.patience_is_over => {
            unsure.push(Guess { at: instance.launched_at, recorded: instance.end.is_some() });
            instance.launched_at
        }
        None => return Err(NotYet::StartUnknown { claim: claim.name.clone(), instance: instance.id.clone() }),
    };
    let until = match (&instance.end, instance.seen_alive_at) {
        (Some(end), _) => {
            unsure.extend(end.estimated.then_some(Guess { at: end.at, recorded: true }));
            Until::Ended(end.at, end.cause)
        }
        (None, Some(seen)) if seen >= horizon.ends => Until::Alive(horizon.ends),
        (None, seen) if horizon.patience_is_over => {
            let at = seen.unwrap_or(running).max(running);
            unsure.push(Guess { at, recorded: false });
            Until::Alive(at)
        }
        (None, _) => return Err(NotYet::NotSeen { claim: claim.name.clone(), instance: instance.id.clone() }),
    };
    let offer = &claim.record.offer;
    Ok(Some(Known { run: Run { provider: offer.provider, kind: offer.kind, running, until }, unsure }))
}

fn own_charge(claim: &Claim, instance: &ClaimedInstance, term: &Term, due: &Due) -> Charge {
    let seconds = term.seconds();
    Charge {
        payer: payer(claim),
        offer: claim.record.offer.clone(),
        resource: instance.id.clone(),
        window: term.window,
        class: Class::Regular,
        from: term.from,
        to: term.to,
        cost: term.amount,
        usage: Some(Usage { seconds, unit_price: term.price.0 }),
        estimated: due.is_estimated(term.window),
        description: format!("{} for {seconds} s at {}", claim.record.offer, term.price),
    }
}

fn correction(claim: &Claim, instance: &ClaimedInstance, window: DateTime<Utc>, of: DateTime<Utc>, difference: Money, due: &Due) -> Charge {
    Charge {
        payer: payer(claim),
        offer: claim.record.offer.clone(),
        resource: instance.id.clone(),
        window,
        class: Class::Correction { of },
        from: window,
        to: window + TimeDelta::hours(1),
        cost: difference,
        usage: None,
        estimated: due.is_estimated(of),
        description: format!("{}: mends the hour from {}", claim.record.offer, of.format("%Y-%m-%d %H:%M UTC")),
    }
}

fn payer(claim: &Claim) -> Payer {
    let record = &claim.record;
    Payer {
        experiment: format!("{}/{}", record.job.namespace, record.experiment),
        team: record.team.clone(),
        job: record.job.clone(),
        attempt: record.attempt,
        claim: claim.name.clone(),
    }
}

fn currency_of(booked: &BTreeMap<DateTime<Utc>, Money>, due: &Due) -> Currency {
    due.terms.first().map(|term| term.amount).or_else(|| booked.values().next().copied()).map_or(Currency::USD, |amount| amount.currency())
}

fn refused(claim: &Claim, instance: &ClaimedInstance, source: BillingError) -> NotYet {
    NotYet::Charge { claim: claim.name.clone(), instance: instance.id.clone(), source }
}

#[cfg(test)]
mod tests;
