// Frontiers and what follows from them: CE increase against L0 and alive features, matched runs, reconstruction downstream.

let frontierAxes = "linear";

view("frontiers", {
  controls(bar) {
    choose(bar, "Axes", [["linear", "linear"], ["log", "logarithmic"]], frontierAxes, (kind) => (frontierAxes = kind), "frontier-axes");
  },
  draw(host) {
    const visible = data.points.filter(shows);
    if (visible.length === 0) return host.append(element("p", {}, "The filters hide every run."));
    legendOfTypes(host, visible);
    for (const [place, points] of groups(visible)) {
      frontier(host, place, points, "L0 (active features per token)", (point) => point.l0);
      frontier(host, place, points, "Alive features", (point) => point.alive);
    }
  },
});

/** What has frontiers of its own: a site, and there every combination of the values that the frontiers are split by. */
function groups(points) {
  const found = new Map();
  for (const [site, own] of bySites(points)) {
    for (const point of own) {
      const values = data.frontier_facets.map((key) => `${key} = ${point.facets[key] ?? NONE}`);
      const place = [site, ...values].join(", ");
      found.set(place, [...(found.get(place) ?? []), point]);
    }
  }
  return found;
}

/** A pair of axes: a curve a type. */
function frontier(host, place, points, label, x) {
  const y = (point) => point.ce_increase;
  const usable = (point) =>
    isNumber(x(point)) && isNumber(y(point)) && (frontierAxes === "linear" || (x(point) > 0 && y(point) > 0));
  const drawn = points.filter(usable);
  const best = new Set();
  const curves = types.map((type) => {
    const curve = pareto(drawn.filter((point) => point.type === type), x, y);
    for (const point of curve) best.add(point);
    return curve.length > 0 && { kind: "line", type, points: curve.map((point) => [x(point), y(point)]) };
  });
  const items = drawn
    .map((point) => ({
      x: x(point),
      y: y(point),
      type: point.type,
      run: point.run,
      site: point.site,
      faint: !best.has(point),
      name: point.run,
      rows: [["Type", point.type], ["Coefficient", plain(point.coeff)], ["Seed", plain(point.seed)], ...metrics(point)],
    }))
    .sort((a, b) => Number(b.faint) - Number(a.faint));
  const left = points.length - drawn.length;
  chart(host, {
    title: `${place}: CE increase against ${label.replace(/ \(.*/, "").replace("Alive", "alive")}`,
    about: "Less is better in both. Arrow keys go from run to run, Enter opens one.",
    x: { label, kind: frontierAxes },
    y: { label: "CE increase (nats per token)", kind: frontierAxes },
    corner: "↙ better",
    height: 340,
    marks: [...curves, { kind: "points", items }],
    note: left > 0 ? `${left} of ${points.length} runs have no number that could stand here.` : null,
  });
}

view("matches", { controls: chooseMatch });

// Tables of runs matched by something else are not shown.
afterChanges.push(() => {
  for (const part of document.querySelectorAll("[data-by]")) {
    part.classList.toggle("unchosen", part.dataset.by !== state.by);
  }
});

view("downstream", {
  draw(host) {
    const visible = data.downstream.filter(shows);
    legendOfTypes(host, visible);
    for (const [site, found] of bySites(visible)) {
      const layers = [...new Set(found.flatMap((run) => run.layers.map((layer) => layer.site)))].sort(bySite);
      layered(host, site, found, layers, "Explained variance", (layer) => layer.explained_variance, 1);
      layered(host, site, found, layers, "MSE", (layer) => layer.mse, 0);
    }
  },
});

/** A line a run through the later sites, which stand by their blocks. */
function layered(host, site, found, layers, label, y, original) {
  // A block's end is the next one's beginning.
  const place = (layer) => Number(layer.site.split(".")[1]) + (layer.site.endsWith("_post") ? 1 : 0);
  const last = layers.at(-1);
  chart(host, {
    title: `SAE at ${site}: ${label} at later sites`,
    x: {
      label: last?.endsWith("_post") ? "block whose input it is (the last: the output)" : "block",
      domain: padded(layers.map((layer) => place({ site: layer }))),
      whole: true,
    },
    y: { label },
    marks: [
      { kind: "rule", y: original, text: "original" },
      ...found.map((run) => ({ kind: "line", type: run.type, run: run.run, points: run.layers.map((layer) => [place(layer), y(layer)]) })),
      {
        kind: "points",
        items: found.flatMap((run) =>
          run.layers.map((layer) => ({
            x: place(layer),
            y: y(layer),
            type: run.type,
            run: run.run,
            site,
            name: run.run,
            rows: [["At", layer.site], ["Explained variance", fixed(layer.explained_variance, 4)], ["MSE", significant(layer.mse)]],
          })),
        ),
      },
    ],
  });
}
