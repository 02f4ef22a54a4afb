//! The loop: batches → gradients of every member → clip → Adam → log.

use std::path::Path;
use std::time::{Duration, Instant};

use sae_config::architecture::Sparsity;
use sae_config::{Architecture, RunConfig, Site};
use sae_data::Cursor;
use sae_nn::{Dictionary, weights};
use sae_record::RunFolder;
use sae_record::metrics::MetricsLog;
use sae_record::summary::{Inputs, Summary, Versions};
use sae_splice::profile::{Part, time};
use sae_splice::{DictionaryPlan, Member, PlacedDictionary};
use serde_json::{Map, Value};
use tch::{Device, Tensor, no_grad};

use crate::checkpoint::{Diverged, State, Tensors};
use crate::gradients::{self, StepGradients};
use crate::optim::{Adam, AdamOptions, clip_factor};
use crate::progress::{Event, Observer, Phase, RunProgress};
use crate::schedule::Schedule;
use crate::setup::{self, Batches, Setup, Training};
use crate::steps::{self, StepReport, Trained};
use crate::{Sources, TrainError, begun, checkpoint, evaluate, memory};

/// Checkpoints that the clock asks for, of which the last ones stay.
const LAST: usize = 2;

/// A run to train.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpec {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub folder: RunFolder,
    /// Its configuration.
    pub config: RunConfig,
}

/// A run in training.
pub(crate) struct Run {
    pub spec: RunSpec,
    pub member: Member,
    pub diverged: Option<Diverged>,
    /// The last state whose loss is known to be finite, taken at logging steps: its step, the parameters and the buffers.
    good: (u64, Vec<Tensor>),
    optimiser: Adam,
    schedule: Schedule,
    log: MetricsLog,
    /// The numbers of the last logging step and of the last evaluation in the middle of the run.
    progress: RunProgress,
}

/// Trains the runs of a bank that are not finished yet, from where they stand, and returns the summaries of all.
///
/// The runs have equal [`RunConfig::bank_key`]s. Each trains to the same bits as alone. A run whose loss becomes
/// non-finite stops there, keeps its last good state and is marked so in its summary; the others go on.
pub fn train(
    specs: &[RunSpec],
    device: Device,
    made_with: &Versions,
    observer: &mut dyn Observer,
) -> Result<Vec<Summary>, TrainError> {
    // Runs that have begun say which commits of the hub's repositories they read; equal requests of the others mean the
    // same ones.
    let mut specs = specs.to_vec();
    for begun in specs.clone().iter().map(|spec| spec.folder.config()).filter(|path| path.is_file())
    {
        let begun = RunConfig::load_recorded(&begun)?;
        for spec in &mut specs {
            spec.config.adopt_commits(&begun);
        }
    }
    for spec in &specs {
        begun::check_folder(spec)?;
        if spec.config.bank_key() != specs[0].config.bank_key() {
            return Err(TrainError::NotOneBank {
                first: specs[0].id.clone(),
                other: spec.id.clone(),
            });
        }
    }
    let sources = Sources::default();
    let (finished, mut open): (Vec<RunSpec>, Vec<RunSpec>) =
        specs.iter().cloned().partition(|spec| spec.folder.summary().is_file());
    for spec in &finished {
        begun::check_finished(spec, &sources)?;
    }
    if !open.is_empty() {
        for spec in &mut open {
            sources.pin(&mut spec.config)?;
        }
        let configs: Vec<&RunConfig> = open.iter().map(|spec| &spec.config).collect();
        tell_of_sparsity(&open);
        let setup = Setup::open(&configs, sources, device)?;
        memory::check(&configs, setup.model.model())?;
        if configs[0].train.n_samples.is_none() {
            let all = setup.all_samples(configs[0])?;
            for RunSpec { id, config, .. } in &mut open {
                config.train.n_samples = Some(all);
                config.check(id)?;
            }
        }
        tell_of_the_rest(&open[0].config);
        let training = setup.training(&open[0].config)?;
        let inputs = training.inputs()?;
        for spec in &open {
            begun::check_inputs(spec, &inputs)?;
        }
        let step = common_step(&open);
        let mut runs = open
            .iter()
            .map(|spec| {
                start(spec, &setup, &inputs, step).map_err(|source| TrainError::InRun {
                    id: spec.id.clone(),
                    source: Box::new(source),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        train_steps(&mut runs, &setup, &training, step, observer)?;
        let made_with = Versions { device: format!("{device:?}"), ..made_with.clone() };
        evaluate::finish(&runs, &setup, &training, &inputs, &made_with, observer)?;
        for Run { spec, .. } in &runs {
            match spec.config.log.checkpoint_every_n_steps {
                None => checkpoint::remove_all(&spec.folder)?,
                Some(_) => {
                    checkpoint::prune(
                        &spec.folder,
                        u64::MAX,
                        |step| is_kept(&spec.config, step),
                        0,
                    )?;
                }
            }
        }
    }
    specs.iter().map(|spec| Ok(Summary::load(&spec.folder.summary())?)).collect()
}

/// Windows that make no whole step.
fn tell_of_the_rest(config: &RunConfig) {
    let (all, step) = (config.train.n_samples.unwrap_or(0), config.effective_batch_size());
    if let (1.., rest @ 1..) = (all / step, all % step) {
        tracing::info!(
            "of {all} windows the last {rest} make no whole step of {step}: they are not trained on"
        );
    }
}

/// Warns of runs with a sparsity term beside an architecture that keeps a number of features by itself.
fn tell_of_sparsity(specs: &[RunSpec]) {
    for RunSpec { id, config, .. } in specs {
        let (architecture, coeff) = (&config.sae.architecture, config.loss.sparsity.coeff.get());
        if coeff > 0.0 && architecture.sparsity() == Sparsity::Kept {
            tracing::warn!(
                "{id}: {} keeps k features by itself, and loss.sparsity.coeff is {coeff}: the sparsity term is trained on \
                 beside it; 0 leaves it out",
                architecture.name()
            );
        }
    }
}

/// Whether the configuration asks for a checkpoint after this step to be kept, rather than the clock.
fn is_kept(config: &RunConfig, step: u64) -> bool {
    let every = config.log.checkpoint_every_n_steps.map(|every| every.get() as u64);
    every.is_some_and(|every| step.is_multiple_of(every) || step == config.n_steps())
}

/// Makes a run ready to go on from `step`.
fn start(spec: &RunSpec, setup: &Setup, inputs: &Inputs, step: u64) -> Result<Run, TrainError> {
    let (config, model) = (&spec.config, &setup.model);
    let plans: Vec<DictionaryPlan> = config
        .placements()
        .map(|(reads, writes)| DictionaryPlan {
            reads,
            writes,
            architecture: config.sae.architecture.clone(),
            n_features: config.n_features(model.model().config().width(reads.kind)),
            skip: config.sae.skip,
        })
        .collect();
    let pretrained = pretrained(config, setup)?;
    let member = Member::initialised(model, &plans, &config.loss, config.sae.seed, pretrained)?;
    let resolved = RunConfig { loss: member.loss().clone(), ..config.clone() };
    begun::record(&spec.folder, &resolved, inputs)?;
    let parameters = member.parameters().into_iter().map(|tensor| (tensor.shallow_clone(), 0.0));
    let mut optimiser = Adam::new(parameters, AdamOptions::default())?;
    let (mut diverged, mut good) = (None, (0, copies(&optimiser, &member)?));
    if step > 0 {
        let place = spec.folder.checkpoint(step);
        let (names, buffers) = (checkpoint::names(&member), checkpoint::buffers(&member));
        let restored = checkpoint::restore(&place, &names, &mut optimiser, &buffers)?;
        diverged = restored.state.diverged;
        for (own, stored) in good.1.iter_mut().zip(&restored.good) {
            own.f_copy_(stored)?;
        }
        good.0 = restored.state.good.unwrap_or(0);
    }
    let mut log = MetricsLog::open(&spec.folder.metrics(), step)?;
    if config.log.tensorboard {
        log = log.with_tensorboard(&spec.folder.tensorboard())?;
    }
    Ok(Run {
        spec: spec.clone(),
        member,
        diverged,
        good,
        optimiser,
        schedule: Schedule::of(config),
        log,
        progress: RunProgress { run: spec.id.clone(), values: Vec::new() },
    })
}

/// The pretrained SAEs of a run, frozen unless it trains on with them.
fn pretrained(config: &RunConfig, setup: &Setup) -> Result<Vec<PlacedDictionary>, TrainError> {
    let (device, kind) = (setup.model.model().device(), setup::kind(config));
    let mut saes = Vec::new();
    for source in &config.sae.pretrained {
        let path = setup.sources.sae(source)?;
        for named in weights::load_all(&path, device, kind)? {
            let site = evaluate::site_of(&named, config, &path)?;
            if !config.sae.sites.contains(&site) {
                return Err(TrainError::Source {
                    found: format!("the pretrained SAE at {site} in {}", path.display()),
                    expected: format!("SAEs at sae.sites alone: {}", join(&config.sae.sites)),
                });
            }
            let mut named = named;
            if config.sae.retrain {
                named.dictionary = retrained(config, named.dictionary, &path)?;
            } else {
                named.dictionary.freeze();
            }
            saes.push(evaluate::placed(site, named, config, &path)?);
        }
    }
    Ok(saes)
}

/// A pretrained dictionary to train on, with the options of the configuration: what is trained on is what all records say.
fn retrained(
    config: &RunConfig,
    dictionary: Dictionary,
    path: &Path,
) -> Result<Dictionary, TrainError> {
    let tell = |architecture: &Architecture, skip: bool| {
        let options = serde_json::to_string(architecture).unwrap_or_default();
        format!("{options} {} a skip connection", if skip { "with" } else { "without" })
    };
    let skip = dictionary.sizes().skip;
    let refused = TrainError::Source {
        found: format!(
            "a pretrained dictionary in {}, {}",
            path.display(),
            tell(dictionary.options(), skip)
        ),
        expected: format!(
            "{}: with sae.retrain it is trained on as it is, and sae.architecture and sae.skip have to say what it is",
            tell(&config.sae.architecture, config.sae.skip)
        ),
    };
    let same = dictionary.with_options(&config.sae.architecture);
    same.filter(|_| skip == config.sae.skip).ok_or(refused)
}

fn join(sites: &[Site]) -> String {
    sites.iter().map(Site::to_string).collect::<Vec<_>>().join(", ")
}

/// The last step that all runs have a checkpoint of, 0 where there is none.
fn common_step(specs: &[RunSpec]) -> u64 {
    let steps: Vec<Vec<u64>> = specs.iter().map(|spec| checkpoint::steps(&spec.folder)).collect();
    let shared = |step: &&u64| steps.iter().all(|all| all.contains(step));
    let step = steps.first().and_then(|first| first.iter().rev().find(shared)).copied();
    if let Some(step) = step {
        tracing::info!("going on from step {step}");
    }
    step.unwrap_or(0)
}

fn train_steps(
    runs: &mut [Run],
    setup: &Setup,
    training: &Training<'_>,
    from: u64,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let config = runs[0].spec.config.clone();
    let cursor = (from > 0).then(|| checkpoint::cursor(&runs[0].spec.folder.checkpoint(from)));
    let batches = training.batches(&config, config.train.batch_size.get(), cursor.as_deref())?;
    let tokens_per_unit =
        config.effective_batch_size() * config.data.context_length.get() as u64 * runs.len() as u64;
    let steps = config.n_steps();
    observer.notice(Event::began(Phase::Train, steps, tokens_per_unit));
    let mut bank = Bank { runs, setup, batches, config, from, saved: Instant::now() };
    steps::take(&mut bank, (from, steps), observer)
}

/// A bank in training.
struct Bank<'a> {
    runs: &'a mut [Run],
    setup: &'a Setup,
    batches: Batches<'a>,
    /// The first run's, for what all have in common.
    config: RunConfig,
    /// The step that this call goes on from.
    from: u64,
    /// When the last checkpoint was written.
    saved: Instant,
}

impl Trained for Bank<'_> {
    fn step(&mut self, step: u64) -> Result<StepReport, TrainError> {
        let every = self.config.log.every_n_steps.get() as u64;
        let logged = step.is_multiple_of(every) || step == self.config.n_steps();
        let before = self.batches.cursor();
        let accumulation = self.config.accumulation();
        let taken = take_step(self.runs, self.setup, &mut self.batches, step, accumulation, logged);
        if let Err(error) = taken {
            if matches!(error, TrainError::Data(_)) && step > self.from + 1 {
                // Nothing has been changed yet: once the data is there again, the run goes on from here.
                save_all(self.runs, &self.batches, &before, step - 1)?;
                tracing::error!("stopped after step {}, which is saved", step - 1);
            }
            let configs: Vec<&RunConfig> = self.runs.iter().map(|run| &run.spec.config).collect();
            return Err(memory::explain(error, &configs, self.setup.model.model()));
        }
        Ok(if logged { report(self.runs) } else { StepReport::default() })
    }

    fn measure(&mut self, step: u64) -> Result<(), TrainError> {
        let effective = self.config.effective_batch_size();
        let samples = step * effective;
        match self.config.eval.every_n_samples.map(|n| n.get() as u64) {
            Some(every) if samples / every > (samples - effective) / every => {
                evaluate::log_evaluation(self.runs, self.setup, step)
            }
            _ => Ok(()),
        }
    }

    fn is_due(&self, step: u64) -> bool {
        let minutes = self.config.log.checkpoint_every_minutes.get();
        let between = Duration::from_secs_f64(60.0 * minutes.min(1e9));
        is_kept(&self.config, step) || self.saved.elapsed() >= between
    }

    fn save(&mut self, step: u64) -> Result<(), TrainError> {
        save_all(self.runs, &self.batches, &self.batches.cursor(), step)?;
        self.saved = Instant::now();
        for Run { spec, .. } in &*self.runs {
            checkpoint::prune(&spec.folder, step, |step| is_kept(&spec.config, step), LAST)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.runs.iter().all(|run| run.diverged.is_some())
    }
}

/// One optimiser step of every run that has not diverged.
fn take_step(
    runs: &mut [Run],
    setup: &Setup,
    batches: &mut Batches<'_>,
    step: u64,
    accumulation: u64,
    logged: bool,
) -> Result<(), TrainError> {
    let going_on = |run: &Run| run.diverged.is_none();
    let members: Vec<&Member> =
        runs.iter().filter(|run| going_on(run)).map(|run| &run.member).collect();
    let micro_batches = (step - 1) * accumulation..step * accumulation;
    let found = gradients::of_step(&setup.model, &members, micro_batches, || batches.next())?;
    time(Part::Optimiser, || {
        let runs = runs.iter_mut().filter(|run| going_on(run));
        for (run, found) in runs.zip(&found) {
            run.update(found, step, logged)?;
        }
        Ok(())
    })
}

impl Run {
    fn update(&mut self, found: &StepGradients, step: u64, logged: bool) -> Result<(), TrainError> {
        let train = &self.spec.config.train;
        let StepGradients { gradients, terms, observed, loss, norm } = found;
        let (loss, norm) = (*loss, *norm);
        if !loss.is_finite() || !norm.is_finite() {
            let what = format!("loss {loss}, gradient norm {norm}");
            let kept = self.good.0;
            tracing::error!("{}: {}", self.spec.id, TrainError::NonFinite { step, what, kept });
            for (mut tensor, good) in state(&self.optimiser, &self.member).zip(&self.good.1) {
                no_grad(|| tensor.f_copy_(good))?;
            }
            self.diverged = Some(Diverged { at: step, kept });
            return Ok(());
        }
        if logged {
            self.good = (step - 1, copies(&self.optimiser, &self.member)?);
        }
        let lr = train.lr.get() * self.schedule.factor(step - 1);
        let scale = clip_factor(norm, train.max_grad_norm.map(sae_config::Positive::get));
        self.optimiser.step(gradients, scale, lr)?;
        for observed in observed {
            self.member.observe(observed)?;
        }
        if logged {
            let samples = step * self.spec.config.effective_batch_size();
            let mut line = Map::new();
            line.insert("step".to_owned(), step.into());
            line.insert("samples".to_owned(), samples.into());
            line.insert("lr".to_owned(), lr.into());
            line.insert("grad_norm".to_owned(), norm.into());
            time(Part::Logging, || {
                for (name, value) in terms.values()? {
                    if name != "sparsity" {
                        self.show(name, value);
                    }
                    line.insert(name.to_owned(), value.into());
                }
                Ok::<(), TrainError>(self.log.write(&line)?)
            })?;
        }
        Ok(())
    }

    /// Sets a number that the progress bar shows, where it stood before. JSON has no number that is not finite: it goes.
    pub fn show(&mut self, name: &str, value: f64) {
        if !value.is_finite() {
            self.progress.values.retain(|(known, _)| known != name);
            return;
        }
        match self.progress.values.iter_mut().find(|(known, _)| known == name) {
            Some((_, shown)) => *shown = value,
            None => self.progress.values.push((name.to_owned(), value)),
        }
    }

    /// Writes an evaluation in the middle of the run.
    pub fn log_line(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        Ok(self.log.write(line)?)
    }
}

/// What a run is restored to where it diverges: its parameters, then its buffers.
fn state(optimiser: &Adam, member: &Member) -> impl Iterator<Item = Tensor> {
    let buffers = checkpoint::buffers(member).into_iter().map(|(_, buffer)| buffer);
    optimiser.parameters().map(Tensor::shallow_clone).collect::<Vec<_>>().into_iter().chain(buffers)
}

/// The state as it stands.
fn copies(optimiser: &Adam, member: &Member) -> Result<Vec<Tensor>, TrainError> {
    state(optimiser, member).map(|tensor| Ok(no_grad(|| tensor.f_detach_copy())?)).collect()
}

/// A checkpoint of every run after `step` steps.
fn save_all(
    runs: &[Run],
    batches: &Batches<'_>,
    cursor: &Cursor,
    step: u64,
) -> Result<(), TrainError> {
    for run in runs {
        let state = State {
            step,
            optimiser_steps: run.optimiser.steps(),
            diverged: run.diverged,
            good: Some(run.good.0),
        };
        let (names, buffers) = (checkpoint::names(&run.member), checkpoint::buffers(&run.member));
        let place = run.spec.folder.checkpoint(step);
        let save_rest = |folder: &Path| {
            batches.save_cursor(cursor, &checkpoint::cursor(folder))?;
            // As in a run's folder, so that the SAEs open wherever a run's do.
            evaluate::save_weights(run, &RunFolder::new(folder))
        };
        let tensors = Tensors {
            names: &names,
            optimiser: &run.optimiser,
            buffers: &buffers,
            good: &run.good.1,
        };
        checkpoint::save(&place, &tensors, &state, &save_rest)?;
    }
    Ok(())
}

/// How many runs go on and where they stand, for the progress bar.
fn report(runs: &[Run]) -> StepReport {
    let diverged = runs.iter().filter(|run| run.diverged.is_some()).count();
    let message = match (runs.len(), diverged) {
        (1, _) => runs[0].spec.id.clone(),
        (all, 0) => format!("bank of {all}"),
        (all, diverged) => format!("bank of {all}, {diverged} diverged"),
    };
    let going_on = runs.iter().filter(|run| run.diverged.is_none());
    StepReport { message, runs: going_on.map(|run| run.progress.clone()).collect() }
}
