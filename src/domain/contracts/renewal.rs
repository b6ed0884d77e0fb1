//! What happens when a term ends: renewal, notice, and how far prices rise (rules.md 7).

use super::plan::read_interval;
use super::schedule::read_percent;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use chrono::{Days, NaiveDate};
use std::cmp::{max, min};

/// Longest notice in days: ten years.
pub const NOTICE_DAYS_MAX: i64 = 3660;

/// `renewal` of a contract.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Renewal {
    /// Whether it renews by itself unless notice is given in time.
    pub auto: bool,
    pub notice_days: i64,
    /// Length of the next term; `None` = as long as the contract's.
    pub term: Option<Interval>,
    pub uplift: Option<Uplift>,
    pub prices: RenewalPrices,
}

/// By how much fees and the contract's own prices rise.
#[derive(Debug, Clone, PartialEq)]
pub enum Uplift {
    Percent(Exact),
    /// What an index says when the contract is renewed, between bounds.
    Index {
        index: Option<String>,
        min: Option<Exact>,
        max: Option<Exact>,
    },
}

/// What becomes of the prices agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RenewalPrices {
    /// They go on.
    #[default]
    Keep,
    /// Overrides and discounts end with the term; list prices hold from then on.
    List,
}

impl RenewalPrices {
    pub fn read(node: &Node) -> Result<RenewalPrices, Fault> {
        Ok(match node.word(&["keep", "list"])? {
            "list" => RenewalPrices::List,
            _ => RenewalPrices::Keep,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            RenewalPrices::Keep => "keep",
            RenewalPrices::List => "list",
        }
    }
}

impl Renewal {
    pub fn read(node: &Node) -> Result<Renewal, Fault> {
        let mut fields = node.fields_of(&["auto", "notice_days", "term", "uplift", "prices"])?;
        let renewal = Renewal::take(&mut fields)?;
        fields.finish()?;
        Ok(renewal)
    }

    /// As a timeline says it, with its dates.
    pub fn read_resolved(node: &Node) -> Result<Renewal, Fault> {
        Renewal::take(&mut node.fields()?)
    }

    fn take(fields: &mut Fields) -> Result<Renewal, Fault> {
        let auto = fields.optional("auto").map_or(Ok(false), |n| n.boolean())?;
        let notice_days = match fields.optional("notice_days") {
            None => 0,
            Some(n) => match n.integer()? {
                days if (0..=NOTICE_DAYS_MAX).contains(&days) => days,
                days => return Err(n.fault(format!("{days} is not between 0 and {NOTICE_DAYS_MAX}"))),
            },
        };
        let term = fields.optional("term").map(|n| read_interval(&n)).transpose()?;
        let uplift = fields.optional("uplift").map(|n| Uplift::read(&n)).transpose()?;
        let prices =
            fields.optional("prices").map_or(Ok(RenewalPrices::default()), |n| RenewalPrices::read(&n))?;
        Ok(Renewal { auto, notice_days, term, uplift, prices })
    }

    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("auto".into(), Tree::Bool(self.auto)),
            ("notice_days".into(), Tree::number(self.notice_days)),
        ];
        if let Some(term) = self.term {
            fields.push(("term".into(), Tree::text(term.to_string())));
        }
        if let Some(uplift) = &self.uplift {
            fields.push(("uplift".into(), uplift.to_tree()));
        }
        if self.prices != RenewalPrices::Keep {
            fields.push(("prices".into(), Tree::text(self.prices.as_str())));
        }
        Tree::Object(fields)
    }

    /// The last day on which a notice counts, of a term that ends (exclusively) on a day.
    pub fn notice_deadline(&self, ends_on: NaiveDate) -> NaiveDate {
        ends_on.checked_sub_days(Days::new(self.notice_days.unsigned_abs())).unwrap_or(NaiveDate::MIN)
    }

    /// By how many percent prices rise, given the index's value where there is one to be given.
    pub fn uplift_percent(&self, index: Option<Exact>) -> Result<Exact, Fault> {
        match (&self.uplift, index) {
            (None, _) => Ok(Exact::ZERO),
            (Some(Uplift::Percent(percent)), _) => Ok(*percent),
            (Some(Uplift::Index { index, .. }), None) => {
                let name = index.as_deref().unwrap_or("the index");
                Err(Fault::value(format!("the renewal's uplift follows {name}, and its value is not given"))
                    .with_hint("Pass it in percent: index => 8.1, or set policy renewal_index."))
            }
            // Without a lower bound prices stay where the index falls.
            (Some(Uplift::Index { min: lower, max: upper, .. }), Some(value)) => {
                let value = upper.map_or(value, |upper| min(value, upper));
                Ok(max(value, lower.unwrap_or(Exact::ZERO)))
            }
        }
    }
}

impl Uplift {
    fn read(node: &Node) -> Result<Uplift, Fault> {
        let mut fields = node.fields_of(&["percent", "index", "min", "max"])?;
        let percent = fields.optional("percent").map(|n| read_percent(&n)).transpose()?;
        let index = fields.optional("index").map(|n| n.key().map(str::to_string)).transpose()?;
        let lower = fields.optional("min").map(|n| read_percent(&n)).transpose()?;
        let upper = fields.optional("max").map(|n| read_percent(&n)).transpose()?;
        let uplift = match (percent, index.is_some() || lower.is_some() || upper.is_some()) {
            (Some(percent), false) => Uplift::Percent(percent),
            (None, true) => Uplift::Index { index, min: lower, max: upper },
            _ => {
                return Err(fields
                    .fault("must have either percent, or an index with min and max")
                    .with_hint(
                        "Write {\"percent\": \"5\"} or {\"index\": \"cpi\", \"min\": \"3\", \"max\": \"7\"}.",
                    ));
            }
        };
        if let (Some(lower), Some(upper)) = (lower, upper)
            && lower > upper
        {
            return Err(fields.fault(format!("min {lower} is above max {upper}")));
        }
        fields.finish()?;
        Ok(uplift)
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        match self {
            Uplift::Percent(percent) => fields.push(("percent".into(), Tree::text(percent.to_string()))),
            Uplift::Index { index, min, max } => {
                if let Some(index) = index {
                    fields.push(("index".into(), Tree::text(index.clone())));
                }
                for (name, bound) in [("min", min), ("max", max)] {
                    if let Some(bound) = bound {
                        fields.push((name.into(), Tree::text(bound.to_string())));
                    }
                }
            }
        }
        Tree::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn read(text: &str) -> Result<Renewal, Fault> {
        Renewal::read(&Node { tree: &json::parse(text).unwrap(), path: "renewal".into() })
    }

    /// rules.md 7: end exclusive 2026-02-01, 60 days: 2025-12-03. CPI 8.1 with 3–7 is 7.
    #[test]
    fn worked_numbers() {
        let renewal =
            read(r#"{"auto":true,"notice_days":60,"uplift":{"index":"cpi","min":"3","max":"7"}}"#).unwrap();
        assert_eq!(renewal.notice_deadline("2026-02-01".parse().unwrap()), "2025-12-03".parse().unwrap());
        let percent =
            |index: &str| renewal.uplift_percent(Some(Exact::parse(index).unwrap())).unwrap().to_string();
        assert_eq!([percent("8.1"), percent("5.5"), percent("1"), percent("-2")], ["7", "5.5", "3", "3"]);
        assert!(renewal.uplift_percent(None).unwrap_err().message.contains("follows cpi"));
        let fixed = read(r#"{"uplift":{"percent":"5"}}"#).unwrap();
        assert_eq!(fixed.uplift_percent(None).unwrap(), Exact::from_i64(5));
        let open = read(r#"{"uplift":{"index":"cpi"}}"#).unwrap();
        assert_eq!(open.uplift_percent(Some(Exact::from_i64(-2))).unwrap(), Exact::ZERO);
        assert_eq!(read("{}").unwrap().uplift_percent(None).unwrap(), Exact::ZERO);
    }

    #[test]
    fn reads_what_it_writes_or_names_the_place() {
        for text in [
            r#"{"auto":true,"notice_days":60,"prices":"list","term":"12 months","uplift":{"percent":"5"}}"#,
            r#"{"auto":false,"notice_days":0,"uplift":{"index":"cpi","max":"7","min":"3"}}"#,
        ] {
            assert_eq!(read(text).unwrap().to_tree().canonical().unwrap(), text);
        }
        for (text, message) in [
            (r#"{"notice_days":-1}"#, "renewal.notice_days: -1 is not between 0 and 3660"),
            (r#"{"uplift":{}}"#, "renewal.uplift: must have either percent, or an index with min and max"),
            (
                r#"{"uplift":{"percent":"5","min":"3"}}"#,
                "renewal.uplift: must have either percent, or an index with min and max",
            ),
            (r#"{"uplift":{"min":"8","max":"7"}}"#, "renewal.uplift: min 8 is above max 7"),
            (r#"{"uplift":{"percent":"-5"}}"#, "renewal.uplift.percent: -5 is negative"),
            (r#"{"prices":"float"}"#, "renewal.prices: \"float\" is not known"),
            (r#"{"days":1}"#, "renewal.days: is not a field of this document"),
        ] {
            assert_eq!(read(text).unwrap_err().message, message, "{text}");
        }
    }
}
