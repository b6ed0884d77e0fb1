//! An amount in one currency (an ISO 4217 code or a pricing unit), for function boundaries.

use super::decimal::{Exact, quoted};
use super::fault::{Code, Fault};
use std::fmt;

/// Longest unit code in bytes.
pub const UNIT_MAX: usize = 12;

/// A currency or pricing-unit code: 2–12 characters, a letter first, then letters, digits, `_`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    bytes: [u8; UNIT_MAX],
}

impl Unit {
    /// ISO 4217's "no currency", where what meets is of one unit already, or the unit plays no part.
    pub const NONE: Unit = {
        let mut bytes = [0; UNIT_MAX];
        (bytes[0], bytes[1], bytes[2]) = (b'X', b'X', b'X');
        Unit { bytes }
    };

    pub fn parse(text: &str) -> Result<Unit, Fault> {
        let bytes = text.as_bytes();
        let well_formed = (2..=UNIT_MAX).contains(&bytes.len())
            && bytes[0].is_ascii_alphabetic()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if !well_formed {
            return Err(Fault::value(format!("{} is not a currency or unit code", quoted(text)))
                .with_hint("Use an ISO 4217 code such as USD, or a unit of 2 to 12 letters, digits and _."));
        }
        let mut unit = [0; UNIT_MAX];
        unit[..bytes.len()].copy_from_slice(bytes);
        Ok(Unit { bytes: unit })
    }

    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|b| *b == 0).unwrap_or(UNIT_MAX);
        std::str::from_utf8(&self.bytes[..end]).expect("a unit is ASCII")
    }

    /// The stored form: the code, padded with zero bytes.
    pub fn to_bytes(self) -> [u8; UNIT_MAX] {
        self.bytes
    }

    pub fn from_bytes(bytes: [u8; UNIT_MAX]) -> Result<Unit, Fault> {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(UNIT_MAX);
        if bytes[end..].iter().any(|b| *b != 0) {
            return Err(Fault::value("unit code has a zero byte inside"));
        }
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Fault::value("unit code is not ASCII"))?;
        Unit::parse(text)
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `12.34 USD`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Money {
    pub amount: Exact,
    pub unit: Unit,
}

// Methods, not operators: + can't return a fault.
#[expect(clippy::should_implement_trait)]
impl Money {
    pub fn parse(text: &str) -> Result<Money, Fault> {
        let form = || {
            Fault::value(format!("{} is not money", quoted(text)))
                .with_hint("Write the amount, one space and the currency: 12.34 USD")
        };
        let (amount, unit) = text.trim().split_once(' ').ok_or_else(form)?;
        Ok(Money { amount: Exact::parse(amount)?, unit: Unit::parse(unit.trim_start())? })
    }

    fn same_unit(self, other: Money, verb: &str) -> Result<(), Fault> {
        if self.unit == other.unit {
            return Ok(());
        }
        Err(Fault::new(Code::Currency, format!("{self} and {other} can't be {verb}: the currencies differ"))
            .with_hint(
                "Convert one of them first, at a rate you choose; amounts are never converted silently.",
            ))
    }

    pub fn add(self, other: Money) -> Result<Money, Fault> {
        self.same_unit(other, "added")?;
        Ok(Money { amount: self.amount.add(other.amount)?, unit: self.unit })
    }

    pub fn sub(self, other: Money) -> Result<Money, Fault> {
        self.same_unit(other, "subtracted")?;
        Ok(Money { amount: self.amount.sub(other.amount)?, unit: self.unit })
    }

    pub fn mul(self, factor: Exact) -> Result<Money, Fault> {
        Ok(Money { amount: self.amount.mul(factor)?, unit: self.unit })
    }

    pub fn compare(self, other: Money) -> Result<std::cmp::Ordering, Fault> {
        self.same_unit(other, "compared")?;
        Ok(self.amount.cmp(&other.amount))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.unit.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        assert_eq!(Money::parse("12.34 USD").unwrap().to_string(), "12.34 USD");
        assert_eq!(Money::parse("-0.10 tokens").unwrap().to_string(), "-0.1 tokens");
        for bad in
            ["", "12.34", "USD 12", "12.34USD", "12.34 U", "12 US-D", "12 1AB", "12 ABCDEFGHIJKLM", "x USD"]
        {
            assert!(Money::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn never_mixes_currencies() {
        let (usd, eur) = (Money::parse("1 USD").unwrap(), Money::parse("1 EUR").unwrap());
        assert_eq!(usd.add(eur).unwrap_err().code, Code::Currency);
        assert_eq!(usd.sub(eur).unwrap_err().code, Code::Currency);
        assert_eq!(usd.compare(eur).unwrap_err().code, Code::Currency);
        assert_eq!(usd.add(usd).unwrap().to_string(), "2 USD");
        assert_eq!(usd.mul(Exact::parse("0.5").unwrap()).unwrap().to_string(), "0.5 USD");
    }
}
