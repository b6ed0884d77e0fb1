//! The customer's billing page: one self-contained HTML document made of what `billing.customer_summary()` says.
//!
//! It guarantees: every text of a customer or a catalogue is escaped (the template engine escapes what is not a number of
//! ours) and turns no figure beside it around; the document loads nothing and runs nothing; the same summary gives the same bytes. Amounts are shown as they
//! come, with thousands separated; only lengths of bars and lines are rounded.
//!
//! Locale: English. `1,234.50`, days as `14 Mar 2026`; money with its ISO code before it (`USD 12.00`), other units after.

mod chart;
mod figures;
mod summary;
#[cfg(test)]
mod tests;
mod view;

use crate::domain::foundation::Fault;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

/// Far more than the largest summary needs (24 invoices, 400 days, some dozens of blocks).
const FUEL: u64 = 5_000_000;
/// No summary is as long.
const SUMMARY_BYTES_MAX: usize = 8 << 20;

/// The page of a summary.
pub fn render(summary: &str) -> Result<String, Fault> {
    if summary.len() > SUMMARY_BYTES_MAX {
        return Err(Fault::value("the summary is longer than 8 MB"));
    }
    let summary = summary::read(&summary.replace(turns_text, ""))?;
    let page = view::page(&summary)?;
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(broken)?);
    environment.set_fuel(Some(FUEL));
    environment.add_template("page", include_str!("page.html")).map_err(broken)?;
    environment.add_template("style", include_str!("page.css")).map_err(broken)?;
    environment.get_template("page").and_then(|template| template.render(Serde(page))).map_err(broken)
}

/// Turns the order of what stands after it: a name with one would show the figures beside it from right to left. Names that are
/// written from right to left need none.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn broken(error: minijinja::Error) -> Fault {
    Fault::value(format!("the page can't be made: {error}"))
}
