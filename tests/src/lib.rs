//! The test harness: real parts and upstreams of our own that misbehave on demand. Must not hold tests: those stand in
//! `integration/` (one process, loopback), `cluster/` (a real API server) and `e2e/` (real containerd, root).

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod containerd;
pub mod gateway;
pub mod image;
pub mod invariants;
pub mod node;
pub mod registry;
pub mod upstream;
pub mod wait;
