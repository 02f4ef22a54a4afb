//! The report in a browser: what it shows is what the evidence says, and it works, for a reader with a mouse, a keyboard,
//! a phone, a dark screen, a printer, or no scripts. Needs Chromium on the PATH.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod browser;
mod features;
mod sample;
#[path = "../support/mod.rs"]
mod support;
mod training;

use std::collections::BTreeMap;

use browser::{Page, Window};
use sae_analysis::page::html;
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
            point.run.clone(),
            point.group.to_string(),
            point.site.to_string(),
            point.coeff.to_string(),
            point.seed.to_string(),
            format!("{:.1}", point.l0),
            point.alive.to_string(),
            format!("{:.4}", point.ce_increase),
            if point.kl.is_finite() { format!("{:.4}", point.kl) } else { "–".to_owned() },
            format!("{:.3}", point.explained_variance),
        ];
        assert_eq!(shown[..expected.len()], expected, "{}", point.run);
    }
    // Every run in both panels of its site, and said in words with its numbers.
    assert_eq!(page.count("#frontier .chart"), 4);
    for point in points {
        let selector = format!("#frontier .point[data-run='{}']", point.run);
        assert_eq!(page.count(&selector), 2, "{}", point.run);
        let said = page.text(&format!("document.querySelector({}).ariaLabel", json!(selector)));
        for part in said_of(point) {
            assert!(said.contains(&part), "{said:?} lacks {part:?}");
        }
    }
    // Ratios, with their ranges.
    let summary = &evidence.frontier.summary[0];
    let row = "document.querySelector('#findings tbody tr').innerText";
    let ratio = summary.l0_at_equal_ce;
    let (row, [low, high]) = (page.text(row), ratio.range.unwrap());
    let [least, greatest] = ratio.spread.unwrap();
    let parts = [
        format!("{:.2} ×", ratio.mean.unwrap()),
        format!("{low:.3} to {high:.3}"),
        format!("{least:.2} to {greatest:.2} ×"),
    ];
    for part in parts {
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
                ("CE increase", "ce_increase"),
                ("KL", "kl"),
                ("expl. var.", "explained_variance"),
                ("MSE", "mse"),
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
        format!("Type: {}", point.group),
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
    let script =
        "[...document.querySelector('#frontier .chart').querySelectorAll('.point')].map(point =>
        [point.dataset.run, ...point.dataset.at.split(' ').map(Number)])";
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
        assert!((share(*x, left.1, right.1) - l0).abs() < 2e-3, "{run}");
        assert!((share(*y, low.2, high.2) - ce).abs() < 2e-3, "{run}");
    }
}

#[test]
fn toggles_hide_curves_points_and_rows() {
    let mut page = sample();
    let curve = "#frontier .series[data-type='e2e+ds'] .line";
    let (curves, points) = (page.count(curve), page.count("#frontier .point"));
    let rows = page.count("#runs tbody tr");
    assert_eq!((curves, points, rows), (4, 96, 48));
    page.click("[data-toggle-type='e2e+ds']");
    assert_eq!(page.count(curve), 0);
    assert_eq!(page.count("#frontier .point"), 64);
    assert_eq!(page.count("#runs tbody tr"), 32);
    assert_eq!(page.count("#matches tr[data-type='e2e+ds']"), 0);
    let pressed = "document.querySelector(\"[data-toggle-type='e2e+ds']\").ariaPressed";
    assert_eq!(page.text(pressed), "false");
    page.click("[data-toggle-site='blocks.2.hook_resid_pre']");
    assert_eq!(page.count("#frontier .chart"), 2);
    // The seed is a facet; a key that follows from the type is none.
    assert_eq!(page.count("[data-toggle-facet]"), 2);
    page.click("[data-toggle-facet='sae.seed'][data-facet-value='1']");
    assert_eq!(page.count("#frontier .point"), 16);
    assert_eq!(page.count("#runs tbody tr"), 8);
    page.click("[data-toggle-facet='sae.seed'][data-facet-value='1']");
    page.click("[data-toggle-site='blocks.2.hook_resid_pre']");
    page.click("[data-toggle-type='e2e+ds']");
    assert_eq!(page.count(curve), curves);
    assert_eq!(page.count("#frontier .point"), points);
    // Nothing to show is no error.
    for variant in ["local", "e2e", "e2e+ds"] {
        page.click(&format!("[data-toggle-type='{variant}']"));
    }
    assert_eq!(page.count("#frontier .point"), 0);
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
    let curve = "#frontier .line";
    let curves = page.count(curve);
    // Two sites, two charts each, two types.
    assert_eq!(curves, 8);
    for name in ["topk local", "topk e2e"] {
        page.click(&format!("[data-toggle-type='{name}']"));
    }
    assert_eq!(page.count(curve), 0);
    assert_eq!(page.count("#frontier .point"), 0);
    assert_quiet(&mut page);
}

#[test]
fn a_click_on_a_point_opens_its_run() {
    let evidence = evidence();
    let mut page = sample();
    let facts = &evidence.runs[5];
    let point = format!("#frontier .point[data-run='{}'] .marker", facts.run);
    page.point_at(&point);
    assert!(page.text("document.getElementById('tip').innerText").contains(&facts.run));
    page.click(&point);
    assert_eq!(page.eval("document.getElementById('details').open"), true);
    assert_eq!(page.text("document.querySelector('#details h2').textContent"), facts.run);
    assert_eq!(page.text("document.querySelector('#details pre').textContent"), facts.config);
    let metrics = page.text("document.querySelector('#details dl').innerText");
    let ce = format!("{:.4}", evidence.frontier.points[5].ce_increase);
    assert!(metrics.contains(&ce), "{metrics}");
    page.press("Escape");
    assert_eq!(page.eval("document.getElementById('details').open"), false);
    // By keyboard: to the chart, to the next run, in.
    page.eval("document.querySelector('#frontier .point[tabindex=\"0\"]').focus()");
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
    let column = "#runs thead th:nth-child(9) button";
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
    let sorted = page.text("document.querySelector('#runs thead th:nth-child(9)').ariaSort");
    assert_eq!(sorted, "descending");
    let shown = |page: &mut Page| {
        ["ce", "l0"].map(|by| page.count(&format!("#matches [data-value={by}] table")))
    };
    assert_eq!(shown(&mut page), [1, 0]);
    choose(&mut page, "by", "l0");
    assert_eq!(shown(&mut page), [0, 1]);
    // The same choice stands in the section that has runs matched by any.
    assert_eq!(page.text("document.querySelector('#geometry select').value"), "l0");
    let matched = "#geometry .chart[data-value=l0]";
    assert!(page.count(matched) > 0 && page.count("#geometry .chart[data-value=ce]") == 0);
    choose(&mut page, "axes", "logarithmic");
    assert_eq!(page.count("#frontier .chart[data-value=logarithmic]"), 4);
    assert_eq!(page.count("#frontier .chart"), 4);
    assert_quiet(&mut page);
}

/// Chooses a value of one of several.
fn choose(page: &mut Page, key: &str, value: &str) {
    page.eval(&format!(
        "(() => {{ const pick = document.querySelector('select[data-choose={key}]'); pick.value = {};
         pick.dispatchEvent(new Event('change')); }})()",
        json!(value)
    ));
}

#[test]
fn what_is_pointed_at_is_said() {
    let mut page = sample();
    let tip = "document.getElementById('tip').innerText";
    // A dot of a cloud, by its feature.
    choose(&mut page, "pair", "blocks.4.hook_resid_pre: local and e2e");
    let cloud = "#umap .chart:not(.unchosen) .cloud";
    page.show(cloud);
    let script = format!(
        "(() => {{ const cloud = document.querySelector({}); const svg = cloud.ownerSVGElement;
         const [x, y] = cloud.getAttribute('d').slice(1).split('h')[0].split(' ').map(Number);
         const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
         svg.dispatchEvent(new PointerEvent('pointermove', {{ clientX: at.x, clientY: at.y }})); return true; }})()",
        json!(cloud)
    );
    page.eval(&script);
    assert!(page.text(tip).contains("Feature"), "{}", page.text(tip));
    // A line, by its numbers.
    let line = "#activations .line";
    page.show(line);
    let script = format!(
        "(() => {{ const line = document.querySelector({}); const svg = line.ownerSVGElement;
         const [x, y] = line.getAttribute('d').slice(1).split('L')[3].split(' ').map(Number);
         const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
         svg.dispatchEvent(new PointerEvent('pointermove', {{ clientX: at.x, clientY: at.y }})); return true; }})()",
        json!(line)
    );
    page.eval(&script);
    let said = page.text(tip);
    // The norm at position 3, as the evidence has it.
    let norm = evidence().activations.values().next().unwrap().model.norm[3];
    assert!(said.contains("original") && said.contains("Position in the window\n3"), "{said}");
    let told = said.lines().rev().find_map(|line| line.parse::<f64>().ok()).unwrap();
    assert!((told / norm - 1.0).abs() < 0.02, "{said}, expected {norm}");
    assert_quiet(&mut page);
}

/// On a desk every table is seen whole; on a phone it scrolls, and says so by a shadow.
#[test]
fn tables_fit_a_desk_and_scroll_on_a_phone() {
    let page_text = html(&evidence());
    for scheme in ["light", "dark"] {
        let mut page = Page::open(&page_text, Window { width: 1400, height: 900, scripts: true });
        page.emulate("screen", scheme);
        page.eval(
            "for (const details of document.querySelectorAll('details')) details.open = true",
        );
        let wide =
            "[...document.querySelectorAll('.wide')].filter(x => x.scrollWidth > x.clientWidth + 1)
            .map(x => x.querySelector('caption').textContent)";
        assert_eq!(page.eval(wide), json!([]), "{scheme}");
        let cut = "[...document.querySelectorAll('figcaption, caption, h2')].filter(x => x.scrollWidth > x.clientWidth + 1).length";
        assert_eq!(page.eval(cut), json!(0));
        page.resize(390, 844);
        let scrolls = "(() => { const x = document.querySelector('#runs .wide');
            return x.scrollWidth > x.clientWidth && getComputedStyle(x).backgroundImage.includes('radial-gradient'); })()";
        assert_eq!(page.eval(scrolls), true);
        assert_eq!(page.eval(cut), json!(0));
        // Letters of charts stay readable.
        let letters = "(() => { const tick = document.querySelector('.panel .tick');
            return tick.getBoundingClientRect().height; })()";
        assert!(page.number(letters) > 8.5, "{}", page.number(letters));
        assert_quiet(&mut page);
    }
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
    page.point_at("#frontier .point .marker");
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
        page.resize(1280, 900);
        assert!(page.number("document.querySelector('.chart svg').clientWidth") > 400.0);
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
    let line = "document.querySelector('.series[data-type=local] .line').getAttribute('stroke')";
    assert_eq!(page.text(line), "#0072b2");
    page.emulate("print", "dark");
    assert_eq!(page.text(colours), light);
    assert_eq!(page.count(".filters, .pick, nav, #theme"), 0);
    assert_eq!(page.count(".configuration pre"), evidence().runs.len());
    assert_eq!(page.count("#matches table"), 3);
    assert_quiet(&mut page);
}

#[test]
fn tables_need_no_script() {
    let evidence = evidence();
    let html = html(&evidence);
    let mut page = Page::open(&html, Window { scripts: false, ..Window::default() });
    assert!(page.count("#frontier .chart .point") >= 2 * evidence.frontier.points.len());
    assert_eq!(page.count("#runs tbody tr"), evidence.frontier.points.len());
    assert_eq!(page.count("#matches table"), 3);
    let text = page.text("document.body.innerText");
    for part in ["at equal CE increase", &evidence.notes[0]] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(page.count("button, select, #filters"), 0);
}

#[test]
fn what_is_not_there_is_said_once() {
    let mut page = Page::open(&html(&bare()), Window::default());
    let text = page.text("document.querySelector('#notes').innerText");
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
    json!(["frontier", "findings", "runs", "configurations", "notes"])
}

#[test]
fn facets_of_the_frontier_have_panels_of_their_own() {
    let evidence = by_lr();
    let mut page = Page::open(&html(&evidence), Window::default());
    // Two sites, two learning rates, two quantities.
    assert_eq!(page.count("#frontier .chart"), 8);
    assert_eq!(page.count("#frontier .point"), 2 * evidence.frontier.points.len());
    let titles = page.text("document.querySelector('#frontier').innerText");
    assert!(titles.contains("blocks.4.hook_resid_pre, train.lr = 0.001"), "{titles}");
    let headings = page.text("document.querySelector('#findings').innerText");
    assert!(headings.contains("train.lr = 0.0005"), "{headings}");
    page.click("[data-toggle-facet='train.lr'][data-facet-value='0.0005']");
    assert_eq!(page.count("#frontier .chart"), 4);
    assert_quiet(&mut page);
}
