//! Activations of finished runs, measured for the analysis of their sweep.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use std::time::SystemTime;

use sae_record::activations::{Measured, RunActivations, SiteActivations};
use sae_record::{Summary, layout};
use sae_train::measure::measure_activations;
use sae_train::progress::{Event, Observer, Silent};
use sae_train::{RunSpec, TrainError};
use serde::de::DeserializeOwned;
use support::{Interrupt, Place, run, windows};
use tch::Device;

const OTHER_SITE: (&str, &str) = ("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out");

fn read<T: DeserializeOwned>(path: &std::path::Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Two runs at two sites.
fn finished(place: &Place) -> Vec<RunSpec> {
    let specs = vec![place.spec("one", &[]), place.spec("two", &[OTHER_SITE])];
    for spec in &specs {
        run(std::slice::from_ref(spec)).unwrap();
    }
    specs
}

fn measure(place: &Place, specs: &[RunSpec]) -> Result<(), TrainError> {
    measure_activations(&place.path("."), specs, Device::Cpu, &mut Silent)
}

#[derive(Default)]
struct Units(Vec<u64>);

impl Observer for Units {
    fn notice(&mut self, event: Event) {
        match event {
            Event::Began { total, .. } => self.0.push(total),
            Event::Advanced { done, .. } => self.0.push(done),
            Event::Ended => {}
        }
    }
}

#[test]
fn every_run_is_measured_once_at_its_sites() {
    let place = Place::new();
    let mut specs = finished(&place);
    let mut units = Units::default();
    let sweep = place.path(".");
    measure_activations(&sweep, &specs, Device::Cpu, &mut units).unwrap();
    // Two sites and two runs.
    assert_eq!(units.0, [4, 1, 2, 3, 4]);
    let mut times: Vec<SystemTime> = Vec::new();
    for spec in &specs {
        let site = spec.config.sae.sites[0];
        let Measured::<SiteActivations> { values: model, of } =
            read(&layout::activations(&sweep, site));
        let summary = Summary::load(&spec.folder.summary()).unwrap();
        assert_eq!(of["model"], summary.inputs.unwrap().model);
        // 16 windows of 16 tokens.
        assert_eq!((model.tokens, model.norm.len(), model.directions.len()), (256, 16, 25));
        let own = read::<Measured<RunActivations>>(&spec.folder.activations()).values;
        assert_eq!(own.keys().copied().collect::<Vec<_>>(), [site]);
        assert_eq!((own[&site].cosine.len(), own[&site].explained_variance.len()), (16, 25));
        assert!(own[&site].norm_ratio.iter().all(|ratio| ratio.is_finite() && *ratio >= 0.0));
        times.push(spec.folder.activations().metadata().unwrap().modified().unwrap());
    }
    // Again with a new run: only that one is measured.
    specs.push(place.spec("three", &[("coeff = 0.5", "coeff = 2.0")]));
    run(&specs[2..]).unwrap();
    let mut units = Units::default();
    measure_activations(&sweep, &specs, Device::Cpu, &mut units).unwrap();
    assert_eq!(units.0, [1, 1]);
    for (spec, time) in specs.iter().zip(times) {
        assert_eq!(spec.folder.activations().metadata().unwrap().modified().unwrap(), time);
    }
    // A damaged measurement is made again.
    let damaged = specs[0].folder.activations();
    let whole = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    measure(&place, &specs).unwrap();
    assert_eq!(std::fs::read(&damaged).unwrap(), whole);
    // And what is complete needs no model.
    std::fs::rename(place.path("validation"), place.path("gone")).unwrap();
    measure(&place, &specs).unwrap();
}

#[test]
fn a_measurement_is_taken_up_by_what_it_is_of() {
    let place = Place::new();
    let specs = finished(&place);
    measure(&place, &specs).unwrap();
    let model = layout::activations(&place.path("."), specs[0].config.sae.sites[0]);
    let own = specs[0].folder.activations();
    let (of_model, of_run) = (std::fs::read(&model).unwrap(), std::fs::read(&own).unwrap());
    // Whole, readable, and of something else.
    let mut other: Measured<SiteActivations> = read(&model);
    other.of.insert("model".to_owned(), "another".to_owned());
    other.values.norm[0] = 12345.0;
    std::fs::write(&model, serde_json::to_vec(&other).unwrap()).unwrap();
    measure(&place, &specs).unwrap();
    assert!(std::fs::read(&model).unwrap() == of_model);
    // The run trained again, with another seed, into the same folder.
    std::fs::remove_file(specs[0].folder.summary()).unwrap();
    std::fs::remove_file(specs[0].folder.config()).unwrap();
    let again = place.spec("one", &[("expansion = 2", "expansion = 2\n            seed = 5")]);
    run(std::slice::from_ref(&again)).unwrap();
    measure(&place, &[again, specs[1].clone()]).unwrap();
    assert!(std::fs::read(&own).unwrap() != of_run);
    // Other data under the evaluation data's names.
    std::fs::remove_dir_all(place.path("validation")).unwrap();
    windows(&place.path("validation"), 16, 3);
    std::fs::remove_file(&model).unwrap();
    let error = measure(&place, &specs).unwrap_err().to_string();
    assert!(error.contains("evaluation data") && error.contains("other contents"), "{error}");
}

#[test]
fn what_cannot_be_measured_is_left_out() {
    let place = Place::new();
    let mut specs = finished(&place);
    // Lost weights, and another evaluation set.
    for file in std::fs::read_dir(specs[0].folder.path()).unwrap().map(Result::unwrap) {
        if file.path().is_dir() {
            std::fs::remove_dir_all(file.path()).unwrap();
        }
    }
    specs.push(place.spec(
        "other",
        &[("n_samples = 16\n            alive", "n_samples = 8\n            alive")],
    ));
    run(&specs[2..]).unwrap();
    measure(&place, &specs).unwrap();
    let measured: Vec<bool> =
        specs.iter().map(|spec| spec.folder.activations().is_file()).collect();
    assert_eq!(measured, [false, true, false]);
}

#[test]
fn an_interrupted_measurement_goes_on() {
    let place = Place::new();
    let specs = finished(&place);
    let mut stop = Interrupt { after: 3, done: 0 };
    let stopped = measure_activations(&place.path("."), &specs, Device::Cpu, &mut stop);
    assert!(matches!(stopped, Err(TrainError::InterruptedEvaluation)), "{stopped:?}");
    let measured = |spec: &RunSpec| spec.folder.activations().is_file();
    assert_eq!(specs.iter().map(measured).collect::<Vec<_>>(), [true, false]);
    measure(&place, &specs).unwrap();
    assert!(specs.iter().all(measured));
}
