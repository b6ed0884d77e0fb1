//! Faults on their way to people. Rust leaves never raise our own SQLSTATEs (pgrx would flatten them):
//! they hand the fault on as JSON and the SQL facade raises it. Only type input raises here, with the
//! standard code for text that is no value of the type.

use crate::domain::foundation::Fault;
use crate::domain::foundation::json::Tree;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, function_name};

/// `{"code","message","detail","hint"}`, read by `billing_internal.raise_fault(jsonb)`.
pub struct FaultJson;

impl FaultJson {
    pub fn text(fault: &Fault) -> String {
        let optional = |text: &Option<String>| text.clone().map_or(Tree::Null, Tree::text);
        Tree::object([
            ("code", Tree::text(fault.code.sqlstate())),
            ("detail", optional(&fault.detail)),
            ("hint", optional(&fault.hint)),
            ("message", Tree::text(fault.message.clone())),
        ])
        .canonical()
        .expect("a fault has no numbers")
    }
}

/// Raises with a standard SQLSTATE, for places where no facade stands above (type input, comparison).
pub fn raise(code: PgSqlErrorCode, fault: &Fault) -> ! {
    let mut report = ErrorReport::new(code, fault.message.clone(), function_name!());
    if let Some(detail) = &fault.detail {
        report = report.set_detail(detail.clone());
    }
    if let Some(hint) = &fault.hint {
        report = report.set_hint(hint.clone());
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
