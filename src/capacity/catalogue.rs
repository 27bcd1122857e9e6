//! The dated catalogue of instance types and prices in the binary.
