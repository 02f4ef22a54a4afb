//! Keeping the largest features: of every token, or of a batch. What is not kept becomes 0, in place.
//!
//! `N` tokens, `F` features. Activations are 0 or more, as [`crate::relu`] leaves them; their bits, taken as whole numbers,
//! have the order of the activations, NaN being the largest, so that it is kept and not lost.

use rayon::prelude::*;

use crate::dense::is_active;
use crate::{RowSums, RowsMut};

/// Bits of an activation that the first pass over a batch sorts by.
const HIGH_BITS: u32 = 16;
const BUCKETS: usize = 1 << HIGH_BITS;

/// What [`keep_largest`] has kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// One a token.
    pub sums: Vec<RowSums>,
    /// The smallest activation that was kept; none where none was above 0.
    pub smallest: Option<f32>,
}

/// Keeps the `k` largest activations of every token; of equal ones at the border those of the first features.
///
/// # Shapes
/// `features: [N, F]` → one [`RowSums`] a row.
pub fn keep_top(features: RowsMut<'_>, k: usize) -> Vec<RowSums> {
    let f = features.width();
    let keep = |scratch: &mut Vec<u32>, row: &mut [f32]| {
        scratch.clear();
        scratch.extend(row.iter().filter(|c| is_active(**c)).map(|c| c.to_bits()));
        if scratch.len() > k {
            let border = kth_largest(scratch, k);
            let above = scratch.iter().filter(|bits| **bits > border).count();
            drop_below(row, border, &mut (k - above));
        }
        sums(row)
    };
    features.into_numbers().par_chunks_mut(f).map_init(Vec::new, keep).collect()
}

/// Keeps the `count` largest activations of all tokens together; of equal ones at the border the first in memory.
///
/// # Shapes
/// `features: [N, F]`.
pub fn keep_largest(features: RowsMut<'_>, count: usize) -> Kept {
    let f = features.width();
    let numbers = features.into_numbers();
    let smallest = match border(numbers, count) {
        Border::All => smallest(numbers),
        Border::At { bits, of_equal, equal } => {
            if of_equal == equal {
                numbers.par_chunks_mut(f).for_each(|row| {
                    let mut all = if of_equal == 0 { 0 } else { row.len() };
                    drop_below(row, bits, &mut all);
                });
            } else {
                // In one order, whatever the number of threads.
                let mut left = of_equal;
                numbers.chunks_mut(f).for_each(|row| drop_below(row, bits, &mut left));
            }
            (count > 0).then(|| f32::from_bits(bits))
        }
    };
    Kept { sums: numbers.par_chunks(f).map(sums).collect(), smallest }
}

/// The border between activations that are kept and those that are dropped.
enum Border {
    /// No more are above 0 than are kept.
    All,
    /// At this activation, of which so many of so many are kept.
    At { bits: u32, of_equal: usize, equal: usize },
}

fn border(numbers: &[f32], count: usize) -> Border {
    let chunk = numbers.len().div_ceil(rayon::current_num_threads().max(1)).max(1);
    let empty = || vec![0_usize; BUCKETS];
    let add = |mut a: Vec<usize>, b: Vec<usize>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = numbers
        .par_chunks(chunk)
        .map(|numbers| {
            let mut counts = empty();
            for bits in numbers.iter().filter(|c| is_active(**c)).map(|c| c.to_bits()) {
                counts[(bits >> (32 - HIGH_BITS)) as usize] += 1;
            }
            counts
        })
        .reduce(empty, add);
    if counts.iter().sum::<usize>() <= count {
        return Border::All;
    }
    let mut above = 0;
    let mut bucket = BUCKETS - 1;
    while above + counts[bucket] < count.max(1) {
        above += counts[bucket];
        bucket -= 1;
    }
    let in_bucket = |bits: &u32| (bits >> (32 - HIGH_BITS)) as usize == bucket;
    let mut candidates: Vec<u32> = numbers
        .par_chunks(chunk)
        .flat_map_iter(|numbers| numbers.iter().map(|c| c.to_bits()).filter(in_bucket))
        .collect();
    if count == 0 {
        return Border::At { bits: u32::MAX, of_equal: 0, equal: 0 };
    }
    let bits = kth_largest(&mut candidates, count - above);
    let larger = above + candidates.iter().filter(|other| **other > bits).count();
    let equal = candidates.iter().filter(|other| **other == bits).count();
    Border::At { bits, of_equal: count - larger, equal }
}

/// The `k`-th largest of more than 0 numbers, k counted from 1; 0 gives what is larger than all.
fn kth_largest(numbers: &mut [u32], k: usize) -> u32 {
    if k == 0 {
        return u32::MAX;
    }
    let place = numbers.len() - k;
    *numbers.select_nth_unstable(place).1
}

/// Drops what is below the border, and, of those at it, all but the first `left`.
fn drop_below(row: &mut [f32], border: u32, left: &mut usize) {
    for c in row {
        let bits = c.to_bits();
        if !is_active(*c) || bits < border {
            *c = 0.0;
        } else if bits == border {
            if *left == 0 {
                *c = 0.0;
            } else {
                *left -= 1;
            }
        }
    }
}

fn smallest(numbers: &[f32]) -> Option<f32> {
    let active = numbers.par_iter().filter(|c| is_active(**c)).map(|c| c.to_bits());
    active.min().map(f32::from_bits)
}

fn sums(row: &[f32]) -> RowSums {
    let mut found = RowSums { active: 0, sum: 0.0 };
    for c in row.iter().filter(|c| is_active(**c)) {
        found.active += 1;
        found.sum += c;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_mut(numbers: &mut [f32], width: usize) -> RowsMut<'_> {
        RowsMut::new(numbers, width).unwrap()
    }

    /// Numbers in some order, many of them equal, a third of them 0.
    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) % 37
        };
        (0..count).map(|_| next().saturating_sub(12) as f32 * 0.25).collect()
    }

    /// The places of the `k` largest above 0, the first of equal ones.
    fn places(numbers: &[f32], k: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..numbers.len()).filter(|at| numbers[*at] > 0.0).collect();
        places.sort_by(|a, b| numbers[*b].total_cmp(&numbers[*a]).then(a.cmp(b)));
        places.truncate(k);
        places.sort_unstable();
        places
    }

    fn kept(numbers: &[f32]) -> Vec<usize> {
        (0..numbers.len()).filter(|at| numbers[*at] != 0.0).collect()
    }

    #[test]
    fn the_largest_of_every_token_are_kept() {
        let (n, f) = (23, 41);
        for k in [0, 1, 3, 17, 41, 100] {
            let before = numbers(n * f);
            let mut after = before.clone();
            let sums = keep_top(rows_mut(&mut after, f), k);
            for (row, sums) in sums.iter().enumerate() {
                let (before, after) = (&before[row * f..][..f], &after[row * f..][..f]);
                assert_eq!(kept(after), places(before, k), "k {k}, token {row}");
                assert_eq!(sums.active as usize, kept(after).len());
                assert!((sums.sum - after.iter().sum::<f32>()).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn the_largest_of_a_batch_are_kept() {
        let (n, f) = (23, 41);
        for count in [0, 1, 2, 50, 299, 600, 943, 2000] {
            let before = numbers(n * f);
            let mut after = before.clone();
            let found = keep_largest(rows_mut(&mut after, f), count);
            assert_eq!(kept(&after), places(&before, count), "count {count}");
            let smallest = after.iter().copied().filter(|c| *c > 0.0).reduce(f32::min);
            assert_eq!(found.smallest, smallest, "count {count}");
            let active: u32 = found.sums.iter().map(|row| row.active).sum();
            assert_eq!(active as usize, kept(&after).len());
        }
    }

    #[test]
    fn nan_is_kept() {
        let mut features = [f32::NAN, 5.0, 1.0];
        assert_eq!(keep_top(rows_mut(&mut features, 3), 1)[0].active, 1);
        assert!(features[0].is_nan() && features[1] == 0.0);
        let mut features = [f32::NAN, 5.0, 1.0];
        keep_largest(rows_mut(&mut features, 3), 1);
        assert!(features[0].is_nan() && features[1] == 0.0);
    }
}
