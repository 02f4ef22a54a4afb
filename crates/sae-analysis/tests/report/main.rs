//! The report in a browser: what it shows is what the evidence says, and it works, for a reader with a mouse, a keyboard,
//! a phone, a dark screen, a printer, or no scripts. Needs Chromium on the PATH.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod browser;
mod sample;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use browser::{Page, Window};
use sae_analysis::report::html;
use sae_analysis::{Point, analyse_with};
use sae_config::Variant;
use sae_record::layout;
use sample::{HOSTILE, bare, by_lr, evidence, hostile};
use serde_json::{Value, json};

fn sample() -> Page {
    Page::open(&html(&evidence()), Window::default())
}

fn assert_quiet(page: &mut Page) {
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The texts of a row of the table of all runs.
fn row_of(page: &mut Page, run: &str) -> Vec<String> {
    let script = format!(
        "[...document.querySelector(`#runs tr[data-run={}]`).cells].map(cell => cell.textContent)",
        json!(run)
    );
    serde_json::from_value(page.eval(&script)).unwrap()
}

#[test]
fn tables_and_charts_show_the_numbers_of_the_evidence() {
    let evidence = evidence();
    let mut page = sample();
    let points = &evidence.frontier.points;
    assert_eq!(page.count("#runs tbody tr"), points.len());
    for point in points {
        let shown = row_of(&mut page, &point.run);
        let expected = [
            point.site.to_string(),
            point.variant.to_string(),
            point.run.clone(),
            point.coeff.to_string(),
            point.seed.to_string(),
            format!("{:.1}", point.l0),
            point.alive.to_string(),
            point.n_features.to_string(),
            format!("{:.4}", point.ce_increase),
            if point.kl.is_finite() { format!("{:.4}", point.kl) } else { "–".to_owned() },
            format!("{:.3}", point.explained_variance),
        ];
        assert_eq!(shown[..expected.len()], expected, "{}", point.run);
    }
    // Every run in both panels of its site, and said in words with its numbers.
    assert_eq!(page.count("[data-view=frontiers] .chart"), 4);
    for point in points {
        let selector = format!("[data-view=frontiers] .point[data-run='{}']", point.run);
        assert_eq!(page.count(&selector), 2, "{}", point.run);
        let said = page.text(&format!("document.querySelector({}).ariaLabel", json!(selector)));
        for part in said_of(point) {
            assert!(said.contains(&part), "{said:?} lacks {part:?}");
        }
    }
    // Ratios, with their ranges.
    let summary = &evidence.frontier.summary[0];
    let row = "document.querySelector('#frontiers tbody tr').innerText";
    let (row, [low, high]) = (page.text(row), summary.ce_at_equal_l0.range.unwrap());
    for part in
        [format!("{:.2}", summary.l0_at_equal_ce.mean.unwrap()), format!("{low:.1} to {high:.1}")]
    {
        assert!(row.contains(&part), "{row:?} lacks {part:?}");
    }
    assert_quiet(&mut page);
}

/// A column's name on the page and in the CSV.
type Columns = &'static [(&'static str, &'static str)];

/// Of an analysed sweep: the numbers in the page's tables are those in the CSVs beside it, to the last digit that either
/// has.
#[test]
fn the_page_and_the_csvs_beside_it_agree() {
    let types = [Variant::Local, Variant::E2e, Variant::E2eDs];
    let sweep = support::Sweep::of(&types, &[0, 1], &[1.0, 2.0, 4.0]);
    sweep.write();
    let written = analyse_with(sweep.path(), &support::quick(), &mut |_| {}).unwrap();
    let mut page =
        Page::open(&std::fs::read_to_string(&written.report).unwrap(), Window::default());
    // What names a row, and its numbers.
    let compared: [(&str, &str, Columns, Columns); 2] = [
        (
            "frontier",
            "#runs table",
            &[("site", "site"), ("type", "type"), ("run", "run")],
            &[
                ("L0", "l0"),
                ("alive", "alive"),
                ("of", "n_features"),
                ("CE increase", "ce_increase"),
                ("KL", "kl"),
                ("expl. var.", "explained_variance"),
                ("MSE", "mse"),
                ("tokens", "training_tokens"),
            ],
        ),
        (
            "downstream",
            "#downstream table",
            &[("site", "site"), ("run", "run"), ("measured at", "later_site")],
            &[("MSE", "mse"), ("expl. var.", "explained_variance")],
        ),
    ];
    for (file, table, names, numbers) in compared {
        let expected = csv(&layout::analysis(sweep.path(), file, "csv"));
        let found = rows(&mut page, table);
        assert!(found.len() > 5, "{file}");
        assert_eq!(found.len(), expected.len(), "{file}");
        for row in &found {
            let same = |line: &&BTreeMap<String, String>| {
                names.iter().all(|(shown, name)| line[*name] == row[*shown])
            };
            let line = expected.iter().find(same).unwrap_or_else(|| panic!("{file} lacks {row:?}"));
            for (shown, name) in numbers {
                let number = |text: &str| text.parse::<f64>().unwrap();
                let (a, b) = (number(&row[*shown]), number(&line[*name]));
                assert!((a - b).abs() <= 1e-12 * b.abs(), "{file}, {name}: {a} {b}");
            }
        }
    }
    assert_quiet(&mut page);
}

/// The lines of a CSV without quotes, by column.
fn csv(path: &std::path::Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let head: Vec<String> = lines.next().unwrap().collect();
    lines.map(|line| head.iter().cloned().zip(line).collect()).collect()
}

/// The rows of a table on the page, by column: numbers as they are, else what is shown.
fn rows(page: &mut Page, table: &str) -> Vec<BTreeMap<String, String>> {
    let script = format!(
        "(() => {{ const table = document.querySelector({});
         const head = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
         return [...table.tBodies[0].rows].map(row => Object.fromEntries(
             [...row.cells].map((cell, i) => [head[i], cell.dataset.value ?? cell.textContent]))); }})()",
        json!(table)
    );
    serde_json::from_value(page.eval(&script)).unwrap()
}

fn said_of(point: &Point) -> [String; 5] {
    let kl =
        if point.kl.is_finite() { format!("KL: {:.4}", point.kl) } else { "KL: –".to_owned() };
    [
        format!("Type: {}", point.variant),
        format!("Coefficient: {}", point.coeff),
        format!("L0: {:.1}", point.l0),
        format!("CE increase: {:.4}", point.ce_increase),
        kl,
    ]
}

/// Where a point is drawn is where its numbers are: markers against the axis, in the order of the numbers.
#[test]
fn points_stand_where_their_numbers_are() {
    let evidence = evidence();
    let mut page = sample();
    let script = "[...document.querySelector('[data-view=frontiers] .chart').querySelectorAll('.point')].map(point => {
        const target = point.querySelector('.target');
        return [point.dataset.run, Number(target.getAttribute('cx')), Number(target.getAttribute('cy'))];
    })";
    let drawn: Vec<(String, f64, f64)> = serde_json::from_value(page.eval(script)).unwrap();
    assert_eq!(drawn.len(), 24);
    let point = |run: &str| evidence.frontier.points.iter().find(|point| point.run == run).unwrap();
    // Two points fix the scale of each axis; all others have to follow it.
    let extreme = |by: fn(&Point) -> f64| {
        let mut sorted: Vec<&(String, f64, f64)> = drawn.iter().collect();
        sorted.sort_by(|a, b| by(point(&a.0)).total_cmp(&by(point(&b.0))));
        (sorted[0].clone(), sorted[sorted.len() - 1].clone())
    };
    let (left, right) = extreme(|point| point.l0);
    let (low, high) = extreme(|point| point.ce_increase);
    assert!(left.1 < right.1 && low.2 > high.2, "right is more, up is more");
    for (run, x, y) in &drawn {
        let share = |value: f64, from: f64, to: f64| (value - from) / (to - from);
        let l0 = share(point(run).l0, point(&left.0).l0, point(&right.0).l0);
        let ce = point(run).ce_increase;
        let ce = share(ce, point(&low.0).ce_increase, point(&high.0).ce_increase);
        assert!((share(*x, left.1, right.1) - l0).abs() < 1e-3, "{run}");
        assert!((share(*y, low.2, high.2) - ce).abs() < 1e-3, "{run}");
    }
}

#[test]
fn toggles_hide_curves_points_and_rows() {
    let mut page = sample();
    let curve = "#frontiers .line[data-type='e2e+ds']";
    let (curves, points) = (page.count(curve), page.count("#frontiers .point"));
    let rows = page.count("#runs tbody tr");
    assert_eq!((curves, points, rows), (4, 96, 48));
    page.click("[data-toggle-type='e2e+ds']");
    assert_eq!(page.count(curve), 0);
    assert_eq!(page.count("#frontiers .point"), 64);
    assert_eq!(page.count("#runs tbody tr"), 32);
    assert_eq!(page.count("#matches tr[data-type='e2e+ds']"), 0);
    let pressed = "document.querySelector(\"[data-toggle-type='e2e+ds']\").ariaPressed";
    assert_eq!(page.text(pressed), "false");
    page.click("[data-toggle-site='blocks.2.hook_resid_pre']");
    assert_eq!(page.count("#frontiers .chart"), 2);
    // The seed is a facet; a key that follows from the type is none.
    assert_eq!(page.count("[data-toggle-facet]"), 2);
    page.click("[data-toggle-facet='sae.seed'][data-value='1']");
    assert_eq!(page.count("#frontiers .point"), 16);
    assert_eq!(page.count("#runs tbody tr"), 8);
    page.click("[data-toggle-facet='sae.seed'][data-value='1']");
    page.click("[data-toggle-site='blocks.2.hook_resid_pre']");
    page.click("[data-toggle-type='e2e+ds']");
    assert_eq!(page.count(curve), curves);
    assert_eq!(page.count("#frontiers .point"), points);
    // Nothing to show is no error.
    for variant in ["local", "e2e", "e2e+ds"] {
        page.click(&format!("[data-toggle-type='{variant}']"));
    }
    assert_eq!(page.count("#frontiers .point"), 0);
    assert_quiet(&mut page);
}

/// Types that are not the paper's have curves and toggles too, and sites between the blocks stand in their order.
#[test]
fn other_architectures_are_drawn_as_the_papers_are() {
    let mut sweep = support::Sweep::empty(24, 6);
    for variant in [Variant::Local, Variant::E2e] {
        for k in [4, 8, 16] {
            let mut config = support::config(variant, f64::from(k), 0, 4.0);
            config.sae.architecture =
                serde_json::from_str(&format!(r#"{{"topk": {{"k": {k}}}}}"#)).unwrap();
            sweep.add(&format!("{variant}-{k}"), config);
        }
    }
    sweep.write();
    let written = analyse_with(sweep.path(), &support::quick(), &mut |_| {}).unwrap();
    let mut page =
        Page::open(&std::fs::read_to_string(&written.report).unwrap(), Window::default());
    let curve = "#frontiers .line";
    let curves = page.count(curve);
    // Two sites, two charts each, two types.
    assert_eq!(curves, 8);
    for name in ["topk local", "topk e2e"] {
        page.click(&format!("[data-toggle-type='{name}']"));
    }
    assert_eq!(page.count(curve), 0);
    assert_eq!(page.count("#frontiers .point"), 0);
    assert_quiet(&mut page);
}

#[test]
fn a_click_on_a_point_opens_its_run() {
    let evidence = evidence();
    let mut page = sample();
    let facts = &evidence.runs[5];
    let point = format!("#frontiers .point[data-run='{}'] .target", facts.run);
    page.point_at(&point);
    assert!(page.text("document.getElementById('tip').innerText").contains(&facts.run));
    page.click(&point);
    assert_eq!(page.eval("document.getElementById('details').open"), true);
    assert_eq!(page.text("document.querySelector('#details h2').textContent"), facts.run);
    assert_eq!(page.text("document.querySelector('#details pre').textContent"), facts.config);
    let metrics = page.text("document.querySelector('#details table').innerText");
    let ce = format!("{:.4}", evidence.frontier.points[5].ce_increase);
    assert!(metrics.contains(&ce), "{metrics}");
    page.press("Escape");
    assert_eq!(page.eval("document.getElementById('details').open"), false);
    // By keyboard: to the chart, to the next run, in.
    page.eval("document.querySelector('#frontiers .point[tabindex=\"0\"]').focus()");
    let first = page.text("document.activeElement.dataset.run");
    page.eval("scrollBy(0, 30), new Promise(done => setTimeout(done, 100))");
    assert!(page.text("document.getElementById('tip').innerText").contains(&first));
    page.press("ArrowRight");
    let second = page.text("document.activeElement.dataset.run");
    assert_ne!(first, second);
    page.press("Enter");
    assert_eq!(page.text("document.querySelector('#details h2').textContent"), second);
    page.press("Escape");
    // A link in a table does the same.
    page.click(&format!("#runs tr[data-run='{}'] a", facts.run));
    assert_eq!(page.text("document.querySelector('#details h2').textContent"), facts.run);
    assert_quiet(&mut page);
}

#[test]
fn tables_sort_and_matches_are_chosen() {
    let mut page = sample();
    let evidence = evidence();
    let column = "#runs thead th:nth-child(10) button";
    let shown = "[...document.querySelectorAll('#runs tbody tr')].map(row => row.dataset.run)";
    let by_kl = |up: bool| {
        let mut points: Vec<&Point> =
            evidence.frontier.points.iter().filter(|point| point.kl.is_finite()).collect();
        points.sort_by(|a, b| if up { a.kl.total_cmp(&b.kl) } else { b.kl.total_cmp(&a.kl) });
        points.into_iter().map(|point| point.run.clone()).collect::<Vec<_>>()
    };
    for up in [true, false] {
        page.click(column);
        let mut runs: Vec<String> = serde_json::from_value(page.eval(shown)).unwrap();
        // What is no number goes last, up and down.
        assert_eq!(runs.pop().as_deref(), Some("l4-e2e-12-s1"));
        assert_eq!(runs, by_kl(up));
    }
    let sorted = page.text("document.querySelector('#runs thead th:nth-child(10)').ariaSort");
    assert_eq!(sorted, "descending");
    assert_eq!((page.count("[data-by=ce] table"), page.count("[data-by=l0] table")), (1, 0));
    page.click("#matches input[value=l0]");
    assert_eq!((page.count("[data-by=ce] table"), page.count("[data-by=l0] table")), (0, 1));
    // The same choice stands in the section that has runs matched by any.
    assert_eq!(page.eval("document.querySelector('#geometry input[value=l0]').checked"), true);
    assert_quiet(&mut page);
}

#[test]
fn hostile_text_stays_text() {
    let evidence = hostile();
    let page_text = html(&evidence);
    assert!(!page_text.contains("<img"), "markup from data");
    let mut page = Page::open(&page_text, Window::default());
    // The parser of HTML keeps all of it but the separators' meaning.
    assert_eq!(page.text("document.querySelector('h1').textContent"), HOSTILE);
    assert_eq!(page.eval("document.scripts.length"), 2);
    assert_eq!(page.eval("document.images.length"), 0);
    let victim = &evidence.runs[0];
    page.eval("document.querySelector('#runs a.run').click()");
    assert_eq!(page.text("document.querySelector('#details h2').textContent"), victim.run);
    assert_eq!(page.text("document.querySelector('#details pre').textContent"), victim.config);
    page.press("Escape");
    page.point_at("#frontiers .point .target");
    // Every toggle of every facet, every metric: all of them hold the text somewhere.
    page.eval("for (const button of document.querySelectorAll('.toggles button')) { button.click(); button.click(); }");
    page.eval("for (const pick of document.querySelectorAll('select')) for (const option of pick.options) {
        pick.value = option.value; pick.dispatchEvent(new Event('change')); }");
    assert_eq!(page.text("typeof window.hacked"), "undefined");
    assert_eq!(page.eval("document.images.length"), 0);
    assert_quiet(&mut page);
}

#[test]
fn a_phone_scrolls_in_one_direction() {
    for html in [html(&evidence()), html(&hostile())] {
        let mut page = Page::open(&html, Window { width: 360, height: 740, scripts: true });
        page.eval(
            "for (const details of document.querySelectorAll('details')) details.open = true",
        );
        let widest =
            "Math.max(...[document.documentElement, document.body].map(x => x.scrollWidth))";
        assert!(page.number(widest) <= 360.0, "{}", page.number(widest));
        // Nothing is cut off either: what is wider scrolls in its own box.
        let outside = "[...document.querySelectorAll('main *, header *')].filter(x =>
            !x.closest('.wide, pre') && !(x instanceof SVGElement) && x.getBoundingClientRect().right > 361
            && x.getClientRects().length > 0).map(x => x.outerHTML.slice(0, 120))";
        assert_eq!(page.eval(outside), json!([]));
        assert!(page.number("document.querySelector('.chart svg').clientWidth") > 300.0);
        // Charts are drawn anew for another width.
        page.resize(1280, 900);
        page.show("[data-view=frontiers]");
        page.until(
            "(() => { const chart = document.querySelector('.chart svg');
             return chart.clientWidth > 400 && Math.abs(chart.viewBox.baseVal.width - chart.clientWidth) < 1.5; })()",
        );
        assert_quiet(&mut page);
    }
}

#[test]
fn dark_is_the_systems_or_the_readers_and_paper_is_light() {
    let mut page = sample();
    let colours =
        "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color";
    page.emulate("screen", "light");
    let light = page.text(colours);
    page.emulate("screen", "dark");
    let dark = page.text(colours);
    assert_ne!(light, dark);
    page.click("#theme");
    assert_eq!(page.text(colours), light);
    page.emulate("screen", "light");
    page.click("#theme");
    assert_eq!(page.text(colours), dark);
    // Types have the same colours everywhere.
    let line = "document.querySelector('.line[data-type=local]').getAttribute('stroke')";
    assert_eq!(page.text(line), "#0072b2");
    page.emulate("print", "dark");
    assert_eq!(page.text(colours), light);
    assert_eq!(page.count(".filters, .controls, nav, #theme"), 0);
    page.eval("dispatchEvent(new Event('beforeprint'))");
    assert_eq!(page.count(".configuration pre"), evidence().runs.len());
    assert_eq!(page.count("[data-by] table"), 3);
    assert_quiet(&mut page);
}

#[test]
fn tables_need_no_script() {
    let evidence = evidence();
    let html = html(&evidence);
    let mut page = Page::open(&html, Window { scripts: false, ..Window::default() });
    assert_eq!(page.count("svg.line, .chart"), 0);
    assert_eq!(page.count("#runs tbody tr"), evidence.frontier.points.len());
    assert_eq!(page.count("[data-by] table"), 3);
    let text = page.text("document.body.innerText");
    for part in ["Charts need JavaScript", "at equal CE increase", &evidence.notes[0]] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(page.count("button, #filters"), 0);
}

#[test]
fn what_is_not_there_is_said_once() {
    let mut page = Page::open(&html(&bare()), Window::default());
    let text = page.text("document.querySelector('.summary').innerText");
    let missing = [
        "Matched runs",
        "Downstream",
        "geometry",
        "two dimensions",
        "Activations",
        "Stability",
        "Features",
    ];
    for title in missing {
        assert!(text.contains(title), "{title}: {text}");
    }
    assert_eq!(page.eval("[...document.querySelectorAll('section')].map(x => x.id)"), sections());
    assert_eq!(
        page.eval("[...document.querySelectorAll('nav a')].map(x => x.hash.slice(1))"),
        sections()
    );
    assert_quiet(&mut page);
}

fn sections() -> Value {
    json!(["frontiers", "runs", "configurations"])
}

#[test]
fn facets_of_the_frontier_have_panels_of_their_own() {
    let evidence = by_lr();
    let mut page = Page::open(&html(&evidence), Window::default());
    // Two sites, two learning rates, two quantities.
    assert_eq!(page.count("#frontiers .chart"), 8);
    assert_eq!(page.count("#frontiers .point"), 2 * evidence.frontier.points.len());
    let titles = page.text("document.querySelector('#frontiers').innerText");
    assert!(titles.contains("blocks.4.hook_resid_pre, train.lr = 0.001"), "{titles}");
    let headings = page.text("document.querySelector('.summary').innerText");
    assert!(headings.contains("blocks.2.hook_resid_pre, train.lr = 0.0005\n"), "{headings}");
    page.click("[data-toggle-facet='train.lr'][data-value='0.0005']");
    page.show("#frontiers");
    page.until("document.querySelectorAll('#frontiers .chart').length === 4");
    assert_quiet(&mut page);
}
