//! The terms of a loss, one file a term: where in a member's passes each looks, and its value there at unit coefficient.
//! Their options stand in `sae-config::loss`.

mod downstream;
mod fvu;
mod kl;
mod local;
mod output;
mod sparsity;

use std::fmt::Debug;

use sae_config::Site;
use sae_config::loss::{LossConfig, Scope, Term as Options};
use sae_model::ModelConfig;
use sae_nn::Tape;
use tch::Tensor;

use crate::spliced::CleanPass;
use crate::{SpliceError, SplicedModel};

/// What a term computes. It looks at splice points, at sites after them, or at the model's output, and implements
/// the functions of the places where it looks.
pub(crate) trait Term: Debug {
    /// The sites after the dictionaries at whose activations it looks, in the order of computation.
    fn sites(&self) -> &[Site] {
        &[]
    }

    /// What a splice point adds to the term, a scalar; autograd takes its gradients with respect to the target and the
    /// reconstructions.
    fn at_splice_point(&self, _at: &AtSplicePoint<'_>) -> Result<Option<Tensor>, SpliceError> {
        Ok(None)
    }

    /// What the activation at one of its sites, `[B, T, width]`, adds to the term, a scalar; autograd takes its gradient
    /// with respect to the spliced one.
    fn at_site(&self, _spliced: &Tensor, _clean: &Tensor) -> Result<Option<Tensor>, SpliceError> {
        Ok(None)
    }

    /// How the term is computed at the model's output.
    fn at_output(&self) -> Option<AtOutput> {
        None
    }
}

/// A splice point, as terms see it.
pub(crate) struct AtSplicePoint<'a> {
    /// The site that is written.
    pub site: Site,
    /// The code of what was read.
    pub tape: &'a Tape,
    /// The activation that is replaced, as the model computes it, `[B, T, width]`; of an SAE, what it reads.
    pub target: &'a Tensor,
    /// The reconstructions, one a prefix, `[B, T, width]`.
    pub reconstructions: &'a [Tensor],
    /// The original activations.
    pub clean: &'a CleanPass,
}

impl AtSplicePoint<'_> {
    /// The mean over the reconstructions, of which most dictionaries have one, of what `value` makes of each.
    fn mean(
        &self,
        value: impl Fn(&Tensor) -> Result<Tensor, SpliceError>,
    ) -> Result<Tensor, SpliceError> {
        match self.reconstructions {
            [one] => value(one),
            all => {
                let values = all.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                Ok(Tensor::f_stack(&values, 0)?.f_mean(None)?)
            }
        }
    }
}

/// Computes a term at the model's output for several spliced passes at once, of the original's final hidden state and those
/// of the passes, `[N, D]` each. It knows no options, because the passes may be of several members.
pub(crate) type AtOutput =
    fn(&SplicedModel, &Tensor, &[&Tensor]) -> Result<Vec<OutputValue>, SpliceError>;

/// A term at the model's output.
pub(crate) struct OutputValue {
    /// A scalar.
    pub value: Tensor,
    /// With respect to the final hidden state of the spliced pass, `[N, D]`.
    pub gradient: Tensor,
}

/// A term of a member's loss.
#[derive(Debug)]
pub(crate) struct MemberTerm {
    /// As in the configuration and in records.
    pub name: &'static str,
    /// The coefficient; a term of coefficient 0 is recorded and not trained on.
    pub coeff: f64,
    pub scope: Scope,
    pub term: Box<dyn Term>,
}

impl MemberTerm {
    fn of(options: Options<'_>) -> Self {
        // One line a term.
        let term: Box<dyn Term> = match options {
            Options::Sparsity(options) => Box::new(sparsity::Sparsity::of(options)),
            Options::Local(_) => Box::new(local::Local),
            Options::Fvu(_) => Box::new(fvu::Fvu),
            Options::Output(_) => Box::new(output::Output),
            Options::Downstream(options) => Box::new(downstream::Downstream::of(options)),
            Options::Kl(_) => Box::new(kl::Kl),
        };
        let (name, coeff, scope) = (options.name(), options.coeff().get(), options.scope());
        Self { name, coeff, scope, term }
    }

    /// The weight of the value at each of its sites: the term is their mean.
    pub fn share(&self) -> f64 {
        1.0 / self.term.sites().len().max(1) as f64
    }
}

/// The terms of a loss, in the order in which they are recorded.
pub(crate) fn of(loss: &LossConfig) -> Vec<MemberTerm> {
    loss.terms().into_iter().map(MemberTerm::of).collect()
}

/// The loss with every site that it leaves to the model, where dictionaries write `written`, in the order of computation.
pub(crate) fn resolved(
    loss: &LossConfig,
    model: &ModelConfig,
    written: &[Site],
) -> Result<LossConfig, SpliceError> {
    let mut loss = loss.clone();
    if let Some(options) = &mut loss.downstream {
        downstream::resolve(options, model, written)?;
    }
    Ok(loss)
}
