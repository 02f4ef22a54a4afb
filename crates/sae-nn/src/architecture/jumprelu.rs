//! The features whose pre-activations are above thresholds of their own, which are trained.

use std::path::Path;

use tch::Tensor;

use super::{Algorithm, Exported, Kept, Mode, pre_activations};
use crate::tape::Differentiable;
use crate::{Dictionary, SaeError, Tape, loss};

/// The parameter `log θ [F]`, so that θ stays above 0.
const LOG_THRESHOLD: &str = "log_threshold";

/// See `sae_config::architecture::JumpRelu`.
#[derive(Debug)]
pub(super) struct JumpRelu {
    options: sae_config::architecture::JumpRelu,
}

/// What is above the thresholds, with gradients that reach them.
struct Gated {
    /// `pre · 1[pre > θ]`, `[..., F]`.
    features: Tensor,
    /// `1[pre > θ]`, `[..., F]`.
    active: Tensor,
}

impl JumpRelu {
    pub fn of(options: sae_config::architecture::JumpRelu) -> Self {
        Self { options }
    }

    /// Pre-activations, `[..., F]`, and θ, `[F]`, in single precision at least: in bfloat16 hardly any pre-activation would be as
    /// near to a threshold as ε.
    fn compared(dictionary: &Dictionary, x: &Tensor) -> Result<(Tensor, Tensor), SaeError> {
        let kind = loss::wide(x);
        let pre = pre_activations(dictionary, &x.f_to_kind(kind)?)?;
        Ok((pre, dictionary.parameter(LOG_THRESHOLD)?.f_exp()?.f_to_kind(kind)?))
    }

    fn gated(&self, dictionary: &Dictionary, x: &Tensor) -> Result<Gated, SaeError> {
        let (pre, threshold) = Self::compared(dictionary, x)?;
        let (kind, value) = (pre.kind(), threshold.f_detach()?);
        let above = pre.f_detach()?.f_sub(&value)?;
        let active = above.f_gt(0.0)?.f_to_kind(kind)?;
        // 1/ε in the rectangle, 0 elsewhere, times θ − θ: nothing is added, and θ's gradient is there.
        let bandwidth = self.options.bandwidth.get();
        let near = above.f_abs()?.f_lt(bandwidth / 2.0)?.f_to_kind(kind)?;
        let estimate = near.f_div_scalar(bandwidth)?.f_mul(&threshold.f_sub(&value)?)?;
        let features = pre.f_mul(&active)?.f_sub(&estimate.f_mul(&value)?)?;
        Ok(Gated { features: features.f_to_kind(x.kind())?, active: active.f_sub(&estimate)? })
    }

    /// The features alone, without a gradient that reaches the thresholds.
    fn features(dictionary: &Dictionary, x: &Tensor) -> Result<Tensor, SaeError> {
        let (pre, threshold) = Self::compared(dictionary, x)?;
        let active = pre.f_gt_tensor(&threshold)?.f_to_kind(pre.kind())?;
        Ok(pre.f_mul(&active)?.f_to_kind(x.kind())?)
    }
}

impl Algorithm for JumpRelu {
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![(LOG_THRESHOLD, self.options.initial_threshold.get().ln())]
    }

    fn encode(
        &self,
        dictionary: &Dictionary,
        x: &Tensor,
        mode: Mode,
    ) -> Result<Kept<Tensor>, SaeError> {
        Ok(Kept::all(match mode {
            Mode::Training => self.gated(dictionary, x)?.features,
            Mode::Inference => Self::features(dictionary, x)?,
        }))
    }

    fn pass(&self, dictionary: &Dictionary, x: &Tensor) -> Result<Tape, SaeError> {
        Tape::by_autograd(dictionary, x, |input| {
            let Gated { features, active } = self.gated(dictionary, input)?;
            Differentiable::of(dictionary, input, features, Some(active))
        })
    }

    fn exported(&self, dictionary: &Dictionary) -> Result<Exported, SaeError> {
        let threshold = dictionary.parameter(LOG_THRESHOLD)?.f_exp()?;
        let keys = serde_json::Map::new();
        Ok(Exported { architecture: "jumprelu", keys, threshold: Some(threshold) })
    }

    /// A threshold below 0 is what 0 is after SAELens's ReLU, and becomes the smallest number above it.
    fn import(
        &self,
        dictionary: &Dictionary,
        threshold: &Tensor,
        _: &Path,
    ) -> Result<(), SaeError> {
        let mut own = dictionary.parameter(LOG_THRESHOLD)?.f_detach()?;
        own.f_copy_(&threshold.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_log()?)?;
        Ok(())
    }
}
