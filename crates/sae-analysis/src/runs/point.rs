//! Points: a run at one of its sites.

use sae_config::Site;
use sae_record::metric::{Values, name};
use sae_record::metrics;
use serde::{Deserialize, Serialize};

use super::facets::{Facets, select};
use super::{FinishedRun, Group, SweepRuns, group};
use crate::number::or_nan;

/// A run at one of its sites. CE increase and KL are the run's; the rest is the site's. Numbers that the summary has
/// not are NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The run's id.
    pub run: String,
    /// The group of the run.
    #[serde(rename = "type")]
    pub group: Group,
    /// The site.
    pub site: Site,
    /// The seed of the initialisation.
    pub seed: u64,
    /// The sparsity coefficient.
    pub coeff: f64,
    /// Active features per token.
    #[serde(deserialize_with = "or_nan")]
    pub l0: f64,
    /// Alive features.
    pub alive: u64,
    /// Dictionary elements.
    pub n_features: u64,
    /// Cross-entropy increase, nats a token.
    #[serde(deserialize_with = "or_nan")]
    pub ce_increase: f64,
    /// KL divergence, nats a token.
    #[serde(deserialize_with = "or_nan")]
    pub kl: f64,
    /// Explained variance of the SAE's input.
    #[serde(deserialize_with = "or_nan")]
    pub explained_variance: f64,
    /// MSE of the SAE's output to its input.
    #[serde(deserialize_with = "or_nan")]
    pub mse: f64,
    /// Share of the cross-entropy lost to zero ablation that is recovered.
    #[serde(deserialize_with = "or_nan")]
    pub ce_recovered: f64,
    /// Share of tokens at which both models rank the same token first.
    #[serde(deserialize_with = "or_nan")]
    pub top1_agreement: f64,
    /// Tokens trained on.
    pub training_tokens: u64,
    /// Mean norm of the gradients, before clipping, over the logged steps after the first 40 %; in the paper, after the first 10 000
    /// of 25 000. None where no norm was logged.
    #[serde(default)]
    pub grad_norm: Option<f64>,
    /// The metrics that have no field here, by name: the run's, and the site's.
    #[serde(default)]
    pub metrics: Values,
    /// The values of the keys in which the sweep's finished runs differ, seed and sparsity coefficient left out, which
    /// stand above; and of the keys that were asked for.
    #[serde(default)]
    pub facets: Facets,
}

/// The share of the steps after which gradient norms count.
const WARM: f64 = 0.4;

/// The mean norm of a run's gradients; none where it has logged none.
fn grad_norm(runs: &SweepRuns, run: &FinishedRun) -> Option<f64> {
    let history = metrics::read(&runs.folder_of(run).metrics()).ok()?;
    let last = history.steps.last().map_or(0, |line| line.step);
    let later = history.steps.iter().filter(|line| line.step as f64 > WARM * last as f64);
    let norms: Vec<f64> = later.filter_map(|line| line.values.get("grad_norm").copied()).collect();
    (!norms.is_empty()).then(|| norms.iter().sum::<f64>() / norms.len() as f64)
}

/// The keys that a point has fields of.
const FIELDS: [&str; 2] = ["sae.seed", "loss.sparsity.coeff"];

impl Point {
    /// What the number of active features is set by: the k of an architecture that keeps k features, where the sweep varies
    /// it, and the sparsity coefficient otherwise.
    pub fn strength(&self) -> f64 {
        self.k().unwrap_or(self.coeff)
    }

    /// The same for a reader: `k = 32`, or the coefficient alone.
    pub fn strength_text(&self) -> String {
        self.k().map_or_else(|| self.coeff.to_string(), |k| format!("k = {k}"))
    }

    fn k(&self) -> Option<f64> {
        let key = |key: &&String| {
            let option = key.strip_prefix(group::ARCHITECTURE).and_then(|key| key.split_once('.'));
            option.is_some_and(|(_, option)| option == "k")
        };
        self.facets.keys().filter(key).find_map(|key| self.facets[key].parse().ok())
    }
}

/// A run's points, and what it lacks, in sentences.
pub(super) struct Made {
    pub points: Vec<Point>,
    pub notes: Vec<String>,
}

/// The points of a run, with the facets in which the runs differ and those that are wanted.
pub(super) fn points(runs: &SweepRuns, run: &FinishedRun, wanted: &[String]) -> Made {
    let found = &run.summary.evaluation;
    let mut made = Made { points: Vec::new(), notes: Vec::new() };
    let missing = |site: Site, what: &str| {
        format!("{} is left out at {site}: its summary has no {what} there.", run.id)
    };
    for site in run.config.sae.sites.iter().filter(|site| !found.sites.contains_key(site)) {
        made.notes.push(missing(*site, "evaluation"));
    }
    let keys = run.facets.keys().filter(|key| !FIELDS.contains(&key.as_str())).chain(wanted);
    let facets = select(&run.all_facets, keys);
    let grad_norm = grad_norm(runs, run);
    for (site, at) in &found.sites {
        let alive = match runs.alive(run, *site) {
            Ok(Some(alive)) => alive,
            Ok(None) => {
                made.notes.push(missing(*site, "number of alive features"));
                continue;
            }
            Err(error) => {
                made.notes.push(format!("{} is left out at {site}: {error}.", run.id));
                continue;
            }
        };
        let point = Point {
            run: run.id.clone(),
            group: run.group.clone(),
            site: *site,
            seed: run.config.sae.seed,
            coeff: run.config.loss.sparsity.coeff.get(),
            l0: at.get(name::L0),
            alive,
            n_features: run.summary.n_features.get(site).copied().unwrap_or_default(),
            ce_increase: found.values.get(name::CE_INCREASE),
            kl: found.values.get(name::KL),
            explained_variance: at.get(name::EXPLAINED_VARIANCE),
            mse: at.get(name::MSE),
            ce_recovered: found.values.get(name::CE_RECOVERED_ZERO),
            top1_agreement: found.values.get(name::TOP1_AGREEMENT),
            training_tokens: run.summary.training_tokens,
            grad_norm,
            metrics: further(&found.values, at),
            facets: facets.clone(),
        };
        let none = not_finite(&point);
        if !none.is_empty() {
            made.notes.push(format!(
                "{} has no finite {} at {site}; it is left out of what needs it.",
                run.id,
                none.join(", ")
            ));
        }
        made.points.push(point);
    }
    made
}

/// The metrics of which a point has no field; of two of one name the site's.
fn further(run: &Values, site: &Values) -> Values {
    const FIELDS: [&str; 7] = [
        name::L0,
        name::CE_INCREASE,
        name::KL,
        name::EXPLAINED_VARIANCE,
        name::MSE,
        name::CE_RECOVERED_ZERO,
        name::TOP1_AGREEMENT,
    ];
    let mut values = Values::default();
    for (name, value) in run.iter().chain(site.iter()).filter(|(name, _)| !FIELDS.contains(name)) {
        values.set(name, value);
    }
    values
}

/// The names of a point's numbers that are not finite.
fn not_finite(point: &Point) -> Vec<&'static str> {
    let numbers = [
        ("L0", point.l0),
        ("CE increase", point.ce_increase),
        ("KL divergence", point.kl),
        ("explained variance", point.explained_variance),
        ("MSE", point.mse),
        ("share of recovered cross-entropy", point.ce_recovered),
        ("top-1 agreement", point.top1_agreement),
    ];
    numbers.into_iter().filter(|(_, number)| !number.is_finite()).map(|(name, _)| name).collect()
}
