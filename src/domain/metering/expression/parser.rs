//! Expression text to its tree: one pass, bounded, and every fault says where and what was expected.

use super::{
    Choice, Comparison, Condition, EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_FACTORS_MAX,
    Scaling, Sign, Term, VALUE_SCALE_MAX,
};
use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::metering::path::{Path, unquote};

const HINT: &str = "An expression has numbers, properties (a.b, \"odd name\"), + - * ( ), min, max, \
                    round(x, n), coalesce and if(a > b, x, y); comparisons with 'text'; / only inside round.";
const VALUE: &str = "a number, a property, a function or \"(\"";

pub(super) fn parse(text: &str) -> Result<Term, Fault> {
    let too_long = |bytes: usize, what: &str| {
        let message =
            format!("the expression has {bytes} bytes{what}; at most {EXPRESSION_BYTES_MAX} are allowed");
        Fault::new(Code::Bound, message)
    };
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(too_long(text.len(), ""));
    }
    let mut parser = Parser { text, at: 0, start: 0, token: Token::End, depth: 0, rounds: 0, factors: 0 };
    parser.advance()?;
    let term = parser.sum()?;
    match parser.token {
        // Stored is what it prints, and that is read again.
        Token::End => match term.to_string().len() {
            bytes if bytes > EXPRESSION_BYTES_MAX => {
                Err(too_long(bytes, " with a space around each operator"))
            }
            _ => Ok(term),
        },
        _ => Err(parser.expected("an operator or the end")),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'t> {
    Number(Exact),
    /// An unquoted name: a property, or a function if "(" follows.
    Name(&'t str),
    /// A name in double quotes.
    Quoted(String),
    /// 'text'.
    Text(String),
    Symbol(&'static str),
    End,
}

struct Parser<'t> {
    text: &'t str,
    /// Where the next token is looked for, and where the current one starts.
    at: usize,
    start: usize,
    token: Token<'t>,
    depth: usize,
    /// How many rounds we are inside of.
    rounds: usize,
    factors: usize,
}

impl<'t> Parser<'t> {
    fn fault(&self, message: &str) -> Fault {
        let position = self.text[..self.start].chars().count() + 1;
        Fault::value(format!("at character {position}: {message}")).with_hint(HINT)
    }

    fn expected(&self, what: &str) -> Fault {
        let found = match self.text[self.start..self.at].trim() {
            "" => "the end".to_string(),
            token => format!("`{token}`"),
        };
        self.fault(&format!("expected {what}, found {found}"))
    }

    fn advance(&mut self) -> Result<(), Fault> {
        let rest = self.text[self.at..].trim_start();
        self.start = self.text.len() - rest.len();
        self.at = self.start;
        let Some(first) = rest.chars().next() else {
            self.token = Token::End;
            return Ok(());
        };
        let (token, length) = match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                (Token::Name(&rest[..end]), end)
            }
            '0'..='9' | '.' if first != '.' || rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.number(rest)?
            }
            '"' => {
                let (name, after) = unquote(rest, '"')
                    .ok_or_else(|| self.fault("the double quote opened here is not closed"))?;
                (Token::Quoted(name), rest.len() - after.len())
            }
            '\'' => {
                let (text, after) =
                    unquote(rest, '\'').ok_or_else(|| self.fault("the quote opened here is not closed"))?;
                (Token::Text(text), rest.len() - after.len())
            }
            _ => {
                const SYMBOLS: [&str; 15] =
                    ["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")", ",", ".", "!="];
                let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
                match symbol {
                    Some("!=") => return Err(self.fault("`!=` is written `<>`")),
                    Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                    None => return Err(self.fault(&format!("`{first}` has no meaning here"))),
                }
            }
        };
        self.token = token;
        self.at = self.start + length;
        Ok(())
    }

    /// Digits, a fraction, an exponent; a letter right behind them is a slip.
    fn number(&self, rest: &'t str) -> Result<(Token<'t>, usize), Fault> {
        let bytes = rest.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut end = digits(0);
        if bytes.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
            end = digits(end + 1 + usize::from(signed));
        }
        if bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            return Err(self.fault("a number can't be followed by a letter or a second point"));
        }
        let number = Exact::parse(&rest[..end]).map_err(|fault| self.fault(&fault.message))?;
        Ok((Token::Number(number), end))
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(found) if found == symbol)
    }

    fn take(&mut self, symbol: &str) -> Result<(), Fault> {
        if !self.is(symbol) {
            return Err(self.expected(&format!("\"{symbol}\"")));
        }
        self.advance()
    }

    /// One level down; every recursion of this parser goes through here.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(self.fault(&format!("is nested more than {EXPRESSION_DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn sum(&mut self) -> Result<Term, Fault> {
        let first = self.product()?;
        let mut rest = Vec::new();
        loop {
            let sign = match self.token {
                Token::Symbol("+") => Sign::Plus,
                Token::Symbol("-") => Sign::Minus,
                _ => break,
            };
            self.advance()?;
            rest.push((sign, self.product()?));
        }
        Ok(if rest.is_empty() { first } else { Term::Sum(Box::new(first), rest) })
    }

    fn product(&mut self) -> Result<Term, Fault> {
        let first = self.unary()?;
        let mut rest = Vec::new();
        loop {
            let scaling = match self.token {
                Token::Symbol("*") => Scaling::Times,
                Token::Symbol("/") if self.rounds == 0 => {
                    return Err(self
                        .fault("`/` may only stand inside round(x, n), because a quotient may have no end"));
                }
                Token::Symbol("/") => Scaling::Over,
                _ => break,
            };
            self.factors += 1;
            if self.factors > EXPRESSION_FACTORS_MAX {
                return Err(
                    self.fault(&format!("more than {EXPRESSION_FACTORS_MAX} multiplications and divisions"))
                );
            }
            self.advance()?;
            rest.push((scaling, self.unary()?));
        }
        Ok(if rest.is_empty() { first } else { Term::Product(Box::new(first), rest) })
    }

    fn unary(&mut self) -> Result<Term, Fault> {
        if !self.is("-") {
            return self.atom();
        }
        self.advance()?;
        if let Token::Number(number) = self.token {
            self.advance()?;
            return Ok(Term::Number(number.neg()));
        }
        let term = self.nested(Self::unary)?;
        Ok(Term::Negative(Box::new(term)))
    }

    fn atom(&mut self) -> Result<Term, Fault> {
        match self.token.clone() {
            Token::Number(number) => {
                self.advance()?;
                Ok(Term::Number(number))
            }
            Token::Name(name) => {
                let function = self.text[self.at..].trim_start().starts_with('(');
                if function { self.call(name) } else { self.property() }
            }
            Token::Quoted(_) => self.property(),
            Token::Symbol("(") => {
                self.advance()?;
                let term = self.nested(Self::sum)?;
                self.take(")")?;
                Ok(term)
            }
            Token::Text(_) => Err(self.fault("a 'text' can only stand in a comparison of if")),
            _ => Err(self.expected(VALUE)),
        }
    }

    fn property(&mut self) -> Result<Term, Fault> {
        let start = self.start;
        let mut parts = Vec::new();
        loop {
            match self.token.clone() {
                Token::Name(name) => parts.push(name.to_string()),
                Token::Quoted(name) => parts.push(name),
                _ => return Err(self.expected("the next part of the property")),
            }
            self.advance()?;
            if !self.is(".") {
                break;
            }
            self.advance()?;
        }
        let path = Path::of(parts).map_err(|fault| {
            self.start = start;
            self.fault(&fault.message)
        })?;
        Ok(Term::Property(path))
    }

    fn call(&mut self, name: &str) -> Result<Term, Fault> {
        if !["min", "max", "coalesce", "round", "if"].contains(&name) {
            return Err(self.expected("min, max, round, coalesce or if before \"(\""));
        }
        self.advance()?;
        self.take("(")?;
        let term = match name {
            "min" => Term::Least(self.arguments(name)?),
            "max" => Term::Greatest(self.arguments(name)?),
            "coalesce" => Term::Coalesce(self.arguments(name)?),
            "round" => self.round()?,
            _ => {
                let condition = self.nested(Self::condition)?;
                self.take(",")?;
                let then = self.nested(Self::sum)?;
                self.take(",")?;
                let otherwise = self.nested(Self::sum)?;
                Term::If(Box::new(Choice { condition, then, otherwise }))
            }
        };
        self.take(")")?;
        Ok(term)
    }

    fn arguments(&mut self, name: &str) -> Result<Vec<Term>, Fault> {
        let mut arguments = vec![self.nested(Self::sum)?];
        while self.is(",") {
            self.advance()?;
            arguments.push(self.nested(Self::sum)?);
        }
        if arguments.len() < 2 {
            return Err(self.expected(&format!("\",\" and a second argument of {name}")));
        }
        Ok(arguments)
    }

    fn round(&mut self) -> Result<Term, Fault> {
        self.rounds += 1;
        let inner = self.nested(Self::sum)?;
        self.rounds -= 1;
        self.take(",")?;
        let places = match self.token {
            Token::Number(number) => number.to_i64().and_then(|n| u32::try_from(n).ok()),
            _ => None,
        };
        match places {
            Some(places) if places <= VALUE_SCALE_MAX => {
                self.advance()?;
                Ok(Term::Round(Box::new(inner), places))
            }
            _ => Err(self.expected(&format!("a number of places from 0 to {VALUE_SCALE_MAX}"))),
        }
    }

    fn condition(&mut self) -> Result<Condition, Fault> {
        if let Token::Text(text) = self.token.clone() {
            self.advance()?;
            let comparison = self.comparison()?;
            let path = self.compared_property()?;
            return Ok(Condition::Text(path, comparison.flipped(), text));
        }
        let start = self.start;
        let left = self.sum()?;
        let comparison = self.comparison()?;
        if let Token::Text(text) = self.token.clone() {
            let Term::Property(path) = left else {
                self.start = start;
                return Err(self.fault("only a property can be compared with a 'text'"));
            };
            self.advance()?;
            return Ok(Condition::Text(path, comparison, text));
        }
        let right = self.sum()?;
        Ok(Condition::Numbers(left, comparison, right))
    }

    fn compared_property(&mut self) -> Result<Path, Fault> {
        let start = self.start;
        match self.sum()? {
            Term::Property(path) => Ok(path),
            _ => {
                self.start = start;
                Err(self.fault("only a property can be compared with a 'text'"))
            }
        }
    }

    fn comparison(&mut self) -> Result<Comparison, Fault> {
        let comparison = match self.token {
            Token::Symbol("=") => Comparison::Equal,
            Token::Symbol("<>") => Comparison::NotEqual,
            Token::Symbol("<") => Comparison::Less,
            Token::Symbol("<=") => Comparison::LessOrEqual,
            Token::Symbol(">") => Comparison::Greater,
            Token::Symbol(">=") => Comparison::GreaterOrEqual,
            _ => return Err(self.expected("a comparison: = <> < <= > or >=")),
        };
        self.advance()?;
        Ok(comparison)
    }
}
