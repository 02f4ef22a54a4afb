//! Interpretability as a language model judges it: how well explanations tell, in text that they were not made from, where features are
//! active; beside explanations of other features.

mod figure;
mod show;

use std::collections::BTreeMap;
use std::fmt;

use sae_config::Site;
use sae_record::dashboard::Gathered;
use sae_record::scores::{Accuracy, Answers, FeatureScore, ItemKind, Scores, Trial};
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::bootstrap::{self, BootstrapOptions, Estimate};
use crate::matching::MatchBy;
use crate::permutation::p_value;
use crate::runs::{Group, Point};
use crate::study::{Study, pairs_of};

/// How well explanations tell what features do, by site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplanationEvidence {
    /// By site.
    pub sites: BTreeMap<Site, SiteExplanations>,
}

/// The scores at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteExplanations {
    /// The language model that wrote the explanations.
    pub explained_by: String,
    /// The language model that answered.
    pub judge: String,
    /// Of every run whose explanations were scored.
    pub runs: Vec<RunScores>,
    /// Differences between groups, for matched runs.
    pub differences: Vec<ScoreDifference>,
}

/// What is asked of excerpts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Whether the feature is active in them.
    Detection,
    /// Whether the marked tokens are those that it is active on.
    Fuzzing,
}

impl Task {
    const ALL: [Self; 2] = [Self::Detection, Self::Fuzzing];

    fn of(self, score: &FeatureScore) -> &Trial {
        match self {
            Self::Detection => &score.detection,
            Self::Fuzzing => &score.fuzzing,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Detection => "detection",
            Self::Fuzzing => "fuzzing",
        })
    }
}

/// The scores of a run's explanations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunScores {
    /// Its point.
    pub point: Point,
    /// By task; none where nothing was answered.
    pub tasks: BTreeMap<Task, TaskScores>,
}

/// The scores of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// The mean balanced accuracy, with an interval over features.
    pub balanced: Estimate,
    /// The same with explanations of other features.
    pub shuffled: Option<Estimate>,
    /// The mean F1 of yes.
    pub f1: f64,
    /// The mean area under the curve of the probabilities of yes, over the features of which the endpoint tells them.
    pub auc: Option<f64>,
    /// The share of excerpts that are rightly rejected of those in which a feature is active that is near.
    pub near_rejected: Option<f64>,
    /// The same of any in which the feature is not active.
    pub inactive_rejected: Option<f64>,
    /// The balanced accuracy of every feature that was answered about, in their order.
    pub of_features: Vec<f64>,
    /// The same with explanations of other features.
    pub of_features_shuffled: Vec<f64>,
}

/// The mean balanced accuracy of one run's features less that of another's, both matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreDifference {
    /// What they are matched in.
    pub by: MatchBy,
    /// What was asked.
    pub task: Task,
    /// The first run and its group.
    pub of: (String, Group),
    /// The run that is taken away.
    pub less: (String, Group),
    /// The difference with its interval, over the features of both.
    pub estimate: Estimate,
    /// The probability that features of one distribution differ as much: a permutation test, two-sided.
    pub p: f64,
    /// Features of each.
    pub features: [u64; 2],
}

fn find(study: &mut Study<'_>) -> Result<ExplanationEvidence, AnalysisError> {
    let mut found = ExplanationEvidence::default();
    for &site in &study.sites.clone() {
        let mut judged: Vec<(Point, Scores)> = Vec::new();
        for point in study.runs.points.iter().filter(|point| point.site == site) {
            let Some(run) = study.runs.run(&point.run) else { continue };
            let folder = study.runs.folder_of(run).dashboard(site);
            let scores = Gathered::load(&folder).and_then(|gathered| match gathered {
                Some(gathered) => Scores::load(&folder, &gathered.of),
                None => Ok(None),
            });
            match scores {
                Ok(Some(scores)) => judged.push((point.clone(), scores)),
                Ok(None) => {}
                Err(error) => study.notes.add(format!(
                    "The scores of explanations of {} at {site} are left out: {error}.",
                    point.run
                )),
            }
        }
        // What one judge says of the explanations of one writer is compared.
        let Some((_, first)) = judged.first() else { continue };
        let by =
            |scores: &Scores| (scores.explained_by.clone(), scores.judge.clone(), scores.questions);
        let of_first = by(first);
        let (own, others): (Vec<_>, Vec<_>) =
            judged.into_iter().partition(|(_, scores)| by(scores) == of_first);
        for (point, scores) in others {
            study.notes.add(format!(
                "The explanations of {} at {site} are of {} and scored by {}, not by {} and {}: left out; sae explain and sae score with one model make them comparable.",
                point.run, scores.explained_by, scores.judge, of_first.0, of_first.1
            ));
        }
        let (explained_by, judge, _) = of_first;
        let own = at_site(&own, study)?;
        let (runs, differences) = own;
        found.sites.insert(site, SiteExplanations { explained_by, judge, runs, differences });
    }
    Ok(found)
}

fn at_site(
    judged: &[(Point, Scores)],
    study: &Study<'_>,
) -> Result<(Vec<RunScores>, Vec<ScoreDifference>), AnalysisError> {
    let options = study.options.bootstrap;
    let mut runs = Vec::new();
    for (point, scores) in judged {
        let mut tasks = BTreeMap::new();
        for task in Task::ALL {
            if let Some(found) = TaskScores::of(scores, task, options)? {
                tasks.insert(task, found);
            }
        }
        runs.push(RunScores { point: point.clone(), tasks });
    }
    let site = judged.first().map(|(point, _)| point.site);
    let mut differences = Vec::new();
    for found in study.matches.iter().filter(|found| Some(found.site) == site) {
        for (less, of) in pairs_of(&found.points) {
            let scores = |point: &Point, task| {
                let run = runs.iter().find(|run: &&RunScores| run.point.run == point.run)?;
                run.tasks.get(&task).map(|found| &found.of_features)
            };
            for task in Task::ALL {
                let (Some(a), Some(b)) = (scores(of, task), scores(less, task)) else { continue };
                let Some(p) = p_value(a, b, options) else { continue };
                differences.push(ScoreDifference {
                    by: found.by,
                    task,
                    of: (of.run.clone(), of.group.clone()),
                    less: (less.run.clone(), less.group.clone()),
                    estimate: bootstrap::difference_of_means(a, b, options)?,
                    p,
                    features: [a.len() as u64, b.len() as u64],
                });
            }
        }
    }
    Ok((runs, differences))
}

impl TaskScores {
    /// The scores of a run's explanations; none where no question was answered.
    fn of(
        scores: &Scores,
        task: Task,
        options: BootstrapOptions,
    ) -> Result<Option<Self>, AnalysisError> {
        let trials = || scores.features.values().map(|score| task.of(score));
        let accuracies = |answers: fn(&Trial) -> &Answers| -> Vec<Accuracy> {
            trials().filter_map(|trial| trial.accuracy(answers(trial))).collect()
        };
        let (own, shuffled) = (accuracies(|trial| &trial.own), accuracies(|trial| &trial.shuffled));
        let balanced =
            |all: &[Accuracy]| -> Vec<f64> { all.iter().map(|own| own.balanced).collect() };
        let (of_features, of_features_shuffled) = (balanced(&own), balanced(&shuffled));
        if of_features.is_empty() {
            return Ok(None);
        }
        let f1: Vec<f64> = own.iter().map(|own| own.f1).collect();
        let auc: Vec<f64> = own.iter().filter_map(|own| own.auc).collect();
        let rejected = |kind| -> Option<f64> {
            mean(&trials().filter_map(|trial| trial.rejected(&trial.own, kind)).collect::<Vec<_>>())
        };
        let shuffled = (!of_features_shuffled.is_empty())
            .then(|| bootstrap::mean(&of_features_shuffled, options))
            .transpose()?;
        Ok(Some(Self {
            balanced: bootstrap::mean(&of_features, options)?,
            shuffled,
            f1: mean(&f1).unwrap_or(f64::NAN),
            auc: mean(&auc),
            near_rejected: rejected(ItemKind::Near),
            inactive_rejected: rejected(ItemKind::Inactive),
            of_features,
            of_features_shuffled,
        }))
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
