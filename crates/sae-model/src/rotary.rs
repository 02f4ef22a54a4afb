//! Rotary positions: queries and keys turned by an angle that grows with the position (Su et al. 2021, in the variant of
//! GPT-NeoX and Llama that pairs the two halves of the rotated dimensions).
//!
//! `T` context length, `R` rotated dimensions of a head.

use std::f64::consts::TAU;

use tch::{Device, Kind, TchError, Tensor};

use crate::config::{RotaryConfig, RotaryScaling};

/// Angles a position, for each pair of dimensions.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// `[R / 2]`, in the precision of the model, f32 at least.
    frequencies: Tensor,
}

/// Cosines and sines of a context's angles.
#[derive(Debug)]
pub(crate) struct Angles {
    /// `[T, R]`.
    cos: Tensor,
    /// `[T, R]`.
    sin: Tensor,
}

impl Rotary {
    pub fn new(config: &RotaryConfig, device: Device, kind: Kind) -> Result<Self, TchError> {
        let half = config.dims / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| scale(config.base.powf(-(i as f64) / half as f64), config.scaling))
            .collect();
        let kind = if kind == Kind::Double { kind } else { Kind::Float };
        let frequencies = Tensor::f_from_slice(&frequencies)?.f_to_kind(kind)?;
        Ok(Self { frequencies: frequencies.f_to_device(device)? })
    }

    /// The angles of positions 0 to `t - 1`, for activations of precision `kind`.
    pub fn angles(&self, t: i64, kind: Kind) -> Result<Angles, TchError> {
        let options = (self.frequencies.kind(), self.frequencies.device());
        let angles = Tensor::f_arange(t, options)?.f_outer(&self.frequencies)?;
        let both = Tensor::f_cat(&[&angles, &angles], -1)?;
        Ok(Angles { cos: both.f_cos()?.f_to_kind(kind)?, sin: both.f_sin()?.f_to_kind(kind)? })
    }
}

impl Angles {
    /// # Shapes
    /// `heads: [B, H, T, d_head]`, of which the first R dimensions are turned.
    pub fn rotate(&self, heads: &Tensor) -> Result<Tensor, TchError> {
        let (r, d_head) = (self.cos.size2()?.1, heads.size4()?.3);
        let turned = heads.f_narrow(-1, 0, r)?;
        let (first, second) = (turned.f_narrow(-1, 0, r / 2)?, turned.f_narrow(-1, r / 2, r / 2)?);
        let quarter = Tensor::f_cat(&[&second.f_neg()?, &first], -1)?;
        let turned = turned.f_mul(&self.cos)?.f_add(&quarter.f_mul(&self.sin)?)?;
        if r == d_head {
            return Ok(turned);
        }
        Tensor::f_cat(&[&turned, &heads.f_narrow(-1, r, d_head - r)?], -1)
    }
}

fn scale(frequency: f64, scaling: RotaryScaling) -> f64 {
    match scaling {
        RotaryScaling::None => frequency,
        RotaryScaling::Linear { factor } => frequency / factor,
        RotaryScaling::Llama3 { factor, low, high, original_context } => {
            let wavelength = TAU / frequency;
            if wavelength < original_context / high {
                frequency
            } else if wavelength > original_context / low {
                frequency / factor
            } else {
                let smooth = (original_context / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}
