//! Dashboards of finished runs' features: one pass over evaluation data serves all runs of a model, as far as memory goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sae_config::fingerprint::Fingerprint;
use sae_config::{RunConfig, Site};
use sae_data::{ColumnKind, DataError, Sample, ShardSet, for_each_sample};
use sae_eval::features::{
    Example, FeatureGatherer, GatheredFeature, Lens, SparseCodes, has_lens, logit_lens, nearest,
    nearest_within,
};
use sae_eval::for_each_code;
use sae_record::dashboard::{
    Dashboard, ExampleRecord, FeatureCard, Gathered, LensToken, Near, PartnerRecord,
};
use sae_record::features;
use sae_record::metric::name;
use sae_record::summary::{Inputs, Summary};
use sae_splice::{Member, PlacedDictionary};
use tch::{Device, Kind, Tensor};

use crate::evaluate::member;
use crate::measure::{Of, of_model, of_one_model, of_run};
use crate::progress::{Event, Observer, Phase};
use crate::setup::Setup;
use crate::{RunSpec, Sources, TrainError};

/// Raised when what a dashboard means changes, so that an old one is made anew.
const DEFINITIONS: &str = "3";
/// The name of the number of tokens among what a dashboard depends on.
const TOKENS_ASKED_FOR: &str = "tokens";
/// Decides which examples are drawn.
const SEED: u64 = 0;
/// Tokens of the logit lens, in each direction.
const LENS: usize = 10;
/// Nearest elements of the own dictionary.
const NEAR: usize = 3;
/// Tokens of an example: longer windows are cut around their greatest activation.
const EXAMPLE: usize = 64;
/// Of these, those after the greatest activation.
const AFTER: usize = 16;
/// Tokens of the highest activations that a card names.
const PEAKS: usize = 5;
/// Dictionary elements that are looked at in one pass: some ten dictionaries of GPT-2 small's size in the paper.
const ELEMENTS: usize = 500_000;

/// Tokens that dashboards are made of where nobody says.
pub const TOKENS: u64 = 200_000;

/// The dashboards of a run: sites, and how many features were active at each.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDashboards {
    /// The run's id.
    pub run: String,
    /// Features with a card, of all, at each site.
    pub sites: BTreeMap<Site, (u64, u64)>,
}

/// Makes `dashboard/<site>/` of finished runs over the first `tokens` tokens of their evaluation data, [`TOKENS`] where left out.
/// What is there already, of the same model, data and SAEs, is not made again; where `tokens` is left out, however many tokens it is
/// of. Among several runs, the nearest elements in the others are found, too, and anew where the others have changed. Runs of another
/// model or other data than the first, and runs whose SAEs cannot be read, are left out, with a warning.
pub fn make_dashboards(
    runs: &[RunSpec],
    tokens: Option<u64>,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<Vec<RunDashboards>, TrainError> {
    let Some(first) = runs.first() else { return Ok(Vec::new()) };
    let same = of_one_model(runs, "no dashboards are made");
    let inputs = Summary::load(&first.folder.summary()).ok().and_then(|summary| summary.inputs);
    let mut of = of_model(&first.config, inputs.as_ref(), &Sources::default())?;
    of.insert("dashboard".to_owned(), DEFINITIONS.to_owned());
    of.insert(TOKENS_ASKED_FOR.to_owned(), tokens.unwrap_or(TOKENS).to_string());
    let mut wanted = Vec::new();
    for run in &same {
        let of = of_run(&of, &run.folder, &run.config)?;
        if !is_made(run, &of, tokens.is_none()) {
            wanted.push((*run, of));
        }
    }
    let passes = Passes { inputs, tokens: tokens.unwrap_or(TOKENS), device };
    for group in groups(&wanted) {
        passes.make(group, observer)?;
    }
    if let [_, _, ..] = same.as_slice() {
        compare(&same, device)?;
    }
    let mut made = Vec::with_capacity(same.len());
    for run in same {
        let mut sites = BTreeMap::new();
        for site in &run.config.sae.sites {
            if let Some(dashboard) = Dashboard::load(&run.folder.dashboard(*site))? {
                let n_features = dashboard.gathered.n_features;
                sites.insert(*site, (dashboard.cards.len() as u64, n_features));
            }
        }
        made.push(RunDashboards { run: run.id.clone(), sites });
    }
    Ok(made)
}

/// Whether a run has dashboards of these things at all of its sites; of any number of tokens, if that is enough.
fn is_made(run: &RunSpec, of: &Of, of_any_tokens: bool) -> bool {
    let fits = |made: &Gathered| {
        let same = |(key, value): (&String, &String)| {
            (of_any_tokens && key == TOKENS_ASKED_FOR) || made.of.get(key) == Some(value)
        };
        made.of.len() == of.len() && of.iter().all(same)
    };
    let mut sites =
        run.config.sae.sites.iter().map(|site| Gathered::load(&run.folder.dashboard(*site)));
    sites.all(|made| matches!(made, Ok(Some(made)) if fits(&made)))
}

/// Runs that are looked at in one pass: of one precision, and not too many elements together.
pub(crate) fn groups<'a, 'b, T>(wanted: &'a [(&'b RunSpec, T)]) -> Vec<&'a [(&'b RunSpec, T)]> {
    let elements = |run: &RunSpec| -> usize {
        let summary = Summary::load(&run.folder.summary()).ok();
        summary.map_or(0, |summary| summary.n_features.values().sum::<u64>() as usize)
    };
    let (mut groups, mut start, mut sum) = (Vec::new(), 0, 0);
    for (place, (run, _)) in wanted.iter().enumerate() {
        let own = elements(run);
        let other = run.config.train.precision != wanted[start].0.config.train.precision;
        if place > start && (other || sum + own > ELEMENTS) {
            groups.push(&wanted[start..place]);
            (start, sum) = (place, 0);
        }
        sum += own;
    }
    groups.push(&wanted[start..]);
    groups.retain(|group| !group.is_empty());
    groups
}

/// What all passes have in common.
struct Passes {
    /// What the runs were computed from.
    inputs: Option<Inputs>,
    tokens: u64,
    device: Device,
}

impl Passes {
    /// The dashboards of a group of runs, without what is near in others.
    fn make(
        &self,
        group: &[(&RunSpec, Of)],
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (first, _) = group[0];
        let config = &first.config;
        let setup = Setup::model_only(config, self.device)?;
        let shards = setup.evaluation_data(config)?;
        if let Some(inputs) = &self.inputs {
            check_inputs(first, inputs, &setup, &shards)?;
        }
        let (mut open, mut members) = (Vec::new(), Vec::new());
        for (run, of) in group {
            match member(&run.config, run.folder.path(), &setup, self.device) {
                Ok(member) => {
                    open.push((*run, of));
                    members.push(member);
                }
                Err(error) => tracing::warn!("{}: no dashboards are made: {error}", run.id),
            }
        }
        let all: Vec<&Member> = members.iter().collect();
        let gatherers = gather(&all, config, (&setup, &shards), self.tokens, observer)?;
        let vocabulary = setup.text_tokenizer().map_or_else(
            |error| {
                tracing::warn!("tokens are shown as numbers: {error}");
                (0..setup.model.model().config().vocabulary).map(|id| format!("[{id}]")).collect()
            },
            |tokenizer| tokenizer.texts(),
        );
        let files: Vec<String> = shards.names().map(|name| name.display().to_string()).collect();
        for (((run, of), member), gatherers) in open.iter().zip(&members).zip(gatherers) {
            for (placed, gatherer) in member.dictionaries().iter().zip(gatherers) {
                let gathered = Gathered {
                    of: (*of).clone(),
                    compared_with: String::new(),
                    tokens: gatherer.tokens(),
                    context_length: config.data.context_length.get() as u64,
                    n_features: placed.dictionary.n_features() as u64,
                    data: shards.source().display().to_string(),
                    files: files.clone(),
                    are_windows: shards.kind() == ColumnKind::Windows,
                };
                let found = gatherer.finish();
                let cards = cards(run, placed, &found, gathered.tokens, &setup)?;
                let folder = run.folder.dashboard(placed.writes);
                let examples = found.into_iter().map(|feature| examples(&feature));
                Dashboard::write(&folder, &gathered, &cards, examples, &vocabulary)?;
            }
        }
        Ok(())
    }
}

/// Refuses to look at features on something else than the runs were computed from.
pub(crate) fn check_inputs(
    run: &RunSpec,
    inputs: &Inputs,
    setup: &Setup,
    shards: &ShardSet,
) -> Result<(), TrainError> {
    let config = &run.config;
    let evaluation = shards.fingerprint(setup.tokenizer(shards)?.as_ref())?;
    let (what, place) = if inputs.model != setup.model_fingerprint() {
        ("model", config.model.path.to_string())
    } else if inputs.evaluation != evaluation {
        ("evaluation data", config.eval.data.to_string())
    } else {
        return Ok(());
    };
    Err(TrainError::OtherInputs { path: run.folder.path().to_owned(), what, place })
}

/// What the features of every dictionary of these members are active on, on the first tokens of the evaluation data: one pass.
pub(crate) fn gather(
    members: &[&Member],
    config: &RunConfig,
    (setup, shards): (&Setup, &ShardSet),
    tokens: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<FeatureGatherer>>, TrainError> {
    let gatherer =
        |placed: &PlacedDictionary| FeatureGatherer::new(placed.dictionary.n_features(), SEED);
    let mut gatherers: Vec<Vec<FeatureGatherer>> =
        members.iter().map(|member| member.dictionaries().iter().map(gatherer).collect()).collect();
    let at = (setup, shards);
    for_each_batch(
        members,
        config,
        at,
        tokens,
        observer,
        |(member, dictionary), samples, codes| {
            gatherers[member][dictionary].add(samples, codes);
        },
    )?;
    Ok(gatherers)
}

/// Shows the first tokens of the evaluation data, batch by batch, and what every dictionary of these members makes of them, with the
/// numbers of member and dictionary: one pass.
pub(crate) fn for_each_batch(
    members: &[&Member],
    config: &RunConfig,
    (setup, shards): (&Setup, &ShardSet),
    tokens: u64,
    observer: &mut dyn Observer,
    mut f: impl FnMut((usize, usize), &[Arc<Sample>], &SparseCodes),
) -> Result<(), TrainError> {
    let tokenizer = setup.tokenizer(shards)?;
    let length = config.data.context_length.get() as u64;
    let mut most = tokens.div_ceil(length).max(1);
    if config.eval.data == config.data.train {
        // What comes after is trained on.
        most = most.min(config.eval.n_samples.unwrap_or(most)).max(1);
    }
    let batch_size = config.eval_batch_size();
    observer.notice(Event::began(Phase::Features, most, length * members.len() as u64));
    let mut take = |samples: Vec<Arc<Sample>>, done: u64| -> Result<(), TrainError> {
        let ids = ids(&samples, setup)?;
        for_each_code(&setup.model, members, &ids, |member, dictionary, features| {
            f((member, dictionary), &samples, &SparseCodes::of(features)?);
            Ok(())
        })?;
        let message = format!("{} runs", members.len());
        observer.notice(Event::Advanced { done, message, runs: Vec::new() });
        if observer.interrupted() { Err(TrainError::InterruptedEvaluation) } else { Ok(()) }
    };
    let (mut batch, mut done, mut outcome) = (Vec::new(), 0, Ok(()));
    for_each_sample(shards, tokenizer.as_ref(), &setup.options(config), |sample| {
        batch.push(Arc::new(sample));
        done += 1;
        if batch.len() == batch_size {
            outcome = take(std::mem::take(&mut batch), done);
        }
        outcome.is_ok() && done < most
    })?;
    outcome?;
    if done == 0 {
        return Err(DataError::TooShort {
            path: shards.source().to_owned(),
            found: 0,
            context_length: length as usize,
            needed: 1,
            purpose: " to look at features",
        }
        .into());
    }
    if !batch.is_empty() {
        take(batch, done)?;
    }
    observer.notice(Event::Ended);
    if done < most {
        tracing::info!("{} holds {done} windows: all were looked at", shards.source().display());
    }
    Ok(())
}

/// The tokens of samples, `[B, T]`.
fn ids(samples: &[Arc<Sample>], setup: &Setup) -> Result<Tensor, TrainError> {
    let ids: Vec<i64> =
        samples.iter().flat_map(|sample| sample.tokens.iter().map(|&id| i64::from(id))).collect();
    let length = (ids.len() / samples.len()) as i64;
    let device = setup.model.model().device();
    Ok(Tensor::f_from_slice(&ids)?.f_view([-1, length])?.f_to_device(device)?)
}

fn cards(
    run: &RunSpec,
    placed: &PlacedDictionary,
    found: &[GatheredFeature],
    tokens: u64,
    setup: &Setup,
) -> Result<Vec<FeatureCard>, TrainError> {
    let dictionary = &placed.dictionary;
    let active: Vec<u32> = found.iter().map(|feature| feature.feature).collect();
    let elements = elements(placed)?;
    let lens = if has_lens(placed.writes.kind) {
        logit_lens(setup.model.model(), &rows(&elements, &active)?, LENS)?
    } else {
        vec![Lens::default(); active.len()]
    };
    let near = nearest_within(&elements, &active, NEAR)?;
    let norms: HashMap<u32, f64> = features::read(&run.folder.features(), placed.writes)
        .map(|all| all.into_iter().map(|feature| (feature.index, feature.decoder_norm)).collect())
        .unwrap_or_default();
    let bias = dictionary.parameter("b_enc")?.f_detach()?.f_to_kind(Kind::Double)?;
    let biases: Vec<f64> = Vec::try_from(bias.f_to_device(Device::Cpu)?)?;
    let card = |((found, lens), near): ((&GatheredFeature, Lens), Vec<_>)| FeatureCard {
        feature: found.feature,
        active: found.active,
        density: found.active as f64 / tokens.max(1) as f64,
        mean: found.mean,
        max: found.max,
        decoder_norm: norms.get(&found.feature).copied(),
        encoder_bias: biases[found.feature as usize],
        histogram_width: found.histogram.width,
        histogram: found.histogram.counts.clone(),
        peak_tokens: peak_tokens(&found.highest),
        highest: lens_tokens(&lens.highest),
        lowest: lens_tokens(&lens.lowest),
        near: near.into_iter().map(|near| to_near(None, near)).collect(),
        partners: found
            .partners
            .iter()
            .map(|partner| PartnerRecord {
                feature: partner.feature,
                share: partner.share,
                lift: partner.lift,
            })
            .collect(),
        // Written with the examples.
        examples: 0..0,
    };
    Ok(found.iter().zip(lens).zip(near).map(card).collect())
}

/// Dictionary elements at unit length, in single precision at least.
fn elements(placed: &PlacedDictionary) -> Result<Tensor, TrainError> {
    Ok(placed.dictionary.elements()?.f_detach()?.f_to_kind(Kind::Float)?)
}

/// Some rows of a tensor.
fn rows(tensor: &Tensor, places: &[u32]) -> Result<Tensor, TrainError> {
    let places: Vec<i64> = places.iter().map(|&place| i64::from(place)).collect();
    let places = Tensor::f_from_slice(&places)?.f_to_device(tensor.device())?;
    Ok(tensor.f_index_select(0, &places)?)
}

/// Finds what is near in other runs, where these are not those that were compared with before.
fn compare(runs: &[&RunSpec], device: Device) -> Result<(), TrainError> {
    let candidates: Vec<Candidate<'_>> = runs.iter().map(|run| Candidate::of(run)).collect();
    let mut setup: Option<Setup> = None;
    for own in &candidates {
        for site in &own.run.config.sae.sites {
            let folder = own.run.folder.dashboard(*site);
            let Some(mut dashboard) = Dashboard::load(&folder)? else { continue };
            let others = neighbours(own, *site, &candidates);
            let mut together = Fingerprint::new();
            for other in &others {
                let of = of_run(&Of::new(), &other.run.folder, &other.run.config)?;
                together = together.text(&other.run.id).text(&format!("{of:?}"));
            }
            let together = together.finish();
            if dashboard.gathered.compared_with == together {
                continue;
            }
            if setup.is_none() {
                setup = Some(Setup::model_only(&own.run.config, device)?);
            }
            let Some(setup) = &setup else { continue };
            let placed = |run: &RunSpec| -> Result<Option<Tensor>, TrainError> {
                let member = member(&run.config, run.folder.path(), setup, device)?;
                let placed = member.dictionaries().iter().find(|placed| placed.writes == *site);
                placed.map(elements).transpose()
            };
            let Some(own_elements) = placed(own.run)? else { continue };
            let active: Vec<u32> = dashboard.cards.iter().map(|card| card.feature).collect();
            let own_elements = rows(&own_elements, &active)?;
            for card in &mut dashboard.cards {
                card.near.retain(|near| near.run.is_none());
            }
            for other in others {
                let Ok(Some(elements)) = placed(other.run) else { continue };
                if elements.size2()?.1 != own_elements.size2()?.1 {
                    continue;
                }
                let found = nearest(&own_elements, &elements, 1)?;
                for (card, found) in dashboard.cards.iter_mut().zip(found) {
                    let near = found.into_iter().map(|near| to_near(Some(&other.run.id), near));
                    card.near.extend(near);
                }
            }
            dashboard.gathered.compared_with = together;
            dashboard.rewrite_cards()?;
        }
    }
    Ok(())
}

/// A run that others may be near to.
struct Candidate<'a> {
    run: &'a RunSpec,
    /// Type, architecture, seed.
    key: (String, &'static str, u64),
    ce_increase: f64,
}

impl<'a> Candidate<'a> {
    fn of(run: &'a RunSpec) -> Self {
        let config = &run.config;
        let summary = Summary::load(&run.folder.summary()).ok();
        let ce_increase =
            summary.map_or(f64::NAN, |found| found.evaluation.values.get(name::CE_INCREASE));
        let sae = &config.sae;
        let key = (config.variant().to_string(), sae.architecture.name(), sae.seed);
        Self { run, key, ce_increase }
    }
}

/// The runs whose elements are looked at beside those of a run at a site: of every other type and seed that has a dictionary there, the
/// one whose cross-entropy increase is nearest to its own.
fn neighbours<'a>(
    own: &Candidate<'_>,
    site: Site,
    all: &'a [Candidate<'a>],
) -> Vec<&'a Candidate<'a>> {
    let distance = |other: &Candidate<'_>| {
        let distance = (other.ce_increase - own.ce_increase).abs();
        if distance.is_finite() { distance } else { f64::MAX }
    };
    let mut nearest: BTreeMap<_, &Candidate<'_>> = BTreeMap::new();
    let others = all
        .iter()
        .filter(|other| other.key != own.key && other.run.config.sae.sites.contains(&site));
    for other in others {
        let kept = nearest.entry(&other.key).or_insert(other);
        if distance(other) < distance(kept) {
            *kept = other;
        }
    }
    nearest.into_values().collect()
}

fn to_near(run: Option<&String>, near: sae_eval::features::Neighbour) -> Near {
    Near { run: run.cloned(), feature: near.feature, cosine: near.cosine }
}

fn lens_tokens(tokens: &[(u32, f32)]) -> Vec<LensToken> {
    tokens.iter().map(|&(token, logit)| LensToken { token, logit }).collect()
}

/// The tokens of the highest activations, the most frequent first.
fn peak_tokens(highest: &[Example]) -> Vec<u32> {
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for example in highest {
        let token = example.tokens[example.position as usize];
        match counts.iter_mut().find(|(own, _)| *own == token) {
            Some((_, count)) => *count += 1,
            None => counts.push((token, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(PEAKS).map(|(token, _)| token).collect()
}

/// The examples of a feature: the highest first, then from the highest interval to the lowest.
fn examples(found: &GatheredFeature) -> Vec<ExampleRecord> {
    let highest = found.highest.iter().map(|example| record(found.feature, None, example));
    let intervals = found.intervals.iter().enumerate().rev().flat_map(|(interval, examples)| {
        examples.iter().map(move |example| record(found.feature, Some(interval as u8), example))
    });
    highest.chain(intervals).collect()
}

fn record(feature: u32, interval: Option<u8>, example: &Example) -> ExampleRecord {
    let (tokens, source) = (&example.tokens, example.source);
    let peak = example.position as usize;
    let end = (peak + 1 + AFTER).max(EXAMPLE).min(tokens.len());
    let first = end.saturating_sub(EXAMPLE);
    let mut activations = vec![0.0; end - first];
    for &(position, value) in example.activations.iter() {
        if (first..end).contains(&(position as usize)) {
            activations[position as usize - first] = value;
        }
    }
    ExampleRecord {
        feature,
        interval,
        peak: example.peak,
        position: (peak - first) as u32,
        own: [example.own.start, example.own.end]
            .map(|place| (place as usize).clamp(first, end) as u32 - first as u32),
        tokens: tokens[first..end].to_vec(),
        activations,
        first: first as u32,
        file: source.shard,
        row: source.row,
        bytes: source.bytes,
    }
}
