//! TOML -> settings.
use super::Settings;
/// One mistake in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    pub what: String,
}
/// What a file says, as far as it can be used, and everything that is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub settings: Settings,
    pub mistakes: Vec<Mistake>,
    pub unknown: Vec<Mistake>,
}
/// Reads a settings file.
pub fn parse(_text: &str) -> Parsed { Parsed { settings: Settings::default(), mistakes: vec![], unknown: vec![] } }
