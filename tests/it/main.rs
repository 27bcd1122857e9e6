//! The command line as its users see it, generated files, and the rules of the house.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod generated;
mod ledger;
mod packing;
mod plan;
mod run;
mod tidy;
mod training;
