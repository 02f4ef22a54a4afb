// Charts: axes, lines, points, intervals, histograms and clouds in an SVG; what the pointer or the keyboard is on is said
// in words, and opens the run.

const MARKERS = {
  circle: (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  triangle: (x, y, r) => `M${x} ${y - 1.15 * r}L${x + 1.1 * r} ${y + 0.9 * r}L${x - 1.1 * r} ${y + 0.9 * r}z`,
  square: (x, y, r) => `M${x - 0.9 * r} ${y - 0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  cross: (x, y, r) =>
    `M${x - r} ${y - 0.6 * r}l${0.4 * r} ${-0.4 * r}l${0.6 * r} ${0.6 * r}l${0.6 * r} ${-0.6 * r}l${0.4 * r} ${0.4 * r}` +
    `l${-0.6 * r} ${0.6 * r}l${0.6 * r} ${0.6 * r}l${-0.4 * r} ${0.4 * r}l${-0.6 * r} ${-0.6 * r}l${-0.6 * r} ${0.6 * r}` +
    `l${-0.4 * r} ${-0.4 * r}l${0.6 * r} ${-0.6 * r}z`,
};
const markerPath = (name, x, y, r) => MARKERS[name](round(x), round(y), r);
const round = (value) => Math.round(value * 100) / 100;

/** How something of a type is drawn; `colour`, `dash`, `marker` of its own go first. */
const look = (item) => ({ ...style(item.type ?? "other"), ...item.look });

/** What lines and markers mean, in words beside a sample of each. `entries`: {type} or {text, look}. */
function legend(host, entries) {
  const items = entries.map((entry) => {
    const { colour, dash, marker } = look(entry);
    const sample = shape("svg", { viewBox: "0 0 34 14", class: "sample", "aria-hidden": "true" }, [
      entry.line === false ? null : shape("path", { d: "M0 7H34", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }),
      marker ? shape("path", { d: markerPath(marker, 17, 7, 5), fill: colour }) : null,
    ]);
    return element("li", {}, [sample, entry.text ?? entry.type]);
  });
  host.append(element("ul", { class: "legend" }, items));
}

/** The types that the filters show and that `items` have, as a legend. */
const legendOfTypes = (host, items, entry = {}) =>
  legend(host, types.filter((type) => items.some((item) => item.type === type)).map((type) => ({ type, ...entry })));

/**
 * Draws a chart into `host`.
 *
 * `title`, `about` (for those who do not see it), `x` and `y`: {label, kind: "linear" | "log" | "rows", domain, names,
 * whole}; `marks`: in the order of drawing, {kind, …} as `DRAW` has them; `corner`: words in the lower left corner;
 * `note`: a line below; `height`; `map`: both axes have one scale and no ticks.
 */
function chart(host, spec) {
  const figure = element("figure", { class: spec.wide ? "chart wide-chart" : "chart" });
  figure.append(element("figcaption", {}, spec.title));
  host.append(figure);
  const marks = spec.marks.filter(Boolean);
  const width = Math.max(240, Math.floor(figure.clientWidth));
  const names = spec.y.kind === "rows" ? spec.y.names : null;
  const left = names ? Math.min(Math.max(...names.map((name) => name.length), 4) * 7 + 16, width * 0.45) : spec.map ? 14 : 64;
  const area = { left, right: width - 14, top: 10, bottom: (spec.height ?? 300) - (spec.map ? 10 : 46) };
  const xs = marks.flatMap((mark) => EXTENT[mark.kind]?.(mark).x ?? []);
  const ys = names ? [] : marks.flatMap((mark) => EXTENT[mark.kind]?.(mark).y ?? []);
  let domains = [spec.x.domain ?? padded(xs, spec.x.kind), names ? null : (spec.y.domain ?? padded(ys, spec.y.kind))];
  if (spec.map) domains = oneScale(domains, [area.right - area.left, area.bottom - area.top]);
  const x = makeScale(spec.x.kind ?? "linear", domains[0], [area.left, area.right], 60, spec.x.whole);
  const y = names
    ? makeRows(names, [area.top, area.bottom])
    : makeScale(spec.y.kind ?? "linear", domains[1], [area.bottom, area.top], 44, spec.y.whole);
  const svg = shape("svg", {
    viewBox: `0 0 ${width} ${spec.height ?? 300}`,
    role: marks.some((mark) => mark.kind === "points") ? "group" : "img",
    "aria-label": `${spec.title}. ${spec.about ?? ""}`,
  });
  const plot = { svg, x, y, area, pick: spec.pick };
  if (spec.map) svg.append(shape("rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top, class: "frame" }));
  else axes(plot, spec);
  for (const mark of marks) DRAW[mark.kind](plot, mark);
  if (spec.corner) {
    svg.append(shape("text", { x: area.left + 8, y: area.bottom - 8, class: "corner" }, spec.corner));
  }
  figure.append(svg);
  if (spec.note) figure.append(element("p", { class: "note" }, spec.note));
  rove(svg);
  return figure;
}

function axes({ svg, x, y, area }, spec) {
  const group = shape("g", { class: "axes", "aria-hidden": "true" });
  const labels = y.kind === "rows" ? fitted(y.ticks, area.left - 12) : null;
  for (const tick of x.ticks) {
    const at = round(x.at(tick));
    group.append(
      shape("path", { d: `M${at} ${area.top}V${area.bottom}` }),
      shape("text", { x: at, y: area.bottom + 17, "text-anchor": "middle" }, x.text(tick)),
    );
  }
  for (const [place, tick] of y.ticks.entries()) {
    const at = round(y.at(tick));
    group.append(
      shape("path", { d: `M${area.left} ${at}H${area.right}` }),
      shape("text", { x: area.left - 7, y: at + 4, "text-anchor": "end" }, labels?.[place] ?? y.text(tick)),
    );
  }
  const middle = (area.top + area.bottom) / 2;
  group.append(
    shape("text", { x: (area.left + area.right) / 2, y: area.bottom + 38, "text-anchor": "middle", class: "label" }, spec.x.label),
  );
  if (spec.y.label) {
    const turn = `rotate(-90 13 ${middle})`;
    group.append(shape("text", { x: 13, y: middle + 4, "text-anchor": "middle", class: "label", transform: turn }, spec.y.label));
  }
  svg.append(group);
}

/** Ranges in which a unit is as long in both directions. */
function oneScale(domains, lengths) {
  const unit = Math.max(...domains.map(([low, high], axis) => (high - low) / lengths[axis]));
  return domains.map(([low, high], axis) => {
    const room = (unit * lengths[axis] - (high - low)) / 2;
    return [low - room, high + room];
  });
}

/** Names cut to the room that there is. */
const fitted = (names, room) =>
  names.map((name) => (name.length * 6.6 > room ? `${name.slice(0, Math.max(3, Math.floor(room / 6.6) - 1))}…` : name));

/** The numbers that a mark stands at, for the axes' ranges. */
const EXTENT = {
  line: (mark) => ({ x: mark.points.map((point) => point[0]), y: mark.points.map((point) => point[1]) }),
  points: (mark) => ({
    x: mark.items.flatMap((item) => [item.x, item.low, item.high]),
    y: mark.items.flatMap((item) => [item.y, item.lowY, item.highY]),
  }),
  cloud: (mark) => ({ x: [...mark.x], y: [...mark.y] }),
  steps: (mark) => ({ x: [mark.edges[0], mark.edges.at(-1)], y: [0, ...mark.heights] }),
  rule: (mark) => ({ x: [mark.x], y: [mark.y] }),
};

const DRAW = {
  /** `points`: [x, y], joined; `name`: said where the pointer is; gaps where there is no number. */
  line(plot, mark) {
    const { colour, dash } = look(mark);
    const usable = ([x, y]) => isNumber(x) && isNumber(y) && (plot.x.kind !== "log" || x > 0) && (plot.y.kind !== "log" || y > 0);
    let d = "";
    let pen = "M";
    for (const point of mark.points) {
      if (usable(point)) {
        d += `${pen}${round(plot.x.at(point[0]))} ${round(plot.y.at(point[1]))}`;
        pen = "L";
      } else pen = "M";
    }
    const attributes = { "data-type": mark.type, "data-run": mark.run };
    plot.svg.append(
      shape("path", { d, class: "line", stroke: colour, "stroke-dasharray": dash, opacity: mark.faint ? 0.4 : undefined, ...attributes }),
    );
    if (mark.name) hover(plot, mark, d, mark.points.filter(usable), mark.say ?? ((point) => [[plot.x.text(point[0]), significant(point[1])]]));
  },

  /** A histogram's outline: `edges`, `counts`, `heights`; `filled` or not. */
  steps(plot, mark) {
    const { colour, dash } = look(mark);
    let d = `M${round(plot.x.at(mark.edges[0]))} ${round(plot.y.at(0))}`;
    mark.heights.forEach((height, bin) => {
      d += `V${round(plot.y.at(height))}H${round(plot.x.at(mark.edges[bin + 1]))}`;
    });
    d += `V${round(plot.y.at(0))}`;
    if (mark.filled) plot.svg.append(shape("path", { d, class: "area", fill: colour }));
    plot.svg.append(
      shape("path", { d, class: "line", stroke: colour, "stroke-dasharray": dash, "data-type": mark.type, "data-run": mark.run }),
    );
    const middles = mark.heights.map((height, bin) => [(mark.edges[bin] + mark.edges[bin + 1]) / 2, height, bin]);
    hover(plot, mark, d, middles, ([, height, bin]) => [
      [`${significant(mark.edges[bin])} to ${significant(mark.edges[bin + 1])}`, `${plain(mark.counts[bin])} (${fixed(100 * height, 1)} %)`],
    ]);
  },

  /** A line across, with words. */
  rule(plot, { x, y, text }) {
    const { area } = plot;
    const d = isNumber(y) ? `M${area.left} ${round(plot.y.at(y))}H${area.right}` : `M${round(plot.x.at(x))} ${area.top}V${area.bottom}`;
    plot.svg.append(shape("path", { d, class: "rule" }));
    if (text) {
      const right = isNumber(x) && plot.x.at(x) > (area.left + area.right) / 2;
      const place = isNumber(y)
        ? { x: area.right - 4, y: plot.y.at(y) - 5, "text-anchor": "end" }
        : { x: plot.x.at(x) + (right ? -5 : 5), y: area.top + 12, "text-anchor": right ? "end" : "start" };
      plot.svg.append(shape("text", { ...place, class: "corner" }, text));
    }
  },

  /**
   * Markers that can be pointed at: `items` of {x, y, type, run, name, rows: [[name, value]], faint, low, high}; from
   * `low` to `high` is an interval of x, `lowY` to `highY` one of y. Those with a run open it.
   */
  points(plot, mark) {
    for (const item of mark.items) {
      const [x, y] = [plot.x.at(item.x), plot.y.at(item.y)];
      if (!isNumber(x) || !isNumber(y)) continue;
      const { colour, marker } = look(item);
      const opens = item.run !== undefined && runs.has(item.run);
      const said = [item.name, ...item.rows.map((row) => row.join(": "))].join(", ");
      const group = shape("g", {
        class: item.faint ? "point faint" : "point",
        role: opens ? "button" : "img",
        tabindex: -1,
        "aria-label": said,
        "data-type": item.type,
        "data-run": item.run,
        "data-site": item.site,
      });
      const whisker = isNumber(item.low) ? `M${round(plot.x.at(item.low))} ${round(y)}H${round(plot.x.at(item.high))}` : null;
      const upright = isNumber(item.lowY) ? `M${round(x)} ${round(plot.y.at(item.lowY))}V${round(plot.y.at(item.highY))}` : null;
      for (const d of [whisker, upright].filter(Boolean)) group.append(shape("path", { d, class: "whisker", stroke: colour }));
      group.append(
        shape("circle", { cx: round(x), cy: round(y), r: 11, class: "target" }),
        shape("path", { d: markerPath(marker, x, y, 5.5), fill: colour, class: "marker" }),
      );
      const show = () => tip(group.getBoundingClientRect(), item.name, item.rows, opens ? "Click or Enter: its configuration" : null);
      set(group, { onpointerenter: show, onpointerleave: untip, onfocus: show, onblur: untip });
      if (opens) {
        const open = () => openRun(item.run);
        set(group, {
          onclick: open,
          onkeydown: (event) => {
            if (event.key === "Enter" || event.key === " ") {
              event.preventDefault();
              open();
            }
          },
        });
      }
      plot.svg.append(group);
    }
  },

  /** Many points as one path: columns `x`, `y`; `name`; `say(place)`: rows for the nearest to the pointer. */
  cloud(plot, mark) {
    const { colour, marker } = look(mark);
    const places = [];
    let d = "";
    mark.x.forEach((value, place) => {
      if (!isNumber(value) || !isNumber(mark.y[place])) return;
      const [x, y] = [plot.x.at(value), plot.y.at(mark.y[place])];
      places.push([x, y, place]);
      d += markerPath(marker, x, y, mark.size ?? 2);
    });
    plot.svg.append(shape("path", { d, fill: colour, class: "cloud", "data-type": mark.type, "data-run": mark.run }));
    plot.clouds ??= [];
    plot.clouds.push({ mark, places });
    if (plot.clouds.length === 1) nearest(plot);
  },
};

/** Says which point of all clouds is nearest to the pointer. */
function nearest(plot) {
  const { svg, clouds } = plot;
  const ring = shape("circle", { r: 6, class: "ring", visibility: "hidden" });
  svg.append(ring);
  svg.addEventListener("pointermove", (event) => {
    const { x, y } = inside(svg, event);
    let best = null;
    for (const { mark, places } of clouds) {
      for (const [px, py, place] of places) {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < (best?.distance ?? 200)) best = { distance, mark, px, py, place };
      }
    }
    ring.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) return untip();
    set(ring, { cx: best.px, cy: best.py });
    tip(ring.getBoundingClientRect(), best.mark.name, best.mark.say(best.place));
  });
  svg.addEventListener("pointerleave", () => {
    ring.setAttribute("visibility", "hidden");
    untip();
  });
}

/** Says a line's name and its nearest place to the pointer. `points` start with x. */
function hover(plot, mark, d, points, say) {
  const target = shape("path", { d, class: "target-line" });
  target.addEventListener("pointermove", (event) => {
    const at = inside(plot.svg, event).x;
    const away = (point) => Math.abs(plot.x.at(point[0]) - at);
    const point = points.reduce((best, next) => (away(next) < away(best) ? next : best), points[0]);
    tip({ left: event.clientX, right: event.clientX, top: event.clientY, bottom: event.clientY }, mark.name, say(point));
  });
  target.addEventListener("pointerleave", untip);
  if (mark.run && runs.has(mark.run)) {
    target.addEventListener("click", () => openRun(mark.run));
    target.classList.add("opens");
  }
  plot.svg.append(target);
}

/** Where an event is in an SVG's own units. */
const inside = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());

/** Points as one stop of the tab key; arrows go from one to the next, from left to right. */
function rove(svg) {
  const points = [...svg.querySelectorAll(".point")];
  if (points.length === 0) return;
  const at = (point) => Number(point.querySelector(".target").getAttribute("cx"));
  points.sort((a, b) => at(a) - at(b));
  points[0].setAttribute("tabindex", 0);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const from = points.indexOf(document.activeElement);
    if (!step || from < 0) return;
    event.preventDefault();
    const next = points[(from + step + points.length) % points.length];
    points[from].setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
}

/** Shows a name and [name, value] rows beside a rectangle of the window. */
function tip(beside, name, rows, hint) {
  const box = document.getElementById("tip");
  box.replaceChildren(
    element("strong", {}, name),
    element("dl", {}, rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)])),
  );
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
