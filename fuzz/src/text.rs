//! Texts out of a fuzzer's bytes, and what they are woven of.

use crate::Target;

/// The words every JSON document is made of, and values that are hard on readers.
const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "-0",
    "0.1",
    "1e9",
    "1e-400",
    "1E+99999999999",
    "9999999999999999999999999999",
    "99999999999999999999999999999999",
    "0.000000000001",
    "\"\"",
    "\"a\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\u{feff}",
    "é",
    "\u{1f600}",
    "\u{202e}",
    " ",
    "\n",
    "\t",
    "\"1\"",
    "\"-1\"",
    "\"0.5\"",
    "\"100\"",
    "\"NaN\"",
    "\"Infinity\"",
    "NaN",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[",
    "]]]]]]]]",
    "{\"a\":{\"a\":{\"a\":",
    "}}}",
    "\"x\":",
    "\"key\":\"k\"",
    "[{",
    "}]",
    "},{",
    "\",\"",
    "\":\"",
];

pub const EVENT_WORDS: &[&str] = &[
    "\"customer\":\"acme\"",
    "\"event_id\":\"e1\"",
    "\"event_type\":\"llm\"",
    "\"occurred_at\":\"2026-01-01T00:00:00Z\"",
    "\"properties\":{",
    "\"bill_to\":\"unit\"",
    "\"input\":1000",
    "\"output\":2.5",
    "\"model\":\"gpt-4\"",
    "\"user\":\"u\"",
    "\"region\":null",
    "\"customer\":",
    "\"occurred_at\":",
    "\"bill_to\":null",
    "\"properties\":",
    "\"input\":\"5\"",
    // those of other systems
    "\"events\":[",
    "\"event\":{",
    "\"timestamp\":1651240791",
    "\"timestamp\":99999999999999999999",
    "\"timestamp\":-62135596801",
    "\"timestamp\":\"1651240791.123456\"",
    "\"timestamp\":1e300",
    "\"timestamp\":0.5",
    "\"specversion\":\"1.0\"",
    "\"data\":{",
    "\"data_base64\":\"e30=\"",
    "\"payload\":{",
    "\"subject\":\"acme\"",
    "\"source\":\"/a b\"",
    "\"time\":null",
    "\"identifier\":\"i\"",
    "\"stripe_customer_id\":\"c\"",
    "\"value\":\"10.50\"",
    "\"transaction_id\":\"t\"",
    "\"code\":\"llm\"",
];

pub const EVENTS: &[&str] = &[
    r#"{"customer":"acme","event_id":"e1","event_type":"llm","occurred_at":"2026-01-01T00:00:00Z","properties":{"model":"gpt-4","input":1000,"output":2.50,"user":"u1","nested":{"deep":[1,2,{"x":null}]}}}"#,
    r#"[{"customer":"acme","event_id":"e1","event_type":"llm","occurred_at":"2026-01-01T05:30:00.123456+05:30","bill_to":"unit","properties":{"input":1}},{"customer":"b","event_id":"e2","event_type":"llm","occurred_at":"2025-12-31T23:59:60Z"}]"#,
    "[]",
];

pub const CLOUDEVENTS: &[&str] = &[
    r#"{"specversion":"1.0","type":"llm","source":"/gateway/eu-1","subject":"acme","id":"A234-1234-1234","time":"2026-03-01T17:31:00+02:00","datacontenttype":"application/json; charset=utf-8","traceparent":"00-0af7","billto":"labs","data":{"model":"gpt-4","input":812,"cost":0.25}}"#,
];

pub const STRIPE_EVENTS: &[&str] = &[
    r#"{"object":"billing.meter_event","created":1704824589,"event_name":"llm","identifier":"identifier_123","livemode":true,"payload":{"value":"25","stripe_customer_id":"cus_NciAYcXfLnqBoz","model":"v1.10","region":"007"},"timestamp":1680210639}"#,
    r#"{"events":[{"object":"v2.billing.meter_event","created":"2024-06-01T12:10:00.000Z","livemode":false,"identifier":"idmp_12345678","event_name":"llm","timestamp":"2024-06-01T12:00:00.000Z","payload":{"stripe_customer_id":"cus_12345678","value":"10.50"}}]}"#,
];

pub const ORB_EVENTS: &[&str] = &[
    r#"{"events":[{"event_name":"llm","idempotency_key":"f-1","timestamp":"2020-12-09T16:09:53Z","external_customer_id":"acme","customer_id":null,"properties":{"region":"us-east-1","input":3.50,"count":"12"}}]}"#,
];

pub const METRONOME_EVENTS: &[&str] = &[
    r#"[{"transaction_id":"2021-01-01T00:00:00Z_cluster42","customer_id":"team@example.com","event_type":"llm","timestamp":"2021-01-01T00:00:00Z","properties":{"cluster_id":"42","input":"60","bytes":"1024.5","version":"1.10","zone":"e1","nested":{"n":"1"}}}]"#,
];

pub const LAGO_EVENTS: &[&str] = &[
    r#"{"event":{"transaction_id":"transaction_1234567890","external_subscription_id":"sub_1234567890","code":"llm","timestamp":1651240791,"precise_total_amount_cents":"1234.50","properties":{"input":10,"seats":"3"}}}"#,
];

pub const EXPRESSION_WORDS: &[&str] = &[
    "+",
    "-",
    "*",
    "/",
    "(",
    ")",
    ",",
    ".",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "min(",
    "max(",
    "coalesce(",
    "round(",
    "if(",
    "input",
    "output",
    "usage.input_tokens",
    "\"odd name\"",
    "'text'",
    "''",
    "'",
    "\"",
    "0",
    "12",
    "0.5",
    "1e3",
    "9999999999999999999999999999",
    "-",
    "((((((((",
    "))))))))",
    ", 0)",
    ", 12)",
    "model",
    "nested.deep",
    " ",
    "user",
];

pub const EXPRESSIONS: &[&str] = &[
    "input + output",
    "round(input / 1000, 2) * 0.5 - coalesce(output, 0)",
    "if(model = 'gpt-4', max(input, output, 1), min(-input, 2))",
    "if(round(input / 3, 12) <> 1, \"odd name\".part, -(-5))",
];

pub const METER_WORDS: &[&str] = &[
    "\"key\":\"m\"",
    "\"event_type\":\"llm\"",
    "\"aggregation\":\"sum\"",
    "\"aggregation\":\"count\"",
    "\"aggregation\":\"max\"",
    "\"aggregation\":\"unique_count\"",
    "\"aggregation\":\"percentile\"",
    "\"aggregation\":\"weighted_sum\"",
    "\"aggregation\":\"compound\"",
    "\"percentile\":\"99.9\"",
    "\"per\":{",
    "\"bucket\":\"hour\"",
    "\"weighting\":\"period\"",
    "\"of\":{",
    "\"of\":[",
    "\"numerator\":\"a\"",
    "\"denominator\":\"b\"",
    "\"places\":2",
    "\"meter\":\"a\"",
    "\"factor\":\"-1\"",
    "\"rounding\":",
    "\"operation\":\"op\"",
    "\"filters\":[",
    "\"value\":\"input + output\"",
    "\"filter\":{",
    "\"dimensions\":[\"model\"]",
    "\"unit\":\"token\"",
    "\"model\":",
    "\"gt\":",
    "\"gte\":",
    "\"lt\":",
    "\"lte\":",
    "\"ne\":",
    "\"eq\":",
    "\"prefix\":",
    "\"exists\":",
    "[\"eu\",\"us\"]",
    "\"usage.input\":",
    "\"\\\"odd\\\"\":",
    "\"aggregation\":",
];

pub const FILTERS: &[&str] = &[
    r#"{"model":"gpt-4","region":["eu","us",1,true],"usage.input_tokens":{"gte":1000,"lt":5000.5},"test":{"exists":false},"name":{"prefix":"a","ne":"ab"}}"#,
    r#"{"\"odd.key\"":{"eq":1.0}}"#,
];

pub const METERS: &[&str] = &[
    r#"{"key":"tokens","event_type":"llm","aggregation":"sum","value":"input + output","filter":{"model":["a","b"]},"dimensions":["model","nested.deep"],"unit":"token"}"#,
    r#"{"key":"users","event_type":"llm","aggregation":"unique_count","value":"user"}"#,
    r#"{"key":"requests","event_type":"llm","aggregation":"count"}"#,
    r#"{"key":"peak","event_type":"llm","aggregation":"max","value":"output"}"#,
    r#"{"key":"hosts-p99","event_type":"llm","aggregation":"percentile","percentile":"99","per":{"bucket":"hour","aggregation":"max"},"value":"input","unit":"host"}"#,
    r#"{"key":"storage-mean","event_type":"llm","aggregation":"weighted_sum","weighting":"period","value":"input","unit":"gb"}"#,
    r#"{"key":"latest","event_type":"llm","aggregation":"latest","value":"input"}"#,
];

pub const PRICING_WORDS: &[&str] = &[
    "\"model\":\"flat\"",
    "\"model\":\"per_unit\"",
    "\"model\":\"graduated\"",
    "\"model\":\"volume\"",
    "\"model\":\"stairstep\"",
    "\"model\":\"package\"",
    "\"model\":\"percentage\"",
    "\"model\":\"graduated_percentage\"",
    "\"model\":\"matrix\"",
    "\"model\":\"dynamic\"",
    "\"amount\":\"1.5\"",
    "\"unit_price\":\"0.03\"",
    "\"per\":1000",
    "\"per\":\"0.001\"",
    "\"tiers\":[",
    "\"up_to\":\"10\"",
    "\"up_to\":null",
    "\"flat_fee\":\"1\"",
    "\"package_size\":\"100\"",
    "\"minimum_one_package\":true",
    "\"rate\":\"2.9\"",
    "\"fixed\":\"0.3\"",
    "\"free_events\":1",
    "\"free_amount\":\"5\"",
    "\"per_event_minimum\":\"0.1\"",
    "\"per_event_maximum\":\"9\"",
    "\"dimensions\":[\"model\"]",
    "\"rows\":[",
    "\"match\":{",
    "\"pricing\":{",
    "\"amount_property\":\"cost\"",
    "\"multiplier\":\"1.2\"",
    "\"free_units\":\"10\"",
    "\"minimum\":\"5\"",
    "\"maximum\":\"50\"",
    "\"first_flat_at_zero\":true",
    "\"unit_price_floor\":\"0.01\"",
];

pub const PRICINGS: &[&str] = &[
    r#"{"model":"flat","amount":"10"}"#,
    r#"{"model":"per_unit","unit_price":"0.03","per":1000,"free_units":"100","minimum":"1","maximum":"500"}"#,
    r#"{"model":"graduated","tiers":[{"up_to":"10","unit_price":"0.1","flat_fee":"1"},{"unit_price":"0.05"}]}"#,
    r#"{"model":"volume","tiers":[{"up_to":"10","unit_price":"0.1"},{"up_to":"100.5","unit_price":"0.05"},{"unit_price":"0.01"}]}"#,
    r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"1"},{"up_to":"20","amount":"2"}]}"#,
    r#"{"model":"package","package_size":"100","amount":"7.5","minimum_one_package":true}"#,
    r#"{"model":"percentage","rate":"2.9","fixed":"0.30","free_events":2,"per_event_minimum":"0.5","per_event_maximum":"5"}"#,
    r#"{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"2.9"},{"rate":"2.5"}]}"#,
    r#"{"model":"matrix","dimensions":["model","region"],"rows":[{"match":{"model":"a"},"unit_price":"1"},{"match":{},"pricing":{"model":"graduated","tiers":[{"unit_price":"2"}]}}]}"#,
    r#"{"model":"dynamic","amount_property":"cost","multiplier":"1.2"}"#,
];

pub const CATALOGUE_WORDS: &[&str] = &[
    "\"products\":[",
    "\"meters\":[",
    "\"price_books\":[",
    "\"prices\":[",
    "\"plans\":[",
    "\"name\":\"N\"",
    "\"currency\":\"USD\"",
    "\"pricing\":{\"model\":\"per_unit\",\"unit_price\":\"1\"}",
    "\"meter\":\"tokens\"",
    "\"price\":\"tokens\"",
    "\"price_book\":\"list\"",
    "\"billing\":{",
    "\"interval\":\"1 month\"",
    "\"alignment\":\"calendar\"",
    "\"net_days\":30",
    "\"charges\":[",
    "\"fees\":[",
    "\"product\":\"ai\"",
    "\"lines_by\":[\"model\"]",
    "\"valid_from\":\"2026-01-01T00:00:00Z\"",
    "\"retired\":true",
    "\"customer\":\"acme\"",
    "\"starts_on\":\"2026-01-01\"",
    "\"term\":\"1 year\"",
    "\"plan\":\"pro\"",
    "\"prices\":\"pin\"",
    "\"overrides\":[",
    "\"match\":{\"model\":\"a\"}",
    "\"unit_price\":\"0.01\"",
    "\"percent_off\":\"10\"",
    "\"from\":\"2026-01-01\"",
    "\"until\":\"2026-02-01\"",
    "\"stackable\":true",
    "\"remove\":true",
    "\"amount\":\"10\"",
    "\"timing\":\"advance\"",
    "\"quantity\":\"1\"",
    "\"time_zone\":\"UTC\"",
    "\"seller\":\"default\"",
    "\"bill_to\":\"unit\"",
    "\"event_type\":\"llm\"",
    "\"aggregation\":\"count\"",
    "\"every\":\"1 year\"",
    "\"proration\":\"daily\"",
];

pub const CATALOGUES: &[&str] = &[
    r#"{"products":[{"key":"ai","name":"AI"}],"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"input","dimensions":["model"]}],"price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.03","per":1000}}]}],"plans":[{"key":"pro","name":"Pro","currency":"USD","price_book":"list","billing":{"interval":"1 month","alignment":"calendar","net_days":30},"charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens","lines_by":["model"]}],"fees":[{"key":"base","product":"ai","pricing":{"model":"flat","amount":"99"}}]}]}"#,
];

pub const PLANS: &[&str] = &[
    r#"{"key":"pro","name":"Pro","currency":"USD","price_book":"list","billing":{"interval":"1 month","alignment":"anniversary","net_days":30},"charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens","lines_by":["model"]}],"fees":[{"key":"base","product":"ai","pricing":{"model":"flat","amount":"99"}}]}"#,
];

pub const CONTRACTS: &[&str] = &[
    r#"{"key":"acme-1","customer":"acme","starts_on":"2026-01-31","term":"1 year","plan":"pro","prices":"pin","overrides":[{"meter":"tokens","match":{"model":"a"},"percent_off":"10","from":"2026-01-01","until":"2026-06-01"}],"charges":[{"key":"tokens","product":"ai","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}],"fees":[{"key":"base","remove":true}]}"#,
];

pub const OVERRIDES: &[&str] = &[
    r#"[{"meter":"tokens","match":{"model":"a"},"unit_price":"0.02"},{"charge":"c","percent_off":"10","stackable":true},{"meter":"m","pricing":{"model":"flat","amount":"1"},"from":"2026-01-01","until":"2026-02-01"}]"#,
];

pub const PARTY_WORDS: &[&str] = &[
    "\"name\":\"Acme\"",
    "\"seller\":\"default\"",
    "\"currency\":\"EUR\"",
    "\"time_zone\":\"Asia/Kolkata\"",
    "\"aliases\":[\"a\"]",
    "\"attributes\":{",
    "\"bill_tos\":[",
    "\"contacts\":[",
    "\"overrides\":[",
    "\"address\":{",
    "\"tax_ids\":[",
    "\"role\":\"billing\"",
    "\"email\":\"a@b.example\"",
    "\"country\":\"DE\"",
    "\"line1\":\"Street 1\"",
    "\"city\":\"Berlin\"",
    "\"postal_code\":\"10115\"",
    "\"fiscal_year_start\":1",
    "\"invoice_series\":\"INV\"",
    "\"bank_accounts\":[",
    "\"holder\":\"H\"",
    "\"details\":{",
    "\"type\":\"eu_vat\"",
    "\"value\":\"DE1\"",
];

pub const CUSTOMERS: &[&str] = &[
    r#"{"key":"acme","name":"Acme","seller":"default","currency":"EUR","time_zone":"Europe/Berlin","aliases":["acme-inc"],"attributes":{"segment":"gold"},"bill_tos":[{"key":"unit","name":"Unit","address":{"country":"DE","city":"Berlin"},"tax_ids":[{"type":"eu_vat","value":"DE123456789"}],"email":"a@b.example"}],"contacts":[{"role":"billing","name":"B","email":"b@acme.example"}]}"#,
];

pub const SELLERS: &[&str] = &[
    r#"{"key":"default","name":"Seller","currency":"USD","time_zone":"UTC","fiscal_year_start":4,"invoice_series":"INV","address":{"country":"US"},"tax_ids":[],"bank_accounts":[{"key":"main","currency":"USD","holder":"Seller","details":{"iban":"X"}}]}"#,
];

pub const INVOICE_WORDS: &[&str] = &[
    "\"number\":\"INV-1\"",
    "\"lines\":[",
    "\"totals\":{",
    "\"total\":\"1\"",
    "\"amount\":\"1\"",
    "\"quantity\":\"3\"",
    "\"charge\":\"tokens\"",
    "\"kind\":\"usage\"",
    "\"period\":{",
    "\"starts_on\":\"2026-01-01\"",
    "\"ends_on\":\"2026-02-01\"",
    "\"pricing\":{",
    "\"inputs\":{",
    "\"currency\":\"USD\"",
    "\"dimensions\":{",
    "\"meter\":\"m\"",
    "\"key\":\"a\"",
    "\"explanation\":[",
    "\"steps\":[",
];

/// As they are written: see `tests/corpus`, where whole invoices lie.
pub const INVOICES: &[&str] = &["{\"lines\":[]}"];

pub const NUMBER_WORDS: &[&str] = &[
    "0",
    "1",
    "9",
    ".",
    "-",
    "+",
    "e",
    "E",
    "00",
    "000000000000",
    "9999999999999999999999999999",
    "1e28",
    "1e-28",
    "e999999999999",
    " ",
    "USD",
    "tokens",
    "NaN",
    "Infinity",
    "٣",
    "_",
    "1,000",
    "0x1",
    "\u{a0}",
];

pub const TIME_WORDS: &[&str] = &[
    "0",
    "1",
    "2",
    "9",
    "-",
    ":",
    "T",
    "t",
    "Z",
    "z",
    ".",
    "+",
    "2026",
    "-02-29",
    "T24:00:00",
    "23:59:60",
    "+05:30",
    "-23:59",
    "+24:00",
    "0000",
    "9999",
    "-0001",
    " ",
    "month",
    "months",
    "year",
    "week",
    "day",
    "s",
    "999999999",
    "１",
    "infinity",
    "-12-31",
];

pub const TIMES: &[&str] = &[
    "2026-01-01T00:00:00Z",
    "2024-02-29T23:59:59.999999+05:30",
    "0001-01-01T00:00:00-14:00",
    "9999-12-31T23:59:60+12:00",
    "2024-02-29",
];

/// Stored states, in hexadecimal: a count, a sum, an empty maximum, a maximum, two distinct keys.
pub const STATES: &[&str] = &[
    "01000000000000000005",
    "010100000000000000000000000000000001000000746a528800",
    "0102",
    "01020000000000000000000000000000000f01",
    "010300000000000000000000000000000001ffffffffffffffffffffffffffffffff",
];

/// A text of these bytes. The first byte says how: 1 weaves words, 2 to 9 breaks a good text, all others (the committed
/// corpus among them) are the text itself. It has no zero characters, as no text from Postgres has: only escapes hold them.
pub fn woven(target: &Target, bytes: &[u8]) -> String {
    let mut text = raw_text(target, bytes);
    if text.contains('\0') {
        text = text.replace('\0', "\u{1}");
    }
    text
}

fn raw_text(target: &Target, bytes: &[u8]) -> String {
    let word = |byte: u8| -> &'static str {
        let own = target.words.len();
        let all = own + JSON_WORDS.len();
        let at = usize::from(byte) % all;
        if at < own { target.words[at] } else { JSON_WORDS[at - own] }
    };
    match bytes {
        [1, rest @ ..] => rest.iter().map(|byte| word(*byte)).collect(),
        [2..=9, which, edits @ ..] if !target.good.is_empty() => {
            let mut text: Vec<char> = target.good[usize::from(*which) % target.good.len()].chars().collect();
            for edit in edits.chunks(5) {
                let &[high, low, take, how, what] = edit else { break };
                let at = (usize::from(high) << 8 | usize::from(low)) % (text.len() + 1);
                let end = (at + usize::from(take % 16)).min(text.len());
                let new: Vec<char> = match how % 4 {
                    0 => Vec::new(),
                    1 => vec![char::from(what)],
                    2 => word(what).chars().collect(),
                    // Something of it once more, so that repeats and nesting grow.
                    _ => text[at.saturating_sub(usize::from(what)).min(at)..end].to_vec(),
                };
                text.splice(at..end, new);
            }
            text.into_iter().collect()
        }
        text => String::from_utf8_lossy(text).into_owned(),
    }
}
