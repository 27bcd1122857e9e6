//! Tells merged lots apart again: a node of groups becomes a node of real pods, each as large as there is room for, and the room
//! that merging had reserved for larger ones is given to further pods, so that the last nodes are not needed.

use super::model::{Content, Model, Node};
use super::relaxation::Rest;

/// Pods of one group that have no place yet, ascending by size, as lots.
struct Queue {
    lots: Vec<usize>,
}

impl Queue {
    fn of(model: &Model, group: &[usize], rest: &Rest) -> Queue {
        let largest = model.types.iter().fold(vec![1.0; model.dimensions], |most, known| most.iter().zip(&known.room).map(|(most, room): (&f64, &f64)| most.max(*room)).collect());
        let size = |lot: &usize| model.demand(*lot).iter().zip(&largest).map(|(demand, most)| demand / most).sum::<f64>();
        let mut lots: Vec<usize> = group.iter().flat_map(|lot| std::iter::repeat_n(*lot, rest.left[*lot] as usize)).collect();
        lots.sort_by(|one, other| size(one).total_cmp(&size(other)).then(one.cmp(other)));
        Queue { lots }
    }

    /// About the largest pod that fits: by halving, since sizes are almost ordered.
    fn take(&mut self, model: &Model, room: &[f64], allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let fits = |lot: usize| model.demand(lot).iter().zip(room).all(|(demand, room)| demand <= room);
        let at = self.lots.partition_point(|lot| fits(*lot)).checked_sub(1)?;
        (fits(self.lots[at]) && allowed(self.lots[at])).then(|| self.lots.remove(at))
    }
}

/// Nodes of lots for nodes of `groups`; `values` says what a pod of each group is worth. Pods that find no place stay over.
pub fn told_apart(model: &Model, groups: &[Vec<usize>], values: &[f64], rest: &Rest, nodes: &[Node]) -> Vec<Node> {
    let mut queues: Vec<Queue> = groups.iter().map(|group| Queue::of(model, group, rest)).collect();
    let mut dearest: Vec<usize> = (0..groups.len()).collect();
    dearest.sort_by(|one, other| values[*other].total_cmp(&values[*one]).then(one.cmp(other)));
    let mut apart = Vec::new();
    for node in nodes {
        let mut filling = Filling { room: model.types[node.type_index].room.clone(), lots: Vec::new() };
        for (group, count) in &node.content {
            for _ in 0..*count {
                filling.add(model, node.type_index, &mut queues[*group]);
            }
        }
        for group in &dearest {
            while filling.add(model, node.type_index, &mut queues[*group]) {}
        }
        let content = content_of(filling.lots);
        if !content.is_empty() {
            let limited = model.types[node.type_index].limit.is_some();
            let cheapest = if limited { None } else { model.cheapest_for(&content) };
            apart.push(Node { type_index: cheapest.unwrap_or(node.type_index), content });
        }
    }
    apart
}

struct Filling {
    room: Vec<f64>,
    lots: Vec<usize>,
}

impl Filling {
    /// Adds a pod of the queue if one fits.
    fn add(&mut self, model: &Model, type_index: usize, queue: &mut Queue) -> bool {
        let known = &model.types[type_index];
        let allowed = |lot: usize| self.lots.iter().filter(|placed| **placed == lot).count() as f64 + 1.0 <= known.fits[lot];
        let Some(lot) = queue.take(model, &self.room, allowed) else { return false };
        self.room.iter_mut().zip(model.demand(lot)).for_each(|(room, demand)| *room -= demand);
        self.lots.push(lot);
        true
    }
}

fn content_of(mut pods: Vec<usize>) -> Content {
    pods.sort_unstable();
    let mut content: Content = Vec::new();
    for pod in pods {
        match content.last_mut() {
            Some((class, count)) if *class == pod => *count += 1,
            _ => content.push((pod, 1)),
        }
    }
    content
}
