//! Entitlements: what a customer may use, of what plan, add-ons, contract and operator say (rules.md 9).

pub mod consumption;
pub mod fold;
pub mod gcra;
pub mod item;
pub mod limit_document;
pub mod quota;
pub mod rate_table;

/// What a feature is; fixed once it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May be used, or not.
    Boolean,
    /// Has a value, such as a size or a name.
    Static,
    /// Used up by what a meter counts.
    Metered,
    /// Used by as many as a meter says are there.
    Seat,
    /// So often in a time.
    RateLimit,
    /// While credits of a unit remain.
    Credit,
}

impl Kind {
    pub const WORDS: [&str; 6] = ["boolean", "static", "metered", "seat", "rate_limit", "credit"];
    const ALL: [Kind; 6] =
        [Kind::Boolean, Kind::Static, Kind::Metered, Kind::Seat, Kind::RateLimit, Kind::Credit];

    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        Kind::WORDS[self as usize]
    }

    /// Whether its value is a quantity, which can be unlimited.
    pub fn has_quota(self) -> bool {
        matches!(self, Kind::Metered | Kind::Seat)
    }
}
