// Runs in the page: hides and chooses what is shown, says the numbers of what is pointed at, sorts tables, opens runs. Charts
// are drawn already; their elements name group, run and site in attributes.

/** Runs, types and sites; null only if they could not be written. */
const data = JSON.parse(document.getElementById("data").textContent);

const runs = new Map((data?.runs ?? []).map((run, place) => [run.run, { ...run, place }]));

// ---- what is shown: sets hold what is hidden, choices what is chosen

const hidden = { types: new Set(), sites: new Set(), runs: new Set(), facets: new Map() };
const chosen = new Map();

function hidesRun(name) {
  if (hidden.runs.has(name)) return true;
  const run = runs.get(name);
  if (!run) return false;
  return hidden.types.has(run.type) || [...hidden.facets].some(([key, values]) => values.has(run.facets[key] ?? NONE));
}

/** Everything that names a group, a run or a site follows what is hidden; lines of frontiers follow their points. */
function update() {
  for (const node of all("[data-type], [data-run], [data-site]")) {
    if (node.closest("#filters, dialog")) continue;
    const { type, site, run, otherRun } = node.dataset;
    const hides = hidden.types.has(type) || hidden.sites.has(site) || hidesRun(run) || hidesRun(otherRun);
    node.toggleAttribute("hidden", hides);
  }
  for (const figure of all(".chart:not([data-site])")) figure.hidden = false;
  for (const node of all("[data-choice]")) {
    const { choice, value } = node.dataset;
    node.classList.toggle("unchosen", chosen.has(choice) && chosen.get(choice) !== value);
  }
  // A chart of nothing but what is hidden is hidden too.
  for (const figure of all(".chart:not([hidden])")) {
    const points = all(".point", figure);
    const marks = points.length > 0 ? points : all(".line, .cloud", figure);
    figure.toggleAttribute("hidden", marks.length > 0 && marks.every((mark) => mark.closest("[hidden]")));
  }
  for (const svg of all("svg[data-frontier]")) redrawFrontiers(svg);
  // The tab key stops at the first point that is shown.
  for (const svg of all("svg.panel")) {
    const points = all(".point", svg);
    const first = points.filter((point) => !point.closest("[hidden]")).sort((a, b) => placeOf(a)[0] - placeOf(b)[0])[0];
    for (const point of points) point.setAttribute("tabindex", point === first ? 0 : -1);
  }
}

/** Where a point is drawn. */
const placeOf = (point) => point.dataset.at.split(" ").map(Number);

/** The lines of a frontier through the points that are shown: those that no other beats to the left and below. */
function redrawFrontiers(svg) {
  for (const line of all(".line", svg)) {
    const type = line.parentNode.dataset.type;
    const own = all(".series", svg).filter((series) => series.dataset.type === type);
    const points = own
      .flatMap((series) => all(".point:not([hidden])", series))
      .sort((a, b) => placeOf(a)[0] - placeOf(b)[0] || placeOf(b)[1] - placeOf(a)[1]);
    let best = -Infinity;
    const optimal = points.filter((point) => placeOf(point)[1] > best && ((best = placeOf(point)[1]), true));
    line.setAttribute("d", optimal.map((point, place) => `${place === 0 ? "M" : "L"}${placeOf(point).join(" ")}`).join(""));
    for (const series of own) series.removeAttribute("opacity");
    for (const point of points) point.setAttribute("opacity", optimal.includes(point) ? 1 : 0.35);
  }
}

function toggle(values, value, content, attributes) {
  const button = element("button", { type: "button", "aria-pressed": "true", ...attributes }, content);
  button.addEventListener("click", () => {
    const show = values.delete(value);
    if (!show) values.add(value);
    button.setAttribute("aria-pressed", String(show));
    update();
  });
  return button;
}

/** Keys in which runs of one type differ; not the coefficient, which makes the frontier, nor the sites, which have toggles. */
function facets() {
  const found = new Map();
  for (const { type, facets } of runs.values()) {
    for (const [key, value] of Object.entries(facets)) {
      if (key === "loss.sparsity.coeff" || key === "sae.sites") continue;
      const byType = found.get(key) ?? new Map();
      byType.set(type, (byType.get(type) ?? new Set()).add(value));
      found.set(key, byType);
    }
  }
  return [...found]
    .filter(([, byType]) => [...byType.values()].some((values) => values.size > 1))
    .map(([key]) => [key, [...new Set([...runs.values()].map((run) => run.facets[key] ?? NONE))].sort(byText)])
    // What has a value of its own in every run would be as many buttons as there are runs.
    .filter(([, values]) => values.length <= 24);
}

function filters() {
  const bar = document.getElementById("filters");
  const group = (words, buttons) =>
    bar.append(element("div", { class: "toggles", role: "group", "aria-label": words }, [element("span", { "aria-hidden": "true" }, words), ...buttons]));
  const marks = new Map(all("dl.types dt").map((name) => [name.textContent, name.querySelector("svg")]));
  const mark = (type) => marks.get(type)?.cloneNode(true);
  group("Types", data.types.map((type) => toggle(hidden.types, type, [mark(type), type], { "data-toggle-type": type })));
  if (data.sites.length > 1) {
    group("Sites", data.sites.map((site) => toggle(hidden.sites, site, site, { "data-toggle-site": site })));
  }
  for (const [key, values] of facets()) {
    const own = new Set();
    hidden.facets.set(key, own);
    group(key, values.map((value) => toggle(own, value, value, { "data-toggle-facet": key, "data-facet-value": value })));
  }
  bar.hidden = data.types.length === 0;
}

/** Choices of one value of several; all controls of one key stay the same. */
function choices() {
  for (const select of all("select[data-choose]")) {
    const key = select.dataset.choose;
    chosen.set(key, select.value);
    select.closest("label").hidden = false;
    select.addEventListener("change", () => {
      chosen.set(key, select.value);
      for (const other of all("select[data-choose]")) if (other.dataset.choose === key) other.value = select.value;
      update();
    });
  }
}

// ---- charts: what is said of what is pointed at

/** A scale as the chart's attribute has it: from a place in the chart to a number. */
function scale(text) {
  const [kind, ...numbers] = text.split(" ");
  const [low, high, from, to] = numbers.map(Number);
  if (kind === "none") return null;
  return (at) => {
    const place = low + ((at - from) / (to - from)) * (high - low);
    return kind === "log" ? 10 ** place : place;
  };
}

/** What a place in a chart means on its axes, as lines. */
function means(svg, [x, y]) {
  const said = [];
  for (const [axis, at] of [["x", x], ["y", y]]) {
    const value = scale(svg.dataset[axis]);
    if (value) said.push(`${svg.dataset[`${axis}Label`]}: ${number(value(at))}`);
  }
  return said;
}

/** The places of a path of lines, or of dots. */
const placesOf = (path) => [...path.getAttribute("d").matchAll(/[ML](-?[\d.]+) (-?[\d.]+)/g)].map((found) => [Number(found[1]), Number(found[2])]);

/** What is nearest to a place in a chart: a point, a dot, a line; with where it is and what is said of it. */
function nearest(svg, [x, y]) {
  let best = { far: Infinity };
  const offer = (at, far, most, said, node) => {
    if (far < most && far < best.far) best = { at, far, said, node };
  };
  const isShown = (node) => !node.closest("[hidden]");
  for (const point of all(".point", svg).filter(isShown)) {
    const at = placeOf(point);
    offer(at, Math.hypot(at[0] - x, at[1] - y), 14, () => point.dataset.tip.split("\n"), point);
  }
  if (best.node) return best;
  for (const cloud of all(".cloud", svg).filter(isShown)) {
    const features = (cloud.dataset.features ?? "").split(" ");
    placesOf(cloud).forEach((at, place) => {
      const feature = features[place] ? [`Feature: ${features[place]}`] : [];
      const said = () => [cloud.dataset.name ?? cloud.dataset.type, ...feature, ...means(svg, at)];
      offer(at, Math.hypot(at[0] - x, at[1] - y), 12, said, cloud);
    });
  }
  if (best.node) return best;
  for (const line of all(".line", svg).filter(isShown)) {
    const { run, name } = line.parentNode.dataset;
    if (!run && !name) continue;
    for (const at of placesOf(line)) {
      // The place of a line that stands above or below the pointer.
      offer(at, Math.abs(at[0] - x) + Math.abs(at[1] - y) / 2, 26, () => [run || name, ...means(svg, at)], line.parentNode);
    }
  }
  return best.node ? best : null;
}

// ---- lines over steps: a range of them, smoothed, by run

/** The controls of a section whose charts are lines over steps. */
function stepControls(root) {
  const charts = all("svg.panel", root.parentNode).map(stepChart);
  if (charts.length === 0) return;
  const low = Math.min(...charts.map((chart) => chart.whole[0]));
  const high = Math.max(...charts.map((chart) => chart.whole[1]));
  const input = (label, value) => element("input", { type: "number", "aria-label": label, min: low, max: high, step: 1, value });
  const [from, to] = [input("First step", low), input("Last step", high)];
  const smooth = element("input", { type: "range", min: 0, max: 20, step: 1, value: 0, "aria-label": "Smoothing" });
  const words = element("output", {}, "not smoothed");
  const whole = element("button", { type: "button", class: "plain" }, "Whole run");
  const draw = () => {
    const range = [from, to].map((input) => Math.min(Math.max(Number(input.value), low), high));
    const width = Number(smooth.value);
    words.textContent = width === 0 ? "not smoothed" : `means of ${2 * width + 1} points of a line`;
    for (const chart of charts) chart.draw(range[0] < range[1] ? range : chart.whole, width);
  };
  const show = ([first, last]) => {
    [from.value, to.value] = [Math.round(first), Math.round(last)];
    draw();
  };
  for (const control of [from, to, smooth]) control.addEventListener("input", draw);
  whole.addEventListener("click", () => show([low, high]));
  for (const chart of charts) {
    chart.onrange = show;
  }
  const buttons = [...new Set(all(".series[data-run]", root.parentNode).map((series) => series.dataset.run))].map((run) => toggle(hidden.runs, run, run, {}));
  root.append(
    element("label", { class: "pick" }, ["Steps ", from, " to ", to, whole]),
    element("label", { class: "pick" }, ["Smoothing ", smooth, words]),
    element("details", {}, [element("summary", {}, "Runs that are shown, on all of the page"), element("div", { class: "toggles" }, buttons)]),
  );
  root.hidden = false;
}

/** A chart of lines over steps that can be drawn anew over a part of them. A drag across it chooses the part. */
function stepChart(svg) {
  const [, x0, x1, left, right] = svg.dataset.x.split(" ").map(Number);
  const [yKind, ...ys] = svg.dataset.y.split(" ");
  const [y0, y1, bottom, top] = ys.map(Number);
  const step = (at) => x0 + ((at - left) / (right - left)) * (x1 - x0);
  const value = (at) => y0 + ((at - bottom) / (top - bottom)) * (y1 - y0);
  const lines = all(".line", svg).map((path) => ({ path, points: placesOf(path).map(([x, y]) => [step(x), value(y)]) }));
  const steps = lines.flatMap((line) => line.points.map(([x]) => x));
  const chart = { svg, whole: [Math.round(Math.min(...steps)), Math.round(Math.max(...steps))], onrange: null };
  const tick = (x, y, anchor, text) => {
    const node = document.createElementNS(SVG, "text");
    for (const [key, of] of [["class", "tick"], ["x", x], ["y", y], ["font-size", 12], ["text-anchor", anchor]]) node.setAttribute(key, of);
    node.textContent = text;
    return node;
  };
  const first = all(".tick", svg)[0]?.getAttribute("y");
  chart.draw = ([from, to], width) => {
    const drawn = lines.map(({ path, points }) => {
      // Before the range is cut, so that its ends are means of what is beyond them, too.
      const smooth = points.map(([x], place) => {
        const near = points.slice(Math.max(0, place - width), place + width + 1);
        return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
      });
      return { path, points: smooth.filter(([x]) => Math.round(x) >= from && Math.round(x) <= to) };
    });
    const values = drawn.flatMap(({ path, points }) => (path.closest("[hidden]") ? [] : points.map(([, y]) => y)));
    const [least, most] = values.length > 0 ? [Math.min(...values), Math.max(...values)] : [y0, y1];
    const room = 0.05 * (most - least) || 0.5;
    const [low, high] = [least - room, most + room];
    const margin = 0.04 * (to - from) || 0.5;
    const [start, end] = [from - margin, to + margin];
    const placeX = (x) => left + ((x - start) / (end - start)) * (right - left);
    const placeY = (y) => bottom + ((y - low) / (high - low)) * (top - bottom);
    for (const { path, points } of drawn) {
      path.setAttribute("d", points.map(([x, y], place) => `${place === 0 ? "M" : "L"}${placeX(x).toFixed(1)} ${placeY(y).toFixed(1)}`).join(""));
    }
    svg.dataset.x = `linear ${start} ${end} ${left} ${right}`;
    svg.dataset.y = `${yKind} ${low} ${high} ${bottom} ${top}`;
    for (const old of all(".tick", svg)) old.remove();
    const atX = ticks(start, end, 6).map(([x, text]) => [placeX(x), text]);
    const atY = (yKind === "log" ? logTicks(low, high) : ticks(low, high, 6)).map(([y, text]) => [placeY(y), text]);
    const grid = svg.querySelector(".grid");
    grid?.setAttribute("d", [...atX.map(([x]) => `M${x} ${top}L${x} ${bottom}`), ...atY.map(([y]) => `M${left} ${y}L${right} ${y}`)].join(""));
    svg.append(...atX.map(([x, text]) => tick(x, first ?? bottom + 17, "middle", text)), ...atY.map(([y, text]) => tick(left - 7, y + 4, "end", text)));
  };
  let begun = null;
  let dragged = false;
  // The click that ends a drag opens nothing.
  svg.addEventListener("click", (event) => dragged && event.stopImmediatePropagation(), { capture: true });
  svg.addEventListener("pointercancel", () => {
    begun = null;
    box.setAttribute("visibility", "hidden");
  });
  const box = document.createElementNS(SVG, "rect");
  for (const [key, of] of [["class", "range"], ["y", top], ["height", bottom - top], ["visibility", "hidden"]]) box.setAttribute(key, of);
  svg.append(box);
  const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
  const ends = (event) => [begun, Math.min(Math.max(at(event), left), right)].sort((a, b) => a - b);
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch" || at(event) < left) return;
    begun = at(event);
    dragged = false;
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (begun === null) return;
    const [a, b] = ends(event);
    box.setAttribute("x", a);
    box.setAttribute("width", b - a);
    box.setAttribute("visibility", b - a > 4 ? "visible" : "hidden");
  });
  svg.addEventListener("pointerup", (event) => {
    if (begun === null) return;
    const [a, b] = ends(event);
    begun = null;
    box.setAttribute("visibility", "hidden");
    if (b - a < 12) return;
    dragged = true;
    const shown = scale(svg.dataset.x);
    chart.onrange?.([shown(a), shown(b)].map((x) => Math.min(Math.max(x, chart.whole[0]), chart.whole[1])));
  });
  return chart;
}

/** About `n` round numbers of a range, each with its text: as many decimals as tell them apart. */
function ticks(low, high, n) {
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const first = Math.ceil(low / step);
  const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 20);
  const text = (value) => (Math.abs(value) >= 1e6 || (value !== 0 && decimals > 5) ? value.toExponential(2) : value.toFixed(decimals));
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, place) => (first + place) * step).map((value) => [value, text(value)]);
}

/** Round numbers of a range of logarithms: their logarithms, and their texts. */
function logTicks(low, high) {
  const round = [];
  for (let power = Math.floor(low); power <= high; power += 1) for (const factor of [1, 2, 5]) round.push(factor * 10 ** power);
  const inside = round.map((value) => [Math.log10(value), number(value)]).filter(([log]) => log >= low && log <= high);
  return inside.length > 1 ? inside : ticks(10 ** low, 10 ** high, 4).filter(([value]) => value > 0).map(([value, text]) => [Math.log10(value), text]);
}

const SVG = "http://www.w3.org/2000/svg";

function chart(svg) {
  const ring = document.createElementNS(SVG, "circle");
  for (const [key, value] of [["r", 8], ["class", "ring"], ["visibility", "hidden"]]) ring.setAttribute(key, value);
  svg.append(ring);
  // The browser's own tips would come on top of these.
  for (const title of all("title", svg)) {
    const node = title.parentNode;
    node.dataset.tip = title.textContent;
    title.remove();
  }
  const show = (found) => {
    ring.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return untip();
    ring.setAttribute("cx", found.at[0]);
    ring.setAttribute("cy", found.at[1]);
    const run = found.node.dataset.run;
    tip(ring.getBoundingClientRect(), found.said(), runs.has(run) ? "Click or Enter: its configuration" : null);
  };
  const at = (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [x, y];
  };
  const open = (found) => runs.has(found?.node.dataset.run) && openRun(found.node.dataset.run);
  svg.addEventListener("pointermove", (event) => show(nearest(svg, at(event))));
  svg.addEventListener("pointerleave", () => show(null));
  svg.addEventListener("click", (event) => open(nearest(svg, at(event))));
  const points = all(".point", svg);
  points.sort((a, b) => placeOf(a)[0] - placeOf(b)[0]);
  for (const point of points) {
    const opens = runs.has(point.dataset.run);
    point.setAttribute("role", opens ? "button" : "img");
    point.setAttribute("aria-label", point.dataset.tip.split("\n").join(", "));
    point.addEventListener("focus", () => show({ at: placeOf(point), node: point, said: () => point.dataset.tip.split("\n") }));
    point.addEventListener("blur", () => show(null));
  }
  // Points are one stop of the tab key; arrows go from one to the next, from left to right.
  svg.addEventListener("keydown", (event) => {
    const shown = points.filter((point) => !point.closest("[hidden]"));
    const from = shown.indexOf(document.activeElement);
    if (from < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open({ node: shown[from] });
      return;
    }
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = shown[(from + step + shown.length) % shown.length];
    for (const point of points) point.setAttribute("tabindex", point === next ? 0 : -1);
    next.focus();
  });
}

/** Shows a name and lines of `name: value` beside a rectangle of the window. */
function tip(beside, [name, ...lines], hint) {
  const box = document.getElementById("tip");
  const pairs = lines.flatMap((line) => {
    const [key, ...value] = line.split(": ");
    return [element("dt", {}, key), element("dd", {}, value.join(": "))];
  });
  box.replaceChildren(element("strong", {}, name), element("dl", {}, pairs));
  if (hint) box.append(element("p", {}, hint));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = beside.right + 10 + width < room ? beside.right + 10 : Math.max(4, beside.left - width - 10);
  const top = Math.min(Math.max(4, (beside.top + beside.bottom) / 2 - height / 2), window.innerHeight - height - 4);
  box.style.left = `${Math.min(left, Math.max(4, room - width - 4))}px`;
  box.style.top = `${top}px`;
}

function untip() {
  document.getElementById("tip").hidden = true;
}

// ---- tables: column heads sort, up, then down; cells without a number go last

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, [...head.childNodes]);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const value = (row) => Number(row.cells[column].dataset.value ?? NaN);
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (Number.isNaN(x) && Number.isNaN(y)) return sign * byText(a.cells[column].textContent, b.cells[column].textContent);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return sign * (x - y);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// ---- details of a run: its row of every table of runs, and its configuration

function openRun(name) {
  const run = runs.get(name);
  const dialog = document.getElementById("details");
  const pairs = (entries) =>
    element("dl", { class: "pairs" }, entries.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  const tables = all("#runs table").map((table) => {
    const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.run === name);
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
    return rows.map((row) => pairs(heads.map((head, place) => [head, row.cells[place].textContent]).filter(([head]) => head !== "run")));
  });
  const close = element("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("div", { class: "title" }, [element("h2", { id: "details-title" }, run.run), close]),
    element("p", {}, `${run.folder} · ${run.made_with}`),
    ...tables.flat(),
    element("pre", { tabindex: 0 }, document.querySelector(`#run-${run.place} pre`).textContent),
  );
  untip();
  dialog.showModal();
}

// ---- the start

themeButton();
for (const table of all("table")) sortable(table);
if (data) {
  filters();
  choices();
  for (const svg of all("svg.panel")) chart(svg);
  for (const root of all(".steps")) stepControls(root);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.run");
    const row = link && [...runs.values()].find((run) => link.hash === `#run-${run.place}`);
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openRun(row.run);
  });
  update();
}

for (const root of all(".browser")) {
  const dictionaries = JSON.parse(root.nextElementSibling.textContent);
  featureBrowser(root, {
    dictionaries,
    card: async (dictionary, feature) => dictionary.cards.find((card) => card.feature === feature) ?? null,
    search: async (dictionary, text) => {
      const lower = text.toLowerCase();
      const holds = (example) => example.tokens.join("").toLowerCase().includes(lower);
      return { features: dictionary.cards.filter((card) => card.examples.some(holds)).map((card) => card.feature), up_to: null };
    },
  });
}
