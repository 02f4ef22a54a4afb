// Stability: runs that differ in nothing but the seed, a row a type and coefficient.

let stabilityMetric = null;

view("stability", {
  controls(bar) {
    const names = [...new Set(data.stability.flatMap((group) => Object.keys(group.metrics)))];
    stabilityMetric = names.includes("ce_increase") ? "ce_increase" : names[0];
    const options = names.map((name) => element("option", { value: name, selected: name === stabilityMetric }, name));
    const change = (event) => {
      stabilityMetric = event.target.value;
      redraw();
    };
    bar.append(element("label", { class: "pick" }, ["Metric", element("select", { onchange: change }, options)]));
  },
  draw(host) {
    const visible = data.stability.filter(
      (group) =>
        !state.sites.has(group.site) && !state.types.has(group.type) && group.runs.some(([, run]) => showsRun(run)) && stabilityMetric in group.metrics,
    );
    legendOfTypes(host, visible, { line: false });
    for (const [site, groups] of bySites(visible)) {
      const name = (group) => [group.type, plain(group.coeff), ...Object.entries(group.facets).map(([key, value]) => `${key} = ${value}`)].join(", ");
      const sorted = [...groups].sort((a, b) => types.indexOf(a.type) - types.indexOf(b.type) || a.coeff - b.coeff);
      chart(host, {
        title: `${site}: ${stabilityMetric} by seed`,
        x: { label: stabilityMetric },
        y: { kind: "rows", names: [...new Set(sorted.map(name))] },
        height: 60 + 20 * sorted.length,
        marks: [
          {
            kind: "points",
            items: sorted.flatMap((group) =>
              group.runs.map(([seed, run], place) => ({
                ...{ x: group.metrics[stabilityMetric][place], y: name(group), type: group.type, run, site, name: run },
                rows: [["Seed", plain(seed)], [stabilityMetric, significant(group.metrics[stabilityMetric][place])]],
              })),
            ),
          },
        ],
      });
    }
  },
});
