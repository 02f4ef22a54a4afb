//! How close the directions of dictionaries are to each other: for every row, its largest cosine similarity.
//!
//! Within one dictionary it tells of feature splitting (a tightly clustered dictionary has near neighbours everywhere),
//! across two of what they have in common (arXiv 2405.12241). The cosines are computed block by block and
//! only the largest of each row is kept, so memory is that of the dictionaries and a few megabytes. The blocks are the
//! same whatever the number of threads, and the largest of numbers does not depend on their order: on one machine the
//! result is the same to the bit.
//!
//! Legend: A, B dictionaries with R_a, R_b rows of D numbers.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::histogram::Histogram;
use crate::matrix::Matrix;

/// Rows of a block. A product of two blocks takes a megabyte, which a core's second-level cache holds.
pub(crate) const BLOCK: usize = 512;

/// The largest cosine of every row to any other row, `[R]`, from −1 to 1. A row of zeros has cosine 0 to every row.
/// Refused is a dictionary of fewer than two rows, which has no others.
pub fn within(dictionary: &Matrix) -> Result<Vec<f32>, AnalysisError> {
    if dictionary.rows() < 2 {
        return Err(AnalysisError::Input {
            action: "compare a dictionary's rows with each other",
            message: format!("expected two or more rows, found {}", dictionary.rows()),
        });
    }
    let unit = dictionary.normalised();
    let blocks = blocks(unit.rows());
    // The cosines are symmetric: blocks below the diagonal would repeat those above.
    let pairs: Vec<(Range<usize>, Range<usize>)> = (0..blocks.len())
        .flat_map(|i| (i..blocks.len()).map(move |j| (i, j)))
        .map(|(i, j)| (blocks[i].clone(), blocks[j].clone()))
        .collect();
    let best = largest(&unit, &unit, &pairs, true);
    Ok(best.a_to_b.into_iter().zip(best.b_to_a).map(|(row, column)| larger(row, column)).collect())
}

/// The largest cosines between two dictionaries.
#[derive(Debug, Clone, PartialEq)]
pub struct Across {
    /// For every row of A, to any row of B: `[R_a]`.
    pub a_to_b: Vec<f32>,
    /// For every row of B, to any row of A: `[R_b]`.
    pub b_to_a: Vec<f32>,
}

/// The largest cosine of every row to any row of the other dictionary, in both directions, from −1 to 1. A row of zeros
/// has cosine 0 to every row. Refused are dictionaries of different widths, and one without rows.
pub fn across(a: &Matrix, b: &Matrix) -> Result<Across, AnalysisError> {
    let refused =
        |message| Err(AnalysisError::Input { action: "compare two dictionaries", message });
    if a.columns() != b.columns() {
        return refused(format!(
            "their rows have {} and {} numbers: they are of different sites or models",
            a.columns(),
            b.columns()
        ));
    }
    if a.rows() == 0 || b.rows() == 0 {
        return refused(format!("expected rows in both, found {} and {}", a.rows(), b.rows()));
    }
    let (a, b) = (a.normalised(), b.normalised());
    let pairs: Vec<(Range<usize>, Range<usize>)> = blocks(a.rows())
        .into_iter()
        .flat_map(|i| blocks(b.rows()).into_iter().map(move |j| (i.clone(), j)))
        .collect();
    Ok(largest(&a, &b, &pairs, false))
}

/// What is said of many cosines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SimilaritySummary {
    /// How many there are.
    pub n: usize,
    /// Their mean; none where there are none.
    pub mean: Option<f64>,
    /// Their counts in bins.
    pub histogram: Histogram,
}

/// The mean of cosines and their counts between `edges`, which rise.
pub fn summarise(cosines: &[f32], edges: Vec<f64>) -> Result<SimilaritySummary, AnalysisError> {
    let n = cosines.len();
    let sum: f64 = cosines.iter().copied().map(f64::from).sum();
    Ok(SimilaritySummary {
        n,
        mean: (n > 0).then(|| sum / n as f64),
        histogram: Histogram::of(cosines.iter().copied().map(f64::from), edges)?,
    })
}

/// The rows of each block, in order.
pub(crate) fn blocks(rows: usize) -> Vec<Range<usize>> {
    (0..rows).step_by(BLOCK).map(|start| start..(start + BLOCK).min(rows)).collect()
}

/// The largest product of every row of `a` and of `b` over the given pairs of blocks. `same`: they are one dictionary, in
/// which a row is not compared with itself.
fn largest(a: &Matrix, b: &Matrix, pairs: &[(Range<usize>, Range<usize>)], same: bool) -> Across {
    let start = || Across {
        a_to_b: vec![f32::NEG_INFINITY; a.rows()],
        b_to_a: vec![f32::NEG_INFINITY; b.rows()],
    };
    let mut best = pairs
        .par_iter()
        .fold(
            || (start(), vec![0.0; BLOCK * BLOCK]),
            |(mut best, mut product), (i, j)| {
                let cosines = &mut product[..i.len() * j.len()];
                multiply(a, i, b, j, cosines);
                if same && i == j {
                    cosines
                        .iter_mut()
                        .step_by(j.len() + 1)
                        .for_each(|own| *own = f32::NEG_INFINITY);
                }
                let columns = &mut best.b_to_a[j.clone()];
                for (row, cosines) in best.a_to_b[i.clone()].iter_mut().zip(cosines.chunks(j.len()))
                {
                    keep_larger(columns, cosines);
                    *row = larger(*row, maximum(cosines));
                }
                (best, product)
            },
        )
        .map(|(best, _): (Across, Vec<f32>)| best)
        .reduce(start, |mut left, right| {
            keep_larger(&mut left.a_to_b, &right.a_to_b);
            keep_larger(&mut left.b_to_a, &right.b_to_a);
            left
        });
    for cosine in best.a_to_b.iter_mut().chain(&mut best.b_to_a) {
        // Rounding may lead a hair outside. Adding zero makes −0 a 0: which of them is the larger depends on the order.
        *cosine = cosine.clamp(-1.0, 1.0) + 0.0;
    }
    best
}

/// `product[i, j] = a[i] · b[j]`, in one thread: the order of the sums is then always the same.
pub(crate) fn multiply(
    a: &Matrix,
    i: &Range<usize>,
    b: &Matrix,
    j: &Range<usize>,
    product: &mut [f32],
) {
    let d = a.columns();
    let rows = MatRef::from_row_major_slice(&a.values()[i.start * d..i.end * d], i.len(), d);
    let columns = MatRef::from_row_major_slice(&b.values()[j.start * d..j.end * d], j.len(), d);
    let product = MatMut::from_row_major_slice_mut(product, i.len(), j.len());
    matmul(product, Accum::Replace, rows, columns.transpose(), 1.0, Par::Seq);
}

fn larger(a: f32, b: f32) -> f32 {
    // `f32::max` looks for NaN as well, of which there are none, and is slower for it.
    if a > b { a } else { b }
}

fn keep_larger(best: &mut [f32], values: &[f32]) {
    best.iter_mut().zip(values).for_each(|(best, &value)| *best = larger(*best, value));
}

fn maximum(values: &[f32]) -> f32 {
    // Sixteen maxima side by side fill a vector register; one alone waits for itself.
    let (chunks, rest) = values.as_chunks::<16>();
    let mut best = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        keep_larger(&mut best, chunk);
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests;
