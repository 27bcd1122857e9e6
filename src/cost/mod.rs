//! Charges in FOCUS terms, metering windows, and sums for reports. Pure.
