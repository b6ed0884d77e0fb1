//! What a meter's counts add up to: states that merge in any order and grouping to the same result.

use super::expression::VALUE_SCALE_MAX;
use crate::domain::foundation::decimal::{DIGITS_MAX, Exact};
use crate::domain::foundation::fault::{Code, Fault};
use std::collections::BTreeSet;
use std::fmt;
use uuid::Uuid;

/// How a meter aggregates its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aggregation {
    /// The number of events.
    Count,
    /// The sum of their values.
    Sum,
    /// The largest value.
    Max,
    /// The number of distinct values.
    UniqueCount,
}

impl Aggregation {
    /// The words of a meter document, in the order of the variants.
    pub const WORDS: [&str; 4] = ["count", "sum", "max", "unique_count"];

    /// The aggregation a word of [`WORDS`](Aggregation::WORDS) names.
    pub fn parse(word: &str) -> Option<Aggregation> {
        match word {
            "count" => Some(Aggregation::Count),
            "sum" => Some(Aggregation::Sum),
            "max" => Some(Aggregation::Max),
            "unique_count" => Some(Aggregation::UniqueCount),
            _ => None,
        }
    }

    /// Its word in a meter document.
    pub fn word(self) -> &'static str {
        Aggregation::WORDS[self as usize]
    }
}

/// What one event adds to a state of its meter's aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contribution {
    /// To a count: the event itself.
    One,
    /// To a sum or a maximum.
    Number(Exact),
    /// To a distinct count: the key of the value's text.
    Key(Uuid),
}

const WHOLE_MAX: i128 = 10i128.pow(DIGITS_MAX) - 1;
/// Fractions are counted in units of 10^-12.
const UNITS: i64 = 10i64.pow(VALUE_SCALE_MAX);

/// A sum of usage numbers, exact for more than 10^10 of the largest ones. (28 digits before the point and
/// 12 behind it don't fit one i128, so the two sides of the point are kept apart.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Rounded down: −0.5 is −1 and half a unit.
    whole: i128,
    /// 0 ≤ fraction < UNITS.
    fraction: i64,
}

impl Sum {
    /// Adds one usage number.
    pub fn add(&mut self, value: Exact) -> Result<(), Fault> {
        if value.scale() > VALUE_SCALE_MAX {
            return Err(Fault::value(format!(
                "{value} has more than {VALUE_SCALE_MAX} digits after the point"
            )));
        }
        let unit = 10i128.pow(value.scale());
        let (whole, part) = match value.scale() {
            0 => (value.mantissa(), 0),
            _ => (value.mantissa().div_euclid(unit), value.mantissa().rem_euclid(unit)),
        };
        let part = i64::try_from(part).expect("less than 10^12");
        self.merge(Sum { whole, fraction: part * 10i64.pow(VALUE_SCALE_MAX - value.scale()) })
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Sum) -> Result<(), Fault> {
        let fraction = self.fraction + other.fraction;
        let whole = self
            .whole
            .checked_add(other.whole)
            .and_then(|whole| whole.checked_add(i128::from(fraction / UNITS)))
            .ok_or_else(|| Fault::new(Code::Bound, "a sum of usage outgrew 38 digits"))?;
        *self = Sum { whole, fraction: fraction % UNITS };
        Ok(())
    }

    /// The sum as one decimal, if 28 digits hold it.
    pub fn to_exact(self) -> Option<Exact> {
        if self.fraction == 0 {
            return Exact::from_parts(self.whole, 0);
        }
        let mantissa = self.whole.checked_mul(i128::from(UNITS))?.checked_add(i128::from(self.fraction))?;
        Exact::from_parts(mantissa, VALUE_SCALE_MAX)
    }

    /// Decimals that add up to the sum: one wherever one can hold it, the same ones for equal sums.
    pub fn to_parts(self) -> Vec<Exact> {
        if let Some(one) = self.to_exact() {
            return vec![one];
        }
        let mut parts = Vec::new();
        // Both sides of the point with the sum's own sign.
        let (mut whole, fraction) = match (self.whole < 0, self.fraction) {
            (true, 1..) => (self.whole + 1, self.fraction - UNITS),
            (_, fraction) => (self.whole, fraction),
        };
        while whole != 0 {
            let part = whole.clamp(-WHOLE_MAX, WHOLE_MAX);
            parts.push(Exact::from_parts(part, 0).expect("at most 28 digits"));
            whole -= part;
        }
        if fraction != 0 {
            let part = Exact::from_parts(fraction.into(), VALUE_SCALE_MAX);
            parts.push(part.expect("at most 12 digits"));
        }
        parts
    }
}

impl fmt::Display for Sum {
    /// Plain decimal text of any length, for a numeric.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, whole, fraction) = match (self.whole < 0, self.fraction) {
            (true, 0) => ("-", self.whole.unsigned_abs(), 0),
            (true, fraction) => ("-", (self.whole + 1).unsigned_abs(), UNITS - fraction),
            (false, fraction) => ("", self.whole.unsigned_abs(), fraction),
        };
        write!(f, "{sign}{whole}")?;
        if fraction != 0 {
            write!(f, ".{}", format!("{fraction:012}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// What the events so far add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Count(u64),
    Sum(Sum),
    /// `None` before the first value.
    Max(Option<Exact>),
    /// Keys of the distinct values.
    Unique(BTreeSet<Uuid>),
}

/// Version of the stored form.
const FORM: u8 = 1;

impl State {
    /// The state of no events.
    pub fn new(aggregation: Aggregation) -> State {
        match aggregation {
            Aggregation::Count => State::Count(0),
            Aggregation::Sum => State::Sum(Sum::default()),
            Aggregation::Max => State::Max(None),
            Aggregation::UniqueCount => State::Unique(BTreeSet::new()),
        }
    }

    /// The aggregation whose state this is.
    pub fn aggregation(&self) -> Aggregation {
        match self {
            State::Count(_) => Aggregation::Count,
            State::Sum(_) => Aggregation::Sum,
            State::Max(_) => Aggregation::Max,
            State::Unique(_) => Aggregation::UniqueCount,
        }
    }

    /// Adds what one event contributes. After a fault the state is as before.
    pub fn add(&mut self, contribution: Contribution) -> Result<(), Fault> {
        match (self, contribution) {
            (State::Count(count), Contribution::One) => {
                *count =
                    count.checked_add(1).ok_or_else(|| Fault::new(Code::Bound, "a count outgrew 64 bits"))?;
            }
            (State::Sum(sum), Contribution::Number(value)) => sum.add(value)?,
            (State::Max(max), Contribution::Number(value)) => *max = (*max).max(Some(value)),
            (State::Unique(keys), Contribution::Key(key)) => {
                keys.insert(key);
            }
            (state, contribution) => {
                let word = state.aggregation().word();
                return Err(Fault::value(format!("{contribution:?} can't be added to a {word}")));
            }
        }
        Ok(())
    }

    /// Adds the events of another state of the same aggregation. After a fault the state is as before.
    pub fn merge(&mut self, other: State) -> Result<(), Fault> {
        match (self, other) {
            (State::Count(count), State::Count(more)) => {
                *count = count
                    .checked_add(more)
                    .ok_or_else(|| Fault::new(Code::Bound, "a count outgrew 64 bits"))?;
            }
            (State::Sum(sum), State::Sum(more)) => sum.merge(more)?,
            (State::Max(max), State::Max(more)) => *max = (*max).max(more),
            (State::Unique(keys), State::Unique(mut more)) => keys.append(&mut more),
            (state, other) => {
                let (one, two) = (state.aggregation().word(), other.aggregation().word());
                return Err(Fault::value(format!("a {two} can't be merged into a {one}")));
            }
        }
        Ok(())
    }

    /// The quantity: `None` only for the maximum of no values. A sum of over 28 digits is a fault.
    pub fn result(&self) -> Result<Option<Exact>, Fault> {
        match self {
            State::Count(count) => Ok(Some(Exact::from_u64(*count))),
            State::Sum(sum) => sum
                .to_exact()
                .map(Some)
                .ok_or_else(|| Fault::value(format!("the sum {sum} needs more than {DIGITS_MAX} digits"))),
            State::Max(max) => Ok(*max),
            State::Unique(keys) => Ok(Some(Exact::from_u64(keys.len() as u64))),
        }
    }

    /// The stored form: version, aggregation, then big-endian fields; equal states have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM, self.aggregation() as u8];
        match self {
            State::Count(count) => bytes.extend(count.to_be_bytes()),
            State::Sum(sum) => {
                bytes.extend(sum.whole.to_be_bytes());
                bytes.extend(sum.fraction.to_be_bytes());
            }
            State::Max(None) => {}
            State::Max(Some(max)) => {
                bytes.extend(max.mantissa().to_be_bytes());
                bytes.push(u8::try_from(max.scale()).expect("at most 28"));
            }
            State::Unique(keys) => {
                bytes.reserve(keys.len() * 16);
                bytes.extend(keys.iter().flat_map(|key| *key.as_bytes()));
            }
        }
        bytes
    }

    /// Reads the stored form. Bytes that [`to_bytes`](State::to_bytes) never writes are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, Fault> {
        let state = match bytes {
            [FORM, kind, fields @ ..] => read_fields(*kind, fields),
            _ => None,
        };
        state.ok_or_else(|| Fault::value(format!("{} bytes are not an aggregate state", bytes.len())))
    }
}

fn read_fields(kind: u8, fields: &[u8]) -> Option<State> {
    match (kind, fields.len()) {
        (0, _) => Some(State::Count(u64::from_be_bytes(fields.try_into().ok()?))),
        (1, 24) => {
            let whole = i128::from_be_bytes(fields[..16].try_into().ok()?);
            let fraction = i64::from_be_bytes(fields[16..].try_into().ok()?);
            (0..UNITS).contains(&fraction).then_some(State::Sum(Sum { whole, fraction }))
        }
        (2, 0) => Some(State::Max(None)),
        (2, 17) => {
            let mantissa = i128::from_be_bytes(fields[..16].try_into().ok()?);
            let scale = u32::from(fields[16]);
            let max = Some(mantissa).filter(|m| m.unsigned_abs() <= WHOLE_MAX.unsigned_abs() && scale <= 28);
            let max = Exact::from_parts(max?, scale)?;
            (max.mantissa() == mantissa && max.scale() == scale).then_some(State::Max(Some(max)))
        }
        (3, length) if length % 16 == 0 => {
            let keys: Vec<Uuid> =
                fields.chunks_exact(16).map(|key| Uuid::from_slice(key).ok()).collect::<Option<_>>()?;
            keys.is_sorted_by(|a, b| a < b).then(|| State::Unique(keys.into_iter().collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::hash::text_key;
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use proptest::prelude::*;

    fn x(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn sum(values: &[&str]) -> Sum {
        let mut sum = Sum::default();
        values.iter().for_each(|value| sum.add(x(value)).unwrap());
        sum
    }

    #[test]
    fn sums_are_exact_at_every_size() {
        let most = "9999999999999999999999999999";
        for (values, expected) in [
            (vec![], "0"),
            (vec!["0.1", "0.2"], "0.3"),
            (vec!["-0.5"], "-0.5"),
            (vec!["-0.5", "-0.5"], "-1"),
            (vec!["-1.25", "1"], "-0.25"),
            (vec!["0.000000000001", "-0.000000000001"], "0"),
            (vec![most], most),
            (vec![most, most], "19999999999999999999999999998"),
            (vec![most, "0.000000000001"], "9999999999999999999999999999.000000000001"),
            (
                vec!["-9999999999999999999999999999", "-0.000000000001"],
                "-9999999999999999999999999999.000000000001",
            ),
            (vec![most, most, "-9999999999999999999999999999"], most),
        ] {
            let sum = sum(&values);
            assert_eq!(sum.to_string(), expected, "{values:?}");
            assert_eq!(
                sum.to_exact().map(|e| e.to_string()),
                Exact::parse(expected).ok().map(|e| e.to_string())
            );
            let parts = sum.to_parts();
            let mut again = Sum::default();
            parts.iter().for_each(|part| again.add(*part).unwrap());
            assert_eq!(again, sum);
            assert!(parts.len() <= values.len().max(1), "{parts:?}");
        }
        assert!(Sum::default().add(x("0.0000000000001")).unwrap_err().message.contains("12 digits"));
    }

    #[test]
    fn a_sum_refuses_to_overflow() {
        for whole in [i128::MAX, i128::MIN] {
            let full = Sum { whole, fraction: 0 };
            let mut more = full;
            assert_eq!(more.merge(full).unwrap_err().code, Code::Bound);
            assert_eq!(more, full);
            assert_eq!(full.to_exact(), None);
            assert_eq!(full.to_string(), whole.to_string());
        }
        let mut brim = Sum { whole: i128::MAX, fraction: UNITS - 1 };
        assert!(brim.add(x("0.000000000001")).is_err());
        assert!(brim.add(x("-0.000000000001")).is_ok());
    }

    #[test]
    fn states_of_no_events() {
        let result = |aggregation| State::new(aggregation).result().unwrap();
        assert_eq!(
            Aggregation::WORDS.map(|word| result(Aggregation::parse(word).unwrap())),
            [Some(x("0")), Some(x("0")), None, Some(x("0"))]
        );
        assert_eq!(
            Aggregation::WORDS.map(|word| Aggregation::parse(word).unwrap().word()),
            Aggregation::WORDS
        );
        assert_eq!(Aggregation::parse("average"), None);
    }

    #[test]
    fn kinds_do_not_mix() {
        let mut count = State::new(Aggregation::Count);
        assert!(count.add(Contribution::Number(x("1"))).is_err());
        assert!(
            count
                .merge(State::new(Aggregation::Max))
                .unwrap_err()
                .message
                .contains("a max can't be merged into a count")
        );
        assert!(State::new(Aggregation::UniqueCount).add(Contribution::One).is_err());
        assert_eq!(count, State::new(Aggregation::Count));
        let mut full = State::Count(u64::MAX);
        assert!(full.add(Contribution::One).is_err() && full.merge(State::Count(1)).is_err());
        assert_eq!(full, State::Count(u64::MAX));
    }

    /// Stored for ever, so these never change.
    #[test]
    fn golden_bytes() {
        let hex = |state: &State| state.to_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&State::Count(258)), "01000000000000000102");
        assert_eq!(hex(&State::Sum(sum(&["-0.5"]))), "0101ffffffffffffffffffffffffffffffff000000746a528800");
        assert_eq!(hex(&State::Max(None)), "0102");
        assert_eq!(hex(&State::Max(Some(x("1.5")))), "01020000000000000000000000000000000f01");
        let keys = BTreeSet::from([text_key("abc"), text_key("018f4e2a-7c1b-7def-8a2b-0123456789ab")]);
        assert_eq!(
            hex(&State::Unique(keys)),
            "0103018f4e2a7c1b7def8a2b0123456789abba7816bf8f018fea814140de5dae2223"
        );
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let good = State::Sum(sum(&["1.5"])).to_bytes();
        let mut negative = good.clone();
        negative[18] = 0x80;
        let mut large = good.clone();
        large[18..].copy_from_slice(&UNITS.to_be_bytes());
        let mut other_version = good.clone();
        other_version[0] = 2;
        let max = |mantissa: i128, scale: u8| [&[1, 2][..], &mantissa.to_be_bytes(), &[scale]].concat();
        let key = |n: u8| [n; 16];
        for bytes in [
            vec![],
            vec![1],
            vec![1, 0],
            vec![1, 4],
            vec![1, 255, 0],
            good[..25].to_vec(),
            [&good[..], &[0]].concat(),
            other_version,
            negative,
            large,
            max(10, 1),
            max(1, 29),
            max(i128::MIN, 0),
            max(10i128.pow(28), 0),
            [&[1, 3][..], &key(1)[..15]].concat(),
            [&[1, 3][..], &key(2), &key(1)].concat(),
            [&[1, 3][..], &key(1), &key(1)].concat(),
        ] {
            assert!(State::from_bytes(&bytes).is_err(), "{bytes:?}");
        }
        assert!(State::from_bytes(&good).is_ok() && State::from_bytes(&max(15, 1)).is_ok());
        assert!(State::from_bytes(&State::Sum(Sum { whole: i128::MIN, fraction: 0 }).to_bytes()).is_ok());
    }

    fn any_contributions() -> impl Strategy<Value = (Aggregation, Vec<Contribution>)> {
        let number = prop_oneof![
            (-1000i64..1000, 0u32..=12).prop_map(|(m, s)| Exact::from_parts(m.into(), s).unwrap()),
            (-(10i128.pow(28) - 1)..10i128.pow(28), 0u32..=12)
                .prop_map(|(m, s)| Exact::from_parts(m, s).unwrap()),
        ];
        let vec = |one: BoxedStrategy<Contribution>| prop::collection::vec(one, 0..20);
        prop_oneof![
            vec(Just(Contribution::One).boxed()).prop_map(|c| (Aggregation::Count, c)),
            vec(number.clone().prop_map(Contribution::Number).boxed()).prop_map(|c| (Aggregation::Sum, c)),
            vec(number.prop_map(Contribution::Number).boxed()).prop_map(|c| (Aggregation::Max, c)),
            vec((0u8..10).prop_map(|n| Contribution::Key(text_key(&n.to_string()))).boxed())
                .prop_map(|c| (Aggregation::UniqueCount, c)),
        ]
    }

    fn rational(value: Exact) -> BigRational {
        BigRational::new(value.mantissa().into(), BigInt::from(10).pow(value.scale()))
    }

    proptest! {
        /// However the events are dealt out to states and in whatever order these merge, the bytes are the same.
        #[test]
        fn any_split_and_order_gives_the_same(
            (aggregation, contributions) in any_contributions(),
            deal in prop::collection::vec(0usize..5, 20),
            order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(),
        ) {
            let mut whole = State::new(aggregation);
            let mut parts = vec![State::new(aggregation); 5];
            for (contribution, part) in contributions.iter().zip(deal) {
                whole.add(*contribution).unwrap();
                parts[part].add(*contribution).unwrap();
            }
            let mut merged = State::new(aggregation);
            for i in order {
                // every part takes the way through its stored form
                merged.merge(State::from_bytes(&parts[i].to_bytes()).unwrap()).unwrap();
            }
            prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
            prop_assert_eq!(merged.result().is_ok(), whole.result().is_ok());
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn sums_agree_with_rationals((_, contributions) in any_contributions()) {
            let mut sum = Sum::default();
            let mut exact = BigRational::from_integer(0.into());
            for contribution in contributions {
                if let Contribution::Number(value) = contribution {
                    sum.add(value).unwrap();
                    exact += rational(value);
                }
            }
            let parts: BigRational = sum.to_parts().into_iter().map(rational).sum();
            prop_assert_eq!(&parts, &exact);
            if let Some(one) = sum.to_exact() {
                prop_assert_eq!(sum.to_parts().len(), 1);
                prop_assert_eq!(sum.to_string(), one.to_string());
                prop_assert_eq!(rational(one), exact);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (0u8..5, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, rest)| [&[1, kind][..], &rest].concat()),
        ]) {
            if let Ok(state) = State::from_bytes(&bytes) {
                prop_assert_eq!(state.to_bytes(), bytes);
                let _ = (state.result(), format!("{state:?}"));
            }
        }
    }
}
