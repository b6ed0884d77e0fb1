//! What went wrong, for a person: a stable code, the fact with its value, and what helps.

use std::fmt;

/// Our SQLSTATE classes. Raised by the SQL facades with exactly these five characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// ZB001: a key, number or id names nothing.
    Unknown,
    /// ZB002: a key names more than one thing.
    Ambiguous,
    /// ZB003: a document breaks its form; the message starts with the JSON path.
    Document,
    /// ZB004: an argument has a value that can't be used.
    Value,
    /// ZB005: the thing is in a state that does not allow this.
    State,
    /// ZB006: two live usage charges of one meter can match one event.
    ChargeOverlap,
    /// ZB007: a quantity can't be rated (no matching price, above the last step, negative on tiers).
    Unrated,
    /// ZB008: an event was refused.
    EventRejected,
    /// ZB009: an event id came again with other content.
    EventConflict,
    /// ZB010: a documented bound was exceeded.
    Bound,
    /// ZB011: amounts of different currencies were mixed.
    Currency,
    /// ZB012: the clock of a live installation can't be moved for good.
    Clock,
}

impl Code {
    /// The SQLSTATE.
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Code::Unknown => "ZB001",
            Code::Ambiguous => "ZB002",
            Code::Document => "ZB003",
            Code::Value => "ZB004",
            Code::State => "ZB005",
            Code::ChargeOverlap => "ZB006",
            Code::Unrated => "ZB007",
            Code::EventRejected => "ZB008",
            Code::EventConflict => "ZB009",
            Code::Bound => "ZB010",
            Code::Currency => "ZB011",
            Code::Clock => "ZB012",
        }
    }
}

/// One refusal. `message` says what is wrong with the value in it, `hint` the thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), detail: None, hint: None }
    }

    /// A fault of a document at a JSON path, e.g. `prices[0].tiers[1].up_to: …`.
    pub fn document(path: &str, message: impl fmt::Display) -> Self {
        let place = if path.is_empty() { "document" } else { path };
        Fault::new(Code::Document, format!("{place}: {message}"))
    }

    /// The same fault of a part, as one of the whole document: its path begins with the part's.
    pub fn inside(self, path: &str) -> Self {
        let dot = if path.is_empty() || self.message.starts_with('[') { "" } else { "." };
        Fault { message: format!("{path}{dot}{}", self.message), ..self }
    }

    pub fn value(message: impl Into<String>) -> Self {
        Fault::new(Code::Value, message)
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
