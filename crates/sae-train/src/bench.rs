//! What `cargo xtask bench` measures: training steps at a given shape, on random weights and tokens; the gathering of features.

mod features;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::Site;
use sae_config::loss::LossConfig;
use sae_config::run::Precision;
use sae_model::{ModelConfig, Transformer, device};
use sae_splice::profile::{self, Part, time};
use sae_splice::{Member, SplicedModel};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::optim::{Adam, AdamOptions, clip_factor};
use crate::progress::Silent;
use crate::steps::{self, StepReport, Trained};
use crate::{TrainError, gradients};

pub use features::{BesideEvaluation, GatheredCodes, features, gather};

/// A shape to measure; the peer in `scripts/peer/train.py` takes the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// `gpt2`, or `gpt_neo` with its alternating windows of 256.
    pub family: String,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads.
    pub heads: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Tokens in a window.
    pub context: usize,
    /// Windows in a step.
    pub batch: usize,
    /// The SAEs stand before this block.
    pub layer: usize,
    /// `F / D`.
    pub expansion: f64,
    /// `local`, `e2e` or `e2e+ds`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Members of the bank.
    #[serde(default = "one")]
    pub members: usize,
    /// Steps before any is measured.
    pub warmup_steps: usize,
    /// Features active a token to begin with, about; those of the initialisation where left out.
    pub active: Option<usize>,
    /// Adam's learning rate.
    pub lr: f64,
    /// Threads of libtorch; its own choice where left out.
    pub threads: Option<i32>,
    /// As a run's `train.precision`.
    #[serde(default)]
    pub precision: Precision,
}

fn one() -> usize {
    1
}

/// What some steps took.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Of each step.
    pub seconds: Vec<f64>,
    /// A member's.
    pub tokens_per_step: usize,
    /// The largest resident memory of the process so far.
    pub peak_bytes: u64,
    /// What this process holds of a GPU's memory, which is the most that it has needed; by the card's own count, so that
    /// it is right where nobody else uses the card. `None` on a CPU.
    pub device_peak_bytes: Option<usize>,
    /// Active features a token of the first member, at the last step.
    pub l0: f64,
    /// Milliseconds a step of every part, from one more step, which is not among the others.
    pub parts: BTreeMap<String, f64>,
}

/// A bank in training.
#[derive(Debug)]
pub struct Bench {
    model: SplicedModel,
    members: Vec<(Member, Adam)>,
    batches: Vec<Tensor>,
    /// Steps taken.
    taken: u64,
    /// Of each of the last steps.
    seconds: Vec<f64>,
    /// Of the first member, at the last step.
    l0: f64,
    lr: f64,
    /// Of a GPU's memory, free before anything was on it.
    free_bytes: Option<usize>,
}

/// Batches made in advance, over and over.
const BATCHES: usize = 8;
/// Tokens on which the encoder's bias is set.
const SAMPLED_TOKENS: usize = 2048;

impl Bench {
    /// Sets a shape up and takes its first steps.
    pub fn new(shape: &Shape, device: Device) -> Result<Self, TrainError> {
        if let Some(threads) = shape.threads {
            tch::set_num_threads(threads);
        }
        let free_bytes = device::memory(device).map(|memory| memory.free);
        let mut config =
            ModelConfig::gpt2(shape.layers, shape.d_model, shape.heads, shape.context, shape.vocab);
        if shape.family == "gpt_neo" {
            config.score_scale = Some(1.0);
            config.windows =
                (0..shape.layers).map(|layer| (layer % 2 == 1).then_some(256)).collect();
        }
        let mut model = Transformer::random(config, 0, device, Kind::Float)?;
        if shape.precision == Precision::Bf16 {
            model = model.into_bfloat16()?;
        }
        let model = SplicedModel::new(model);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let batches = (0..BATCHES)
            .map(|_| {
                let ids: Vec<i64> = (0..shape.batch * shape.context)
                    .map(|_| rng.random_range(0..shape.vocab as i64))
                    .collect();
                let size = [shape.batch as i64, shape.context as i64];
                Ok(Tensor::f_from_slice(&ids)?.f_view(size)?.f_to_device(device)?)
            })
            .collect::<Result<Vec<_>, TrainError>>()?;
        let loss = loss(&shape.kind)?;
        let features = (shape.expansion * shape.d_model as f64).round() as usize;
        let site = Site::resid_pre(shape.layer);
        let members = (0..shape.members as u64)
            .map(|seed| {
                let member = Member::random(&model, &[site], features, &loss, seed)?;
                if let Some(active) = shape.active {
                    set_active(&member, &model, site, active, &batches)?;
                }
                let parameters =
                    member.parameters().into_iter().map(|tensor| (tensor.shallow_clone(), 0.0));
                let optimiser = Adam::new(parameters, AdamOptions::default())?;
                Ok((member, optimiser))
            })
            .collect::<Result<Vec<_>, TrainError>>()?;
        let mut bench = Self {
            model,
            members,
            batches,
            taken: 0,
            seconds: Vec::new(),
            l0: 0.0,
            lr: shape.lr,
            free_bytes,
        };
        bench.take(shape.warmup_steps)?;
        Ok(bench)
    }

    /// Takes steps.
    fn take(&mut self, steps: usize) -> Result<(), TrainError> {
        self.seconds.clear();
        let (from, to) = (self.taken, self.taken + steps as u64);
        steps::take(self, (from, to), &mut Silent)
    }

    /// Takes steps, the time of each by itself.
    pub fn measure(&mut self, steps: usize) -> Result<Measured, TrainError> {
        self.take(steps)?;
        let (seconds, l0) = (self.seconds.clone(), self.l0);
        profile::start(self.model.model().device());
        self.take(1)?;
        let parts = profile::stop().unwrap_or_default();
        let parts = parts
            .into_iter()
            .map(|(part, time)| (format!("{part:?}").to_lowercase(), time.as_secs_f64() * 1e3))
            .collect();
        Ok(Measured {
            parts,
            seconds,
            tokens_per_step: self.batches[0].numel(),
            peak_bytes: peak_bytes(),
            device_peak_bytes: self.free_bytes.and_then(|before| {
                let now = device::memory(self.model.model().device())?.free;
                Some(before.saturating_sub(now))
            }),
            l0,
        })
    }
}

/// As in training, on batches that are there already, and without logs and checkpoints.
impl Trained for Bench {
    fn step(&mut self, step: u64) -> Result<StepReport, TrainError> {
        let began = Instant::now();
        let members: Vec<&Member> = self.members.iter().map(|(member, _)| member).collect();
        let batch = || Ok(self.batches[step as usize % BATCHES].shallow_clone());
        let found = gradients::of_step(&self.model, &members, step - 1..step, batch)?;
        time(Part::Optimiser, || {
            self.l0 = found[0].terms.l0.f_double_value(&[])?;
            for ((member, optimiser), found) in self.members.iter_mut().zip(&found) {
                let scale = clip_factor(found.norm, Some(10.0));
                optimiser.step(&found.gradients, scale, self.lr)?;
                for observed in &found.observed {
                    member.observe(observed)?;
                }
            }
            Ok::<(), TrainError>(())
        })?;
        wait_for(self.model.model().device());
        self.taken = step;
        self.seconds.push(began.elapsed().as_secs_f64());
        Ok(StepReport::default())
    }

    fn is_due(&self, _step: u64) -> bool {
        false
    }

    fn save(&mut self, _step: u64) -> Result<(), TrainError> {
        Ok(())
    }
}

/// What a step cannot be faster than: its matrix products, each at the rate measured for its own shape, and the bytes that
/// Adam reads and writes, at the rate of copying.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// Seconds of the matrix products of a step.
    pub products: f64,
    /// Seconds of Adam's bytes.
    pub adam: f64,
    /// Multiplications and additions of the products.
    pub flops: f64,
}

/// A product of `[batch, m, k]` and `[batch, k, n]`, so many times.
#[derive(Clone, Copy)]
struct Product {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    times: f64,
}

impl Floor {
    /// Measures the floor of a shape.
    pub fn measure(shape: &Shape, device: Device) -> Result<Self, TrainError> {
        if let Some(threads) = shape.threads {
            tch::set_num_threads(threads);
        }
        let (mut products, mut flops) = (0.0, 0.0);
        for product @ Product { batch, m, k, n, times } in shape.products() {
            // The unembedding's stay in single precision.
            let lowered = shape.precision == Precision::Bf16 && !product.is_of(shape.vocab);
            let kind = if lowered { Kind::BFloat16 } else { Kind::Float };
            let random = |size: [usize; 3]| {
                Tensor::f_randn(size.map(|n| n as i64).as_slice(), (kind, device))
            };
            let (a, b) = (random([batch, m, k])?, random([batch, k, n])?);
            products += times * best(device, || a.f_bmm(&b).map(|_| ()))?;
            flops += times * (2 * batch * m * k * n) as f64;
        }
        let features = (shape.expansion * shape.d_model as f64) as usize;
        let parameters = shape.members * (2 * features * shape.d_model + features + shape.d_model);
        // Read: parameter, gradient, two moments; written: parameter, two moments. A copy reads one and writes one.
        let from = Tensor::f_zeros([1 << 25], (Kind::Float, device))?;
        let mut to = from.f_zeros_like()?;
        let copy = best(device, || to.f_copy_(&from))? / f64::from(1 << 25);
        Ok(Self { products, adam: 3.5 * copy * parameters as f64, flops })
    }
}

impl Product {
    fn is_of(&self, vocab: usize) -> bool {
        self.n == vocab || self.k == vocab
    }
}

/// A GPU works behind the program that asks it to.
fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// The shortest of some tries, in seconds.
fn best<E>(device: Device, mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut shortest = f64::INFINITY;
    let began = Instant::now();
    for tries in 0.. {
        let start = Instant::now();
        work()?;
        wait_for(device);
        shortest = shortest.min(start.elapsed().as_secs_f64());
        if tries >= 5 && began.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    Ok(shortest)
}

impl Shape {
    /// The matrix products that a step cannot do without. The causal half of attention's counts; of an SAE with few
    /// active features only the encoder's has to be dense.
    fn products(&self) -> Vec<Product> {
        let (n, d, t) = (self.batch * self.context, self.d_model, self.context);
        let (k, features) = (self.members as f64, (self.expansion * d as f64) as usize);
        let spliced = if self.kind == "local" { 0 } else { self.layers - self.layer };
        let clean = if self.kind == "local" { self.layer } else { self.layers };
        let forward = clean as f64 + k * spliced as f64;
        let backward = k * spliced as f64;
        let one = |m, k, n, times| Product { batch: 1, m, k, n, times };
        let heads = self.batch * self.heads;
        let d_head = d / self.heads;
        // Backward, attention has four products where forward there are two.
        let attention = 0.5 * (forward + 2.0 * backward);
        let mut products = vec![
            one(n, d, 3 * d, forward),
            one(n, 3 * d, d, backward),
            one(n, d, d, forward + backward),
            one(n, d, 4 * d, forward + backward),
            one(n, 4 * d, d, forward + backward),
            Product { batch: heads, m: t, k: d_head, n: t, times: attention },
            Product { batch: heads, m: t, k: t, n: d_head, times: attention },
            one(n, d, features, k),
        ];
        if self.active.is_none() {
            products.extend([
                one(n, features, d, k),
                one(n, d, features, k),
                one(features, n, d, 2.0 * k),
            ]);
        }
        if self.kind != "local" {
            products.push(one(n, d, self.vocab, 1.0 + k));
            products.push(one(n, self.vocab, d, k));
        }
        products
    }
}

/// The paper's three types, with coefficients of its order.
fn loss(kind: &str) -> Result<LossConfig, TrainError> {
    let text = match kind {
        "local" => r#"{"sparsity": {"coeff": 4.0}, "local": {"coeff": 1.0}}"#,
        "e2e" => r#"{"sparsity": {"coeff": 1.5}, "kl": {"coeff": 1.0}}"#,
        "e2e+ds" => {
            r#"{"sparsity": {"coeff": 1.5}, "kl": {"coeff": 0.5}, "downstream": {"total_coeff": 2.5}}"#
        }
        _ => r"{}",
    };
    serde_json::from_str(text).map_err(|_| TrainError::Source {
        found: format!("the type `{kind}`"),
        expected: "local, e2e or e2e+ds".to_owned(),
    })
}

/// Sets every feature's bias so that it is active on `active / F` of some tokens.
fn set_active(
    member: &Member,
    model: &SplicedModel,
    site: Site,
    active: usize,
    batches: &[Tensor],
) -> Result<(), TrainError> {
    no_grad(|| {
        let dictionary = &member.dictionaries()[0].dictionary;
        let (w_enc, b_enc) = (dictionary.parameter("w_enc")?, dictionary.parameter("b_enc")?);
        let (features, d) = w_enc.size2()?;
        let mut inputs = Vec::new();
        for batch in batches.iter().take(SAMPLED_TOKENS.div_ceil(batches[0].numel())) {
            let clean = model.clean_pass(batch, &[site].into(), false)?;
            inputs.push(clean.activation(site)?.f_reshape([-1, d])?);
        }
        let x = Tensor::f_cat(&inputs, 0)?.f_to_kind(w_enc.kind())?;
        let inactive = 1.0 - active as f64 / features as f64;
        let mut start = 0;
        while start < features {
            let length = 1024.min(features - start);
            let rows = w_enc.f_narrow(0, start, length)?;
            let pre = x.f_matmul(&rows.f_tr()?)?;
            let threshold = pre.f_quantile_scalar(inactive, 0, false, "linear")?;
            b_enc.f_narrow(0, start, length)?.f_copy_(&threshold.f_neg()?)?;
            start += length;
        }
        Ok(())
    })
}

/// The most memory that this process has had resident, `VmHWM`; 0 where the system does not say.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| u64::from_str(line.trim().trim_end_matches(" kB")).ok());
    kib.unwrap_or(0) * 1024
}
