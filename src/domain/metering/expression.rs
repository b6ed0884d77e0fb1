//! The value of an event on a meter: a small exact expression over its properties.
//!
//! ```text
//! sum       product (("+" | "-") product)*
//! product   unary (("*" | "/") unary)*             "/" only inside the first argument of round
//! unary     "-" unary | atom
//! atom      number | property | "(" sum ")" | call
//! call      min(sum, …) | max(sum, …) | coalesce(sum, …) | round(sum, 0…12) | if(comparison, sum, sum)
//! comparison  sum op sum | property op 'text' | 'text' op property       op: = <> < <= > >=
//! property  part ("." part)*                       part: name, or "odd name" with quotes doubled
//! ```
//!
//! A comparison with a 'text' compares texts byte by byte: a string property as it is, a number or boolean
//! by its canonical text (`cached = 'true'`). All other comparisons are of numbers.
//!
//! A number is a JSON number. A JSON string that holds digits is a string: the event is refused, because
//! a sender who quotes numbers sometimes would otherwise be billed sometimes. Everything is exact: inside
//! round on fractions of any size, elsewhere on decimals of 28 digits, beyond which the event is refused.

mod evaluate;
mod parser;
#[cfg(test)]
mod tests;

use super::path::Path;
use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::json::Tree;
use std::fmt;

/// Longest expression in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1_000;
/// Deepest nesting of parentheses, calls and minus signs.
pub const EXPRESSION_DEPTH_MAX: usize = 32;
/// Most multiplications and divisions: they bound the size of a fraction inside round.
pub const EXPRESSION_FACTORS_MAX: usize = 20;
/// Most digits after the point of a usage number, and of `round`.
pub const VALUE_SCALE_MAX: u32 = 12;

/// A parsed value expression. Two that print alike are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(Term);

/// What an expression makes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluated {
    Value(Exact),
    /// A property it needs is absent or null, as SQL's NULL.
    Absent,
    /// A property it needs is there and can't be used: the event is to be refused.
    Refused(Fault),
}

/// Chains of `+ -` and of `* /` are flat, so that depth is what a person wrote as nesting.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Number(Exact),
    Property(Path),
    Negative(Box<Term>),
    /// First term, then what is added or subtracted.
    Sum(Box<Term>, Vec<(Sign, Term)>),
    /// First factor, then what it is multiplied with or divided by.
    Product(Box<Term>, Vec<(Scaling, Term)>),
    Least(Vec<Term>),
    Greatest(Vec<Term>),
    Coalesce(Vec<Term>),
    Round(Box<Term>, u32),
    If(Box<Choice>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    Times,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    condition: Condition,
    then: Term,
    otherwise: Term,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Numbers(Term, Comparison, Term),
    /// The property stands left, whichever way it was written.
    Text(Path, Comparison, String),
}

/// An ordering that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "<>",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }

    /// The comparison with its sides exchanged.
    fn flipped(self) -> Comparison {
        match self {
            Comparison::Equal | Comparison::NotEqual => self,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        }
    }
}

impl Expression {
    /// Reads an expression. A fault names the position (in characters from 1) and what was expected.
    pub fn parse(text: &str) -> Result<Expression, Fault> {
        parser::parse(text).map(Expression)
    }

    /// The one form of this expression: [`parse`](Expression::parse) reads it back to an equal one.
    pub fn canonical(&self) -> String {
        self.0.to_string()
    }

    /// The path, if the expression is nothing but a property.
    pub fn as_property(&self) -> Option<&Path> {
        match &self.0 {
            Term::Property(path) => Some(path),
            _ => None,
        }
    }

    /// The value for an event with these properties: at most 28 digits, 12 of them decimals.
    ///
    /// An absent or null property makes everything around it absent, min and max included, up to a
    /// coalesce, or an if whose taken branch does not need it. A comparison with an absent side is not
    /// true. Branches that are not taken are not looked at.
    pub fn evaluate(&self, properties: &Tree<'_>) -> Evaluated {
        evaluate::evaluate(&self.0, properties)
    }
}

/// How tightly a printed term binds: sum, product, then all others.
fn binding(term: &Term) -> u8 {
    match term {
        Term::Sum(..) => 0,
        Term::Product(..) => 1,
        _ => 2,
    }
}

/// Prints a term that must bind at least so tightly, in parentheses if it does not.
fn write_bound(f: &mut fmt::Formatter<'_>, term: &Term, least: u8) -> fmt::Result {
    if binding(term) < least { write!(f, "({term})") } else { write!(f, "{term}") }
}

fn write_call(f: &mut fmt::Formatter<'_>, name: &str, arguments: &[Term]) -> fmt::Result {
    write!(f, "{name}(")?;
    for (i, argument) in arguments.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        write!(f, "{separator}{argument}")?;
    }
    f.write_str(")")
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Number(number) => write!(f, "{number}"),
            Term::Property(path) => write!(f, "{path}"),
            Term::Negative(term) => {
                f.write_str("-")?;
                // A minus before a bare number would be read as part of it.
                match **term {
                    Term::Number(number) if !number.is_negative() => write!(f, "({number})"),
                    _ => write_bound(f, term, 2),
                }
            }
            Term::Sum(first, rest) => {
                write_bound(f, first, 1)?;
                for (sign, term) in rest {
                    f.write_str(if *sign == Sign::Plus { " + " } else { " - " })?;
                    write_bound(f, term, 1)?;
                }
                Ok(())
            }
            Term::Product(first, rest) => {
                write_bound(f, first, 2)?;
                for (scaling, term) in rest {
                    f.write_str(if *scaling == Scaling::Times { " * " } else { " / " })?;
                    write_bound(f, term, 2)?;
                }
                Ok(())
            }
            Term::Least(arguments) => write_call(f, "min", arguments),
            Term::Greatest(arguments) => write_call(f, "max", arguments),
            Term::Coalesce(arguments) => write_call(f, "coalesce", arguments),
            Term::Round(term, places) => write!(f, "round({term}, {places})"),
            Term::If(choice) => {
                write!(f, "if({}, {}, {})", choice.condition, choice.then, choice.otherwise)
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Numbers(left, comparison, right) => {
                write!(f, "{left} {} {right}", comparison.symbol())
            }
            Condition::Text(path, comparison, text) => {
                write!(f, "{path} {} '{}'", comparison.symbol(), text.replace('\'', "''"))
            }
        }
    }
}
