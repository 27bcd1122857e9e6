//! The master problem of column generation: the cheapest mix of columns that covers every class, by the revised simplex method
//! with an explicit inverse (rows are classes, a hundred or so). Nothing relies on its accuracy: bounds are evaluated from the
//! duals anew ([`super::relaxation`]), and fleets are whole numbers checked elsewhere.

use super::meter::Meter;

const TOLERANCE: f64 = 1e-9;
/// The inverse is made anew after so many changes of the basis.
const REFACTOR_AFTER: usize = 150;

/// A column: what it costs, and (row, how much of it).
#[derive(Clone, Debug)]
pub struct Column {
    pub cost: f64,
    pub entries: Vec<(usize, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Column(usize),
    /// What is covered beyond a row's demand, or left of a row's supply.
    Slack(usize),
}

/// min cost·x, where the first `demands` rows are at least their right side, the others at most, x >= 0.
#[derive(Clone, Debug)]
pub struct Master {
    rows: usize,
    demands: usize,
    right: Vec<f64>,
    pub columns: Vec<Column>,
    basis: Vec<Variable>,
    is_basic: Vec<bool>,
    inverse: Vec<f64>,
    level: Vec<f64>,
    changes: usize,
}

impl Master {
    /// `first` holds a column for each demand row, which has an entry there and nowhere else; so there is a basis to start from.
    pub fn new(right: Vec<f64>, first: Vec<Column>) -> Master {
        let (rows, demands) = (right.len(), first.len());
        let mut inverse = vec![0.0; rows * rows];
        for row in 0..rows {
            inverse[row * rows + row] = if row < demands { 1.0 / first[row].entries[0].1 } else { 1.0 };
        }
        let basis = (0..rows).map(|row| if row < demands { Variable::Column(row) } else { Variable::Slack(row) }).collect();
        let level = (0..rows).map(|row| right[row] * inverse[row * rows + row]).collect();
        Master { rows, demands, right, is_basic: vec![true; demands], columns: first, basis, inverse, level, changes: 0 }
    }

    pub fn add(&mut self, column: Column) {
        self.columns.push(column);
        self.is_basic.push(false);
    }

    /// Improves until no known column helps, or the meter is spent.
    pub fn solve(&mut self, meter: &mut Meter) {
        while !meter.is_spent() {
            let duals = self.duals();
            let priced: usize = self.columns.iter().map(|column| column.entries.len() + 1).sum();
            meter.spend(2 * self.rows * self.rows + priced);
            let Some(entering) = self.entering(&duals) else { return };
            if !self.pivot(entering) {
                return;
            }
        }
    }

    /// What one more unit of each row's right side costs.
    pub fn duals(&self) -> Vec<f64> {
        let mut duals = vec![0.0; self.rows];
        for (row, variable) in self.basis.iter().enumerate() {
            if let Variable::Column(column) = variable {
                let cost = self.columns[*column].cost;
                let inverse = &self.inverse[row * self.rows..(row + 1) * self.rows];
                duals.iter_mut().zip(inverse).for_each(|(dual, entry)| *dual += cost * entry);
            }
        }
        duals
    }

    /// (column, how often), where more than nothing.
    pub fn solution(&self) -> Vec<(usize, f64)> {
        let used = |(variable, level): (&Variable, &f64)| match variable {
            Variable::Column(column) if *level > TOLERANCE => Some((*column, *level)),
            _ => None,
        };
        self.basis.iter().zip(&self.level).filter_map(used).collect()
    }

    pub fn reduced_cost(&self, column: usize, duals: &[f64]) -> f64 {
        let column = &self.columns[column];
        column.cost - column.entries.iter().map(|(row, amount)| duals[*row] * amount).sum::<f64>()
    }

    fn entering(&self, duals: &[f64]) -> Option<Variable> {
        let columns = (0..self.columns.len()).filter(|column| !self.is_basic[*column]).map(|column| (Variable::Column(column), self.reduced_cost(column, duals)));
        // The slack of a demand row has the entry -1, that of a supply row +1.
        let slacks = (0..self.rows).map(|row| (Variable::Slack(row), if row < self.demands { duals[row] } else { -duals[row] }));
        let best = columns.chain(slacks).min_by(|one, other| one.1.total_cmp(&other.1))?;
        (best.1 < -TOLERANCE).then_some(best.0)
    }

    /// Brings a variable into the basis; false when nothing limits it, which covering problems with prices do not have.
    fn pivot(&mut self, entering: Variable) -> bool {
        let direction = self.times_inverse(entering);
        let Some(leaving) = self.leaving(&direction) else { return false };
        let step = self.level[leaving] / direction[leaving];
        let pivot_row: Vec<f64> = self.inverse[leaving * self.rows..(leaving + 1) * self.rows].iter().map(|entry| entry / direction[leaving]).collect();
        for row in (0..self.rows).filter(|row| *row != leaving && direction[*row] != 0.0) {
            self.level[row] = (self.level[row] - step * direction[row]).max(0.0);
            let factor = direction[row];
            self.inverse[row * self.rows..(row + 1) * self.rows].iter_mut().zip(&pivot_row).for_each(|(entry, pivot)| *entry -= factor * pivot);
        }
        self.inverse[leaving * self.rows..(leaving + 1) * self.rows].copy_from_slice(&pivot_row);
        self.level[leaving] = step;
        if let Variable::Column(column) = self.basis[leaving] {
            self.is_basic[column] = false;
        }
        if let Variable::Column(column) = entering {
            self.is_basic[column] = true;
        }
        self.basis[leaving] = entering;
        self.changes += 1;
        if self.changes.is_multiple_of(REFACTOR_AFTER) {
            self.refactor();
        }
        true
    }

    fn entries(&self, variable: Variable) -> Vec<(usize, f64)> {
        match variable {
            Variable::Column(column) => self.columns[column].entries.clone(),
            Variable::Slack(row) => vec![(row, if row < self.demands { -1.0 } else { 1.0 })],
        }
    }

    fn times_inverse(&self, variable: Variable) -> Vec<f64> {
        let entries = self.entries(variable);
        let row_of = |row: usize| &self.inverse[row * self.rows..(row + 1) * self.rows];
        (0..self.rows).map(|row| entries.iter().map(|(at, amount)| row_of(row)[*at] * amount).sum()).collect()
    }

    /// The row that reaches zero first; of equals the one with the largest pivot, which is the steadiest.
    fn leaving(&self, direction: &[f64]) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for row in (0..self.rows).filter(|row| direction[*row] > 1e-8) {
            let ratio = self.level[row] / direction[row];
            let is_better = match best {
                None => true,
                Some((known, least)) => ratio < least - 1e-12 || (ratio <= least + 1e-12 && direction[row] > direction[known]),
            };
            if is_better {
                best = Some((row, ratio));
            }
        }
        best.map(|(row, _)| row)
    }

    /// Gauss-Jordan on the basis; keeps the old inverse where it turns out singular.
    fn refactor(&mut self) {
        let rows = self.rows;
        let mut left = vec![0.0; rows * rows];
        for (position, variable) in self.basis.iter().enumerate() {
            self.entries(*variable).into_iter().for_each(|(row, amount)| left[row * rows + position] = amount);
        }
        let mut right = vec![0.0; rows * rows];
        (0..rows).for_each(|row| right[row * rows + row] = 1.0);
        for step in 0..rows {
            let Some(pivot) = (step..rows).max_by(|one, other| left[one * rows + step].abs().total_cmp(&left[other * rows + step].abs())) else { return };
            if left[pivot * rows + step].abs() < 1e-10 {
                return;
            }
            for matrix in [&mut left, &mut right] {
                (0..rows).for_each(|at| matrix.swap(step * rows + at, pivot * rows + at));
            }
            let scale = left[step * rows + step];
            for matrix in [&mut left, &mut right] {
                matrix[step * rows..(step + 1) * rows].iter_mut().for_each(|entry| *entry /= scale);
            }
            for row in (0..rows).filter(|row| *row != step) {
                let factor = left[row * rows + step];
                if factor != 0.0 {
                    subtract(&mut left, rows, row, step, factor);
                    subtract(&mut right, rows, row, step, factor);
                }
            }
        }
        self.inverse = right;
        self.level = (0..rows).map(|row| (0..rows).map(|at| self.inverse[row * rows + at] * self.right[at]).sum::<f64>().max(0.0)).collect();
    }
}

/// `row -= factor × other`.
fn subtract(matrix: &mut [f64], width: usize, row: usize, other: usize, factor: f64) {
    let (low, high) = matrix.split_at_mut(row.max(other) * width);
    let (changed, used) = if row < other { (&mut low[row * width..(row + 1) * width], &high[..width]) } else { (&mut high[..width], &low[other * width..(other + 1) * width]) };
    changed.iter_mut().zip(used).for_each(|(entry, used)| *entry -= factor * used);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::packing::Effort;

    #[test]
    fn the_cheapest_cover_is_found_and_its_duals_prove_it() {
        let column = |cost, entries: &[(usize, f64)]| Column { cost, entries: entries.to_vec() };
        let mut master = Master::new(vec![4.0, 3.0, 1.0], vec![column(10.0, &[(0, 1.0)]), column(10.0, &[(1, 1.0)])]);
        master.add(column(3.0, &[(0, 2.0), (1, 1.0)]));
        master.add(column(2.0, &[(1, 1.0), (2, 1.0)]));
        master.solve(&mut Meter::new(Effort(1_000_000)));
        let cost: f64 = master.solution().iter().map(|(column, level)| master.columns[*column].cost * level).sum();
        // Two of (2,1), one of the limited (0,1).
        assert!((cost - 8.0).abs() < 1e-9, "{cost}");
        let duals = master.duals();
        assert!((4.0 * duals[0] + 3.0 * duals[1] + duals[2] - 8.0).abs() < 1e-9);
        assert!((0..4).all(|column| master.reduced_cost(column, &duals) > -1e-9));
    }
}
