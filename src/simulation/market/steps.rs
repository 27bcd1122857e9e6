//! A value that changes at whole seconds and, if it has a period, begins again.

/// A step function over the seconds since a market's epoch. Before second 0 it has its first value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps<T> {
    /// Ascending; the first at second 0; neighbours differ.
    points: Vec<(i64, T)>,
    /// Begins again after so many seconds; stays at its last value where absent.
    period: Option<i64>,
}

impl<T: PartialEq> Steps<T> {
    /// `value` from second 0 on; what follows is added with [`Steps::then`].
    pub fn constant(value: T) -> Steps<T> {
        Steps { points: vec![(0, value)], period: None }
    }

    /// From `second` on, `value`. A second that does not follow the last one replaces what would come after it.
    pub fn then(mut self, second: i64, value: T) -> Steps<T> {
        self.push(second, value);
        self
    }

    pub fn push(&mut self, second: i64, value: T) {
        self.points.retain(|(start, _)| *start < second.max(1));
        if self.points.last().is_none_or(|(_, last)| *last != value) {
            self.points.push((second.max(0), value));
        }
    }

    pub fn repeating(mut self, period_seconds: i64) -> Steps<T> {
        self.period = (period_seconds > 0).then_some(period_seconds);
        self
    }

    pub fn at(&self, second: i64) -> &T {
        let inside = self.inside(second.max(0)).1;
        let index = self.points.partition_point(|(start, _)| *start <= inside);
        &self.points[index.saturating_sub(1)].1
    }

    /// Since when it has the value of `second`; `second` itself before the beginning.
    pub fn since(&self, second: i64) -> i64 {
        let (base, inside) = self.inside(second);
        if second < 0 {
            return second;
        }
        let index = self.points.partition_point(|(start, _)| *start <= inside);
        let (start, value) = &self.points[index.saturating_sub(1)];
        let goes_on = base > 0 && *start == 0 && self.points.last().is_some_and(|(_, last)| last == value);
        // Over the seam of two periods: the last point of the one before, unless it never changes.
        match self.points.last().filter(|_| goes_on).zip(self.period) {
            Some((_, _)) if self.points.len() == 1 => 0,
            Some(((last, _), period)) => base - period + last,
            None => base + start,
        }
    }

    /// The first change after `second`.
    pub fn next_change(&self, second: i64) -> Option<(i64, &T)> {
        let (base, inside) = self.inside(second.max(0));
        let index = self.points.partition_point(|(start, _)| *start <= inside);
        if let Some((start, value)) = self.points.get(index).filter(|(start, _)| self.period.is_none_or(|period| *start < period)) {
            return Some((base + start, value));
        }
        let period = self.period?;
        let last = &self.points[index.saturating_sub(1)].1;
        let (first, second) = (self.points.first()?, self.points.get(1).filter(|(start, _)| *start < period));
        if *last != first.1 {
            return Some((base + period, &first.1));
        }
        second.map(|(start, value)| (base + period + start, value))
    }

    /// Every change in `(after, until]`, in order.
    pub fn changes(&self, after: i64, until: i64) -> impl Iterator<Item = (i64, &T)> {
        let mut cursor = after;
        std::iter::from_fn(move || {
            let (second, value) = self.next_change(cursor)?;
            cursor = second;
            (second <= until).then_some((second, value))
        })
    }

    fn inside(&self, second: i64) -> (i64, i64) {
        match self.period {
            Some(period) => (second.div_euclid(period) * period, second.rem_euclid(period)),
            None => (0, second),
        }
    }
}

impl<T: PartialEq + PartialOrd + Copy> Steps<T> {
    /// The next change to a lower value after `second`, searched no further than `until`.
    pub fn next_fall(&self, second: i64, until: i64) -> Option<(i64, T)> {
        let mut before = *self.at(second);
        for (at, value) in self.changes(second, until) {
            if *value < before {
                return Some((at, *value));
            }
            before = *value;
        }
        None
    }

    /// The least value in `[from, until]`.
    pub fn least(&self, from: i64, until: i64) -> T {
        self.changes(from, until).fold(*self.at(from), |least, (_, value)| if *value < least { *value } else { least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_period_begins_again_with_the_first_value() {
        let steps = Steps::constant(4).then(10, 0).then(20, 2).repeating(30);
        assert_eq!((*steps.at(-5), *steps.at(9), *steps.at(10), *steps.at(29), *steps.at(30), *steps.at(41)), (4, 4, 0, 2, 4, 0));
        assert_eq!(steps.next_change(20), Some((30, &4)));
        assert_eq!(steps.next_fall(10, 1_000), Some((40, 0)));
        assert_eq!(steps.least(30, 39), 4);
        assert_eq!(steps.least(30, 40), 0);
    }

    #[test]
    fn what_never_changes_has_no_next_change() {
        assert_eq!(Steps::constant(3).repeating(60).next_change(7), None);
        assert_eq!(Steps::constant(3).next_change(7), None);
    }

    proptest! {
        #[test]
        fn changes_are_exactly_where_the_value_differs_from_a_second_ago(values in prop::collection::vec(0_u32..3, 1..8), gap in 1_i64..4) {
            let mut steps = Steps::constant(values[0]);
            for (index, value) in values.iter().enumerate() {
                steps.push(index as i64 * gap, *value);
            }
            let steps = steps.repeating(values.len() as i64 * gap);
            let seen: Vec<i64> = steps.changes(0, 100).map(|(second, _)| second).collect();
            let wanted: Vec<i64> = (1..=100).filter(|second| steps.at(*second) != steps.at(second - 1)).collect();
            prop_assert_eq!(&seen, &wanted);
            let since = |second: i64| wanted.iter().copied().filter(|change| *change <= second).max().unwrap_or(0);
            prop_assert!((0..=100).all(|second| steps.since(second) == since(second)));
        }
    }
}
