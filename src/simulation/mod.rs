//! Worlds that can be replayed: markets from a seed or a trace. Pure.

pub mod deadline;
pub mod market;
pub mod world;
