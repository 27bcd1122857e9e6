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

    /// A meter for a part of what is left, in hundredths.
    pub fn share(&self, percent: u64) -> Meter {
        Meter { left: self.left / 100 * percent }
    }

    pub fn spend(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps as u64);
    }

    /// What `part` has used of its share is used here too.
    pub fn settle(&mut self, part: &Meter, percent: u64) {
        let given = self.left / 100 * percent;
        self.left -= given.saturating_sub(part.left);
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}
