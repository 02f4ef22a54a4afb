//! `sae explain`: features of finished runs → what a language model says that they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sae_analysis::matching::{MatchBy, matches};
use sae_analysis::{AnalysisOptions, SweepRuns};
use sae_config::Site;
use sae_config::message::counted;
use sae_interp::endpoint::Question;
use sae_interp::explain::{AboutFeature, QUESTIONS, explanation, question};
use sae_record::Phase;
use sae_record::dashboard::Dashboard;
use sae_record::explanations::{Explained, Explanations};

use crate::configuration::load_runs;
use crate::judge::Judge;
use crate::telemetry::Telemetry;

/// Tokens that a feature was active on, at least, to be drawn; the paper's bound.
const LEAST_ACTIVE: u64 = 20;

/// Ask a language model what features are
///
/// Features are drawn from those that were active on 20 tokens or more. Of each the model is shown windows of its dashboard
/// (`sae features`), with the tokens marked that it is active on, and the tokens that it makes likelier, and says in a sentence what it
/// is. Of a sweep the runs matched by CE increase and by L0 are asked about. `sae view` and the report show explanations on the cards.
/// Half of the documents are never shown, so that explanations can be scored on them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # What it would cost
  sae explain runs/rust-lm --model gpt-4o-mini --base-url https://api.openai.com/v1 --dry-run --prices configs/prices.toml
  # A server on this machine, as llama.cpp's or vLLM's
  sae explain runs/rust-lm --model qwen --base-url http://127.0.0.1:8000/v1 --features 20
  # Some features of a run
  sae explain runs/rust-lm/e2e_sparsity-0.3 --model qwen --feature 17 --feature 42")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Features to draw of every dictionary
    #[arg(long, value_name = "N", default_value = "150")]
    features: std::num::NonZeroUsize,
    /// This feature, of every dictionary; may be given several times
    #[arg(long = "feature", value_name = "FEATURE", conflicts_with = "features")]
    chosen: Vec<u32>,
    /// Decides which features are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    judge: Judge,
}

/// A dictionary whose features are asked about.
struct Asked {
    run: String,
    site: Site,
    folder: PathBuf,
    dashboard: Dashboard,
    /// By feature.
    questions: Vec<(u32, AboutFeature)>,
}

pub(crate) fn run(arguments: &Arguments, telemetry: &mut Telemetry) -> anyhow::Result<()> {
    let runs = load_runs(&arguments.folder, &AnalysisOptions::default())?;
    let mut asked = Vec::new();
    for (run, site) in looked_at(&runs) {
        asked.extend(ask_about(arguments, &runs, &run, site)?);
    }
    if asked.is_empty() {
        bail!(
            "no run that is looked at has dashboards: `sae features {}` makes them",
            arguments.folder.display()
        );
    }
    let endpoint = arguments.judge.endpoint(&runs.folder);
    let questions: Vec<Question> = asked
        .iter()
        .flat_map(|own| &own.questions)
        .map(|(_, about)| about.question.clone())
        .collect();
    let answers = arguments.judge.ask(&endpoint, &questions, Phase::Explain, telemetry)?;
    let Some(answers) = answers else { return Ok(()) };
    let mut answers = answers.into_iter();
    let mut failed = 0;
    for own in asked {
        let of = &own.dashboard.gathered.of;
        let before = Explanations::load(&own.folder, of)?;
        if let Some(before) = before.as_ref().filter(|found| found.judge != endpoint.model()) {
            tracing::warn!(
                "{} at {}: explanations of {} give way to those of {}; its answers are kept",
                own.run,
                own.site,
                before.judge,
                endpoint.model()
            );
        }
        let mut explanations = before
            .filter(|found| found.judge == endpoint.model() && found.questions == QUESTIONS)
            .unwrap_or_else(|| Explanations {
                of: of.clone(),
                judge: endpoint.model().to_owned(),
                questions: QUESTIONS,
                features: BTreeMap::new(),
            });
        let mut told = 0;
        for ((feature, about), answer) in own.questions.into_iter().zip(&mut answers) {
            let (text, error) = match answer.and_then(|answer| explanation(&answer)) {
                Ok(text) => (Some(text), None),
                Err(error) => (None, Some(error.to_string())),
            };
            told += usize::from(text.is_some());
            failed += usize::from(error.is_some());
            if let Some(error) = &error {
                tracing::debug!("{} at {}, feature {feature}: {error}", own.run, own.site);
            }
            let is_kept =
                explanations.features.get(&feature).is_some_and(|kept| kept.text.is_some());
            if text.is_some() || !is_kept {
                let documents = about.documents;
                explanations.features.insert(feature, Explained { text, error, documents });
            }
        }
        explanations.save(&own.folder)?;
        tracing::info!("{} at {}: {} explained", own.run, own.site, counted(told, "feature"));
    }
    if failed > 0 {
        tracing::warn!(
            "{} without an explanation; why stands in explanations.json of the dashboards (-v says it here)",
            counted(failed, "feature")
        );
    }
    Ok(())
}

/// The runs and sites whose features are asked about: those matched by CE increase and by L0, all where nothing is matched.
pub(crate) fn looked_at(runs: &SweepRuns) -> BTreeSet<(String, Site)> {
    let matched: BTreeSet<(String, Site)> = [MatchBy::CeIncrease, MatchBy::L0]
        .into_iter()
        .flat_map(|by| matches(&runs.points, by))
        .flat_map(|found| found.points)
        .map(|point| (point.run, point.site))
        .collect();
    if matched.is_empty() {
        return runs.points.iter().map(|point| (point.run.clone(), point.site)).collect();
    }
    matched
}

/// The questions about the features of a dictionary; none where it has no dashboard.
fn ask_about(
    arguments: &Arguments,
    runs: &SweepRuns,
    run: &str,
    site: Site,
) -> anyhow::Result<Option<Asked>> {
    let found = runs.run(run).with_context(|| format!("there is no run {run}"))?;
    let folder = runs.folder_of(found).dashboard(site);
    let Some(dashboard) = Dashboard::load(&folder)? else {
        tracing::warn!(
            "{run} at {site} has no dashboard, and is left out: `sae features` makes it"
        );
        return Ok(None);
    };
    let mut features: Vec<u32> = if arguments.chosen.is_empty() {
        let active = dashboard.cards.iter().filter(|card| card.active >= LEAST_ACTIVE);
        let mut drawn: Vec<u32> = active.map(|card| card.feature).collect();
        drawn.shuffle(&mut ChaCha8Rng::seed_from_u64(arguments.seed));
        drawn.truncate(arguments.features.get());
        drawn
    } else {
        arguments.chosen.clone()
    };
    features.sort_unstable();
    features.dedup();
    let mut questions = Vec::new();
    let mut without = Vec::new();
    for feature in features {
        let card = dashboard.card(feature);
        let asked = match card {
            Some(card) => {
                let examples = dashboard.examples(card)?;
                question(&dashboard, card, &examples, arguments.judge.max_tokens)
            }
            None => None,
        };
        match asked {
            Some(about) => questions.push((feature, about)),
            None => without.push(feature.to_string()),
        }
    }
    if !without.is_empty() {
        tracing::warn!(
            "{run} at {site}: {} left out, not active on a document that may be shown: {}",
            counted(without.len(), "feature"),
            without.join(", ")
        );
    }
    Ok(Some(Asked { run: run.to_owned(), site, folder, dashboard, questions }))
}
