//! Dense matrices of `f32`, row-major: a dictionary's directions.
//!
//! Legend: R rows, D columns.

use crate::AnalysisError;

/// Finite numbers `[R, D]`, row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// The matrix of these values. Refused are no columns, an incomplete last row, and values that are not finite.
    ///
    /// # Shapes
    /// `values`: `R · columns`, row after row.
    pub fn new(columns: usize, values: Vec<f32>) -> Result<Self, AnalysisError> {
        let refused = |message| Err(AnalysisError::Input { action: "make a matrix", message });
        if columns == 0 {
            return refused("it needs at least one column".to_owned());
        }
        if !values.len().is_multiple_of(columns) {
            return refused(format!(
                "{} values are no whole number of rows of {columns}",
                values.len()
            ));
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return refused(format!(
                "row {}, column {} is {}, expected a finite number",
                place / columns,
                place % columns,
                values[place]
            ));
        }
        Ok(Self { columns, values })
    }

    /// R.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// D.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values, row after row: `R · D`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows in order, `[D]` each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.columns)
    }

    /// The same matrix with rows of unit Euclidean length; rows of zeros stay zeros.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut values = self.values.clone();
        for row in values.chunks_exact_mut(self.columns) {
            // In f64, in which no square of an f32 overflows or vanishes.
            let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                for x in row {
                    *x = (f64::from(*x) / norm) as f32;
                }
            }
        }
        Self { columns: self.columns, values }
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn shapes_and_values_are_checked() {
        let refused = |columns, values: &[f32]| {
            Matrix::new(columns, values.to_vec()).unwrap_err().to_string()
        };
        assert!(refused(0, &[]).contains("at least one column"));
        assert!(refused(2, &[1.0, 2.0, 3.0]).contains("3 values are no whole number of rows of 2"));
        let message = refused(2, &[1.0, 2.0, 3.0, f32::NAN]);
        assert!(message.contains("row 1, column 1 is NaN"), "{message}");
        let empty = Matrix::new(3, Vec::new()).unwrap();
        assert_eq!((empty.rows(), empty.columns(), empty.iter().len()), (0, 3, 0));
    }

    #[test]
    fn rows_become_unit_length_whatever_their_size() {
        let matrix = Matrix::new(2, vec![3.0, 4.0, 0.0, 0.0, 1e-30, 0.0, 3e30, -4e30]).unwrap();
        let expected = [0.6, 0.8, 0.0, 0.0, 1.0, 0.0, 0.6, -0.8];
        for (found, expected) in matrix.normalised().values().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
    }
}
