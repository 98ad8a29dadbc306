//! Words that every room of Larder shares: names, digests, routes, OCI errors, settings and the stats report.
//! Pure: nothing here opens a file, a socket or a clock, so every room may depend on it and none is pulled in by it.
//!
//! Reading order: [`name`] and [`digest`] (what an image is called), [`route`] (what is asked), [`oci`] (how a refusal
//! reads), [`proof`] (how an agent shows who it is), [`units`] and [`settings`] (what an administrator writes),
//! [`report`] (what an agent tells the controller).

pub mod digest;
pub mod name;
pub mod oci;
pub mod proof;
pub mod report;
pub mod route;
pub mod settings;
pub mod units;
