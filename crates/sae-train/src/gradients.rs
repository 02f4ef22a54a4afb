//! The gradients of a bank's members in an optimiser step, summed over its micro-batches.

use std::ops::Range;

use sae_splice::profile::{Part, time};
use sae_splice::{LossTerms, Member, SplicedModel};
use tch::{Tensor, no_grad};

use crate::TrainError;
use crate::optim::{global_norm, read};

/// What a member's dictionaries are to observe of a micro-batch, each with its number.
pub(crate) type Observed = Vec<(usize, Vec<Tensor>)>;

/// A member's gradients and loss of one step, before it is updated.
pub(crate) struct StepGradients {
    /// In the order of [`Member::parameters`].
    pub gradients: Vec<Tensor>,
    /// Means over the micro-batches.
    pub terms: LossTerms,
    /// Of every micro-batch.
    pub observed: Vec<Observed>,
    pub loss: f64,
    /// The norm of all gradients.
    pub norm: f64,
}

/// The gradients of every member over the micro-batches with these numbers. `next` gives one micro-batch, `[B, T]`, a call.
pub(crate) fn of_step(
    model: &SplicedModel,
    members: &[&Member],
    micro_batches: Range<u64>,
    mut next: impl FnMut() -> Result<Tensor, TrainError>,
) -> Result<Vec<StepGradients>, TrainError> {
    let scale = 1.0 / (micro_batches.end - micro_batches.start) as f64;
    let mut sums: Vec<Vec<Tensor>> = Vec::new();
    let mut terms: Vec<Vec<LossTerms>> = members.iter().map(|_| Vec::new()).collect();
    let mut observed: Vec<Vec<Observed>> = members.iter().map(|_| Vec::new()).collect();
    for micro_batch in micro_batches.clone() {
        let tokens = time(Part::Data, &mut next)?;
        let outcomes = model.gradients(members, &tokens, scale, micro_batch)?;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            terms[index].push(outcome.terms);
            observed[index].push(outcome.observed);
            if micro_batch == micro_batches.start {
                sums.push(outcome.gradients);
                continue;
            }
            no_grad(|| {
                for (sum, gradient) in sums[index].iter_mut().zip(&outcome.gradients) {
                    let _ = sum.f_add_(gradient)?;
                }
                Ok::<(), TrainError>(())
            })?;
        }
    }
    time(Part::Optimiser, || {
        let terms =
            terms.iter().map(|terms| LossTerms::mean(terms)).collect::<Result<Vec<_>, _>>()?;
        let mut scalars = Vec::with_capacity(2 * members.len());
        for (gradients, terms) in sums.iter().zip(&terms) {
            scalars.extend([terms.total.shallow_clone(), global_norm(gradients)?]);
        }
        // Read all at once, because a GPU works behind the program that asks it to.
        let scalars = read(&scalars)?;
        let all = sums.into_iter().zip(terms).zip(observed).zip(scalars.chunks_exact(2));
        Ok(all
            .map(|(((gradients, terms), observed), scalars)| StepGradients {
                gradients,
                terms,
                observed,
                loss: scalars[0],
                norm: scalars[1],
            })
            .collect())
    })
}
