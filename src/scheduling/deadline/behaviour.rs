//! How a spot market behaves: how long it stays up and how long it stays away, as it has shown so far.
//!
//! Measured markets are not memoryless: what has been up for an hour goes on for longer than what has just come, and the
//! same holds for gaps. So a hazard (ends an hour) is learned for each class of age. Each is the mean of a Gamma posterior:
//! a prior with the shape that markets have in common, then the ends and hours seen here, the older the less.
//!
//! Several zones are one market: a job sits in one of them, and when that goes, another may be up.

/// Classes of age.
pub const CLASSES: usize = 8;

/// Ages, in hours, at which a class begins.
pub const AGES: [f64; CLASSES] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// Ends an hour, by class of age.
pub type Hazards = [f64; CLASSES];

/// What markets have in common: ends an hour while up. Pooled over every second of the public traces of Wu et al., "Can't
/// Be Late" (NSDI 2024), each weighted alike; the other half of them gives the same within a fifth.
const PRIOR_UP: Hazards = [1.35, 1.22, 0.63, 0.43, 0.21, 0.18, 0.14, 0.07];
/// Likewise while down.
const PRIOR_DOWN: Hazards = [1.84, 1.49, 0.87, 0.58, 0.29, 0.21, 0.13, 0.05];
/// Ends that the prior is worth for the level of all hazards together.
const LEVEL_ENDS: f64 = 5.0;
/// Ends that this level is worth in each class.
const CLASS_ENDS: f64 = 6.0;
/// Ends that the market's hazards are worth for one of its zones.
const ZONE_ENDS: f64 = 3.0;
/// What was seen so long ago counts half.
const HALF_LIFE_HOURS: f64 = 96.0;
/// Whether another zone is up when one goes, before any was seen to go.
const ELSEWHERE: f64 = 0.5;
/// How many zones seen to go that is worth.
const ELSEWHERE_ENDS: f64 = 3.0;
/// How old the other zone then is.
const ELSEWHERE_AGES: [f64; CLASSES] = [0.15, 0.1, 0.1, 0.15, 0.15, 0.15, 0.1, 0.1];
/// Hours, for [`age_unseen`].
const AGE_UNSEEN_UP: f64 = 2.0;
const AGE_UNSEEN_DOWN: f64 = 0.25;

/// A time over which a zone was up, or was down; what lies between two spells was not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spell {
    pub up: bool,
    /// Hours on any clock, the same for all zones.
    pub from: f64,
    pub to: f64,
}

/// The market as learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// Of a zone that is up.
    pub up: Hazards,
    /// Of all zones being down.
    pub down: Hazards,
    /// Probability that another zone is up when one goes.
    pub elsewhere: f64,
    /// How old that one is, by class.
    pub elsewhere_ages: [f64; CLASSES],
    /// Of each zone while up.
    pub zones: Vec<Hazards>,
    pub evidence: Evidence,
}

/// What a market was learned from.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub up: Observed,
    pub down: Observed,
    /// Zones that went and, of these, those that left another one up; what was presumed included.
    pub gone: f64,
    pub found: f64,
}

/// Ends seen and the hours in which they could have happened, the older the less, beside what markets have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    pub ends: Hazards,
    pub hours: Hazards,
    prior: Hazards,
    level_ends: f64,
}

/// The class of a spell of this age.
pub fn class_of(age_hours: f64) -> usize {
    AGES.iter().rposition(|start| age_hours + 1e-9 >= *start).unwrap_or(0)
}

/// The age at which a spell is taken to have been first seen, where its beginning was not.
pub fn age_unseen(up: bool) -> f64 {
    if up { AGE_UNSEEN_UP } else { AGE_UNSEEN_DOWN }
}

/// How old the last of a zone's spells is at its end, and whether it is up.
pub fn standing(spells: &[Spell]) -> Option<(bool, f64)> {
    let last = spells.last()?;
    Some((last.up, age_at(spells, spells.len() - 1, last.to)))
}

/// Learns from the spells of each zone, ascending, that were seen until `now`.
pub fn learn(zones: &[Vec<Spell>], now: f64) -> Behaviour {
    let up: Vec<Tally> = zones.iter().map(|spells| tally(spells, true, now)).collect();
    let pooled = up.iter().fold(Tally::default(), Tally::plus);
    let seen_up = pooled.beside(&PRIOR_UP, LEVEL_ENDS);
    let seen_down = tally(&all_down(zones), false, now).beside(&PRIOR_DOWN, LEVEL_ENDS);
    let market_up = seen_up.hazards();
    let Elsewhere { found, gone, ages } = elsewhere(zones, now);
    Behaviour {
        up: market_up,
        down: seen_down.hazards(),
        elsewhere: found / gone,
        elsewhere_ages: ages,
        zones: up.iter().map(|zone| zone.beside(&market_up, ZONE_ENDS).hazards()).collect(),
        evidence: Evidence { up: seen_up, down: seen_down, gone, found },
    }
}

impl Observed {
    /// First the level at which this market's hazards lie against the prior's, then each class by itself.
    pub fn hazards(&self) -> Hazards {
        let (ends, expected) = self.level();
        self.hazards_at(ends / expected, |_, ends| ends)
    }

    /// Ends seen at all ages, and those which the prior expects; what is presumed included in both.
    pub fn level(&self) -> (f64, f64) {
        let expected: f64 = self.hours.iter().zip(&self.prior).map(|(hours, hazard)| hours * hazard).sum();
        (self.ends.iter().sum::<f64>() + self.level_ends, expected + self.level_ends)
    }

    /// The hazards of a market at this level; `ends_of` may doubt the ends of a class.
    pub fn hazards_at(&self, level: f64, mut ends_of: impl FnMut(usize, f64) -> f64) -> Hazards {
        std::array::from_fn(|class| ends_of(class, self.ends[class] + CLASS_ENDS) / (self.hours[class] + CLASS_ENDS / (level * self.prior[class])))
    }
}

/// Ends, and the hours in which they could have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    ends: [f64; CLASSES],
    hours: [f64; CLASSES],
}

impl Tally {
    fn plus(mut self, other: &Tally) -> Tally {
        for class in 0..CLASSES {
            self.ends[class] += other.ends[class];
            self.hours[class] += other.hours[class];
        }
        self
    }

    fn beside(&self, prior: &Hazards, level_ends: f64) -> Observed {
        Observed { ends: self.ends, hours: self.hours, prior: *prior, level_ends }
    }

    fn add(&mut self, spells: &[Spell], index: usize, now: f64) {
        let spell = spells[index];
        let born = spell.to - age_at(spells, index, spell.to);
        for (class, age) in AGES.iter().enumerate() {
            let until = AGES.get(class + 1).map_or(f64::INFINITY, |age| born + age);
            let (from, to) = (spell.from.max(born + age), spell.to.min(until));
            if to > from {
                self.hours[class] += weighted_hours(from, to, now);
            }
        }
        if is_end_seen(spells, index) {
            self.ends[class_of(spell.to - born)] += weight(spell.to, now);
        }
    }
}

fn tally(spells: &[Spell], up: bool, now: f64) -> Tally {
    let mut tally = Tally::default();
    (0..spells.len()).filter(|index| spells[*index].up == up).for_each(|index| tally.add(spells, index, now));
    tally
}

fn weight(at: f64, now: f64) -> f64 {
    (-(now - at).max(0.0) / HALF_LIFE_HOURS).exp2()
}

/// The integral of the weight.
fn weighted_hours(from: f64, to: f64, now: f64) -> f64 {
    (weight(to, now) - weight(from, now)) * HALF_LIFE_HOURS / std::f64::consts::LN_2
}

fn is_end_seen(spells: &[Spell], index: usize) -> bool {
    spells.get(index + 1).is_some_and(|next| next.from <= spells[index].to && next.up != spells[index].up)
}

fn is_beginning_seen(spells: &[Spell], index: usize) -> bool {
    index > 0 && spells[index - 1].to >= spells[index].from
}

fn age_at(spells: &[Spell], index: usize, at: f64) -> f64 {
    let spell = spells[index];
    (at - spell.from) + if is_beginning_seen(spells, index) { 0.0 } else { age_unseen(spell.up) }
}

/// How likely, and how old, another zone is when one goes.
struct Elsewhere {
    found: f64,
    gone: f64,
    ages: [f64; CLASSES],
}

fn elsewhere(zones: &[Vec<Spell>], now: f64) -> Elsewhere {
    let mut ages = ELSEWHERE_AGES.map(|share| share * ELSEWHERE_ENDS);
    let (mut found, mut gone) = (ELSEWHERE * ELSEWHERE_ENDS, ELSEWHERE_ENDS);
    if zones.len() < 2 {
        return Elsewhere { found: 0.0, gone, ages: ELSEWHERE_AGES };
    }
    for (zone, spells) in zones.iter().enumerate() {
        for index in (0..spells.len()).filter(|index| spells[*index].up && is_end_seen(spells, *index)) {
            let at = spells[index].to;
            let others = zones.iter().enumerate().filter(|(other, _)| *other != zone);
            gone += weight(at, now);
            if let Some(oldest) = others.filter_map(|(_, spells)| up_for(spells, at)).max_by(f64::total_cmp) {
                found += weight(at, now);
                ages[class_of(oldest)] += weight(at, now);
            }
        }
    }
    let total: f64 = ages.iter().sum();
    Elsewhere { found, gone, ages: ages.map(|share| share / total) }
}

/// For how long a zone has been up right after `at`.
fn up_for(spells: &[Spell], at: f64) -> Option<f64> {
    let index = spells.partition_point(|spell| spell.from <= at).checked_sub(1)?;
    let is_up = spells[index].up && spells[index].to > at;
    is_up.then(|| age_at(spells, index, at))
}

/// The times in which a zone was seen down and none up, and the times in which one was.
fn all_down(zones: &[Vec<Spell>]) -> Vec<Spell> {
    let up = union(zones, true);
    let mut all = Vec::new();
    for (from, to) in union(zones, false) {
        let mut start = from;
        for (begin, end) in up.iter().skip(up.partition_point(|(_, end)| *end <= from)).take_while(|(begin, _)| *begin < to) {
            if *begin > start {
                all.push(Spell { up: false, from: start, to: *begin });
            }
            start = start.max(*end);
        }
        if start < to {
            all.push(Spell { up: false, from: start, to });
        }
    }
    all.extend(up.iter().map(|(from, to)| Spell { up: true, from: *from, to: *to }));
    all.sort_by(|a, b| a.from.total_cmp(&b.from));
    all
}

/// The times in which some zone was seen so, ascending and apart.
fn union(zones: &[Vec<Spell>], up: bool) -> Vec<(f64, f64)> {
    let mut times: Vec<(f64, f64)> = zones.iter().flatten().filter(|spell| spell.up == up).map(|spell| (spell.from, spell.to)).collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (from, to) in times {
        match joined.last_mut() {
            Some((_, end)) if *end >= from => *end = end.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up and down in turn, ending at the sum of all.
    fn turns(first_up: bool, hours: &[f64]) -> Vec<Spell> {
        let mut from = 0.0;
        let spell = |(index, hours): (usize, &f64)| {
            let spell = Spell { up: first_up == (index % 2 == 0), from, to: from + hours };
            from += hours;
            spell
        };
        hours.iter().enumerate().map(spell).collect()
    }

    #[test]
    fn nothing_seen_is_the_prior() {
        let behaviour = learn(&[Vec::new()], 0.0);
        let is_close = |a: &Hazards, b: &Hazards| a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-9);
        assert!(is_close(&behaviour.up, &PRIOR_UP) && is_close(&behaviour.down, &PRIOR_DOWN));
        assert_eq!(behaviour.elsewhere, 0.0);
    }

    #[test]
    fn a_market_that_breaks_often_is_known_for_it() {
        let calm = learn(&[turns(true, &[100.0])], 100.0);
        let restless = learn(&[turns(true, &[0.2; 501])], 100.2);
        assert!(calm.up[0] < PRIOR_UP[0] && restless.up[0] > 3.0 && restless.up[0] < 5.0, "{:?}", restless.up);
        assert!(calm.up.iter().zip(&restless.up).all(|(calm, restless)| calm < restless));
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let early = learn(&[turns(true, &[0.2; 101]).into_iter().chain([Spell { up: true, from: 20.2, to: 500.0 }]).collect()], 500.0);
        let late: Vec<Spell> = turns(true, &[480.0]).into_iter().chain(turns(false, &[0.2; 100]).into_iter().map(|spell| Spell { from: spell.from + 480.0, to: spell.to + 480.0, ..spell })).collect();
        assert!(early.up[0] < learn(&[late], 500.0).up[0]);
    }

    #[test]
    fn zones_that_take_turns_are_up_elsewhere() {
        let (a, b) = (turns(true, &[3.0; 40]), turns(false, &[3.0; 40]));
        let apart = learn(&[a.clone(), b], 120.0);
        let together = learn(&[a.clone(), a], 120.0);
        assert!(apart.elsewhere > 0.9 && together.elsewhere < 0.1, "{} {}", apart.elsewhere, together.elsewhere);
        // One comes as the other goes.
        assert!(apart.elsewhere_ages[0] > 0.8);
    }

    #[test]
    fn times_not_seen_are_neither_up_nor_down() {
        let spells = vec![Spell { up: true, from: 0.0, to: 1.0 }, Spell { up: true, from: 50.0, to: 51.0 }];
        let seen = tally(&spells, true, 51.0);
        assert_eq!(seen.ends, [0.0; CLASSES]);
        assert!(seen.hours.iter().sum::<f64>() < 2.0);
        assert_eq!(standing(&spells), Some((true, 1.0 + AGE_UNSEEN_UP)));
    }
}
