//! Geometry of the charts, in integers. Widths and heights are thousandths of the drawing, which is stretched to its
//! place; words stand beside it as HTML, so that they keep their size on a phone.

use super::figures::share;
use num_bigint::BigInt;
use num_traits::{Signed, Zero};
use serde::Serialize;

pub const SIDE: i64 = 1000;

/// One rectangle of a stack, from the left and the top.
#[derive(Debug, Serialize, PartialEq)]
pub struct Rect {
    pub x: i64,
    pub y: i64,
    pub width: i64,
    pub height: i64,
    /// Place of its series.
    pub series: usize,
}

/// The least of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 × 10^n that is not below a value; for 0 it is 1 (all in 10^-12).
pub fn ceiling(value: &BigInt) -> BigInt {
    let mut ten = BigInt::from(1);
    if !value.is_positive() {
        return ten * 1_000_000_000_000i64;
    }
    loop {
        for (num, den) in [(1, 1), (6, 5), (3, 2), (2, 1), (5, 2), (3, 1), (4, 1), (5, 1), (6, 1), (8, 1)] {
            let step: BigInt = &ten * num;
            if (&step % den) == BigInt::zero() && &step / den >= *value {
                return step / den;
            }
        }
        ten *= 10;
    }
}

/// The bars of stacks: each stack the amounts of its series from below, `top` the end of the scale.
pub fn stacks(stacks: &[Vec<BigInt>], top: &BigInt) -> Vec<Rect> {
    let count = stacks.len().max(1) as i64;
    let mut rects = Vec::new();
    for (place, stack) in stacks.iter().enumerate() {
        let left = SIDE * place as i64 / count;
        let next = SIDE * (place as i64 + 1) / count;
        let gap = ((next - left) / 6).max(i64::from(count < 400));
        let mut below = BigInt::zero();
        for (series, amount) in stack.iter().enumerate().filter(|(_, amount)| amount.is_positive()) {
            let from = share(&below, top, SIDE);
            below += amount;
            let until = share(&below, top, SIDE);
            let height = (until - from).max(i64::from(from < SIDE)); // what is there is seen
            rects.push(Rect {
                x: left + gap / 2,
                y: SIDE - from - height,
                width: (next - left - gap).max(1),
                height,
                series,
            });
        }
    }
    rects
}

/// A line through values at the ends of equal steps, from 0 at the left; as points of an SVG polyline.
pub fn line(values: &[BigInt], steps: usize, top: &BigInt) -> String {
    let mut points = format!("0,{SIDE}");
    for (place, value) in values.iter().enumerate() {
        points.push_str(&format!(" {},{}", along(place + 1, steps), SIDE - share(value, top, SIDE)));
    }
    points
}

/// Where so many steps of all end.
pub fn along(step: usize, steps: usize) -> i64 {
    SIDE * step as i64 / steps.max(1) as i64
}
