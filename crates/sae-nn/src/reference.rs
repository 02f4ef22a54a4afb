//! SAEs as the reference saves them: the state dict `samples_N.pt`, all sites in one file.
//!
//! Keys are `blocks-6-hook_resid_pre.encoder.0.weight [F, D]`, `.encoder.0.bias [F]`, `.decoder.weight [D, F]` (columns
//! not normalised) and `.decoder.bias [D]`; hyphens stand for the dots of the site's name. The SAEs that the paper's
//! authors published have one site a file, and bare keys: `encoder.weight`, `encoder.bias`, `decoder.weight`,
//! `decoder.bias`.

use std::collections::BTreeSet;
use std::path::Path;

use sae_tensors::TensorFiles;
use tch::{Device, Kind};

use crate::weights::NamedSae;
use crate::{Sae, SaeError};

/// Loads all SAEs of a state dict, in the order of their names. The file is untrusted: tensors are read, nothing is
/// executed.
pub fn load(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedSae>, SaeError> {
    let files = TensorFiles::open(path)?;
    let failed = |message: String| SaeError::Format { path: path.to_owned(), message };
    let take = |name: &str, dimensions: usize| -> Result<tch::Tensor, SaeError> {
        if let Some(shape) = files.shape(name)
            && shape.len() != dimensions
        {
            return Err(failed(format!(
                "`{name}` has shape {shape:?}, expected {dimensions} dimensions"
            )));
        }
        let tensor = files.read(name)?;
        Ok(tensor.f_to_device(device)?.f_to_kind(kind)?.f_contiguous()?)
    };
    let assemble = |encoder: &str, decoder: &str| -> Result<Sae, SaeError> {
        let w_enc = take(&format!("{encoder}.weight"), 2)?;
        let w_dec = take(&format!("{decoder}.weight"), 2)?.f_tr()?.f_contiguous()?;
        let b_enc = take(&format!("{encoder}.bias"), 1)?;
        let b_dec = take(&format!("{decoder}.bias"), 1)?;
        let sae = Sae::from_tensors(w_enc, b_enc, w_dec, b_dec)
            .map_err(|error| failed(format!("{encoder}: {error}")))?;
        sae.check_finite(path)?;
        Ok(sae)
    };
    if files.contains("encoder.weight") {
        return Ok(vec![NamedSae { hook_name: None, sae: assemble("encoder", "decoder")? }]);
    }
    let sites: BTreeSet<&str> =
        files.names().filter_map(|name| name.strip_suffix(".encoder.0.weight")).collect();
    if sites.is_empty() {
        let found: Vec<&str> = files.names().take(4).collect();
        return Err(failed(format!(
            "no tensor is named <site>.encoder.0.weight or encoder.weight; it has {}, …; expected the state dict of \
             the reference's SAEs",
            found.join(", ")
        )));
    }
    sites
        .into_iter()
        .map(|site| {
            let sae = assemble(&format!("{site}.encoder.0"), &format!("{site}.decoder"))?;
            Ok(NamedSae { hook_name: Some(site.replace('-', ".")), sae })
        })
        .collect()
}
