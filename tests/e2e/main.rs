//! End to end: a real containerd pulls from a real registry through Larder's own programs, and each of them is stopped,
//! hung, killed, starved or damaged meanwhile. Every story is told to containerd 1.6 and to 2.x. Needs root and Debian's
//! `containerd` and `docker-registry`; where something is missing one line says so and the tests pass.

#![expect(clippy::unwrap_used, reason = "a story is a test, which clippy sees only in functions marked so")]

mod certs;
mod deaths;
mod image;
mod pulls;
mod scene;
