//! SAEs as the reference saves them: the state dict `samples_N.pt`, all sites in one file.
//!
//! Keys are `blocks-6-hook_resid_pre.encoder.0.weight [F, D]`, `.encoder.0.bias [F]`, `.decoder.weight [D, F]` (columns
//! not normalised) and `.decoder.bias [D]`; hyphens stand for the dots of the site's name. The SAEs that the paper's
//! authors published have one site a file, and bare keys: `encoder.weight`, `encoder.bias`, `decoder.weight`,
//! `decoder.bias`.

use std::collections::BTreeSet;
use std::path::Path;

use sae_config::Architecture;
use sae_tensors::TensorFiles;
use tch::{Device, Kind};

use crate::weights::NamedDictionary;
use crate::{Dictionary, SaeError};

/// Loads all SAEs of a state dict, in the order of their names. The file is untrusted: tensors are read, nothing is
/// executed.
pub fn load(path: &Path, device: Device, kind: Kind) -> Result<Vec<NamedDictionary>, SaeError> {
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
    let assemble = |encoder: &str, decoder: &str| -> Result<Dictionary, SaeError> {
        let w_enc = take(&format!("{encoder}.weight"), 2)?;
        let w_dec = take(&format!("{decoder}.weight"), 2)?.f_tr()?.f_contiguous()?;
        let b_enc = take(&format!("{encoder}.bias"), 1)?;
        let b_dec = take(&format!("{decoder}.bias"), 1)?;
        let tensors = vec![w_enc, b_enc, w_dec, b_dec];
        let sae = Dictionary::from_tensors(&Architecture::default(), tensors)
            .map_err(|error| failed(format!("{encoder}: {error}")))?;
        sae.check_finite(path)?;
        Ok(sae)
    };
    if files.contains("encoder.weight") {
        let dictionary = assemble("encoder", "decoder")?;
        return Ok(vec![NamedDictionary { hook_name: None, hook_name_out: None, dictionary }]);
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
            let dictionary = assemble(&format!("{site}.encoder.0"), &format!("{site}.decoder"))?;
            let hook_name = Some(site.replace('-', "."));
            Ok(NamedDictionary { hook_name, hook_name_out: None, dictionary })
        })
        .collect()
}
