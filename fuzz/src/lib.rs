//! What must hold for every text the product reads from outside, however broken: no panic, memory in proportion to
//! the text, and what was read and printed reads back as the same. A reader is one line of [`TARGETS`].
//!
//! `text::woven` makes texts that get past a parser's first character out of the bytes of a fuzzer; `memory` counts
//! what a reading takes; `checks` holds the properties.

pub mod checks;
pub mod memory;
pub mod text;

// Every test binary needs libfuzzer's part of the instrumentation, also this library's, which has no tests.
#[cfg(feature = "search")]
use bolero as _;
use checks as c;
use pg_billing::domain::ingestion::Format;

/// One reader of outside text.
pub struct Target {
    pub name: &'static str,
    /// What to weave texts of, beside the words of JSON.
    pub words: &'static [&'static str],
    /// Good texts, to be broken.
    pub good: &'static [&'static str],
    pub check: fn(&str) -> bool,
    /// Bytes that reading one byte may take, at most.
    pub bytes_per_byte: usize,
}

const fn target(
    name: &'static str,
    words: &'static [&'static str],
    good: &'static [&'static str],
    check: fn(&str) -> bool,
) -> Target {
    Target { name, words, good, check, bytes_per_byte: 4_000 }
}

/// Every reader. A new one is a line here and its name in `tests/readers.rs`, which has one test for each.
pub const TARGETS: &[Target] = &[
    target("events", text::EVENT_WORDS, text::EVENTS, |text| c::events(Format::Native, text)),
    target("cloudevents", text::EVENT_WORDS, text::CLOUDEVENTS, |text| c::events(Format::CloudEvents, text)),
    target("stripe_events", text::EVENT_WORDS, text::STRIPE_EVENTS, |text| c::events(Format::Stripe, text)),
    target("orb_events", text::EVENT_WORDS, text::ORB_EVENTS, |text| c::events(Format::Orb, text)),
    target("metronome_events", text::EVENT_WORDS, text::METRONOME_EVENTS, |text| {
        c::events(Format::Metronome, text)
    }),
    target("lago_events", text::EVENT_WORDS, text::LAGO_EVENTS, |text| c::events(Format::Lago, text)),
    target("events_as_rows", text::EVENT_WORDS, text::EVENTS, c::events_as_rows),
    target("json", &[], text::EVENTS, c::json),
    target("expressions", text::EXPRESSION_WORDS, text::EXPRESSIONS, c::expressions),
    target(
        "paths",
        text::EXPRESSION_WORDS,
        &["model", "usage.input_tokens", "\"odd \"\"name\".part"],
        c::paths,
    ),
    target("filters", text::METER_WORDS, text::FILTERS, c::filters),
    target("meters", text::METER_WORDS, text::METERS, c::meters),
    target("dimensions", text::METER_WORDS, &["{\"model\":\"gpt-4\",\"n\":1.50,\"b\":true}"], c::dimensions),
    target("pricing", text::PRICING_WORDS, text::PRICINGS, c::pricing),
    target("catalogue", text::CATALOGUE_WORDS, text::CATALOGUES, c::catalogue),
    target("plans", text::CATALOGUE_WORDS, text::PLANS, c::plans),
    target("contracts", text::CATALOGUE_WORDS, text::CONTRACTS, c::contracts),
    target("overrides", text::CATALOGUE_WORDS, text::OVERRIDES, c::overrides),
    target("customers", text::PARTY_WORDS, text::CUSTOMERS, c::customers),
    target("sellers", text::PARTY_WORDS, text::SELLERS, c::sellers),
    target("invoice_documents", text::INVOICE_WORDS, text::INVOICES, c::invoice_documents),
    target("money", text::NUMBER_WORDS, &["12.34 USD", "-0.10 tokens", "1e3 EUR"], c::money),
    target(
        "decimals",
        text::NUMBER_WORDS,
        &["12.340", "-0.0", "9999999999999999999999999999", "1e-12"],
        c::decimals,
    ),
    target("instants", text::TIME_WORDS, text::TIMES, c::instants),
    target(
        "calendars",
        text::TIME_WORDS,
        &["1 month", "12 months", "1 year", "2 weeks", "calendar", "1 day"],
        c::calendars,
    ),
    target("words", &[], &["half_up", "half_even", "line", "invoice", "day", "30_actual"], c::words),
    target("aggregate_states", &[], text::STATES, c::aggregate_states),
];

/// The reader of this name.
pub fn find(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

impl Target {
    /// Checks what these bytes weave; whether it was read.
    pub fn check_bytes(&self, bytes: &[u8]) -> bool {
        self.check_text(&text::woven(self, bytes))
    }

    /// Checks one text, and what reading it took; whether it was read.
    pub fn check_text(&self, text: &str) -> bool {
        let (read, took) = memory::peak_of(|| (self.check)(text));
        let may = FIXED_BYTES + text.len() * self.bytes_per_byte;
        assert!(took <= may, "{} bytes took {took} bytes of memory, more than {may}", text.len());
        read
    }
}

/// What a check may take whatever the text: the fixtures it reads against.
const FIXED_BYTES: usize = 1 << 20;

/// splitmix64: the same numbers for a seed everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Up to `most` bytes, short ones more often.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = (self.draw() as usize % most.max(1)) >> (self.draw() % 4);
        (0..length).map(|_| self.draw() as u8).collect()
    }
}
