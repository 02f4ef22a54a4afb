// Activations at each site: of the model, by position and along principal directions; and what SAEs make of them.

/** Directions that are drawn by position: as many as there are strokes to tell them apart. */
const DRAWN_DIRECTIONS = 3;

view("activations", {
  draw(host) {
    for (const site of Object.keys(data.activations).sort(bySite)) {
      if (state.sites.has(site)) continue;
      const { model, runs: measured } = data.activations[site];
      const all = Object.entries(measured).map(([run, sae]) => ({ run, site, type: typeOf(run), ...sae }));
      // The runs that the sections around look at are those whose features are told.
      const told = (sae) => data.features.some((run) => run.run === sae.run && run.site === site);
      const saes = all.filter((sae) => showsRun(sae.run) && (told(sae) || !all.some(told)));
      host.append(element("h3", {}, site));
      legendOfTypes(host, saes);
      ofModel(host, site, model);
      ofSaes(host, site, saes);
    }
  },
});

/** Positions count from 1 on a logarithmic axis, which gives the first ones room. */
const byPosition = (values) => values.map((value, place) => [place + 1, value]);
const POSITION = { label: "position in the window (1 is the first)", kind: "log" };
const sayPosition = ([place, value]) => [["Position", plain(place)], ["Value", significant(value)]];

function positions(host, title, label, marks, y = {}, note = null) {
  const longest = Math.max(2, ...marks.filter((mark) => mark.points).map((mark) => mark.points.length));
  chart(host, { title, x: { ...POSITION, domain: [0.9, longest * 1.05] }, y: { label, ...y }, height: 270, marks, note });
}

function ofModel(host, site, model) {
  const ink = { colour: "var(--ink)", dash: "" };
  const norms = model.norm.filter((norm) => isNumber(norm) && norm > 0);
  const kind = Math.max(...norms) > 10 * Math.min(...norms) ? "log" : "linear";
  positions(host, "Norm by position", "mean ‖x‖", [{ kind: "line", look: ink, points: byPosition(model.norm), name: "Model", say: sayPosition }], { kind });
  const { directions } = model;
  if (directions.length === 0) return;
  const item = (direction, place, y) => ({
    ...{ x: place + 1, y, look: { colour: "var(--ink)", marker: "circle" }, name: `Direction ${place + 1}` },
    rows: [["Variance share", significant(direction.variance_share)], ["Resampling KL", significant(direction.resampling_kl)]],
  });
  const x = { label: "principal direction", domain: [0.5, directions.length + 0.5], whole: true };
  const scale = (values) => {
    const positive = values.filter((value) => isNumber(value) && value > 0);
    return positive.length === values.length && Math.max(...positive) > 20 * Math.min(...positive) ? "log" : "linear";
  };
  const variances = directions.map((direction) => direction.variance_share);
  chart(host, {
    title: "Variance of principal directions",
    x,
    y: { label: "share of the variance", kind: scale(variances) },
    height: 270,
    marks: [{ kind: "points", items: directions.map((direction, place) => item(direction, place, direction.variance_share)) }],
  });
  const costs = [...directions.map((direction) => direction.resampling_kl), model.random_resampling_kl];
  chart(host, {
    title: "What resampling a direction costs",
    x,
    y: { label: "KL(resampled ‖ original), nats per token", kind: scale(costs) },
    height: 270,
    marks: [
      { kind: "rule", y: model.random_resampling_kl, text: `a random direction: ${significant(model.random_resampling_kl)}` },
      { kind: "points", items: directions.map((direction, place) => item(direction, place, direction.resampling_kl)) },
    ],
  });
  const drawn = directions.slice(0, DRAWN_DIRECTIONS);
  positions(
    host,
    "Principal directions by position",
    "mean component",
    drawn.map((direction, place) => ({
      ...{ kind: "line", look: numbered(place), name: `Direction ${place + 1}`, say: sayPosition },
      points: byPosition(direction.by_position),
    })),
    {},
    `Directions: ${drawn.map((_, place) => `${place + 1} ${STROKES[place]}`).join(", ")}.`,
  );
}

/** The strokes of what is numbered, in words. */
const STROKES = ["solid", "dashed", "dotted"];

function ofSaes(host, site, saes) {
  if (saes.length === 0) return;
  const lines = (values) =>
    saes.map((sae) => ({ kind: "line", type: sae.type, run: sae.run, name: `${sae.type}: ${sae.run}`, points: byPosition(sae[values]), say: sayPosition }));
  positions(host, "SAE: norm ratio by position", "mean ‖x̂‖ ÷ ‖x‖", [{ kind: "rule", y: 1, text: "original" }, ...lines("norm_ratio")]);
  positions(host, "SAE: cosine by position", "mean cosine of x and x̂", lines("cosine"));
  const count = Math.max(1, ...saes.map((sae) => sae.explained_variance.length));
  chart(host, {
    title: "SAE: explained variance along principal directions",
    x: { label: "principal direction", domain: [0.5, count + 0.5], whole: true },
    y: { label: "explained variance" },
    height: 270,
    marks: [
      ...saes.map((sae) => ({ kind: "line", type: sae.type, points: byPosition(sae.explained_variance) })),
      {
        kind: "points",
        items: saes.flatMap((sae) =>
          sae.explained_variance.map((value, place) => ({
            ...{ x: place + 1, y: value, type: sae.type, run: sae.run, site, name: sae.run },
            rows: [["Direction", plain(place + 1)], ["Explained variance", fixed(value, 4)]],
          })),
        ),
      },
    ],
  });
}
