//! The hyper-parameters of a model of any supported family.

use sae_config::{Site, SiteKind};

use crate::ModelError;

/// Hyper-parameters, whatever the family calls them.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Layers, L.
    pub n_layers: usize,
    /// Width of the residual stream, D.
    pub d_model: usize,
    /// Attention heads, H.
    pub n_heads: usize,
    /// Heads of keys and values; each serves `n_heads / n_kv_heads` heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Width of the MLP's hidden layer.
    pub d_mlp: usize,
    /// Longest context, in tokens.
    pub context_length: usize,
    /// Vocabulary, V.
    pub vocabulary: usize,
    /// The norm before attention, MLP and unembedding.
    pub norm: NormKind,
    /// Added to the variance (mean square) in norms.
    pub norm_eps: f64,
    /// The MLP's activation function.
    pub activation: Activation,
    /// How attention tells positions apart.
    pub positions: Positions,
    /// What multiplies attention scores; `1 / √d_head` where left out.
    pub score_scale: Option<f64>,
    /// For each block, how many positions back attention sees, its own counted; all where left out. Empty: all, in
    /// every block.
    pub windows: Vec<Option<usize>>,
    /// Attention and MLP both read the residual stream before the block, which then has no `hook_resid_mid`.
    pub parallel_residual: bool,
}

/// Activation functions of MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in its tanh approximation (`gelu_new`).
    GeluTanh,
    /// GELU by the error function (`gelu`).
    Gelu,
    /// ReLU.
    Relu,
    /// x · sigmoid(x) (`silu`, `swish`).
    Silu,
}

/// Norms of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Mean to 0, variance to 1.
    Layer,
    /// Mean square to 1.
    Rms,
}

/// How attention tells positions apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// An embedding a position, added to the token's.
    Learned,
    /// Rotation of queries and keys.
    Rotary(RotaryConfig),
}

/// Rotary positions: the first `dims` dimensions of every head are rotated, dimension `i` together with `i + dims / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryConfig {
    /// Dimensions that are rotated, even.
    pub dims: usize,
    /// The base of the frequencies, `theta`.
    pub base: f64,
    /// How the frequencies were stretched for longer contexts.
    pub scaling: RotaryScaling,
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RotaryScaling {
    /// As they are.
    None,
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3's: low frequencies divided by a factor, high ones kept, those between interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original_context / low` are divided.
        low: f64,
        /// Wavelengths below `original_context / high` are kept.
        high: f64,
        /// The context of the pretraining.
        original_context: f64,
    },
}

impl ModelConfig {
    /// A GPT-2 of these sizes, as its authors made them: `d_mlp` is 4·D, heads divide D.
    pub fn gpt2(
        n_layers: usize,
        d_model: usize,
        n_heads: usize,
        context_length: usize,
        vocabulary: usize,
    ) -> Self {
        Self {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head: d_model / n_heads.max(1),
            d_mlp: 4 * d_model,
            context_length,
            vocabulary,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            activation: Activation::GeluTanh,
            positions: Positions::Learned,
            score_scale: None,
            windows: Vec::new(),
            parallel_residual: false,
        }
    }

    /// The kinds of sites that the model's blocks have, in the order of computation.
    pub fn site_kinds(&self) -> impl Iterator<Item = SiteKind> + use<> {
        let parallel = self.parallel_residual;
        SiteKind::ALL.into_iter().filter(move |kind| !(parallel && *kind == SiteKind::ResidMid))
    }

    /// The width of the activations of a kind of site.
    pub fn width(&self, kind: SiteKind) -> usize {
        match kind {
            SiteKind::AttnZ => self.n_heads * self.d_head,
            SiteKind::MlpPost => self.d_mlp,
            _ => self.d_model,
        }
    }

    /// All sites, in the order of computation.
    pub fn sites(&self) -> impl Iterator<Item = Site> + use<> {
        let kinds: Vec<SiteKind> = self.site_kinds().collect();
        (0..self.n_layers)
            .flat_map(move |block| kinds.clone().into_iter().map(move |kind| Site { block, kind }))
    }

    /// Refuses a site that the model does not have.
    pub fn check_site(&self, site: Site) -> Result<(), ModelError> {
        if site.block < self.n_layers && self.site_kinds().any(|kind| kind == site.kind) {
            return Ok(());
        }
        let kinds: Vec<&str> = self.site_kinds().map(SiteKind::name).collect();
        let known =
            format!("blocks.0 to blocks.{}, each with {}", self.n_layers - 1, kinds.join(", "));
        Err(ModelError::UnknownSite { site, known })
    }

    /// Refuses a context longer than the model's.
    pub fn check_context(&self, context_length: usize) -> Result<(), ModelError> {
        if context_length > self.context_length {
            return Err(ModelError::ContextLength {
                found: context_length,
                longest: self.context_length,
            });
        }
        Ok(())
    }
}
