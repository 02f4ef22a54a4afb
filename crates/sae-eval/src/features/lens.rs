//! The logit lens: which tokens a dictionary element makes likelier, directly.
//!
//! `F` dictionary elements, `D` width of the residual stream, `V` vocabulary.

use sae_config::SiteKind;
use sae_model::{ModelError, Transformer};
use tch::{Device, Kind, Tensor, no_grad};

/// Elements whose logits are in memory together, times the vocabulary.
const LOGITS: usize = 1 << 24;

/// The tokens that an element adds most to, and takes most from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lens {
    /// Ids with what is added to their logits, the greatest first.
    pub highest: Vec<(u32, f32)>,
    /// The same, the least first.
    pub lowest: Vec<(u32, f32)>,
}

/// Whether what is written at such a site is added to the residual stream as it is, so that the lens means something.
pub fn has_lens(kind: SiteKind) -> bool {
    matches!(
        kind,
        SiteKind::ResidPre
            | SiteKind::ResidMid
            | SiteKind::ResidPost
            | SiteKind::AttnOut
            | SiteKind::MlpOut
    )
}

/// The `most` highest and lowest tokens of each direction.
///
/// # Shapes
/// `directions: [F, D]` → F of them.
pub fn logit_lens(
    model: &Transformer,
    directions: &Tensor,
    most: usize,
) -> Result<Vec<Lens>, ModelError> {
    let vocabulary = model.config().vocabulary;
    let (n, most) = (directions.size2()?.0, most.min(vocabulary) as i64);
    let chunk = (LOGITS / vocabulary.max(1)).max(1) as i64;
    let mut all = Vec::with_capacity(n as usize);
    no_grad(|| {
        let mut start = 0;
        while start < n {
            let rows = chunk.min(n - start);
            let logits = model.direct_logits(&directions.f_narrow(0, start, rows)?)?;
            let [highest, lowest] = [true, false].map(|largest| best(&logits, most, largest));
            for (highest, lowest) in highest?.into_iter().zip(lowest?) {
                all.push(Lens { highest, lowest });
            }
            start += rows;
        }
        Ok(all)
    })
}

/// The greatest or least numbers of each row, with their places.
///
/// # Shapes
/// `x: [N, V]` → N rows.
pub(super) fn best(
    x: &Tensor,
    most: i64,
    largest: bool,
) -> Result<Vec<Vec<(u32, f32)>>, tch::TchError> {
    if most == 0 {
        return Ok(vec![Vec::new(); x.size()[0] as usize]);
    }
    let (values, places) = x.f_topk(most, 1, largest, true)?;
    let values: Vec<f32> = flat(&values, Kind::Float)?.try_into()?;
    let places: Vec<i64> = flat(&places, Kind::Int64)?.try_into()?;
    let pairs: Vec<(u32, f32)> = places.into_iter().map(|place| place as u32).zip(values).collect();
    Ok(pairs.chunks(most as usize).map(<[_]>::to_vec).collect())
}

fn flat(x: &Tensor, kind: Kind) -> Result<Tensor, tch::TchError> {
    x.f_to_kind(kind)?.f_to_device(Device::Cpu)?.f_reshape([-1])
}
