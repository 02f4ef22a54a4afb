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
    /// Attention heads; they divide D.
    pub n_heads: usize,
    /// Width of the MLP's hidden layer.
    pub d_mlp: usize,
    /// Longest context, in tokens.
    pub context_length: usize,
    /// Vocabulary, V.
    pub vocabulary: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The MLP's activation function.
    pub activation: Activation,
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
}

impl ModelConfig {
    /// Parameters of the model, the tied unembedding counted once.
    pub fn n_parameters(&self) -> usize {
        let Self { n_layers, d_model: d, d_mlp, context_length, vocabulary, .. } = *self;
        let attention = 4 * d * d + 4 * d;
        let mlp = 2 * d * d_mlp + d_mlp + d;
        vocabulary * d + context_length * d + n_layers * (attention + mlp + 4 * d) + 2 * d
    }

    /// All sites, in the order of computation.
    pub fn sites(&self) -> impl Iterator<Item = Site> + use<> {
        (0..self.n_layers)
            .flat_map(|block| SiteKind::ALL.into_iter().map(move |kind| Site { block, kind }))
    }

    /// Refuses a site that the model does not have.
    pub fn check_site(&self, site: Site) -> Result<(), ModelError> {
        if site.block < self.n_layers {
            return Ok(());
        }
        let kinds: Vec<&str> = SiteKind::ALL.into_iter().map(SiteKind::name).collect();
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
