//! Exact numbers, and how they are rounded.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};

pub type Q = BigRational;

pub fn q(n: i64) -> Q {
    Q::from_integer(n.into())
}

/// A decimal's exact value.
pub fn dec(text: &str) -> Q {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number: BigInt = format!("{whole}{part}").parse().unwrap_or_else(|_| panic!("not a decimal: {text}"));
    Q::new(number * sign, BigInt::from(10).pow(part.len() as u32))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    HalfUp,
    HalfEven,
}

/// To `digits` places; a half goes away from zero, or to the even neighbour.
pub fn round(x: &Q, digits: u32, mode: Rounding) -> Q {
    let scale = Q::from_integer(BigInt::from(10).pow(digits));
    let scaled = x.abs() * &scale;
    let floor = scaled.floor();
    let rest = &scaled - &floor;
    let half = Q::new(1.into(), 2.into());
    let up = match rest.cmp(&half) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => {
            mode == Rounding::HalfUp || !(floor.to_integer() % BigInt::from(2)).is_zero()
        }
    };
    let rounded = if up { floor + q(1) } else { floor } / scale;
    if x.is_negative() { -rounded } else { rounded }
}

/// Splits a rounded total by weights, largest remainder first, ties in order (rules 0.6).
pub fn split(total: &Q, weights: &[Q], digits: u32) -> Vec<Q> {
    split_exact(total, total, weights, digits)
}

/// Splits a total that was rounded by the remainders of its exact parts.
pub fn split_exact(total: &Q, rounded: &Q, weights: &[Q], digits: u32) -> Vec<Q> {
    let sum: Q = weights.iter().sum();
    if sum.is_zero() {
        return weights.iter().map(|_| q(0)).collect();
    }
    let unit = Q::new(1.into(), BigInt::from(10).pow(digits));
    let sign = if total.is_negative() { q(-1) } else { q(1) };
    let units = total.abs() / &unit;
    let shares: Vec<Q> = weights.iter().map(|w| &units * w / &sum).collect();
    let mut parts: Vec<Q> = shares.iter().map(Q::floor).collect();
    let mut left = rounded.abs() / &unit - parts.iter().sum::<Q>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(&shares[*at] - &parts[*at]));
    for at in order {
        if left.is_zero() {
            break;
        }
        parts[at] += q(1);
        left -= q(1);
    }
    parts.into_iter().map(|p| p * &unit * &sign).collect()
}

/// A fraction that has an end, as a decimal.
pub fn decimal(x: &Q) -> String {
    let mut digits = 0;
    let mut scaled = x.clone();
    while !scaled.is_integer() {
        digits += 1;
        assert!(digits < 60, "{x} has no end");
        scaled *= q(10);
    }
    fixed(x, digits)
}

/// With exactly so many places; the fraction must fit.
pub fn fixed(x: &Q, digits: u32) -> String {
    let scaled = x.abs() * Q::from_integer(BigInt::from(10).pow(digits));
    assert!(scaled.is_integer(), "{x} has more than {digits} places");
    let mut text = scaled.to_integer().to_string();
    while text.len() <= digits as usize {
        text.insert(0, '0');
    }
    if digits > 0 {
        text.insert(text.len() - digits as usize, '.');
    }
    if x.is_negative() { format!("-{text}") } else { text }
}
