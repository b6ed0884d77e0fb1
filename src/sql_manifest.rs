//! The extension script: every file of sql/ext in order, each after the one before it, and nothing else.
//! Functions are declared there by hand, so that one place shows signature, labels, search_path and comment.

use pgrx::extension_sql_file;

extension_sql_file!("../sql/ext/00_bootstrap.sql", name = "bootstrap", bootstrap);
extension_sql_file!("../sql/ext/10_foundation.sql", name = "foundation", requires = ["bootstrap"]);
extension_sql_file!("../sql/ext/20_ingestion.sql", name = "ingestion", requires = ["foundation"]);
extension_sql_file!(
    "../sql/ext/21_event_corrections.sql",
    name = "event_corrections",
    requires = ["ingestion"]
);
extension_sql_file!("../sql/ext/30_metering.sql", name = "metering", requires = ["event_corrections"]);
extension_sql_file!("../sql/ext/31_usage_totals.sql", name = "usage_totals", requires = ["metering"]);
extension_sql_file!("../sql/ext/35_aggregates.sql", name = "aggregates", requires = ["usage_totals"]);
extension_sql_file!("../sql/ext/40_rating.sql", name = "rating", requires = ["aggregates"]);
extension_sql_file!(
    "../sql/ext/49_contract_documents.sql",
    name = "contract_documents",
    requires = ["rating"]
);
extension_sql_file!("../sql/ext/50_catalogue.sql", name = "catalogue", requires = ["contract_documents"]);
extension_sql_file!("../sql/ext/51_customers.sql", name = "customers", requires = ["catalogue"]);
extension_sql_file!("../sql/ext/52_contracts.sql", name = "contracts", requires = ["customers"]);
extension_sql_file!(
    "../sql/ext/53_contract_changes.sql",
    name = "contract_changes",
    requires = ["contracts"]
);
extension_sql_file!(
    "../sql/ext/54_contract_words.sql",
    name = "contract_words",
    requires = ["contract_changes"]
);
extension_sql_file!("../sql/ext/60_credits.sql", name = "credits", requires = ["contract_words"]);
extension_sql_file!("../sql/ext/61_credit_movements.sql", name = "credit_movements", requires = ["credits"]);
extension_sql_file!("../sql/ext/62_top_ups.sql", name = "top_ups", requires = ["credit_movements"]);
extension_sql_file!("../sql/ext/70_entitlements.sql", name = "entitlements", requires = ["top_ups"]);
extension_sql_file!("../sql/ext/71_consumption.sql", name = "consumption", requires = ["entitlements"]);
extension_sql_file!("../sql/ext/72_limits.sql", name = "limits", requires = ["consumption"]);
extension_sql_file!("../sql/ext/73_alerts.sql", name = "alerts", requires = ["limits"]);
extension_sql_file!("../sql/ext/74_denied.sql", name = "denied", requires = ["alerts"]);
extension_sql_file!("../sql/ext/80_invoicing.sql", name = "invoicing", requires = ["denied"]);
extension_sql_file!("../sql/ext/81_corrections.sql", name = "corrections", requires = ["invoicing"]);
extension_sql_file!("../sql/ext/82_event_jobs.sql", name = "event_jobs", requires = ["corrections"]);
extension_sql_file!("../sql/ext/83_prices.sql", name = "prices", requires = ["event_jobs"]);
extension_sql_file!("../sql/ext/84_invoice_reading.sql", name = "invoice_reading", requires = ["prices"]);
extension_sql_file!("../sql/ext/85_verify.sql", name = "verify", requires = ["invoice_reading"]);
extension_sql_file!("../sql/ext/86_bill_run.sql", name = "bill_run", requires = ["verify"]);
extension_sql_file!("../sql/ext/87_jobs.sql", name = "jobs", requires = ["bill_run"]);
extension_sql_file!("../sql/ext/88_credit_sales.sql", name = "credit_sales", requires = ["jobs"]);
extension_sql_file!("../sql/ext/90_customer_side.sql", name = "customer_side", requires = ["credit_sales"]);
extension_sql_file!("../sql/ext/99_grants.sql", name = "grants", requires = ["customer_side"], finalize);
