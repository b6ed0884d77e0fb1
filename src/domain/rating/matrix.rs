//! Matrix prices: the row is selected by dimension values (rules.md 1, "Matrix match").
//!
//! Among the rows whose match holds, the one with most matched dimensions wins; of equally many, the one
//! that matches the dimension declared first which the other leaves open. Dimensions are declared in a
//! total order, so two rows tie only if they match the very same values, and that is refused.

use super::pricing::{Model, Pricing};
use crate::domain::foundation::json::field_path;
use crate::domain::foundation::{Code, Fault};
use crate::domain::metering::Dimensions;
use std::collections::{HashMap, HashSet};

/// Most rows of one matrix (definitions 42).
pub const MATRIX_ROWS_MAX: usize = 10_000;
/// Most dimensions of one matrix: an event has at most 2^8 candidate matches.
pub const MATRIX_DIMENSIONS_MAX: usize = 8;

/// One row: what it matches and the price there.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixRow {
    matched: Dimensions,
    pricing: Pricing,
}

impl MatrixRow {
    pub(super) fn new(matched: Dimensions, pricing: Pricing) -> MatrixRow {
        MatrixRow { matched, pricing }
    }

    /// The dimension values that an event must have; empty for the default row.
    pub fn matched(&self) -> &Dimensions {
        &self.matched
    }

    /// The row's own pricing, complete: a `unit_price` beside `match` is a per_unit pricing with the
    /// `per` and floor of the matrix.
    pub fn pricing(&self) -> &Pricing {
        &self.pricing
    }
}

/// The model as it stands in the document, and the index by which a row is found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix {
    /// In order of priority, the first decides first.
    pub dimensions: Vec<String>,
    pub rows: Vec<MatrixRow>,
    index: Index,
}

/// A row's match as numbers: at each declared dimension the number of its value, 0 for any value.
type MatchKey = [u32; MATRIX_DIMENSIONS_MAX];

#[derive(Debug, Clone, PartialEq)]
struct Index {
    /// For each declared dimension the values that rows ask for, numbered from 1.
    values: Vec<HashMap<String, u32>>,
    /// The sets of dimensions that rows match on, strongest first.
    shapes: Vec<Shape>,
    rows: HashMap<MatchKey, usize>,
}

/// A set of declared dimensions as bits, the first dimension the highest, so that among sets of equal
/// size the larger number is the one that priority prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape(u8);

impl Shape {
    const EMPTY: Shape = Shape(0);

    fn with(self, dimension: usize) -> Shape {
        Shape(self.0 | Shape::bit(dimension))
    }

    fn has(self, dimension: usize) -> bool {
        self.0 & Shape::bit(dimension) != 0
    }

    fn bit(dimension: usize) -> u8 {
        1 << (MATRIX_DIMENSIONS_MAX - 1 - dimension)
    }

    fn is_within(self, other: Shape) -> bool {
        self.0 & !other.0 == 0
    }

    /// Ascending from the strongest.
    fn strength(self) -> impl Ord {
        std::cmp::Reverse((self.0.count_ones(), self.0))
    }
}

impl Matrix {
    /// Checks and indexes the rows; `path` is where they stand in the document.
    pub(super) fn new(dimensions: Vec<String>, rows: Vec<MatrixRow>, path: &str) -> Result<Matrix, Fault> {
        debug_assert!(dimensions.len() <= MATRIX_DIMENSIONS_MAX);
        if rows.len() > MATRIX_ROWS_MAX {
            let message =
                format!("{path}: has {} entries; at most {MATRIX_ROWS_MAX} are allowed", rows.len());
            return Err(Fault::new(Code::Bound, message));
        }
        let mut index = Index {
            values: vec![HashMap::new(); dimensions.len()],
            shapes: Vec::new(),
            rows: HashMap::with_capacity(rows.len()),
        };
        let mut shapes = HashSet::new();
        for (at, row) in rows.iter().enumerate() {
            let match_path = format!("{path}[{at}].match");
            let (shape, key) = index.number(&dimensions, row, &match_path)?;
            if let Some(first) = index.rows.insert(key, at) {
                return Err(Fault::document(
                    &match_path,
                    format!("ties with {path}[{first}].match: both match {}", row.matched.canonical()),
                )
                .with_hint("Remove one of the two rows."));
            }
            shapes.insert(shape);
        }
        index.shapes = shapes.into_iter().collect();
        index.shapes.sort_by_key(|shape| shape.strength());
        Ok(Matrix { dimensions, rows, index })
    }

    /// The same matches with other prices, row by row.
    pub(super) fn with_prices(
        &self,
        reprice: impl Fn(&Pricing) -> Result<Pricing, Fault>,
    ) -> Result<Matrix, Fault> {
        let row = |row: &MatrixRow| Ok(MatrixRow::new(row.matched.clone(), reprice(&row.pricing)?));
        Ok(Matrix {
            dimensions: self.dimensions.clone(),
            rows: self.rows.iter().map(row).collect::<Result<_, Fault>>()?,
            index: self.index.clone(),
        })
    }

    /// The position of the row that prices these dimensions.
    pub(super) fn select(&self, dimensions: &Dimensions) -> Option<usize> {
        let mut numbers: MatchKey = [0; MATRIX_DIMENSIONS_MAX];
        let mut known = Shape::EMPTY;
        for (i, (name, values)) in self.dimensions.iter().zip(&self.index.values).enumerate() {
            if let Some(number) = dimensions.get(name).and_then(|value| values.get(value)) {
                numbers[i] = *number;
                known = known.with(i);
            }
        }
        self.index.shapes.iter().filter(|shape| shape.is_within(known)).find_map(|shape| {
            let mut key = numbers;
            for (i, number) in key.iter_mut().enumerate() {
                if !shape.has(i) {
                    *number = 0;
                }
            }
            self.index.rows.get(&key).copied()
        })
    }

    pub(super) fn no_row(&self, dimensions: &Dimensions) -> Fault {
        let seen = dimensions.project(&self.dimensions).canonical();
        Fault::new(Code::Unrated, format!("no row of the matrix matches {seen}")).with_hint(format!(
            "Add a row for these values of {}, or a default row with \"match\": {{}}.",
            self.dimensions.join(", ")
        ))
    }
}

impl Index {
    fn number(
        &mut self,
        dimensions: &[String],
        row: &MatrixRow,
        path: &str,
    ) -> Result<(Shape, MatchKey), Fault> {
        let mut key = [0; MATRIX_DIMENSIONS_MAX];
        let mut shape = Shape::EMPTY;
        for (name, value) in row.matched.iter() {
            let Some(at) = dimensions.iter().position(|declared| declared == name) else {
                let fault =
                    Fault::document(&field_path(path, name), "is not one of the pricing's dimensions");
                return Err(fault.with_hint(format!("Declared: {}.", dimensions.join(", "))));
            };
            let values = &mut self.values[at];
            key[at] = match values.get(value) {
                Some(number) => *number,
                None => {
                    let next = u32::try_from(values.len() + 1).expect("a matrix has at most 10,000 rows");
                    values.insert(value.to_string(), next);
                    next
                }
            };
            shape = shape.with(at);
        }
        Ok((shape, key))
    }
}

/// Every match a row could have that holds for these dimensions, strongest first: the first of them that
/// some row has selects that row. It serves to fetch only the relevant rows of a matrix from its table.
///
/// `dimension_names` are the matrix's dimensions in order of priority, at most [`MATRIX_DIMENSIONS_MAX`].
pub fn match_candidates(dimension_names: &[String], dimensions: &Dimensions) -> Vec<Dimensions> {
    assert!(dimension_names.len() <= MATRIX_DIMENSIONS_MAX, "a validated matrix has few dimensions");
    let present = (0..dimension_names.len())
        .filter(|i| dimensions.get(&dimension_names[*i]).is_some())
        .fold(Shape::EMPTY, Shape::with);
    let mut shapes: Vec<Shape> = (0..=u8::MAX).map(Shape).filter(|shape| shape.is_within(present)).collect();
    shapes.sort_by_key(|shape| shape.strength());
    let named = |shape: Shape| -> Vec<String> {
        (0..dimension_names.len()).filter(|i| shape.has(*i)).map(|i| dimension_names[i].clone()).collect()
    };
    shapes.into_iter().map(|shape| dimensions.project(&named(shape))).collect()
}

impl Pricing {
    /// Whether the pricing is a matrix, so that [`select`](Pricing::select) and its like mean anything.
    pub fn is_matrix(&self) -> bool {
        self.matrix().is_some()
    }

    fn matrix(&self) -> Option<&Matrix> {
        match self.model() {
            Model::Matrix(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// The dimensions that the pricing's rows are matched on, in order of priority; empty where the
    /// pricing is no matrix. A line of the charge is about one value of each (definitions 2).
    pub fn dimensions_named(&self) -> Vec<String> {
        self.matrix().map_or_else(Vec::new, |matrix| matrix.dimensions.clone())
    }

    /// The matrix's rows in the document's order; empty where the pricing is no matrix.
    pub fn rows(&self) -> &[MatrixRow] {
        self.matrix().map_or(&[], |matrix| &matrix.rows)
    }

    /// The row of the matrix that prices these dimensions and its position in [`rows`](Pricing::rows).
    pub fn select(&self, dimensions: &Dimensions) -> Option<(usize, &MatrixRow)> {
        let matrix = self.matrix()?;
        matrix.select(dimensions).map(|at| (at, &matrix.rows[at]))
    }
}

/// A matrix taken apart and put together, to show that the rows of [`match_candidates`] price as all rows do.
#[cfg(test)]
impl Pricing {
    /// The matrix's header: everything beside the rows. Other models are their own header.
    pub fn without_rows(&self) -> Pricing {
        match self.model() {
            Model::Matrix(matrix) => {
                let empty = Matrix::new(matrix.dimensions.clone(), Vec::new(), "rows")
                    .expect("a matrix without rows has no row to refuse");
                Pricing::assemble(Model::Matrix(empty), self.terms().clone())
            }
            _ => self.clone(),
        }
    }

    /// A matrix from its header and some or all of its rows, each with its complete pricing. With the
    /// rows of [`match_candidates`] it selects for those dimensions exactly as the full one.
    pub fn from_rows(
        header: &Pricing,
        rows: impl IntoIterator<Item = (Dimensions, Pricing)>,
    ) -> Result<Pricing, Fault> {
        let Some(matrix) = header.matrix() else {
            return Err(Fault::value(format!("a {} price has no rows", header.model_name())));
        };
        let rows: Vec<MatrixRow> =
            rows.into_iter().map(|(matched, pricing)| MatrixRow::new(matched, pricing)).collect();
        if let Some(at) = rows.iter().position(|row| row.pricing.is_matrix()) {
            return Err(Fault::document(&format!("rows[{at}].pricing"), "can't be a matrix inside a matrix"));
        }
        let matrix = Matrix::new(matrix.dimensions.clone(), rows, "rows")?;
        Ok(Pricing::assemble(Model::Matrix(matrix), header.terms().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_dimensions, any_matrix, dimensions, pricing};
    use super::*;
    use crate::domain::foundation::Ratio;
    use proptest::prelude::*;

    /// rules.md 1 as it is written: scan all rows, most matched dimensions, then declared priority.
    fn scan<'m>(matrix: &'m Pricing, values: &Dimensions) -> Option<&'m MatrixRow> {
        let names = matrix.dimensions_named();
        matrix.rows().iter().filter(|row| values.matches(row.matched())).max_by_key(|row| {
            let priority: Vec<bool> = names.iter().map(|name| row.matched().get(name).is_some()).collect();
            (row.matched().len(), priority)
        })
    }

    #[test]
    fn candidates_stand_strongest_first() {
        let names = ["model".to_string(), "region".to_string()];
        let texts = |values: &str| -> Vec<String> {
            match_candidates(&names, &dimensions(values)).iter().map(Dimensions::canonical).collect()
        };
        assert_eq!(
            texts(r#"{"model":"gpt-4","region":"eu","user":"7"}"#),
            [r#"{"model":"gpt-4","region":"eu"}"#, r#"{"model":"gpt-4"}"#, r#"{"region":"eu"}"#, "{}"]
        );
        assert_eq!(texts(r#"{"region":"eu"}"#), [r#"{"region":"eu"}"#, "{}"]);
        assert_eq!(texts("{}"), ["{}"]);
    }

    #[test]
    fn more_matched_dimensions_beat_priority() {
        let matrix = pricing(
            r#"{"model":"matrix","dimensions":["m","r","t"],"rows":[
                {"match":{"m":"a"},"unit_price":"1"},{"match":{"r":"a","t":"a"},"unit_price":"2"},
                {"match":{"t":"a"},"unit_price":"3"},{"match":{"r":"a"},"unit_price":"4"}]}"#,
        );
        let selected = |values: &str| matrix.select(&dimensions(values)).map(|(at, _)| at);
        assert_eq!(selected(r#"{"m":"a","r":"a","t":"a"}"#), Some(1));
        assert_eq!(selected(r#"{"m":"a","r":"a","t":"b"}"#), Some(0));
        assert_eq!(selected(r#"{"m":"b","r":"a","t":"b"}"#), Some(3));
        assert_eq!(selected(r#"{"m":"b","t":"a"}"#), Some(2));
        assert_eq!(selected(r#"{"m":"b"}"#), None);
    }

    #[test]
    fn says_which_values_no_row_matches() {
        let matrix = pricing(
            r#"{"model":"matrix","dimensions":["m","r"],"rows":[{"match":{"m":"a"},"unit_price":"1"}]}"#,
        );
        let fault = matrix.rate(&Ratio::ZERO, &dimensions(r#"{"m":"b","user":"7"}"#), 1).unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Code::Unrated, r#"no row of the matrix matches {"m":"b"}"#)
        );
        assert!(fault.hint.unwrap().starts_with("Add a row for these values of m, r, or a default row"));
        assert!(matrix.select(&dimensions("{}")).is_none());
    }

    #[test]
    fn eight_dimensions_have_256_candidates() {
        let names: Vec<String> = (0..MATRIX_DIMENSIONS_MAX).map(|i| format!("d{i}")).collect();
        let mut values = Dimensions::new();
        names.iter().for_each(|name| values.set(name, "x"));
        let candidates = match_candidates(&names, &values);
        assert_eq!(candidates.len(), 256);
        assert_eq!((candidates[0].len(), candidates[255].len()), (8, 0));
        assert_eq!(candidates[1].get("d7"), None);
    }

    #[test]
    fn rows_come_apart_and_together() {
        let text = r#"{"dimensions":["m"],"minimum":"5","model":"matrix","per":1000,"rows":[{"match":{"m":"a"},"unit_price":"0.03"},{"match":{},"pricing":{"amount":"2","model":"flat"}}]}"#;
        let matrix = pricing(text);
        assert_eq!(matrix.canonical(), text);
        let row = matrix.rows()[0].pricing();
        assert_eq!(row.canonical(), r#"{"model":"per_unit","per":1000,"unit_price":"0.03"}"#);
        let header = matrix.without_rows();
        assert_eq!(
            header.canonical(),
            r#"{"dimensions":["m"],"minimum":"5","model":"matrix","per":1000,"rows":[]}"#
        );
        assert_eq!(header.dimensions_named(), matrix.dimensions_named());
        let rows = |matrix: &Pricing| -> Vec<(Dimensions, Pricing)> {
            matrix.rows().iter().map(|row| (row.matched().clone(), row.pricing().clone())).collect()
        };
        assert_eq!(Pricing::from_rows(&header, rows(&matrix)).unwrap(), matrix);

        let flat = pricing(r#"{"model":"flat","amount":"1"}"#);
        assert_eq!(flat.without_rows(), flat);
        assert!(Pricing::from_rows(&flat, []).unwrap_err().message.contains("has no rows"));
        let twice = [rows(&matrix), rows(&matrix)].concat();
        assert!(
            Pricing::from_rows(&header, twice)
                .unwrap_err()
                .message
                .starts_with("rows[2].match: ties with rows[0].match")
        );
        let nested = Pricing::from_rows(&header, [(Dimensions::new(), matrix.clone())]);
        assert!(nested.unwrap_err().message.starts_with("rows[0].pricing: can't be a matrix"));
        let stray = Pricing::from_rows(&header, [(dimensions(r#"{"x":"1"}"#), flat)]);
        assert!(
            stray.unwrap_err().message.starts_with("rows[0].match.x: is not one of the pricing's dimensions")
        );
    }

    proptest! {
        #[test]
        fn selects_as_a_scan_does(matrix in any_matrix(), values in any_dimensions()) {
            let selected = matrix.select(&values);
            prop_assert_eq!(selected.map(|(_, row)| row), scan(&matrix, &values));
            if let Some((at, row)) = selected {
                prop_assert_eq!(&matrix.rows()[at], row);
            }
        }

        #[test]
        fn a_pruned_matrix_selects_as_the_full_one(matrix in any_matrix(), values in any_dimensions(), units in 0u64..9_000) {
            let candidates = match_candidates(&matrix.dimensions_named(), &values);
            let relevant = matrix.rows().iter().filter(|row| candidates.contains(row.matched()));
            let relevant: Vec<_> = relevant.map(|row| (row.matched().clone(), row.pricing().clone())).collect();
            prop_assert!(relevant.iter().all(|(matched, _)| values.matches(matched)));
            let pruned = Pricing::from_rows(&matrix.without_rows(), relevant).unwrap();
            prop_assert_eq!(pruned.select(&values).map(|(_, row)| row), matrix.select(&values).map(|(_, row)| row));
            let units = Ratio::from(units);
            prop_assert_eq!(pruned.rate(&units, &values, 1), matrix.rate(&units, &values, 1));
            prop_assert_eq!(pruned.explain(&units, &values, 1), matrix.explain(&units, &values, 1));
            // The strongest candidate that some row has is the row.
            let first = candidates.iter().find(|c| matrix.rows().iter().any(|row| row.matched() == *c));
            prop_assert_eq!(matrix.select(&values).map(|(_, row)| row.matched()), first);
        }
    }
}
