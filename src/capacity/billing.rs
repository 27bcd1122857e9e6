//! What EC2 charges for an instance.
