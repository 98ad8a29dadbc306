//! The controller of Larder: one story per kind of custom resource, each in a file of its name, and what they share.
//! `run` is its life; only this crate speaks to Kubernetes. It never sits between a node and its images.

// What all stories share.
pub mod apply;
pub mod client;
pub mod condition;
pub mod config;
pub mod context;
pub mod error;
pub mod events;
pub mod quantity;
pub mod reconcile;
pub mod status;

// The custom resources.
pub mod crd;

// The stories.
pub mod cache;
pub mod node_cache;
pub mod registry;
pub mod registry_gateway;
pub mod registry_template;
pub mod reports;

// Its own life.
pub mod defaults;
pub mod health;
pub mod install;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod run;
