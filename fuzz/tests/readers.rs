//! One test a reader. Plain `cargo test`: the committed corpus, the good texts, and FUZZ_INPUTS inputs (default 30,000)
//! from FUZZ_SEED (default 1). With `--features search` bolero takes over (scripts/fuzz).

use pg_billing_fuzz::{TARGETS, Target, find};

#[cfg(not(feature = "search"))]
fn fixed(target: &Target) {
    use pg_billing_fuzz::Rng;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    let number = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => otherwise,
    };
    let (inputs, seed) = (number("FUZZ_INPUTS", 30_000), number("FUZZ_SEED", 1));
    let run = |what: &str, bytes: &[u8]| match catch_unwind(AssertUnwindSafe(|| target.check_bytes(bytes))) {
        Ok(read) => read,
        Err(panic) => {
            let text = pg_billing_fuzz::text::woven(target, bytes);
            eprintln!("{} fails on {what}: {}", target.name, text.escape_debug());
            resume_unwind(panic)
        }
    };
    for (n, good) in target.good.iter().enumerate() {
        assert!(run(&format!("its good text {n}"), good.as_bytes()), "{} refuses {good}", target.name);
    }
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target.name);
    let mut files: Vec<_> = ["corpus", "crashes"]
        .iter()
        .filter_map(|kind| std::fs::read_dir(corpus.join(kind)).ok())
        .flat_map(|dir| dir.flatten().map(|entry| entry.path()))
        .collect();
    files.sort();
    for file in files {
        run(&file.display().to_string(), &std::fs::read(&file).expect("a committed text"));
    }
    let (mut rng, mut read) = (Rng(seed), 0);
    for n in 0..inputs {
        let mut bytes = rng.bytes(120);
        if let Some(first) = bytes.first_mut() {
            // Woven, broken, and now and then the bytes themselves.
            *first = [1, 2, 2, 1, 2, 255][(rng.draw() % 6) as usize];
        }
        read += u64::from(run(&format!("input {n} of FUZZ_SEED={seed}"), &bytes));
    }
    println!("{}: {read} of {inputs} inputs were read", target.name);
    // A generator that no longer gets past the first character would test nothing.
    assert!(read * 200 >= inputs, "only {read} of {inputs} inputs were read");
}

macro_rules! readers {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let target: &'static Target = find(stringify!($name));
                #[cfg(feature = "search")]
                bolero::check!().for_each(|bytes: &[u8]| { target.check_bytes(bytes); });
                #[cfg(not(feature = "search"))]
                fixed(target);
            }
        )*
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

readers! {
    events cloudevents stripe_events orb_events metronome_events lago_events events_as_rows json expressions paths filters meters dimensions pricing catalogue plans contracts overrides
    customers sellers invoice_documents money decimals instants calendars words aggregate_states
}

#[test]
fn every_reader_has_its_test() {
    let missing: Vec<_> = TARGETS.iter().map(|t| t.name).filter(|name| !NAMES.contains(name)).collect();
    assert!(missing.is_empty(), "tests/readers.rs does not name {missing:?}");
}
