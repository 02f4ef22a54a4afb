// The page itself: theme, filters, tables, details of a run, print; and the start.

// ---- theme: the system's until the reader says otherwise

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function themeButton() {
  const button = document.getElementById("theme");
  const name = () => (button.textContent = isDark() ? "Light page" : "Dark page");
  // A page in a file may have no storage.
  const remember = (theme) => {
    try {
      if (theme === undefined) return localStorage.getItem("sae-report-theme");
      localStorage.setItem("sae-report-theme", theme);
    } catch {
      return null;
    }
  };
  const before = remember();
  if (before === "dark" || before === "light") document.documentElement.dataset.theme = before;
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remember(document.documentElement.dataset.theme);
    name();
  });
  dark.addEventListener("change", name);
  name();
}

// ---- filters

/** A button that hides and shows: pressed is shown. */
function toggle(hidden, value, content, attributes) {
  const button = element("button", { type: "button", "aria-pressed": "true", ...attributes }, content);
  button.addEventListener("click", () => {
    const show = hidden.delete(value);
    if (!show) hidden.add(value);
    button.setAttribute("aria-pressed", String(show));
    redraw();
  });
  return button;
}

const togglesOf = (words, buttons) =>
  element("div", { class: "toggles", role: "group", "aria-label": words }, [element("span", { "aria-hidden": "true" }, words), ...buttons]);

/** Keys in which runs of one type differ; not the coefficient, which makes the frontier, nor the sites, which have toggles. */
function facets() {
  const values = new Map();
  for (const run of runs.values()) {
    for (const [key, value] of Object.entries(run.facets)) {
      if (key === "loss.sparsity.coeff" || key === "sae.sites") continue;
      const byType = values.get(key) ?? new Map();
      byType.set(run.type, (byType.get(run.type) ?? new Set()).add(value));
      values.set(key, byType);
    }
  }
  return [...values]
    .filter(([, byType]) => [...byType.values()].some((found) => found.size > 1))
    .map(([key]) => [key, [...new Set([...runs.values()].map((run) => run.facets[key] ?? NONE))].sort(byText)]);
}

const byText = (a, b) => a.localeCompare(b, "en", { numeric: true });

function filters() {
  const bar = document.getElementById("filters");
  const mark = (type) =>
    shape("svg", { viewBox: "0 0 14 14", class: "mark", "aria-hidden": "true" }, [
      shape("path", { d: markerPath(style(type).marker, 7, 7, 5.5), fill: style(type).colour }),
    ]);
  bar.append(togglesOf("Types", types.map((type) => toggle(state.types, type, [mark(type), type], { "data-toggle-type": type }))));
  if (sites.length > 1) {
    bar.append(togglesOf("Sites", sites.map((site) => toggle(state.sites, site, site, { "data-toggle-site": site }))));
  }
  for (const [key, values] of facets()) {
    const hidden = new Set();
    state.facets.set(key, hidden);
    bar.append(togglesOf(key, values.map((value) => toggle(hidden, value, value, { "data-toggle-facet": key, "data-value": value }))));
  }
  bar.hidden = types.length === 0;
}

// Rows and configurations follow the filters.
afterChanges.push(() => {
  for (const row of document.querySelectorAll("tr[data-site], tr[data-type], tr[data-run], details[data-run], div[data-run]")) {
    const { site, type, run, otherRun } = row.dataset;
    const hides = (name) => name !== undefined && !showsRun(name);
    row.hidden = state.sites.has(site) || state.types.has(type) || hides(run) || hides(otherRun);
  }
});

// ---- tables

/** Column heads sort their table: up, then down. Cells without a number go last. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, [...head.childNodes]);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const sign = down ? -1 : 1;
      const number = (row) => {
        const { value } = row.cells[column].dataset;
        return value === undefined ? NaN : Number(value);
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [number(a), number(b)];
        if (Number.isNaN(x) && Number.isNaN(y)) return sign * byText(a.cells[column].textContent, b.cells[column].textContent);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        return sign * (x - y);
      });
      body.append(...rows);
    });
  });
}

// ---- details of a run

/** Opens a run's metrics and configuration. */
function openRun(name) {
  const run = runs.get(name);
  const dialog = document.getElementById("details");
  const points = data.points.filter((point) => point.run === name).sort((a, b) => bySite(a.site, b.site));
  const rows = points.length > 0 ? metrics(points[0]).map(([metric], place) => [metric, points.map((point) => metrics(point)[place][1])]) : [];
  const config = document.querySelector(`#run-${run.place} pre`).textContent;
  const pairs = (entries) =>
    element("dl", { class: "pairs" }, entries.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  const head = (text) => element("th", { scope: "col", class: "n" }, text);
  const table = element("table", {}, [
    element("thead", {}, element("tr", {}, [element("th", { scope: "col" }, "Metric"), ...points.map((point) => head(point.site))])),
    element(
      "tbody",
      {},
      rows.map(([metric, values]) =>
        element("tr", {}, [element("th", { scope: "row" }, metric), ...values.map((value) => element("td", { class: "n" }, value))]),
      ),
    ),
  ]);
  const { sae, commit, libtorch, device } = run.versions;
  const close = element("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(
    element("div", { class: "title" }, [element("h2", { id: "details-title" }, run.run), close]),
    pairs([
      ["Type", run.type],
      ...(points.length > 0 ? [["Sparsity coefficient", plain(points[0].coeff)], ["Seed", plain(points[0].seed)]] : []),
      ...Object.entries(run.facets),
      ["Folder", run.folder],
      ["Made with", `sae ${sae} (${commit}), libtorch ${libtorch}, on ${device}`],
    ]),
    element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Metrics" }, table),
    element("h3", {}, "Configuration"),
    element("pre", { tabindex: 0 }, config),
  );
  untip();
  dialog.showModal();
  dialog.scrollTop = 0;
}

/** Links to runs open the details; without a script they go to the configuration. */
function openLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.run");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const name = [...runs.values()].find((run) => link.hash === `#run-${run.place}`)?.run;
    if (name === undefined) return;
    event.preventDefault();
    openRun(name);
  });
  const dialog = document.getElementById("details");
  // Outside its content is a click on the dialog itself.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

// ---- print: all details open, charts as wide as the paper

function printing() {
  let opened = [];
  addEventListener("beforeprint", () => {
    catchUp();
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
}

// ---- start

if (data) {
  document.documentElement.classList.add("live");
  themeButton();
  filters();
  for (const table of document.querySelectorAll("main table")) sortable(table);
  openLinks();
  printing();
  redraw();
  let width = document.documentElement.clientWidth;
  let soon = 0;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    clearTimeout(soon);
    soon = setTimeout(redraw, 120);
  });
  addEventListener("keydown", (event) => event.key === "Escape" && untip());
  // What the pointer was on has gone elsewhere; what has the focus says where it is now.
  const follow = () => {
    untip();
    document.activeElement?.closest(".point")?.dispatchEvent(new Event("focus"));
  };
  addEventListener("scroll", follow, { passive: true });
}
