//! Integration tests: the mirror in this process, agent and installer as processes, upstreams of our own that misbehave.
//! One file a topic. Must not need anything but loopback; what needs root says so in a line when it is left out.

mod access;
mod answers;
mod bad_input;
mod certs;
mod distribution;
mod flight;
mod guard;
mod integrity;
mod limits;
mod lists;
mod process;
mod ranges;
mod store;
mod tags;
mod upstreams;
