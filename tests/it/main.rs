//! The command line as its users see it, generated files, and the rules of the house.

mod generated;
mod ledger;
mod tidy;
