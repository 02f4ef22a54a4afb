//! A manifest as a table, with what it takes.

use comfy_table::{CellAlignment, Table, presets};
use sae_config::RunConfig;
use sae_config::estimate::{ModelShape, peak_bytes, training_tokens};
use sae_config::message::counted;
use sae_record::Manifest;

/// Jobs and runs as a table: types, coefficients, training tokens, and the memory that a job takes at most.
pub fn describe(manifest: &Manifest) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["job", "run", "type", "λ", "tokens", "memory of the job"]);
    let mut total = 0;
    for (index, job) in manifest.jobs.iter().enumerate() {
        let configs: Vec<&RunConfig> = job.runs.iter().map(|run| &run.config).collect();
        for (place, run) in job.runs.iter().enumerate() {
            let tokens = training_tokens(&run.config);
            total += tokens;
            let once = |text: String| if place == 0 { text } else { String::new() };
            table.add_row([
                once(index.to_string()),
                run.id.clone(),
                run.config.variant().to_string(),
                run.config.loss.sparsity.coeff.get().to_string(),
                format!("{:.2} M", tokens as f64 / 1e6),
                once(memory(&configs)),
            ]);
        }
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!(
        "{table}\n{} in {}, {:.2} M training tokens",
        counted(manifest.runs().count(), "run"),
        counted(manifest.jobs.len(), "job"),
        total as f64 / 1e6
    )
}

fn memory(configs: &[&RunConfig]) -> String {
    match configs.first().and_then(|config| config.model.path.local()).map(ModelShape::load) {
        Some(Ok(shape)) => format!("≤ {:.1} GB", peak_bytes(shape, configs) / 1e9),
        Some(Err(error)) => format!("unknown: {error}"),
        None => "unknown before the model is fetched".to_owned(),
    }
}
