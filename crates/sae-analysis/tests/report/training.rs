//! Training curves on the page: a choice of steps, smoothing, runs.

use std::collections::BTreeMap;

use sae_analysis::page::html;
use sae_analysis::training::Training;
use serde_json::json;

use super::assert_quiet;
use super::browser::{Page, Window};
use super::sample::evidence;

/// Of each type a run over 200 steps, whose loss falls and whose L0 is noisy.
fn trained() -> Vec<Training> {
    let steps: Vec<u64> = (1..=200).map(|step| 10 * step).collect();
    let of = |(place, run): (usize, &sae_analysis::evidence::RunFacts)| {
        let loss = |step: &u64| Some((place as f64 + 1.0) / (*step as f64).sqrt());
        let l0 = |step: &u64| Some(50.0 + 10.0 * ((step * 7919) % 13) as f64);
        Training {
            run: run.run.clone(),
            group: run.group.clone(),
            steps: steps.clone(),
            values: BTreeMap::from([
                ("loss".to_owned(), steps.iter().map(loss).collect()),
                ("l0".to_owned(), steps.iter().map(l0).collect()),
            ]),
        }
    };
    evidence().runs.iter().take(3).enumerate().map(of).collect()
}

#[test]
fn steps_are_chosen_and_smoothed() {
    let mut evidence = evidence();
    evidence.training = trained();
    let mut page = Page::open(&html(&evidence), Window::default());
    page.show("#training");
    let line = "document.querySelector('#training .chart:not(.unchosen) .line').getAttribute('d')";
    let points = |page: &mut Page| page.text(line).split(['M', 'L']).count() - 1;
    assert_eq!(points(&mut page), 200);
    let set = |page: &mut Page, place: usize, value: u64| {
        page.eval(&format!(
            "(() => {{ const input = document.querySelectorAll('.steps input')[{place}]; input.value = {value};
             input.dispatchEvent(new Event('input')); }})()"
        ));
    };
    set(&mut page, 0, 1000);
    set(&mut page, 1, 1500);
    assert_eq!(points(&mut page), 51);
    // Ticks and what is said are of the range that is shown.
    let ticks = "[...document.querySelectorAll('#training svg')[0].querySelectorAll('.tick[text-anchor=middle]')].map(x => Number(x.textContent))";
    let ticks: Vec<f64> = serde_json::from_value(page.eval(ticks)).unwrap();
    assert!(
        ticks.len() > 2 && ticks.iter().all(|tick| (970.0..=1530.0).contains(tick)),
        "{ticks:?}"
    );
    // A drag across the chart: its second half.
    page.eval(
        "(() => { const svg = document.querySelector('#training svg'); svg.setPointerCapture = () => {};
         const [, , , left, right] = svg.dataset.x.split(' ').map(Number);
         const at = (x) => new DOMPoint(x, 100).matrixTransform(svg.getScreenCTM());
         for (const [kind, x] of [['pointerdown', (left + right) / 2], ['pointermove', right - 9], ['pointerup', right]])
           svg.dispatchEvent(new PointerEvent(kind, { clientX: at(x).x, clientY: at(x).y, button: 0, pointerType: 'mouse' })); })()",
    );
    let shown = points(&mut page);
    assert!((22..=30).contains(&shown), "{shown}");
    // The click that the browser makes of a drag opens no run.
    page.eval("document.querySelector('#training svg').dispatchEvent(new MouseEvent('click', { bubbles: true, clientX: 500, clientY: 300 }))");
    assert_eq!(page.eval("document.getElementById('details').open"), json!(false));
    page.eval("document.querySelector('.steps button').click()");
    assert_eq!(points(&mut page), 200);
    // Means of 41 steps go up and down less.
    let spread = "(() => { const ys = [...document.querySelectorAll('#training .chart')[1].querySelector('.line').getAttribute('d')
        .matchAll(/ (-?[\\d.]+)/g)].map(x => Number(x[1])); const svg = document.querySelectorAll('#training svg')[1];
        const [, low, high, bottom, top] = svg.dataset.y.split(' ').map(Number);
        const values = ys.map(y => low + (y - bottom) / (top - bottom) * (high - low));
        return Math.max(...values) - Math.min(...values); })()";
    let rough = page.number(spread);
    set(&mut page, 2, 20);
    assert!(page.number(spread) < 0.5 * rough, "{} {rough}", page.number(spread));
    // A run that is hidden is hidden everywhere.
    let before = page.count("#training .line");
    page.eval("document.querySelector('.steps .toggles button').click()");
    assert!(page.count("#training .line") < before);
    assert_quiet(&mut page);
}
