//! How well the features of finished runs tell the concepts of their evaluation data, and what else tells them: one pass over an even
//! sample of its windows serves the runs of a model, as far as memory goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sae_config::{RunConfig, Site, SiteKind};
use sae_data::{
    DataError, Sample, ShardSet, StreamOptions, TextTokenizer, for_each_annotated_sample,
};
use sae_eval::concepts::{Directions, FeatureUnits, LabelledTokens, score};
use sae_eval::features::SparseCodes;
use sae_eval::for_each_code;
use sae_record::activations::Measured;
use sae_record::concepts::{LabelledText, RunConcepts, SiteConcepts, UnitConcepts};
use sae_record::layout;
use sae_record::metric::name;
use sae_record::summary::Summary;
use sae_splice::{Member, SplicedModel};
use tch::{Device, Kind, Tensor};

use crate::dashboards::check_inputs;
use crate::evaluate::member;
use crate::measure::{Of, of_model, of_one_model, of_run};
use crate::progress::{Event, Observer, Phase};
use crate::setup::Setup;
use crate::{RunSpec, Sources, TrainError};

/// Raised when what is measured changes, so that an old measurement is made anew.
const DEFINITIONS: &str = "2";
/// Decides the random directions.
const SEED: u64 = 0;
/// Random directions, at most.
const MOST_RANDOM: u64 = 4096;
/// Active features of tokens that are in memory together, of 8 bytes each.
const ACTIVE: f64 = 1.5e8;
/// Windows that are counted to sample evenly from them, over those that are wanted, at most.
const COUNTED: u64 = 50;

/// Tokens that concepts are measured on where nobody says.
pub const TOKENS: u64 = 200_000;

/// Says of every token of a document, given its text and the bytes of its tokens, which concepts it has: bit `i` the `i`th.
pub type Label<'a> = dyn FnMut(&str, &[[u32; 2]]) -> Result<Vec<u128>, String> + 'a;

/// The concepts that tokens may have, and what says which they have.
pub struct Concepts<'a> {
    /// The language of the text.
    pub language: &'a str,
    /// Name, group and meaning of each, 128 at most.
    pub all: &'a [[&'a str; 3]],
    /// What says which.
    pub label: &'a mut Label<'a>,
}

/// Measures how well the features of finished runs tell concepts of their evaluation data, `concepts.json` in each run's folder, and
/// how well other directions do, `concepts/<site>.json` in `sweep`. What is there already, of the same things, is not measured again.
/// Runs of another model or data than the first, and runs whose SAEs cannot be read, are left out, with a warning.
pub fn measure_concepts(
    sweep: &Path,
    runs: &[RunSpec],
    concepts: Concepts<'_>,
    tokens: u64,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let Some(first) = runs.first() else { return Ok(()) };
    let same = of_one_model(runs, "concepts are not measured");
    let inputs = Summary::load(&first.folder.summary()).ok().and_then(|summary| summary.inputs);
    let mut of = of_model(&first.config, inputs.as_ref(), &Sources::default())?;
    of.insert("concepts".to_owned(), format!("{} of {}", DEFINITIONS, concepts.language));
    of.insert("tokens".to_owned(), tokens.to_string());
    of.insert("bos".to_owned(), first.config.data.bos.to_string());
    let mut open = Vec::new();
    for run in &same {
        let of = of_run(&of, &run.folder, &run.config)?;
        if !is_measured::<RunConcepts>(&run.folder.concepts(), &of) {
            open.push((*run, of));
        }
    }
    let sites: BTreeSet<Site> =
        same.iter().flat_map(|run| run.config.sae.sites.iter().copied()).collect();
    // As many as the largest dictionary has, whichever runs are measured now.
    let largest = |run: &&RunSpec| {
        let summary = Summary::load(&run.folder.summary()).ok()?;
        summary.n_features.values().copied().max()
    };
    let random = same.iter().filter_map(largest).max().unwrap_or(0).min(MOST_RANDOM);
    let mut of_sites = of.clone();
    of_sites.insert("random".to_owned(), random.to_string());
    let is_missing =
        |site: &Site| !is_measured::<SiteConcepts>(&layout::concepts(sweep, *site), &of_sites);
    let missing: Vec<Site> = sites.into_iter().filter(is_missing).collect();
    if open.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let config = &first.config;
    let setup = Setup::model_only(config, device)?;
    let shards = setup.evaluation_data(config)?;
    if let Some(inputs) = &inputs {
        check_inputs(first, inputs, &setup, &shards)?;
    }
    let tokenizer = setup.tokenizer(&shards)?.ok_or_else(|| {
        TrainError::Data(DataError::Annotation(format!(
            "{} holds token ids, expected text: what a token is, a parser says of its document",
            shards.source().display()
        )))
    })?;
    let (mut members, mut measured) = (Vec::new(), Vec::new());
    for (run, of) in open {
        match member(&run.config, run.folder.path(), &setup, device) {
            Ok(member) => {
                members.push(member);
                measured.push((run, of));
            }
            Err(error) => tracing::warn!("{}: concepts are not measured: {error}", run.id),
        }
    }
    let text = Text { config, setup: &setup, shards: &shards, tokenizer: &tokenizer };
    let mut pass = Pass::over(&text, concepts, tokens, observer)?;
    let own: Vec<&RunSpec> = measured.iter().map(|(run, _)| *run).collect();
    for group in groups(&own, tokens) {
        let own: Vec<&Member> = members[group.clone()].iter().collect();
        let found = pass.gather(&own, None, observer)?;
        observer.notice(Event::began(Phase::ScoreConcepts, own.len() as u64, 0));
        for (done, (units, (run, of))) in
            found.features.into_iter().zip(&measured[group]).enumerate()
        {
            let sites = run.config.sae.sites.iter().copied();
            let values: RunConcepts = sites
                .zip(units)
                .map(|(site, units)| (site, score(&units, &pass.tokens, &pass.text)))
                .collect();
            Measured { of: of.clone(), values }.save(&run.folder.concepts())?;
            advance(observer, done as u64 + 1)?;
        }
        observer.notice(Event::Ended);
    }
    // One after the other: activations take much room.
    for site in missing {
        let found = pass.gather(&[], Some(site), observer)?;
        let width = setup.model.model().config().width(site.kind);
        let baselines = pass.baselines(found, width, random as usize, observer)?;
        let path = layout::concepts(sweep, site);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(TrainError::file("create", folder))?;
        }
        let values = SiteConcepts { text: pass.text.clone(), baselines };
        Measured { of: of_sites.clone(), values }.save(&path)?;
    }
    Ok(())
}

fn advance(observer: &mut dyn Observer, done: u64) -> Result<(), TrainError> {
    observer.notice(Event::advanced(done));
    if observer.interrupted() { Err(TrainError::InterruptedEvaluation) } else { Ok(()) }
}

/// Whether the same was measured before.
fn is_measured<T: serde::Serialize + serde::de::DeserializeOwned>(path: &Path, of: &Of) -> bool {
    matches!(Measured::<T>::load(path), Ok(Some(found)) if found.of == *of)
}

/// Runs whose active features are in memory together, by what their summaries say of L0.
fn groups(runs: &[&RunSpec], tokens: u64) -> Vec<std::ops::Range<usize>> {
    let active = |run: &RunSpec| {
        let summary = Summary::load(&run.folder.summary()).ok();
        let sites = summary.map(|summary| summary.evaluation.sites).unwrap_or_default();
        let l0: f64 = sites.values().map(|values| values.get(name::L0)).sum();
        tokens as f64 * if l0.is_finite() { l0 } else { 0.0 }
    };
    let (mut groups, mut start, mut sum) = (Vec::new(), 0, 0.0);
    for (place, run) in runs.iter().enumerate() {
        let own = active(run);
        if place > start && sum + own > ACTIVE {
            groups.push(start..place);
            (start, sum) = (place, 0.0);
        }
        sum += own;
    }
    if start < runs.len() {
        groups.push(start..runs.len());
    }
    groups
}

/// The text that concepts are of.
struct Text<'a> {
    config: &'a RunConfig,
    setup: &'a Setup,
    shards: &'a ShardSet,
    tokenizer: &'a TextTokenizer,
}

/// The windows that are looked at, and the concepts of their tokens.
struct Pass<'a> {
    model: &'a SplicedModel,
    windows: Vec<Vec<i64>>,
    batch_size: usize,
    tokens: LabelledTokens,
    text: LabelledText,
}

/// What a pass has gathered.
struct Gathered {
    /// Of every member, dictionary by dictionary.
    features: Vec<Vec<FeatureUnits>>,
    /// The activations at the site, if there is one, a token's together.
    activations: Vec<f32>,
    /// The neurons before it.
    neurons: Option<FeatureUnits>,
}

impl<'a> Pass<'a> {
    /// An even sample of the windows of a text, with the concepts of their tokens.
    fn over(
        text: &Text<'a>,
        concepts: Concepts<'_>,
        tokens: u64,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let Concepts { language, all, label } = concepts;
        let options = text.setup.options(text.config);
        let length = text.config.data.context_length.get() as u64;
        let wanted = tokens.div_ceil(length).max(1);
        let total = text.count(&options, wanted * COUNTED)?;
        let wanted = wanted.min(total);
        observer.notice(Event::began(Phase::Concepts, total, length));
        let (mut seen, mut windows, mut stopped) = (0, Vec::new(), false);
        let mut labelled = LabelledTokens::new(all.len());
        let annotate = |document: &str, bytes: &[[u32; 2]]| {
            label(document, bytes).map_err(DataError::Annotation)
        };
        let take = |sample: Sample, sets: Vec<u128>| {
            // The nth of `wanted` is among every so many.
            if (seen + 1) * wanted / total > seen * wanted / total {
                windows.push(sample.tokens.iter().map(|&id| i64::from(id)).collect());
                for (source, set) in sample.sources.iter().zip(sets) {
                    labelled.push((source.shard, source.row), set);
                }
            }
            seen += 1;
            observer.notice(Event::advanced(seen));
            stopped = observer.interrupted();
            seen < total && !stopped
        };
        for_each_annotated_sample(text.shards, Some(text.tokenizer), &options, annotate, take)?;
        observer.notice(Event::Ended);
        if stopped {
            return Err(TrainError::InterruptedEvaluation);
        }
        let found = labelled.text(language, all);
        if found.documents[1] == 0 {
            return Err(TrainError::Data(DataError::Annotation(format!(
                "{} has {} of them in {} windows, expected two or more: one half is chosen on, the other measured on",
                text.shards.source().display(),
                found.documents[0],
                windows.len()
            ))));
        }
        Ok(Self {
            model: &text.setup.model,
            windows,
            batch_size: text.config.eval_batch_size(),
            tokens: labelled,
            text: found,
        })
    }

    /// What dictionaries are active on, and what there is at a site.
    fn gather(
        &mut self,
        members: &[&Member],
        site: Option<Site>,
        observer: &mut dyn Observer,
    ) -> Result<Gathered, TrainError> {
        let config = self.model.model().config();
        let own = |member: &&Member| {
            let dictionaries = member.dictionaries().iter();
            dictionaries.map(|placed| FeatureUnits::new(placed.dictionary.n_features())).collect()
        };
        let before = site.and_then(neurons_before);
        let mut found = Gathered {
            features: members.iter().map(own).collect(),
            activations: Vec::new(),
            neurons: before.map(|site| FeatureUnits::new(config.width(site.kind))),
        };
        let wanted: BTreeSet<Site> = site.into_iter().chain(before).collect();
        let length = self.windows.first().map_or(1, Vec::len);
        observer.notice(Event::began(Phase::Features, self.windows.len() as u64, length as u64));
        let mut done = 0;
        for batch in self.windows.chunks(self.batch_size.max(1)) {
            let ids = Tensor::f_from_slice(&batch.concat())?
                .f_view([-1, length as i64])?
                .f_to_device(self.model.model().device())?;
            if !members.is_empty() {
                for_each_code(self.model, members, &ids, |member, dictionary, codes| {
                    found.features[member][dictionary].add(&SparseCodes::of(codes)?);
                    Ok(())
                })?;
            }
            if let Some(site) = site {
                let clean = self.model.clean_pass(&ids, &wanted, false)?;
                found.activations.extend(numbers(clean.activation(site)?)?);
                if let (Some(neurons), Some(before)) = (&mut found.neurons, before) {
                    neurons.add(&SparseCodes::of(clean.activation(before)?)?);
                }
            }
            done += batch.len() as u64;
            advance(observer, done)?;
        }
        observer.notice(Event::Ended);
        Ok(found)
    }

    /// What other directions at a site tell, by name.
    fn baselines(
        &self,
        found: Gathered,
        width: usize,
        random: usize,
        observer: &mut dyn Observer,
    ) -> Result<BTreeMap<String, UnitConcepts>, TrainError> {
        let (tokens, text) = (&self.tokens, &self.text);
        let directions = Directions::new(found.activations, width);
        observer.notice(Event::began(Phase::ScoreConcepts, 4, 0));
        let mut baselines = BTreeMap::new();
        let mut add = |name: &str, found: UnitConcepts| {
            baselines.insert(name.to_owned(), found);
            advance(observer, baselines.len() as u64)
        };
        add("dimensions", score(&directions.basis(), tokens, text))?;
        add("principal directions", score(&directions.principal()?, tokens, text))?;
        add("random directions", score(&directions.random(random, SEED), tokens, text))?;
        if let Some(neurons) = found.neurons {
            add("neurons", score(&neurons, tokens, text))?;
        }
        observer.notice(Event::Ended);
        Ok(baselines)
    }
}

impl Text<'_> {
    /// The windows there are, up to a number.
    fn count(&self, options: &StreamOptions, most: u64) -> Result<u64, TrainError> {
        let mut most = most;
        if self.config.eval.data == self.config.data.train {
            // What comes after is trained on.
            most = most.min(self.config.eval.n_samples.unwrap_or(most));
        }
        let mut count = 0;
        let nothing = |_: &str, tokens: &[[u32; 2]]| Ok(vec![(); tokens.len()]);
        for_each_annotated_sample(self.shards, Some(self.tokenizer), options, nothing, |_, _| {
            count += 1;
            count < most
        })?;
        if count == 0 {
            let length = self.config.data.context_length.get();
            return Err(DataError::TooShort {
                path: self.shards.source().to_owned(),
                found: 0,
                context_length: length,
                needed: 1,
                purpose: " to measure concepts",
            }
            .into());
        }
        Ok(count)
    }
}

/// The neurons that write into the residual stream last before a site; none before the first MLP.
fn neurons_before(site: Site) -> Option<Site> {
    let block = match site.kind {
        SiteKind::ResidPre | SiteKind::ResidMid | SiteKind::AttnOut => site.block.checked_sub(1)?,
        _ => site.block,
    };
    Some(Site { block, kind: SiteKind::MlpPost })
}

fn numbers(x: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    x.f_detach()?
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?
        .f_view([-1])?
        .try_into()
}
