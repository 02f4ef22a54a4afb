//! A sweep's runs, read from their folders.

use std::path::{Path, PathBuf};

use sae_config::summary::Status;
use sae_config::{Manifest, RunConfig, RunFolder, Site, Summary, Variant, layout};
use serde::{Deserialize, Serialize};

use crate::AnalysisError;

/// A sweep's finished runs, and the names of the others.
#[derive(Debug)]
pub struct SweepRuns {
    /// The sweep's name.
    pub name: String,
    /// Finished runs, in the order of the manifest.
    pub finished: Vec<FinishedRun>,
    /// A point a finished run and site.
    pub points: Vec<Point>,
    /// Runs without a summary.
    pub unfinished: Vec<String>,
    /// Runs whose loss became non-finite; they are no points.
    pub diverged: Vec<String>,
}

/// A finished run.
#[derive(Debug)]
pub struct FinishedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: RunConfig,
    /// Its summary.
    pub summary: Summary,
}

/// A run at one of its sites. CE increase and KL are the run's; the rest is the site's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The run's id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: Variant,
    /// The site.
    pub site: Site,
    /// The seed of the initialisation.
    pub seed: u64,
    /// The sparsity coefficient.
    pub coeff: f64,
    /// Active features per token.
    pub l0: f64,
    /// Alive features.
    pub alive: u64,
    /// Dictionary elements.
    pub n_features: u64,
    /// Cross-entropy increase, nats a token.
    pub ce_increase: f64,
    /// KL divergence, nats a token.
    pub kl: f64,
    /// Explained variance of the SAE's input.
    pub explained_variance: f64,
    /// MSE of the SAE's output to its input.
    pub mse: f64,
    /// Share of the cross-entropy lost to zero ablation that is recovered.
    pub ce_recovered: f64,
    /// Share of tokens at which both models rank the same token first.
    pub top1_agreement: f64,
    /// Tokens trained on.
    pub training_tokens: u64,
}

impl SweepRuns {
    /// Reads a sweep's folder.
    pub fn load(sweep: &Path) -> Result<Self, AnalysisError> {
        let manifest = Manifest::load(&layout::manifest(sweep))?;
        let mut runs = Self {
            name: manifest.sweep.clone(),
            finished: Vec::new(),
            points: Vec::new(),
            unfinished: Vec::new(),
            diverged: Vec::new(),
        };
        for run in manifest.runs() {
            let folder = RunFolder::new(sweep.join(&run.folder));
            if !folder.summary().is_file() {
                runs.unfinished.push(run.id.clone());
                continue;
            }
            let summary = Summary::load(&folder.summary())?;
            if summary.status == Status::Diverged {
                runs.diverged.push(run.id.clone());
                continue;
            }
            runs.points.extend(points(&run.config, &summary));
            runs.finished.push(FinishedRun {
                folder: run.folder.clone(),
                config: run.config.clone(),
                summary,
            });
        }
        if runs.finished.is_empty() {
            return Err(AnalysisError::NothingFinished {
                path: sweep.to_owned(),
                runs: manifest.runs().count(),
            });
        }
        Ok(runs)
    }
}

fn points(config: &RunConfig, summary: &Summary) -> Vec<Point> {
    let found = &summary.evaluation;
    found
        .sites
        .iter()
        .map(|(site, at)| Point {
            run: summary.id.clone(),
            variant: summary.variant,
            site: *site,
            seed: config.sae.seed,
            coeff: config.loss.sparsity.coeff.get(),
            l0: at.l0,
            alive: summary.alive.get(site).copied().unwrap_or(0),
            n_features: summary.n_features,
            ce_increase: found.ce_increase,
            kl: found.kl,
            explained_variance: at.explained_variance,
            mse: at.mse,
            ce_recovered: found.ce_recovered_zero,
            top1_agreement: found.top1_agreement,
            training_tokens: summary.training_tokens,
        })
        .collect()
}
