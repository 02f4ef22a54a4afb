// Numbers to places: linear and logarithmic scales, rows of names, and where their ticks stand.

/** The range of numbers with a margin; a single number gets room around it. */
function padded(values, kind = "linear", margin = 0.06) {
  const usable = values.filter((value) => isNumber(value) && (kind !== "log" || value > 0));
  if (usable.length === 0) return kind === "log" ? [0.1, 10] : [0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of usable) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (kind === "log") {
    const room = Math.max((high / low) ** margin, low === high ? 2 : 1.02);
    return [low / room, high * room];
  }
  const room = high > low ? margin * (high - low) : 0.1 * Math.max(Math.abs(high), 1e-6);
  return [low - room, high + room];
}

/** A scale from a range of numbers to pixels: `at(value)`, `ticks`, `text(value)`; `whole`: no ticks between integers. */
function makeScale(kind, [low, high], [from, to], space, whole = false) {
  const count = Math.max(2, Math.floor(Math.abs(to - from) / space));
  const place = kind === "log" ? Math.log : (value) => value;
  const at = (value) => from + ((place(value) - place(low)) / (place(high) - place(low))) * (to - from);
  return { kind, at, ...(kind === "log" ? logTicks(low, high, count) : linearTicks(low, high, count, whole)) };
}

/** Ticks at 1, 2 or 5 times a power of ten. */
function linearTicks(low, high, count, whole = false) {
  const rough = Math.max((high - low) / count, whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(n * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { ticks, text: (value) => short(value, decimals) };
}

/** Ticks at powers of ten, and between them where there is room. */
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  const factors = decades * 3 <= count * 1.4 ? [1, 2, 5] : decades <= count ? [1] : [];
  let ticks = [];
  const every = factors.length === 0 ? Math.ceil(decades / count) : 1;
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    if (factors.length === 0 && power % every !== 0) continue;
    for (const factor of factors.length === 0 ? [1] : factors) ticks.push(factor * 10 ** power);
  }
  ticks = ticks.filter((value) => value >= low * 0.9999 && value <= high * 1.0001);
  if (ticks.length < 2) return linearTicks(low, high, count);
  return { ticks, text: (value) => short(value, Math.max(0, -Math.floor(Math.log10(value) + 1e-9))) };
}

/** A tick's text: thousands as k, millions as M, tiny numbers with a power of ten. */
function short(value, decimals) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (decimals > 4 && size !== 0) return Number(value.toPrecision(3)).toExponential();
  return (Math.abs(value) < 1e-12 ? 0 : value).toFixed(Math.min(decimals, 4));
}

/** Rows of names instead of numbers: each has the middle of its band. */
function makeRows(names, [from, to]) {
  const band = (to - from) / Math.max(1, names.length);
  const at = (name) => from + band * (names.indexOf(name) + 0.5);
  return { kind: "rows", at, ticks: names, text: (name) => name };
}

/** The Pareto-optimal of items: less is better in both; the same rule as the frontier's comparison uses. */
function pareto(items, x, y) {
  const sorted = items
    .filter((item) => isNumber(x(item)) && isNumber(y(item)))
    .sort((a, b) => x(a) - x(b) || y(a) - y(b));
  let best = Infinity;
  return sorted.filter((item) => {
    const better = y(item) < best;
    best = Math.min(best, y(item));
    return better;
  });
}
