//! A checkpoint `.pt` of a TransformerLens model, as the reference trains one (`run_train_tlens.py`): its sizes stand in
//! `final_config.yaml` beside it, its tensors have TransformerLens's names and a dimension for the heads.

use std::path::Path;

use sae_config::reference::TlensConfig;
use tch::{Device, Kind, Tensor};

use super::family;
use super::weights::{Weights, concatenated};
use crate::attention::Attention;
use crate::config::NormKind;
use crate::linear::Linear;
use crate::mlp::Mlp;
use crate::norm::Norm;
use crate::transformer::{Block, Parts};
use crate::{ModelConfig, ModelError, Transformer};

/// Reads the sizes.
pub(super) fn config(checkpoint: &Path) -> Result<ModelConfig, ModelError> {
    let path = checkpoint.with_file_name("final_config.yaml");
    let failed = |message: String| ModelError::Config { path: path.clone(), message };
    let raw = TlensConfig::load(&path).map_err(|error| failed(error.to_string()))?;
    let sizes = [raw.d_head, raw.d_model, raw.n_ctx, raw.d_vocab];
    if sizes.iter().any(|size| *size == 0 || *size > 1 << 24) || !(1..=4096).contains(&raw.n_layers)
    {
        return Err(failed(format!(
            "{} layers, d_head {}, d_model {}, n_ctx {}, d_vocab {}: all must be above 0, and none beyond what there is",
            raw.n_layers, raw.d_head, raw.d_model, raw.n_ctx, raw.d_vocab
        )));
    }
    if !raw.d_model.is_multiple_of(raw.d_head) {
        return Err(failed(format!("d_head {} must divide d_model {}", raw.d_head, raw.d_model)));
    }
    let heads = raw.d_model / raw.d_head;
    Ok(ModelConfig {
        activation: family::activation(&raw.act_fn).map_err(failed)?,
        ..ModelConfig::gpt2(raw.n_layers, raw.d_model, heads, raw.n_ctx, raw.d_vocab)
    })
}

pub(super) fn load(
    checkpoint: &Path,
    device: Device,
    kind: Kind,
) -> Result<Transformer, ModelError> {
    let config = config(checkpoint)?;
    let weights = Weights::read(checkpoint, device, kind)?;
    let ModelConfig { d_model: d, n_heads: h, d_head, d_mlp, vocabulary: v, .. } = config;
    let norm = |name: &str| -> Result<Norm, ModelError> {
        let weight = Some(weights.take(&format!("{name}.w"), &[d])?);
        let bias = Some(weights.take(&format!("{name}.b"), &[d])?);
        Ok(Norm { kind: NormKind::Layer, weight, bias, eps: config.norm_eps })
    };
    let transposed = |name: &str, shape: &[usize]| -> Result<Tensor, ModelError> {
        Ok(weights.take(name, shape)?.f_tr()?.f_contiguous()?)
    };
    let mut blocks = Vec::new();
    for index in 0..config.n_layers {
        let name = |rest: &str| format!("blocks.{index}.{rest}");
        let project = |which: char| -> Result<Linear, ModelError> {
            // [H, D, d_head] → [H · d_head, D].
            let weight = weights.take(&name(&format!("attn.W_{which}")), &[h, d, d_head])?;
            let bias = weights.take(&name(&format!("attn.b_{which}")), &[h, d_head])?;
            Ok(Linear {
                weight: weight.f_transpose(1, 2)?.f_reshape([-1, d as i64])?,
                bias: Some(bias.f_reshape([-1])?),
            })
        };
        let out = weights.take(&name("attn.W_O"), &[h, d_head, d])?;
        blocks.push(Block {
            norm_1: norm(&name("ln1"))?,
            attention: Attention::of(
                &config,
                index,
                concatenated(&[project('Q')?, project('K')?, project('V')?])?,
                Linear {
                    weight: out.f_reshape([-1, d as i64])?.f_tr()?.f_contiguous()?,
                    bias: Some(weights.take(&name("attn.b_O"), &[d])?),
                },
            ),
            norm_2: norm(&name("ln2"))?,
            mlp: Mlp {
                up: Linear {
                    weight: transposed(&name("mlp.W_in"), &[d, d_mlp])?,
                    bias: Some(weights.take(&name("mlp.b_in"), &[d_mlp])?),
                },
                gate: None,
                down: Linear {
                    weight: transposed(&name("mlp.W_out"), &[d_mlp, d])?,
                    bias: Some(weights.take(&name("mlp.b_out"), &[d])?),
                },
                activation: config.activation,
            },
        });
    }
    let parts = Parts {
        token_embedding: weights.take("embed.W_E", &[v, d])?,
        position_embedding: Some(weights.take("pos_embed.W_pos", &[config.context_length, d])?),
        blocks,
        final_norm: norm("ln_final")?,
        unembedding: transposed("unembed.W_U", &[d, v])?,
        unembedding_bias: Some(weights.take("unembed.b_U", &[v])?),
    };
    Transformer::new(config, parts)
}
