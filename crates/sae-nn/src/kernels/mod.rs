//! Loops over whole tensors that libtorch would make several passes of: softmax with its normaliser, the KL divergence
//! with its gradient, Adam, the few active features of an SAE. For f32 on a CPU with AVX2; everything else takes the
//! plain path, which the tests hold these to.
//!
//! The one module of the workspace with unsafe code beside `sae-model::device`: it reads and writes tensors' memory and
//! compiles its loops for instructions that not every CPU has. Callers check with [`applies`] first.
#![allow(unsafe_code)]
// A loop takes on the instructions of the function that it is compiled into, so it must be compiled into it.
#![allow(clippy::inline_always)]

mod active;
mod adam;
mod dense;
mod distribution;

use tch::{Device, Kind, Tensor};

use crate::SaeError;

pub use active::{Active, ActiveGradients};
pub use adam::{AdamStep, adam};
pub use dense::{RowSums, mask, project, relu, row_scales};
pub use distribution::{Share, compare, exponentials, subtract};

/// Whether the kernels can work on these tensors: f32, contiguous, on a CPU that multiplies and adds in one instruction
/// (x86-64 with AVX2 and FMA, aarch64). Elsewhere libtorch's operations are faster, and are used.
pub fn applies(tensors: &[&Tensor]) -> bool {
    Instructions::detected().is_some()
        && tensors.iter().all(|tensor| {
            tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous()
        })
}

/// What loops are compiled for. The results are the same: a lane's numbers do not depend on how many lanes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// Whatever the compiler's target has; right on every processor.
    Portable,
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// The best that this processor has, where kernels are worth it.
    fn detected() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 =
                std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
            let has_avx512 = std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512vl")
                && std::is_x86_feature_detected!("avx512dq");
            has_avx2.then_some(if has_avx512 { Self::Avx512 } else { Self::Avx2 })
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            // NEON and its fused product are part of every aarch64.
            cfg!(target_arch = "aarch64").then_some(Self::Portable)
        }
    }

    /// What a loop runs with: the best there is, unless a test asks for the portable one.
    fn chosen() -> Self {
        #[cfg(test)]
        if tests::PORTABLE.load(std::sync::atomic::Ordering::SeqCst) {
            return Self::Portable;
        }
        Self::detected().unwrap_or(Self::Portable)
    }
}

/// The numbers of a tensor for which [`applies`] holds.
fn numbers(tensor: &Tensor) -> &[f32] {
    debug_assert!(applies(&[tensor]));
    // SAFETY: a contiguous f32 tensor on the CPU holds `numel` numbers from `data_ptr` on for as long as it lives, and
    // nothing writes to it while this borrow is alive: the functions below are the only ones that do, through `&mut`.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

/// The same, to write to.
#[allow(clippy::needless_pass_by_ref_mut)] // A tensor is a handle; the exclusive borrow is what makes this sound.
fn numbers_mut(tensor: &mut Tensor) -> &mut [f32] {
    debug_assert!(applies(&[tensor]));
    // SAFETY: as above. Other handles to the same memory may exist (an optimiser's parameter is its SAE's), but none is
    // used while this borrow is alive.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
}

fn check(what: &str, holds: bool) -> Result<(), SaeError> {
    if holds { Ok(()) } else { Err(tch::TchError::Shape(what.to_owned()).into()) }
}

/// Numbers that a loop works on side by side: four AVX2 registers, two of AVX-512.
const LANES: usize = 32;

/// `y += a · x`.
#[inline(always)]
fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.mul_add(a, *y);
    }
}

/// `x · y`, the same for any width of the CPU's registers.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for i in 0..LANES {
            lanes[i] = x[i].mul_add(y[i], lanes[i]);
        }
    }
    for (x, y) in x_rest.iter().zip(y_rest) {
        lanes[0] = x.mul_add(*y, lanes[0]);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Compiles a function's loops for every kind of [`Instructions`].
macro_rules! vectorised {
    ($name:ident => $inner:ident ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
            unsafe fn avx512($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
            match Instructions::chosen() {
                Instructions::Portable => $inner($($argument),*),
                // SAFETY: the processor has been found to have these instructions.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => unsafe { avx2($($argument),*) },
            }
        }
    };
}

use vectorised;

#[cfg(test)]
mod tests;
