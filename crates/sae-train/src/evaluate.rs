//! Evaluations: in between, at the end of a run, and of a finished run again.

use std::path::{Path, PathBuf};

use sae_config::run::Processing;
use sae_config::{RunConfig, Site, Source};
use sae_eval::FeatureCounts;
use sae_nn::weights::{self, NamedDictionary, Provenance};
use sae_record::RunFolder;
use sae_record::features::{self, Feature};
use sae_record::metric::name;
use sae_record::metrics::{self, FeatureActivity};
use sae_record::summary::{Evaluation, Inputs, Status, Summary, Versions};
use sae_splice::{Member, PlacedDictionary};
use serde_json::Map;
use tch::{Device, Kind, Tensor, no_grad};

use crate::progress::{Event, Observer, Phase};
use crate::setup::{Setup, Training, kind};
use crate::trainer::Run;
use crate::{Sources, TrainError};

/// Evaluates all runs, counts how often their features are active, and adds a line to each log.
pub(crate) fn log_evaluation(runs: &mut [Run], setup: &Setup, step: u64) -> Result<(), TrainError> {
    let members: Vec<&Member> = runs.iter().map(|run| &run.member).collect();
    let evaluations = sae_eval::evaluate(&setup.model, &members, &setup.evaluation, &mut |_| {})?;
    let mut counts =
        members.iter().map(|member| FeatureCounts::start(member)).collect::<Result<Vec<_>, _>>()?;
    for tokens in &setup.evaluation {
        sae_eval::count_active(&setup.model, &members, &mut counts, tokens)?;
    }
    let activity = |counts: &FeatureCounts| {
        let found = FeatureActivity::of(&counts.frequencies()?, counts.tokens);
        Ok::<_, TrainError>((counts.site.to_string(), serde_json::json!(found)))
    };
    for ((run, evaluation), counts) in runs.iter_mut().zip(evaluations).zip(counts) {
        let mut line = Map::new();
        line.insert("step".to_owned(), step.into());
        let increase = evaluation.values.get(name::CE_INCREASE);
        let value = serde_json::to_value(evaluation)
            .map_err(TrainError::file("write", run.spec.folder.metrics()))?;
        line.insert(metrics::EVALUATION.to_owned(), value);
        let sites = counts.iter().map(activity).collect::<Result<Map<_, _>, _>>()?;
        line.insert(metrics::FEATURES.to_owned(), sites.into());
        run.log_line(&line)?;
        run.show(name::CE_INCREASE, increase);
    }
    Ok(())
}

/// Saves the weights of all runs, evaluates them, counts their features; the summary is written last.
pub(crate) fn finish(
    runs: &[Run],
    setup: &Setup,
    training: &Training<'_>,
    inputs: &Inputs,
    made_with: &Versions,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    for run in runs {
        save_weights(run, &run.spec.folder)?;
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
            n_features: run
                .member
                .dictionaries()
                .iter()
                .map(|placed| (placed.writes, placed.dictionary.n_features() as u64))
                .collect(),
            alive: counts
                .iter()
                .map(|counts| Ok((counts.site, counts.alive()?)))
                .collect::<Result<_, TrainError>>()?,
            alive_tokens: counts[0].tokens,
            evaluation,
            metrics: sae_eval::metrics(),
            inputs: Some(inputs.clone()),
            versions: made_with.clone(),
        };
        summary.save(&folder.summary())?;
    }
    Ok(())
}

/// Evaluates SAEs on the evaluation set of a configuration: those of a finished run's folder, as they were at the end of
/// training, or any that [`weights::load_all`] reads.
pub fn evaluate_saes(
    config: &RunConfig,
    saes: &Path,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<Evaluation, TrainError> {
    config.check("the evaluation's configuration")?;
    let setup = Setup::open(&[config], Sources::default(), device)?;
    setup.check_disjoint(config)?;
    let member = member(config, saes, &setup, device)?;
    warn_of_other_inputs(saes, &setup)?;
    let found = evaluate(&[&member], &setup, observer)?.remove(0);
    let (ce, kl) = (found.values.get(name::CE_SPLICED), found.values.get(name::KL));
    if !ce.is_finite() || !kl.is_finite() {
        return Err(TrainError::NonFiniteEvaluation { path: saes.to_owned(), ce, kl });
    }
    Ok(found)
}

/// A run's folder remembers what it was computed from: an evaluation on something else may be meant, and is named.
fn warn_of_other_inputs(saes: &Path, setup: &Setup) -> Result<(), TrainError> {
    warn_of_other_model(saes, setup);
    let summary = Summary::load(&RunFolder::new(saes).summary()).ok();
    if let Some(before) = summary.and_then(|summary| summary.inputs)
        && before.evaluation != setup.evaluation_fingerprint()?
    {
        tracing::warn!("{}: its summary is of other evaluation data", saes.display());
    }
    Ok(())
}

/// The same of the model alone; a checkpoint's run, `RUN/checkpoints/step_N`, remembers it for the checkpoint.
pub(crate) fn warn_of_other_model(saes: &Path, setup: &Setup) {
    let of = |folder: &Path| Inputs::load(&RunFolder::new(folder).inputs()).ok();
    let before = of(saes).or_else(|| of(saes.parent()?.parent()?));
    if before.is_some_and(|before| before.model != setup.model_fingerprint()) {
        tracing::warn!(
            "{}: the model is not the one that its SAEs were trained in",
            saes.display()
        );
    }
}

/// The SAEs at a path, at the sites that the configuration names.
pub(crate) fn member(
    config: &RunConfig,
    path: &Path,
    setup: &Setup,
    device: Device,
) -> Result<Member, TrainError> {
    let mut loaded = weights::load_all(path, device, kind(config))?
        .into_iter()
        .map(|named| Ok((site_of(&named, config, path)?, named)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let saes = config
        .sae
        .sites
        .iter()
        .map(|site| {
            let found = loaded.iter().position(|(at, _)| at == site);
            let found = found.ok_or_else(|| TrainError::Source {
                found: path.display().to_string(),
                expected: format!("an SAE at {site}, where the configuration has one"),
            })?;
            let (site, named) = loaded.swap_remove(found);
            placed(site, named, config, path)
        })
        .collect::<Result<Vec<_>, TrainError>>()?;
    Ok(Member::new(&setup.model, saes, &config.loss)?)
}

/// A dictionary that writes a site, reading what the configuration says; refused where its file says that it reads
/// another site.
pub(crate) fn placed(
    site: Site,
    named: NamedDictionary,
    config: &RunConfig,
    path: &Path,
) -> Result<PlacedDictionary, TrainError> {
    let own = config.placements().find(|(_, writes)| *writes == site);
    let reads = own.map_or(site, |(reads, _)| reads);
    match &named.hook_name {
        Some(name) if *name != reads.to_string() => Err(TrainError::Source {
            found: format!(
                "a dictionary that reads {name} and writes {site}, in {}",
                path.display()
            ),
            expected: format!("one that reads {reads}: what is read stands in sae.reads"),
        }),
        _ => Ok(PlacedDictionary { reads, writes: site, dictionary: named.dictionary }),
    }
}

/// Writes SAEs at a path, whatever their format, as folders in the format of SAELens, `out/<site>/`; returns these.
pub fn convert(config: &RunConfig, path: &Path, out: &Path) -> Result<Vec<PathBuf>, TrainError> {
    weights::load_all(path, Device::Cpu, Kind::Float)?
        .into_iter()
        .map(|named| {
            let site = site_of(&named, config, path)?;
            let folder = out.join(site.to_string());
            std::fs::create_dir_all(out).map_err(TrainError::file("create", out))?;
            let model = model_name(config);
            let (reads, writes) = (named.hook_name.clone(), named.hook_name_out.clone());
            let hook_name = reads.unwrap_or_else(|| site.to_string());
            let provenance = provenance(config, &hook_name, writes.as_deref(), &model);
            weights::save(&named.dictionary, provenance, &folder)?;
            Ok(folder)
        })
        .collect()
}

/// The site that a dictionary writes: the one that its file names, or the only one of its configuration.
pub(crate) fn site_of(
    named: &NamedDictionary,
    config: &RunConfig,
    path: &Path,
) -> Result<Site, TrainError> {
    match (named.hook_name_out.as_ref().or(named.hook_name.as_ref()), config.sae.sites.as_slice()) {
        (Some(name), _) => name.parse().map_err(|error| TrainError::Source {
            found: format!("the SAE at {name} in {}", path.display()),
            expected: format!("a site ({error})"),
        }),
        (None, [site]) => Ok(*site),
        (None, sites) => Err(TrainError::Source {
            found: format!("the SAE in {}, which does not name its site", path.display()),
            expected: format!("a configuration with one site, not {}", sites.len()),
        }),
    }
}

/// What `cfg.json` says of the model: the hub's name, as TransformerLens has it, where it is from there.
fn model_name(config: &RunConfig) -> String {
    match &config.model.path {
        // The machine's folders tell others nothing.
        Source::Local(path) => {
            path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
        }
        Source::Hub(hub) => {
            hub.repository.strip_prefix("openai-community/").unwrap_or(&hub.repository).to_owned()
        }
    }
}

fn provenance<'a>(
    config: &RunConfig,
    hook_name: &'a str,
    hook_name_out: Option<&'a str>,
    model: &'a str,
) -> Provenance<'a> {
    Provenance {
        model,
        hook_name,
        hook_name_out,
        context_length: config.data.context_length.get(),
        processed: config.model.processing == Processing::TransformerLens,
    }
}

fn evaluate(
    members: &[&Member],
    setup: &Setup,
    observer: &mut dyn Observer,
) -> Result<Vec<Evaluation>, TrainError> {
    let batches = &setup.evaluation;
    let tokens = batches.first().map_or(0, |batch| batch.numel() as u64);
    observer.notice(Event::began(
        Phase::Evaluate,
        batches.len() as u64,
        tokens * members.len() as u64,
    ));
    let mut progress = |done| observer.notice(Event::advanced(done));
    let evaluations = sae_eval::evaluate(&setup.model, members, batches, &mut progress)?;
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
    let mut stream = training.batches(config, batch_size, None)?;
    observer.notice(Event::began(Phase::Alive, batches, tokens * members.len() as u64));
    for done in 1..=batches {
        if observer.interrupted() {
            return Err(TrainError::InterruptedEvaluation);
        }
        let tokens = stream.next()?;
        sae_eval::count_active(&setup.model, members, &mut counts, &tokens)?;
        observer.notice(Event::advanced(done));
    }
    observer.notice(Event::Ended);
    Ok(counts)
}

/// Writes a run's SAEs into its folder, or into a checkpoint's.
pub(crate) fn save_weights(run: &Run, folder: &RunFolder) -> Result<(), TrainError> {
    let config = &run.spec.config;
    for PlacedDictionary { reads, writes, dictionary } in run.member.dictionaries() {
        let model = model_name(config);
        let (hook_name, hook_name_out) = (reads.to_string(), writes.to_string());
        let hook_name_out = (reads != writes).then_some(hook_name_out.as_str());
        let provenance = provenance(config, &hook_name, hook_name_out, &model);
        weights::save(dictionary, provenance, &folder.sae(*writes))?;
    }
    Ok(())
}

/// Writes the features of a run's SAEs.
fn write_features(run: &Run, counts: &[FeatureCounts]) -> Result<(), TrainError> {
    let of_site = |(counts, placed): (&FeatureCounts, &PlacedDictionary)| {
        let dictionary = &placed.dictionary;
        let [w_enc, b_enc, w_dec] =
            ["w_enc", "b_enc", "w_dec"].map(|name| dictionary.parameter(name));
        let norms = |tensor: &Tensor| -> Result<Vec<f64>, TrainError> {
            let norms = no_grad(|| tensor.f_norm_scalaropt_dim(2.0, [1], false))?;
            Ok(Vec::try_from(norms.f_to_kind(Kind::Double)?)?)
        };
        let (encoder_norms, decoder_norms) = (norms(w_enc?)?, norms(w_dec?)?);
        let biases: Vec<f64> = Vec::try_from(b_enc?.f_detach()?.f_to_kind(Kind::Double)?)?;
        let features = counts.frequencies()?.into_iter().enumerate();
        let features = features.map(|(index, frequency)| Feature {
            index: index as u32,
            frequency,
            alive: frequency > 0.0,
            encoder_norm: encoder_norms[index],
            decoder_norm: decoder_norms[index],
            encoder_bias: biases[index],
        });
        Ok((placed.writes, features.collect()))
    };
    let features = counts.iter().zip(run.member.dictionaries()).map(of_site);
    let features = features.collect::<Result<Vec<_>, TrainError>>()?;
    Ok(features::write(&run.spec.folder.features(), &features)?)
}
