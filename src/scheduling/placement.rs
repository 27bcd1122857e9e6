//! Which offer a gang is put on, or why it waits.
//!
//! ```text
//!  every offer of every pool ─► what rules it out? ─► reserved ─► spot, while a lost start is affordable ─► on-demand
//! ```
//! Safe and simple: idle reserved capacity first (it is paid already); then the cheapest spot offer as long as losing it once
//! more would still leave time for an uninterrupted run before the deadline; from then on the cheapest on-demand offer. A job
//! without deadline takes spot, and on-demand only where spot is not allowed or not sold at all.
//! Inside that net, [`super::advice`] says which spot offer, and whether waiting for spot still pays.

use chrono::{DateTime, Utc};

use super::advice::{self, Advice, Prospect, Question, Verdict};
use super::budget::{Allowance, Budgets, Shortfall, amount, cost_of, marginal_price};
use super::markets::Markets;
use super::refusals::{Avoided, Refusals};
use super::snapshot::{JobView, PoolView, Snapshot};
use super::supply::Supply;
use super::{DecisionKind, Reason, ReasonCode};
use crate::capacity::offer::QuotedOffer;
use crate::capacity::{CapacityKind, ClaimRecord, Offer, Provider, RefusalCode};
use crate::training::{Considered, Outlook};
use crate::units::{Money, MoneyPerHour, Span};

/// Offers named in a decision at most.
const CONSIDERED_MAX: usize = 10;

/// What placement may look at besides the job.
pub struct Market<'a> {
    pub snapshot: &'a Snapshot,
    pub shelf: &'a Shelf<'a>,
    pub refusals: &'a Refusals<'a>,
    pub markets: &'a Markets,
    pub supply: &'a Supply<'a>,
    pub budgets: &'a Budgets,
}

/// Every offer, in the order in which they are preferred.
pub struct Shelf<'a> {
    offers: Vec<(&'a PoolView, &'a QuotedOffer)>,
}

impl<'a> Shelf<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Shelf<'a> {
        let of_pool = |pool: &'a PoolView| pool.offers.iter().map(move |quoted| (pool, quoted));
        let mut offers: Vec<_> = snapshot.pools.iter().flat_map(of_pool).collect();
        offers.sort_by(|a, b| rank(a).cmp(&rank(b)));
        Shelf { offers }
    }
}

/// What was chosen, or why nothing.
pub struct Placement {
    pub kind: DecisionKind,
    pub because: Reason,
    pub considered: Vec<Considered>,
    pub finish: Option<DateTime<Utc>>,
    pub cost: Option<Money>,
    pub prospect: Option<Prospect>,
    pub launch: Option<Launch>,
}

/// The capacity to claim.
pub struct Launch {
    pub pool: String,
    pub offer: Offer,
    pub nodes: Vec<String>,
    pub request_template: String,
}

/// What stands against an offer; the order is that of the telling: the most hopeful last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Against {
    PoolNotReady {
        message: String,
    },
    Unfit,
    ZoneNotWanted,
    KindNotAllowed,
    PoolSmaller {
        machines_max: u32,
    },
    Rejected {
        message: String,
    },
    Bound {
        available: u32,
        bound: String,
    },
    PoolFull {
        free: u32,
        machines_max: u32,
    },
    TooFewNodes {
        free: u32,
    },
    /// Others would start in time, this one would not.
    TooSlow,
    TooDear(Box<Shortfall>),
    Refused(Avoided),
}

struct Candidate<'a> {
    pool: &'a PoolView,
    quoted: &'a QuotedOffer,
    nodes: Vec<String>,
    cost: Option<Money>,
    outlook: Outlook,
    against: Option<Against>,
    /// What the rest of the job costs on average if this is taken now.
    expected: Option<Money>,
}

impl<'a> Candidate<'a> {
    fn new(view: &JobView, pool: &'a PoolView, quoted: &'a QuotedOffer, market: &Market<'_>) -> Candidate<'a> {
        let nodes = market.supply.free_nodes(pool, quoted).into_iter().take(view.job.workers as usize).map(|node| node.name.clone());
        Candidate {
            pool,
            quoted,
            nodes: nodes.collect(),
            cost: cost_on(view, pool, quoted),
            outlook: outlook_on(view, pool),
            against: for_good(view, pool, quoted, market),
            expected: None,
        }
    }

    fn kind(&self) -> CapacityKind {
        self.quoted.offer.kind
    }

    /// Could it ever serve, today or later?
    fn is_conceivable(&self) -> bool {
        !matches!(
            self.against,
            Some(
                Against::Unfit | Against::ZoneNotWanted | Against::KindNotAllowed | Against::PoolSmaller { .. } | Against::Rejected { .. }
            )
        )
    }
}

/// How the deadline stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    NoDeadline,
    /// Capacity that may be taken back is affordable until then.
    Relaxed {
        until: DateTime<Utc>,
    },
    Pressed,
    /// Not even the fastest start would do.
    Late {
        fastest: Outlook,
    },
}

impl Urgency {
    /// Capacity that may be taken back is not affordable any more.
    fn is_pressing(self) -> bool {
        matches!(self, Urgency::Pressed | Urgency::Late { .. })
    }
}

/// Decides where the job's next attempt runs.
pub fn place(view: &JobView, market: &Market<'_>) -> Placement {
    let now = market.snapshot.now;
    let named = |pool: &&PoolView| view.job.pool.as_ref().is_none_or(|name| *name == pool.name);
    let pools: Vec<&PoolView> = market.snapshot.pools.iter().filter(named).collect();
    if let Some(refusal) = unusable(view, &pools) {
        return refusal;
    }
    let offers = market.shelf.offers.iter().filter(|(pool, _)| named(pool));
    let mut candidates: Vec<Candidate<'_>> = offers.map(|(pool, quoted)| Candidate::new(view, pool, quoted, market)).collect();
    let urgency = urgency(view, &candidates, market.snapshot);
    if let Urgency::Late { fastest } = urgency
        && view.status.attempts.is_empty()
    {
        return impossible(view, fastest, now);
    }
    let allowance = market.budgets.allowance(view);
    for candidate in candidates.iter_mut().filter(|candidate| candidate.against.is_none()) {
        candidate.against = for_now(view, candidate, market, &allowance, urgency.is_pressing());
    }
    let weighed = weigh(view, &mut candidates, urgency, market);
    choose(view, &pools, &candidates, urgency, weighed.as_ref(), now)
}

/// The deadline policy's word, where it has one to say.
struct Weighed {
    advice: Advice,
    /// What it would take; `None` is waiting.
    choice: Option<usize>,
}

/// Asks the deadline policy whether spot, waiting or on-demand is cheapest on average, and notes what each would cost.
fn weigh(view: &JobView, candidates: &mut [Candidate<'_>], urgency: Urgency, market: &Market<'_>) -> Option<Weighed> {
    let Urgency::Relaxed { until } = urgency else { return None };
    let on_demand = candidates.iter().position(|candidate| candidate.kind() == CapacityKind::OnDemand && candidate.against.is_none())?;
    let may_serve = |candidate: &Candidate<'_>| candidate.kind() == CapacityKind::Spot && matches!(candidate.against, None | Some(Against::Refused(_)));
    let spot: Vec<usize> = (0..candidates.len()).filter(|index| may_serve(&candidates[*index])).collect();
    let question = Question {
        now: market.snapshot.now,
        safe_from: until,
        outlook: candidates[on_demand].outlook,
        workers: view.job.workers,
        spot: spot.iter().map(|index| (&candidates[*index].quoted.offer, candidates[*index].against.is_none())).collect(),
        on_demand: marginal_price(&candidates[on_demand].quoted.offer),
    };
    let advice = advice::advise(&question, market.markets)?;
    let choice = match advice.verdict {
        Verdict::Spot(index) => Some(spot[index]),
        Verdict::Wait { .. } => None,
        Verdict::OnDemand => Some(on_demand),
    };
    candidates[on_demand].expected = Some(advice.on_demand);
    for (index, expected) in spot.into_iter().zip(&advice.spot) {
        candidates[index].expected = *expected;
    }
    Some(Weighed { advice, choice })
}

/// Existing nodes need no boot.
fn outlook_on(view: &JobView, pool: &PoolView) -> Outlook {
    let boot = if pool.provider == Provider::Aws { pool.boot } else { Span::default() };
    Outlook::of_start(&view.job, view.checkpoint.as_ref(), boot)
}

/// `None` where that is beyond all bounds.
fn cost_on(view: &JobView, pool: &PoolView, quoted: &QuotedOffer) -> Option<Money> {
    cost_of(marginal_price(&quoted.offer), view.job.workers, outlook_on(view, pool).total()).ok()
}

fn urgency(view: &JobView, candidates: &[Candidate<'_>], snapshot: &Snapshot) -> Urgency {
    let now = snapshot.now;
    let Some(deadline) = view.job.deadline else { return Urgency::NoDeadline };
    let outlooks = || candidates.iter().filter(|candidate| candidate.is_conceivable()).map(|candidate| candidate.outlook);
    let fastest = outlooks().min_by_key(Outlook::total);
    let slowest = outlooks().max_by_key(Outlook::total);
    match (fastest, slowest) {
        (Some(fastest), _) if fastest.finish(now) > deadline => Urgency::Late { fastest },
        (_, Some(slowest)) => {
            let until = slowest.must_be_safe_from(deadline, snapshot.reaction);
            if now < until { Urgency::Relaxed { until } } else { Urgency::Pressed }
        }
        _ => Urgency::Pressed,
    }
}

/// Marginal price first: what is reserved is paid already.
fn rank<'c>((pool, quoted): &(&'c PoolView, &'c QuotedOffer)) -> (CapacityKind, MoneyPerHour, &'c str, &'c Offer) {
    (quoted.offer.kind, marginal_price(&quoted.offer), &pool.name, &quoted.offer)
}

/// What may be different in a while.
fn for_now(view: &JobView, candidate: &Candidate<'_>, market: &Market<'_>, allowance: &Allowance<'_>, pressed: bool) -> Option<Against> {
    let (wanted, now) = (view.job.workers, market.snapshot.now);
    let Candidate { pool, quoted, .. } = candidate;
    let left = market.supply.left_in_pool(pool);
    if let (Some(machines_max), Some(free)) = (pool.machines_max, left.filter(|left| *left < wanted)) {
        return Some(Against::PoolFull { free, machines_max });
    }
    if let Some((available, bound)) = market.supply.available(pool, quoted).filter(|(available, _)| *available < wanted) {
        return Some(Against::Bound { available, bound });
    }
    if pool.provider == Provider::Nodes && candidate.nodes.len() < wanted as usize {
        return Some(Against::TooFewNodes { free: u32::try_from(candidate.nodes.len()).unwrap_or(u32::MAX) });
    }
    let late = |deadline: &DateTime<Utc>| view.status.attempts.is_empty() && candidate.outlook.finish(now) > *deadline;
    if view.job.deadline.as_ref().is_some_and(late) {
        return Some(Against::TooSlow);
    }
    if let Some(shortfall) = candidate.cost.and_then(|cost| allowance.check(cost).err()) {
        return Some(Against::TooDear(shortfall));
    }
    market.refusals.avoided(&pool.name, &quoted.offer, wanted, now, pressed).map(Against::Refused)
}

/// What no waiting would change.
fn for_good(view: &JobView, pool: &PoolView, quoted: &QuotedOffer, market: &Market<'_>) -> Option<Against> {
    let (job, offer) = (&view.job, &quoted.offer);
    if let Err((_, message)) = &pool.state {
        return Some(Against::PoolNotReady { message: message.clone() });
    }
    if cost_on(view, pool, quoted).is_none() || !(job.requirements.admits(&quoted.machine) && pool.requirements.admits(&quoted.machine)) {
        return Some(Against::Unfit);
    }
    if !(job.requirements.admits_zone(&offer.zone) && pool.requirements.admits_zone(&offer.zone)) {
        return Some(Against::ZoneNotWanted);
    }
    if !job.capacity_kinds.contains(&offer.kind) {
        return Some(Against::KindNotAllowed);
    }
    if let Some(machines_max) = pool.machines_max.filter(|most| *most < job.workers) {
        return Some(Against::PoolSmaller { machines_max });
    }
    let rejected = market.refusals.rejected(pool, &job.id, job.generation);
    rejected.map(|message| Against::Rejected { message: message.to_owned() })
}

fn choose(
    view: &JobView,
    pools: &[&PoolView],
    candidates: &[Candidate<'_>],
    urgency: Urgency,
    weighed: Option<&Weighed>,
    now: DateTime<Utc>,
) -> Placement {
    let best = |kind: CapacityKind| candidates.iter().position(|candidate| candidate.kind() == kind && candidate.against.is_none());
    let spot_conceivable = candidates.iter().any(|candidate| candidate.kind() == CapacityKind::Spot && candidate.is_conceivable());
    let (reserved, spot, on_demand) = (best(CapacityKind::Reserved), best(CapacityKind::Spot), best(CapacityKind::OnDemand));
    let only = |code| {
        if view.job.capacity_kinds.len() == 1 { ReasonCode::OnlyKindAllowed } else { code }
    };
    let choice = match (reserved, urgency.is_pressing()) {
        (Some(index), _) => Some((index, only(ReasonCode::ReservationIdle))),
        (None, true) => {
            let safe = on_demand.map(|index| (index, only(ReasonCode::DeadlineNeedsOnDemand)));
            // Nothing safe can be had: spot may still make it, waiting cannot.
            safe.or(spot.map(|index| (index, only(ReasonCode::SpotWithinSlack))))
        }
        (None, false) if weighed.is_some() => weighed.and_then(|weighed| weighed.choice).map(|index| match candidates[index].kind() {
            CapacityKind::Spot => (index, only(ReasonCode::SpotWithinSlack)),
            CapacityKind::OnDemand | CapacityKind::Reserved => (index, ReasonCode::OnDemandPays),
        }),
        (None, false) => {
            let cheap = spot.map(|index| (index, only(ReasonCode::SpotWithinSlack)));
            let fallback = on_demand.filter(|_| !spot_conceivable).map(|index| (index, ReasonCode::OnlyKindAllowed));
            cheap.or(fallback)
        }
    };
    match choice {
        Some((index, code)) => launch(view, candidates, index, code, urgency, weighed, now),
        None => wait(view, pools, candidates, urgency, weighed),
    }
}

fn launch(
    view: &JobView,
    candidates: &[Candidate<'_>],
    index: usize,
    code: ReasonCode,
    urgency: Urgency,
    weighed: Option<&Weighed>,
    now: DateTime<Utc>,
) -> Placement {
    let chosen = &candidates[index];
    let offer = &chosen.quoted.offer;
    let finish = chosen.outlook.finish(now);
    let message = format!(
        "{} × {offer} at {}: {}; would finish about {}{}",
        view.job.workers,
        marginal_price(offer),
        launch_words(offer, code, urgency, weighed),
        time_words(finish),
        chosen.cost.map(|cost| format!(" for about {}", amount(cost))).unwrap_or_default(),
    );
    Placement {
        kind: DecisionKind::Launch,
        because: Reason { code, message },
        considered: considered(candidates, Some(index)),
        finish: Some(finish),
        cost: chosen.cost,
        prospect: weighed.map(|weighed| weighed.advice.prospect.clone()),
        launch: Some(Launch {
            pool: chosen.pool.name.clone(),
            offer: offer.clone(),
            nodes: if chosen.pool.provider == Provider::Nodes { chosen.nodes.clone() } else { Vec::new() },
            request_template: chosen.pool.request_template.clone(),
        }),
    }
}

fn launch_words(offer: &Offer, code: ReasonCode, urgency: Urgency, weighed: Option<&Weighed>) -> String {
    let late = if matches!(urgency, Urgency::Late { .. }) { " (the deadline is missed already)" } else { "" };
    match (code, offer.kind, urgency) {
        (ReasonCode::ReservationIdle, _, _) => "idle reserved capacity is paid already".to_owned(),
        (ReasonCode::OnDemandPays, _, _) => match weighed {
            Some(Weighed { advice, .. }) => format!(
                "the rest is expected to cost {} this way and {} if it waited for spot, for the slack left",
                amount(advice.on_demand),
                amount(advice.wait)
            ),
            None => "waiting for spot would cost more".to_owned(),
        },
        (ReasonCode::DeadlineNeedsOnDemand, _, _) => {
            format!("the deadline leaves no time for an interruption{late}")
        }
        (_, CapacityKind::Spot, Urgency::Relaxed { until }) => {
            format!("cheapest spot, and the deadline could bear an interruption until {}", time_words(until))
        }
        (_, CapacityKind::Spot, Urgency::NoDeadline) => "cheapest spot; there is no deadline".to_owned(),
        (_, CapacityKind::Spot, _) => format!("only spot can be had, although the deadline leaves no time for an interruption{late}"),
        (_, kind, _) => format!("cheapest {kind}; spot is not allowed or not offered"),
    }
}

fn wait(view: &JobView, pools: &[&PoolView], candidates: &[Candidate<'_>], urgency: Urgency, weighed: Option<&Weighed>) -> Placement {
    let (kind, because) = no_choice(view, pools, candidates, urgency, weighed);
    let prospect = weighed.map(|weighed| weighed.advice.prospect.clone());
    Placement { kind, because, considered: considered(candidates, None), finish: None, cost: None, prospect, launch: None }
}

/// Why nothing was chosen: the most hopeful obstacle, and what would remove it.
fn no_choice(
    view: &JobView,
    pools: &[&PoolView],
    candidates: &[Candidate<'_>],
    urgency: Urgency,
    weighed: Option<&Weighed>,
) -> (DecisionKind, Reason) {
    let workers = view.job.workers;
    let pick = |wanted: fn(&Against) -> bool| {
        candidates.iter().filter(|candidate| candidate.against.as_ref().is_some_and(wanted)).collect::<Vec<_>>()
    };
    let waits = |code, message| (DecisionKind::Wait, Reason { code, message });
    let refused = pick(|against| matches!(against, Against::Refused(_)));
    if !refused.is_empty() {
        return all_refused(&refused, candidates, urgency, weighed);
    }
    if let Some(Candidate { quoted, against: Some(Against::TooDear(shortfall)), .. }) =
        pick(|against| matches!(against, Against::TooDear(_))).into_iter().min_by_key(|candidate| candidate.cost)
    {
        let message = format!("on {} {shortfall}. Raise the budget by that, or shorten the job", quoted.offer);
        return (DecisionKind::Refuse, Reason { code: ReasonCode::OverBudget, message });
    }
    for candidate in candidates {
        let offer = &candidate.quoted.offer;
        match &candidate.against {
            Some(Against::PoolFull { free, machines_max }) => {
                let pool = &candidate.pool.name;
                let message = format!(
                    "{workers} machines are needed, pool {pool} has {free} of its {machines_max} left; waits for other jobs to end"
                );
                return waits(ReasonCode::PoolLimit, message);
            }
            Some(Against::Bound { available, bound }) => {
                let message = format!(
                    "{workers} × {offer} are needed, {bound} leaves {available}; raise it, allow other machines, or use fewer workers"
                );
                return waits(ReasonCode::QuotaReached, message);
            }
            Some(Against::TooFewNodes { free }) => {
                let message = format!("{workers} nodes like {offer} are needed, {free} are free in pool {}", candidate.pool.name);
                return waits(ReasonCode::NoOfferFits, message);
            }
            Some(Against::TooSlow) => {
                let message = format!(
                    "{offer} would start too late for the deadline, and what starts sooner cannot be had; a later deadline would help"
                );
                return waits(ReasonCode::DeadlineImpossible, message);
            }
            _ => {}
        }
    }
    if let Some(Candidate { pool, against: Some(Against::Rejected { message }), .. }) =
        pick(|against| matches!(against, Against::Rejected { .. })).first()
    {
        let message = format!(
            "the cloud calls the request to pool {} wrong: {message}. Correct the pool or the job; either is tried again at once",
            pool.name
        );
        return (DecisionKind::Refuse, Reason { code: ReasonCode::RequestRejected, message });
    }
    nothing_fits(view, pools, candidates)
}

fn all_refused(
    refused: &[&Candidate<'_>],
    candidates: &[Candidate<'_>],
    urgency: Urgency,
    weighed: Option<&Weighed>,
) -> (DecisionKind, Reason) {
    let avoided = |candidate: &&Candidate<'_>| match &candidate.against {
        Some(Against::Refused(avoided)) => Some((avoided.clone(), candidate.quoted.offer.clone())),
        _ => None,
    };
    let mut refusals: Vec<(Avoided, Offer)> = refused.iter().filter_map(avoided).collect();
    refusals.sort_by_key(|(avoided, _)| avoided.until);
    let Some((next, offer)) = refusals.first() else {
        return (DecisionKind::Wait, Reason { code: ReasonCode::NoOfferFits, message: "no offer fits".to_owned() });
    };
    let all_quota = refusals.iter().all(|(avoided, _)| avoided.code == RefusalCode::Quota);
    let on_demand_free = candidates.iter().any(|candidate| candidate.kind() == CapacityKind::OnDemand && candidate.against.is_none());
    let story = format!(
        "{} offers were refused lately ({offer}: {}), the next is asked again at {}",
        refusals.len(),
        next.message,
        time_words(next.until)
    );
    let (code, message) = match urgency {
        _ if all_quota => (ReasonCode::QuotaReached, format!("{story}. A higher quota would help")),
        Urgency::Relaxed { .. } if on_demand_free && weighed.is_some() => (ReasonCode::SpotUnavailableSlackLeft, waiting_words(&story, weighed)),
        Urgency::Relaxed { until } if on_demand_free => {
            (ReasonCode::SpotUnavailableSlackLeft, format!("{story}; on-demand is bought from {} on, if need be", time_words(until)))
        }
        Urgency::NoDeadline if on_demand_free => (
            ReasonCode::SpotUnavailableSlackLeft,
            format!("{story}. There is no deadline, so on-demand is not bought; a deadline would allow it"),
        ),
        _ => (ReasonCode::AllOffersRefused, format!("{story}. More zones, types or capacity kinds would help")),
    };
    (DecisionKind::Wait, Reason { code, message })
}

/// Until when it waits for spot, and what not waiting would cost.
fn waiting_words(story: &str, weighed: Option<&Weighed>) -> String {
    let Some(Weighed { advice: advice @ Advice { verdict: Verdict::Wait { until }, .. }, .. }) = weighed else { return story.to_owned() };
    let saved = advice.on_demand.checked_sub(advice.wait).map(amount).unwrap_or_default();
    format!(
        "{story}; on-demand is bought at {} if spot stays away. Waiting is expected to save {saved}: {} instead of {}; a later deadline lets it wait longer",
        time_words(*until),
        amount(advice.wait),
        amount(advice.on_demand),
    )
}

fn nothing_fits(view: &JobView, pools: &[&PoolView], candidates: &[Candidate<'_>]) -> (DecisionKind, Reason) {
    let ready = pools.iter().any(|pool| pool.state.is_ok());
    if !ready
        && let Some((pool, message)) = pools.iter().find_map(|pool| pool.state.as_ref().err().map(|(_, message)| (&pool.name, message)))
    {
        return (DecisionKind::Wait, Reason { code: ReasonCode::PoolNotReady, message: format!("pool {pool} is not ready: {message}") });
    }
    let ruled_out = |against: fn(&Against) -> bool| candidates.iter().find(|candidate| candidate.against.as_ref().is_some_and(against));
    let workers = view.job.workers;
    let message = if let Some(Candidate { pool, against: Some(Against::PoolSmaller { machines_max }), .. }) =
        ruled_out(|against| matches!(against, Against::PoolSmaller { .. }))
    {
        format!("{workers} machines are needed, pool {} has {machines_max} at most; raise its limit or use fewer workers", pool.name)
    } else if let Some(candidate) = ruled_out(|against| matches!(against, Against::KindNotAllowed)) {
        let kinds: Vec<&str> = view.job.capacity_kinds.iter().map(CapacityKind::as_str).collect();
        format!("no {} offer fits; {} would, if the job allowed it", kinds.join(" or "), candidate.quoted.offer)
    } else if let Some(candidate) = ruled_out(|against| matches!(against, Against::ZoneNotWanted)) {
        format!("no offer in the zones that job and pool allow; {} would fit elsewhere", candidate.quoted.offer)
    } else if candidates.is_empty() {
        "no pool offers anything now; see `kubectl get capacitypools`".to_owned()
    } else {
        format!("none of {} offers meets the job's requirements; lower them or add a pool", candidates.len())
    };
    (DecisionKind::Wait, Reason { code: ReasonCode::NoOfferFits, message })
}

fn unusable(view: &JobView, pools: &[&PoolView]) -> Option<Placement> {
    let (code, message) = match (&view.invalid, &view.job.pool) {
        (Some((reason, message)), _) => (invalid_code(reason), message.clone()),
        (None, Some(name)) if pools.is_empty() => (ReasonCode::UnknownPool, format!("there is no pool {name}; create it or name another")),
        (None, None) if pools.is_empty() => (ReasonCode::UnknownPool, "there is no capacity pool; create one".to_owned()),
        _ => return None,
    };
    // A pool may yet appear, or is only not seen yet; nothing of the job itself need change.
    let kind = if code == ReasonCode::UnknownPool { DecisionKind::Wait } else { DecisionKind::Refuse };
    Some(Placement { kind, ..refusal(code, message) })
}

fn invalid_code(reason: &str) -> ReasonCode {
    match reason {
        "UnknownExperiment" => ReasonCode::UnknownExperiment,
        "UnknownPool" => ReasonCode::UnknownPool,
        _ => ReasonCode::InvalidSpec,
    }
}

fn impossible(view: &JobView, fastest: Outlook, now: DateTime<Utc>) -> Placement {
    let deadline = view.job.deadline.unwrap_or(now);
    let past = if deadline <= now { "has passed" } else { "cannot be met" };
    let message = format!(
        "the deadline {} {past}: a start now would finish about {}; the deadline would have to be ≥ {}",
        time_words(deadline),
        time_words(fastest.finish(now)),
        time_words(fastest.finish(now)),
    );
    refusal(ReasonCode::DeadlineImpossible, message)
}

fn refusal(code: ReasonCode, message: String) -> Placement {
    Placement {
        kind: DecisionKind::Refuse,
        because: Reason { code, message },
        considered: Vec::new(),
        finish: None,
        cost: None,
        prospect: None,
        launch: None,
    }
}

fn considered(candidates: &[Candidate<'_>], chosen: Option<usize>) -> Vec<Considered> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|&index| (Some(index) != chosen, !candidates[index].is_conceivable(), index));
    order
        .into_iter()
        .take(CONSIDERED_MAX)
        .map(|index| {
            let candidate = &candidates[index];
            Considered {
                pool: candidate.pool.name.clone(),
                offer: candidate.quoted.offer.clone(),
                cost: candidate.cost,
                expected: candidate.expected,
                verdict: verdict(candidate, Some(index) == chosen),
            }
        })
        .collect()
}

fn verdict(candidate: &Candidate<'_>, chosen: bool) -> String {
    match &candidate.against {
        None if chosen => "chosen".to_owned(),
        None => "possible".to_owned(),
        Some(Against::PoolNotReady { message }) => format!("pool is not ready: {message}"),
        Some(Against::Unfit) => "machine does not meet the requirements".to_owned(),
        Some(Against::ZoneNotWanted) => "zone is not allowed".to_owned(),
        Some(Against::KindNotAllowed) => "kind is not allowed".to_owned(),
        Some(Against::PoolSmaller { machines_max }) => {
            format!("pool has {machines_max} machines at most")
        }
        Some(Against::Rejected { message }) => format!("request is wrong: {message}"),
        Some(Against::Bound { available, bound }) => format!("{bound} leaves {available}"),
        Some(Against::PoolFull { free, .. }) => format!("pool limit leaves {free}"),
        Some(Against::TooFewNodes { free }) => format!("{free} nodes are free"),
        Some(Against::TooSlow) => "would start too late for the deadline".to_owned(),
        Some(Against::TooDear(shortfall)) => shortfall.to_string(),
        Some(Against::Refused(avoided)) => format!("refused lately, left alone until {}", time_words(avoided.until)),
    }
}

/// `2026-03-01 14:05 UTC`.
pub fn time_words(at: DateTime<Utc>) -> String {
    use chrono::{Datelike, Timelike};
    format!("{:04}-{:02}-{:02} {:02}:{:02} UTC", at.year(), at.month(), at.day(), at.hour(), at.minute())
}

/// The claim's request: the JSON of a `cloud::LaunchRequest`. Provider `nodes` asks nobody.
pub fn request_text(template: &str, record: &ClaimRecord, claim: &str) -> String {
    if record.offer.provider == Provider::Nodes {
        return String::new();
    }
    let config: serde_json::Value = serde_json::from_str(template).unwrap_or_default();
    serde_json::json!({
        "config": config,
        "offer": record.offer,
        "count": record.count,
        "claim": claim,
        "job": record.job,
        "attempt": record.attempt,
    })
    .to_string()
}
