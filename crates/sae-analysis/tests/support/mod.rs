//! Small sweeps written by hand: manifest, configurations, summaries, features and decoders, without a language model.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.
#![allow(dead_code)] // Not every test file uses all of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_analysis::AnalysisOptions;
use sae_analysis::bootstrap::BootstrapOptions;
use sae_analysis::embedding::EmbeddingOptions;
use sae_config::{RunConfig, Site, Variant};
use sae_record::metric::{Better, Metric, Scope, Values, name};
use sae_record::summary::{Evaluation, Inputs, Status, Versions};
use sae_record::{Job, Manifest, ManifestRun, RunFolder, Summary, layout};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Where the SAEs of these sweeps are.
pub const SITES: [Site; 2] = [Site::resid_pre(1), Site::resid_pre(2)];
/// Later sites that summaries tell of.
pub const LATER: [Site; 3] = [Site::resid_pre(2), Site::resid_pre(3), Site::resid_post(3)];

/// A sweep to write.
pub struct Sweep {
    pub folder: tempfile::TempDir,
    pub runs: Vec<Run>,
    /// Dictionary elements.
    pub features: usize,
    /// The model's width.
    pub width: usize,
}

/// A run to write.
pub struct Run {
    pub id: String,
    pub config: RunConfig,
    pub summary: Summary,
}

/// Fewer resamples and passes than the defaults: these tests look at what is computed, not how well.
pub fn quick() -> AnalysisOptions {
    AnalysisOptions {
        bootstrap: BootstrapOptions { n_resamples: 200, ..BootstrapOptions::default() },
        embedding: EmbeddingOptions { n_epochs: 20, ..EmbeddingOptions::default() },
        ..AnalysisOptions::default()
    }
}

/// A run's configuration: the type's terms of the loss, and what sweeps usually vary.
pub fn config(variant: Variant, coeff: f64, seed: u64, expansion: f64) -> RunConfig {
    let terms = match variant {
        Variant::Local => "local = { coeff = 1.0 }",
        Variant::E2e => "kl = { coeff = 1.0 }",
        Variant::E2eDs => "kl = { coeff = 0.5 }\ndownstream = { total_coeff = 2.5 }",
        Variant::Other => "output = { coeff = 1.0 }",
    };
    let sites: Vec<String> = SITES.iter().map(|site| format!("\"{site}\"")).collect();
    let text = format!(
        "[model]\npath = \"models/tiny\"\n[data]\ntrain = \"data/train\"\ncontext_length = 8\n[sae]\nsites = [{}]\n\
         expansion = {expansion:?}\nseed = {seed}\n[loss]\nsparsity = {{ coeff = {coeff:?} }}\n{terms}\n[train]\n\
         n_samples = 64\nbatch_size = 8\nlr = 1e-3\n[eval]\ndata = \"data/validation\"\n",
        sites.join(", ")
    );
    RunConfig::parse(&text, "by hand").unwrap()
}

/// How many times what the best type needs a type needs.
fn factor(variant: Variant) -> f64 {
    match variant {
        Variant::Local => 2.0,
        Variant::E2e | Variant::Other => 1.0,
        Variant::E2eDs => 1.1,
    }
}

/// A summary on the type's frontier: L0 and CE increase are inverse to each other.
pub fn summary(id: &str, config: &RunConfig, features: u64) -> Summary {
    let (variant, coeff, seed) =
        (config.variant(), config.loss.sparsity.coeff.get(), config.sae.seed as f64);
    let l0 = factor(variant) * 20.0 / coeff * (1.0 + 0.01 * seed);
    let ce_increase = 0.1 * coeff;
    let at = Values::from([
        (name::L0, l0),
        (name::MSE, 0.2 * coeff),
        (name::EXPLAINED_VARIANCE, 1.0 - 0.1 * coeff),
        ("cosine", 0.9),
    ]);
    let downstream = LATER.iter().zip(1..).map(|(&site, layer)| {
        let mse = 0.25 * coeff * f64::from(layer) / factor(variant);
        let explained_variance = (name::EXPLAINED_VARIANCE, 1.0 - 0.125 * mse);
        (site, Values::from([(name::MSE, mse), explained_variance]))
    });
    Summary {
        id: id.to_owned(),
        variant,
        status: Status::Finished,
        steps: 8,
        training_tokens: 512,
        n_features: SITES.iter().map(|&site| (site, features)).collect(),
        alive: SITES.iter().map(|&site| (site, features - 2 - coeff as u64)).collect(),
        alive_tokens: 1000,
        evaluation: Evaluation {
            tokens: 128,
            values: Values::from([
                (name::L0, 2.0 * l0),
                (name::CE_ORIGINAL, 2.0),
                (name::CE_SPLICED, 2.0 + ce_increase),
                (name::CE_INCREASE, ce_increase),
                (name::CE_RECOVERED_ZERO, 1.0 - ce_increase / 7.0),
                (name::KL, 1.5 * ce_increase),
                (name::TOP1_AGREEMENT, 0.8),
                ("statistical_distance", 0.1),
            ]),
            sites: SITES.iter().map(|&site| (site, at.clone())).collect(),
            downstream: downstream.collect(),
        },
        metrics: vec![
            Metric::new(
                "statistical_distance",
                Scope::Run,
                "",
                Better::Less,
                "half the summed differences of the probabilities",
            ),
            Metric::new("cosine", Scope::Site, "", Better::More, "mean cosine"),
        ],
        inputs: Some(Inputs {
            model: "model".to_owned(),
            training: "training".to_owned(),
            evaluation: "evaluation".to_owned(),
        }),
        versions: Versions {
            sae: "0.1.0".to_owned(),
            commit: "abc".to_owned(),
            libtorch: "2.11.0".to_owned(),
            device: "Cpu".to_owned(),
        },
    }
}

impl Sweep {
    /// All combinations of these types, seeds and sparsity coefficients.
    pub fn of(variants: &[Variant], seeds: &[u64], coeffs: &[f64]) -> Self {
        let mut sweep = Self::empty(24, 6);
        for &variant in variants {
            for &coeff in coeffs {
                for &seed in seeds {
                    sweep.add(
                        &format!("{variant}_sparsity-{coeff}_seed-{seed}"),
                        config(variant, coeff, seed, 4.0),
                    );
                }
            }
        }
        sweep
    }

    pub fn empty(features: usize, width: usize) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), runs: Vec::new(), features, width }
    }

    pub fn add(&mut self, id: &str, config: RunConfig) -> &mut Run {
        let summary = summary(id, &config, self.features as u64);
        self.runs.push(Run { id: id.to_owned(), config, summary });
        self.runs.last_mut().unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn run(&self, id: &str) -> RunFolder {
        RunFolder::new(self.path().join(id))
    }

    pub fn write(&self) {
        self.write_manifest();
        for (run, number) in self.runs.iter().zip(0..) {
            let folder = self.run(&run.id);
            std::fs::create_dir_all(folder.path()).unwrap();
            std::fs::write(folder.config(), run.config.to_toml().unwrap()).unwrap();
            let text = serde_json::to_string_pretty(&run.summary).unwrap();
            std::fs::write(folder.summary(), text).unwrap();
            self.write_features(&folder, &run.summary.alive);
            for (site, at) in SITES.into_iter().zip(0..) {
                self.write_decoder(&folder, site, 2 * number + at, run.summary.variant);
            }
        }
    }

    pub fn write_manifest(&self) {
        let runs = self.runs.iter().map(|run| ManifestRun {
            id: run.id.clone(),
            folder: PathBuf::from(&run.id),
            values: BTreeMap::new(),
            config: run.config.clone(),
        });
        let manifest =
            Manifest { sweep: "by-hand".to_owned(), jobs: vec![Job { runs: runs.collect() }] };
        manifest.save(&layout::manifest(self.path())).unwrap();
    }

    /// The first features are dead, as many as the summary says; the others' frequencies fall with their number.
    pub fn write_features(&self, folder: &RunFolder, alive: &BTreeMap<Site, u64>) {
        let rows: Vec<(Site, u32, bool)> = alive
            .iter()
            .flat_map(|(&site, &alive)| {
                let dead = (self.features as u64).saturating_sub(alive) as u32;
                (0..self.features as u32).map(move |feature| (site, feature, feature >= dead))
            })
            .collect();
        let numbers = |number: fn(u32) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| number(row.1))))
        };
        let frequency = rows.iter().map(|row| if row.2 { 0.5 / f64::from(row.1 + 1) } else { 0.0 });
        let alive: BooleanArray = rows.iter().map(|row| Some(row.2)).collect();
        let sites = StringArray::from_iter_values(rows.iter().map(|row| row.0.to_string()));
        let batch = RecordBatch::try_from_iter([
            ("site", Arc::new(sites) as ArrayRef),
            ("feature", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.1)))),
            ("frequency", Arc::new(Float64Array::from_iter_values(frequency))),
            ("alive", Arc::new(alive)),
            ("encoder_norm", numbers(|feature| f64::from(feature) + 1.0)),
            ("decoder_norm", numbers(|feature| 1.0 + 0.01 * f64::from(feature))),
            ("encoder_bias", numbers(|feature| -0.1 * f64::from(feature))),
        ])
        .unwrap();
        let file = File::create(folder.features()).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// Random directions; those of `local` lie around one of them, closer to each other.
    pub fn write_decoder(&self, folder: &RunFolder, site: Site, seed: u64, variant: Variant) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let lean = if variant == Variant::Local { 1.0 } else { 0.0 };
        let rows: Vec<f32> = (0..self.features * self.width)
            .map(|i| {
                let centre = if i % self.width == 0 { lean } else { 0.0 };
                centre + rng.random_range(-1.0_f32..1.0)
            })
            .collect();
        self.write_rows(folder, site, &rows);
    }

    /// These rows, one after the other.
    pub fn write_rows(&self, folder: &RunFolder, site: Site, rows: &[f32]) {
        let bytes: Vec<u8> = rows.iter().copied().flat_map(f32::to_le_bytes).collect();
        let shape = vec![rows.len() / self.width, self.width];
        let view = TensorView::new(Dtype::F32, shape, &bytes).unwrap();
        let path = folder.sae(site);
        std::fs::create_dir_all(&path).unwrap();
        let bytes = safetensors::serialize([("W_dec", view)], None).unwrap();
        std::fs::write(path.join("sae_weights.safetensors"), bytes).unwrap();
    }
}
