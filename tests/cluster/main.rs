//! Against a real API server, with the rights that are shipped: what the custom resources accept, what the controller
//! makes of them, and what happens to both when something is changed, deleted or away. Where the API server's programs
//! are missing one line says so and the tests pass. Must not need a kubelet.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test calls is a test, which clippy sees only in functions marked so"
)]

// What suites share.
mod scene;

// The harness, and the custom resources by themselves.
mod crds;
mod rules;
mod server;

// NodeCaches and Caches.
mod cache;
mod children;
mod node_cache;
mod reports;
mod withdraw;

// Registries and what stands before them.
mod registry;
mod registry_gateway;
mod upgrade;

// The controller's own life, and the chart.
mod away;
mod chart;
mod install;
mod killed;
mod leader;
