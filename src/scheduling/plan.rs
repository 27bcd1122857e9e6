//! To be filled.
pub fn plan() {}
