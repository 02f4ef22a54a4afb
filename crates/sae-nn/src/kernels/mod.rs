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

/// Whether the kernels can work on these tensors: f32, contiguous, on a CPU that has AVX2 and FMA.
pub fn applies(tensors: &[&Tensor]) -> bool {
    has_instructions()
        && tensors.iter().all(|tensor| {
            tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous()
        })
}

#[cfg(target_arch = "x86_64")]
fn has_instructions() -> bool {
    std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instructions() -> bool {
    false
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

/// Compiles a function's loops for AVX2 and, where a CPU has it, for AVX-512, with the same results: a lane's numbers do
/// not depend on how many lanes there are.
macro_rules! vectorised {
    ($name:ident => $inner:ident ($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                unsafe fn wide($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn narrow($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
                if is_wide() {
                    // SAFETY: the CPU has these instructions.
                    unsafe { wide($($argument),*) }
                } else {
                    // SAFETY: every caller has checked `applies`, which has found these instructions.
                    unsafe { narrow($($argument),*) }
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            $inner($($argument),*)
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn is_wide() -> bool {
    std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq")
}

use vectorised;
