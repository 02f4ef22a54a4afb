//! From the reference's schema to a run of this project.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::schema::{Config, Count, Dataset, InToOrig, LrSchedule, Real, Term};
use super::{Imported, ModelSites};
use crate::run::{
    DataConfig, DownstreamConfig, EvalConfig, LogConfig, LossConfig, ModelConfig, Precision,
    Processing, SaeConfig, ScheduleConfig, ScheduleKind, SparsityConfig, TermConfig, TrainConfig,
};
use crate::{ConfigError, RunConfig, Site, Source};

/// Windows to evaluate on where the reference's configuration evaluates nothing or everything.
const EVAL_SAMPLES: u64 = 500;
/// The shuffle buffer of the reference's streams; data sets that it does not stream it shuffles whole.
const STREAM_BUFFER: usize = 1000;
const WHOLE_BUFFER: usize = 16_384;

pub(super) fn import(
    value: Value,
    origin: &str,
    sites: &mut ModelSites<'_>,
) -> Result<Imported, ConfigError> {
    let config = Config::deserialize(value).map_err(|error| ConfigError::parse(origin, &error))?;
    let mut importer = Importer { origin, warnings: Vec::new() };
    importer.warn_of_meaningless(&config);
    let run = importer.run(&config, sites)?;
    run.check(origin)?;
    Ok(Imported { run, warnings: importer.warnings })
}

struct Importer<'a> {
    origin: &'a str,
    warnings: Vec<String>,
}

impl Importer<'_> {
    fn run(
        &mut self,
        config: &Config,
        sites: &mut ModelSites<'_>,
    ) -> Result<RunConfig, ConfigError> {
        let path = self.model(config)?;
        let sae_sites = self.positions(&config.saes.sae_positions.0, || sites(&path))?;
        let (data, eval) = self.data(config, &path)?;
        let batch_size = self.count("batch_size", config.batch_size)?;
        let effective = match config.effective_batch_size {
            Some(size) => self.count("effective_batch_size", size)?,
            None => batch_size,
        };
        // Counted in samples there, in steps here: never later than asked for.
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
                seed: config.seed.0,
                pretrained: pretrained.map(|path| self.source(path)).collect::<Result<_, _>>()?,
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
            },
        })
    }

    /// One warning for all fields that are set and mean nothing here.
    fn warn_of_meaningless(&mut self, config: &Config) {
        let sparsifier = config.saes.type_of_sparsifier.as_deref();
        let set = [
            ("wandb_project", config.wandb_project.is_some()),
            ("wandb_run_name", config.wandb_run_name.is_some()),
            (
                "wandb_run_name_prefix",
                config.wandb_run_name_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()),
            ),
            ("save_dir", config.save_dir.is_some()),
            (
                "collect_act_frequency_every_n_samples",
                config.collect_act_frequency_every_n_samples.is_some(),
            ),
            (
                "collect_output_metrics_every_n_samples",
                config.collect_output_metrics_every_n_samples.is_some(),
            ),
            ("adam_beta1", config.adam_beta1.is_some()),
            (
                "collect_discrete_metrics_every_n_samples",
                config.collect_discrete_metrics_every_n_samples.is_some(),
            ),
            ("discrete_metrics_n_tokens", config.discrete_metrics_n_tokens.is_some()),
            // The reference does not look at these two either: its SAEs are plain ones.
            ("saes.type_of_sparsifier", sparsifier.is_some_and(|kind| kind != "sae")),
            ("saes.k", config.saes.k.is_some()),
        ];
        let names: Vec<&str> =
            set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
        if !names.is_empty() {
            self.warnings.push(format!(
                "without a meaning here, left out: {} (metrics and checkpoints are written to the run's folder, --out; \
                 activation frequencies are counted once, at the end)",
                names.join(", ")
            ));
        }
    }

    fn model(&self, config: &Config) -> Result<Source, ConfigError> {
        match (&config.tlens_model_name, &config.tlens_model_path) {
            (Some(name), None) => self.model_named("tlens_model_name", name),
            (None, Some(path)) => Ok(Source::Local(PathBuf::from(path))),
            _ => Err(ConfigError::invalid(
                self.origin,
                "tlens_model_name",
                "given with tlens_model_path, or neither is",
                "exactly one of the two names the model",
            )),
        }
    }

    /// A folder that is there, a reference to the hub, or a name that TransformerLens knows.
    fn model_named(&self, key: &'static str, name: &str) -> Result<Source, ConfigError> {
        if Path::new(name).join("config.json").is_file() || name.starts_with("hf://") {
            return self.source(name);
        }
        match hub_name(name) {
            Some(name) => self.source(&format!("hf://{name}")),
            None => Err(ConfigError::invalid(
                self.origin,
                key,
                format!("`{name}`"),
                "expected a name that TransformerLens knows of a supported family (gpt2-small, pythia-14m, \
                 tiny-stories-1M, gpt-neo-125M), or owner/name as on the hub",
            )),
        }
    }

    fn source(&self, text: &str) -> Result<Source, ConfigError> {
        text.parse().map_err(|error| ConfigError::parse(self.origin, &error))
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

    fn loss(&mut self, config: &Config, sae_sites: &[Site]) -> Result<LossConfig, ConfigError> {
        let loss = &config.loss;
        let term = |key: &'static str, term: &Option<Term>| -> Result<_, ConfigError> {
            let Some(Term { coeff }) = term else { return Ok(None) };
            Ok(Some(TermConfig { coeff: self.number(key, *coeff)? }))
        };
        Ok(LossConfig {
            sparsity: SparsityConfig {
                coeff: self.number("loss.sparsity.coeff", loss.sparsity.coeff)?,
                p: self.number("loss.sparsity.p_norm", loss.sparsity.p_norm)?,
            },
            local: term("loss.out_to_in.coeff", &loss.out_to_in)?,
            output: term("loss.out_to_orig.coeff", &loss.out_to_orig)?,
            kl: term("loss.logits_kl.coeff", &loss.logits_kl)?,
            downstream: match &loss.in_to_orig {
                None => None,
                Some(term) => self.downstream(term, sae_sites)?,
            },
        })
    }

    /// A position that no SAE reaches adds nothing but takes its share of the coefficient.
    fn downstream(
        &mut self,
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
        let total = if sites.len() == all {
            total
        } else {
            self.warnings.push(format!(
                "{} of {all} positions of loss.in_to_orig lie at or before the first SAE, where nothing differs: left \
                 out, with their share of the coefficient",
                all - sites.len()
            ));
            total * sites.len() as f64 / all as f64
        };
        if sites.is_empty() {
            return Ok(None);
        }
        let total_coeff = self.number("loss.in_to_orig.total_coeff", Real(total))?;
        Ok(Some(DownstreamConfig { total_coeff, sites }))
    }

    fn data(
        &mut self,
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
        let mut n_samples = config.eval_n_samples.map(|Count(n)| n);
        let mut skip = 0;
        if same_data {
            let held_out = n_samples.unwrap_or(EVAL_SAMPLES);
            (skip, n_samples) = (held_out, Some(held_out));
            self.warnings.push(format!(
                "evaluation and training are on the same data, which the reference does not keep apart: the first \
                 {held_out} windows are held out for the evaluation"
            ));
        }
        if config.eval_data.as_ref().is_some_and(|eval| eval.seed.is_some()) {
            self.warnings.push(
                "eval_data.seed is without a meaning here: the evaluation takes the first windows of its data"
                    .to_owned(),
            );
        }
        if eval.tokenizer_name != train.tokenizer_name {
            self.warnings.push(
                "eval_data.tokenizer_name is without a meaning here: both kinds of data have train_data's tokeniser"
                    .to_owned(),
            );
        }
        let is_text = !(train.is_tokenized && eval.is_tokenized);
        let tokenizer = self.model_named_or_repository(&train.tokenizer_name)?;
        let buffer = if train.streaming { STREAM_BUFFER } else { WHOLE_BUFFER };
        let data = DataConfig {
            train: self.dataset(train)?,
            split: Some(train.split.clone()),
            skip,
            column: column(train),
            context_length: self.count("train_data.n_ctx", train.n_ctx)?,
            tokenizer: (tokenizer != *model).then_some(tokenizer),
            // The reference tokenises with transformer_lens.utils.tokenize_and_concatenate(add_bos_token=True).
            bos: is_text,
            shuffle_buffer: NonZeroUsize::new(buffer).unwrap_or(NonZeroUsize::MIN),
            seed: train.seed.unwrap_or(config.seed).0,
        };
        let every = config.eval_every_n_samples.and_then(|Count(n)| NonZeroUsize::new(n as usize));
        let eval = EvalConfig {
            data: self.dataset(eval)?,
            split: Some(eval.split.clone()),
            column: (column(eval) != data.column).then(|| column(eval)),
            n_samples,
            batch_size: None,
            every_n_samples: every,
            alive_tokens: config.act_frequency_n_tokens.0,
        };
        Ok((data, eval))
    }

    fn dataset(&self, data: &Dataset) -> Result<Source, ConfigError> {
        let name = &data.dataset_name;
        if holds_parquet(Path::new(name)) || name.starts_with("hf://") {
            self.source(name)
        } else {
            self.source(&format!("hf://{name}"))
        }
    }

    fn model_named_or_repository(&self, name: &str) -> Result<Source, ConfigError> {
        self.model_named("tokenizer_name", name).or_else(|_| self.source(&format!("hf://{name}")))
    }

    fn count(&self, key: &'static str, Count(value): Count) -> Result<NonZeroUsize, ConfigError> {
        NonZeroUsize::new(value as usize)
            .ok_or_else(|| ConfigError::invalid(self.origin, key, value, "it must be above 0"))
    }

    fn number<T>(&self, key: &'static str, Real(value): Real) -> Result<T, ConfigError>
    where
        T: TryFrom<f64>,
        T::Error: Display,
    {
        T::try_from(value)
            .map_err(|error| ConfigError::invalid(self.origin, key, value, error.to_string()))
    }
}

/// A parquet file, or a folder with some in it or in its folders.
fn holds_parquet(path: &Path) -> bool {
    let is_parquet = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
    if path.is_file() {
        return is_parquet(path);
    }
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        is_parquet(&path) || path.is_dir() && holds_parquet(&path)
    })
}

/// The column of text where the data is not tokenised: the reference's name is that of the tokenised column.
fn column(data: &Dataset) -> String {
    let tokens = matches!(data.column_name.as_str(), "input_ids" | "tokens");
    if !data.is_tokenized && tokens { "text".to_owned() } else { data.column_name.clone() }
}

/// The hub's name of a model that TransformerLens knows by a short one; names with an owner are the hub's already.
pub fn hub_name(name: &str) -> Option<String> {
    if name.contains('/') {
        return Some(name.to_owned());
    }
    let known = match name {
        "gpt2" | "gpt2-small" => "openai-community/gpt2",
        "distilgpt2" | "distillgpt2" | "distill-gpt2" | "distil-gpt2" | "gpt2-xs" => {
            "distilbert/distilgpt2"
        }
        "neo" | "neo-small" | "gpt-neo-small" | "gpt-neo-125M" => "EleutherAI/gpt-neo-125m",
        "neo-medium" | "gpt-neo-medium" | "gpt-neo-1.3B" => "EleutherAI/gpt-neo-1.3B",
        "neo-large" | "gpt-neo-large" | "gpt-neo-2.7B" => "EleutherAI/gpt-neo-2.7B",
        "neox" | "gpt-neox" | "gpt-neox-20b" => "EleutherAI/gpt-neox-20b",
        "tiny-stories-1L-21M" => "roneneldan/TinyStories-1Layer-21M",
        "tiny-stories-2L-33M" => "roneneldan/TinyStories-2Layers-33M",
        // The hub's name is spelt so.
        "tiny-stories-instruct-1L-21M" => "roneneldan/TinyStories-Instuct-1Layer-21M",
        "tiny-stories-instruct-2L-33M" => "roneneldan/TinyStories-Instruct-2Layers-33M",
        "gpt2-medium" | "gpt2-large" | "gpt2-xl" => {
            return Some(format!("openai-community/{name}"));
        }
        _ if name.starts_with("pythia-") => return Some(format!("EleutherAI/{name}")),
        _ => {
            let size = name.strip_prefix("tiny-stories-")?;
            return Some(match size.strip_prefix("instruct-") {
                Some(size) => format!("roneneldan/TinyStories-Instruct-{size}"),
                None => format!("roneneldan/TinyStories-{size}"),
            });
        }
    };
    Some(known.to_owned())
}
