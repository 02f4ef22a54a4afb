//! Architectures of dictionaries: what each computes, one file an architecture. Their options stand in
//! `sae-config::architecture`, likewise.
//!
//! An architecture says which of the features that a ReLU has let through are kept ([`Algorithm::keep`]); everything else has
//! a default: the linear encoder, gradients written out for it, a fast path on CPUs. One whose gradients differ (those of a
//! threshold that is trained, for example) names its own parameters, and overrides [`Algorithm::encode`] with differentiable
//! operations and [`Algorithm::pass`] with [`Tape::by_autograd`].

mod batch_topk;
mod jumprelu;
mod matryoshka;
mod relu;
mod topk;

use std::fmt::Debug;
use std::path::Path;

use sae_config::Architecture;
use sae_kernels::RowSums;
use tch::{TchError, Tensor};

use crate::{Dictionary, SaeError, Tape, kernels};

/// What computes an architecture. One line an architecture.
pub(crate) fn of(options: &Architecture) -> Box<dyn Algorithm> {
    match options {
        Architecture::Relu(_) => Box::new(relu::Relu),
        Architecture::TopK(options) => Box::new(topk::TopK::of(*options)),
        Architecture::BatchTopK(options) => Box::new(batch_topk::BatchTopK::of(*options)),
        Architecture::Matryoshka(options) => Box::new(matryoshka::of(options)),
        Architecture::JumpRelu(options) => Box::new(jumprelu::JumpRelu::of(*options)),
    }
}

/// Whether a code is made in training or for use. Architectures may differ: a batch of training chooses its features
/// together, a token in use by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Training,
    Inference,
}

/// Scalars that an architecture remembers, with names.
#[derive(Debug)]
pub(crate) struct Buffers(pub Vec<(&'static str, Tensor)>);

impl Buffers {
    /// The buffer of a name.
    pub fn get(&self, name: &str) -> Result<&Tensor, SaeError> {
        let found = self.0.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor);
        Ok(found.ok_or_else(|| TchError::Shape(format!("no buffer is named {name}")))?)
    }
}

/// A code, and what was observed on the way, for [`Algorithm::observe`].
#[derive(Debug)]
pub(crate) struct Kept<T> {
    pub features: T,
    pub observed: Vec<Tensor>,
}

impl<T> Kept<T> {
    /// A code where there is nothing to observe.
    pub fn all(features: T) -> Self {
        Self { features, observed: Vec::new() }
    }
}

/// What a folder in SAELens's format says of an architecture.
#[derive(Debug)]
pub(crate) struct Exported {
    /// SAELens's name of what computes the same at inference.
    pub architecture: &'static str,
    /// Keys of `cfg.json` beside those that every architecture has.
    pub keys: serde_json::Map<String, serde_json::Value>,
    /// The tensor `threshold [F]`, where there is one: what pre-activations have to be above.
    pub threshold: Option<Tensor>,
}

/// What an architecture computes.
pub(crate) trait Algorithm: Debug + Send + Sync {
    /// Which features are kept; the others become 0. Differentiable, on any device and in any precision. The default keeps
    /// all.
    ///
    /// # Shapes
    /// `features: [N, F]`, none below 0.
    fn keep(
        &self,
        features: Tensor,
        _buffers: &Buffers,
        _mode: Mode,
    ) -> Result<Kept<Tensor>, SaeError> {
        Ok(Kept::all(features))
    }

    /// Whether [`Algorithm::keep`] keeps all, so that features need not be made before they are counted.
    fn keeps_all(&self) -> bool {
        false
    }

    /// The same in training, in the memory of f32 features on a CPU, with the sums of every token.
    ///
    /// # Shapes
    /// `features: [N, F]`, N sums.
    fn keep_counted(
        &self,
        features: &mut Tensor,
        _sums: Vec<RowSums>,
        buffers: &Buffers,
    ) -> Result<Kept<Vec<RowSums>>, SaeError> {
        let kept = self.keep(features.f_detach_copy()?, buffers, Mode::Training)?;
        features.f_copy_(&kept.features)?;
        Ok(Kept { features: kernels::relu(features)?, observed: kept.observed })
    }

    /// The names of parameters beside those of every dictionary, `[F]` each, and what their numbers begin with.
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The names of the buffers, and what they begin with.
    fn buffers(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// Takes in what [`Algorithm::keep`] has observed in training.
    fn observe(&self, _buffers: &Buffers, _observed: &[Tensor]) -> Result<(), SaeError> {
        Ok(())
    }

    /// Feature activations by differentiable operations.
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., F]`.
    fn encode(
        &self,
        dictionary: &Dictionary,
        x: &Tensor,
        mode: Mode,
    ) -> Result<Kept<Tensor>, SaeError> {
        let features = pre_activations(dictionary, x)?.f_relu()?;
        self.keep(features, dictionary.buffer_values(), mode)
    }

    /// A pass in training. The default's gradients are those of a linear encoder whose kept features are passed on as they
    /// are.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    fn pass(&self, dictionary: &Dictionary, x: &Tensor) -> Result<Tape, SaeError> {
        Tape::written(dictionary, x)
    }

    /// What SAELens computes the same with.
    fn exported(&self, dictionary: &Dictionary) -> Result<Exported, SaeError>;

    /// Takes over `threshold`, as [`Algorithm::exported`] gives it, of the weights at `path`. The default is of an
    /// architecture that has none.
    ///
    /// # Shapes
    /// `threshold: [F]`, in f64.
    fn import(
        &self,
        dictionary: &Dictionary,
        _threshold: &Tensor,
        path: &Path,
    ) -> Result<(), SaeError> {
        let name = dictionary.options().name();
        let message =
            format!("it has a tensor `threshold`, which a {name} dictionary does not have");
        Err(SaeError::Format { path: path.to_owned(), message })
    }
}

/// What the linear encoder makes of an input, by differentiable operations, in the precision of `x`.
///
/// # Shapes
/// `x: [..., D]` → `[..., F]`.
fn pre_activations(dictionary: &Dictionary, x: &Tensor) -> Result<Tensor, SaeError> {
    let kind = x.kind();
    let weight = dictionary.w_enc().f_to_kind(kind)?;
    let bias = dictionary.b_enc().f_to_kind(kind)?;
    Ok(x.f_linear(&weight, Some(&bias))?)
}

#[cfg(test)]
mod tests {
    use sae_config::Architecture;

    #[test]
    fn every_architecture_has_its_computation() {
        // The options, and what computes them: Matryoshka chooses features as BatchTopK does.
        let cases = [
            (r#"{"relu": {}}"#, "Relu"),
            (r#"{"topk": {"k": 2}}"#, "TopK {"),
            (r#"{"batch_topk": {"k": 2}}"#, "BatchTopK {"),
            (r#"{"matryoshka": {"k": 2}}"#, "BatchTopK {"),
            (r#"{"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.5}}"#, "JumpRelu {"),
        ];
        assert_eq!(cases.len(), Architecture::NAMES.len());
        for ((case, computed_by), name) in cases.into_iter().zip(Architecture::NAMES) {
            let options: Architecture = serde_json::from_str(case).unwrap();
            assert_eq!(options.name(), *name);
            let shown = format!("{:?}", super::of(&options));
            assert!(shown.starts_with(computed_by), "{name}: {shown}");
        }
    }
}
