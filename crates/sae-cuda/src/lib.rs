//! Kernels for NVIDIA's GPUs, which do what a training step needs beside libtorch's products: the KL divergence of logits
//! with its gradient, sparse codes, Adam. One pass over memory where libtorch's operations take several.
//!
//! The source is `kernels/kernels.cu`. `scripts/ptx.py` compiles it to `kernels/kernels.ptx`, which this crate holds, and
//! which the driver compiles for its card when [`Kernels::of`] first asks for it. So building needs no CUDA, and a machine
//! without a GPU notices nothing.
//!
//! No tch here: `sae-nn` lends the memory of its tensors as [`Span`]s, whose sizes are checked once, at the call. Work is
//! put behind what the device's default stream has already, as libtorch's is; nothing waits.
//!
//! `N` tokens, `V` vocabulary, `F` dictionary elements (features), `W` width of a row, `M` active features of all tokens.
//!
//! ```
//! // On a machine without a GPU there are no kernels.
//! if let Some(kernels) = sae_cuda::Kernels::of(0) {
//!     println!("{kernels:?}");
//! }
//! ```

mod driver;
mod span;

use std::ffi::c_void;
use std::sync::OnceLock;

use driver::{Function, Grid, Module};
pub use span::{Bf16, Low, Rows, Span};

const PTX: &str = include_str!("../kernels/kernels.ptx");

/// GPUs that kernels may be asked for.
const DEVICES: usize = 64;
/// The widest row that fits into the shared memory of a block, 48 KB, beside what kernels declare.
pub const WIDEST: usize = 12_000;
/// Rows of logits are a multiple of so many numbers: products whose rows begin at odd addresses are several times slower.
pub const PADDING: usize = 64;
/// Threads of a block.
const THREADS: usize = 256;
/// Threads of a row of logits.
const KL_THREADS: usize = 512;
/// Blocks of Adam, each of which takes several pieces.
const ADAM_BLOCKS: usize = 4096;
/// Parts that the tokens of a feature are divided among.
const GROUPS: usize = 4;

/// A call of the driver that failed, or sizes that do not belong together.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing} on the GPU failed: {message} (CUDA error {code})")]
pub struct CudaError {
    pub(crate) doing: &'static str,
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl CudaError {
    pub(crate) fn of(doing: &'static str) -> Self {
        Self { doing, code: 0, message: "it does not apply".to_owned() }
    }

    fn size(what: &'static str, expected: usize, found: usize) -> Self {
        let message = format!("expected {expected} numbers, found {found}");
        Self { doing: what, code: 0, message }
    }
}

/// The kernels on one GPU.
#[derive(Debug)]
pub struct Kernels {
    module: Module,
    kl_rows: ByPrecision,
    count_rows: ByPrecision,
    collect: ByPrecision,
    collect_packs: ByPrecision,
    combine: ByPrecision,
    combine_packs: ByPrecision,
    row_norms: Function,
    feature_gradients: ByPrecision,
    parameter_gradients: ByPrecision,
    parameter_gradients_packs: ByPrecision,
    adam: Function,
}

/// A kernel for either precision of features.
#[derive(Debug, Clone, Copy)]
struct ByPrecision {
    f32: Function,
    bf16: Function,
}

impl ByPrecision {
    fn find(module: &Module, name: &str) -> Result<Self, CudaError> {
        let [f32, bf16] =
            ["f32", "bf16"].map(|precision| module.function(&format!("{name}_{precision}")));
        Ok(Self { f32: f32?, bf16: bf16? })
    }

    fn of(self, low: Low<'_>) -> Function {
        match low {
            Low::F32(_) => self.f32,
            Low::Bf16(_) => self.bf16,
        }
    }
}

/// A sparse code: which features of each token are active, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Active<'a> {
    ends: Span<'a, i64>,
    counts: Span<'a, i32>,
    index: Span<'a, i32>,
    token: Span<'a, i32>,
    value: Span<'a, f32>,
}

/// What the gradients of a dictionary's parameters are computed from.
#[derive(Debug, Clone, Copy)]
pub struct GradientInputs<'a> {
    /// `[N, D]`: the dictionary's input.
    pub input: Rows<'a>,
    /// `[N, E]`: the gradient with respect to its output.
    pub gradient: Rows<'a>,
    /// `[M]`: the gradient with respect to every active feature.
    pub pre: Span<'a, f32>,
    /// `[M]`: the active features in the order of their numbers, tokens in order.
    pub order: Span<'a, i64>,
    /// `[F + 1]`: where a feature's begin in `order`.
    pub starts: Span<'a, i64>,
    /// `[F, E]`.
    pub w_dec: Span<'a, f32>,
    /// `[F]`: what its rows are divided by, at least `min_norm`.
    pub norms: Span<'a, f32>,
    /// A row that is divided by no more than this is divided by a constant.
    pub min_norm: f32,
}

/// Room for the gradients of a dictionary's parameters.
#[derive(Debug)]
pub struct GradientOutputs<'a> {
    /// `[F, D]`.
    pub w_enc: Span<'a, f32>,
    /// `[F]`.
    pub b_enc: Span<'a, f32>,
    /// `[F, E]`.
    pub w_dec: Span<'a, f32>,
}

/// What an Adam step multiplies and adds, as `sae-kernels` has it.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// `1 − β₁`.
    pub mean_weight: f32,
    /// `1 − β₂`.
    pub square_weight: f32,
    /// `β₂`.
    pub square_decay: f32,
    /// Added to the root.
    pub eps: f32,
    /// The learning rate over the mean's correction.
    pub rate: f32,
    /// One over the root's correction.
    pub root_scale: f32,
    /// What gradients are multiplied by: clipping.
    pub gradient_scale: f32,
    /// What parameters are multiplied by before: decoupled weight decay.
    pub decay: f32,
}

/// An argument of a kernel: where its value stands.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &mut [$((&raw const $value).cast_mut().cast::<c_void>()),*] };
}

impl Kernels {
    /// The kernels on a GPU, by its number among the visible ones; `None` where there is no GPU, or one from before Ampere.
    pub fn of(device: usize) -> Option<&'static Self> {
        static ALL: [OnceLock<Option<Kernels>>; DEVICES] = [const { OnceLock::new() }; DEVICES];
        let load = || {
            Self::load(device).unwrap_or_else(|error| {
                tracing::warn!(
                    "the kernels for GPUs need NVIDIA's driver 580 or newer and could not be loaded ({error}): libtorch's \
                     slower operations are used"
                );
                None
            })
        };
        ALL.get(device)?.get_or_init(load).as_ref()
    }

    /// Loads the kernels, or says why they cannot be.
    fn load(device: usize) -> Result<Option<Self>, CudaError> {
        let Some(module) = Module::load(device, PTX)? else { return Ok(None) };
        let by_precision = |name: &str| ByPrecision::find(&module, name);
        Ok(Some(Self {
            kl_rows: by_precision("kl_rows")?,
            count_rows: by_precision("count_rows")?,
            collect: by_precision("collect")?,
            collect_packs: by_precision("collect_packs")?,
            combine: by_precision("combine")?,
            combine_packs: by_precision("combine_packs")?,
            row_norms: module.function("row_norms")?,
            feature_gradients: by_precision("feature_gradients")?,
            parameter_gradients: by_precision("parameter_gradients")?,
            parameter_gradients_packs: by_precision("parameter_gradients_packs")?,
            adam: module.function("adam")?,
            module,
        }))
    }

    /// `KL(p ‖ q)` of every row of logits, in nats, into `value`, and the difference of the probabilities, `q − p`. Only the
    /// first `v` of a row count; the others become 0 in the difference.
    ///
    /// # Shapes
    /// `p, q: [N, W]` in f32, W a multiple of [`PADDING`], `difference: [N, W]`, which may be `q`, `value: [N]`.
    pub fn kl_rows(
        &self,
        p: Rows<'_>,
        q: Rows<'_>,
        difference: Rows<'_>,
        value: Span<'_, f64>,
        v: usize,
    ) -> Result<(), CudaError> {
        let n = value.len();
        for rows in [p, q, difference] {
            check("sizing logits", p.width, rows.width)?;
            check("sizing logits", n * p.width, rows.numbers.len())?;
            if v > p.width || !p.width.is_multiple_of(PADDING) || !rows.has_packs() {
                return Err(CudaError::of("comparing logits that are not padded"));
            }
        }
        let (Low::F32(from), Low::F32(with)) = (p.numbers, q.numbers) else {
            return Err(CudaError::of("comparing logits in bfloat16"));
        };
        let (words, stride) = (v as i64, p.width as i64);
        let (function, to) = (self.kl_rows.of(difference.numbers), difference.numbers.address());
        let grid = Grid::rows(n, KL_THREADS);
        self.launch(function, grid, arguments![from, with, to, value, words, stride])
    }

    /// How many features of every token are active, above 0 or NaN, and their sum.
    ///
    /// # Shapes
    /// `features: [N, F]`, `counts, sums: [N]`.
    pub fn count_rows(
        &self,
        features: Rows<'_>,
        counts: Span<'_, i32>,
        sums: Span<'_, f32>,
    ) -> Result<(), CudaError> {
        let n = features.rows();
        features.check_aligned()?;
        check("sizing counts", n, counts.len())?;
        check("sizing sums", n, sums.len())?;
        let f = features.width as i64;
        let function = self.count_rows.of(features.numbers);
        let from = features.numbers.address();
        self.launch(function, Grid::rows(n, THREADS), arguments![from, f, counts, sums])
    }

    /// The active features of every token in order, into `index`, `token` and `value`.
    ///
    /// # Shapes
    /// `features: [N, F]`; `active` has `ends` and `counts` of these features.
    pub fn collect(&self, features: Rows<'_>, active: Active<'_>) -> Result<(), CudaError> {
        active.check(features.rows())?;
        let f = features.width as i64;
        let kernel = if features.has_packs() { self.collect_packs } else { self.collect };
        let function = kernel.of(features.numbers);
        let from = features.numbers.address();
        let Active { ends, counts, index, token, value } = active;
        let grid = Grid::rows(features.rows(), THREADS);
        self.launch(function, grid, arguments![from, f, ends, counts, index, token, value])
    }

    /// `base + Σ_j coefficient_j · rows[index_j]` over the active features j of every token; without a base, the sum alone.
    ///
    /// # Shapes
    /// `rows: [F, W]`, `base: [W]`, `coefficient: [M]`, `out: [N, W]`, all but the coefficients in one precision.
    pub fn combine(
        &self,
        active: Active<'_>,
        coefficient: Span<'_, f32>,
        rows: Rows<'_>,
        base: Option<Low<'_>>,
        out: Rows<'_>,
    ) -> Result<(), CudaError> {
        active.check(out.rows())?;
        check("sizing coefficients", active.index.len(), coefficient.len())?;
        check("sizing rows", rows.width, out.width)?;
        if let Some(base) = base {
            check("sizing a base", rows.width, base.len())?;
        }
        let same = base.is_none_or(|base| base.is_like(rows.numbers));
        if !same || !rows.numbers.is_like(out.numbers) {
            return Err(CudaError::of("combining rows of two precisions"));
        }
        let packs = rows.has_packs();
        let kernel = if packs { self.combine_packs } else { self.combine };
        let function = kernel.of(rows.numbers);
        let width = rows.width as i64;
        let base = base.map_or(0, Low::address);
        let (from, to) = (rows.numbers.address(), out.numbers.address());
        let Active { ends, counts, index, .. } = active;
        let grid = Grid::rows(out.rows(), lanes(rows.width, packs, rows.numbers));
        let arguments = arguments![from, base, width, ends, counts, index, coefficient, to];
        self.launch(function, grid, arguments)
    }

    /// `‖c_n‖_p` of every token.
    ///
    /// # Shapes
    /// `out: [N]`.
    pub fn row_norms(
        &self,
        active: Active<'_>,
        p: f32,
        out: Span<'_, f32>,
    ) -> Result<(), CudaError> {
        active.check(out.len())?;
        let n = out.len() as i64;
        let grid = Grid::rows(out.len().div_ceil(THREADS / 32), THREADS);
        let Active { ends, counts, value, .. } = active;
        self.launch(self.row_norms, grid, arguments![value, ends, counts, n, p, out])
    }

    /// The gradient with respect to every active feature: `gradient_n · rows[index_j]`, and the sparsity term's, `weight ·
    /// factor_n · c_j^(p − 1)`; without factors, `weight`.
    ///
    /// # Shapes
    /// `gradient: [N, W]`, `rows: [F, W]`, `factors: [N]`, `out: [M]`.
    pub fn feature_gradients(
        &self,
        active: Active<'_>,
        gradient: Rows<'_>,
        rows: Rows<'_>,
        (factors, weight, p): (Option<Span<'_, f32>>, f32, f32),
        out: Span<'_, f32>,
    ) -> Result<(), CudaError> {
        let n = gradient.rows();
        active.check(n)?;
        rows.check_aligned()?;
        check("sizing rows", rows.width, gradient.width)?;
        check("sizing gradients", active.index.len(), out.len())?;
        if let Some(factors) = factors {
            check("sizing factors", n, factors.len())?;
        }
        if !rows.numbers.is_like(gradient.numbers) || rows.width > WIDEST {
            return Err(CudaError::of("multiplying rows"));
        }
        let function = self.feature_gradients.of(rows.numbers);
        let width = rows.width as i64;
        let factors = factors.map_or(0, Span::address);
        let (by, from) = (gradient.numbers.address(), rows.numbers.address());
        let grid = Grid { shared_bytes: 4 * rows.width, ..Grid::rows(n, THREADS) };
        let Active { ends, counts, index, value, .. } = active;
        let arguments =
            arguments![by, from, width, ends, counts, index, value, factors, weight, p, out];
        self.launch(function, grid, arguments)
    }

    /// The gradients of the parameters of a dictionary, of what [`Kernels::feature_gradients`] gave.
    ///
    /// # Shapes
    /// As the fields say.
    ///
    /// # Safety
    /// `order` has numbers below M, and `starts` rising ones from 0 to M.
    #[allow(unsafe_code)]
    pub unsafe fn parameter_gradients(
        &self,
        active: Active<'_>,
        inputs: &GradientInputs<'_>,
        outputs: &GradientOutputs<'_>,
    ) -> Result<(), CudaError> {
        let GradientInputs { input, gradient, pre, order, starts, w_dec, norms, min_norm } =
            *inputs;
        let GradientOutputs { w_enc: to_enc, b_enc: to_bias, w_dec: to_dec } = outputs;
        let (n, f) = (gradient.rows(), norms.len());
        active.check(n)?;
        check("sizing inputs", n, input.rows())?;
        check("sizing an order", active.index.len(), order.len())?;
        check("sizing gradients", active.index.len(), pre.len())?;
        check("sizing starts", f + 1, starts.len())?;
        check("sizing a decoder", f * gradient.width, w_dec.len())?;
        check("sizing gradients", f * input.width, to_enc.len())?;
        check("sizing gradients", f, to_bias.len())?;
        check("sizing gradients", f * gradient.width, to_dec.len())?;
        let widest = input.width.max(gradient.width);
        if !input.numbers.is_like(gradient.numbers) || widest > WIDEST {
            return Err(CudaError::of("multiplying rows"));
        }
        let packs = input.has_packs() && gradient.has_packs();
        let kernel = if packs { self.parameter_gradients_packs } else { self.parameter_gradients };
        let function = kernel.of(input.numbers);
        let lanes = lanes(widest, packs, input.numbers);
        let groups = GROUPS.min(1024 / lanes).min(WIDEST / widest).max(1);
        let grid = Grid { blocks: f, threads: groups * lanes, shared_bytes: 4 * groups * widest };
        let (d, e, groups) = (input.width as i64, gradient.width as i64, groups as i32);
        let (x, g) = (input.numbers.address(), gradient.numbers.address());
        let Active { token, value, .. } = active;
        let arguments = arguments![
            x, d, g, e, order, starts, token, value, pre, w_dec, norms, min_norm, *to_enc,
            *to_bias, *to_dec, groups
        ];
        self.launch(function, grid, arguments)
    }

    /// One step of Adam on a parameter and its moments.
    ///
    /// # Shapes
    /// All alike.
    pub fn adam(
        &self,
        parameter: Span<'_, f32>,
        gradient: Span<'_, f32>,
        mean: Span<'_, f32>,
        square: Span<'_, f32>,
        step: AdamStep,
    ) -> Result<(), CudaError> {
        for other in [gradient, mean, square] {
            check("sizing moments", parameter.len(), other.len())?;
        }
        let n = parameter.len() as i64;
        let grid = Grid::rows(parameter.len().div_ceil(THREADS).min(ADAM_BLOCKS), THREADS);
        let AdamStep { mean_weight, square_weight, square_decay, eps, rate, .. } = step;
        let AdamStep { root_scale, gradient_scale, decay, .. } = step;
        let arguments = arguments![
            parameter,
            gradient,
            mean,
            square,
            n,
            mean_weight,
            square_weight,
            square_decay,
            eps,
            rate,
            root_scale,
            gradient_scale,
            decay
        ];
        self.launch(self.adam, grid, arguments)
    }

    /// Starts a kernel whose arguments the methods above have checked.
    #[allow(unsafe_code)]
    fn launch(
        &self,
        function: Function,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        // SAFETY: the methods above give every kernel the arguments of its signature in kernels.cu, in order: spans, which
        // are addresses, and numbers. They have compared the spans' lengths; what is an index was promised to be one.
        unsafe { self.module.launch(function, grid, arguments) }
    }
}

impl<'a> Active<'a> {
    /// A code of N tokens and M active features: where each token's end and how many it has, `[N]`; the features' numbers,
    /// tokens and values, `[M]`.
    ///
    /// # Safety
    /// `counts` are of [`Kernels::count_rows`], and `ends` their running sums, the last of which is M. `index`, `token` and
    /// `value` are of [`Kernels::collect`] with the same features, or are room for it.
    #[allow(unsafe_code)]
    pub unsafe fn new(
        (ends, counts): (Span<'a, i64>, Span<'a, i32>),
        (index, token, value): (Span<'a, i32>, Span<'a, i32>, Span<'a, f32>),
    ) -> Self {
        Self { ends, counts, index, token, value }
    }

    fn check(&self, n: usize) -> Result<(), CudaError> {
        check("sizing a code", n, self.ends.len())?;
        check("sizing a code", n, self.counts.len())?;
        check("sizing a code", self.index.len(), self.token.len())?;
        check("sizing a code", self.index.len(), self.value.len())
    }
}

impl Grid {
    /// A block a row.
    fn rows(blocks: usize, threads: usize) -> Self {
        Self { blocks, threads, shared_bytes: 0 }
    }
}

/// Threads that take the columns of a row, some at a time; whole warps.
fn lanes(width: usize, packs: bool, numbers: Low<'_>) -> usize {
    let pack = if packs { numbers.pack() } else { 1 };
    width.div_ceil(pack).next_multiple_of(32).clamp(32, 256)
}

fn check(what: &'static str, expected: usize, found: usize) -> Result<(), CudaError> {
    if expected == found { Ok(()) } else { Err(CudaError::size(what, expected, found)) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use sha2::{Digest, Sha256};

    use super::{PTX, lanes};
    use crate::span::{Low, Span};

    #[test]
    fn the_kernels_are_of_their_source() {
        let source = include_bytes!("../kernels/kernels.cu");
        let digest = Sha256::digest(source).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let head = format!("// SHA-256 of kernels.cu: {digest}");
        assert_eq!(PTX.lines().next(), Some(head.as_str()), "run scripts/ptx.py");
    }

    #[test]
    fn rows_are_taken_by_whole_warps() {
        let (bf16, f32) = (Low::Bf16(Span::nothing()), Low::F32(Span::nothing()));
        assert_eq!(lanes(768, true, bf16), 96);
        assert_eq!(lanes(768, true, f32), 192);
        assert_eq!(lanes(768, false, bf16), 256);
        assert_eq!(lanes(5, false, bf16), 32);
    }

    #[test]
    fn sizes_are_compared() {
        let error = super::check("sizing logits", 6, 5).unwrap_err().to_string();
        assert_eq!(
            error,
            "sizing logits on the GPU failed: expected 6 numbers, found 5 (CUDA error 0)"
        );
    }
}
