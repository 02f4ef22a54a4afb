//! The nearest neighbours of every row by cosine, exactly.
//!
//! Legend: R rows, k neighbours of each.

use rayon::prelude::*;

use crate::geometry::similarity::{BLOCK, blocks, multiply};
use crate::matrix::Matrix;

/// Every row's nearest other rows, the nearest first; of equally near ones the earlier.
pub(crate) struct Neighbors {
    /// Their indices: `[R, k]`.
    pub indices: Vec<Vec<usize>>,
    /// Their cosine distances, from 0 to 2: `[R, k]`.
    pub distances: Vec<Vec<f32>>,
}

/// The `k` nearest other rows of every row of `unit`, whose rows have unit length. Fewer where there are not as many.
pub(crate) fn nearest(unit: &Matrix, k: usize) -> Neighbors {
    let blocks = blocks(unit.rows());
    let found: Vec<Vec<Vec<Near>>> = blocks
        .par_iter()
        .map_init(
            || vec![0.0; BLOCK * BLOCK],
            |product, i| {
                let mut nearest: Vec<Vec<Near>> = vec![Vec::with_capacity(k + 1); i.len()];
                for j in &blocks {
                    let cosines = &mut product[..i.len() * j.len()];
                    multiply(unit, i, unit, j, cosines);
                    for (row, (nearest, cosines)) in
                        i.clone().zip(nearest.iter_mut().zip(cosines.chunks(j.len())))
                    {
                        for (index, &cosine) in j.clone().zip(cosines) {
                            if index != row {
                                keep(nearest, k, Near { index, cosine });
                            }
                        }
                    }
                }
                nearest
            },
        )
        .collect();
    let rows = || found.iter().flatten();
    let distance = |near: &Near| (1.0 - near.cosine).clamp(0.0, 2.0);
    Neighbors {
        indices: rows().map(|row| row.iter().map(|near| near.index).collect()).collect(),
        distances: rows().map(|row| row.iter().map(distance).collect()).collect(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Near {
    index: usize,
    cosine: f32,
}

fn keep(nearest: &mut Vec<Near>, k: usize, new: Near) {
    if nearest.len() == k && nearest.last().is_none_or(|last| last.cosine >= new.cosine) {
        return;
    }
    let place = nearest.partition_point(|near| near.cosine >= new.cosine);
    nearest.insert(place, new);
    nearest.truncate(k);
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, nearest};
    use crate::matrix::Matrix;

    /// Rows on a circle, ½° apart but for every tenth, which is where the one before it is.
    #[test]
    fn neighbours_on_a_circle_by_hand() {
        let rows = BLOCK + 9;
        let angle = |row: usize| if row % 10 == 9 { row - 1 } else { row };
        let at = |row: usize| (0.5 * angle(row) as f32).to_radians();
        let values = (0..rows).flat_map(|row| [at(row).cos(), at(row).sin()]).collect();
        let found = nearest(&Matrix::new(2, values).unwrap(), 3);
        assert_eq!((found.indices.len(), found.distances.len()), (rows, rows));
        // 4 is between 3 and 5.
        assert_eq!(found.indices[4].len(), 3);
        assert!(found.indices[4][..2].iter().all(|row| [3, 5].contains(row)));
        // 8 and 9 are one place.
        assert_eq!((found.indices[8][0], found.indices[9][0]), (9, 8));
        assert!(found.distances[8][0].abs() < 1e-6);
        let step = 1.0 - f64::from(0.5_f32).to_radians().cos();
        assert!((f64::from(found.distances[4][0]) - step).abs() < 1e-6);
        // Across the border of blocks.
        assert!(found.indices[BLOCK][..2].contains(&(BLOCK - 1)));
        assert!(found.distances.iter().all(|row| row.is_sorted()));
    }

    #[test]
    fn equally_near_rows_come_in_their_order_and_few_rows_have_few_neighbours() {
        let found = nearest(&Matrix::new(1, vec![1.0; 5]).unwrap(), 3);
        assert_eq!(found.indices, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]);
        let found = nearest(&Matrix::new(1, vec![1.0, -1.0]).unwrap(), 3);
        assert_eq!((found.indices, found.distances), (vec![vec![1], vec![0]], vec![vec![2.0]; 2]));
    }
}
