// Dictionary geometry: how near elements are to each other, within a dictionary and between two.

view("geometry", {
  controls: chooseMatch,
  draw(host) {
    const { within, differences, across } = data.geometry;
    const shown = within.filter(shows);
    const pairs = across.filter((pair) => shows({ run: pair.from, site: pair.site }) && showsRun(pair.to));
    legendOfTypes(host, shown.length > 0 ? shown : pairs.map((pair) => ({ type: typeOf(pair.from) })));
    forest(host, differences.filter((pair) => pair.by === state.by && !state.sites.has(pair.site)));
    for (const [site] of bySites([...shown, ...pairs])) {
      host.append(element("h3", {}, site));
      const own = shown.filter((run) => run.site === site);
      cosines(host, "To the nearest element of the same dictionary", matched(own, state.by).map((run) => ({ ...run, name: `${run.type}: ${run.run}` })));
      between(host, pairs.filter((pair) => pair.site === site));
      if (own.length > 0) {
        againstAlive(host, own);
        means(host, own);
      }
    }
  },
});

/** Shares of elements by cosine; `found`: {cosines, name, type, run, look}. */
const cosines = (host, title, found, note) =>
  found.length > 0 &&
  histogramChart(
    host,
    title,
    { x: "largest cosine", y: "share of elements" },
    found.map((run) => ({ ...run, histogram: run.cosines.histogram, name: `${run.name} (mean ${fixed(run.cosines.mean, 3)})` })),
    note,
  );

/** Histograms on one pair of axes, as shares; `found`: {histogram, name, type, run, look}. */
function histogramChart(host, title, labels, found, note) {
  const histograms = found.map((run) => run.histogram);
  const outside = histograms.reduce((sum, { below, above }) => sum + below + above, 0);
  const used = usedRange(histograms);
  const marks = found.map(({ histogram, name, type, run, look }) => ({
    // Many areas on top of each other are mud.
    ...{ kind: "steps", name, type, run, look, filled: found.length <= 3 },
    ...binsWithin(histogram, used),
  }));
  chart(host, {
    title,
    x: { label: labels.x, domain: used },
    y: { label: labels.y, domain: [0, 1.06 * Math.max(...marks.flatMap((mark) => mark.heights), 1e-9)] },
    marks,
    note: [note, outside > 0 ? `${outside} lie outside the bins.` : null].filter(Boolean).join(" ") || null,
  });
}

/** The bins of a histogram within a range: their edges, counts, and shares of all values. */
function binsWithin({ edges, counts, below, above }, [low, high]) {
  const all = counts.reduce((sum, count) => sum + count, below + above);
  const bins = counts.map((_, bin) => bin).filter((bin) => edges[bin] >= low && edges[bin + 1] <= high);
  return {
    edges: [...bins.map((bin) => edges[bin]), edges[bins.at(-1) + 1]],
    counts: bins.map((bin) => counts[bin]),
    heights: bins.map((bin) => (all > 0 ? counts[bin] / all : 0)),
  };
}

/** From the first bin that holds something to the last, of all histograms. */
function usedRange(histograms) {
  let [low, high] = [Infinity, -Infinity];
  for (const { edges, counts } of histograms) {
    counts.forEach((count, bin) => {
      if (count === 0) return;
      low = Math.min(low, edges[bin]);
      high = Math.max(high, edges[bin + 1]);
    });
  }
  return low < high ? [low, high] : [histograms[0].edges[0], histograms[0].edges.at(-1)];
}

const percent = (estimate) => `${plain(Math.round(estimate.options.confidence * 1000) / 10)} % interval`;
const range = ({ interval }) => (interval ? `${fixed(interval.low, 4)} to ${fixed(interval.high, 4)}` : NONE);

function meanPoint(run, x, y) {
  return {
    ...{ x, y, type: run.type, run: run.run, site: run.site, name: run.run },
    rows: [["Alive", plain(run.alive)], ["Mean", fixed(run.mean.value, 4)], [percent(run.mean), range(run.mean)]],
  };
}

/** A row a run: its mean with its interval. */
function means(host, found) {
  const order = [...found].sort((a, b) => types.indexOf(a.type) - types.indexOf(b.type) || b.mean.value - a.mean.value);
  chart(host, {
    title: "Mean largest cosine within, every run",
    x: { label: "mean largest cosine, with its interval" },
    y: { kind: "rows", names: order.map((run) => run.run) },
    height: 60 + 17 * order.length,
    marks: [
      {
        kind: "points",
        items: order.map((run) => ({ ...meanPoint(run, run.mean.value, run.run), low: run.mean.interval?.low, high: run.mean.interval?.high })),
      },
    ],
  });
}

/** Whether a dictionary is clustered because it is large. */
function againstAlive(host, found) {
  chart(host, {
    title: "Mean largest cosine within, against alive features",
    x: { label: "Alive features" },
    y: { label: "mean largest cosine" },
    marks: [
      {
        kind: "points",
        items: found.map((run) => ({ ...meanPoint(run, run.alive, run.mean.value), lowY: run.mean.interval?.low, highY: run.mean.interval?.high })),
      },
    ],
  });
}

/** A row a pair of types. */
function forest(host, pairs) {
  if (pairs.length === 0) return;
  const name = (pair) => `block ${pair.site.replace(/^blocks\.(\d+)\.hook_/, "$1 ")}: ${pair.of} − ${pair.less}`;
  chart(host, {
    title: "Differences of mean largest cosines between matched runs",
    x: { label: "difference, with its interval", domain: padded(pairs.flatMap(({ estimate }) => [0, estimate.value, estimate.interval?.low, estimate.interval?.high])) },
    y: { kind: "rows", names: pairs.map(name) },
    height: 70 + 26 * pairs.length,
    marks: [
      { kind: "rule", x: 0, text: "no difference" },
      {
        kind: "points",
        items: pairs.map((pair) => ({
          x: pair.estimate.value,
          y: name(pair),
          type: pair.of,
          site: pair.site,
          name: name(pair),
          low: pair.estimate.interval?.low,
          high: pair.estimate.interval?.high,
          rows: [["Difference", fixed(pair.estimate.value, 4)], [percent(pair.estimate), range(pair.estimate)]],
        })),
      },
    ],
    note: "The marker is that of the first type. Above 0, it is the more tightly clustered.",
  });
}

/** From one dictionary to another: types, and seeds. The colour is that of the run that looks, the dash of the other. */
function between(host, pairs) {
  const told = (what) =>
    pairs
      .filter((pair) => pair.what === what)
      .map((pair) => ({
        ...{ cosines: pair.cosines, site: pair.site, type: typeOf(pair.from), run: pair.from },
        look: { dash: style(typeOf(pair.to)).dash },
        name: `${pair.from} → ${pair.to}`,
      }));
  const by = { ce: "CE increase", l0: "L0", alive: "alive features" }[data.match_by];
  const note = `Runs matched by ${by}. Colour: the type whose elements look for a neighbour. Dashes: the type in which they do.`;
  cosines(host, "To the nearest element of another type's dictionary", told("types"), note);
  cosines(host, "To the nearest element of another seed's dictionary", told("seeds"));
}
