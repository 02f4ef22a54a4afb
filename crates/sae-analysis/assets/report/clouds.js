// Clouds: embedded dictionaries, and features by frequency and size.

/** How what has no type is drawn: runs of one type, directions. */
const numbered = (number) => data.numbered[number % data.numbered.length];

let chosenPair = 0;
let colourBy = "type";

view("embeddings", {
  controls(bar) {
    const pairs = data.embeddings.map((pair, place) =>
      element("option", { value: place }, `${pair.site}: ${pair.types.join(" and ")} (${pair.runs.join(", ")})`),
    );
    const change = (event) => {
      chosenPair = Number(event.target.value);
      redraw();
    };
    bar.append(element("label", { class: "pick" }, ["Runs", element("select", { onchange: change }, pairs)]));
    choose(bar, "Colour by", [["type", "type"], ["run", "run"]], colourBy, (by) => (colourBy = by), "colour-by");
  },
  draw(host) {
    const pair = data.embeddings[chosenPair];
    const looks = pair.runs.map((run, place) => ({
      type: pair.types[place],
      text: colourBy === "type" ? pair.types[place] : run,
      look: colourBy === "type" ? {} : numbered(place),
      line: false,
    }));
    legend(host, looks.filter((entry, place) => looks.findIndex((other) => other.text === entry.text) === place));
    const clouds = pair.runs.map((run, place) => {
      const rows = pair.run.flatMap((of, point) => (of === place ? [point] : []));
      return {
        ...{ kind: "cloud", name: run, type: pair.types[place], run, look: looks[place].look },
        x: rows.map((point) => pair.x[point]),
        y: rows.map((point) => pair.y[point]),
        say: (point) => [["Type", pair.types[place]], ["Feature", plain(pair.feature[rows[point]])]],
        size: pair.x.length > 4000 ? 1.4 : 2.2,
      };
    });
    const hidden = pair.runs.filter((run) => !showsRun(run)).length;
    chart(host, {
      title: `${pair.site}: ${pair.runs.join(" and ")}`,
      about: `${pair.x.length} dictionary elements in two dimensions.`,
      wide: true,
      map: true,
      x: { domain: padded(pair.x, "linear", 0.03) },
      y: { domain: padded(pair.y, "linear", 0.03) },
      height: Math.min(620, Math.max(320, host.clientWidth * 0.7)),
      marks: clouds.filter((cloud) => showsRun(cloud.run)),
      note:
        `${pair.x.length} of ${pair.available} elements are drawn.` +
        (hidden > 0 ? ` The filters hide ${hidden === 1 ? "one run" : `${hidden} runs`}.` : ""),
    });
  },
});

let against = "decoder_norm";
const SIZES = { decoder_norm: "decoder norm as trained (rows are stored at unit length)", encoder_norm: "encoder norm", encoder_bias: "encoder bias" };

view("features", {
  controls(bar) {
    choose(bar, "Frequency against", Object.entries(SIZES), against, (size) => (against = size), "against");
  },
  draw(host) {
    const visible = data.features.filter(shows);
    legendOfTypes(host, visible);
    for (const [site, found] of bySites(visible)) {
      host.append(element("h3", {}, site));
      histogramChart(
        host,
        "Activation frequencies",
        { x: "log₁₀ of the share of tokens", y: "share of alive features" },
        found.map((run) => ({ histogram: run.log10_frequency_histogram, name: `${run.type}: ${run.run}`, type: run.type, run: run.run })),
      );
      // A panel a run: clouds on top of each other hide each other.
      const panels = element("div", { class: "small" });
      host.append(panels);
      const domains = [found.flatMap((run) => run.log10_frequency), found.flatMap((run) => run[against])].map((all) => padded(all));
      for (const run of found) cloudOf(panels, run, domains);
    }
  },
});

function cloudOf(host, run, [x, y]) {
  chart(host, {
    title: `${run.type}: ${run.run}`,
    about: `${SIZES[against]} of features against how often they are active.`,
    x: { label: "log₁₀ of the share of tokens", domain: x },
    y: { label: SIZES[against], domain: y },
    height: 250,
    marks: [
      {
        ...{ kind: "cloud", name: run.run, type: run.type, run: run.run, x: run.log10_frequency, y: run[against], size: 1.6 },
        say: (place) => [
          ["Feature", plain(run.feature[place])],
          ["log₁₀ frequency", significant(run.log10_frequency[place])],
          [SIZES[against], significant(run[against][place])],
        ],
      },
    ],
    note: run.feature.length < run.available ? `${run.feature.length} of ${run.available} features.` : null,
  });
}
