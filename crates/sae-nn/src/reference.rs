//! SAEs as the reference saves them: the state dict `samples_N.pt`, all sites in one file.
//!
//! Keys are `blocks-6-hook_resid_pre.encoder.0.weight [F, D]`, `.encoder.0.bias [F]`, `.decoder.weight [D, F]` (columns
//! not normalised) and `.decoder.bias [D]`; hyphens stand for the dots of the site's name.

use std::collections::BTreeSet;
use std::path::Path;

use sae_tensors::TensorFiles;
use tch::{Device, Kind};

use crate::weights::NamedSae;
use crate::{Sae, SaeError};

const ENCODER: &str = ".encoder.0.weight";

/// Loads all SAEs of a state dict, in the order of their names. The file is untrusted: tensors are read, nothing is
/// executed.
pub fn load(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedSae>, SaeError> {
    let files = TensorFiles::open(path)?;
    let failed = |message: String| SaeError::Format { path: path.to_owned(), message };
    let keys: BTreeSet<&str> =
        files.names().filter_map(|name| name.strip_suffix(ENCODER)).collect();
    if keys.is_empty() {
        let found: Vec<&str> = files.names().take(4).collect();
        return Err(failed(format!(
            "no tensor is named <site>{ENCODER}; it has {}, …; expected the state dict of the reference's SAEs",
            found.join(", ")
        )));
    }
    let take = |key: &str, rest: &str, dimensions: usize| -> Result<tch::Tensor, SaeError> {
        let name = format!("{key}{rest}");
        if let Some(shape) = files.shape(&name)
            && shape.len() != dimensions
        {
            return Err(failed(format!(
                "`{name}` has shape {shape:?}, expected {dimensions} dimensions"
            )));
        }
        let tensor = files.read(&name)?;
        Ok(tensor.f_to_device(device)?.f_to_kind(kind)?.f_contiguous()?)
    };
    keys.into_iter()
        .map(|key| {
            let w_enc = take(key, ENCODER, 2)?;
            let w_dec = take(key, ".decoder.weight", 2)?.f_tr()?.f_contiguous()?;
            let (b_enc, b_dec) = (take(key, ".encoder.0.bias", 1)?, take(key, ".decoder.bias", 1)?);
            let sae = Sae::from_tensors(w_enc, b_enc, w_dec, b_dec)
                .map_err(|error| failed(format!("{key}: {error}")))?;
            Ok(NamedSae { hook_name: key.replace('-', "."), sae })
        })
        .collect()
}
