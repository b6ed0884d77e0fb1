//! How a meter makes one quantity of what it measured: over which buckets, by which weights, of which other meters,
//! rounded to what.

use super::aggregate::{Aggregation, HOUR_MICROS};
use super::meter::Meter;
use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::json::{Node, Tree};

/// Most meters that a compound is the sum of.
pub const COMPONENTS_MAX: usize = 20;
/// Places of a ratio that says none.
pub const RATIO_PLACES_DEFAULT: u32 = 6;
const RATIO_PLACES_MAX: i64 = 12;

/// The buckets of a two-step aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    Hour,
    Day,
}

/// First each bucket by itself, then all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Per {
    pub bucket: Bucket,
    /// Of each bucket.
    pub aggregation: Aggregation,
}

impl Per {
    /// What buckets can be made one by.
    pub const OUTER: [&str; 5] = ["sum", "max", "min", "average", "percentile"];
    /// What one bucket can be measured by.
    pub const INNER: [&str; 7] = ["count", "sum", "max", "min", "latest", "average", "unique_count"];

    pub fn read(node: &Node<'_>) -> Result<Per, Fault> {
        let mut fields = node.fields_of(&["bucket", "aggregation"])?;
        let bucket = match fields.required("bucket")?.word(&["hour", "day"])? {
            "hour" => Bucket::Hour,
            _ => Bucket::Day,
        };
        let word = fields.required("aggregation")?.word(&Per::INNER)?;
        fields.finish()?;
        Ok(Per { bucket, aggregation: Aggregation::parse(word).expect("a word of the list") })
    }

    pub fn to_tree(self) -> Tree<'static> {
        let bucket = match self.bucket {
            Bucket::Hour => "hour",
            Bucket::Day => "day",
        };
        Tree::object([("bucket", Tree::text(bucket)), ("aggregation", Tree::text(self.aggregation.word()))])
    }
}

/// By which unit of time a level counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weighting {
    Second,
    Minute,
    #[default]
    Hour,
    Day,
    /// The whole stretch is one: the average level.
    Period,
}

impl Weighting {
    const WORDS: [&str; 5] = ["second", "minute", "hour", "day", "period"];
    const ALL: [Weighting; 5] =
        [Weighting::Second, Weighting::Minute, Weighting::Hour, Weighting::Day, Weighting::Period];

    pub fn read(node: &Node<'_>) -> Result<Weighting, Fault> {
        let word = node.word(&Weighting::WORDS)?;
        Ok(Weighting::ALL.into_iter().find(|weighting| weighting.word() == word).expect("a word of the list"))
    }

    pub fn word(self) -> &'static str {
        Weighting::WORDS[self as usize]
    }

    /// Its microseconds; a day has 24 hours whatever the zone. None: those of the stretch that is asked for.
    pub fn micros(self) -> Option<u64> {
        match self {
            Weighting::Second => Some(HOUR_MICROS / 3600),
            Weighting::Minute => Some(HOUR_MICROS / 60),
            Weighting::Hour => Some(HOUR_MICROS),
            Weighting::Day => Some(HOUR_MICROS * 24),
            Weighting::Period => None,
        }
    }
}

/// How the quantity of a line is rounded, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    pub mode: RoundingTo,
    /// To multiples of this.
    pub to: Exact,
}

/// Which multiple. A quantity below 0 is the mirror of one above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundingTo {
    /// Away from zero.
    Up,
    /// Towards zero.
    Down,
    /// The nearest, half away from zero.
    HalfUp,
}

impl Rounding {
    pub fn read(node: &Node<'_>) -> Result<Rounding, Fault> {
        let mut fields = node.fields_of(&["mode", "to"])?;
        let mode = match fields.required("mode")?.word(&["up", "down", "half_up"])? {
            "up" => RoundingTo::Up,
            "down" => RoundingTo::Down,
            _ => RoundingTo::HalfUp,
        };
        let to = match fields.optional("to") {
            None => Exact::ONE,
            Some(node) => {
                let to = node.positive()?;
                if to.scale() > 12 {
                    return Err(node.fault(format!("{to} has more than 12 digits after the point")));
                }
                to
            }
        };
        fields.finish()?;
        Ok(Rounding { mode, to })
    }

    pub fn to_tree(self) -> Tree<'static> {
        let mode = match self.mode {
            RoundingTo::Up => "up",
            RoundingTo::Down => "down",
            RoundingTo::HalfUp => "half_up",
        };
        Tree::object([("mode", Tree::text(mode)), ("to", Tree::text(self.to.to_string()))])
    }
}

/// A meter made of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compound {
    /// Σ factor × quantity
    Sum(Vec<(String, Exact)>),
    Ratio {
        numerator: String,
        denominator: String,
        places: u32,
    },
}

impl Compound {
    /// Reads the `of` of a compound meter.
    pub fn read(node: &Node<'_>) -> Result<Compound, Fault> {
        if let Tree::Object(_) = node.tree {
            let mut fields = node.fields_of(&["numerator", "denominator", "places"])?;
            let numerator = fields.required("numerator")?.key()?.to_string();
            let denominator_node = fields.required("denominator")?;
            let denominator = denominator_node.key()?.to_string();
            if numerator == denominator {
                return Err(denominator_node.fault("is the numerator: the ratio is always 1"));
            }
            let places = match fields.optional("places") {
                None => RATIO_PLACES_DEFAULT,
                Some(node) => match node.integer()? {
                    places @ 0..=RATIO_PLACES_MAX => places as u32,
                    _ => return Err(node.fault(format!("must be between 0 and {RATIO_PLACES_MAX}"))),
                },
            };
            fields.finish()?;
            return Ok(Compound::Ratio { numerator, denominator, places });
        }
        let items = node.items_at_most(COMPONENTS_MAX)?;
        if items.is_empty() {
            return Err(node.fault("is an empty list"));
        }
        let mut components: Vec<(String, Exact)> = Vec::with_capacity(items.len());
        for item in &items {
            let mut fields = item.fields_of(&["meter", "factor"])?;
            let meter = fields.required("meter")?;
            let key = meter.key()?;
            if components.iter().any(|(known, _)| known == key) {
                return Err(meter.fault(format!("{key} stands twice")));
            }
            let factor = match fields.optional("factor") {
                None => Exact::ONE,
                Some(node) => {
                    let factor = node.decimal()?;
                    if factor.is_zero() {
                        return Err(node.fault("must not be 0"));
                    }
                    factor
                }
            };
            fields.finish()?;
            components.push((key.to_string(), factor));
        }
        Ok(Compound::Sum(components))
    }

    /// Keys of the meters it is made of.
    pub fn meters(&self) -> Vec<&str> {
        match self {
            Compound::Sum(components) => components.iter().map(|(meter, _)| meter.as_str()).collect(),
            Compound::Ratio { numerator, denominator, .. } => vec![numerator, denominator],
        }
    }

    pub fn to_tree(&self) -> Tree<'static> {
        match self {
            Compound::Sum(components) => Tree::List(
                components
                    .iter()
                    .map(|(meter, factor)| {
                        Tree::object([
                            ("meter", Tree::text(meter.clone())),
                            ("factor", Tree::text(factor.to_string())),
                        ])
                    })
                    .collect(),
            ),
            Compound::Ratio { numerator, denominator, places } => Tree::object([
                ("numerator", Tree::text(numerator.clone())),
                ("denominator", Tree::text(denominator.clone())),
                ("places", Tree::number(places)),
            ]),
        }
    }
}

/// What billing needs to know of how a meter aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    words: String,
    /// What the quantities of several lines are together.
    pub together: Together,
    /// Whether the quantities of the parts of a period add up to that of the whole.
    pub adds_up_in_time: bool,
    /// What reads its quantity off its buckets.
    pub read: Read,
}

/// How a quantity comes from what a meter's buckets hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The numbers of the buckets are added up or compared.
    Numbers,
    /// Their distinct values are counted.
    Values,
    /// It takes more: history, events, two steps, other meters.
    Composed,
}

impl Measure {
    pub fn of(meter: &Meter) -> Measure {
        let read = match (meter.aggregation, &meter.per, meter.rounding, &meter.operation) {
            (Aggregation::UniqueCount, None, None, None) => Read::Values,
            (Aggregation::Count | Aggregation::Sum | Aggregation::Max | Aggregation::Min, None, None, _) => {
                Read::Numbers
            }
            _ => Read::Composed,
        };
        Measure {
            words: meter.in_words(),
            together: meter.together(),
            adds_up_in_time: meter.adds_up_in_time(),
            read,
        }
    }

    /// The aggregation's word, and what else tells two meters apart.
    pub fn word(&self) -> &str {
        &self.words
    }
}

/// What the quantities of several lines of one period are together, where a price runs over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// Their sum.
    Sum,
    /// The largest.
    Largest,
    /// No number: each line stands by itself.
    Apart,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn meter(fields: &str) -> Result<Meter, Fault> {
        let text = format!(r#"{{"key":"m","event_type":"t",{fields}}}"#);
        let tree = json::parse(&text).unwrap();
        Meter::read(&Node::root(&tree))
    }

    /// What the meter says of itself, and what reads its quantity.
    fn measure(fields: &str) -> (String, Read) {
        let measure = Measure::of(&meter(fields).unwrap());
        (measure.word().to_string(), measure.read)
    }

    #[test]
    fn says_what_tells_two_meters_apart_and_what_reads_them() {
        for (fields, word, read) in [
            (r#""aggregation":"count""#, "count", Read::Numbers),
            (r#""aggregation":"sum","value":"n""#, "sum", Read::Numbers),
            (r#""aggregation":"max","value":"n""#, "max", Read::Numbers),
            (r#""aggregation":"min","value":"n""#, "min", Read::Numbers),
            (r#""aggregation":"unique_count","value":"n""#, "unique_count", Read::Values),
            (r#""aggregation":"average","value":"n""#, "average", Read::Composed),
            (r#""aggregation":"latest","value":"n""#, "latest", Read::Composed),
            (
                r#""aggregation":"unique_count","value":"n","operation":"op""#,
                r#"unique_count operation "op""#,
                Read::Composed,
            ),
            (
                r#""aggregation":"weighted_sum","value":"n""#,
                r#"weighted_sum weighting "hour""#,
                Read::Composed,
            ),
            (
                r#""aggregation":"percentile","percentile":"99.50","value":"n""#,
                r#"percentile percentile "99.5""#,
                Read::Composed,
            ),
            (
                r#""aggregation":"sum","per":{"bucket":"hour","aggregation":"max"},"value":"n""#,
                r#"sum per {"aggregation":"max","bucket":"hour"}"#,
                Read::Composed,
            ),
            (
                r#""aggregation":"max","per":{"bucket":"day","aggregation":"count"}"#,
                r#"max per {"aggregation":"count","bucket":"day"}"#,
                Read::Composed,
            ),
            (
                r#""aggregation":"sum","value":"n","rounding":{"mode":"up"}"#,
                r#"sum rounding {"mode":"up","to":"1"}"#,
                Read::Composed,
            ),
            (
                r#""aggregation":"count","rounding":{"mode":"down","to":"0.000000000001"}"#,
                r#"count rounding {"mode":"down","to":"0.000000000001"}"#,
                Read::Composed,
            ),
            (
                r#""aggregation":"sum","value":"n","rounding":{"mode":"half_up","to":"60"}"#,
                r#"sum rounding {"mode":"half_up","to":"60"}"#,
                Read::Composed,
            ),
        ] {
            assert_eq!(measure(fields), (word.to_string(), read), "{fields}");
        }
        let finer = meter(r#""aggregation":"count","rounding":{"mode":"up","to":"0.0000000000001"}"#);
        assert_eq!(
            finer.unwrap_err().message,
            "rounding.to: 0.0000000000001 has more than 12 digits after the point"
        );
    }

    /// A second, a minute, an hour and a day in microseconds, written out.
    #[test]
    fn weights_are_units_of_time() {
        for (word, micros) in [
            ("second", Some(1_000_000)),
            ("minute", Some(60_000_000)),
            ("hour", Some(3_600_000_000)),
            ("day", Some(86_400_000_000)),
            ("period", None),
        ] {
            let read =
                meter(&format!(r#""aggregation":"weighted_sum","value":"n","weighting":"{word}""#)).unwrap();
            assert_eq!((read.weighting.word(), read.weighting.micros()), (word, micros));
        }
    }

    #[test]
    fn compounds_name_their_meters() {
        let of = |text: &str| {
            let tree = json::parse(text).unwrap();
            let compound = Compound::read(&Node::root(&tree)).unwrap();
            compound.meters().iter().map(|meter| meter.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(r#"[{"meter":"a"},{"meter":"b","factor":"-2"}]"#), ["a", "b"]);
        assert_eq!(of(r#"{"numerator":"a","denominator":"b"}"#), ["a", "b"]);
    }
}
