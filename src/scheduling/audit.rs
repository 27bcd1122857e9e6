//! To be filled.
pub fn audit() {}
