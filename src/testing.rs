//! What the `#[pg_test]`s share: asking Postgres in one line, and the proof that every function has a test.

use pgrx::prelude::*;

fn in_utc() {
    Spi::run("SET timezone = 'UTC'").expect("a setting");
}

/// The rows of a query, each as its columns with `|` between; a NULL is empty, an array is JSON.
pub fn rows(query: &str) -> Vec<String> {
    in_utc();
    let shown = format!(
        "SELECT (SELECT coalesce(string_agg(coalesce(c.value, ''), '|'), '') FROM json_each_text(row_to_json(r)) c)
         FROM ({query}) r"
    );
    Spi::connect_mut(|client| {
        let table = client.update(&shown, None, &[]).expect("a query");
        table.map(|row| row.get::<String>(1).expect("text").expect("not null")).collect()
    })
}

/// The first column of the only row of a query, as text.
pub fn value(query: &str) -> Option<String> {
    in_utc();
    Spi::connect_mut(|client| {
        let mut table = client.update(&format!("SELECT ({query})::text"), None, &[]).expect("a query");
        table.next().expect("a row").get::<String>(1).expect("text")
    })
}

/// Whether a condition holds; NULL does not.
pub fn holds(condition: &str) -> bool {
    value(condition).as_deref() == Some("true")
}

/// The error that a statement ends in: `SQLSTATE message`, then ` HINT …` if it has one.
pub fn error_of(statement: &str) -> String {
    in_utc();
    Spi::run(
        "CREATE OR REPLACE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
         DECLARE
             hint text;
         BEGIN
             EXECUTE statement;
             RETURN 'no error';
         EXCEPTION WHEN OTHERS THEN
             GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
             RETURN SQLSTATE || ' ' || SQLERRM || CASE WHEN hint <> '' THEN ' HINT ' || hint ELSE '' END;
         END $$",
    )
    .expect("a function");
    Spi::get_one_with_args("SELECT pg_temp.error_of($1)", &[statement.into()])
        .expect("text")
        .expect("not null")
}

/// Another session of this database, named "other": runs one statement at a time, each committed.
pub fn other_session() -> impl Fn(&str) {
    Spi::run("CREATE EXTENSION dblink SCHEMA tests").expect("an extension of contrib");
    rows(
        "SELECT tests.dblink_connect('other', format('host=localhost port=%s dbname=%s user=%s',
            current_setting('port'), current_database(), current_user))",
    );
    |statement| {
        Spi::run_with_args("SELECT tests.dblink_exec('other', $1)", &[statement.into()])
            .expect("a statement");
    }
}

/// The fields of a fault that a leaf described: `code message`.
pub fn fault(call: &str) -> String {
    value(&format!("SELECT (f->>'code') || ' ' || (f->>'message') FROM CAST(({call}) AS jsonb) f"))
        .expect("a fault")
}

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Each test and the functions, by their Rust names, of which it says what they promise.
    const REGISTER: &[(&str, &[&str])] = &[
        ("aggregates_give_what_meters_give", &["usage_count_add", "usage_sum_add", "usage_max_add"]),
        (
            "aggregates_give_more_than_sums",
            &[
                "usage_min_add",
                "usage_average_add",
                "usage_latest_add",
                "usage_weighted_sum_add",
                "usage_percentile_add",
            ],
        ),
        ("unique_counts_count_keys", &["usage_unique_add"]),
        (
            "aggregates_merge_in_parallel",
            &[
                "usage_state_combine",
                "usage_state_serial",
                "usage_state_deserial",
                "usage_state_total",
                "usage_state_quantity",
            ],
        ),
        // the customer's side
        ("pages_are_made_of_summaries", &["page_html", "page_html_error"]),
        ("commitments_are_filled_as_the_true_up_does", &["commitments_filled", "commitments_filled_error"]),
        // foundation
        ("row_ids_are_ordered", &["uuid_v7"]),
        ("billing_periods_keep_their_anchor", &["calendar_period"]),
        ("a_day_lies_in_one_period", &["calendar_period_at"]),
        ("service_periods_tile_a_billing_period", &["calendar_service_periods"]),
        ("documents_are_read_or_refused_by_path", &["document_read", "document_read_error"]),
        ("the_clock_is_the_transaction_or_stands_still", &["billing_now", "billing_moment"]),
        ("a_refused_commit_rolls_back", &["refuse_commit"]),
        ("a_transaction_that_travels_is_rolled_back", &["travel_to", "travelling", "preview_number"]),
        ("a_transaction_block_is_known", &["in_transaction_block"]),
        ("schema_files_are_carried_whole", &["schema_files"]),
        // credits
        ("credit_documents_are_read", &["credit_document", "credit_document_error"]),
        (
            "draws_take_from_blocks_in_their_order",
            &["credit_block_error", "credit_allot", "credit_allot_error"],
        ),
        ("credits_are_worth_what_was_paid", &["credit_release", "credit_release_error"]),
        ("debt_moves_with_its_lines", &["credit_absorb", "credit_absorb_error"]),
        ("top_ups_fire_once_a_crossing", &["top_up_look", "top_up_look_error"]),
        // entitlements
        ("requests_pass_or_say_when", &["rate_step", "rate_error"]),
        ("limit_documents_are_read", &["limit_document", "limit_document_error"]),
        (
            "shared_memory_counts_requests",
            &["rate_shared", "rate_shared_look", "rates_use", "clock_stands_still"],
        ),
        ("an_installation_is_required", &["require_installed_0_2", "forget_installed"]),
        ("partitions_made_meanwhile_are_seen", &["heed_changes"]),
        ("money_in_text", &["money_in", "money_out"]),
        ("money_in_binary", &["money_recv", "money_send"]),
        (
            "money_is_made_and_taken_apart",
            &["money_make", "money_make_error", "money_amount", "money_currency"],
        ),
        (
            "money_adds_and_multiplies_exactly",
            &["money_sum", "money_sum_error", "money_times", "money_times_error"],
        ),
        (
            "money_compares_within_one_currency",
            &["money_order", "money_order_error", "money_equal", "money_hash"],
        ),
        ("parts_sum_to_the_total", &["allocate_parts", "allocate_parts_error"]),
        // ingestion
        (
            "an_ingest_call_accounts_for_every_event",
            &[
                "call_read",
                "call_parties",
                "call_resolve",
                "call_keys",
                "call_accept",
                "call_deltas",
                "call_has_known",
                "call_known",
                "call_judge",
                "call_has_rejections",
                "call_rejections",
                "call_end",
            ],
        ),
        ("a_call_is_measured_again", &["call_measure_again"]),
        ("months_are_learned_by_backend", &["month_learn"]),
        ("kept_events_are_read_again", &["call_read_kept"]),
        ("limits_let_pass_or_say_when", &["limit_check", "limit_error"]),
        ("a_call_is_confined", &["call_confine", "call_contents", "call_outcomes"]),
        ("broken_documents_say_why", &["call_read_error"]),
        ("single_events_are_read_in_parts", &["call_read_event"]),
        (
            "one_event_is_asked_by_values",
            &[
                "call_one",
                "call_one_month",
                "call_one_key",
                "call_one_hash",
                "call_one_properties",
                "call_one_accept",
                "call_forget",
            ],
        ),
        ("rows_are_read_as_columns", &["call_read_rows"]),
        // metering
        ("meters_are_loaded_by_state", &["meters_state", "meters_load"]),
        ("stored_events_are_measured_afresh", &["stored_usage"]),
        ("events_are_measured_one_by_one", &["measured_events"]),
        ("keys_of_texts", &["key_of_text"]),
        // rating
        ("pricing_in_text", &["pricing_in", "pricing_out"]),
        ("pricing_in_binary", &["pricing_recv", "pricing_send"]),
        ("rates_by_the_worked_numbers", &["rate_value"]),
        ("unrated_quantities_say_why", &["rate_value_error"]),
        ("events_are_rated_one_by_one", &["rate_events_value", "rate_events_error"]),
        ("the_working_sums_to_the_rate", &["rate_steps"]),
        ("candidates_are_every_subset", &["price_candidates"]),
        ("facts_of_a_price", &["pricing_facts"]),
        // contracts
        ("catalogues_are_read_item_by_item", &["catalogue_items", "catalogue_items_error"]),
        ("timelines_fold_changes", &["contract_timeline", "contract_timeline_error"]),
        ("changes_are_read_by_kind", &["contract_change_read", "contract_change_read_error"]),
        ("deals_are_told_in_sentences", &["contract_describe", "contract_describe_error"]),
        ("timelines_are_compared", &["contract_diff"]),
        ("fees_fall_by_the_day", &["contract_fees_fall"]),
        ("uplifts_are_clamped", &["contract_uplift", "contract_uplift_error"]),
        ("charges_fit_their_meter", &["charge_error"]),
        ("overrides_change_one_thing", &["overrides_read", "overrides_read_error"]),
        ("prices_resolve_by_time_and_match", &["resolved_price", "resolved_price_error"]),
        // entitlements
        ("entitlements_fold_over_time", &["entitlements_folded", "entitlements_folded_error"]),
        ("entitlements_suit_their_kind", &["entitlement_error"]),
        ("quotas_decide_and_roll_over", &["quota_verdict", "quota_rolled"]),
        ("a_window_lies_between_midnights", &["quota_window"]),
        ("seats_are_events", &["seat_event"]),
        ("what_is_consumed_is_an_event", &["consume_worth", "consume_worth_error"]),
        // invoicing
        (
            "a_bill_batch_asks_for_what_it_needs",
            &[
                "bill_meter_ids",
                "bill_add_meter",
                "bill_price_keys",
                "bill_add_version",
                "bill_days",
                "bill_add_midnight",
                "bill_stretches",
                "bill_add_usage",
                "bill_wanted_rows",
                "bill_add_rows",
            ],
        ),
        ("a_bill_batch_refuses_what_does_not_fit", &["bill_open"]),
        ("credit_is_asked_for_by_hour_and_drawn", &["bill_hours", "bill_add_hours", "bill_credits"]),
        ("pending_credit_is_asked_for_by_period", &["bill_pending"]),
        (
            "a_computed_batch_has_documents_or_faults",
            &["bill_compute", "bill_outcomes", "bill_documents", "bill_lines"],
        ),
        (
            "documents_are_issued_and_explained",
            &["bill_document", "bill_terms", "bill_close", "explain_document", "explain_document_error"],
        ),
        ("canonical_json_is_one_text", &["canonical_json"]),
    ];

    /// The files that define functions and their tests.
    const SOURCES: &[&str] = &[
        include_str!("agg/usage.rs"),
        include_str!("api/contracts.rs"),
        include_str!("api/credits.rs"),
        include_str!("api/entitlements.rs"),
        include_str!("api/foundation.rs"),
        include_str!("api/ingestion.rs"),
        include_str!("api/invoicing.rs"),
        include_str!("api/limits.rs"),
        include_str!("api/metering.rs"),
        include_str!("api/page.rs"),
        include_str!("api/rating.rs"),
        include_str!("pg/clock.rs"),
        include_str!("pg/install.rs"),
        include_str!("types/money.rs"),
        include_str!("types/pricing.rs"),
    ];

    /// The text of a test, up to the next one.
    fn body_of(test: &str) -> Option<&'static str> {
        let start = format!("fn {test}()");
        let rest = SOURCES.iter().find_map(|source| source.split_once(&start))?.1;
        Some(rest.split("#[pg_test]").next().unwrap_or(rest))
    }

    /// Every C function of the extension by its Rust name, with its names in SQL.
    fn c_functions() -> BTreeMap<String, Vec<String>> {
        let query = "SELECT DISTINCT regexp_replace(p.prosrc, '_wrapper$', ''), p.proname::text
            FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
            JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_billing'
            WHERE p.pronamespace <> 'tests'::regnamespace";
        let mut functions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        Spi::connect(|client| {
            for row in client.select(query, None, &[]).unwrap() {
                let rust = row.get::<String>(1).unwrap().unwrap();
                functions.entry(rust).or_default().push(row.get::<String>(2).unwrap().unwrap());
            }
        });
        functions
    }

    /// The catalogue's C functions are those of the register: one without a test fails here, and so does a
    /// test that is gone or does not name the function.
    #[pg_test]
    fn every_function_has_a_test() {
        let functions = c_functions();
        let registered: BTreeSet<&str> =
            REGISTER.iter().flat_map(|(_, covers)| covers.iter().copied()).collect();
        let known: BTreeSet<&str> = functions.keys().map(String::as_str).collect();
        let untested: Vec<_> = known.difference(&registered).collect();
        assert!(untested.is_empty(), "functions without a test: {untested:?}");
        let gone: Vec<_> = registered.difference(&known).collect();
        assert!(gone.is_empty(), "the register names functions that are not there: {gone:?}");
        for (test, covers) in REGISTER {
            assert!(
                crate::testing::holds(&format!("SELECT to_regproc('tests.{test}') IS NOT NULL")),
                "{test}"
            );
            let body = body_of(test).unwrap_or_else(|| panic!("no file has the test {test}"));
            let words: BTreeSet<&str> = body.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            for function in *covers {
                let named = functions[*function].iter().any(|name| words.contains(name.as_str()));
                assert!(named, "{test} does not name {function}");
            }
        }
    }

    /// Every function written for SQL is declared in sql/ext: one that is not can't be called by anyone.
    #[pg_test]
    fn every_function_is_declared() {
        let functions = c_functions();
        for source in SOURCES {
            for after in source.split("#[pg_extern(sql = false)]").skip(1) {
                let name = after.split_once("fn ").unwrap().1;
                let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap()];
                assert!(functions.contains_key(name), "{name} is not declared");
            }
        }
    }
}
