//! The sparse autoencoder.
//!
//! `N` tokens (any leading dimensions), `D` width of the activation, `F` dictionary elements (features).

use tch::{Device, Kind, TchError, Tensor};

use crate::SaeError;
use crate::init::Initialiser;

/// A ReLU autoencoder with a dictionary of unit-norm elements: `c = relu(x · w_encᵀ + b_enc)`,
/// `x̂ = c · dict + b_dec` with `dict` the rows of `w_dec` normalised in the forward pass (Braun et al. 2024, section 2;
/// the input is not centred by `b_dec`).
#[derive(Debug)]
pub struct Sae {
    w_enc: Tensor,
    b_enc: Tensor,
    w_dec: Tensor,
    b_dec: Tensor,
}

/// What an SAE makes of activations.
#[derive(Debug)]
pub struct SaeOutput {
    /// Feature activations c, `[..., F]`, none below 0.
    pub features: Tensor,
    /// The reconstruction x̂, `[..., D]`.
    pub reconstruction: Tensor,
}

/// Rows shorter than this are divided by it instead of by their norm, as `torch.nn.functional.normalize` does.
pub(crate) const MIN_NORM: f64 = 1e-12;

impl Sae {
    /// The names of the parameters, in the order of [`Sae::parameters`].
    pub const PARAMETER_NAMES: [&str; 4] = ["w_enc", "b_enc", "w_dec", "b_dec"];

    /// An initialised SAE: decoder orthogonal, encoder weights and bias uniform in ±1/√D, decoder bias uniform in
    /// ±1/√F. `stream` tells the SAEs of a run apart; nothing else than `seed`, `stream` and the sizes matters.
    pub fn random(
        d_model: usize,
        features: usize,
        seed: u64,
        stream: u64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SaeError> {
        let numbers =
            d_model.checked_mul(features).filter(|numbers| (1..=1 << 40).contains(numbers));
        if numbers.is_none() {
            return Err(SaeError::Size {
                d_model, features, expected: "from 1 to 2⁴⁰ numbers"
            });
        }
        if i32::try_from(features).is_err() {
            return Err(SaeError::Size {
                d_model, features, expected: "fewer than 2³¹ elements"
            });
        }
        let (d, f) = (d_model as i64, features as i64);
        let mut init = Initialiser::new(seed, stream);
        let encoder_bound = (d_model as f64).sqrt().recip();
        let w_enc = init.uniform(&[f, d], encoder_bound)?;
        let b_enc = init.uniform(&[f], encoder_bound)?;
        let w_dec = init.orthogonal(f, d)?;
        let b_dec = init.uniform(&[d], (features as f64).sqrt().recip())?;
        let place = |tensor: Tensor| tensor.f_to_kind(kind)?.f_to_device(device);
        Self::from_tensors(place(w_enc)?, place(b_enc)?, place(w_dec)?, place(b_dec)?)
    }

    /// An SAE of these parameters, which will carry gradients.
    ///
    /// # Shapes
    /// `w_enc: [F, D]`, `b_enc: [F]`, `w_dec: [F, D]`, `b_dec: [D]`.
    pub fn from_tensors(
        w_enc: Tensor,
        b_enc: Tensor,
        w_dec: Tensor,
        b_dec: Tensor,
    ) -> Result<Self, SaeError> {
        let (f, d) = w_enc.size2()?;
        if w_dec.size() != [f, d] || b_enc.size() != [f] || b_dec.size() != [d] {
            let shapes = format!(
                "w_enc {:?}, b_enc {:?}, w_dec {:?}, b_dec {:?} do not belong to one SAE",
                w_enc.size(),
                b_enc.size(),
                w_dec.size(),
                b_dec.size()
            );
            return Err(TchError::Shape(shapes).into());
        }
        let leaf = |tensor: Tensor| Ok::<_, TchError>(tensor.f_detach()?.set_requires_grad(true));
        Ok(Self {
            w_enc: leaf(w_enc)?,
            b_enc: leaf(b_enc)?,
            w_dec: leaf(w_dec)?,
            b_dec: leaf(b_dec)?,
        })
    }

    /// Refuses parameters read from `path` that are NaN or infinite: every number computed with them would be, too.
    pub(crate) fn check_finite(&self, path: &std::path::Path) -> Result<(), SaeError> {
        for (parameter, tensor) in Self::PARAMETER_NAMES.into_iter().zip(self.parameters()) {
            let finite = tensor.f_isfinite()?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            let count = tensor.numel() as i64 - finite;
            if count > 0 {
                return Err(SaeError::NonFinite { path: path.to_owned(), parameter, count });
            }
        }
        Ok(())
    }

    /// Takes the parameters out of training: they carry no gradients from here on. What the SAE sees still does.
    pub fn freeze(&self) {
        for parameter in self.parameters() {
            let _ = parameter.set_requires_grad(false);
        }
    }

    /// Whether the parameters are trained.
    pub fn is_trained(&self) -> bool {
        self.w_enc.requires_grad()
    }

    /// Width of the activation, D.
    pub fn d_model(&self) -> usize {
        self.b_dec.size()[0] as usize
    }

    /// Dictionary elements, F.
    pub fn n_features(&self) -> usize {
        self.b_enc.size()[0] as usize
    }

    /// The stored parameters: `w_enc`, `b_enc`, `w_dec` (not normalised), `b_dec`.
    pub fn parameters(&self) -> [&Tensor; 4] {
        [&self.w_enc, &self.b_enc, &self.w_dec, &self.b_dec]
    }

    /// Feature activations. The product is taken in the precision of `x`, here and in [`Sae::decode`].
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., F]`.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor, SaeError> {
        let kind = x.kind();
        let (weight, bias) = (self.w_enc.f_to_kind(kind)?, self.b_enc.f_to_kind(kind)?);
        Ok(x.f_linear(&weight, Some(&bias))?.f_relu()?)
    }

    /// The dictionary: decoder rows scaled to unit length.
    ///
    /// # Shapes
    /// → `[F, D]`.
    pub fn dictionary(&self) -> Result<Tensor, SaeError> {
        Ok(self.w_dec.f_div(&self.norms()?)?)
    }

    /// What decoder rows are divided by to have unit length, `[F, 1]`.
    pub(crate) fn norms(&self) -> Result<Tensor, SaeError> {
        Ok(self.w_dec.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(MIN_NORM)?)
    }

    /// The sum of dictionary elements that feature activations stand for.
    ///
    /// # Shapes
    /// `features: [..., F]` → `[..., D]`.
    pub fn decode(&self, features: &Tensor) -> Result<Tensor, SaeError> {
        let kind = features.kind();
        let (weight, bias) = (self.dictionary()?.f_to_kind(kind)?, self.b_dec.f_to_kind(kind)?);
        Ok(features.f_linear(&weight.f_tr()?, Some(&bias))?)
    }

    /// Encodes and decodes.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<SaeOutput, SaeError> {
        let features = self.encode(x)?;
        let reconstruction = self.decode(&features)?;
        Ok(SaeOutput { features, reconstruction })
    }
}
