//! Where the files of a run and of a sweep lie. Every path in a run folder is spelt here and nowhere else.

use std::path::{Path, PathBuf};

use sae_config::Site;

/// A run's folder, `runs/<sweep>/<run>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The resolved configuration, `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Fingerprints of the model and data that it began with, `inputs.json`.
    pub fn inputs(&self) -> PathBuf {
        self.0.join("inputs.json")
    }

    /// A line of JSON a logging step, `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The same as event file of TensorBoard, `events.out.tfevents.sae`; only where that is asked for.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("events.out.tfevents.sae")
    }

    /// The final evaluation, `summary.json`. A run that has it is finished.
    pub fn summary(&self) -> PathBuf {
        self.0.join("summary.json")
    }

    /// Frequency, alive and norms of every feature, `features.parquet`. Decoder norms are those of the rows as trained,
    /// before the normalisation that the stored weights have.
    pub fn features(&self) -> PathBuf {
        self.0.join("features.parquet")
    }

    /// What its SAEs make of the activations at their sites, `activations.json`; only where that was measured.
    pub fn activations(&self) -> PathBuf {
        self.0.join("activations.json")
    }

    /// How well its features tell the concepts of a text, `concepts.json`; only where that was measured.
    pub fn concepts(&self) -> PathBuf {
        self.0.join("concepts.json")
    }

    /// How tasks of two answers go with its dictionaries, `tasks/`: a file each.
    pub fn tasks(&self) -> PathBuf {
        self.0.join("tasks")
    }

    /// How a task goes, `tasks/<name>.json`.
    pub fn task(&self, name: &str) -> PathBuf {
        self.tasks().join(format!("{name}.json"))
    }

    /// What its features at a site are: a folder of its own, `dashboard/<site>/`; only where that was gathered.
    pub fn dashboard(&self, site: Site) -> PathBuf {
        self.0.join("dashboard").join(site.to_string())
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// A checkpoint, `checkpoints/step_N`.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step_{step}"))
    }

    /// The weights of the SAE at a site, `sae/<site>/`, in the directory format of SAELens.
    pub fn sae(&self, site: Site) -> PathBuf {
        self.0.join("sae").join(site.to_string())
    }
}

/// A sweep's manifest, `manifest.json`.
pub fn manifest(sweep: &Path) -> PathBuf {
    sweep.join("manifest.json")
}

/// A sweep's report, `report.html`.
pub fn report(sweep: &Path) -> PathBuf {
    sweep.join("report.html")
}

/// The model's activations at a site of a sweep, `activations/<site>.json`; only where they were measured.
pub fn activations(sweep: &Path, site: Site) -> PathBuf {
    sweep.join("activations").join(format!("{site}.json"))
}

/// What features at a site of a sweep are compared with in telling concepts, `concepts/<site>.json`; only where that was measured.
pub fn concepts(sweep: &Path, site: Site) -> PathBuf {
    sweep.join("concepts").join(format!("{site}.json"))
}

/// A file that the analysis of a sweep writes into its folder, `<name>.<extension>`.
pub fn analysis(sweep: &Path, name: &str, extension: &str) -> PathBuf {
    sweep.join(format!("{name}.{extension}"))
}
