//! Metrics against PyTorch's values, and those of SAEs whose metrics are known.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use sae_config::loss::LossConfig;
use sae_config::run::Processing;
use sae_config::{Architecture, Site};
use sae_eval::prompt::try_prompt;
use sae_eval::task::{TwoAnswers, logit_differences};
use sae_eval::{FeatureCounts, count_active, evaluate, metrics};
use sae_model::{Transformer, load};
use sae_nn::Dictionary;
use sae_record::metric::Scope;
use sae_record::summary::Evaluation;
use sae_splice::{DictionaryPlan, FeatureEdit, Member, PlacedDictionary, SplicedModel};
use tch::{Device, Kind, Tensor};

fn fixture() -> HashMap<String, Tensor> {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../sae-splice/tests/fixtures/spliced.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn language_model(kind: Kind) -> Transformer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    load::load(&folder, Processing::None, Device::Cpu, kind).unwrap()
}

fn site(name: &str) -> Site {
    name.parse().unwrap()
}

/// The paper's autoencoder with these parameters.
fn relu(tensors: [Tensor; 4]) -> Dictionary {
    Dictionary::from_tensors(&Architecture::default(), tensors.into()).unwrap()
}

/// The fixture's SAE in its model.
fn stored(model: &SplicedModel, fixture: &HashMap<String, Tensor>) -> Member {
    let sae = relu(["w_enc", "b_enc", "w_dec", "b_dec"].map(|name| fixture[name].copy()));
    Member::new(model, vec![PlacedDictionary::sae(site(FIRST), sae)], &local()).unwrap()
}

fn local() -> LossConfig {
    serde_json::from_str(r#"{"sparsity": {"coeff": 0.0}, "local": {"coeff": 1.0}}"#).unwrap()
}

const FIRST: &str = "blocks.1.hook_resid_pre";
const SECOND: &str = "blocks.2.hook_resid_pre";

#[track_caller]
fn near(a: f64, b: f64, bound: f64) {
    assert!((a - b).abs() <= bound, "{a} {b}");
}

#[test]
fn metrics_agree_with_pytorch() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model(Kind::Double));
    let member = stored(&model, &fixture);
    let batches = [fixture["tokens"].copy()];
    let found = evaluate(&model, &[&member], &batches, &mut |_| {}).unwrap().remove(0);
    let at = &found.sites[&site(FIRST)];
    for (value, name) in [
        (found.values.get("l0"), "l0"),
        (found.values.get("ce_original"), "ce_original"),
        (found.values.get("ce_spliced"), "ce_spliced"),
        (found.values.get("ce_zero_ablation"), "ce_zero"),
        (found.values.get("ce_mean_ablation"), "ce_mean"),
        (found.values.get("kl"), "kl"),
        (found.values.get("top1_accuracy_original"), "top1_accuracy_original"),
        (found.values.get("top1_accuracy_spliced"), "top1_accuracy_spliced"),
        (found.values.get("top1_agreement"), "top1_agreement"),
        (found.values.get("statistical_distance"), "statistical_distance"),
        (at.get("l0"), "l0"),
        (at.get("mse"), "mse"),
        (at.get("explained_variance"), "explained_variance"),
        (at.get("explained_variance_per_token"), "explained_variance_per_token"),
        (at.get("cosine"), "cosine"),
        (at.get("l2_ratio"), "l2_ratio"),
    ] {
        near(value, fixture[&format!("metric_{name}")].double_value(&[]), 1e-9);
    }
    // The spread of what each token explains, by hand.
    let sites = BTreeSet::from([site(FIRST)]);
    let clean = model.clean_pass(&fixture["tokens"], &sites, false).unwrap();
    let x = clean.activation(site(FIRST)).unwrap().reshape([-1, 32]);
    let features = member.dictionaries()[0].dictionary.encode(&x).unwrap();
    let norms = fixture["w_dec"].norm_scalaropt_dim(2.0, [1], true);
    let x_hat = features.matmul(&(&fixture["w_dec"] / norms)) + &fixture["b_dec"];
    let squares = |y: Tensor| y.square().sum_dim_intlist([1].as_slice(), false, None);
    let variance = squares(&x - x.mean_dim([0].as_slice(), true, None));
    let explained: Tensor = 1.0 - squares(&x - x_hat) / variance;
    near(at.get("explained_variance_std"), explained.std(false).double_value(&[]), 1e-9);
    let n_features = features.size()[1] as f64;
    near(at.get("frac_zeros"), 1.0 - at.get("l0") / n_features, 1e-12);
    near(
        found.values.get("ce_increase"),
        found.values.get("ce_spliced") - found.values.get("ce_original"),
        0.0,
    );
    let zero = found.values.get("ce_zero_ablation");
    near(
        found.values.get("ce_recovered_zero"),
        (zero - found.values.get("ce_spliced")) / (zero - found.values.get("ce_original")),
        1e-12,
    );
    // Two batches of one window each are the same evaluation set.
    let halves: Vec<Tensor> = batches[0].chunk(2, 0);
    let again = evaluate(&model, &[&member], &halves, &mut |_| {}).unwrap().remove(0);
    near(again.values.get("ce_spliced"), found.values.get("ce_spliced"), 1e-9);
    near(again.sites[&site(FIRST)].get("explained_variance"), at.get("explained_variance"), 1e-9);
    // After a layer norm without weights, from the sums and from all activations at once.
    let later = site(SECOND);
    let clean =
        model.clean_pass(&batches[0], &BTreeSet::from([site(FIRST), later]), false).unwrap();
    let pass = model.spliced_pass(&member, &clean, &[later], Some(later)).unwrap();
    let normalise = |x: &Tensor| {
        let x = x.flatten(0, 1);
        let centred = &x - x.mean_dim([-1_i64].as_slice(), true, Kind::Double);
        let variance = centred.square().mean_dim([-1_i64].as_slice(), true, Kind::Double);
        centred / (variance + 1e-5).sqrt()
    };
    let original = normalise(clean.activation(later).unwrap());
    let spliced = normalise(&pass.recorded.iter().find(|(own, _)| *own == later).unwrap().1);
    let mean = original.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let sum = |x: Tensor| x.square().sum(Kind::Double).double_value(&[]);
    let expected = 1.0 - sum(&original - &spliced) / sum(&original - mean);
    near(found.downstream[&later].get("explained_variance_normalised"), expected, 1e-9);
    near(again.downstream[&later].get("explained_variance_normalised"), expected, 1e-9);
    assert_eq!(
        again.downstream.keys().map(Site::to_string).collect::<Vec<_>>(),
        [SECOND, "blocks.2.hook_resid_post"]
    );
}

/// Features +1 and −1 of every direction with a dictionary to match reproduce any activation.
fn identity(d: i64) -> Dictionary {
    let eye = Tensor::eye(d, (Kind::Double, Device::Cpu));
    let both = Tensor::cat(&[&eye, &-&eye], 0);
    let zeros = |n| Tensor::zeros([n], (Kind::Double, Device::Cpu));
    relu([both.copy(), zeros(2 * d), both, zeros(d)])
}

#[test]
fn an_identity_changes_nothing() {
    let model = SplicedModel::new(language_model(Kind::Double));
    let member =
        Member::new(&model, vec![PlacedDictionary::sae(site(FIRST), identity(32))], &local())
            .unwrap();
    let found =
        evaluate(&model, &[&member], &[fixture()["tokens"].copy()], &mut |_| {}).unwrap().remove(0);
    near(found.values.get("ce_increase"), 0.0, 1e-10);
    near(found.values.get("kl"), 0.0, 1e-10);
    near(found.values.get("top1_agreement"), 1.0, 0.0);
    near(found.values.get("ce_recovered_zero"), 1.0, 1e-9);
    near(found.sites[&site(FIRST)].get("explained_variance"), 1.0, 1e-10);
    near(found.values.get("l0"), 32.0, 1e-9);
    near(found.sites[&site(FIRST)].get("frac_zeros"), 0.5, 1e-9);
    for values in found.downstream.values() {
        near(values.get("explained_variance_per_token"), 1.0, 1e-10);
        near(values.get("explained_variance_std"), 0.0, 1e-7);
        near(values.get("explained_variance_normalised"), 1.0, 1e-10);
    }
}

#[test]
fn active_features_are_counted() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model(Kind::Double));
    let member = stored(&model, &fixture);
    let mut counts = vec![FeatureCounts::start(&member).unwrap()];
    for _ in 0..2 {
        count_active(&model, &[&member], &mut counts, &fixture["tokens"]).unwrap();
    }
    let features = fixture["c"].reshape([-1, 48]);
    let active = features.gt(0.0).sum_dim_intlist([0_i64].as_slice(), false, Kind::Double) / 34.0;
    let found = Tensor::from_slice(&counts[0][0].frequencies().unwrap());
    near((found - &active).abs().max().double_value(&[]), 0.0, 1e-12);
    assert_eq!(counts[0][0].tokens, 68);
    assert_eq!(
        counts[0][0].alive().unwrap() as i64,
        active.gt(0.0).sum(Kind::Int64).int64_value(&[])
    );
}

/// TopK keeps the same number of every token, the paper's SAE does not.
#[test]
fn the_spread_of_l0_is_that_of_the_architecture() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model(Kind::Double));
    let architecture = serde_json::from_str(r#"{"topk": {"k": 5}}"#).unwrap();
    let plan = DictionaryPlan { architecture, ..DictionaryPlan::sae(site(FIRST), 48) };
    let topk = Member::initialised(&model, &[plan], &local(), 7, Vec::new()).unwrap();
    let members = [&topk, &stored(&model, &fixture)];
    let found = evaluate(&model, &members, &[fixture["tokens"].copy()], &mut |_| {}).unwrap();
    let spread = |found: &Evaluation| found.sites[&site(FIRST)].get("l0_std");
    near(found[0].values.get("l0"), 5.0, 0.0);
    near(spread(&found[0]), 0.0, 0.0);
    let l0 = fixture["c"].reshape([-1, 48]).gt(0.0).sum_dim_intlist(
        [1_i64].as_slice(),
        false,
        Kind::Double,
    );
    near(spread(&found[1]), l0.std(false).double_value(&[]), 1e-9);
}

/// What is declared is what is measured, in every scope.
#[test]
fn every_metric_is_declared() {
    let model = SplicedModel::new(language_model(Kind::Double));
    let fixture = fixture();
    let member = stored(&model, &fixture);
    let found = evaluate(&model, &[&member], &[fixture["tokens"].copy()], &mut |_| {}).unwrap();
    let Evaluation { values, sites, downstream, .. } = &found[0];
    for (scope, values) in [
        (Scope::Run, values),
        (Scope::Site, &sites[&site(FIRST)]),
        (Scope::Downstream, &downstream[&site(SECOND)]),
    ] {
        let declared: BTreeSet<String> = metrics()
            .into_iter()
            .filter(|metric| metric.scope == scope)
            .map(|metric| metric.name.into_owned())
            .collect();
        let measured: BTreeSet<String> = values.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(declared, measured, "{scope:?}");
    }
}

/// A transcoder's reconstruction is compared with what it replaces, not with what it reads.
#[test]
fn a_transcoder_is_evaluated_where_it_writes() {
    let tokens = &fixture()["tokens"];
    let model = SplicedModel::new(language_model(Kind::Double));
    let (reads, writes) = (site("blocks.1.mlp.hook_in"), site("blocks.1.hook_mlp_out"));
    let plan = DictionaryPlan { reads, skip: true, ..DictionaryPlan::sae(writes, 48) };
    let member = Member::initialised(&model, &[plan], &local(), 7, Vec::new()).unwrap();
    let found = evaluate(&model, &[&member], &[tokens.copy()], &mut |_| {}).unwrap().remove(0);
    let clean = model.clean_pass(tokens, &BTreeSet::from([reads, writes]), false).unwrap();
    let read = clean.activation(reads).unwrap();
    let made = member.dictionaries()[0].dictionary.forward(read).unwrap().reconstruction;
    let expected = (made - clean.activation(writes).unwrap()).square().mean(Kind::Double);
    near(found.sites[&writes].get("mse"), expected.double_value(&[]), 1e-9);
}

/// The model and the SAE's products in bfloat16 tell the same, as far as 8 bits of a number go.
#[test]
fn bfloat16_is_close() {
    let tokens = &fixture()["tokens"];
    let found = |lm: Transformer| {
        let model = SplicedModel::new(lm);
        let member = Member::random(&model, &[site(FIRST)], 48, &local(), 7).unwrap();
        evaluate(&model, &[&member], &[tokens.copy()], &mut |_| {}).unwrap().remove(0)
    };
    let full = found(language_model(Kind::Float));
    let low = found(language_model(Kind::Float).into_bfloat16().unwrap());
    for (name, bound) in [("ce_spliced", 0.01), ("kl", 0.05)] {
        let full = full.values.get(name);
        near(full, low.values.get(name), bound * full);
    }
    let variance = |found: &Evaluation| found.sites[&site(FIRST)].get("explained_variance");
    near(variance(&full), variance(&low), 0.02);
}

#[test]
fn a_prompt_is_answered_three_ways() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model(Kind::Double));
    let member = stored(&model, &fixture);
    let tokens = fixture["tokens"].narrow(0, 0, 1);
    let plain = try_prompt(&model, &member, &[], &tokens, 5).unwrap();
    let feature = plain.sites[0].tokens[2][0].0;
    let edit = [FeatureEdit::ablation(site(FIRST), feature)];
    let found = try_prompt(&model, &member, &edit, &tokens, 5).unwrap();
    assert_eq!((&found.sites, found.next.len()), (&plain.sites, tokens.numel()));
    // The KL divergence of an evaluation is the mean of these.
    let whole = evaluate(&model, &[&member], &[tokens.copy()], &mut |_| {}).unwrap();
    let mean = found.next.iter().map(|next| next.kl_spliced).sum::<f64>() / tokens.numel() as f64;
    near(mean, whole[0].values.get("kl"), 1e-9);
    for (next, before) in found.next.iter().zip(&plain.next) {
        assert_eq!((&next.original, &next.spliced), (&before.original, &before.spliced));
        assert!(before.edited.is_empty() && before.kl_edited.is_none());
        let sums: f32 = next.spliced.iter().map(|likely| likely.probability).sum();
        assert!(next.spliced.is_sorted_by(|a, b| a.probability >= b.probability) && sums <= 1.0);
        let sizes = next.changes.iter().map(|change| (change.after - change.before).abs());
        assert!(sizes.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b));
    }
    // Attention looks back alone: before the feature is active, nothing changes.
    let first = plain.sites[0]
        .tokens
        .iter()
        .position(|active| active.iter().any(|(own, _)| *own == feature))
        .unwrap();
    for (place, next) in found.next.iter().enumerate() {
        let kl_edited = next.kl_edited.unwrap();
        let change = (kl_edited - next.kl_spliced).abs();
        assert!(if place < first { change < 1e-12 } else { place > first || change > 1e-9 });
        let of_edits = next.kl_of_edits.unwrap();
        assert!(of_edits > -1e-12 && (place < first) == (of_edits < 1e-12), "{place}: {of_edits}");
    }
}

/// Prompts of two lengths, in batches that do not divide them: the differences are those of whole logits, in the order of the prompts.
#[test]
fn logit_differences_are_those_of_the_last_token() {
    let model = SplicedModel::new(language_model(Kind::Double));
    let identity =
        Member::new(&model, vec![PlacedDictionary::sae(site(FIRST), identity(32))], &local())
            .unwrap();
    let halving = |dictionary: [Tensor; 4]| {
        Member::new(&model, vec![PlacedDictionary::sae(site(FIRST), relu(dictionary))], &local())
            .unwrap()
    };
    let eye = Tensor::eye(32, (Kind::Double, Device::Cpu));
    let zeros = |n| Tensor::zeros([n], (Kind::Double, Device::Cpu));
    let half = halving([&eye * 0.5, zeros(32), eye.copy(), zeros(32)]);
    let prompt = |length: u32, first: u32| TwoAnswers {
        tokens: (0..length).map(|place| first + place).collect(),
        answers: [first + 1, first + 2],
    };
    let prompts: Vec<TwoAnswers> = [(3, 1), (5, 2), (3, 7), (3, 4), (5, 9)]
        .map(|(length, first)| prompt(length, first))
        .into();
    let mut told = Vec::new();
    let found = logit_differences(&model, &[&identity, &half], &prompts, 2, &mut |done| {
        told.push(done);
        true
    })
    .unwrap()
    .unwrap();
    assert_eq!(told, [2, 3, 5]);
    let stopped = logit_differences(&model, &[], &prompts, 2, &mut |_| false).unwrap();
    assert_eq!(stopped, None);
    for (prompt, found) in prompts.iter().zip(&found.original) {
        let ids: Vec<i64> = prompt.tokens.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_slice(&ids).unsqueeze(0);
        let clean = model.clean_pass(&ids, &BTreeSet::from([site(FIRST)]), true).unwrap();
        let logits = model.model().logits(clean.hidden.as_ref().unwrap()).unwrap();
        let last = logits.reshape([prompt.tokens.len() as i64, -1]).get(-1);
        let [right, wrong] = prompt.answers.map(|id| last.double_value(&[i64::from(id)]));
        near(*found, right - wrong, 1e-9);
    }
    // Nothing changes with an identity, something with half of the positive part.
    for (own, original) in found.spliced[0].iter().zip(&found.original) {
        near(*own, *original, 1e-9);
    }
    assert!(
        found.spliced[1].iter().zip(&found.original).all(|(own, other)| (own - other).abs() > 1e-6)
    );
}
