//! The push gateway as a process in front of real registries: Debian's docker-registry 2.8, and Distribution 3 where it
//! was built. One file a topic. Must not need anything but loopback; what is not installed is told in a line.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what a test calls is a test, which clippy sees only in functions marked so"
)]

// What suites share.
mod registry;
mod web;

// A push and a pull, and every route.
mod equal;
mod requests;
mod skopeo;

// What is refused.
mod bad_input;
mod limits;
mod matrix;
mod policy;

// Many at once, and ends in the middle.
mod race;
mod replicas;
mod restart;
