//! Settings -> TOML.
