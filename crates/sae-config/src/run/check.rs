//! What a run's configuration has to hold as a whole: sites in order, something to reconstruct, numbers within bounds.

use std::num::NonZeroUsize;

use super::{RunConfig, ScheduleKind};
use crate::architecture::{OptionError, Sparsity};
use crate::loss::{LossConfig, Scope, Term};
use crate::{Architecture, ConfigError};

/// Tokens in a window.
const MOST_TOKENS: u64 = 1 << 20;
/// Windows in a batch.
const MOST_WINDOWS: u64 = 1 << 20;
/// Windows in a shuffle buffer.
const MOST_BUFFERED: u64 = 1 << 31;
/// Windows or tokens that are counted one after the other.
const MOST_COUNTED: u64 = 1 << 50;
/// Dictionary elements per dimension.
const MOST_EXPANSION: f64 = 65_536.0;

impl RunConfig {
    /// Checks what no single value shows; `origin` names the file or run in errors.
    pub fn check(&self, origin: &str) -> Result<(), ConfigError> {
        self.check_sites(origin)?;
        self.check_architecture(origin, None)?;
        self.check_loss(origin)?;
        self.check_bounds(origin)?;
        self.check_lengths(origin)
    }

    /// Refuses numbers that no machine can work with, which would overflow or exhaust memory later on.
    fn check_bounds(&self, origin: &str) -> Result<(), ConfigError> {
        let Self { data, train, eval, .. } = self;
        let batch = |size: Option<NonZeroUsize>| size.map(|size| size.get() as u64);
        let bounds = [
            ("data.context_length", Some(data.context_length.get() as u64), MOST_TOKENS),
            ("data.shuffle_buffer", Some(data.shuffle_buffer.get() as u64), MOST_BUFFERED),
            ("data.skip", Some(data.skip), MOST_COUNTED),
            ("train.batch_size", batch(Some(train.batch_size)), MOST_WINDOWS),
            ("train.effective_batch_size", batch(train.effective_batch_size), MOST_WINDOWS),
            ("train.n_samples", train.n_samples, MOST_COUNTED),
            ("eval.batch_size", batch(eval.batch_size), MOST_WINDOWS),
            ("eval.n_samples", eval.n_samples, MOST_COUNTED),
            ("eval.alive_tokens", Some(eval.alive_tokens), MOST_COUNTED),
        ];
        for (key, found, most) in bounds {
            if let Some(found) = found.filter(|found| *found > most) {
                return Err(ConfigError::invalid(
                    origin,
                    key,
                    found,
                    format!("{most} is the most that it can be"),
                ));
            }
        }
        if self.sae.expansion.get() > MOST_EXPANSION {
            return Err(ConfigError::invalid(
                origin,
                "sae.expansion",
                self.sae.expansion.get(),
                format!(
                    "{MOST_EXPANSION} is the most that it can be; it is the number of dictionary elements *per \
                     dimension* of the activation, F / D: 60 for 46 080 elements at D = 768"
                ),
            ));
        }
        Ok(())
    }

    /// Checks the options of the architecture, with F where the width of the activations is known.
    pub fn check_architecture(
        &self,
        origin: &str,
        n_features: Option<usize>,
    ) -> Result<(), ConfigError> {
        let architecture = &self.sae.architecture;
        architecture.check(n_features).map_err(|error| {
            let OptionError { key, found, expected } = error;
            let key = format!("sae.architecture.{}.{key}", architecture.name());
            ConfigError::invalid(origin, key, found, expected)
        })
    }

    fn check_sites(&self, origin: &str) -> Result<(), ConfigError> {
        let sites = &self.sae.sites;
        if sites.is_empty() {
            return Err(ConfigError::invalid(
                origin,
                "sae.sites",
                "empty",
                "a run trains at least one SAE",
            ));
        }
        if let Some([a, b]) = sites.array_windows().find(|[a, b]| a >= b) {
            return Err(ConfigError::invalid(
                origin,
                "sae.sites",
                format!("{a}, {b}"),
                "sites stand once each, in the order in which the model computes them",
            ));
        }
        let reads = &self.sae.reads;
        if !reads.is_empty() && reads.len() != sites.len() {
            return Err(ConfigError::invalid(
                origin,
                "sae.reads",
                format!("{} sites", reads.len()),
                format!("each of the {} in sae.sites has one that is read", sites.len()),
            ));
        }
        if let Some((reads, writes)) = self.placements().find(|(reads, writes)| reads > writes) {
            return Err(ConfigError::invalid(
                origin,
                "sae.reads",
                reads,
                format!("the model computes it after {writes}, which is written from it"),
            ));
        }
        let across = self.placements().find(|(reads, writes)| reads.block != writes.block);
        if let Some((reads, writes)) = across
            && self.train.recompute
            && self.scope() > Scope::Dictionary
        {
            return Err(ConfigError::invalid(
                origin,
                "train.recompute",
                true,
                format!(
                    "the blocks are computed one by one, and a dictionary reads {reads} and writes {writes}"
                ),
            ));
        }
        if self.sae.skip && self.placements().any(|(reads, writes)| reads == writes) {
            return Err(ConfigError::invalid(
                origin,
                "sae.skip",
                true,
                "an SAE that passes its input on has nothing to learn: name what transcoders read in sae.reads",
            ));
        }
        let downstream = self.loss.downstream.as_ref().map_or(&[][..], |term| &term.sites);
        if let Some([a, b]) = downstream.array_windows().find(|[a, b]| a >= b) {
            return Err(ConfigError::invalid(
                origin,
                "loss.downstream.sites",
                format!("{a}, {b}"),
                "sites stand once each, in the order in which the model computes them",
            ));
        }
        if let Some(downstream) = &self.loss.downstream
            && let Some(site) = downstream.sites.iter().find(|site| **site <= sites[0])
        {
            return Err(ConfigError::invalid(
                origin,
                "loss.downstream.sites",
                site,
                format!("no site at or before the first SAE ({}) is downstream of it", sites[0]),
            ));
        }
        Ok(())
    }

    fn check_loss(&self, origin: &str) -> Result<(), ConfigError> {
        let terms = self.loss.terms();
        let reconstructs = |term: &Term| !matches!(term, Term::Sparsity(_)) && term.is_trained_on();
        if !terms.iter().any(reconstructs) {
            return Err(ConfigError::invalid(
                origin,
                "loss",
                "sparsity alone",
                format!(
                    "an SAE needs something to reconstruct: give one of these a coefficient above 0: loss.{}",
                    LossConfig::RECONSTRUCTING.join(", loss.")
                ),
            ));
        }
        let (sparsity, architecture) = (&self.loss.sparsity, &self.sae.architecture);
        let remedy = match architecture.sparsity() {
            Sparsity::NormOrNumber => None,
            Sparsity::Norm => Some("p = 1 is the paper's"),
            Sparsity::Kept => {
                Some("it keeps k of them by itself, and coeff = 0 leaves the term out")
            }
        };
        if let Some(remedy) = remedy
            && sparsity.coeff.get() > 0.0
            && sparsity.p.get() == 0.0
        {
            return Err(ConfigError::invalid(
                origin,
                "loss.sparsity.p",
                0,
                format!(
                    "the number of active features has a gradient where the architecture is {}, and none where it is {}: \
                     {remedy}",
                    Architecture::made_sparse_by(Sparsity::NormOrNumber).join(" or "),
                    architecture.name()
                ),
            ));
        }
        Ok(())
    }

    fn check_lengths(&self, origin: &str) -> Result<(), ConfigError> {
        let train = &self.train;
        let (batch, effective) = (train.batch_size, self.effective_batch_size());
        if effective % batch.get() as u64 != 0 {
            return Err(ConfigError::invalid(
                origin,
                "train.effective_batch_size",
                effective,
                format!("it must be a multiple of train.batch_size, {batch}"),
            ));
        }
        let schedule = &train.schedule;
        if let Some(n_samples) = train.n_samples {
            if n_samples < effective {
                return Err(ConfigError::invalid(
                    origin,
                    "train.n_samples",
                    n_samples,
                    format!("one optimiser step takes {effective}"),
                ));
            }
            let ends = schedule.warmup_samples.saturating_add(schedule.cooldown_samples);
            if schedule.kind == ScheduleKind::Linear && ends > n_samples
                || schedule.warmup_samples > n_samples
            {
                return Err(ConfigError::invalid(
                    origin,
                    "train.schedule",
                    format!(
                        "a warm-up of {} and a cool-down of {} samples",
                        schedule.warmup_samples, schedule.cooldown_samples
                    ),
                    format!("they overlap in a run of {n_samples} samples"),
                ));
            }
        }
        if schedule.kind == ScheduleKind::Cosine && schedule.cooldown_samples > 0 {
            return Err(ConfigError::invalid(
                origin,
                "train.schedule.cooldown_samples",
                schedule.cooldown_samples,
                "a cosine has no cool-down: leave it out, or choose kind = \"linear\"",
            ));
        }
        if self.data.context_length.get() < 2 {
            return Err(ConfigError::invalid(
                origin,
                "data.context_length",
                self.data.context_length,
                "a window needs a next token: 2 or more",
            ));
        }
        if self.eval.alive_tokens == 0 {
            return Err(ConfigError::invalid(
                origin,
                "eval.alive_tokens",
                0,
                "features are counted on at least one token",
            ));
        }
        if self.eval.n_samples == Some(0) {
            return Err(ConfigError::invalid(
                origin,
                "eval.n_samples",
                0,
                "a run is evaluated on something",
            ));
        }
        Ok(())
    }
}
