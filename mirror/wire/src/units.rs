//! Durations as Go writes them and sizes with binary units: the two notations of the settings file.
//! Must not know settings; it only reads and writes single values.

use std::fmt;
use std::time::Duration;

/// A size, or a share of the file system that the data directory stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Bytes(u64),
    /// 0 to 100
    Percent(u8),
}

/// What a value was expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("expected a duration like \"1h30m\", \"168h\" or \"0s\"")]
    Duration,
    #[error("expected a size: an integer with B, KiB, MiB, GiB, TiB or Ki, Mi, Gi, Ti, like \"10GiB\"")]
    Bytes,
    #[error("expected a size like \"10GiB\" or a share of the file system like \"20%\"")]
    Size,
}

impl Size {
    /// The bytes this stands for on a file system of that capacity.
    #[must_use]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                u64::try_from(u128::from(capacity) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&format_bytes(*bytes)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Reads a duration as Go's `time.ParseDuration` does, without a sign: `1h30m`, `1.5s`, `0`, `100ms`.
///
/// # Errors
/// [`UnitError::Duration`] for anything else, and beyond about 290 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    if rest.is_empty() {
        return Err(UnitError::Duration);
    }
    while !rest.is_empty() {
        let (number, after) =
            rest.split_at(rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, after) =
            after.split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        nanos = nanos.checked_add(scaled(number, nanos_of(unit)?)?).ok_or(UnitError::Duration)?;
        rest = after;
    }
    if nanos > i64::MAX as u128 {
        return Err(UnitError::Duration);
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| UnitError::Duration)
}

/// Writes a duration so that [`parse_duration`] and Go read it back: hours, minutes, then the rest.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    if seconds > 0 || (nanos == 0 && text.is_empty()) {
        text.push_str(&format!("{seconds}s"));
    }
    match nanos {
        0 => {}
        n if n % 1_000_000 == 0 => text.push_str(&format!("{}ms", n / 1_000_000)),
        n => text.push_str(&format!("{n}ns")),
    }
    text
}

/// Reads a number of bytes: `512`, `64KiB`, `10Gi`.
///
/// # Errors
/// [`UnitError::Bytes`] for anything else.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" | "B" => 0,
        "KiB" | "Ki" => 10,
        "MiB" | "Mi" => 20,
        "GiB" | "Gi" => 30,
        "TiB" | "Ti" => 40,
        _ => return Err(UnitError::Bytes),
    };
    let number: u64 = number.parse().map_err(|_| UnitError::Bytes)?;
    number.checked_mul(1 << shift).ok_or(UnitError::Bytes)
}

/// Writes bytes with the largest unit that loses nothing.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    if bytes == 0 { "0".to_owned() } else { format!("{bytes}B") }
}

/// Reads a size or a share: `10GiB`, `20%`, `0`.
///
/// # Errors
/// [`UnitError::Size`] for anything else.
pub fn parse_size(text: &str) -> Result<Size, UnitError> {
    let Some(percent) = text.strip_suffix('%') else {
        return parse_bytes(text).map(Size::Bytes).map_err(|_| UnitError::Size);
    };
    let digits = !percent.is_empty() && percent.bytes().all(|b| b.is_ascii_digit());
    match percent.parse::<u8>() {
        Ok(percent) if digits && percent <= 100 => Ok(Size::Percent(percent)),
        _ => Err(UnitError::Size),
    }
}

fn nanos_of(unit: &str) -> Result<u128, UnitError> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(UnitError::Duration),
    })
}

/// `number` (digits with at most one point) times `unit` nanoseconds, fractions of a nanosecond dropped.
fn scaled(number: &str, unit: u128) -> Result<u128, UnitError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || number.len() > 30 {
        return Err(UnitError::Duration);
    }
    let digits = |text: &str| {
        if text.is_empty() { Ok(0) } else { text.parse::<u128>().map_err(|_| UnitError::Duration) }
    };
    let fraction = &fraction[..fraction.len().min(12)];
    let part = digits(fraction)? * unit / 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    digits(whole)?.checked_mul(unit).and_then(|whole| whole.checked_add(part)).ok_or(UnitError::Duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_in_go() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1h30m", 5_400_000),
            ("168h", 604_800_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("250ms", 250),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "1", "s", "1 s", "-1s", "+1s", "1d", "1..5s", ".s", "1h 30m", "99999999999h", "١s"] {
            assert_eq!(parse_duration(bad), Err(UnitError::Duration), "{bad}");
        }
    }

    #[test]
    fn sizes_with_binary_units() {
        for (text, size) in [
            ("0", Size::Bytes(0)),
            ("4KiB", Size::Bytes(4096)),
            ("4Ki", Size::Bytes(4096)),
            ("7B", Size::Bytes(7)),
            ("1TiB", Size::Bytes(1 << 40)),
            ("20%", Size::Percent(20)),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in ["", "GiB", "1GB", "1.5GiB", "-1", "101%", "%", "+1%", "1 GiB", "99999999999TiB"] {
            assert_eq!(parse_size(bad), Err(UnitError::Size), "{bad}");
        }
        assert_eq!(Size::Percent(20).of(u64::MAX), u64::MAX / 5);
    }

    proptest! {
        #[test]
        fn durations_read_back(seconds in 0..9_000_000_000_u64, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_read_back(bytes in any::<u64>(), percent in 0..=100_u8) {
            for size in [Size::Bytes(bytes), Size::Percent(percent)] {
                prop_assert_eq!(parse_size(&size.to_string()), Ok(size));
            }
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
