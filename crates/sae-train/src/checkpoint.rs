//! Checkpoints: all that a run needs to go on to the same bits, `checkpoints/step_N/`.
//!
//! A checkpoint is written beside its place and renamed when it is whole.

use std::path::{Path, PathBuf};

use sae_config::file;
use sae_record::RunFolder;
use sae_splice::Member;
use sae_tensors::TensorFiles;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor, no_grad};

use crate::TrainError;
use crate::optim::Adam;

/// What is not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps of the bank.
    pub step: u64,
    /// Steps of this run's optimiser; fewer where it diverged.
    pub optimiser_steps: u64,
    /// Where it diverged.
    pub diverged: Option<Diverged>,
    /// The step of the last state known to be good, which is stored too.
    pub good: Option<u64>,
}

/// A run read from a checkpoint.
pub(crate) struct Restored {
    pub state: State,
    /// The parameters and buffers of the last state known to be good, in order; empty where none was stored.
    pub good: Vec<Tensor>,
}

/// The end of a run whose loss became non-finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Diverged {
    /// The step that failed.
    pub at: u64,
    /// The step whose state is kept.
    pub kept: u64,
}

/// The names of a member's trained parameters, in order.
pub(crate) fn names(member: &Member) -> Vec<String> {
    member.named_parameters().into_iter().map(|(name, _)| name).collect()
}

/// The buffers of a member's trained dictionaries, with names.
pub(crate) fn buffers(member: &Member) -> Vec<(String, Tensor)> {
    let buffers = member.named_buffers().into_iter();
    buffers.map(|(name, buffer)| (name, buffer.shallow_clone())).collect()
}

/// What a checkpoint is made of and restored to: named parameters with their optimiser, and named buffers.
pub(crate) struct Tensors<'a> {
    /// The names of the parameters, in order.
    pub names: &'a [String],
    pub optimiser: &'a Adam,
    pub buffers: &'a [(String, Tensor)],
    /// The parameters and buffers of the last state known to be good; none where none is kept.
    pub good: &'a [Tensor],
}

/// Where the data stands at a checkpoint.
pub(crate) fn cursor(place: &Path) -> PathBuf {
    place.join("cursor.parquet")
}

/// Saves parameters with their optimiser's moments, buffers, the last good parameters, and what `save_rest` writes into the
/// checkpoint's folder: where the data stands ([`cursor`]), and what others can open.
pub(crate) fn save(
    place: &Path,
    Tensors { names, optimiser, buffers, good }: &Tensors<'_>,
    state: &State,
    save_rest: &dyn Fn(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let partial = file::partial(place);
    let write = || -> Result<(), TrainError> {
        file::create_new_folder(&partial).map_err(TrainError::file("create", &partial))?;
        let cpu = |tensor: &Tensor| tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous();
        let mut tensors = Vec::new();
        for (name, (parameter, (mean, square))) in
            names.iter().zip(optimiser.parameters().zip(optimiser.moments()))
        {
            tensors.push((format!("{name}.mean"), cpu(mean)?));
            tensors.push((format!("{name}.square"), cpu(square)?));
            tensors.push((name.clone(), cpu(parameter)?));
        }
        let buffer_names = buffers.iter().map(|(name, _)| name);
        for (name, good) in names.iter().chain(buffer_names).zip(*good) {
            tensors.push((format!("{name}.good"), cpu(good)?));
        }
        for (name, buffer) in *buffers {
            tensors.push((name.clone(), cpu(buffer)?));
        }
        let path = partial.join("state.safetensors");
        Tensor::write_safetensors(&tensors, &path).map_err(TrainError::file("write", &path))?;
        save_rest(&partial)?;
        let path = partial.join("state.json");
        let json = serde_json::to_vec(state).map_err(TrainError::file("write", &path))?;
        std::fs::write(&path, json).map_err(TrainError::file("write", &path))?;
        if place.exists() {
            std::fs::remove_dir_all(place).map_err(TrainError::file("replace", place))?;
        }
        std::fs::rename(&partial, place).map_err(TrainError::file("rename", &partial))
    };
    write().inspect_err(|_| {
        // Half a checkpoint is of no use; the error that is reported says what happened.
        let _ = std::fs::remove_dir_all(&partial);
    })
}

/// Restores named parameters, their optimiser and named buffers.
pub(crate) fn restore(
    place: &Path,
    names: &[String],
    optimiser: &mut Adam,
    buffers: &[(String, Tensor)],
) -> Result<Restored, TrainError> {
    let path = place.join("state.json");
    let text = std::fs::read(&path).map_err(TrainError::file("read", &path))?;
    let state: State = serde_json::from_slice(&text).map_err(TrainError::file("read", &path))?;
    let path = place.join("state.safetensors");
    let files = TensorFiles::open(&path).map_err(TrainError::file("restore from", &path))?;
    let take = |name: &str| files.read(name).map_err(TrainError::file("restore from", &path));
    let mut moments = Vec::new();
    for (name, parameter) in names.iter().zip(optimiser.parameters()) {
        let value = take(name)?;
        let mut parameter = parameter.shallow_clone();
        no_grad(|| parameter.f_copy_(&value))?;
        moments.push((take(&format!("{name}.mean"))?, take(&format!("{name}.square"))?));
    }
    optimiser.restore(state.optimiser_steps, moments)?;
    for (name, buffer) in buffers {
        let value = take(name)?;
        let mut buffer = buffer.shallow_clone();
        no_grad(|| buffer.f_copy_(&value))?;
    }
    let good = if state.good.is_some() {
        let buffer_names = buffers.iter().map(|(name, _)| name);
        let names = names.iter().chain(buffer_names);
        names.map(|name| take(&format!("{name}.good"))).collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    Ok(Restored { state, good })
}

/// The steps of a run's whole checkpoints.
pub(crate) fn steps(folder: &RunFolder) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder.checkpoints()) else { return Vec::new() };
    let step = |path: PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_prefix("step_")?;
        if path.join("state.json").is_file() { name.parse().ok() } else { None }
    };
    let mut steps: Vec<u64> = entries.filter_map(|entry| step(entry.ok()?.path())).collect();
    steps.sort_unstable();
    steps
}

/// Removes the checkpoints up to a step but those that are to be kept, and the last `last` of the others. Later ones are
/// of an earlier call that a bank could not go on from, and count for nothing yet.
pub(crate) fn prune(
    folder: &RunFolder,
    up_to: u64,
    is_kept: impl Fn(u64) -> bool,
    last: usize,
) -> Result<(), TrainError> {
    let mut others = steps(folder);
    others.retain(|step| *step <= up_to && !is_kept(*step));
    for step in others.iter().rev().skip(last) {
        let path = folder.checkpoint(*step);
        std::fs::remove_dir_all(&path).map_err(TrainError::file("remove", &path))?;
    }
    Ok(())
}

/// Removes all checkpoints: a finished run that was not asked to keep any needs none.
pub(crate) fn remove_all(folder: &RunFolder) -> Result<(), TrainError> {
    let path = folder.checkpoints();
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
