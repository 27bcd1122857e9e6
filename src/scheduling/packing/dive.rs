//! From a fractional mix of configurations to whole nodes: buy what the relaxation buys a whole number of times, then solve
//! again for what is left, whose prices are better for it; where everything is below one, buy what it is surest of.

use super::meter::Meter;
use super::model::{Content, Model, Node};
use super::relaxation::{Configuration, Fillings, Generation, Relaxed, Rest};

/// Branches of a search for a filling, rounds of pricing after each purchase, and how many fractions share one purchase.
const VISITS: usize = 20;
const ROUNDS: usize = 6;
const AT_ONCE: usize = 12;

/// Nodes for `rest`, starting from a relaxation of it. Classes that no type without limit can hold may stay over.
pub fn dive(model: &Model, rest: &Rest, relaxed: &Relaxed, meter: &mut Meter) -> Vec<Node> {
    let (mut rest, mut nodes, mut mix) = (rest.clone(), Vec::new(), relaxed.clone());
    loop {
        let bought = buy(&mix, &mut rest, &mut nodes);
        if rest.is_done() || (!bought && mix.solution.is_empty()) {
            return nodes;
        }
        let known = std::mem::take(&mut mix.solution);
        let mut generation = Generation::new(model, &rest, Some(mix.duals));
        for one in known {
            let content = trimmed(&one.content, &rest);
            if !content.is_empty() {
                let kept = || model.types[one.type_index].limit.is_some() || content == one.content;
                let cheapest = if kept() { None } else { model.cheapest_for(&content) };
                generation.propose(cheapest.unwrap_or(one.type_index), &content);
            }
        }
        generation.run(Fillings::Whole { visits: VISITS }, ROUNDS, 1e-4, meter);
        mix = generation.relaxed();
    }
}

/// What of a content is still there to be packed.
fn trimmed(content: &[(usize, u32)], rest: &Rest) -> Content {
    content.iter().map(|(class, count)| (*class, (*count).min(rest.left[*class] as u32))).filter(|(_, count)| *count > 0).collect()
}

/// Buys whole levels; where there are none, the surest fractions. False when nothing could be bought.
fn buy(mix: &Relaxed, rest: &mut Rest, nodes: &mut Vec<Node>) -> bool {
    let before = nodes.len();
    for one in &mix.solution {
        let times = (one.level + 1e-6).floor() as usize;
        (0..times).for_each(|_| buy_one(one, rest, nodes));
    }
    if nodes.len() > before {
        return true;
    }
    let mut surest: Vec<&Configuration> = mix.solution.iter().collect();
    surest.sort_by(|one, other| other.level.total_cmp(&one.level));
    let at_once = surest.len().div_ceil(AT_ONCE);
    for one in surest {
        buy_one(one, rest, nodes);
        if nodes.len() - before >= at_once {
            break;
        }
    }
    nodes.len() > before
}

fn buy_one(one: &Configuration, rest: &mut Rest, nodes: &mut Vec<Node>) {
    if rest.has(one.type_index, &one.content) {
        rest.take(one.type_index, &one.content);
        nodes.push(Node { type_index: one.type_index, content: one.content.clone() });
    }
}
