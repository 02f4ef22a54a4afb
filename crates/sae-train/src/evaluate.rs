//! Evaluations: in between, at the end of a run, and of a finished run again.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use sae_config::summary::{Status, Summary, Versions};
use sae_config::{RunConfig, RunFolder, Site};
use sae_nn::weights::{self, Provenance};
use sae_splice::{Evaluation, FeatureCounts, Member};
use serde_json::Map;
use tch::{Device, Kind, Tensor, no_grad};

use crate::progress::{Event, Observer};
use crate::setup::{Setup, Training};
use crate::trainer::Run;
use crate::{TrainError, write_atomically};

/// Evaluates all runs and adds a line to each log.
pub(crate) fn log_evaluation(runs: &mut [Run], setup: &Setup, step: u64) -> Result<(), TrainError> {
    let members: Vec<&Member> = runs.iter().map(|run| &run.member).collect();
    let evaluations = setup.model.evaluate(&members, &setup.evaluation, &mut |_| {})?;
    for (run, evaluation) in runs.iter_mut().zip(evaluations) {
        let mut line = Map::new();
        line.insert("step".to_owned(), step.into());
        let value = serde_json::to_value(evaluation)
            .map_err(TrainError::file("write", run.spec.folder.metrics()))?;
        line.insert("evaluation".to_owned(), value);
        run.log_line(&line)?;
    }
    Ok(())
}

/// Saves the weights of all runs, evaluates them, counts their features; the summary is written last.
pub(crate) fn finish(
    runs: &[Run],
    setup: &Setup,
    training: &Training<'_>,
    made_with: &Versions,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    for run in runs {
        save_weights(run)?;
    }
    let members: Vec<&Member> = runs.iter().map(|run| &run.member).collect();
    let evaluations = evaluate(&members, setup, observer)?;
    let config = &runs[0].spec.config;
    let counts = count_features(&members, setup, training, config, observer)?;
    for ((run, evaluation), counts) in runs.iter().zip(evaluations).zip(counts) {
        let folder = &run.spec.folder;
        write_features(run, &counts)?;
        let steps = run.diverged.map_or(run.spec.config.n_steps(), |diverged| diverged.kept);
        let config = &run.spec.config;
        let summary = Summary {
            id: run.spec.id.clone(),
            variant: config.variant(),
            status: if run.diverged.is_some() { Status::Diverged } else { Status::Finished },
            steps,
            training_tokens: steps
                * config.effective_batch_size()
                * config.data.context_length.get() as u64,
            n_features: run.member.saes()[0].1.n_features() as u64,
            alive: counts
                .iter()
                .map(|counts| Ok((counts.site, counts.alive()?)))
                .collect::<Result<_, TrainError>>()?,
            alive_tokens: counts[0].tokens,
            evaluation,
            versions: made_with.clone(),
        };
        let path = folder.summary();
        let json =
            serde_json::to_string_pretty(&summary).map_err(TrainError::file("write", &path))?;
        write_atomically(&path, json.as_bytes())?;
    }
    Ok(())
}

/// Evaluates a finished run's SAEs on its evaluation set, as it was at the end of training.
pub fn evaluate_run(
    folder: &Path,
    device: Device,
    change: impl FnOnce(&mut RunConfig),
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError> {
    let folder = RunFolder::new(folder);
    let mut config = RunConfig::load(&folder.config())?;
    change(&mut config);
    config.check(&folder.config().display().to_string())?;
    let setup = Setup::open(&[&config], device)?;
    setup.check_disjoint(&config)?;
    let saes = config
        .sae
        .sites
        .iter()
        .map(|site| Ok((*site, weights::load(&folder.sae(*site), device, Kind::Float)?)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let member = Member::new(&setup.model, saes, &config.loss)?;
    Ok(evaluate(&[&member], &setup, observer)?.remove(0))
}

fn evaluate(
    members: &[&Member],
    setup: &Setup,
    observer: &mut dyn Observer,
) -> Result<Vec<Evaluation>, TrainError> {
    let batches = &setup.evaluation;
    let tokens = batches.first().map_or(0, |batch| batch.numel() as u64);
    observer.notice(Event::began("evaluate", batches.len() as u64, tokens * members.len() as u64));
    let mut progress = |done| observer.notice(Event::advanced(done));
    let evaluations = setup.model.evaluate(members, batches, &mut progress)?;
    observer.notice(Event::Ended);
    if observer.interrupted() {
        return Err(TrainError::InterruptedEvaluation);
    }
    Ok(evaluations)
}

/// Counts over the first `eval.alive_tokens` tokens of the training data.
fn count_features(
    members: &[&Member],
    setup: &Setup,
    training: &Training<'_>,
    config: &RunConfig,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<FeatureCounts>>, TrainError> {
    let mut counts =
        members.iter().map(|member| FeatureCounts::start(member)).collect::<Result<Vec<_>, _>>()?;
    let batch_size = config.eval_batch_size();
    let tokens = (batch_size * config.data.context_length.get()) as u64;
    let batches = config.eval.alive_tokens.div_ceil(tokens);
    let mut stream = training.batches(config, batch_size, 0)?;
    observer.notice(Event::began("alive", batches, tokens * members.len() as u64));
    for done in 1..=batches {
        if observer.interrupted() {
            return Err(TrainError::InterruptedEvaluation);
        }
        let tokens = stream.next()?;
        setup.model.count_active(members, &mut counts, &tokens)?;
        observer.notice(Event::advanced(done));
    }
    observer.notice(Event::Ended);
    Ok(counts)
}

fn save_weights(run: &Run) -> Result<(), TrainError> {
    let config = &run.spec.config;
    for (site, sae) in run.member.saes() {
        let provenance = Provenance {
            model: &config.model.path.to_string_lossy(),
            hook_name: &site.to_string(),
            context_length: config.data.context_length.get(),
        };
        weights::save(sae, provenance, &run.spec.folder.sae(*site))?;
    }
    Ok(())
}

/// `features.parquet`: a row a feature of every SAE.
fn write_features(run: &Run, counts: &[FeatureCounts]) -> Result<(), TrainError> {
    let path = run.spec.folder.features();
    let mut columns = FeatureColumns::default();
    for (counts, (site, sae)) in counts.iter().zip(run.member.saes()) {
        let [w_enc, b_enc, w_dec, _] = sae.parameters();
        let norms = |tensor: &Tensor| -> Result<Vec<f64>, TrainError> {
            let norms = no_grad(|| tensor.f_norm_scalaropt_dim(2.0, [1], false))?;
            Ok(Vec::try_from(norms.f_to_kind(Kind::Double)?)?)
        };
        columns.add(
            *site,
            &counts.frequencies()?,
            norms(w_enc)?,
            norms(w_dec)?,
            Vec::try_from(b_enc.f_detach()?.f_to_kind(Kind::Double)?)?,
        );
    }
    let partial = path.with_extension("partial");
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let batch = columns.batch()?;
        let mut writer = ArrowWriter::try_new(File::create(&partial)?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(std::fs::rename(&partial, &path)?)
    };
    write().map_err(TrainError::file("write", &path))
}

#[derive(Default)]
struct FeatureColumns {
    site: Vec<String>,
    feature: Vec<u32>,
    frequency: Vec<f64>,
    encoder_norm: Vec<f64>,
    decoder_norm: Vec<f64>,
    encoder_bias: Vec<f64>,
}

impl FeatureColumns {
    fn add(
        &mut self,
        site: Site,
        frequency: &[f64],
        encoder_norm: Vec<f64>,
        decoder_norm: Vec<f64>,
        encoder_bias: Vec<f64>,
    ) {
        self.site.extend(std::iter::repeat_n(site.to_string(), frequency.len()));
        self.feature.extend(0..frequency.len() as u32);
        self.frequency.extend(frequency);
        self.encoder_norm.extend(encoder_norm);
        self.decoder_norm.extend(decoder_norm);
        self.encoder_bias.extend(encoder_bias);
    }

    fn batch(self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let alive: BooleanArray = self.frequency.iter().map(|&f| Some(f > 0.0)).collect();
        RecordBatch::try_from_iter([
            ("site", Arc::new(StringArray::from(self.site)) as ArrayRef),
            ("feature", Arc::new(UInt32Array::from(self.feature))),
            ("frequency", Arc::new(Float64Array::from(self.frequency))),
            ("alive", Arc::new(alive)),
            ("encoder_norm", Arc::new(Float64Array::from(self.encoder_norm))),
            ("decoder_norm", Arc::new(Float64Array::from(self.decoder_norm))),
            ("encoder_bias", Arc::new(Float64Array::from(self.encoder_bias))),
        ])
    }
}
