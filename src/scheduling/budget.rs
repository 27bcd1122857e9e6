//! Who may still spend how much: budgets of job, experiment and team against what is in the ledger, what has run up since
//! the last closed hour, and what is committed (the rest of every job that has capacity, and this plan's own launches).
//!
//! Budgets stop launches only; a job that runs is never stopped for money (its work would be lost and paid twice). A team's
//! monthly budget is charged with the whole rest of a job, even where that reaches into the next month: early rather than late.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::machines::{Fleet, Machine};
use super::snapshot::{JobView, Snapshot};
use crate::capacity::{CapacityKind, Claim, ClaimPhase, ClaimRecord, Offer, Provider};
use crate::training::slack::{fraction_of, remaining_work};
use crate::training::{JobRef, Outlook};
use crate::units::{Money, MoneyError, MoneyPerHour, Span};

/// Whose budget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    Job { uid: String },
    Experiment { namespace: String, name: String },
    Team { name: String },
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Job { .. } => f.write_str("the job's budget"),
            Account::Experiment { name, .. } => write!(f, "the budget of experiment {name}"),
            Account::Team { name } => write!(f, "this month's budget of team {name}"),
        }
    }
}

/// Why an amount may not be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    Short {
        account: Account,
        limit: Money,
        used: Money,
        cost: Money,
        short_by: Money,
    },
    /// Amounts that cannot be added: mixed currencies, or beyond all bounds.
    Incomparable {
        account: Account,
        error: MoneyError,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortfall::Short { account, limit, used, cost, short_by } => {
                let left = limit.checked_sub(*used).unwrap_or(*limit);
                let (limit, cost, short_by) = (amount(*limit), amount(*cost), amount(*short_by));
                let left = if left.is_negative() {
                    format!("{account} ({limit}) is overspent by {}", amount(left.negated()))
                } else {
                    format!("{} of {account} ({limit}) is left", amount(left))
                };
                write!(f, "the rest would cost about {cost}, but {left}: {short_by} short")
            }
            Shortfall::Incomparable { account, error } => {
                write!(f, "{account} cannot be compared with the price: {error}")
            }
        }
    }
}

/// For people: `12.35 USD`.
pub fn amount(money: Money) -> String {
    format!("{} {}", money.rounded_to_cents(), money.currency())
}

#[derive(Clone, Debug)]
struct Entry {
    limit: Option<Money>,
    used: Result<Money, MoneyError>,
}

/// The budgets that one job's costs count against.
pub struct Allowance<'a> {
    entries: Vec<(&'a Entry, Account)>,
}

impl Allowance<'_> {
    /// Whether this much more may be committed. What costs nothing always may.
    pub fn check(&self, cost: Money) -> Result<(), Box<Shortfall>> {
        if cost.is_zero() {
            return Ok(());
        }
        self.entries.iter().try_for_each(|(entry, account)| entry.check(account, cost))
    }
}

impl Entry {
    fn new(limit: Option<Money>, metered: Money) -> Entry {
        Entry { limit, used: Ok(metered) }
    }

    fn check(&self, account: &Account, cost: Money) -> Result<(), Box<Shortfall>> {
        let Some(limit) = self.limit else { return Ok(()) };
        let over = || {
            let used = self.used.clone()?;
            let used = if used.is_zero() { Money::zero(limit.currency()) } else { used };
            let short_by = used.checked_add(cost)?.checked_sub(limit)?;
            Ok::<_, MoneyError>((used, short_by))
        };
        match over() {
            Ok((_, short_by)) if short_by.is_negative() || short_by.is_zero() => Ok(()),
            Ok((used, short_by)) => Err(Box::new(Shortfall::Short { account: account.clone(), limit, used, cost, short_by })),
            Err(error) => Err(Box::new(Shortfall::Incomparable { account: account.clone(), error })),
        }
    }

    fn add(&mut self, money: Money) {
        // Zero in another currency changes nothing.
        if !money.is_zero() {
            self.used = self.used.clone().and_then(|used| if used.is_zero() { Ok(money) } else { used.checked_add(money) });
        }
    }
}

/// The accounts as they stand, this plan's launches included.
pub struct Budgets {
    entries: BTreeMap<Account, Entry>,
    teams_by_namespace: BTreeMap<String, String>,
    /// Metered and run up so far, by job uid.
    spent: BTreeMap<String, Money>,
}

impl Budgets {
    pub fn of(snapshot: &Snapshot, fleet: &Fleet) -> Budgets {
        let mut budgets = Budgets { entries: limits(snapshot), teams_by_namespace: teams_by_namespace(snapshot), spent: BTreeMap::new() };
        for view in &snapshot.jobs {
            budgets.spent.insert(view.job.id.uid.clone(), view.metered);
        }
        let jobs: BTreeMap<&str, &JobView> = snapshot.jobs.iter().map(|view| (view.job.id.uid.as_str(), view)).collect();
        for claim in &snapshot.claims {
            let view = jobs.get(claim.record.job.uid.as_str()).copied();
            let run_up = run_up(claim, fleet.machines(&claim.name), snapshot.now);
            budgets.note_spent(&claim.record.job, run_up);
            budgets.charge(&claim.record, run_up);
            budgets.charge(&claim.record, view.map_or(Money::ZERO_USD, |view| committed(snapshot, view, claim, fleet)));
        }
        budgets
    }

    pub fn team_of(&self, namespace: &str) -> Option<&String> {
        self.teams_by_namespace.get(namespace)
    }

    /// What the job has cost so far: its rows in the ledger, and what has run up since.
    pub fn spent(&self, job: &JobRef) -> Option<Money> {
        self.spent.get(&job.uid).copied()
    }

    /// What the job may still commit.
    pub fn allowance(&self, view: &JobView) -> Allowance<'_> {
        let accounts = self.accounts_of(&view.job.id, &view.job.experiment).into_iter();
        Allowance { entries: accounts.filter_map(|account| Some((self.entries.get(&account)?, account))).collect() }
    }

    pub fn commit(&mut self, view: &JobView, cost: Money) {
        for account in self.accounts_of(&view.job.id, &view.job.experiment) {
            if let Some(entry) = self.entries.get_mut(&account) {
                entry.add(cost);
            }
        }
    }

    fn accounts_of(&self, job: &JobRef, experiment: &str) -> Vec<Account> {
        let mut accounts = vec![
            Account::Job { uid: job.uid.clone() },
            Account::Experiment { namespace: job.namespace.clone(), name: experiment.to_owned() },
        ];
        accounts.extend(self.team_of(&job.namespace).map(|name| Account::Team { name: name.clone() }));
        accounts
    }

    fn charge(&mut self, record: &ClaimRecord, money: Money) {
        let mut accounts = self.accounts_of(&record.job, &record.experiment);
        // The team that paid when the claim was made pays on, also if the namespace changed hands.
        if let Some(team) = &record.team {
            accounts.retain(|account| !matches!(account, Account::Team { .. }));
            accounts.push(Account::Team { name: team.clone() });
        }
        for account in accounts {
            if let Some(entry) = self.entries.get_mut(&account) {
                entry.add(money);
            }
        }
    }

    fn note_spent(&mut self, job: &JobRef, money: Money) {
        if let Some(spent) = self.spent.get_mut(&job.uid)
            && !money.is_zero()
        {
            *spent = if spent.is_zero() { money } else { spent.checked_add(money).unwrap_or(*spent) };
        }
    }
}

fn limits(snapshot: &Snapshot) -> BTreeMap<Account, Entry> {
    let jobs = snapshot.jobs.iter().map(|view| (Account::Job { uid: view.job.id.uid.clone() }, Entry::new(view.job.budget, view.metered)));
    let experiments = snapshot.experiments.iter().map(|view| {
        let account = Account::Experiment { namespace: view.namespace.clone(), name: view.name.clone() };
        (account, Entry::new(view.budget, view.metered))
    });
    let teams = snapshot
        .teams
        .iter()
        .map(|view| (Account::Team { name: view.name.clone() }, Entry::new(view.monthly_budget, view.metered_this_month)));
    jobs.chain(experiments).chain(teams).collect()
}

fn teams_by_namespace(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let owned = |namespace: &String, team: &String| (namespace.clone(), team.clone());
    snapshot.teams.iter().flat_map(|team| team.namespaces.iter().map(move |namespace| owned(namespace, &team.name))).collect()
}

/// price × machines for this long; `None` where that is beyond all bounds.
pub fn cost_of(price: MoneyPerHour, machines: u32, time: TimeDelta) -> Result<Money, MoneyError> {
    price.for_seconds(time.num_seconds().max(0))?.times(i128::from(machines))
}

/// What one more hour costs: reserved capacity is paid already.
pub fn marginal_price(offer: &Offer) -> MoneyPerHour {
    match offer.kind {
        CapacityKind::Reserved => MoneyPerHour(Money::zero(offer.price.per_hour().currency())),
        CapacityKind::Spot | CapacityKind::OnDemand => offer.price,
    }
}

/// What this claim's machines have cost since the last closed hour, at the price of the decision.
fn run_up(claim: &Claim, machines: &[Machine], now: DateTime<Utc>) -> Money {
    let price = marginal_price(&claim.record.offer);
    let zero = Money::zero(price.per_hour().currency());
    let seconds = |machine: &Machine| {
        let from = machine.record.running_at.map(|running_at| running_at.max(claim.status.metered_until.unwrap_or(running_at)))?;
        let until = machine.record.end.as_ref().map_or(now, |end| end.at);
        Some((until - from).max(TimeDelta::zero()))
    };
    let costs = machines.iter().filter_map(seconds).filter_map(|time| cost_of(price, 1, time).ok());
    costs.fold(zero, |sum, cost| sum.checked_add(cost).unwrap_or(sum))
}

/// What the rest of the job will cost on this claim, if it is (to be) used.
fn committed(snapshot: &Snapshot, view: &JobView, claim: &Claim, fleet: &Fleet) -> Money {
    let zero = Money::zero(claim.record.offer.price.per_hour().currency());
    let over = view.status.phase.is_over() || view.job.cancelled || view.deleting;
    let lost = fleet.machines(&claim.name).iter().any(|machine| machine.loss().is_some());
    let open = match claim.status.phase {
        ClaimPhase::Written => claim.record.count,
        ClaimPhase::Granted => fleet.open_count(&claim.name),
        ClaimPhase::Refused | ClaimPhase::Ended => 0,
    };
    if over || lost || open == 0 {
        return zero;
    }
    let time = time_left(snapshot, view, claim);
    cost_of(marginal_price(&claim.record.offer), open, time.unwrap_or_default()).unwrap_or(zero)
}

fn time_left(snapshot: &Snapshot, view: &JobView, claim: &Claim) -> Option<TimeDelta> {
    let attempt = view.status.attempts.iter().find(|attempt| attempt.number == claim.record.attempt);
    match attempt {
        Some(attempt) if attempt.outcome.is_some() => None,
        Some(attempt) => {
            Some(remaining_work(&view.job, fraction_of(attempt, view.progress.as_ref())) + view.job.checkpoint.restart_overhead.delta())
        }
        None => {
            let pool = snapshot.pools.iter().find(|pool| pool.name == claim.record.pool);
            let boot = match claim.record.offer.provider {
                Provider::Aws => pool.map_or(Span::minutes(5), |pool| pool.boot),
                Provider::Nodes => Span::seconds(0),
            };
            Some(Outlook::of_start(&view.job, view.checkpoint.as_ref(), boot).total())
        }
    }
}
