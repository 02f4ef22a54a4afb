//! The transformer: embedding, blocks with hook sites, final norm, unembedding.
//!
//! `B` batch, `T` context length, `D` d_model, `V` vocabulary.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sae_config::{Site, SiteKind};
use tch::{Device, Kind, Tensor};

use crate::attention::Attention;
use crate::linear::Linear;
use crate::mlp::Mlp;
use crate::norm::LayerNorm;
use crate::{ModelConfig, ModelError};

/// Sees the activation at every site that is computed, `[B, T, D]`, and returns what the model goes on with.
pub type Hook<'a> = dyn FnMut(Site, Tensor) -> Result<Tensor, ModelError> + 'a;

/// A decoder-only transformer.
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    /// `[V, D]`.
    pub(crate) token_embedding: Tensor,
    /// `[context, D]`.
    pub(crate) position_embedding: Tensor,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: LayerNorm,
    /// `[V, D]`; the token embedding where the two are tied.
    pub(crate) unembedding: Tensor,
}

/// Attention and MLP, each behind its norm, each added to the residual stream.
#[derive(Debug)]
pub(crate) struct Block {
    pub norm_1: LayerNorm,
    pub attention: Attention,
    pub norm_2: LayerNorm,
    pub mlp: Mlp,
}

impl Transformer {
    pub(crate) fn new(
        config: ModelConfig,
        token_embedding: Tensor,
        position_embedding: Tensor,
        blocks: Vec<Block>,
        final_norm: LayerNorm,
        unembedding: Tensor,
    ) -> Self {
        Self { config, token_embedding, position_embedding, blocks, final_norm, unembedding }
    }

    /// A model with GPT-2's initialisation: weights from N(0, 0.02), those that write to the residual stream smaller by
    /// `√(2 L)`, biases 0. The numbers are drawn on the CPU, so a seed gives the same model on every device.
    pub fn random(
        config: ModelConfig,
        seed: u64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normal = |shape: &[usize], std: f64| -> Result<Tensor, ModelError> {
            let numbers: Vec<f32> = (0..shape.iter().product::<usize>())
                .map(|_| {
                    let x: f64 = StandardNormal.sample(&mut rng);
                    (x * std) as f32
                })
                .collect();
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            Ok(Tensor::f_from_slice(&numbers)?
                .f_view(shape.as_slice())?
                .f_to_device(device)?
                .f_to_kind(kind)?)
        };
        let ModelConfig { n_layers, d_model: d, d_mlp, context_length, vocabulary, .. } = config;
        let filled = |n: usize, value: f64| Tensor::f_full([n as i64], value, (kind, device));
        let norm = || -> Result<LayerNorm, ModelError> {
            let (weight, bias) = (filled(d, 1.0)?, filled(d, 0.0)?);
            Ok(LayerNorm { weight, bias, eps: config.layer_norm_eps })
        };
        let std = 0.02;
        let writing_std = std / (2.0 * n_layers as f64).sqrt();
        let token_embedding = normal(&[vocabulary, d], std)?;
        let position_embedding = normal(&[context_length, d], std)?;
        let mut linear = |out: usize, input: usize, std: f64| -> Result<Linear, ModelError> {
            Ok(Linear { weight: normal(&[out, input], std)?, bias: Some(filled(out, 0.0)?) })
        };
        let mut blocks = Vec::with_capacity(n_layers);
        for _ in 0..n_layers {
            blocks.push(Block {
                norm_1: norm()?,
                attention: Attention {
                    qkv: linear(3 * d, d, std)?,
                    out: linear(d, d, writing_std)?,
                    n_heads: config.n_heads as i64,
                },
                norm_2: norm()?,
                mlp: Mlp {
                    up: linear(d_mlp, d, std)?,
                    down: linear(d, d_mlp, writing_std)?,
                    activation: config.activation,
                },
            });
        }
        let unembedding = token_embedding.shallow_clone();
        let final_norm = norm()?;
        Ok(Self::new(config, token_embedding, position_embedding, blocks, final_norm, unembedding))
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.token_embedding.device()
    }

    /// The precision of the weights.
    pub fn kind(&self) -> Kind {
        self.token_embedding.kind()
    }

    /// The residual stream before the first block.
    ///
    /// # Shapes
    /// `tokens: [B, T]` of ids below V → `[B, T, D]`.
    pub fn embed(&self, tokens: &Tensor) -> Result<Tensor, ModelError> {
        let (_, t) = tokens.size2()?;
        self.config.check_context(t as usize)?;
        let positions = self.position_embedding.f_narrow(0, 0, t)?;
        Ok(Tensor::f_embedding(&self.token_embedding, tokens, -1, false, false)?
            .f_add(&positions)?)
    }

    /// Runs the blocks from block `from` on, showing every site to `hook`; returns the residual stream after the last
    /// block, or `None` where it stopped right after the site `until`.
    ///
    /// # Shapes
    /// `residual: [B, T, D]`, the residual stream before block `from`.
    pub fn run(
        &self,
        from: usize,
        residual: Tensor,
        until: Option<Site>,
        hook: &mut Hook<'_>,
    ) -> Result<Option<Tensor>, ModelError> {
        let mut x = residual;
        for (index, block) in self.blocks.iter().enumerate().skip(from) {
            let mut visit = |kind: SiteKind, x: Tensor| -> Result<(Tensor, bool), ModelError> {
                let site = Site { block: index, kind };
                Ok((hook(site, x)?, until == Some(site)))
            };
            let (pre, stop) = visit(SiteKind::ResidPre, x)?;
            if stop {
                return Ok(None);
            }
            let (attn_out, stop) =
                visit(SiteKind::AttnOut, block.attention.forward(&block.norm_1.forward(&pre)?)?)?;
            if stop {
                return Ok(None);
            }
            let (mid, stop) = visit(SiteKind::ResidMid, pre.f_add(&attn_out)?)?;
            if stop {
                return Ok(None);
            }
            let (mlp_out, stop) =
                visit(SiteKind::MlpOut, block.mlp.forward(&block.norm_2.forward(&mid)?)?)?;
            if stop {
                return Ok(None);
            }
            let (post, stop) = visit(SiteKind::ResidPost, mid.f_add(&mlp_out)?)?;
            if stop {
                return Ok(None);
            }
            x = post;
        }
        Ok(Some(x))
    }

    /// The final hidden state, on which the unembedding acts.
    ///
    /// # Shapes
    /// `residual: [B, T, D]` → `[B, T, D]`.
    pub fn final_norm(&self, residual: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.final_norm.forward(residual)?)
    }

    /// The unembedding `W_U`, `[V, D]`: logits are `hidden · W_Uᵀ`.
    pub fn unembedding(&self) -> &Tensor {
        &self.unembedding
    }

    /// Logits of a final hidden state.
    ///
    /// # Shapes
    /// `hidden: [..., D]` → `[..., V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(hidden.f_matmul(&self.unembedding.f_tr()?)?)
    }

    /// Whether the unembedding is the token embedding.
    pub(crate) fn is_tied(&self) -> bool {
        self.unembedding.data_ptr() == self.token_embedding.data_ptr()
    }

    /// All parameters, each once, with the names that GPT-2's weights have on disk, and whether weight decay applies
    /// (to matrices; not to biases, norms and embeddings of positions).
    pub fn parameters(&self) -> Vec<Parameter<'_>> {
        let mut all = vec![
            Parameter::new("transformer.wte.weight", &self.token_embedding, true),
            Parameter::new("transformer.wpe.weight", &self.position_embedding, false),
        ];
        for (index, block) in self.blocks.iter().enumerate() {
            let name = |rest: &str| format!("transformer.h.{index}.{rest}");
            push_norm(&mut all, &name("ln_1"), &block.norm_1);
            push_linear(&mut all, &name("attn.c_attn"), &block.attention.qkv);
            push_linear(&mut all, &name("attn.c_proj"), &block.attention.out);
            push_norm(&mut all, &name("ln_2"), &block.norm_2);
            push_linear(&mut all, &name("mlp.c_fc"), &block.mlp.up);
            push_linear(&mut all, &name("mlp.c_proj"), &block.mlp.down);
        }
        push_norm(&mut all, "transformer.ln_f", &self.final_norm);
        if !self.is_tied() {
            all.push(Parameter::new("lm_head.weight", &self.unembedding, true));
        }
        all
    }
}

/// A parameter of the model.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// Its name on disk.
    pub name: String,
    /// Its value.
    pub tensor: &'a Tensor,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Whether it is stored transposed.
    pub(crate) transposed: bool,
}

impl<'a> Parameter<'a> {
    fn new(name: impl Into<String>, tensor: &'a Tensor, decays: bool) -> Self {
        Self { name: name.into(), tensor, decays, transposed: false }
    }
}

fn push_norm<'a>(all: &mut Vec<Parameter<'a>>, name: &str, norm: &'a LayerNorm) {
    all.push(Parameter::new(format!("{name}.weight"), &norm.weight, false));
    all.push(Parameter::new(format!("{name}.bias"), &norm.bias, false));
}

fn push_linear<'a>(all: &mut Vec<Parameter<'a>>, name: &str, linear: &'a Linear) {
    all.push(Parameter {
        transposed: true,
        ..Parameter::new(format!("{name}.weight"), &linear.weight, true)
    });
    if let Some(bias) = &linear.bias {
        all.push(Parameter::new(format!("{name}.bias"), bias, false));
    }
}
