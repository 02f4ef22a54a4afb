//! The transformer: embedding, blocks with hook sites, final norm, unembedding.
//!
//! `B` batch, `T` context length, `D` d_model, `V` vocabulary.

use std::collections::BTreeSet;
use std::ops::Range;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sae_config::{Site, SiteKind};
use tch::{Device, Kind, TchError, Tensor};

use crate::attention::Attention;
use crate::config::Positions;
use crate::linear::Linear;
use crate::mlp::Mlp;
use crate::norm::Norm;
use crate::rotary::{Angles, Rotary};
use crate::{ModelConfig, ModelError};

/// Sees the activation at a site, `[B, T, width]`, and returns what the model goes on with.
pub type Hook<'a, E> = dyn FnMut(Site, Tensor) -> Result<Tensor, E> + 'a;

/// A decoder-only transformer.
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    rotary: Option<Rotary>,
    pub(crate) parts: Parts,
}

/// The weights of a transformer.
#[derive(Debug)]
pub(crate) struct Parts {
    /// `[V, D]`.
    pub token_embedding: Tensor,
    /// `[context, D]`; rotary models have none.
    pub position_embedding: Option<Tensor>,
    pub blocks: Vec<Block>,
    pub final_norm: Norm,
    /// `[V, D]`; the token embedding where the two are tied.
    pub unembedding: Tensor,
    /// `[V]`; few models have one, processing makes one.
    pub unembedding_bias: Option<Tensor>,
}

/// Attention and MLP, each behind its norm, each added to the residual stream.
#[derive(Debug)]
pub(crate) struct Block {
    pub norm_1: Norm,
    pub attention: Attention,
    pub norm_2: Norm,
    pub mlp: Mlp,
}

impl Block {
    /// What the heads mix of the residual stream before the block.
    fn attended(&self, pre: &Tensor, angles: Option<&Angles>) -> Result<Tensor, ModelError> {
        Ok(self.attention.mixed(&self.norm_1.forward(pre)?, angles)?)
    }
}

/// An error of libtorch's as one of the model's.
fn torch(computed: Result<Tensor, TchError>) -> Result<Tensor, ModelError> {
    Ok(computed?)
}

/// What turns a final hidden state into logits: `hidden · weightᵀ + bias`.
#[derive(Debug, Clone, Copy)]
pub struct Unembedding<'a> {
    /// `W_U`, `[V, D]`.
    pub weight: &'a Tensor,
    /// `b_U`, `[V]`.
    pub bias: Option<&'a Tensor>,
}

impl Transformer {
    pub(crate) fn new(config: ModelConfig, parts: Parts) -> Result<Self, ModelError> {
        let like = &parts.token_embedding;
        let rotary = match &config.positions {
            Positions::Learned => None,
            Positions::Rotary(rotary) => Some(Rotary::new(rotary, like.device(), like.kind())?),
        };
        Ok(Self { config, rotary, parts })
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
        let &ModelConfig { n_layers, d_model: d, d_mlp, context_length, vocabulary, .. } = &config;
        let filled = |n: usize, value: f64| Tensor::f_full([n as i64], value, (kind, device));
        let norm = || -> Result<Norm, ModelError> {
            let (weight, bias) = (Some(filled(d, 1.0)?), Some(filled(d, 0.0)?));
            Ok(Norm { kind: config.norm, weight, bias, eps: config.norm_eps })
        };
        let std = 0.02;
        let writing_std = std / (2.0 * n_layers as f64).sqrt();
        let token_embedding = normal(&[vocabulary, d], std)?;
        let position_embedding = normal(&[context_length, d], std)?;
        let mut linear = |out: usize, input: usize, std: f64| -> Result<Linear, ModelError> {
            Ok(Linear { weight: normal(&[out, input], std)?, bias: Some(filled(out, 0.0)?) })
        };
        let mut blocks = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            blocks.push(Block {
                norm_1: norm()?,
                attention: Attention::of(
                    &config,
                    layer,
                    linear(3 * d, d, std)?,
                    linear(d, d, writing_std)?,
                ),
                norm_2: norm()?,
                mlp: Mlp {
                    up: linear(d_mlp, d, std)?,
                    gate: None,
                    down: linear(d, d_mlp, writing_std)?,
                    activation: config.activation,
                },
            });
        }
        let unembedding = token_embedding.shallow_clone();
        let final_norm = norm()?;
        let parts = Parts {
            token_embedding,
            position_embedding: Some(position_embedding),
            blocks,
            final_norm,
            unembedding,
            unembedding_bias: None,
        };
        Self::new(config, parts)
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.parts.token_embedding.device()
    }

    /// The precision of the blocks' weights, and of activations.
    pub fn kind(&self) -> Kind {
        self.parts.token_embedding.kind()
    }

    /// The precision of what is never lowered: the unembedding, and the final hidden state that it acts on.
    pub fn full_kind(&self) -> Kind {
        self.parts.unembedding.kind()
    }

    /// The residual stream before the first block.
    ///
    /// # Shapes
    /// `tokens: [B, T]` of ids below V → `[B, T, D]`.
    pub fn embed(&self, tokens: &Tensor) -> Result<Tensor, ModelError> {
        let (_, t) = tokens.size2()?;
        self.config.check_context(t as usize)?;
        let embedded = Tensor::f_embedding(&self.parts.token_embedding, tokens, -1, false, false)?;
        match &self.parts.position_embedding {
            None => Ok(embedded),
            Some(positions) => Ok(embedded.f_add(&positions.f_narrow(0, 0, t)?)?),
        }
    }

    /// Runs some of the blocks, showing the activations at `sites` to `hook`; returns the residual stream after the last of
    /// the blocks. An error of the hook ends the run.
    ///
    /// # Shapes
    /// `residual: [B, T, D]`, the residual stream before the first of the blocks → `[B, T, D]`.
    pub fn run_to_end<E: From<ModelError>>(
        &self,
        blocks: Range<usize>,
        residual: Tensor,
        sites: &BTreeSet<Site>,
        hook: &mut Hook<'_, E>,
    ) -> Result<Tensor, E> {
        let last = self.run(blocks, residual, sites, &mut |site, x| hook(site, x).map(Some))?;
        // Only a hook that gives nothing ends a run before its end.
        last.ok_or_else(|| {
            E::from(ModelError::Torch(TchError::Shape("a run ended early".to_owned())))
        })
    }

    /// Runs the blocks from block `from` on up to the site `until`, which is the last that is computed, showing the
    /// activations at `sites` to `hook`.
    ///
    /// # Shapes
    /// `residual: [B, T, D]`, the residual stream before block `from`.
    pub fn run_until<E: From<ModelError>>(
        &self,
        from: usize,
        residual: Tensor,
        until: Site,
        sites: &BTreeSet<Site>,
        hook: &mut Hook<'_, E>,
    ) -> Result<(), E> {
        let blocks = from..(until.block + 1).min(self.parts.blocks.len());
        let mut shown = sites.clone();
        shown.insert(until);
        self.run::<E>(blocks, residual, &shown, &mut |site, x| {
            let x = if sites.contains(&site) { hook(site, x)? } else { x };
            Ok((site != until).then_some(x))
        })?;
        Ok(())
    }

    /// Runs blocks until `visit` gives nothing to go on with.
    fn run<E: From<ModelError>>(
        &self,
        blocks: Range<usize>,
        residual: Tensor,
        sites: &BTreeSet<Site>,
        visit: &mut dyn FnMut(Site, Tensor) -> Result<Option<Tensor>, E>,
    ) -> Result<Option<Tensor>, E> {
        let angles = self.angles(&residual)?;
        let mut x = residual;
        let chosen = self.parts.blocks.iter().enumerate().take(blocks.end).skip(blocks.start);
        for (index, block) in chosen {
            let mut at = |kind: SiteKind, x: Tensor| {
                let site = Site { block: index, kind };
                if sites.contains(&site) { visit(site, x) } else { Ok(Some(x)) }
            };
            let normalized = Site { block: index, kind: SiteKind::MlpNormalized };
            let shows_norm = sites.contains(&normalized);
            let Some(pre) = at(SiteKind::ResidPre, x)? else { return Ok(None) };
            let mixed = block.attended(&pre, angles.as_ref())?;
            let Some(mixed) = at(SiteKind::AttnZ, mixed)? else { return Ok(None) };
            let attn_out = torch(block.attention.out.forward(&mixed))?;
            let Some(attn_out) = at(SiteKind::AttnOut, attn_out)? else { return Ok(None) };
            let mut mid = torch(pre.f_add(&attn_out))?;
            let mlp_input = if self.config.parallel_residual {
                pre
            } else {
                let Some(seen) = at(SiteKind::ResidMid, mid)? else { return Ok(None) };
                mid = seen;
                mid.shallow_clone()
            };
            let mlp_in = if shows_norm {
                let unscaled = torch(block.norm_2.unscaled(&mlp_input))?;
                let shown = unscaled.data_ptr();
                let Some(seen) = at(SiteKind::MlpNormalized, unscaled)? else { return Ok(None) };
                // What was only looked at is computed as without a look, to the same bits.
                if seen.data_ptr() == shown {
                    torch(block.norm_2.forward(&mlp_input))?
                } else {
                    torch(block.norm_2.scale(&seen))?
                }
            } else {
                torch(block.norm_2.forward(&mlp_input))?
            };
            let Some(mlp_in) = at(SiteKind::MlpIn, mlp_in)? else { return Ok(None) };
            let hidden = torch(block.mlp.hidden(&mlp_in))?;
            let Some(hidden) = at(SiteKind::MlpPost, hidden)? else { return Ok(None) };
            let mlp_out = torch(block.mlp.down.forward(&hidden))?;
            let Some(mlp_out) = at(SiteKind::MlpOut, mlp_out)? else { return Ok(None) };
            let post = torch(mid.f_add(&mlp_out))?;
            let Some(post) = at(SiteKind::ResidPost, post)? else { return Ok(None) };
            x = post;
        }
        Ok(Some(x))
    }

    /// The angles of the positions of a residual stream, `[B, T, D]`, in a rotary model.
    fn angles(&self, residual: &Tensor) -> Result<Option<Angles>, ModelError> {
        match &self.rotary {
            None => Ok(None),
            Some(rotary) => Ok(Some(rotary.angles(residual.size3()?.1, residual.kind())?)),
        }
    }

    /// The final hidden state, on which the unembedding acts, in full precision.
    ///
    /// # Shapes
    /// `residual: [B, T, D]` → `[B, T, D]`.
    pub fn final_norm(&self, residual: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.parts.final_norm.forward(&residual.f_to_kind(self.full_kind())?)?)
    }

    /// What turns a final hidden state into logits.
    pub fn unembedding(&self) -> Unembedding<'_> {
        Unembedding { weight: &self.parts.unembedding, bias: self.parts.unembedding_bias.as_ref() }
    }

    /// Logits of a final hidden state.
    ///
    /// # Shapes
    /// `hidden: [..., D]` → `[..., V]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        Ok(hidden.f_linear(&self.parts.unembedding, self.parts.unembedding_bias.as_ref())?)
    }

    /// What directions of the residual stream add to the logits directly (the logit lens of nostalgebraist 2020), up to the scale
    /// that the final norm gives a token: centred where that norm centres, times its weight, then the unembedding without its
    /// bias.
    ///
    /// # Shapes
    /// `directions: [..., D]` → `[..., V]`.
    pub fn direct_logits(&self, directions: &Tensor) -> Result<Tensor, ModelError> {
        let directions = directions.f_to_kind(self.full_kind())?;
        let through = self.parts.final_norm.direct(&directions)?;
        Ok(through.f_linear(&self.parts.unembedding, None::<&Tensor>)?)
    }

    /// Whether the unembedding is the token embedding.
    pub(crate) fn is_tied(&self) -> bool {
        self.parts.unembedding.data_ptr() == self.parts.token_embedding.data_ptr()
    }

    /// All parameters, each once, with the names that GPT-2's weights have on disk, and whether weight decay applies
    /// (to matrices; not to biases, norms and embeddings of positions).
    pub fn parameters(&self) -> Vec<Parameter<'_>> {
        let parts = &self.parts;
        let mut all = vec![Parameter::new("transformer.wte.weight", &parts.token_embedding, true)];
        if let Some(positions) = &parts.position_embedding {
            all.push(Parameter::new("transformer.wpe.weight", positions, false));
        }
        for (index, block) in parts.blocks.iter().enumerate() {
            let name = |rest: &str| format!("transformer.h.{index}.{rest}");
            push_norm(&mut all, &name("ln_1"), &block.norm_1);
            push_linear(&mut all, &name("attn.c_attn"), &block.attention.qkv);
            push_linear(&mut all, &name("attn.c_proj"), &block.attention.out);
            push_norm(&mut all, &name("ln_2"), &block.norm_2);
            push_linear(&mut all, &name("mlp.c_fc"), &block.mlp.up);
            if let Some(gate) = &block.mlp.gate {
                push_linear(&mut all, &name("mlp.gate"), gate);
            }
            push_linear(&mut all, &name("mlp.c_proj"), &block.mlp.down);
        }
        push_norm(&mut all, "transformer.ln_f", &parts.final_norm);
        if !self.is_tied() {
            all.push(Parameter::new("lm_head.weight", &parts.unembedding, true));
        }
        if let Some(bias) = &parts.unembedding_bias {
            all.push(Parameter::new("lm_head.bias", bias, false));
        }
        all
    }

    /// Numbers in all parameters, tied ones counted once.
    pub fn n_parameters(&self) -> usize {
        self.parameters().iter().map(|parameter| parameter.tensor.numel()).sum()
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

fn push_norm<'a>(all: &mut Vec<Parameter<'a>>, name: &str, norm: &'a Norm) {
    if let Some(weight) = &norm.weight {
        all.push(Parameter::new(format!("{name}.weight"), weight, false));
    }
    if let Some(bias) = &norm.bias {
        all.push(Parameter::new(format!("{name}.bias"), bias, false));
    }
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
