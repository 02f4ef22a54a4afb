//! From the reference's schema to a run of this project.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::schema::{Config, Count, Dataset, InToOrig, LrSchedule, Real, Term};
use super::{Imported, Kind, ModelSites, differences, sources};
use crate::loss::{DownstreamConfig, LossConfig, SparsityConfig, TermConfig};
use crate::run::{
    DataConfig, EvalConfig, LogConfig, ModelConfig, Precision, Processing, SaeConfig,
    ScheduleConfig, ScheduleKind, TrainConfig,
};
use crate::{Architecture, ConfigError, RunConfig, Site, Source};

/// Windows to evaluate on where the reference's configuration evaluates nothing or everything.
const EVAL_SAMPLES: u64 = 500;
/// The shuffle buffer of the reference's streams.
const STREAM_BUFFER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
/// The shuffle buffer for data that the reference does not stream: it shuffles that as a whole.
pub(super) const WHOLE_BUFFER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

pub(super) fn import(
    value: Value,
    origin: &str,
    sites: &mut ModelSites<'_>,
) -> Result<Imported, ConfigError> {
    Kind::of(&value).require(Kind::Run, origin)?;
    let config = Config::deserialize(value).map_err(|error| ConfigError::parse(origin, &error))?;
    let run = Importer { origin }.run(&config, sites)?;
    run.check(origin)?;
    let warnings = differences::of_run(&config, &run);
    Ok(Imported { run, warnings })
}

struct Importer<'a> {
    origin: &'a str,
}

impl Importer<'_> {
    fn run(&self, config: &Config, sites: &mut ModelSites<'_>) -> Result<RunConfig, ConfigError> {
        let path = self.model(config)?;
        let sae_sites = self.positions(&config.saes.sae_positions.0, || sites(&path))?;
        let (data, eval) = self.data(config, &path)?;
        let batch_size = self.count("batch_size", config.batch_size)?;
        let effective = match config.effective_batch_size {
            Some(size) => self.count("effective_batch_size", size)?,
            None => batch_size,
        };
        // Counted in samples there, in steps here: never sooner than asked for.
        let in_steps = |samples: Option<Count>| {
            let steps = samples.map(|Count(n)| (n as usize).div_ceil(effective.get()));
            steps.and_then(NonZeroUsize::new)
        };
        let pretrained = config.saes.pretrained_sae_paths.iter().flat_map(|paths| &paths.0);
        Ok(RunConfig {
            // TransformerLens processes what it loads by name; a checkpoint of its own is loaded as it is.
            model: ModelConfig {
                processing: if config.tlens_model_path.is_some() {
                    Processing::None
                } else {
                    Processing::TransformerLens
                },
                path,
            },
            data,
            sae: SaeConfig {
                expansion: self.number(
                    "saes.dict_size_to_input_ratio",
                    config.saes.dict_size_to_input_ratio,
                )?,
                architecture: Architecture::default(),
                reads: Vec::new(),
                skip: false,
                seed: config.seed.0,
                pretrained: pretrained
                    .map(|path| sources::any(self.origin, path))
                    .collect::<Result<_, _>>()?,
                retrain: config.saes.retrain_saes,
                sites: sae_sites.clone(),
            },
            loss: self.loss(config, &sae_sites)?,
            train: TrainConfig {
                n_samples: config.n_samples.map(|Count(n)| n),
                batch_size,
                effective_batch_size: (effective != batch_size).then_some(effective),
                lr: self.number("lr", config.lr)?,
                max_grad_norm: config
                    .max_grad_norm
                    .map(|norm| self.number("max_grad_norm", norm))
                    .transpose()?,
                schedule: ScheduleConfig {
                    kind: match config.lr_schedule {
                        LrSchedule::Cosine => ScheduleKind::Cosine,
                        LrSchedule::Linear => ScheduleKind::Linear,
                    },
                    warmup_samples: config.warmup_samples.0,
                    cooldown_samples: config.cooldown_samples.0,
                    min_lr_factor: self.number("min_lr_factor", config.min_lr_factor)?,
                },
                precision: Precision::F32,
                recompute: false,
            },
            eval,
            log: LogConfig {
                every_n_steps: self
                    .count("log_every_n_grad_steps", config.log_every_n_grad_steps)?,
                checkpoint_every_n_steps: in_steps(config.save_every_n_samples),
                ..LogConfig::default()
            },
        })
    }

    fn model(&self, config: &Config) -> Result<Source, ConfigError> {
        match (&config.tlens_model_name, &config.tlens_model_path) {
            (Some(name), None) => sources::model(self.origin, "tlens_model_name", name),
            (None, Some(path)) => Ok(Source::Local(PathBuf::from(path))),
            _ => Err(ConfigError::invalid(
                self.origin,
                "tlens_model_name",
                "given with tlens_model_path, or neither is",
                "exactly one of the two names the model",
            )),
        }
    }

    /// Exact names stand for themselves; any other entry stands for all sites that contain it.
    fn positions(
        &self,
        entries: &[String],
        sites: impl FnOnce() -> Result<Vec<Site>, ConfigError>,
    ) -> Result<Vec<Site>, ConfigError> {
        let exact: Result<Vec<Site>, _> = entries.iter().map(|entry| entry.parse()).collect();
        let mut found: Vec<Site> = match exact {
            Ok(exact) => exact,
            Err(_) => sites()?
                .into_iter()
                .filter(|site| {
                    let name = site.to_string();
                    entries.iter().any(|entry| name.contains(entry.as_str()))
                })
                .collect(),
        };
        found.sort_unstable();
        found.dedup();
        let matched = |entry: &String| found.iter().any(|site| site.to_string().contains(entry));
        match entries.iter().find(|entry| !matched(entry)) {
            None => Ok(found),
            Some(entry) => Err(ConfigError::invalid(
                self.origin,
                "saes.sae_positions",
                format!("`{entry}`"),
                "no site of the model that an SAE can be put at contains it; sites are written as in \
                 blocks.6.hook_resid_pre, the hook being one of hook_resid_pre, hook_attn_out, hook_resid_mid, \
                 hook_mlp_out, hook_resid_post",
            )),
        }
    }

    fn loss(&self, config: &Config, sae_sites: &[Site]) -> Result<LossConfig, ConfigError> {
        let loss = &config.loss;
        let term = |key: &'static str, term: &Option<Term>| -> Result<_, ConfigError> {
            let Some(Term { coeff }) = term else { return Ok(None) };
            Ok(Some(TermConfig { coeff: self.number(key, *coeff)? }))
        };
        let sparsity = SparsityConfig {
            coeff: self.number("loss.sparsity.coeff", loss.sparsity.coeff)?,
            p: self.number("loss.sparsity.p_norm", loss.sparsity.p_norm)?,
        };
        Ok(LossConfig {
            local: term("loss.out_to_in.coeff", &loss.out_to_in)?,
            output: term("loss.out_to_orig.coeff", &loss.out_to_orig)?,
            kl: term("loss.logits_kl.coeff", &loss.logits_kl)?,
            downstream: match &loss.in_to_orig {
                None => None,
                Some(term) => self.downstream(term, sae_sites)?,
            },
            ..LossConfig::of(sparsity)
        })
    }

    /// A position that no SAE reaches adds nothing but takes its share of the coefficient.
    fn downstream(
        &self,
        term: &InToOrig,
        sae_sites: &[Site],
    ) -> Result<Option<DownstreamConfig>, ConfigError> {
        let mut sites = term
            .hook_positions
            .0
            .iter()
            .map(|name| name.parse::<Site>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ConfigError::parse(self.origin, &error))?;
        sites.sort_unstable();
        sites.dedup();
        let all = sites.len();
        sites.retain(|site| sae_sites.first().is_some_and(|first| site > first));
        let Real(total) = term.total_coeff;
        if sites.is_empty() {
            return Ok(None);
        }
        let total =
            if sites.len() == all { total } else { total * sites.len() as f64 / all as f64 };
        let total_coeff = self.number("loss.in_to_orig.total_coeff", Real(total))?;
        Ok(Some(DownstreamConfig { total_coeff, sites }))
    }

    fn data(
        &self,
        config: &Config,
        model: &Source,
    ) -> Result<(DataConfig, EvalConfig), ConfigError> {
        let train = &config.train_data;
        let eval = config.eval_data.as_ref().unwrap_or(train);
        if eval.n_ctx != train.n_ctx {
            return Err(ConfigError::invalid(
                self.origin,
                "eval_data.n_ctx",
                eval.n_ctx.0,
                format!("training has windows of {}, and so has the evaluation", train.n_ctx.0),
            ));
        }
        let same_data = (&eval.dataset_name, &eval.split, column(eval))
            == (&train.dataset_name, &train.split, column(train));
        let n_samples = config.eval_n_samples.map(|Count(n)| n);
        let held_out = same_data.then(|| n_samples.unwrap_or(EVAL_SAMPLES));
        let is_text = !(train.is_tokenized && eval.is_tokenized);
        let tokenizer =
            sources::tokenizer(self.origin, "train_data.tokenizer_name", &train.tokenizer_name)?;
        let dataset = |key: &'static str, data: &Dataset| {
            sources::dataset(self.origin, key, &data.dataset_name)
        };
        let data = DataConfig {
            train: dataset("train_data.dataset_name", train)?,
            split: Some(train.split.clone()),
            skip: held_out.unwrap_or(0),
            column: column(train),
            context_length: self.count("train_data.n_ctx", train.n_ctx)?,
            tokenizer: (tokenizer != *model).then_some(tokenizer),
            // The reference tokenises with transformer_lens.utils.tokenize_and_concatenate(add_bos_token=True).
            bos: is_text,
            shuffle_buffer: if train.streaming { STREAM_BUFFER } else { WHOLE_BUFFER },
            seed: train.seed.unwrap_or(config.seed).0,
        };
        let every = config.eval_every_n_samples.and_then(|Count(n)| NonZeroUsize::new(n as usize));
        let eval = EvalConfig {
            data: dataset("eval_data.dataset_name", eval)?,
            split: Some(eval.split.clone()),
            column: (column(eval) != data.column).then(|| column(eval)),
            n_samples: held_out.or(n_samples),
            batch_size: None,
            every_n_samples: every,
            alive_tokens: config.act_frequency_n_tokens.0,
        };
        Ok((data, eval))
    }

    fn count(&self, key: &'static str, count: Count) -> Result<NonZeroUsize, ConfigError> {
        count.above_zero(self.origin, key)
    }

    fn number<T>(&self, key: &'static str, number: Real) -> Result<T, ConfigError>
    where
        T: TryFrom<f64>,
        T::Error: Display,
    {
        number.ranged(self.origin, key)
    }
}

/// The column of text where the data is not tokenised: the reference's name is that of the tokenised column.
fn column(data: &Dataset) -> String {
    let tokens = matches!(data.column_name.as_str(), "input_ids" | "tokens");
    if !data.is_tokenized && tokens { "text".to_owned() } else { data.column_name.clone() }
}
