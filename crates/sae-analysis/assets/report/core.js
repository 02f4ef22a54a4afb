// What all parts of the page share: the evidence, elements, numbers as text, what is shown, and who redraws.

/** The evidence; null only if it could not be written. */
const data = JSON.parse(document.getElementById("data").textContent);

/** What stands where there is no number. */
const NONE = "–";

// ---- elements. Text from the data only ever becomes text nodes and attribute values.

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...[children ?? []].flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; attributes `onclick` and the like are listeners. */
const element = (name, attributes, children) => set(document.createElement(name), attributes, children);

/** An SVG element. */
const shape = (name, attributes, children) =>
  set(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// ---- numbers

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** With so many decimals. */
const fixed = (value, decimals) => (isNumber(value) ? value.toFixed(decimals) : NONE);

/** With four significant digits. */
function significant(value) {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(3);
  const exponent = size === 0 ? 0 : Math.floor(Math.log10(size));
  return value.toFixed(Math.max(0, 3 - exponent));
}

/** As it is: counts, coefficients. */
const plain = (value) => (isNumber(value) ? String(value) : NONE);

/** [name, value] of a point, as tips and details say it. */
const metrics = (point) => [
  ["L0", fixed(point.l0, 1)],
  ["Alive features", `${plain(point.alive)} of ${plain(point.n_features)}`],
  ["CE increase", fixed(point.ce_increase, 4)],
  ["KL", fixed(point.kl, 4)],
  ["Explained variance", fixed(point.explained_variance, 3)],
  ["MSE", significant(point.mse)],
  ["CE recovered", fixed(point.ce_recovered, 3)],
  ["Top-1 agreement", fixed(point.top1_agreement, 3)],
  ["Tokens trained on", plain(point.training_tokens)],
];

// ---- what is shown

/** Everything that a reader can change. Sets hold what is hidden. */
const state = {
  types: new Set(),
  sites: new Set(),
  /** By key: the values that are hidden. */
  facets: new Map(),
  by: data?.match_by ?? "ce",
};

const runs = new Map((data?.runs ?? []).map((run, place) => [run.run, { ...run, place }]));

/** Every site's place in the order of computation. */
const places = new Map((data?.sites ?? []).map((site, place) => [site, place]));

/** The sites that there are points of, in the order of computation. */
const sites = [...new Set((data?.points ?? []).map((point) => point.site))].sort(bySite);

/** The types that there are runs of, in the order in which they are always named. */
const types = data?.types ?? [];

/** The order of computation. */
function bySite(a, b) {
  return places.get(a) - places.get(b);
}

const typeOf = (run) => runs.get(run)?.type ?? "other";
const style = (type) => data.styles[type] ?? data.styles.other;

/** Whether the filters show a run. */
function showsRun(name) {
  const run = runs.get(name);
  if (!run) return true;
  if (state.types.has(run.type)) return false;
  return [...state.facets].every(([key, hidden]) => !hidden.has(run.facets[key] ?? NONE));
}

/** Whether the filters show what has a run and a site. */
const shows = ({ run, site }) => !state.sites.has(site) && showsRun(run);

/** The items whose run is matched at their site; of a site without any, all. */
function matched(items, by) {
  const isMatched = ({ site, run }) =>
    data.matches.some((found) => found.by === by && found.site === site && found.points.some((point) => point.run === run));
  const kept = items.filter(isMatched);
  const without = new Set(items.map((item) => item.site).filter((site) => !kept.some((item) => item.site === site)));
  return items.filter((item) => without.has(item.site) || isMatched(item));
}

/** The items of each visible site: [site, items], in order. */
const bySites = (items) =>
  [...new Set(items.map((item) => item.site))]
    .sort(bySite)
    .filter((site) => !state.sites.has(site))
    .map((site) => [site, items.filter((item) => item.site === site)]);

// ---- views: places for charts. Controls are made once; charts are drawn anew whenever what is shown changes: at once
// where they can be seen or nearly so, the others when they come near.

const views = new Map();

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const found = views.get(target);
      found.near = isIntersecting;
      if (found.near && found.stale) found.draw();
    }
  },
  { rootMargin: "600px" },
);

/** A view where the page has a place of this name. `controls(bar)` is called once, `draw(host)` at every change. */
function view(name, { controls, draw }) {
  const place = document.querySelector(`[data-view="${name}"]`);
  if (!place || !data) return;
  const bar = element("div", { class: "controls" });
  const host = element("div", { class: "charts" });
  place.append(bar, host);
  if (controls) controls(bar);
  if (draw) {
    const found = { near: true, stale: true };
    found.draw = () => {
      found.stale = false;
      host.replaceChildren();
      draw(host);
    };
    views.set(place, found);
    watcher.observe(place);
  }
}

const afterChanges = [];

/** Draws all that is out of date; paper shows everything. */
function catchUp() {
  for (const found of views.values()) if (found.stale) found.draw();
}

/** What is shown has changed. */
function redraw() {
  for (const found of views.values()) {
    found.stale = true;
    if (found.near) found.draw();
  }
  for (const then of afterChanges) then();
}

let radioGroups = 0;

/** One of several choices: `choices` are [value, words]; all groups of one `key` stay the same. */
function choose(bar, words, choices, current, change, key) {
  const name = `choice-${radioGroups++}`;
  const inputs = choices.map(([value, text]) => {
    const input = element("input", {
      type: "radio",
      name,
      value,
      "data-choice": key,
      onchange: () => {
        for (const other of document.querySelectorAll(`input[data-choice="${key}"]`)) {
          other.checked = other.value === String(value);
        }
        change(value);
        redraw();
      },
    });
    input.checked = value === current;
    return element("label", {}, [input, element("span", {}, text)]);
  });
  bar.append(
    element("fieldset", { class: "choice" }, [element("legend", {}, words), element("div", {}, inputs)]),
  );
}

/** The choice of what runs are matched by, the same wherever it stands. */
const chooseMatch = (bar) =>
  choose(
    bar,
    "Runs matched by",
    [["ce", "CE increase"], ["l0", "L0"], ["alive", "alive features"]],
    state.by,
    (by) => (state.by = by),
    "by",
  );
