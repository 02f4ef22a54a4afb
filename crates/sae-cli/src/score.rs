//! `sae score`: explained features of finished runs → how well a language model tells by the explanations what the features do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sae_analysis::{AnalysisOptions, SweepRuns};
use sae_config::Site;
use sae_config::message::counted;
use sae_interp::endpoint::{Answer, AskError, Question};
use sae_interp::explain::{Audience, audience};
use sae_interp::score::{
    Drawn, EXCERPT, Pool, QUESTIONS, Task, answers, derangement, items, question,
};
use sae_model::device::DeviceChoice;
use sae_record::Phase;
use sae_record::dashboard::{Dashboard, FeatureCard};
use sae_record::explanations::Explanations;
use sae_record::scores::{Accuracy, FeatureScore, Scores, Trial};
use sae_train::RunSpec;
use sae_train::excerpts::{Cut, FoundExcerpts, WantedFeatures, find_excerpts};
use tch::Device;

use crate::configuration::{Settings, load_runs, specs_of};
use crate::judge::Judge;
use crate::telemetry::Telemetry;

/// Score explanations: how well a language model tells by them what features do
///
/// A language model reads an explanation (`sae explain`) and ten excerpts of text, and says of each yes or no: is the feature active in
/// it (detection; half of the others are hard: a similar feature is active in them), are the marked tokens those that it is active on
/// (fuzzing). Excerpts are of the half of the documents that no explanation was made from. It is asked the same with the explanation of
/// another feature, which is the baseline. `sae analyze` compares the types, with intervals.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae score runs/rust-lm --model qwen --base-url http://127.0.0.1:8000/v1
  sae analyze runs/rust-lm      # the table, the figure, the section of the report
  # What it would cost
  sae score runs/rust-lm --model gpt-4o-mini --base-url https://api.openai.com/v1 --dry-run --prices configs/prices.toml")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Decides which excerpts are shown, and which explanation stands for another
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    judge: Judge,
}

/// A dictionary whose explanations are scored.
struct Explained {
    run: String,
    site: Site,
    folder: PathBuf,
    dashboard: Dashboard,
    explanations: Explanations,
    /// By feature, its explanation.
    texts: BTreeMap<u32, String>,
}

/// What is shown of a feature, and the four questions about it.
struct Asked<'a> {
    feature: u32,
    shuffled_with: u32,
    drawn: Drawn<'a>,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let runs = load_runs(&arguments.folder, &AnalysisOptions::default())?;
    let explained = explained(&runs);
    if explained.is_empty() {
        bail!(
            "no run has two explained features or more: `sae explain {}` asks what they are",
            arguments.folder.display()
        );
    }
    let specs = specs_of(&runs, &arguments.settings)?;
    let found = look(&explained, specs, device.resolve()?, telemetry)?;
    let asked: Vec<Vec<Asked<'_>>> = explained
        .iter()
        .map(|own| {
            let features = found.features.get(&(own.run.clone(), own.site));
            features.map_or_else(Vec::new, |features| {
                own.draw(Pool { excerpts: &found.excerpts, features }, arguments.seed)
            })
        })
        .collect();
    let of_all = explained.iter().zip(&asked);
    let questions: Vec<Question> = of_all
        .flat_map(|(own, asked)| {
            asked.iter().flat_map(|asked| own.questions(asked, arguments.judge.max_tokens))
        })
        .collect();
    if questions.is_empty() {
        bail!(
            "no explained feature is active in five excerpts or more of documents that no explanation was made from: more tokens show \
             more (`sae features {} --tokens N`)",
            arguments.folder.display()
        );
    }
    let endpoint = arguments.judge.endpoint(&runs.folder);
    let answers = arguments.judge.ask(&endpoint, &questions, Phase::Score, telemetry)?;
    let Some(answers) = answers else { return Ok(()) };
    let mut answers = answers.into_iter();
    for (own, asked) in explained.iter().zip(asked) {
        let features: BTreeMap<u32, FeatureScore> = asked
            .into_iter()
            .map(|asked| (asked.feature, own.scored(&asked, &mut answers)))
            .collect();
        let scores = Scores {
            of: own.dashboard.gathered.of.clone(),
            explained_by: own.explanations.judge.clone(),
            judge: endpoint.model().to_owned(),
            questions: QUESTIONS,
            features,
        };
        scores.save(&own.folder)?;
        tracing::info!("{} at {}: {}", own.run, own.site, told(&scores, own.texts.len()));
    }
    tracing::info!("scored; `sae analyze {}` compares", arguments.folder.display());
    Ok(())
}

/// The dictionaries with explanations, two at least: each is the other's baseline.
fn explained(runs: &SweepRuns) -> Vec<Explained> {
    let mut found = Vec::new();
    for run in &runs.finished {
        for &site in &run.config.sae.sites {
            let folder = runs.folder_of(run).dashboard(site);
            let dashboard = match Dashboard::load(&folder) {
                Ok(Some(dashboard)) => dashboard,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("{} at {site} is left out: {error}", run.id);
                    continue;
                }
            };
            let Some(explanations) = dashboard.explanations.clone() else { continue };
            let texts: BTreeMap<u32, String> = explanations
                .features
                .iter()
                .filter_map(|(feature, own)| Some((*feature, own.text.clone()?)))
                .collect();
            if texts.len() > 1 {
                let run = run.id.clone();
                found.push(Explained { run, site, folder, dashboard, explanations, texts });
            }
        }
    }
    found
}

/// Where the explained features, and those near to them, are active in excerpts that may be shown.
fn look(
    explained: &[Explained],
    specs: Vec<RunSpec>,
    device: Device,
    telemetry: &mut Telemetry,
) -> anyhow::Result<FoundExcerpts> {
    let wanted: Vec<(RunSpec, WantedFeatures)> = specs
        .into_iter()
        .filter_map(|spec| {
            let own = explained.iter().filter(|own| own.run == spec.id);
            let wanted: WantedFeatures = own.map(|own| (own.site, own.wanted())).collect();
            (!wanted.is_empty()).then_some((spec, wanted))
        })
        .collect();
    let tokens = explained.iter().map(|own| own.dashboard.gathered.tokens).max();
    let tokens = tokens.context("no dictionary has explanations")?;
    let keeps = |file: u32, row: u64, are_windows: bool| {
        audience(file, row, are_windows) == Audience::Scorer
    };
    let cut = Cut { tokens, length: EXCERPT, keeps: &keeps };
    Ok(find_excerpts(&wanted, cut, device, telemetry)?)
}

impl Explained {
    /// The explained features, with their activations, and where those near to them are active.
    fn wanted(&self) -> BTreeMap<u32, bool> {
        let cards = self.texts.keys().filter_map(|feature| self.dashboard.card(*feature));
        let mut wanted: BTreeMap<u32, bool> =
            cards.flat_map(near).map(|feature| (feature, false)).collect();
        wanted.extend(self.texts.keys().map(|&feature| (feature, true)));
        wanted
    }

    /// What is shown of every feature of which there is enough to show.
    fn draw<'a>(&self, pool: Pool<'a>, seed: u64) -> Vec<Asked<'a>> {
        let features: Vec<u32> = self.texts.keys().copied().collect();
        let pairs = derangement(&features, seed);
        let asked = pairs.into_iter().filter_map(|(feature, shuffled_with)| {
            let near = self.dashboard.card(feature).map(near).unwrap_or_default();
            let drawn = pool.draw(feature, &near, seed)?;
            Some(Asked { feature, shuffled_with, drawn })
        });
        asked.collect()
    }

    /// Detection with the feature's explanation and with another's, then fuzzing.
    fn questions(&self, asked: &Asked<'_>, max_tokens: u32) -> Vec<Question> {
        let texts = [asked.feature, asked.shuffled_with].map(|feature| &self.texts[&feature]);
        let tasks =
            [(Task::Detection, &asked.drawn.detection), (Task::Fuzzing, &asked.drawn.fuzzing)];
        let text = |token: u32| self.dashboard.text(token);
        let of = |(task, shown): (Task, &Vec<_>)| {
            texts.map(|explanation| question(task, explanation, shown, text, max_tokens))
        };
        tasks.into_iter().flat_map(of).collect()
    }

    /// The score by the next four answers.
    fn scored(
        &self,
        asked: &Asked<'_>,
        given: &mut impl Iterator<Item = Result<Answer, AskError>>,
    ) -> FeatureScore {
        let mut trial = |shown: &[_]| {
            let mut next = || {
                let answer = given.next().unwrap_or(Err(AskError::Interrupted));
                answers(answer, shown.len())
            };
            Trial { items: items(shown), own: next(), shuffled: next() }
        };
        FeatureScore {
            explanation: self.texts[&asked.feature].clone(),
            shuffled_with: asked.shuffled_with,
            detection: trial(&asked.drawn.detection),
            fuzzing: trial(&asked.drawn.fuzzing),
        }
    }
}

/// The features near to a card's: by cosine in the same dictionary, and active on the same tokens.
fn near(card: &FeatureCard) -> Vec<u32> {
    let by_cosine = card.near.iter().filter(|near| near.run.is_none()).map(|near| near.feature);
    by_cosine.chain(card.partners.iter().map(|partner| partner.feature)).collect()
}

/// Mean balanced accuracies, in a line.
fn told(scores: &Scores, explained: usize) -> String {
    let mean = |of: &dyn Fn(&FeatureScore) -> Option<Accuracy>| {
        let all: Vec<f64> =
            scores.features.values().filter_map(|own| Some(of(own)?.balanced)).collect();
        if all.is_empty() {
            return "–".to_owned();
        }
        format!("{:.3}", all.iter().sum::<f64>() / all.len() as f64)
    };
    let own = |trial: &Trial| trial.accuracy(&trial.own);
    let shuffled = |trial: &Trial| trial.accuracy(&trial.shuffled);
    let scored = counted(scores.features.len(), "feature");
    let unanswered = scores.features.values().flat_map(|own| {
        [&own.detection, &own.fuzzing].into_iter().flat_map(|trial| [&trial.own, &trial.shuffled])
    });
    let unanswered = unanswered.filter(|answers| answers.said.is_none()).count();
    let mut text = format!(
        "{scored} of {explained} scored; balanced accuracy of detection {} (shuffled {}), of fuzzing {} (shuffled {})",
        mean(&|score| own(&score.detection)),
        mean(&|score| shuffled(&score.detection)),
        mean(&|score| own(&score.fuzzing)),
        mean(&|score| shuffled(&score.fuzzing)),
    );
    if unanswered > 0 {
        text.extend(["; ", &counted(unanswered, "question"), " without an answer"]);
    }
    text
}
