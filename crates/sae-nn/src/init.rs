//! Initialisation, drawn in Rust so that a seed gives the same numbers on every device.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Kind, TchError, Tensor};

/// A source of initial values: one seed, one stream an SAE.
pub(crate) struct Initialiser(ChaCha8Rng);

impl Initialiser {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in ±`bound`, as PyTorch's `nn.Linear` has its weights and biases at `bound = 1 / √inputs`.
    ///
    /// # Shapes
    /// → `shape`, f64 on the CPU.
    pub fn uniform(&mut self, shape: &[i64], bound: f64) -> Result<Tensor, TchError> {
        let count = shape.iter().product::<i64>();
        let numbers: Vec<f64> = (0..count).map(|_| self.0.random_range(-bound..bound)).collect();
        Tensor::f_from_slice(&numbers)?.f_view(shape)
    }

    /// A matrix with orthonormal columns (rows, where it is wider than high), as `torch.nn.init.orthogonal_` makes it:
    /// the Q of a normal matrix, signs fixed by the diagonal of R.
    ///
    /// # Shapes
    /// → `[rows, columns]`, f64 on the CPU.
    pub fn orthogonal(&mut self, rows: i64, columns: i64) -> Result<Tensor, TchError> {
        let (high, wide) = (rows.max(columns), rows.min(columns));
        let numbers: Vec<f64> =
            (0..high * wide).map(|_| StandardNormal.sample(&mut self.0)).collect();
        let normal = Tensor::f_from_slice(&numbers)?.f_view([high, wide])?;
        let (q, r) = Tensor::f_linalg_qr(&normal, "reduced")?;
        let signs = r.f_diagonal(0, 0, 1)?.f_sign()?;
        let q = q.f_mul(&signs)?;
        debug_assert_eq!(q.kind(), Kind::Double);
        if rows < columns { q.f_tr()?.f_contiguous() } else { q.f_contiguous() }
    }
}
