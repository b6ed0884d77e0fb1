//! The customer's side: the page, and how far commitments are filled.

use crate::domain::credits::commitment::{Commitment, waterfall};
use crate::domain::credits::{Scope, Window};
use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::invoicing::commitments::Spent;
use crate::domain::page;
use crate::pg::{FaultJson, Numeric};
use pgrx::prelude::*;
use uuid::Uuid;

/// The HTML page of a summary; NULL where `page_html_error` says why.
#[pg_extern(sql = false)]
fn page_html(summary: &str) -> Option<String> {
    page::render(summary).ok()
}

#[pg_extern(sql = false)]
fn page_html_error(summary: &str) -> Option<String> {
    page::render(summary).err().as_ref().map(FaultJson::text)
}

/// How much of each period is filled, in their order; no row where `commitments_filled_error` says why.
#[pg_extern(sql = false)]
fn commitments_filled(
    periods: &str,
    spent: &str,
    meter: Option<&str>,
) -> TableIterator<'static, (name!(place, i32), name!(filled, Numeric))> {
    let filled = filled(periods, spent, meter).unwrap_or_default();
    TableIterator::new(
        filled.into_iter().enumerate().map(|(n, filled)| (n as i32 + 1, Numeric::from(filled))),
    )
}

#[pg_extern(sql = false)]
fn commitments_filled_error(periods: &str, spent: &str, meter: Option<&str>) -> Option<String> {
    filled(periods, spent, meter).err().as_ref().map(FaultJson::text)
}

fn filled(periods: &str, spent: &str, meter: Option<&str>) -> Result<Vec<Exact>, Fault> {
    let tree = json::parse(periods)?;
    let read = |(place, node): (usize, Node)| {
        let mut fields = node.fields()?;
        let mut instant = |name: &str| fields.required(name)?.instant();
        let period = Window { from: instant("from")?, until: instant("until")? };
        let mut scope = Scope::read(&fields.required("scope")?)?;
        scope.meters.extend(meter.map(str::to_string));
        Ok(Commitment {
            id: Uuid::from_u128(place as u128 + 1),
            priority: i32::try_from(fields.required("priority")?.integer()?).unwrap_or(i32::MAX),
            committed: fields.required("amount")?.decimal()?,
            scope,
            period,
        })
    };
    let commitments =
        Node::root(&tree).items()?.into_iter().enumerate().map(read).collect::<Result<Vec<_>, Fault>>()?;
    let spent = Spent::read(&Node::root(&json::parse(spent)?))?;
    let filled = waterfall(&commitments, &spent.charges(meter)?)?;
    let of = |commitment: &Commitment| {
        filled
            .iter()
            .find(|filled| filled.commitment == commitment.id)
            .map_or(Exact::ZERO, |filled| filled.filled)
    };
    Ok(commitments.iter().map(of).collect())
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{fault, rows, value};
    use pgrx::prelude::*;

    /// A summary becomes a page, what is none a fault that names the call that makes one.
    #[pg_test]
    fn pages_are_made_of_summaries() {
        let summary = "{\"name\": \"A & B\", \"seller\": \"Us\", \"currency\": \"USD\", \"time_zone\": \"UTC\", \"as_of_local\": \"2026-03-14 09:30\", \"today\": \"2026-03-14\",
            \"problem\": false, \"contracts\": [], \"period\": {\"starts_on\": \"2026-03-01\", \"ends_on\": \"2026-04-01\", \"days\": \"31\", \"day\": \"14\", \"over\": false},
            \"usage\": [], \"spend\": [], \"commitments\": [], \"credits\": [], \"balances\": [], \"invoices\": []}";
        let page = value(&format!("SELECT billing_internal.page_html('{summary}')")).expect("a page");
        assert!(page.contains("<title>Billing · A &amp; B</title>"), "{page}");
        assert_eq!(value(&format!("SELECT billing_internal.page_html_error('{summary}')")), None);
        assert_eq!(value("SELECT billing_internal.page_html('{}')"), None);
        let said = fault("SELECT billing_internal.page_html_error('{}')");
        assert!(said.starts_with("ZB003 document: is no customer summary: missing field"), "{said}");
    }

    /// Usage on documents fills periods by the rule of the true-up: scope, time, lower priority first, no charge twice,
    /// less what credit paid.
    #[pg_test]
    fn commitments_are_filled_as_the_true_up_does() {
        let line = |key: &str, at: &str, amount: &str| {
            format!(
                "{{\"key\":\"{key}\",\"kind\":\"usage\",\"meter\":\"tokens\",\"product\":\"ai\",\"from\":\"{at}\",\"dimensions\":{{}},\"amount\":\"{amount}\",\"quantity\":\"{amount}0\"}}"
            )
        };
        let spent = format!(
            "[{{\"number\":\"INV-1\",\"boundary\":1,\"bill_to\":\"acme\",\"credits\":[],\"lines\":[{},{}]}},
              {{\"number\":\"next\",\"boundary\":2,\"bill_to\":\"acme\",\"credits\":null,\"lines\":[{}]}}]",
            line("a", "2026-01-01T00:00:00Z", "60"),
            line("b", "2026-02-01T00:00:00Z", "70.5"),
            line("c", "2026-03-01T00:00:00Z", "5")
        );
        let period = |priority: i32, amount: &str, scope: &str, until: &str| {
            format!(
                "{{\"priority\":{priority},\"amount\":\"{amount}\",\"scope\":{scope},\"from\":\"2026-01-01T00:00:00Z\",\"until\":\"{until}\"}}"
            )
        };
        let periods = [
            period(100, "1000", "{}", "2027-01-01T00:00:00Z"),
            period(50, "100", "{}", "2026-03-01T00:00:00Z"),
            period(10, "100", "{\"meters\":[\"other\"]}", "2027-01-01T00:00:00Z"),
        ];
        let periods = format!("[{}]", periods.join(","));
        let call = format!("'{periods}', '{spent}', NULL");
        assert_eq!(
            rows(&format!(
                "SELECT place, trim_scale(filled) FROM billing_internal.commitments_filled({call})"
            )),
            ["1|35.5", "2|100", "3|0"]
        );
        // In units of the meter, which all of them then count: 600, 70.50 and 50.
        assert_eq!(
            rows(&format!(
                "SELECT place, trim_scale(filled) FROM billing_internal.commitments_filled('{periods}', '{spent}', 'tokens')"
            )),
            ["1|520.5", "2|100", "3|100"]
        );
        assert_eq!(value(&format!("SELECT billing_internal.commitments_filled_error({call})")), None);
        assert!(rows("SELECT * FROM billing_internal.commitments_filled('[{}]', '[]', NULL)").is_empty());
        assert_eq!(
            fault("SELECT billing_internal.commitments_filled_error('[{}]', '[]', NULL)"),
            "ZB003 [0].from: is missing"
        );
    }
}
