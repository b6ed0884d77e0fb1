//! A meter: which events it counts, what each is worth, and by which dimensions it keeps them apart.

use super::aggregate::{Aggregation, Contribution, Kind, Percentile};
use super::dimensions::{self, BILL_TO, Dimensions, FILTER};
use super::expression::{Evaluated, Expression};
use super::filter::Filter;
use super::filters::Filters;
use super::measure::{Compound, Per, Rounding, Together, Weighting};
use super::path::Path;
use super::scalar;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::hash::text_key;
use crate::domain::foundation::json::{Fields, Node, Tree, check_key};
use std::borrow::Cow;

/// Most dimensions a meter may declare, beside [`BILL_TO`] and [`FILTER`].
pub const METER_DIMENSIONS_MAX: usize = 10;
/// The unit of a meter that names none.
pub const UNIT_DEFAULT: &str = "unit";

/// One meter of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    pub key: String,
    /// Empty for a compound, which looks at no events.
    pub event_type: String,
    pub aggregation: Aggregation,
    /// First each hour or day, by an aggregation of its own; then all of them, by `aggregation`.
    pub per: Option<Per>,
    /// Of the aggregation percentile.
    pub percentile: Option<Percentile>,
    /// Of the aggregation weighted_sum.
    pub weighting: Weighting,
    /// What a compound is made of.
    pub compound: Option<Compound>,
    /// What an event is worth; none for a count, a single property for a unique count.
    pub value: Option<Expression>,
    /// Of a unique count: the property that says whether the value is added or removed.
    pub operation: Option<Path>,
    /// Of a unique count with an operation: the most that were there at once, and not those that are there at the end.
    pub peak: bool,
    pub filter: Filter,
    pub filters: Filters,
    /// Where the dimensions stand in the properties, in declared order, which is their priority. The
    /// canonical text of the path is the dimension's name. [`BILL_TO`] is not among them: every meter has it.
    /// With several filters [`FILTER`] is among them and no property.
    pub dimensions: Vec<Path>,
    pub rounding: Option<Rounding>,
    pub unit: String,
}

/// What one event is on one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    Counted {
        dimensions: Dimensions,
        value: Contribution,
    },
    /// The filter says no.
    NotCounted,
    /// The filter says yes, but there is no value; the word says why.
    Skipped(&'static str),
    /// The event must be rejected.
    Refused(Fault),
}

/// Why an event has no value on a meter: a property it needs is absent or null.
pub const VALUE_ABSENT: &str = "value_absent";

/// [`Measured`] before its dimensions are read.
pub(super) enum Worth {
    Counted(Contribution),
    NotCounted,
    Skipped(&'static str),
    Refused(Fault),
}

impl Meter {
    /// The fields of a meter document.
    pub const FIELDS: [&str; 15] = [
        "key",
        "event_type",
        "aggregation",
        "value",
        "operation",
        "counted",
        "per",
        "percentile",
        "weighting",
        "of",
        "filter",
        "filters",
        "dimensions",
        "rounding",
        "unit",
    ];

    /// Reads one entry of a catalogue's `meters`.
    pub fn read(node: &Node<'_>) -> Result<Meter, Fault> {
        let mut fields = node.fields_of(&Meter::FIELDS)?;
        let key = fields.required("key")?.key()?.to_string();
        let word = fields.required("aggregation")?.word(&Aggregation::WORDS)?;
        let aggregation = Aggregation::parse(word).expect("a word of the list");
        let compound = read_compound(&mut fields, aggregation)?;
        let event_type = match &compound {
            None => fields.required("event_type")?.key()?.to_string(),
            Some(_) => String::new(),
        };
        let per = read_per(&mut fields, aggregation)?;
        let percentile = read_percentile(&mut fields, aggregation)?;
        let weighting = read_weighting(&mut fields, aggregation)?;
        let measured = per.map_or(aggregation, |per| per.aggregation);
        let value = if compound.is_some() { None } else { read_value(&mut fields, measured)? };
        let operation = read_operation(&mut fields, aggregation, per)?;
        let peak = read_counted(&mut fields, operation.is_some())?;
        let filter = match fields.optional("filter") {
            Some(node) => Filter::read(&node)?,
            None => Filter::default(),
        };
        let filters = match fields.optional("filters") {
            Some(node) => Filters::read(&node)?,
            None => Filters::default(),
        };
        let mut dimensions = match fields.optional("dimensions") {
            Some(node) => read_dimensions(&node, !filters.is_empty())?,
            None => Vec::new(),
        };
        if !filters.is_empty() && !dimensions.iter().any(|path| path.to_string() == FILTER) {
            dimensions.insert(0, Path::parse(FILTER).expect("a name"));
        }
        let rounding = fields.optional("rounding").map(|node| Rounding::read(&node)).transpose()?;
        let unit = match fields.optional("unit") {
            Some(node) => node.key()?.to_string(),
            None => UNIT_DEFAULT.to_string(),
        };
        fields.finish()?;
        Ok(Meter {
            key,
            event_type,
            aggregation,
            per,
            percentile,
            weighting,
            compound,
            value,
            operation,
            peak,
            filter,
            filters,
            dimensions,
            rounding,
            unit,
        })
    }

    /// The one document of this meter, with its defaults: [`read`](Meter::read) reads it back to an equal one.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields =
            vec![("key", Tree::text(self.key.clone())), ("aggregation", Tree::text(self.aggregation.word()))];
        match &self.compound {
            Some(compound) => fields.push(("of", compound.to_tree())),
            None => {
                fields.push(("event_type", Tree::text(self.event_type.clone())));
                fields.push(("filter", self.filter.to_tree()));
            }
        }
        if let Some(per) = self.per {
            fields.push(("per", per.to_tree()));
        }
        if let Some(percentile) = self.percentile {
            fields.push(("percentile", Tree::text(percentile.get().to_string())));
        }
        if self.aggregation == Aggregation::WeightedSum {
            fields.push(("weighting", Tree::text(self.weighting.word())));
        }
        if let Some(value) = &self.value {
            fields.push(("value", Tree::text(value.canonical())));
        }
        if let Some(operation) = &self.operation {
            fields.push(("operation", Tree::text(operation.to_string())));
        }
        if self.peak {
            fields.push(("counted", Tree::text("peak")));
        }
        if !self.filters.is_empty() {
            fields.push(("filters", self.filters.to_tree()));
        }
        if let Some(rounding) = self.rounding {
            fields.push(("rounding", rounding.to_tree()));
        }
        let dimensions = self.dimensions.iter().map(|path| Tree::text(path.to_string()));
        fields.push(("dimensions", Tree::List(dimensions.collect())));
        fields.push(("unit", Tree::text(self.unit.clone())));
        Tree::Object(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
    }

    /// What its buckets hold. Of a percentile only how many events there were: its values stay in the events.
    pub fn kept(&self) -> Kind {
        match self.per.map_or(self.aggregation, |per| per.aggregation) {
            Aggregation::Count | Aggregation::Percentile | Aggregation::Compound => Kind::Count,
            Aggregation::Sum | Aggregation::Average => Kind::Sum,
            Aggregation::Max => Kind::Max,
            Aggregation::Min => Kind::Min,
            Aggregation::Latest => Kind::Latest,
            Aggregation::WeightedSum => Kind::Level,
            Aggregation::UniqueCount if self.operation.is_some() => Kind::Presence,
            Aggregation::UniqueCount => Kind::Unique,
        }
    }

    /// Whether the quantities of the parts of a period add up to that of the whole.
    pub fn adds_up_in_time(&self) -> bool {
        matches!(self.aggregation, Aggregation::Count | Aggregation::Sum)
            && self.per.is_none()
            && self.rounding.is_none()
    }

    /// What the quantities of several lines are together.
    pub fn together(&self) -> Together {
        match self.aggregation {
            Aggregation::Max if self.per.is_none() => Together::Largest,
            Aggregation::Count | Aggregation::Sum | Aggregation::WeightedSum
                if self.per.is_none() && self.rounding.is_none() =>
            {
                Together::Sum
            }
            _ => Together::Apart,
        }
    }

    /// How it aggregates, in one text that tells any two ways apart. Digests of invoices hold it, so it never
    /// changes for a meter that can be.
    pub fn in_words(&self) -> String {
        let mut text = self.aggregation.word().to_string();
        let mut say = |name: &str, tree: Tree<'_>| {
            text.push_str(&format!(" {name} {}", tree.canonical().expect("what was read is canonical")));
        };
        if let Some(per) = self.per {
            say("per", per.to_tree());
        }
        if let Some(percentile) = self.percentile {
            say("percentile", Tree::text(percentile.get().to_string()));
        }
        if self.aggregation == Aggregation::WeightedSum {
            say("weighting", Tree::text(self.weighting.word()));
        }
        if let Some(operation) = &self.operation {
            say("operation", Tree::text(operation.to_string()));
        }
        if self.peak {
            say("counted", Tree::text("peak"));
        }
        if let Some(compound) = &self.compound {
            say("of", compound.to_tree());
        }
        if let Some(rounding) = self.rounding {
            say("rounding", rounding.to_tree());
        }
        text
    }

    /// What an event of this meter's type is on it. First the filters decide, then the value; dimensions
    /// are only looked at where the event counts.
    pub fn measure(&self, properties: &Tree<'_>, bill_to: Option<&str>) -> Measured {
        match self.worth(properties) {
            Worth::NotCounted => Measured::NotCounted,
            Worth::Skipped(reason) => Measured::Skipped(reason),
            Worth::Refused(fault) => Measured::Refused(fault),
            Worth::Counted(value) => match self.read_dimensions(properties, bill_to) {
                Ok(dimensions) => Measured::Counted { dimensions, value },
                Err(why) => Measured::Refused(self.refusal(&why)),
            },
        }
    }

    pub(super) fn worth(&self, properties: &Tree<'_>) -> Worth {
        let chosen = || {
            Ok(self.filter.matches(properties)?
                && (self.filters.is_empty() || self.filters.choose(properties)?.is_some()))
        };
        match chosen() {
            Ok(true) => {}
            Ok(false) => return Worth::NotCounted,
            Err(fault) => {
                let fault: Fault = fault;
                return Worth::Refused(self.refusal(&fault.message));
            }
        }
        match &self.value {
            None => Worth::Counted(Contribution::One),
            Some(value) if matches!(self.kept(), Kind::Unique | Kind::Presence) => {
                match self.key(value, properties) {
                    Ok(Some(value)) => Worth::Counted(value),
                    Ok(None) => Worth::Skipped(VALUE_ABSENT),
                    Err(why) => Worth::Refused(self.refusal(&why)),
                }
            }
            Some(value) => match value.evaluate(properties) {
                Evaluated::Value(number) => Worth::Counted(Contribution::Number(number)),
                Evaluated::Absent => Worth::Skipped(VALUE_ABSENT),
                Evaluated::Refused(fault) => Worth::Refused(self.refusal(&fault.message)),
            },
        }
    }

    /// What a unique count counts of an event, and what happened to it.
    fn key(&self, value: &Expression, properties: &Tree<'_>) -> Result<Option<Contribution>, String> {
        let text = |path: &Path| match path.find(properties) {
            None => Ok(None),
            Some(found) => scalar::text(found).map_err(|why| format!("{path} {why}")),
        };
        let path = value.as_property().expect("a unique count is read with a single property");
        let Some(key) = text(path)?.map(|text| text_key(&text)) else { return Ok(None) };
        let Some(operation) = &self.operation else { return Ok(Some(Contribution::Key(key))) };
        let Some(word) = text(operation)? else { return Ok(None) };
        match word.as_ref() {
            "add" => Ok(Some(Contribution::Operation { key, removed: false })),
            "remove" => Ok(Some(Contribution::Operation { key, removed: true })),
            other => Err(format!(
                "{operation} must be \"add\" or \"remove\", not {}",
                crate::domain::foundation::decimal::quoted(other)
            )),
        }
    }

    fn read_dimensions(&self, properties: &Tree<'_>, bill_to: Option<&str>) -> Result<Dimensions, String> {
        let mut set = Dimensions::new();
        for path in &self.dimensions {
            let name = path.to_string();
            let text = match self.is_filter(&name) {
                true => self.filters.choose(properties).map_err(|fault| fault.message)?.map(Cow::Borrowed),
                false => dimension_at(path, properties)?,
            };
            if let Some(text) = text {
                set.set(&name, text);
            }
        }
        if let Some(bill_to) = bill_to {
            set.set(BILL_TO, bill_to);
        }
        Ok(set)
    }

    /// Whether a dimension is the name of a filter and no property.
    pub(super) fn is_filter(&self, name: &str) -> bool {
        name == FILTER && !self.filters.is_empty()
    }

    pub(super) fn refusal(&self, why: &str) -> Fault {
        Fault::value(format!("meter {}: {why}", self.key))
    }
}

/// The text of the dimension at a path; `None` if there is none.
pub(super) fn dimension_at<'t>(
    path: &Path,
    properties: &'t Tree<'t>,
) -> Result<Option<Cow<'t, str>>, String> {
    let Some(found) = path.find(properties) else { return Ok(None) };
    dimensions::value_text(found).map_err(|why| format!("{path}: {why}"))
}

/// A field that only some meters have, on one that has it not.
fn refuse_field(fields: &mut Fields<'_>, name: &str, of: &str) -> Result<(), Fault> {
    match fields.optional(name) {
        None => Ok(()),
        Some(node) => Err(node.fault(format!("belongs to {of}")).with_hint("Leave it out.")),
    }
}

fn read_compound(fields: &mut Fields<'_>, aggregation: Aggregation) -> Result<Option<Compound>, Fault> {
    if aggregation != Aggregation::Compound {
        refuse_field(fields, "of", "a compound")?;
        return Ok(None);
    }
    for name in ["event_type", "value", "filter", "filters"] {
        refuse_field(fields, name, "the meters that a compound is made of")?;
    }
    Ok(Some(Compound::read(&fields.required("of")?)?))
}

fn read_per(fields: &mut Fields<'_>, aggregation: Aggregation) -> Result<Option<Per>, Fault> {
    let Some(node) = fields.optional("per") else { return Ok(None) };
    if !Per::OUTER.contains(&aggregation.word()) {
        return Err(node
            .fault(format!("does not go with the aggregation {}", aggregation.word()))
            .with_hint("Buckets are made one by sum, max, min, average or percentile."));
    }
    Per::read(&node).map(Some)
}

fn read_percentile(fields: &mut Fields<'_>, aggregation: Aggregation) -> Result<Option<Percentile>, Fault> {
    if aggregation != Aggregation::Percentile {
        refuse_field(fields, "percentile", "the aggregation percentile")?;
        return Ok(None);
    }
    let node = fields.required("percentile").map_err(|fault| {
        fault.with_hint("Say which one, above 0 and at most 100: \"percentile\": \"95\".")
    })?;
    Percentile::new(node.positive()?).map(Some).map_err(|fault| node.rehint(fault))
}

fn read_weighting(fields: &mut Fields<'_>, aggregation: Aggregation) -> Result<Weighting, Fault> {
    if aggregation != Aggregation::WeightedSum {
        refuse_field(fields, "weighting", "the aggregation weighted_sum")?;
        return Ok(Weighting::default());
    }
    fields.optional("weighting").map_or(Ok(Weighting::default()), |node| Weighting::read(&node))
}

fn read_operation(
    fields: &mut Fields<'_>,
    aggregation: Aggregation,
    per: Option<Per>,
) -> Result<Option<Path>, Fault> {
    if aggregation != Aggregation::UniqueCount || per.is_some() {
        refuse_field(fields, "operation", "the aggregation unique_count")?;
        return Ok(None);
    }
    fields
        .optional("operation")
        .map(|node| Path::parse(node.text()?).map_err(|fault| node.rehint(fault)))
        .transpose()
}

fn read_counted(fields: &mut Fields<'_>, has_operation: bool) -> Result<bool, Fault> {
    if !has_operation {
        refuse_field(fields, "counted", "a unique_count with an operation")?;
        return Ok(false);
    }
    fields.optional("counted").map_or(Ok(false), |node| Ok(node.word(&["end", "peak"])? == "peak"))
}

fn read_value(fields: &mut Fields<'_>, aggregation: Aggregation) -> Result<Option<Expression>, Fault> {
    if aggregation == Aggregation::Count {
        return match fields.optional("value") {
            None => Ok(None),
            Some(node) => Err(node
                .fault("a count has no value: every event counts 1")
                .with_hint("Leave value out, use a filter to choose events, or the aggregation sum.")),
        };
    }
    let node = fields.required("value")?;
    let value = Expression::parse(node.text()?).map_err(|fault| node.rehint(fault))?;
    if aggregation == Aggregation::UniqueCount && value.as_property().is_none() {
        return Err(node.fault("must be a single property: a unique count counts its distinct values"));
    }
    Ok(Some(value))
}

fn read_dimensions(node: &Node<'_>, with_filters: bool) -> Result<Vec<Path>, Fault> {
    let mut paths: Vec<Path> = Vec::new();
    for item in node.items_at_most(METER_DIMENSIONS_MAX + usize::from(with_filters))? {
        let path = Path::parse(item.text()?).map_err(|fault| item.rehint(fault))?;
        let name = path.to_string();
        if name == BILL_TO {
            return Err(
                item.fault("bill_to is a dimension of every meter already, read from the event itself")
            );
        }
        check_key(&name).map_err(|why| item.fault(format!("{name} {why}")))?;
        if paths.contains(&path) {
            return Err(item.fault(format!("{name} stands twice")));
        }
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::decimal::Exact;
    use crate::domain::foundation::fault::Code;
    use crate::domain::foundation::json;
    use crate::domain::metering::dimensions::VALUE_BYTES_MAX;

    fn read(text: &str) -> Result<Meter, Fault> {
        let tree = json::parse(text).unwrap();
        Meter::read(&Node { tree: &tree, path: "meters[0]".into() })
    }

    /// A sum of `n` over events of type `t`, with more fields.
    fn meter(fields: &str) -> Meter {
        let usual = r#""key":"m","event_type":"t","aggregation":"sum","value":"n""#;
        read(&format!("{{{usual},{fields}}}")).unwrap()
    }

    fn measure(meter: &Meter, properties: &str) -> Measured {
        meter.measure(&json::parse(properties).unwrap(), None)
    }

    fn refusal(meter: &Meter, properties: &str) -> String {
        match measure(meter, properties) {
            Measured::Refused(fault) => fault.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_and_prints_the_catalogue_form() {
        for (text, canonical) in [
            (
                r#"{"key":"tokens","event_type":"llm.request","aggregation":"sum","value":"input_tokens+output_tokens","filter":{},"dimensions":["model"],"unit":"token"}"#,
                r#"{"aggregation":"sum","dimensions":["model"],"event_type":"llm.request","filter":{},"key":"tokens","unit":"token","value":"input_tokens + output_tokens"}"#,
            ),
            (
                r#"{"key":"requests","event_type":"llm.request","aggregation":"count","value":null,"dimensions":["usage.model","b","\"x\".\"y z\""]}"#,
                r#"{"aggregation":"count","dimensions":["usage.model","b","x.\"y z\""],"event_type":"llm.request","filter":{},"key":"requests","unit":"unit"}"#,
            ),
            (
                r#"{"key":"users","event_type":"e","aggregation":"unique_count","value":"user.id","filter":{"on":[true]}}"#,
                r#"{"aggregation":"unique_count","dimensions":[],"event_type":"e","filter":{"on":true},"key":"users","unit":"unit","value":"user.id"}"#,
            ),
            (
                r#"{"key":"peak","event_type":"e","aggregation":"max","value":"n","unit":null,"filter":null,"dimensions":null}"#,
                r#"{"aggregation":"max","dimensions":[],"event_type":"e","filter":{},"key":"peak","unit":"unit","value":"n"}"#,
            ),
        ] {
            let meter = read(text).unwrap();
            assert_eq!(meter.to_tree().canonical().unwrap(), canonical);
            assert_eq!(read(canonical).unwrap(), meter);
        }
    }

    #[test]
    fn refuses_with_the_path() {
        let with = |change: &str, to: &str| {
            r#"{"key":"m","event_type":"t","aggregation":"sum","value":"n","dimensions":["a"]}"#
                .replace(change, to)
        };
        for (text, message) in [
            (with(r#""key":"m","#, ""), "meters[0].key: is missing"),
            (with(r#""m""#, r#""""#), "meters[0].key: \"\" is empty"),
            (with(r#""t""#, "7"), "meters[0].event_type: must be a string"),
            (with(r#""sum""#, r#""avg""#), "meters[0].aggregation: \"avg\" is not known"),
            (with(r#","value":"n""#, ""), "meters[0].value: is missing"),
            (with(r#""value":"n""#, r#""value":1"#), "meters[0].value: must be a string"),
            (
                with(r#""value":"n""#, r#""value":"n /"#).replace("/,", "/\","),
                "meters[0].value: at character 3: `/` may only",
            ),
            (with("sum", "count"), "meters[0].value: a count has no value"),
            (
                with("sum", "unique_count").replace(r#""n""#, r#""n + 1""#),
                "meters[0].value: must be a single property",
            ),
            (with(r#"["a"]"#, r#"["a","b","a"]"#), "meters[0].dimensions[2]: a stands twice"),
            (with(r#"["a"]"#, r#"["a","\"a\""]"#), "meters[0].dimensions[1]: a stands twice"),
            (
                with(r#"["a"]"#, r#"["bill_to"]"#),
                "meters[0].dimensions[0]: bill_to is a dimension of every meter",
            ),
            (with(r#"["a"]"#, r#"["\"bill_to\""]"#), "meters[0].dimensions[0]: bill_to is a dimension"),
            (with(r#"["a"]"#, r#"[""]"#), "meters[0].dimensions[0]: \"\" has an empty part"),
            (with(r#"["a"]"#, r#"["a\tb"]"#), "meters[0].dimensions[0]: "),
            (with(r#"["a"]"#, r#"[1]"#), "meters[0].dimensions[0]: must be a string"),
            (with(r#""value""#, r#""filter":{"a":null},"value""#), "meters[0].filter.a: must have a value"),
            (with(r#""value""#, r#""unit":"","value""#), "meters[0].unit: \"\" is empty"),
            (with(r#""value""#, r#""values":1,"value""#), "meters[0].values: is not a field"),
            (with(r#""value""#, r#""retired":true,"value""#), "meters[0].retired: is not a field"),
        ] {
            let found = read(&text).unwrap_err().message;
            assert!(found.starts_with(message), "{text}: {found}");
        }
    }

    /// Each way to aggregate: its canonical document, what its buckets hold, whether lines and stretches add up, and
    /// its words, which stand in digests for ever.
    #[test]
    fn every_aggregation_is_read_and_described() {
        for (text, canonical, kept, adds_up, together, words) in [
            (
                r#"{"key":"m","event_type":"t","aggregation":"average","value":"n"}"#,
                r#"{"aggregation":"average","dimensions":[],"event_type":"t","filter":{},"key":"m","unit":"unit","value":"n"}"#,
                Kind::Sum,
                false,
                Together::Apart,
                "average",
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"weighted_sum","value":"n"}"#,
                r#"{"aggregation":"weighted_sum","dimensions":[],"event_type":"t","filter":{},"key":"m","unit":"unit","value":"n","weighting":"hour"}"#,
                Kind::Level,
                false,
                Together::Sum,
                r#"weighted_sum weighting "hour""#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"percentile","percentile":99,"value":"n"}"#,
                r#"{"aggregation":"percentile","dimensions":[],"event_type":"t","filter":{},"key":"m","percentile":"99","unit":"unit","value":"n"}"#,
                Kind::Count,
                false,
                Together::Apart,
                r#"percentile percentile "99""#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"unique_count","value":"u","operation":"a.op"}"#,
                r#"{"aggregation":"unique_count","dimensions":[],"event_type":"t","filter":{},"key":"m","operation":"a.op","unit":"unit","value":"u"}"#,
                Kind::Presence,
                false,
                Together::Apart,
                r#"unique_count operation "a.op""#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"unique_count","value":"u","operation":"op","counted":"peak"}"#,
                r#"{"aggregation":"unique_count","counted":"peak","dimensions":[],"event_type":"t","filter":{},"key":"m","operation":"op","unit":"unit","value":"u"}"#,
                Kind::Presence,
                false,
                Together::Apart,
                r#"unique_count operation "op" counted "peak""#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"sum","per":{"bucket":"day","aggregation":"count"}}"#,
                r#"{"aggregation":"sum","dimensions":[],"event_type":"t","filter":{},"key":"m","per":{"aggregation":"count","bucket":"day"},"unit":"unit"}"#,
                Kind::Count,
                false,
                Together::Apart,
                r#"sum per {"aggregation":"count","bucket":"day"}"#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"max","value":"n","rounding":{"mode":"half_up","to":"0.50"}}"#,
                r#"{"aggregation":"max","dimensions":[],"event_type":"t","filter":{},"key":"m","rounding":{"mode":"half_up","to":"0.5"},"unit":"unit","value":"n"}"#,
                Kind::Max,
                false,
                Together::Largest,
                r#"max rounding {"mode":"half_up","to":"0.5"}"#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"max","value":"n","per":{"bucket":"hour","aggregation":"sum"}}"#,
                r#"{"aggregation":"max","dimensions":[],"event_type":"t","filter":{},"key":"m","per":{"aggregation":"sum","bucket":"hour"},"unit":"unit","value":"n"}"#,
                Kind::Sum,
                false,
                Together::Apart,
                r#"max per {"aggregation":"sum","bucket":"hour"}"#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"count","rounding":{"mode":"up"}}"#,
                r#"{"aggregation":"count","dimensions":[],"event_type":"t","filter":{},"key":"m","rounding":{"mode":"up","to":"1"},"unit":"unit"}"#,
                Kind::Count,
                false,
                Together::Apart,
                r#"count rounding {"mode":"up","to":"1"}"#,
            ),
            (
                r#"{"key":"m","aggregation":"compound","of":[{"meter":"a"},{"meter":"b","factor":"-0.50"}],"dimensions":["x"]}"#,
                r#"{"aggregation":"compound","dimensions":["x"],"key":"m","of":[{"factor":"1","meter":"a"},{"factor":"-0.5","meter":"b"}],"unit":"unit"}"#,
                Kind::Count,
                false,
                Together::Apart,
                r#"compound of [{"factor":"1","meter":"a"},{"factor":"-0.5","meter":"b"}]"#,
            ),
            (
                r#"{"key":"m","aggregation":"compound","of":{"numerator":"a","denominator":"b"}}"#,
                r#"{"aggregation":"compound","dimensions":[],"key":"m","of":{"denominator":"b","numerator":"a","places":6},"unit":"unit"}"#,
                Kind::Count,
                false,
                Together::Apart,
                r#"compound of {"denominator":"b","numerator":"a","places":6}"#,
            ),
            (
                r#"{"key":"m","event_type":"t","aggregation":"sum","value":"n","filters":[{"name":"a","filter":{"x":1}}],"dimensions":["y"]}"#,
                r#"{"aggregation":"sum","dimensions":["filter","y"],"event_type":"t","filter":{},"filters":[{"filter":{"x":1},"name":"a"}],"key":"m","unit":"unit","value":"n"}"#,
                Kind::Sum,
                true,
                Together::Sum,
                "sum",
            ),
        ] {
            let meter = read(text).unwrap();
            assert_eq!(meter.to_tree().canonical().unwrap(), canonical);
            assert_eq!(read(canonical).unwrap(), meter);
            assert_eq!((meter.kept(), meter.adds_up_in_time()), (kept, adds_up), "{text}");
            assert_eq!((meter.together(), meter.in_words().as_str()), (together, words), "{text}");
        }
    }

    #[test]
    fn fields_go_with_their_aggregation() {
        for (fields, message) in [
            (r#""aggregation":"sum","value":"n","of":[]"#, "meters[0].of: belongs to a compound"),
            (
                r#""aggregation":"compound","of":[],"filters":[]"#,
                "meters[0].event_type: belongs to the meters",
            ),
            (r#""aggregation":"min","value":"n","per":{}"#, "meters[0].per.bucket: is missing"),
            (r#""aggregation":"unique_count","value":"n","per":{}"#, "meters[0].per: does not go with"),
            (
                r#""aggregation":"sum","per":{"bucket":"hour","aggregation":"count"},"value":"n""#,
                "meters[0].value: a count",
            ),
            (
                r#""aggregation":"sum","per":{"bucket":"hour","aggregation":"max"}"#,
                "meters[0].value: is missing",
            ),
            (
                r#""aggregation":"sum","per":{"bucket":"hour","aggregation":"unique_count"},"value":"n + 1""#,
                "meters[0].value: must be",
            ),
            (
                r#""aggregation":"sum","per":{"bucket":"hour","aggregation":"unique_count"},"value":"n","operation":"o""#,
                "meters[0].operation: belongs",
            ),
            (r#""aggregation":"sum","value":"n","operation":"o""#, "meters[0].operation: belongs"),
            (r#""aggregation":"unique_count","value":"n","counted":"peak""#, "meters[0].counted: belongs"),
            (
                r#""aggregation":"unique_count","value":"n","operation":"o","counted":"most""#,
                "meters[0].counted: \"most\" is not known",
            ),
            (r#""aggregation":"percentile","value":"n","percentile":"0""#, "meters[0].percentile: "),
            (
                r#""aggregation":"weighted_sum","value":"n","weighting":"week""#,
                "meters[0].weighting: \"week\" is not known",
            ),
            (r#""aggregation":"count","rounding":{"mode":"up","to":"0"}"#, "meters[0].rounding.to: "),
            (
                r#""aggregation":"count","rounding":{"mode":"up","to":"0.0000000000001"}"#,
                "meters[0].rounding.to: ",
            ),
        ] {
            let found = read(&format!(r#"{{"key":"m","event_type":"t",{fields}}}"#)).unwrap_err().message;
            assert!(found.starts_with(message), "{fields}: {found}");
        }
        for (of, message) in [
            ("[]", "meters[0].of: is an empty list"),
            (r#"[{"meter":"a","factor":"0"}]"#, "meters[0].of[0].factor: must not be 0"),
            (r#"[{"meter":"a","factor":2}]"#, "meters[0].of[0].factor: must be a decimal in a string"),
            (r#"{"numerator":"a"}"#, "meters[0].of.denominator: is missing"),
            (r#"{"numerator":"a","denominator":"a"}"#, "meters[0].of.denominator: is the numerator"),
            (r#"{"numerator":"a","denominator":"b","places":-1}"#, "meters[0].of.places: must be between"),
        ] {
            let found =
                read(&format!(r#"{{"key":"m","aggregation":"compound","of":{of}}}"#)).unwrap_err().message;
            assert!(found.starts_with(message), "{of}: {found}");
        }
    }

    #[test]
    fn operations_and_named_filters_measure() {
        let seats =
            read(r#"{"key":"s","event_type":"t","aggregation":"unique_count","value":"u","operation":"op"}"#)
                .unwrap();
        let counted = |properties: &str| match measure(&seats, properties) {
            Measured::Counted { value, .. } => value,
            other => panic!("{other:?}"),
        };
        let key = text_key("ann");
        assert_eq!(counted(r#"{"u":"ann","op":"add"}"#), Contribution::Operation { key, removed: false });
        assert_eq!(counted(r#"{"u":"ann","op":"remove"}"#), Contribution::Operation { key, removed: true });
        assert_eq!(measure(&seats, r#"{"u":"ann"}"#), Measured::Skipped(VALUE_ABSENT));
        assert_eq!(measure(&seats, r#"{"op":"add"}"#), Measured::Skipped(VALUE_ABSENT));
        assert_eq!(
            refusal(&seats, r#"{"u":"ann","op":"ADD"}"#),
            "meter s: op must be \"add\" or \"remove\", not \"ADD\""
        );
        let named = meter(
            r#""filters":[{"name":"a","filter":{"x":1}},{"name":"ab","filter":{"x":1,"y":2}}],"filter":{"on":true}"#,
        );
        let name = |properties: &str| match measure(&named, properties) {
            Measured::Counted { dimensions, .. } => dimensions.canonical(),
            other => format!("{other:?}"),
        };
        assert_eq!(name(r#"{"n":1,"on":true,"x":1,"filter":"not me"}"#), r#"{"filter":"a"}"#);
        assert_eq!(name(r#"{"n":1,"on":true,"x":1,"y":2}"#), r#"{"filter":"ab"}"#);
        assert_eq!(name(r#"{"n":1,"on":true,"x":2}"#), "NotCounted");
        assert_eq!(name(r#"{"n":1,"on":false,"x":1}"#), "NotCounted");
        // Beside them other dimensions are properties, and without them "filter" is one, too.
        let beside = meter(r#""filters":[{"name":"a","filter":{"x":1}}],"dimensions":["x"]"#);
        let dimensions = |meter: &Meter| match measure(meter, r#"{"n":1,"x":1,"filter":"mine"}"#) {
            Measured::Counted { dimensions, .. } => dimensions.canonical(),
            other => format!("{other:?}"),
        };
        assert_eq!(dimensions(&beside), r#"{"filter":"a","x":"1"}"#);
        assert_eq!(dimensions(&meter(r#""dimensions":["filter"]"#)), r#"{"filter":"mine"}"#);
    }

    #[test]
    fn dimensions_are_bounded_at_the_limit_and_one_beyond() {
        let text = |n: usize| {
            let names: Vec<String> = (0..n).map(|i| format!("\"d{i}\"")).collect();
            format!(
                r#"{{"key":"m","event_type":"t","aggregation":"count","dimensions":[{}]}}"#,
                names.join(",")
            )
        };
        assert_eq!(read(&text(METER_DIMENSIONS_MAX)).unwrap().dimensions.len(), METER_DIMENSIONS_MAX);
        assert_eq!(read(&text(METER_DIMENSIONS_MAX + 1)).unwrap_err().code, Code::Bound);
        // Of named filters the name is one more.
        let named = |n: usize| {
            text(n).replace(
                r#""dimensions":["#,
                r#""filters":[{"name":"a","filter":{}}],"dimensions":["filter","#,
            )
        };
        assert_eq!(read(&named(METER_DIMENSIONS_MAX)).unwrap().dimensions.len(), METER_DIMENSIONS_MAX + 1);
        assert_eq!(read(&named(METER_DIMENSIONS_MAX + 1)).unwrap_err().code, Code::Bound);
        let value = |n: usize| format!(r#"{{"n":1,"d":"{}"}}"#, "x".repeat(n));
        let one = meter(r#""dimensions":["d"]"#);
        assert!(matches!(measure(&one, &value(VALUE_BYTES_MAX)), Measured::Counted { .. }));
        assert_eq!(
            refusal(&one, &value(VALUE_BYTES_MAX + 1)),
            "meter m: d: a dimension value has at most 256 bytes, this one has 257"
        );
    }

    #[test]
    fn measures() {
        let all = meter(r#""filter":{"on":true},"dimensions":["x.model","region","count"]"#);
        let tree = json::parse(
            r#"{"n":1.50,"on":true,"x":{"model":"gpt-4"},"region":null,"count":1e1,"bill_to":"not me"}"#,
        )
        .unwrap();
        for (bill_to, dimensions) in [
            (None, r#"{"count":"10","x.model":"gpt-4"}"#),
            (Some("acme-eu"), r#"{"bill_to":"acme-eu","count":"10","x.model":"gpt-4"}"#),
        ] {
            let Measured::Counted { dimensions: found, value } = all.measure(&tree, bill_to) else {
                panic!()
            };
            assert_eq!(found.canonical(), dimensions);
            assert_eq!(value, Contribution::Number(Exact::parse("1.5").unwrap()));
        }
        // the filter decides first, then the value, then the dimensions
        assert_eq!(measure(&all, r#"{"n":"x","on":false,"region":{}}"#), Measured::NotCounted);
        assert_eq!(measure(&all, r#"{"on":true,"region":{}}"#), Measured::Skipped(VALUE_ABSENT));
        assert_eq!(measure(&all, r#"{"n":null,"on":true}"#), Measured::Skipped(VALUE_ABSENT));
        for (properties, message) in [
            (r#"{"n":"1","on":true}"#, "meter m: n must be a number, not the string \"1\""),
            (r#"{"n":1,"on":true,"region":{}}"#, "meter m: region: a dimension value must be"),
            (r#"{"n":1,"on":true,"region":["eu"]}"#, "meter m: region: a dimension value must be"),
            (r#"{"n":1e29,"on":true}"#, "meter m: n \"1e29\" has more than 28 digits"),
            (r#"{"n":1e-13,"on":true}"#, "meter m: n \"1e-13\" has more than 12 digits after the point"),
            (r#"{"n":1,"on":true,"count":1e400}"#, "meter m: count: \"1e400\" has more than 28 digits"),
        ] {
            assert!(refusal(&all, properties).starts_with(message), "{}", refusal(&all, properties));
        }
        let ordered = meter(r#""filter":{"n":{"gt":1}}"#);
        assert_eq!(refusal(&ordered, r#"{"n":1e400}"#), "meter m: n \"1e400\" has more than 28 digits");
    }

    #[test]
    fn unique_counts_count_texts() {
        let unique =
            read(r#"{"key":"u","event_type":"t","aggregation":"unique_count","value":"user"}"#).unwrap();
        let key = |properties: &str| match measure(&unique, properties) {
            Measured::Counted { value: Contribution::Key(key), .. } => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(r#"{"user":"1"}"#), key(r#"{"user":1.0}"#));
        assert_eq!(key(r#"{"user":"true"}"#), key(r#"{"user":true}"#));
        assert_ne!(key(r#"{"user":"A"}"#), key(r#"{"user":"a"}"#));
        assert_eq!(key(r#"{"user":"abc"}"#), text_key("abc"));
        assert_eq!(key(r#"{"user":""}"#), text_key(""));
        assert_eq!(measure(&unique, r#"{"user":null}"#), Measured::Skipped(VALUE_ABSENT));
        assert_eq!(measure(&unique, "{}"), Measured::Skipped(VALUE_ABSENT));
        assert!(
            refusal(&unique, r#"{"user":{"id":1}}"#).starts_with("meter u: user must be a string, a number")
        );
    }
}
