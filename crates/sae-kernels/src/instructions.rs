//! Which instructions the loops are compiled for, and which of them this processor runs.
//!
//! The one file of the crate with unsafe code: a loop compiled for instructions that not every processor has may be called
//! only where they have been found.

/// Whether the kernels are faster than libtorch's operations on this processor, which they are where it multiplies and
/// adds in one instruction (x86-64 with AVX2 and FMA, aarch64). They are right everywhere.
pub fn are_worthwhile() -> bool {
    Instructions::detected().is_some()
}

/// What loops are compiled for. The results are the same: a lane's numbers do not depend on how many lanes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
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
    pub(crate) fn detected() -> Option<Self> {
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
    pub(crate) fn chosen() -> Self {
        #[cfg(test)]
        if crate::tests::PORTABLE.load(std::sync::atomic::Ordering::SeqCst) {
            return Self::Portable;
        }
        Self::detected().unwrap_or(Self::Portable)
    }
}

/// Numbers that a loop works on side by side: four AVX2 registers, two of AVX-512.
pub(crate) const LANES: usize = 32;

/// `y += a · x`.
#[inline(always)]
pub(crate) fn add_scaled(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.mul_add(a, *y);
    }
}

/// `x · y`, the same for any width of the processor's registers.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
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
        #[allow(unsafe_code)]
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
            fn avx512($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $kind),*) $(-> $result)? { $inner($($argument),*) }
            match $crate::instructions::Instructions::chosen() {
                $crate::instructions::Instructions::Portable => $inner($($argument),*),
                // SAFETY: the processor has been found to have these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::instructions::Instructions::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::instructions::Instructions::Avx2 => unsafe { avx2($($argument),*) },
            }
        }
    };
}

pub(crate) use vectorised;
