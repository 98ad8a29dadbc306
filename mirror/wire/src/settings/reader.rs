//! Takes values out of a TOML table one by one, keeping the line of whatever is wrong with them and of whatever nobody
//! asked for. Must not know any setting by name.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse::{Mistake, Spoils};
use crate::units::{self, Size};

/// A value with its place in the file.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// What was found so far, and where the lines of the text begin.
pub(super) struct Findings {
    newlines: Vec<usize>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) unknown: Vec<Mistake>,
}

/// One table while it is read. [`Section::finish`] tells the keys that nobody asked for.
pub(super) struct Section<'a, 'i> {
    found: &'a mut Findings,
    table: &'a DeTable<'i>,
    /// `cache.` in front of its keys' names; empty at the root.
    prefix: String,
    /// What a mistake in here makes unusable.
    spoils: Spoils,
    asked: Vec<&'static str>,
}

/// Why a value cannot be used, and where in the text.
pub(super) struct Wrong {
    at: usize,
    what: String,
}

impl Findings {
    pub(super) fn of(text: &str) -> Self {
        Self {
            newlines: text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect(),
            mistakes: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// The line of a byte of the text, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < at) + 1
    }

    pub(super) fn mistake(&mut self, at: usize, spoils: Spoils, what: String) {
        let line = self.line(at);
        self.mistakes.push(Mistake { line, what, spoils });
    }

    pub(super) fn section<'a, 'i>(
        &'a mut self,
        table: &'a DeTable<'i>,
        name: &str,
        spoils: Spoils,
    ) -> Section<'a, 'i> {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        Section { found: self, table, prefix, spoils, asked: Vec::new() }
    }
}

impl<'a, 'i> Section<'a, 'i> {
    /// The value of a key, when it is there and right. What is wrong with it is kept.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        reader: impl FnOnce(&Value<'i>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match reader(value) {
            Ok(read) => Some(read),
            Err(wrong) => {
                self.found.mistake(wrong.at, self.spoils, format!("{}{key}: {}", self.prefix, wrong.what));
                None
            }
        }
    }

    /// Reads a key over a default.
    pub(super) fn set<T>(
        &mut self,
        into: &mut T,
        key: &'static str,
        reader: impl FnOnce(&Value<'i>) -> Result<T, Wrong>,
    ) {
        if let Some(read) = self.read(key, reader) {
            *into = read;
        }
    }

    /// Reads a key that may be left out.
    pub(super) fn set_some<T>(
        &mut self,
        into: &mut Option<T>,
        key: &'static str,
        reader: impl FnOnce(&Value<'i>) -> Result<T, Wrong>,
    ) {
        if let Some(read) = self.read(key, reader) {
            *into = Some(read);
        }
    }

    /// A table within this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'_, 'i>> {
        let spoils = self.spoils;
        let value = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            let what = format!("{key}: expected a table [{key}], found {}", describe(value.get_ref()));
            self.found.mistake(value.span().start, spoils, what);
            return None;
        };
        Some(self.found.section(table, key, spoils))
    }

    /// A key's value as it stands.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value<'i>> {
        self.asked.push(key);
        self.table.get(key)
    }

    /// Keeps a mistake about a key whose value could be read, or about the whole section when the key is not there.
    pub(super) fn mistake(&mut self, key: &str, otherwise: usize, what: &str) {
        let at = self.table.get(key).map_or(otherwise, |value| value.span().start);
        self.found.mistake(at, self.spoils, format!("{}{key}: {what}", self.prefix));
    }

    /// How many mistakes the whole text has so far.
    pub(super) fn mistakes(&self) -> usize {
        self.found.mistakes.len()
    }

    pub(super) fn findings(&mut self) -> &mut Findings {
        self.found
    }

    /// Tells every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let mut what = format!("unknown key {}{}", self.prefix, name.escape_debug());
            if let Some(meant) = nearest(name, &self.asked) {
                what.push_str(&format!(", did you mean {meant}?"));
            }
            let line = self.found.line(key.span().start);
            self.found.unknown.push(Mistake { line, what, spoils: Spoils::Nothing });
        }
    }
}

impl Wrong {
    /// Says what was expected and what stands there instead.
    pub(super) fn expected(expected: impl std::fmt::Display, value: &Value<'_>) -> Self {
        Self {
            at: value.span().start,
            what: format!("expected {expected}, found {}", describe(value.get_ref())),
        }
    }

    /// Says what is wrong without showing the value, for values that may hold a secret.
    pub(super) fn hidden(what: impl Into<String>, span: Range<usize>) -> Self {
        Self { at: span.start, what: what.into() }
    }
}

/// A text that `good` takes.
pub(super) fn text_where<'i>(
    expected: &'static str,
    good: impl Fn(&str) -> bool,
) -> impl Fn(&Value<'i>) -> Result<String, Wrong> {
    move |value| match value.get_ref().as_str() {
        Some(text) if good(text) => Ok(text.to_owned()),
        _ => Err(Wrong::expected(expected, value)),
    }
}

/// A text of a type that knows how to read itself.
pub(super) fn parsed<'i, T: FromStr>(expected: &'static str) -> impl Fn(&Value<'i>) -> Result<T, Wrong> {
    move |value| {
        let read = value.get_ref().as_str().and_then(|text| text.parse().ok());
        read.ok_or_else(|| Wrong::expected(expected, value))
    }
}

pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    match value.get_ref().as_str() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(text.into()),
        _ => Err(Wrong::expected("a path in quotes", value)),
    }
}

pub(super) fn socket(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    parsed("an address and port like \"127.0.0.1:19500\" or \"[::1]:19500\"")(value)
}

pub(super) fn boolean(value: &Value<'_>) -> Result<bool, Wrong> {
    value.get_ref().as_bool().ok_or_else(|| Wrong::expected("true or false", value))
}

/// A whole number within a range.
pub(super) fn whole<'i>(range: RangeInclusive<u64>) -> impl Fn(&Value<'i>) -> Result<u64, Wrong> {
    move |value| {
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok());
        match number {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(Wrong::expected(
                format_args!("a whole number from {} to {}", range.start(), range.end()),
                value,
            )),
        }
    }
}

/// The same as a count of things held in memory.
pub(super) fn count<'i>(range: RangeInclusive<u64>) -> impl Fn(&Value<'i>) -> Result<usize, Wrong> {
    let whole = whole(range);
    move |value| {
        usize::try_from(whole(value)?)
            .map_err(|_| Wrong::expected("a number this machine can count to", value))
    }
}

pub(super) fn duration(value: &Value<'_>) -> Result<Duration, Wrong> {
    unit(value, units::parse_duration, units::UnitError::Duration)
}

/// A duration within a range.
pub(super) fn duration_within<'i>(
    range: RangeInclusive<Duration>,
    expected: &'static str,
) -> impl Fn(&Value<'i>) -> Result<Duration, Wrong> {
    move |value| {
        let read = duration(value)?;
        if range.contains(&read) { Ok(read) } else { Err(Wrong::expected(expected, value)) }
    }
}

pub(super) fn size(value: &Value<'_>) -> Result<Size, Wrong> {
    unit(value, units::parse_size, units::UnitError::Size)
}

/// A size where a share of nothing has no meaning: no limit is `"0"`.
pub(super) fn limit(value: &Value<'_>) -> Result<Size, Wrong> {
    match size(value)? {
        Size::Percent(0) => {
            Err(Wrong::expected("a share from \"1%\" to \"100%\", or \"0\" for no limit", value))
        }
        size => Ok(size),
    }
}

pub(super) fn bytes(value: &Value<'_>) -> Result<u64, Wrong> {
    unit(value, units::parse_bytes, units::UnitError::Bytes)
}

/// One of a few words.
pub(super) fn word<'i, T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Value<'i>) -> Result<T, Wrong> {
    move |value| {
        let found = value.get_ref().as_str();
        let known = words.iter().find(|(word, _)| Some(*word) == found);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let one_of = if words.len() > 1 { "one of " } else { "" };
            Wrong::expected(format_args!("{one_of}{}", words.join(", ")), value)
        })
    }
}

/// A list whose elements all are right; told is the first that is not.
pub(super) fn list<'i, T>(
    reader: impl Fn(&Value<'i>) -> Result<T, Wrong>,
) -> impl Fn(&Value<'i>) -> Result<Vec<T>, Wrong> {
    move |value| match value.get_ref().as_array() {
        Some(array) => array.iter().map(&reader).collect(),
        None => Err(Wrong::expected("a list in brackets", value)),
    }
}

fn unit<T>(
    value: &Value<'_>,
    read: fn(&str) -> Result<T, units::UnitError>,
    expected: units::UnitError,
) -> Result<T, Wrong> {
    let text = value.get_ref().as_str().ok_or(expected);
    text.and_then(read).map_err(|error| {
        let error = error.to_string();
        Wrong::expected(error.strip_prefix("expected ").unwrap_or(&error), value)
    })
}

/// A value in a few words: texts as they stand, cut when long.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 60 => {
            format!("{:?}…", text.chars().take(60).collect::<String>())
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Float(_) => "a number with a point".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(array) if array.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The word that was probably meant: at most one edit away for every three letters.
fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    if word.len() > 40 {
        return None;
    }
    let closest = words.iter().map(|candidate| (edits(word, candidate), *candidate)).min()?;
    (closest.0 <= closest.1.len().div_ceil(3)).then_some(closest.1)
}

/// How many letters must be added, dropped or changed to make one word of the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
