//! The push gateway: everything streams through, and only what would break a limit is refused, with words.
//! Reading order: `server` (accept), `serve` (route), `admit` (THE STORY of a push), its stages, `forward`.
//! Must not speak Kubernetes: limits come as a file.

// The way of a request.
pub mod server;
pub mod serve;
pub mod admit;
pub mod limits;
pub mod manifest;
pub mod sizes;
pub mod tags;
pub mod forward;
pub mod uploads;
pub mod refuse;

// What they share.
pub mod body;
pub mod caller;
pub mod policy;
pub mod upstream;

// Beside the requests.
pub mod admin;
pub mod audit;
pub mod config;
pub mod events;
pub mod metrics;
pub mod owner;
pub mod peers;
pub mod resync;
pub mod run;
