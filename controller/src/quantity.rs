//! Kubernetes quantities by value: `1000m` and `1` are the same. Must not round: what does not fit is no quantity.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

/// A quantity in thousandths of its unit: bytes, cores or a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a quantity such as 500m, 2, 512Mi or 10Gi")]
pub struct NoQuantity;

impl Quantity {
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self(bytes as i128 * 1000)
    }

    #[must_use]
    pub const fn millis(self) -> i128 {
        self.0
    }

    /// Whole units, cut off.
    #[must_use]
    pub fn units(self) -> Option<u64> {
        u64::try_from(self.0 / 1000).ok()
    }
}

impl TryFrom<&Written> for Quantity {
    type Error = NoQuantity;

    fn try_from(written: &Written) -> Result<Self, NoQuantity> {
        written.0.parse()
    }
}

/// Thousandths in one of each suffix. `n` and `u` are less than that, and not used for what Larder compares.
const SUFFIXES: [(&str, i128); 14] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("", 1000),
];

impl FromStr for Quantity {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        let (number, one) = SUFFIXES
            .iter()
            .find_map(|(suffix, one)| text.strip_suffix(suffix).map(|number| (number, *one)))
            .ok_or(NoQuantity)?;
        let (sign, digits) = match number.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + part.len() == 0 || part.len() > 9 {
            return Err(NoQuantity);
        }
        let all = format!("{whole}{part}");
        if !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoQuantity);
        }
        let scale = 10_i128.pow(u32::try_from(part.len()).map_err(|_| NoQuantity)?);
        let value: i128 = all.parse().map_err(|_| NoQuantity)?;
        let scaled = value.checked_mul(one).ok_or(NoQuantity)?;
        if scaled % scale == 0 { Ok(Self(sign * scaled / scale)) } else { Err(NoQuantity) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_amount_is_equal_however_it_is_written() {
        for (one, other) in
            [("1000m", "1"), ("1Gi", "1024Mi"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("2k", "2000")]
        {
            assert_eq!(one.parse::<Quantity>().unwrap(), other.parse().unwrap(), "{one} {other}");
        }
        assert!("1G".parse::<Quantity>().unwrap() < "1Gi".parse().unwrap());
        assert_eq!("10Gi".parse::<Quantity>().unwrap().units(), Some(10 << 30));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", "Gi", "-", ".", "1Zi", "1 Gi", "0x1", "99999999999999999999999999999999999999999", "1e3"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(NoQuantity), "{text}");
        }
    }
}
