//! Processing of weights as TransformerLens does it when it loads a model: `fold_ln`, `center_writing_weights`,
//! `center_unembed` and `fold_value_biases`, in this order. Logits change by a constant a token at most; activations at sites
//! are those that SAEs trained with TransformerLens expect.
//!
//! `D` width of the residual stream, `V` vocabulary.

use tch::{Kind, TchError, Tensor, no_grad};

use crate::attention::Attention;
use crate::config::NormKind;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::{ModelError, Transformer};

/// Processes a model in place, in f64 whatever the precision of its weights.
///
/// Norms keep no weight and bias: what reads them takes these over. Where norms subtract the mean (not RMS norms), all
/// that writes to the residual stream loses its mean over D. The unembedding loses its mean over V. Attention's output takes
/// the bias of its values over (`attn.hook_z` is without it): attention's weights sum to 1.
pub fn transformer_lens(model: &mut Transformer) -> Result<(), ModelError> {
    no_grad(|| {
        let centred = model.config().norm == NormKind::Layer;
        let parts = &mut model.parts;
        for block in &mut parts.blocks {
            fold(&mut block.norm_1, &mut [&mut block.attention.qkv], centred)?;
            let mlp = &mut block.mlp;
            let mut readers = vec![&mut mlp.up];
            readers.extend(mlp.gate.as_mut());
            fold(&mut block.norm_2, &mut readers, centred)?;
        }
        let mut unembedding = Linear {
            weight: parts.unembedding.shallow_clone(),
            bias: parts.unembedding_bias.take(),
        };
        fold(&mut parts.final_norm, &mut [&mut unembedding], centred)?;
        if centred {
            centre(&mut parts.token_embedding, -1)?;
            if let Some(positions) = &mut parts.position_embedding {
                centre(positions, -1)?;
            }
            for block in &mut parts.blocks {
                for writer in [&mut block.attention.out, &mut block.mlp.down] {
                    centre(&mut writer.weight, 0)?;
                    if let Some(bias) = &mut writer.bias {
                        centre(bias, 0)?;
                    }
                }
            }
        }
        centre(&mut unembedding.weight, 0)?;
        if let Some(bias) = &mut unembedding.bias {
            centre(bias, 0)?;
        }
        parts.unembedding = unembedding.weight;
        parts.unembedding_bias = unembedding.bias;
        for block in &mut parts.blocks {
            fold_value_bias(&mut block.attention)?;
        }
        Ok(())
    })
}

/// Hands the bias of the values over to the output's: `W_O · b_V`, b_V repeated for the heads that share values.
fn fold_value_bias(attention: &mut Attention) -> Result<(), TchError> {
    let Some(bias) = &mut attention.qkv.bias else { return Ok(()) };
    let Attention { n_heads: h, n_kv_heads: kv, d_head: d, .. } = *attention;
    // A copy, because the stored tensor may be shared with whoever loaded it.
    *bias = bias.f_detach_copy()?;
    let mut values = bias.f_narrow(0, (h + kv) * d, kv * d)?;
    let repeated = values.f_view([kv, 1, d])?.f_expand([kv, h / kv, d], false)?;
    let out = &mut attention.out;
    let kind = out.weight.kind();
    let map = out.weight.f_to_kind(Kind::Double)?;
    let moved = map.f_mv(&repeated.f_reshape([h * d])?.f_to_kind(Kind::Double)?)?;
    let sum = match &out.bias {
        Some(own) => moved.f_add(&own.f_to_kind(Kind::Double)?)?,
        None => moved,
    };
    out.bias = Some(sum.f_to_kind(kind)?);
    let _ = values.f_zero_()?;
    Ok(())
}

/// Hands a norm's weight and bias over to the maps that read it: `W · diag(w)`, and `W · b` to the bias. A layer norm's
/// output has mean 0 over D, so the maps may lose theirs.
fn fold(norm: &mut Norm, readers: &mut [&mut Linear], centred: bool) -> Result<(), TchError> {
    let (weight, bias) = (norm.weight.take(), norm.bias.take());
    for reader in readers {
        let kind = reader.weight.kind();
        let mut map = reader.weight.f_to_kind(Kind::Double)?;
        if let Some(bias) = &bias {
            let moved = map.f_mv(&bias.f_to_kind(Kind::Double)?)?;
            let sum = match &reader.bias {
                Some(own) => moved.f_add(&own.f_to_kind(Kind::Double)?)?,
                None => moved,
            };
            reader.bias = Some(sum.f_to_kind(kind)?);
        }
        if let Some(weight) = &weight {
            map = map.f_mul(&weight.f_to_kind(Kind::Double)?)?;
        }
        if centred {
            centre(&mut map, -1)?;
        }
        reader.weight = map.f_to_kind(kind)?.f_contiguous()?;
    }
    Ok(())
}

/// Subtracts the mean over a dimension.
fn centre(tensor: &mut Tensor, dimension: i64) -> Result<(), TchError> {
    let kind = tensor.kind();
    let double = tensor.f_to_kind(Kind::Double)?;
    let mean = double.f_mean_dim([dimension].as_slice(), true, Kind::Double)?;
    *tensor = double.f_sub(&mean)?.f_to_kind(kind)?;
    Ok(())
}
