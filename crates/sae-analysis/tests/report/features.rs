//! Features one by one on the page, with tokens that no page expects.

use std::collections::BTreeMap;

use sae_analysis::page::html;
use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard, Gathered, LensToken};

use super::assert_quiet;
use super::browser::{Page, Window};
use super::sample::{HOSTILE, evidence};

#[test]
fn features_are_shown_on_the_page_with_hostile_tokens() {
    let place = tempfile::tempdir().unwrap();
    let site: sae_config::Site = "blocks.2.hook_resid_pre".parse().unwrap();
    let vocabulary: Vec<String> =
        [HOSTILE, "</script><b>", "שלום", "plain", "\n"].map(str::to_owned).to_vec();
    let card = |feature: u32| FeatureCard {
        feature,
        active: 5,
        density: 0.001,
        mean: 1.0,
        max: 2.0,
        decoder_norm: None,
        encoder_bias: 0.0,
        histogram_width: 0.25,
        histogram: vec![1; 8],
        peak_tokens: vec![feature % 5],
        highest: vec![LensToken { token: 0, logit: 1.0 }],
        lowest: vec![LensToken { token: 1, logit: -1.0 }],
        near: Vec::new(),
        partners: Vec::new(),
        examples: 0..0,
    };
    let example = |feature: u32| ExampleRecord {
        feature,
        interval: None,
        peak: 2.0,
        position: 1,
        own: [0, 5],
        tokens: vec![0, 1, 2, 3, 4],
        activations: vec![0.0, 2.0, 0.5, 0.0, 0.0],
        first: 0,
        file: 0,
        row: 0,
        bytes: [0; 2],
    };
    let gathered = Gathered {
        of: BTreeMap::new(),
        compared_with: String::new(),
        tokens: 5000,
        context_length: 5,
        n_features: 40,
        data: HOSTILE.to_owned(),
        files: vec![HOSTILE.to_owned()],
        are_windows: false,
    };
    let cards: Vec<FeatureCard> = (0..40).map(card).collect();
    let examples = (0..40).map(|feature| vec![example(feature)]);
    Dashboard::write(place.path(), &gathered, &cards, examples, &vocabulary).unwrap();
    let dashboard = Dashboard::load(place.path()).unwrap().unwrap();
    let mut evidence = evidence();
    let of = (HOSTILE, &sae_analysis::Group::E2E, site);
    evidence.dashboards.add(of, &dashboard, 1 << 20).unwrap();
    let page_text = html(&evidence);
    for window in [Window::default(), Window { width: 390, height: 800, scripts: true }] {
        let mut page = Page::open(&page_text, window);
        assert_eq!(page.text("document.querySelector('.card h3').textContent"), "Feature 0");
        let tokens = "[...document.querySelectorAll('.example .token')].map(x => x.textContent)";
        assert_eq!(page.eval(tokens)[1], "</script><b>");
        assert_eq!(page.count(".example .active"), 2);
        page.eval("document.querySelectorAll('.row')[4].click()");
        assert_eq!(page.text("document.querySelector('.card h3').textContent"), "Feature 4");
        assert_eq!(page.text("typeof window.hacked"), "undefined");
        let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert!(page.number(wide) <= 0.0);
        assert_quiet(&mut page);
    }
    // A page holds what it has room for.
    let mut small = sae_analysis::dashboards::Dashboards::default();
    small.add(of, &dashboard, 4000).unwrap();
    evidence.dashboards = small;
    assert!(html(&evidence).len() + 10_000 < page_text.len());
}
