//! Counts work, so that pure code is bounded without a clock and answers the same on every machine.

use super::fleet::Effort;

/// Work that may still be done.
#[derive(Clone, Debug)]
pub struct Meter {
    left: u64,
}

impl Meter {
    pub fn new(effort: Effort) -> Meter {
        Meter { left: effort.0 }
    }

    /// Does a part of the work with at most this many hundredths of what is left.
    pub fn within<T>(&mut self, percent: u64, work: impl FnOnce(&mut Meter) -> T) -> T {
        let given = self.left / 100 * percent;
        let mut part = Meter { left: given };
        let done = work(&mut part);
        self.left -= given - part.left;
        done
    }

    pub fn spend(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps as u64);
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}
