//! The nearest dictionary elements, by cosine.
//!
//! `F` and `G` dictionary elements, `D` their width.

use tch::{TchError, Tensor, no_grad};

use super::lens::best;

/// Cosines that are in memory together.
const COSINES: i64 = 1 << 24;

/// An element of a dictionary near another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its number in its dictionary.
    pub feature: u32,
    /// The cosine of the two.
    pub cosine: f32,
}

/// The `most` elements of another dictionary that are nearest to each of these, the nearest first.
///
/// # Shapes
/// `elements: [F, D]`, `others: [G, D]`, rows of unit length → F lists.
pub fn nearest(
    elements: &Tensor,
    others: &Tensor,
    most: usize,
) -> Result<Vec<Vec<Neighbour>>, TchError> {
    search(elements, others, most, None)
}

/// The same within a dictionary: of each of the features `own`, the nearest others.
///
/// # Shapes
/// `dictionary: [F, D]`, rows of unit length.
pub fn nearest_within(
    dictionary: &Tensor,
    own: &[u32],
    most: usize,
) -> Result<Vec<Vec<Neighbour>>, TchError> {
    let places: Vec<i64> = own.iter().map(|&feature| i64::from(feature)).collect();
    let places = Tensor::f_from_slice(&places)?.f_to_device(dictionary.device())?;
    search(&dictionary.f_index_select(0, &places)?, dictionary, most, Some(own))
}

fn search(
    elements: &Tensor,
    others: &Tensor,
    most: usize,
    own: Option<&[u32]>,
) -> Result<Vec<Vec<Neighbour>>, TchError> {
    let (n, g) = (elements.size2()?.0, others.size2()?.0);
    // One more where the element itself is among them, the nearest but for rounding.
    let wanted = (most as i64 + i64::from(own.is_some())).min(g);
    let chunk = (COSINES / g.max(1)).max(1);
    let mut all = Vec::with_capacity(n as usize);
    no_grad(|| {
        let mut start = 0;
        while start < n {
            let rows = chunk.min(n - start);
            let cosines = elements.f_narrow(0, start, rows)?.f_mm(&others.f_tr()?)?;
            for (row, found) in best(&cosines, wanted, true)?.into_iter().enumerate() {
                let itself = own.map(|own| own[start as usize + row]);
                let neighbours = found
                    .into_iter()
                    .filter(|(feature, _)| Some(*feature) != itself)
                    .take(most)
                    .map(|(feature, cosine)| Neighbour { feature, cosine })
                    .collect();
                all.push(neighbours);
            }
            start += rows;
        }
        Ok(all)
    })
}
