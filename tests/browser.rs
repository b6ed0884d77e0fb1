//! The customer's page in a browser: Chromium lays it out at four widths, light and dark, and says what a reader sees.
//! That is compared with SQL (invoices, spend, previews), and nothing may overlap, stick out, be pale or run.
//!
//! scripts/browser finds or installs Chromium, names it in CHROMIUM and runs this; it says so where there is none.

mod common;

use common::{Address, Db, pg_program, run};
use postgres::Client;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const CUSTOMERS: [&str; 5] = ["acme", "nova", "blank", "hostile", "olive"];

/// What `tests/browser/look.html` says of a page.
fn look(directory: &Path, page: &str, dark: bool) -> Value {
    let chromium = std::env::var("CHROMIUM").expect("CHROMIUM names the browser: run scripts/browser");
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    let file = directory.join("look.html");
    std::fs::write(&file, include_str!("browser/look.html").replace("PAGE", &quoted)).expect("a file");
    let output = run(Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1500,3000",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", file.display())));
    let dom = String::from_utf8(output.stdout).expect("UTF-8");
    let said = dom.split_once("<pre id=\"said\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let said = said.unwrap_or_else(|| panic!("no answer in {dom:.2000}")).0;
    let said = said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said:.2000}"))
}

/// Rows of texts, as the page's tables are.
fn rows(said: &Value) -> Vec<Vec<String>> {
    let row = |row: &Value| {
        let cells = row.as_array().expect("a row").iter();
        cells.map(|cell| cell.as_str().expect("a text").to_owned()).collect()
    };
    said.as_array().expect("rows").iter().map(row).collect()
}

fn asked(client: &mut Client, query: &str) -> Vec<Vec<String>> {
    let rows = client.query(query, &[]).unwrap_or_else(|e| panic!("{query}: {e:?}"));
    rows.iter().map(|row| (0..row.len()).map(|n| row.get::<_, String>(n)).collect()).collect()
}

/// Money as the page writes it, in SQL.
fn money(amount: &str, currency: &str) -> String {
    format!("{currency} || ' ' || replace(to_char({amount}, 'FM999,999,999,990.00'), '-', '−')")
}

#[test]
fn the_page_shows_what_sql_says_and_fits() {
    let db = Db::fresh("browser");
    run(pg_program("psql")
        .args(Address::main().arguments())
        .args(["-X", "-q", "-d", &db.name, "-f", "tests/browser/seed.sql"])
        .current_dir(common::checkout())
        .env("PGTZ", "UTC"));
    let mut client = db.connect();
    let directory = common::checkout().join("target/browser");
    std::fs::create_dir_all(&directory).expect("a directory");
    let mut faults = Vec::new();
    for customer in CUSTOMERS {
        let page: String =
            client.query_one("SELECT billing.customer_page($1)", &[&customer]).expect("a page").get(0);
        std::fs::write(directory.join(format!("{customer}.html")), &page).expect("a file");
        for dark in [false, true] {
            let said = look(&directory, &page, dark);
            assert_eq!(said["dark"], dark, "{customer}");
            assert_eq!(
                (&said["title"], &said["lang"], &said["scripts"]),
                (&"untouched".into(), &"en".into(), &0.into())
            );
            let found = said["faults"].as_array().expect("faults").iter();
            faults.extend(found.map(|fault| format!("{customer}, dark {dark}: {fault}")));
            if !dark {
                compare(&mut client, customer, &said);
                compare_promises(&mut client, customer, &said);
                if customer == "olive" {
                    by_hand(&said);
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

fn compare(client: &mut Client, customer: &str, said: &Value) {
    let id = format!("(SELECT customer_id FROM billing.customer WHERE key = '{customer}')");
    // Invoices, as they were issued
    let invoices = asked(
        client,
        &format!(
            "SELECT number, to_char(issued_on, 'FMDD Mon YYYY'), to_char(due_on, 'FMDD Mon YYYY'),
                {} || CASE WHEN credits_applied <> 0 THEN ' credit ' || {} ELSE '' END, {}, CASE WHEN state = 'open' AND due_on < '2026-03-14' THEN 'Overdue' ELSE initcap(state) END
             FROM billing.invoice WHERE customer_id = {id} ORDER BY issued_on DESC, number DESC",
            money("total", "currency"),
            money("credits_applied", "currency"),
            money("total - credits_applied", "currency")
        ),
    );
    assert_eq!(rows(&said["invoices"]), invoices, "{customer}");
    // Spend of the period, its parts and its days: what spend() says, split at the customer's midnights
    let spend = format!(
        "(SELECT s.* FROM billing.customer c, billing.contract k, billing.billing_period p,
            billing.spend(c.key, p.starts_at, p.ends_at, 'day', '{{model,charge}}') s
          WHERE c.customer_id = {id} AND k.customer_id = c.customer_id AND p.customer_id = k.customer_id AND p.contract_id = k.contract_id AND p.n = k.next_n - 1
            AND EXISTS (SELECT FROM billing.contract_charge h WHERE h.customer_id = c.customer_id AND h.charge_key = s.dimensions->>'charge')) s"
    );
    let totals = asked(
        client,
        &format!("SELECT currency, {} FROM {spend} GROUP BY currency", money("sum(amount)", "currency")),
    );
    assert_eq!(rows(&said["totals"]), totals, "{customer}");
    let parts = asked(
        client,
        &format!(
            "SELECT regexp_replace(coalesce(dimensions->>'model', initcap(dimensions->>'charge')), '\\s+', ' ', 'g'), to_char(sum(amount), 'FM999,999,990.00') FROM {spend}
             GROUP BY 1 ORDER BY sum(amount) DESC"
        ),
    );
    let shown = rows(&said["parts"]);
    assert_eq!(
        shown.iter().map(|row| &row[0]).collect::<Vec<_>>(),
        parts.iter().map(|row| &row[0]).collect::<Vec<_>>(),
        "{customer}"
    );
    let cents = |text: &String| text.replace([',', '.'], "").parse::<i64>().expect("an amount");
    // Shown parts sum to the total, so each may be a cent off its own rounding.
    for (shown, part) in shown.iter().zip(&parts) {
        assert!((cents(&shown[1]) - cents(&part[1])).abs() <= 1, "{customer}: {shown:?} {part:?}");
    }
    if let [total] = &totals[..] {
        let sum: i64 = shown.iter().map(|row| cents(&row[1])).sum();
        assert_eq!(sum, cents(&total[1][4..].to_owned()), "{customer}");
    }
    let days = asked(
        client,
        &format!(
            "SELECT to_char(s.starts_at AT TIME ZONE c.time_zone, 'FMDD Mon YYYY'), to_char(sum(s.amount), 'FM999,999,990.00') FROM {spend}, billing.customer c
             WHERE c.customer_id = {id} GROUP BY s.starts_at, c.time_zone ORDER BY s.starts_at"
        ),
    );
    assert_eq!(rows(&said["days"]), days, "{customer}");
    // The figures on top
    let cards = rows(&said["cards"]);
    let card = |title: &str| {
        cards.iter().filter(|card| card[0] == title).map(|card| card[1].clone()).collect::<Vec<_>>()
    };
    let next = asked(
        client,
        &format!(
            "SELECT {} FROM billing.contract k, billing.invoice_preview(k.key) d WHERE k.customer_id = {id} AND k.next_bill_at IS NOT NULL",
            money("(d#>>'{totals,due}')::numeric", "k.currency")
        ),
    );
    assert_eq!(card("Next invoice"), next.concat(), "{customer}");
    let open = asked(
        client,
        &format!(
            "SELECT {} FROM billing.invoice WHERE customer_id = {id} AND state = 'open' GROUP BY currency",
            money("sum(total - credits_applied)", "currency")
        ),
    );
    assert_eq!(
        card("To pay"),
        if open.is_empty() { vec!["EUR 0".to_owned()] } else { open.concat() },
        "{customer}"
    );
    let credit = asked(
        client,
        &format!(
            "SELECT CASE WHEN b.unit = 'USD' THEN {} ELSE to_char(b.available, 'FM999,999,990.999') || ' ' || b.unit END FROM billing.credit_balance('{customer}') b",
            money("b.available", "b.unit")
        ),
    );
    assert_eq!(card("Credit available"), credit.concat(), "{customer}");
    // Quotas: what entitlement_check() says
    let quotas = asked(
        client,
        &format!(
            "SELECT f.name || ' ' || to_char(e.used, 'FM999,999,999,999') || ' of ' || to_char(e.quota, 'FM999,999,999,999') || ' ' || m.unit
             FROM billing.feature f JOIN billing.meter m USING (meter_id), billing.entitlement_check('{customer}', f.key) e WHERE e.quota IS NOT NULL ORDER BY f.name"
        ),
    );
    let shown: Vec<String> = said["quotas"]
        .as_array()
        .expect("quotas")
        .iter()
        .map(|q| q.as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(
        shown.iter().filter(|q| q.contains(" of ")).cloned().collect::<Vec<_>>(),
        quotas.concat(),
        "{customer}"
    );
    if customer == "acme" {
        assert_eq!(shown.len(), 5);
        assert!(shown.contains(&"Renders 6,969.5 credits left".to_owned()), "{shown:?}");
    }
    // The lines of the next invoice are those of the preview.
    let lines = asked(
        client,
        &format!(
            "SELECT to_char((l->>'amount')::numeric, 'FM999,999,990.00') FROM billing.contract k, billing.invoice_preview(k.key) d, jsonb_array_elements(d->'lines') WITH ORDINALITY x (l, place)
             WHERE k.customer_id = {id} AND k.next_bill_at IS NOT NULL ORDER BY place"
        ),
    );
    let shown = rows(&said["lines"]);
    assert_eq!(
        shown.iter().take(lines.len()).map(|row| row[1].clone()).collect::<Vec<_>>(),
        lines.concat(),
        "{customer}"
    );
}

/// Commitments, credit and the forecast: what the functions say.
fn compare_promises(client: &mut Client, customer: &str, said: &Value) {
    let blocks = asked(
        client,
        &format!(
            "SELECT block, category || CASE standing WHEN 'live' THEN '' ELSE ', ' || replace(standing, '_', ' ') END, written(granted), written(used + pending), written(available), coalesce(to_char(expires_at AT TIME ZONE c.time_zone, 'FMDD Mon YYYY'), 'never')
             FROM billing.my_credits('{customer}') b JOIN billing.customer c ON c.key = b.customer CROSS JOIN LATERAL (SELECT b.unit AS u) x"
        )
        .replace("written(granted)", &quantity("granted"))
        .replace("written(used + pending)", &quantity("(used + pending)"))
        .replace("written(available)", &quantity("available")),
    );
    let mut shown = rows(&said["blocks"]);
    shown.sort();
    let mut blocks: Vec<_> = blocks.into_iter().collect();
    blocks.sort();
    assert_eq!(shown, blocks, "{customer}");
    // A forecast is what was spent and the usage of a day for each day left.
    let forecast = asked(
        client,
        &format!(
            "SELECT {}, {}, {} FROM billing.customer_summary('{customer}') s, jsonb_array_elements(s->'spend') x, LATERAL (SELECT x->>'currency' AS currency, (x->>'amount')::numeric AS amount, (x#>>'{{burn,per_day}}')::numeric AS burn, (x#>>'{{forecast,days_left}}')::numeric AS days) n WHERE x->'forecast' <> 'null'",
            money("amount", "currency"),
            money("burn", "currency"),
            money("round(amount + burn * days, 2)", "currency")
        ),
    );
    let facts = rows(&said["facts"]);
    let fact = |name: &str| facts.iter().filter(|f| f[0] == name).map(|f| f[1].clone()).collect::<Vec<_>>();
    if let [[amount, burn, sum]] =
        &forecast.iter().map(|row| [&row[0], &row[1], &row[2]]).collect::<Vec<_>>()[..]
    {
        assert_eq!(
            [fact("So far"), fact("Usage a day"), fact("Forecast")].concat(),
            [amount, burn, sum].map(|figure| (*figure).clone()),
            "{customer}"
        );
    }
    let commitments = asked(
        client,
        &format!(
            "SELECT {}, {} FROM billing.customer_summary('{customer}') s, jsonb_array_elements(s->'commitments') x, LATERAL (SELECT x->>'unit' AS currency) n",
            money("(x->>'consumed')::numeric", "currency"),
            money("(x->>'amount')::numeric", "currency")
        ),
    );
    let shown = said["commitments"].as_array().expect("commitments").len();
    assert_eq!(shown, commitments.len(), "{customer}");
    for (row, item) in commitments.iter().zip(rows(&said["commitments"])) {
        assert!(item[1].starts_with(&format!("{} of {}", row[0], row[1])), "{customer}: {item:?} {row:?}");
    }
}

/// A quantity of credit as the page writes it, in SQL; u is its unit.
fn quantity(amount: &str) -> String {
    format!(
        "CASE WHEN u = 'USD' THEN {} ELSE rtrim(to_char({amount}, 'FM999,999,990.999'), '.') || ' ' || u END",
        money(amount, "u")
    )
}

/// Olive's figures, worked out from its contract: 40 scans at 0.50 and 6 pages at 1.00 a day, the 1st to the 13th; it is 08:30 on
/// the 14th. Credit pays for pages only.
fn by_hand(said: &Value) {
    let money = |cents: i64| match cents / 100_000 {
        0 => format!("USD {}.{:02}", cents / 100, cents % 100),
        thousands => format!("USD {thousands},{:03}.{:02}", cents / 100 % 1000, cents % 100),
    };
    let (scans, pages) = (13 * 40 * 50, 13 * 6 * 100);
    let burn = 40 * 50 + 6 * 100;
    // 17 days and 15½ hours are left: 17.65 days, to two decimals.
    let forecast = scans + pages + burn * 1765 / 100;
    assert_eq!((forecast, burn * 1765 % 100), (79_690, 0));
    let facts = [("So far", scans + pages), ("Usage a day", burn), ("Forecast", forecast)];
    assert_eq!(rows(&said["facts"]), facts.map(|(name, n)| vec![name.to_owned(), money(n)]));
    let formula = format!(
        "Forecast = {} so far + {} of usage a day (average of the last 7 complete days) × 17.65 days left. A straight line: tiers, minimums and discounts still to come are not foreseen.",
        money(scans + pages),
        money(burn)
    );
    assert_eq!(rows(&said["formulas"]), [[formula]]);
    // The gift ends first, so it is used up; the rest is of what was bought.
    let (gift, paper) = (5_000, 20_000);
    let left = gift + paper - pages;
    assert_eq!(
        rows(&said["credits"]),
        [[
            format!("{} available", money(left)),
            format!("{} held, {} of it for usage not billed yet.", money(gift + paper), money(pages))
        ]]
    );
    assert_eq!(
        rows(&said["blocks"]),
        [
            ["gift", "promotional", &money(gift), &money(gift), &money(0), "20 Mar 2026"].map(str::to_owned),
            ["paper", "paid", &money(paper), &money(pages - gift), &money(left), "1 Mar 2027"]
                .map(str::to_owned)
        ]
    );
    // 13 days and 8½ hours of 365 days have passed.
    let (promised, half_hours, year) = (600_000, 13 * 48 + 17, 365 * 48);
    let projected = (scans * year * 2 / half_hours + 1) / 2;
    let commitment = [
        "Scans of the year minimum spend".to_owned(),
        format!("{} of {} {} %", money(scans), money(promised), scans * 100 / promised),
        format!(
            "1 Mar 2026 – 28 Feb 2027 · {} % of the time has passed (the mark) · {} to go",
            half_hours * 100 / year,
            money(promised - scans)
        ),
        format!("At this pace {} by the end: on the way to all of it.", money(projected)),
    ];
    assert_eq!(rows(&said["commitments"]), [commitment]);
    assert_eq!(said["quotas"][0], "Scans a month 520 of 1,000 scan");
}
