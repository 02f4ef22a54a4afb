//! The KL divergence between two output distributions, and its gradient, without ever holding all logits.
//!
//! `N` tokens, `D` width of the final hidden state, `V` vocabulary, `n` tokens of a chunk, `w` words of a tile.

use std::sync::Once;

use rayon::prelude::*;
use sae_cuda::Kernels;
use sae_kernels::SoftmaxSums;
use tch::{Device, Kind, Tensor, no_grad};

use crate::SaeError;
use crate::kernels::{self, gpu};

/// KL of one spliced model.
#[derive(Debug)]
pub struct KlTerm {
    /// `mean_n KL(p_original ‖ p_spliced)`, nats a token; a scalar tensor.
    pub value: Tensor,
    /// Its gradient with respect to the spliced hidden state, `[N, D]`.
    pub gradient: Tensor,
}

/// Words of the vocabulary that a thread works on at a time: with a chunk's tokens their logits stay in its cache.
const TILE: i64 = 1024;
/// Sums over the vocabulary are made of so many parts, one after the other, however many threads there are.
const PARTS: usize = 16;

/// `mean_n Σ_v p_orig (log p_orig − log p_spliced)` for several spliced models against one original, each with its
/// gradient `(p_spliced − p_orig) · W_U / N` with respect to its final hidden state (the reference's `logits_kl`, whose
/// docstring names the other direction).
///
/// Works through `chunk` tokens at a time: a chunk's logits are all that ever stands in memory, and the original's
/// distribution is computed once for all. Each model's numbers do not depend on the others. Where `gradient` is
/// bfloat16, a GPU takes the product `(p_spliced − p_orig) · W_U` in it; logits and probabilities stay in the precision of
/// the hidden states.
///
/// # Shapes
/// `original: [N, D]`, each of `spliced: [N, D]`, `unembedding: [V, D]`, its bias, where it has one, `[V]`.
pub fn kl_without_logits(
    original: &Tensor,
    spliced: &[&Tensor],
    unembedding: &Tensor,
    bias: Option<&Tensor>,
    chunk: usize,
    gradient: Kind,
) -> Result<Vec<KlTerm>, SaeError> {
    no_grad(|| {
        let n = original.size2()?.0;
        let chunk = (chunk.max(1) as i64).min(n.max(1));
        let on_gpu = OnGpu::of(original, spliced, unembedding, bias, gradient)?;
        let mut tiles = kernels::applies(&[original, unembedding])
            .then(|| Tile::all(unembedding, bias, spliced.len(), chunk))
            .transpose()?;
        let mut sums = spliced
            .iter()
            .map(|hidden| Tensor::f_zeros([], (Kind::Double, hidden.device())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut gradients =
            spliced.iter().map(|hidden| hidden.f_empty_like()).collect::<Result<Vec<_>, _>>()?;
        for start in (0..n).step_by(chunk as usize) {
            let rows = |tensor: &Tensor| tensor.f_narrow(0, start, chunk.min(n - start));
            let hidden =
                spliced.iter().map(|hidden| rows(hidden)).collect::<Result<Vec<_>, _>>()?;
            let original = rows(original)?;
            let found = match (&mut tiles, &on_gpu) {
                (Some(tiles), _) => tiled_terms(tiles, &original, &hidden)?,
                (None, Some(on_gpu)) => on_gpu.terms(&original, &hidden)?,
                (None, None) => plain_terms(&original, &hidden, unembedding, bias)?,
            };
            for ((found, sum), gradient) in found.into_iter().zip(&mut sums).zip(&gradients) {
                let _ = sum.f_add_(&found.value)?;
                rows(gradient)?.f_copy_(&found.gradient)?;
            }
        }
        let scale = 1.0 / n as f64;
        sums.into_iter()
            .zip(&mut gradients)
            .map(|(mut sum, gradient)| {
                let value = sum.f_mul_scalar_(scale)?;
                Ok(KlTerm { value, gradient: gradient.f_mul_scalar_(scale)? })
            })
            .collect()
    })
}

/// What a GPU's kernels work with.
struct OnGpu {
    kernels: &'static Kernels,
    /// Words of the vocabulary.
    v: i64,
    /// `[W, D]`, the words padded.
    weight: Tensor,
    /// The same in the precision of the gradient's product.
    lowered: Tensor,
    /// `[W]`.
    bias: Option<Tensor>,
}

impl OnGpu {
    /// Where all is on one GPU with kernels, in single precision.
    fn of(
        original: &Tensor,
        spliced: &[&Tensor],
        unembedding: &Tensor,
        bias: Option<&Tensor>,
        gradient: Kind,
    ) -> Result<Option<Self>, SaeError> {
        let mut all = vec![original, unembedding];
        all.extend(spliced);
        let is_single = all.iter().all(|tensor| tensor.kind() == Kind::Float);
        let Some(kernels) = gpu::of(&all).filter(|_| is_single) else { return Ok(None) };
        let v = unembedding.size2()?.0;
        let (weight, bias) = (gpu::padded(unembedding)?, bias.map(gpu::padded).transpose()?);
        let lowered = match gradient {
            Kind::BFloat16 => weight.f_to_kind(gradient)?,
            _ => weight.shallow_clone(),
        };
        Ok(Some(Self { kernels, v, weight, lowered, bias }))
    }

    /// The sums over a chunk's tokens: one pass over both models' logits, and one more for the gradient, which takes the
    /// place of the spliced model's where it is not lowered.
    fn terms(&self, original: &Tensor, spliced: &[Tensor]) -> Result<Vec<KlTerm>, SaeError> {
        let p = original.f_linear(&self.weight, self.bias.as_ref())?;
        spliced
            .iter()
            .map(|hidden| {
                let q = hidden.f_linear(&self.weight, self.bias.as_ref())?;
                let found = gpu::kl_rows(self.kernels, &p, &q, self.v, self.lowered.kind())?;
                let gradient = found.difference.f_mm(&self.lowered)?;
                Ok(KlTerm { value: found.values.f_sum(Kind::Double)?, gradient })
            })
            .collect()
    }
}

/// The sums over a chunk's tokens, with libtorch's operations.
fn plain_terms(
    original: &Tensor,
    spliced: &[Tensor],
    unembedding: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Vec<KlTerm>, SaeError> {
    let log_softmax = |hidden: &Tensor| hidden.f_linear(unembedding, bias)?.f_log_softmax(-1, None);
    let log_p = log_softmax(original)?;
    let p = log_p.f_exp()?;
    spliced
        .iter()
        .map(|hidden| {
            let log_q = log_softmax(hidden)?;
            let value = log_p.f_sub(&log_q)?.f_mul_(&p)?.f_sum(Kind::Double)?;
            let gradient = log_q.f_exp()?.f_sub_(&p)?.f_mm(unembedding)?;
            Ok(KlTerm { value, gradient })
        })
        .collect()
}

/// The sums over a chunk's tokens, by kernels. The threads share out the vocabulary and take their products by
/// themselves: two pools of threads that took turns at every tile would wait for each other longer than they work.
fn tiled_terms(
    tiles: &mut [Tile],
    original: &Tensor,
    spliced: &[Tensor],
) -> Result<Vec<KlTerm>, SaeError> {
    use_one_thread_a_worker();
    let n = original.size2()?.0;
    for tile in &mut *tiles {
        tile.original = original.shallow_clone();
        tile.spliced = spliced.iter().map(Tensor::shallow_clone).collect();
    }
    let sums: Vec<TileSums> = tiles
        .par_iter_mut()
        .map_init(Vec::new, |buffer, tile| no_grad(|| tile.forward(n, buffer)))
        .collect::<Result<_, _>>()?;
    let of_p = Softmax::all(sums.iter().map(|tile| &tile.original));
    let of_q: Vec<Vec<Softmax>> = (0..spliced.len())
        .map(|model| Softmax::all(sums.iter().map(|tile| &tile.spliced[model])))
        .collect();
    let part = tiles.len().div_ceil(PARTS).max(1);
    let parts: Vec<Vec<Tensor>> = tiles
        .par_chunks_mut(part)
        .zip(sums.par_chunks(part))
        .map(|(tiles, sums)| no_grad(|| part_of_gradients(tiles, sums, &of_p, &of_q)))
        .collect::<Result<_, _>>()?;
    of_q.iter()
        .enumerate()
        .map(|(model, of_q)| {
            let mut value = 0.0;
            for (row, (p, q)) in of_p.iter().zip(of_q).enumerate() {
                let weighted = sums
                    .iter()
                    .map(|tile| tile.spliced[model][row].weighted * p.scale(&tile.original[row]));
                value += weighted.sum::<f64>() - p.log_sum() + q.log_sum();
            }
            let mut gradient = parts[0][model].shallow_clone();
            for part in &parts[1..] {
                let _ = gradient.f_add_(&part[model])?;
            }
            Ok(KlTerm { value: Tensor::from(value), gradient })
        })
        .collect()
}

/// What some tiles add to the gradient of every model's hidden states, `[n, D]` each.
fn part_of_gradients(
    tiles: &mut [Tile],
    sums: &[TileSums],
    of_p: &[Softmax],
    of_q: &[Vec<Softmax>],
) -> Result<Vec<Tensor>, SaeError> {
    let mut gradients =
        tiles[0].spliced.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
    for (tile, sums) in tiles.iter_mut().zip(sums) {
        let scales: Vec<f32> = scales(of_p, &sums.original);
        for (model, gradient) in gradients.iter_mut().enumerate() {
            let own = scales_of(&of_q[model], &sums.spliced[model], &scales);
            tile.backward(model, &own, gradient)?;
        }
    }
    Ok(gradients)
}

fn scales(softmaxes: &[Softmax], sums: &[SoftmaxSums]) -> Vec<f32> {
    softmaxes.iter().zip(sums).map(|(softmax, sums)| softmax.scale(sums) as f32).collect()
}

fn scales_of(softmaxes: &[Softmax], sums: &[SoftmaxSums], of_p: &[f32]) -> Vec<(f32, f32)> {
    scales(softmaxes, sums).into_iter().zip(of_p.iter().copied()).collect()
}

/// libtorch's threads are for the thread that calls it; a worker of rayon's has no others.
fn use_one_thread_a_worker() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The number is the calling thread's, and what threads that libtorch has not met begin with.
        let own = tch::get_num_threads();
        rayon::broadcast(|_| tch::set_num_threads(1));
        tch::set_num_threads(own);
    });
}

/// Some words of the vocabulary, and what a chunk's tokens have there.
struct Tile {
    /// `[w, D]`.
    weight: Tensor,
    /// `[w]`.
    bias: Option<Tensor>,
    /// The original's hidden states, `[n, D]`.
    original: Tensor,
    /// Every spliced model's.
    spliced: Vec<Tensor>,
    /// The original's exponentials, room for `[n, w]`.
    p: Tensor,
    /// Every spliced model's.
    q: Vec<Tensor>,
}

/// Softmax statistics of every token on a tile.
struct TileSums {
    original: Vec<SoftmaxSums>,
    /// Of every spliced model.
    spliced: Vec<Vec<SoftmaxSums>>,
}

impl Tile {
    /// The tiles of a vocabulary, with room for `n` tokens.
    fn all(
        unembedding: &Tensor,
        bias: Option<&Tensor>,
        models: usize,
        n: i64,
    ) -> Result<Vec<Self>, SaeError> {
        let v = unembedding.size2()?.0;
        (0..v)
            .step_by(TILE as usize)
            .map(|first| {
                let w = TILE.min(v - first);
                let room = || Tensor::f_empty([n * w], (Kind::Float, Device::Cpu));
                Ok(Self {
                    weight: unembedding.f_narrow(0, first, w)?,
                    bias: bias.map(|bias| bias.f_narrow(0, first, w)).transpose()?,
                    original: Tensor::new(),
                    spliced: Vec::new(),
                    p: room()?,
                    q: (0..models).map(|_| room()).collect::<Result<_, _>>()?,
                })
            })
            .collect()
    }

    /// The exponentials of all models' logits; the buffer is this thread's.
    fn forward(&mut self, n: i64, buffer: &mut Vec<Tensor>) -> Result<TileSums, SaeError> {
        let w = self.weight.size2()?.0;
        if buffer.is_empty() {
            buffer.push(Tensor::f_empty([n * TILE], (Kind::Float, Device::Cpu))?);
        }
        let logits = first_numbers(&buffer[0], n, w)?;
        self.write_logits(&logits, &self.original)?;
        let mut p = first_numbers(&self.p, n, w)?;
        let original = kernels::exponentials(&logits, &mut p)?;
        let spliced = self
            .spliced
            .iter()
            .zip(&self.q)
            .map(|(hidden, q)| {
                let mut q = first_numbers(q, n, w)?;
                self.write_logits(&q, hidden)?;
                kernels::compare(&mut q, &logits, &p)
            })
            .collect::<Result<_, _>>()?;
        Ok(TileSums { original, spliced })
    }

    /// Adds `(q − p) · W` to a model's gradient, `[n, D]`.
    fn backward(
        &mut self,
        model: usize,
        scales: &[(f32, f32)],
        gradient: &mut Tensor,
    ) -> Result<(), SaeError> {
        let (n, w) = (scales.len() as i64, self.weight.size2()?.0);
        let mut q = first_numbers(&self.q[model], n, w)?;
        kernels::subtract(&mut q, &first_numbers(&self.p, n, w)?, scales)?;
        let _ = gradient.f_addmm_(&q, &self.weight)?;
        Ok(())
    }

    /// `hidden · Wᵀ + b` into a buffer.
    fn write_logits(&self, out: &Tensor, hidden: &Tensor) -> Result<(), SaeError> {
        let transposed = self.weight.f_tr()?;
        let _ = match &self.bias {
            None => hidden.f_mm_out(out, &transposed)?,
            Some(bias) => bias.f_addmm_out(out, hidden, &transposed)?,
        };
        Ok(())
    }
}

/// A token's softmax over the whole vocabulary.
struct Softmax {
    largest: f64,
    /// `Σ exp(logit − largest)`.
    sum: f64,
}

impl Softmax {
    /// Every token's, of the statistics of all tiles.
    fn all<'a>(tiles: impl Iterator<Item = &'a Vec<SoftmaxSums>>) -> Vec<Self> {
        let tiles: Vec<&Vec<SoftmaxSums>> = tiles.collect();
        let tokens = tiles.first().map_or(0, |tile| tile.len());
        (0..tokens)
            .map(|row| {
                let tiles = || tiles.iter().map(|tile| tile[row]);
                let largest = |sums: SoftmaxSums| f64::from(sums.largest);
                let all = tiles().map(largest).fold(f64::NEG_INFINITY, f64::max);
                let sum = tiles().map(|sums| sums.sum * (largest(sums) - all).exp()).sum();
                Self { largest: all, sum }
            })
            .collect()
    }

    /// What a tile's exponentials are multiplied by to be probabilities.
    fn scale(&self, sums: &SoftmaxSums) -> f64 {
        (f64::from(sums.largest) - self.largest).exp() / self.sum
    }

    /// `log Σ exp(logit)`.
    fn log_sum(&self) -> f64 {
        self.largest + self.sum.ln()
    }
}

/// The first numbers of a buffer as `[n, w]`.
fn first_numbers(buffer: &Tensor, n: i64, w: i64) -> Result<Tensor, SaeError> {
    Ok(buffer.f_narrow(0, 0, n * w)?.f_view([n, w])?)
}
