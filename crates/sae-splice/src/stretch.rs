//! A member's way through the model and back: forward in stretches of blocks, cut at every SAE; back through each stretch
//! by autograd, and through each SAE by its own gradients.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::ops::Range;

use sae_config::Site;
use sae_nn::{Penalty, SaeError, SaePass, loss};
use tch::{Kind, Tensor, no_grad};

use crate::profile::{Part, time};
use crate::spliced::CleanPass;
use crate::{Member, SpliceError, SplicedModel};

/// A member's way forward.
pub(crate) struct Passes {
    /// All of it, with what the way back needs; none where that is to be computed again.
    whole: Option<Stretch>,
    /// Where each block begins, `[B, T, D]`, where the way back computes them again.
    starts: Vec<(usize, Tensor)>,
    hidden: Option<Tensor>,
}

/// Some blocks, with autograd's graph.
struct Stretch {
    /// The residual stream that it begins with, where a stretch before it wants its gradient; a leaf.
    start: Option<Tensor>,
    cuts: Vec<Cut>,
    /// Activations that the downstream term looks at.
    recorded: Vec<(Site, Tensor)>,
    /// The residual stream after it, or the final hidden state.
    end: Option<Tensor>,
}

/// An SAE, at which the graph ends and begins anew.
struct Cut {
    /// Its number among the member's.
    index: usize,
    /// What the model gave it: the end of the graph before.
    seen: Tensor,
    /// The same, for the loss's terms; a leaf where the graph goes on before it.
    input: Tensor,
    pass: SaePass,
    /// What the model goes on with; a leaf.
    output: Tensor,
}

/// The terms of a loss at unit coefficient, but KL, each summed over its sites.
#[derive(Default)]
pub(crate) struct Terms {
    pub sparsity: Sum,
    pub local: Sum,
    pub output: Sum,
    pub downstream: Sum,
    pub l0: Sum,
    /// With their coefficients.
    pub total: Sum,
}

/// A weighted sum of scalar tensors.
#[derive(Default)]
pub(crate) struct Sum(Option<Tensor>);

impl Passes {
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub fn hidden(&self) -> Option<&Tensor> {
        self.hidden.as_ref()
    }
}

impl Cut {
    fn new(member: &Member, index: usize, seen: Tensor) -> Result<Self, SaeError> {
        let pass = time(Part::Sae, || member.saes()[index].1.pass(&seen))?;
        let input = seen.f_detach()?.set_requires_grad(seen.requires_grad());
        let output = pass.reconstruction.f_detach()?.set_requires_grad(true);
        Ok(Self { index, seen, input, pass, output })
    }
}

impl SplicedModel {
    /// A member's way from its first SAE on, to where its loss looks last.
    pub(crate) fn passes(&self, member: &Member, clean: &CleanPass) -> Result<Passes, SpliceError> {
        if !member.is_spliced() {
            // Every SAE sees the clean activation, and nothing comes after it.
            let cut = |(index, (site, _)): (usize, &(Site, _))| {
                Ok(Cut::new(member, index, clean.activation(*site)?.shallow_clone())?)
            };
            let cuts = member.saes().iter().enumerate().map(cut);
            let cuts = cuts.collect::<Result<_, SpliceError>>()?;
            let whole = Stretch { start: None, cuts, recorded: Vec::new(), end: None };
            return Ok(Passes { whole: Some(whole), starts: Vec::new(), hidden: None });
        }
        let first = member.start();
        let start = clean.activation(Site::resid_pre(first))?;
        let blocks = first..self.model().config().n_layers;
        if !self.recomputes() {
            let whole = self.stretch(member, blocks, start)?;
            let hidden = whole.end.as_ref().map(Tensor::shallow_clone);
            return Ok(Passes { whole: Some(whole), starts: Vec::new(), hidden });
        }
        no_grad(|| {
            let mut starts = Vec::new();
            let mut see = |site: Site, x: &Tensor| {
                if site == Site::resid_pre(site.block) {
                    starts.push((site.block, x.shallow_clone()));
                }
            };
            let mut splice =
                |index: usize, x: Tensor| Ok(Cut::new(member, index, x)?.output.f_detach()?);
            let until = member.until();
            let last = self.spliced_run(member, blocks, start, until, &mut see, &mut splice)?;
            let hidden = last.map(|last| self.hidden(&last)).transpose()?;
            Ok(Passes { whole: None, starts, hidden })
        })
    }

    fn stretch(
        &self,
        member: &Member,
        blocks: Range<usize>,
        start: &Tensor,
    ) -> Result<Stretch, SpliceError> {
        let is_last = blocks.end == self.model().config().n_layers;
        let sites = member.downstream().map_or(&[][..], |term| &term.sites);
        let (mut cuts, mut recorded) = (Vec::new(), Vec::new());
        let mut see = |site: Site, x: &Tensor| {
            if sites.contains(&site) {
                recorded.push((site, x.shallow_clone()));
            }
        };
        let mut splice = |index: usize, x: Tensor| {
            let cut = Cut::new(member, index, x)?;
            let output = cut.output.shallow_clone();
            cuts.push(cut);
            Ok(output)
        };
        let until = member.until();
        let end = match self.spliced_run(member, blocks, start, until, &mut see, &mut splice)? {
            Some(last) if is_last => Some(self.hidden(&last)?),
            end => end,
        };
        Ok(Stretch { start: None, cuts, recorded, end })
    }

    /// The way back: the loss's terms but KL, and the gradients of the loss times `scale`, in the order of
    /// [`Member::parameters`]. `at_end` is the gradient with respect to the final hidden state, `[N, D]`.
    pub(crate) fn backward(
        &self,
        member: &Member,
        clean: &CleanPass,
        passes: Passes,
        mut at_end: Option<Tensor>,
        scale: f64,
    ) -> Result<(Terms, Vec<Tensor>), SpliceError> {
        let gradients = member.saes().iter().map(|_| None).collect();
        let mut back = Back { member, clean, scale, terms: Terms::default(), gradients };
        if let Some(whole) = passes.whole {
            back.through(whole, at_end.as_ref())?;
            return Ok(back.finish());
        }
        for (index, (block, start)) in passes.starts.into_iter().enumerate().rev() {
            let start = start.set_requires_grad(index > 0);
            let blocks = block..block + 1;
            let mut stretch = time(Part::Spliced, || self.stretch(member, blocks, &start))?;
            stretch.start = (index > 0).then_some(start);
            at_end = back.through(stretch, at_end.as_ref())?;
        }
        Ok(back.finish())
    }
}

/// What the way back gathers.
struct Back<'a> {
    member: &'a Member,
    clean: &'a CleanPass,
    scale: f64,
    terms: Terms,
    /// Of every SAE, where it is trained.
    gradients: Vec<Option<[Tensor; 4]>>,
}

impl Back<'_> {
    /// Goes back through a stretch; the gradient with respect to its end gives that with respect to its start.
    fn through(
        &mut self,
        stretch: Stretch,
        at_end: Option<&Tensor>,
    ) -> Result<Option<Tensor>, SpliceError> {
        let mut loss = time(Part::Loss, || self.add_terms(&stretch))?;
        if let (Some(end), Some(gradient)) = (&stretch.end, at_end) {
            loss.add(1.0, &end.f_mul(gradient)?.f_sum(None)?)?;
        }
        let Stretch { start, cuts, .. } = stretch;
        let mut leaves = Leaves::default();
        let start = start.as_ref().map(|start| leaves.push(start));
        let places: Vec<(Option<usize>, usize)> = cuts
            .iter()
            .map(|cut| {
                let input = cut.input.requires_grad().then(|| leaves.push(&cut.input));
                (input, leaves.push(&cut.output))
            })
            .collect();
        let goes_on = cuts.iter().any(|cut| cut.input.requires_grad());
        if let Some(loss) = loss.0 {
            leaves.differentiate(&loss, leaves.all.len(), goes_on)?;
        }
        let penalty = self.member.loss().sparsity;
        let d = self.member.saes()[0].1.d_model() as f64;
        let weight = penalty.coeff.get() / d * self.scale;
        let penalty = Penalty { p: penalty.p.get(), weight };
        for (cut, (input, output)) in cuts.into_iter().zip(places).rev() {
            let sae = &self.member.saes()[cut.index].1;
            let wants_input = cut.seen.requires_grad();
            if !wants_input && !sae.is_trained() {
                continue;
            }
            let gradient = match leaves.gradients[output].take() {
                Some(gradient) => gradient,
                None => cut.output.f_detach()?.f_zeros_like()?,
            };
            let found = cut.pass.backward(sae, &gradient, penalty, wants_input)?;
            self.gradients[cut.index] = found.parameters;
            let Some(gradient) = found.input else { continue };
            let mut gradient = gradient.f_view_as(&cut.seen)?;
            let place = input.unwrap_or(output);
            if let Some(own) = leaves.gradients[place].take() {
                gradient = gradient.f_add(&own)?;
            }
            let root = cut.seen.f_mul(&gradient)?.f_sum(None)?;
            leaves.differentiate(&root, place, true)?;
        }
        Ok(start.and_then(|start| leaves.gradients[start].take()))
    }

    /// Notes the terms of a stretch; their sum with their coefficients, to be differentiated.
    fn add_terms(&mut self, stretch: &Stretch) -> Result<Sum, SpliceError> {
        let Self { member, clean, scale, terms, .. } = self;
        let config = member.loss();
        let mut loss = Sum::default();
        let mut note = |sum: &mut Sum, share: f64, weight: f64, value: &Tensor| {
            let detached = value.f_detach()?;
            sum.add(share, &detached)?;
            terms.total.add(weight, &detached)?;
            if value.requires_grad() {
                loss.add(weight * *scale, value)?;
            }
            Ok::<_, SpliceError>(())
        };
        for Cut { index, input, pass, output, .. } in &stretch.cuts {
            terms.l0.add(1.0, &pass.l0()?)?;
            let sparsity = pass.sparsity(config.sparsity.p.get())?;
            note(&mut terms.sparsity, 1.0, config.sparsity.coeff.get(), &sparsity)?;
            if let Some(term) = config.local {
                note(&mut terms.local, 1.0, term.coeff.get(), &loss::mse(output, input)?)?;
            }
            if let Some(term) = config.output {
                let original = clean.activation(member.saes()[*index].0)?;
                note(&mut terms.output, 1.0, term.coeff.get(), &loss::mse(output, original)?)?;
            }
        }
        if let Some(term) = member.downstream() {
            let share = 1.0 / term.sites.len() as f64;
            for (site, spliced) in &stretch.recorded {
                let mse = loss::mse(spliced, clean.activation(*site)?)?;
                note(&mut terms.downstream, share, term.total_coeff * share, &mse)?;
            }
        }
        Ok(loss)
    }

    fn finish(self) -> (Terms, Vec<Tensor>) {
        (self.terms, self.gradients.into_iter().flatten().flatten().collect())
    }
}

/// Leaves of a stretch's graph, in the order of computation, and what has come back to each.
#[derive(Default)]
struct Leaves {
    all: Vec<Tensor>,
    gradients: Vec<Option<Tensor>>,
}

impl Leaves {
    fn push(&mut self, leaf: &Tensor) -> usize {
        self.all.push(leaf.shallow_clone());
        self.gradients.push(None);
        self.all.len() - 1
    }

    /// Adds the gradients of a scalar with respect to the first leaves.
    fn differentiate(
        &mut self,
        root: &Tensor,
        first: usize,
        keep_graph: bool,
    ) -> Result<(), SpliceError> {
        if first == 0 || !root.requires_grad() {
            return Ok(());
        }
        let found = Tensor::f_run_backward(&[root], &self.all[..first], keep_graph, false)?;
        for (sum, found) in self.gradients.iter_mut().zip(found) {
            // One that the scalar does not depend on comes back undefined.
            if !found.defined() {
                continue;
            }
            *sum = Some(match sum.take() {
                None => found,
                Some(sum) => sum.f_add(&found)?,
            });
        }
        Ok(())
    }
}

impl Sum {
    /// Adds a term; a weight of 0 leaves it out.
    #[allow(clippy::float_cmp)]
    pub fn add(&mut self, weight: f64, value: &Tensor) -> Result<(), SpliceError> {
        if weight == 0.0 {
            return Ok(());
        }
        let value =
            if weight == 1.0 { value.shallow_clone() } else { value.f_mul_scalar(weight)? };
        self.0 = Some(match self.0.take() {
            None => value,
            Some(sum) => sum.f_add(&value)?,
        });
        Ok(())
    }

    /// The sum; 0 where nothing was added.
    pub fn total(self) -> Result<Tensor, SpliceError> {
        match self.0 {
            Some(sum) => Ok(sum),
            None => Ok(Tensor::f_zeros([], (Kind::Double, tch::Device::Cpu))?),
        }
    }
}
