//! Training.
mod error;
pub mod optim;
pub mod pretrain;
pub mod progress;
pub mod schedule;

pub use error::TrainError;

use sae_data::Batch;
use tch::{Device, Tensor};

/// A batch's tokens, `[B, T]`, on a device.
pub(crate) fn batch_tensor(batch: &Batch, device: Device) -> Result<Tensor, TrainError> {
    let shape = [batch.rows as i64, batch.context_length as i64];
    Ok(Tensor::f_from_slice(&batch.tokens)?.f_view(shape)?.f_to_device(device)?)
}
