//! Forward and backward pass of one bank member: forward in segments of blocks, whose graphs end and begin anew at every
//! splice point; backward through each segment by autograd, and through each dictionary by its own gradients.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::BTreeSet;
use std::ops::Range;

use sae_config::Site;
use sae_nn::{Penalty, SaeError, Tape};
use tch::{Kind, Tensor, no_grad};

use crate::profile::{Part, time};
use crate::spliced::{CleanPass, Walk};
use crate::terms::AtSplicePoint;
use crate::{Member, PlacedDictionary, SpliceError, SplicedModel};

/// Which of a dictionary's reconstructions a pass goes on with: the prefix of this number, or the whole dictionary.
pub(crate) type Prefix = Option<usize>;

/// A member's forward pass.
pub(crate) struct ForwardPass {
    prefix: Prefix,
    /// All blocks, with what the backward pass needs; none with activation checkpointing, which computes them again.
    whole: Option<Segment>,
    /// With activation checkpointing, the residual stream before each block, `[B, T, D]`.
    checkpoints: Vec<(usize, Tensor)>,
    hidden: Option<Tensor>,
    /// What the dictionaries are to observe, each with its number.
    observed: Vec<(usize, Vec<Tensor>)>,
}

/// Some blocks, with autograd's graph.
struct Segment {
    /// The residual stream before it, where a segment before it wants its gradient; a leaf.
    start: Option<Tensor>,
    splice_points: Vec<SplicePoint>,
    /// Activations that terms look at.
    recorded: Vec<(Site, Tensor)>,
    /// The residual stream after it, or the final hidden state.
    end: Option<Tensor>,
}

/// A dictionary in the model, at which the graph ends and begins anew.
struct SplicePoint {
    /// Its number among the member's.
    index: usize,
    /// What it reads: the end of the graph before.
    read: Tensor,
    /// The activation that it replaces, as the model computes it, for the loss's terms; a leaf where the graph goes on before
    /// it, of an SAE, which reads it itself.
    target: Tensor,
    tape: Tape,
    /// Its reconstructions, one a prefix; leaves.
    outputs: Vec<Tensor>,
    /// How many splice points wrote before it read: what their leaves are, it depends on.
    written_before: usize,
    /// Whether these wrote the reconstructions of whole dictionaries, as in use.
    after_whole: bool,
}

/// What a backward pass finds of the terms of a loss.
#[derive(Default)]
pub(crate) struct Values {
    /// One a term of the member's, at unit coefficient, summed over the splice points; 0 of terms at the model's output.
    pub terms: Vec<Sum>,
    pub l0: Sum,
    /// The terms with their coefficients.
    pub total: Sum,
}

/// A weighted sum of tensors of one shape.
#[derive(Default)]
pub(crate) struct Sum(Option<Tensor>);

impl ForwardPass {
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub fn hidden(&self) -> Option<&Tensor> {
        self.hidden.as_ref()
    }

    /// What the dictionaries are to observe of this pass, each with its number.
    pub fn take_observed(&mut self) -> Vec<(usize, Vec<Tensor>)> {
        std::mem::take(&mut self.observed)
    }
}

impl SplicePoint {
    /// A splice point where the activation that a dictionary writes has been computed, of what it has read.
    fn new(index: usize, reading: Reading, written: &Tensor) -> Result<Self, SaeError> {
        let Reading { read, tape, is_sae, written_before, after_whole } = reading;
        let target = if is_sae {
            read.f_detach()?.set_requires_grad(read.requires_grad())
        } else {
            written.shallow_clone()
        };
        let leaf = |output: &Tensor| Ok(output.f_detach()?.set_requires_grad(true));
        let outputs = tape.reconstructions.iter().map(leaf).collect::<Result<_, SaeError>>()?;
        Ok(Self { index, read, target, tape, outputs, written_before, after_whole })
    }

    /// What the model goes on with.
    fn spliced(&self, prefix: Prefix) -> &Tensor {
        let last = self.outputs.len() - 1;
        &self.outputs[prefix.map_or(last, |prefix| prefix.min(last))]
    }

    /// What the dictionary is to observe: nothing of activations that no evaluation sees, behind a prefix of another one.
    fn observed(&self) -> Option<(usize, Vec<Tensor>)> {
        let observed = || self.tape.observed.iter().map(Tensor::shallow_clone).collect();
        self.after_whole.then(|| (self.index, observed()))
    }

    /// Whether the target is a leaf of its own.
    fn has_own_target(&self, member: &Member) -> bool {
        let placed = &member.dictionaries()[self.index];
        placed.reads == placed.writes && self.target.requires_grad()
    }
}

/// A dictionary that has read, and has not written yet.
struct Reading {
    read: Tensor,
    tape: Tape,
    is_sae: bool,
    written_before: usize,
    after_whole: bool,
}

/// The dictionaries of a pass, as the model comes to the sites that they read and write.
struct Splices<'a> {
    member: &'a Member,
    prefix: Prefix,
    reading: Vec<Option<Reading>>,
    points: Vec<SplicePoint>,
    /// Whether all that was written so far is of whole dictionaries.
    whole: bool,
}

impl<'a> Splices<'a> {
    fn new(member: &'a Member, prefix: Prefix) -> Self {
        let reading = member.dictionaries().iter().map(|_| None).collect();
        Self { member, prefix, reading, points: Vec::new(), whole: true }
    }

    /// Takes the activation at a site, and returns what the model goes on with.
    fn visit(&mut self, site: Site, x: Tensor) -> Result<Tensor, SaeError> {
        let mut x = x;
        for (index, placed) in self.member.dictionaries().iter().enumerate() {
            if placed.reads == site {
                let tape = time(Part::Sae, || placed.dictionary.pass(&x))?;
                let is_sae = placed.reads == placed.writes;
                let (read, written_before) = (x.shallow_clone(), self.points.len());
                let after_whole = self.whole;
                self.reading[index] =
                    Some(Reading { read, tape, is_sae, written_before, after_whole });
            }
            if placed.writes == site
                && let Some(reading) = self.reading[index].take()
            {
                let point = SplicePoint::new(index, reading, &x)?;
                let prefix = self.prefix.filter(|_| placed.dictionary.is_trained());
                x = point.spliced(prefix).shallow_clone();
                self.whole &= prefix.is_none_or(|prefix| prefix + 1 >= point.outputs.len());
                self.points.push(point);
            }
        }
        Ok(x)
    }
}

impl SplicedModel {
    /// A member's forward pass from its first splice point on, to where its loss looks last.
    pub(crate) fn forward(
        &self,
        member: &Member,
        clean: &CleanPass,
        prefix: Prefix,
    ) -> Result<ForwardPass, SpliceError> {
        if !member.is_spliced() {
            // Every dictionary reads the clean activation, and nothing comes after what it writes.
            let point = |(index, placed): (usize, &PlacedDictionary)| {
                let read = clean.activation(placed.reads)?.shallow_clone();
                let tape = time(Part::Sae, || placed.dictionary.pass(&read))?;
                let is_sae = placed.reads == placed.writes;
                let written_before = index;
                let reading = Reading { read, tape, is_sae, written_before, after_whole: true };
                Ok(SplicePoint::new(index, reading, clean.activation(placed.writes)?)?)
            };
            let points = member.dictionaries().iter().enumerate().map(point);
            let splice_points = points.collect::<Result<_, SpliceError>>()?;
            let whole = Segment { start: None, splice_points, recorded: Vec::new(), end: None };
            return Ok(ForwardPass::kept(prefix, whole, None));
        }
        let first = member.start();
        let start = clean.activation(Site::resid_pre(first))?;
        let blocks = first..self.model().config().n_layers;
        if self.checkpoints_activations() {
            member.check_within_blocks()?;
        } else {
            let whole = self.segment(member, blocks, start, prefix)?;
            let hidden = whole.end.as_ref().map(Tensor::shallow_clone);
            return Ok(ForwardPass::kept(prefix, whole, hidden));
        }
        no_grad(|| {
            let mut checkpoints = Vec::new();
            let starts = blocks.clone().map(Site::resid_pre).collect();
            let mut splices = Splices::new(member, prefix);
            let mut see =
                |site: Site, x: &Tensor| checkpoints.push((site.block, x.shallow_clone()));
            let mut observed = Vec::new();
            let mut splice = |site: Site, x: Tensor| {
                let x = splices.visit(site, x)?;
                // Nothing of a splice point is kept but what it has observed.
                observed.extend(splices.points.drain(..).filter_map(|point| point.observed()));
                Ok(x)
            };
            let walk = Walk { blocks, until: member.until(), record: &starts };
            let last = self.spliced_run(member, walk, start, &mut see, &mut splice)?;
            let hidden = last.map(|last| self.hidden(&last)).transpose()?;
            Ok(ForwardPass { prefix, whole: None, checkpoints, hidden, observed })
        })
    }

    fn segment(
        &self,
        member: &Member,
        blocks: Range<usize>,
        start: &Tensor,
        prefix: Prefix,
    ) -> Result<Segment, SpliceError> {
        let is_last = blocks.end == self.model().config().n_layers;
        let sites: BTreeSet<Site> = member.compared_sites().collect();
        let mut recorded = Vec::new();
        let mut splices = Splices::new(member, prefix);
        let mut see = |site: Site, x: &Tensor| recorded.push((site, x.shallow_clone()));
        let mut splice = |site: Site, x: Tensor| Ok(splices.visit(site, x)?);
        let walk = Walk { blocks, until: member.until(), record: &sites };
        let end = match self.spliced_run(member, walk, start, &mut see, &mut splice)? {
            Some(last) if is_last => Some(self.hidden(&last)?),
            end => end,
        };
        Ok(Segment { start: None, splice_points: splices.points, recorded, end })
    }

    /// The backward pass: the loss's terms but those at the output, and the gradients of the loss times `scale`, in the order of
    /// [`Member::parameters`]. `at_end` is the gradient with respect to the final hidden state, `[N, D]`.
    pub(crate) fn backward(
        &self,
        member: &Member,
        clean: &CleanPass,
        pass: ForwardPass,
        mut at_end: Option<Tensor>,
        scale: f64,
    ) -> Result<(Values, Vec<Tensor>), SpliceError> {
        let gradients = member.dictionaries().iter().map(|_| None).collect();
        let prefix = pass.prefix;
        let terms = member.terms().iter().map(|_| Sum::default()).collect();
        let values = Values { terms, ..Values::default() };
        let mut backward = BackwardPass { member, clean, scale, values, gradients };
        if let Some(whole) = pass.whole {
            backward.through(whole, at_end.as_ref())?;
            return Ok(backward.finish());
        }
        for (index, (block, start)) in pass.checkpoints.into_iter().enumerate().rev() {
            let start = start.set_requires_grad(index > 0);
            let blocks = block..block + 1;
            let mut segment = time(Part::Spliced, || self.segment(member, blocks, &start, prefix))?;
            segment.start = (index > 0).then_some(start);
            at_end = backward.through(segment, at_end.as_ref())?;
        }
        Ok(backward.finish())
    }
}

impl ForwardPass {
    /// A pass that keeps what its backward pass needs.
    fn kept(prefix: Prefix, whole: Segment, hidden: Option<Tensor>) -> Self {
        let observed = whole.splice_points.iter().filter_map(SplicePoint::observed).collect();
        Self { prefix, whole: Some(whole), checkpoints: Vec::new(), hidden, observed }
    }
}

/// A backward pass, and what it gathers.
struct BackwardPass<'a> {
    member: &'a Member,
    clean: &'a CleanPass,
    scale: f64,
    values: Values,
    /// Of every dictionary, where it is trained.
    gradients: Vec<Option<Vec<Tensor>>>,
}

/// The places of a splice point's leaves among a segment's.
struct Places {
    /// Of the target, where it is a leaf.
    target: Option<usize>,
    /// One a reconstruction.
    outputs: Range<usize>,
}

impl Places {
    /// The first of them.
    fn first(&self) -> usize {
        self.target.unwrap_or(self.outputs.start)
    }
}

impl BackwardPass<'_> {
    /// The backward pass of a segment; the gradient with respect to its end gives that with respect to its start.
    fn through(
        &mut self,
        segment: Segment,
        at_end: Option<&Tensor>,
    ) -> Result<Option<Tensor>, SpliceError> {
        let mut loss = time(Part::Loss, || self.add_terms(&segment))?;
        if let (Some(end), Some(gradient)) = (&segment.end, at_end) {
            loss.add(1.0, &end.f_mul(gradient)?.f_sum(None)?)?;
        }
        let Segment { start, splice_points, .. } = segment;
        let mut leaves = Leaves::default();
        let start = start.as_ref().map(|start| leaves.push(start));
        let mut places: Vec<Places> = Vec::with_capacity(splice_points.len());
        for point in &splice_points {
            let own = point.has_own_target(self.member);
            let target = own.then(|| leaves.push(&point.target));
            let first = leaves.all.len();
            for output in &point.outputs {
                leaves.push(output);
            }
            places.push(Places { target, outputs: first..leaves.all.len() });
        }
        let goes_on = splice_points.iter().any(|point| point.read.requires_grad());
        if let Some(loss) = loss.0 {
            leaves.differentiate(&loss, leaves.all.len(), goes_on)?;
        }
        let sparsity = self.member.loss().sparsity;
        for (point, place) in splice_points.into_iter().zip(&places).rev() {
            let dictionary = &self.member.dictionaries()[point.index].dictionary;
            let wants_input = point.read.requires_grad();
            if !wants_input && !dictionary.is_trained() {
                continue;
            }
            let gradients: Vec<Option<Tensor>> =
                place.outputs.clone().map(|place| leaves.gradients[place].take()).collect();
            let width = dictionary.sizes().output as f64;
            let weight = sparsity.coeff.get() / width * self.scale;
            let penalty = Penalty { p: sparsity.p.get(), weight };
            let found = point.tape.backward(dictionary, &gradients, penalty, wants_input)?;
            self.gradients[point.index] = found.parameters;
            let Some(gradient) = found.input else { continue };
            let mut gradient = gradient.f_view_as(&point.read)?;
            if let Some(target) = place.target
                && let Some(own) = leaves.gradients[target].take()
            {
                gradient = gradient.f_add(&own)?;
            }
            // What it has read depends on what was written before, and on nothing later.
            let before = places.get(point.written_before).map_or(leaves.all.len(), Places::first);
            let root = point.read.f_mul(&gradient)?.f_sum(None)?;
            leaves.differentiate(&root, before, true)?;
        }
        Ok(start.and_then(|start| leaves.gradients[start].take()))
    }

    /// Adds the terms of a segment; their sum with their coefficients, to be differentiated.
    fn add_terms(&mut self, segment: &Segment) -> Result<Sum, SpliceError> {
        let Self { member, clean, scale, values, .. } = self;
        let mut loss = Sum::default();
        let mut note = |index: usize, share: f64, value: &Tensor| {
            let detached = value.f_detach()?;
            values.terms[index].add(share, &detached)?;
            let weight = member.terms()[index].coeff * share;
            values.total.add(weight, &detached)?;
            if value.requires_grad() {
                loss.add(weight * *scale, value)?;
            }
            Ok::<_, SpliceError>(())
        };
        let terms = || member.terms().iter().enumerate();
        for SplicePoint { index, target, tape, outputs, .. } in &segment.splice_points {
            values.l0.add(1.0, &tape.l0()?)?;
            let site = member.dictionaries()[*index].writes;
            let at = AtSplicePoint { site, tape, target, reconstructions: outputs, clean };
            for (index, own) in terms() {
                if let Some(value) = own.term.at_splice_point(&at)? {
                    note(index, 1.0, &value)?;
                }
            }
        }
        for (site, spliced) in &segment.recorded {
            for (index, own) in terms().filter(|(_, own)| own.term.sites().contains(site)) {
                if let Some(value) = own.term.at_site(spliced, clean.activation(*site)?)? {
                    note(index, own.share(), &value)?;
                }
            }
        }
        Ok(loss)
    }

    fn finish(self) -> (Values, Vec<Tensor>) {
        (self.values, self.gradients.into_iter().flatten().flatten().collect())
    }
}

/// Leaves of a segment's graph, in the order of computation, and the gradients with respect to them so far.
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

    /// The sum, where anything was added.
    pub fn sum(self) -> Option<Tensor> {
        self.0
    }

    /// The sum of scalars; 0 where nothing was added.
    pub fn total(self) -> Result<Tensor, SpliceError> {
        match self.0 {
            Some(sum) => Ok(sum),
            None => Ok(Tensor::f_zeros([], (Kind::Double, tch::Device::Cpu))?),
        }
    }
}
