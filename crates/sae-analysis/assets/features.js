// The browser of features: a list that is sorted and searched, and the card of the feature that is chosen. The report and
// `sae view` show the same; they differ in where cards come from.

/** Rows of the list are this high, in pixels, so that only those in sight have elements. */
const ROW = 30;
/** Examples of the highest activations that stand at the top of a card. */
const FIRST_EXAMPLES = 6;
/** Letters of a token that are shown; all of them are in its tip. */
const LETTERS = 80;

/** A token as it is shown: line breaks, tabs and spaces that nobody would see as signs, at most so many letters. */
function shownToken(text) {
  const spaces = (run) => (run.length > 1 ? `␣×${run.length}` : "␣");
  const visible = text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/ {2,}| $/g, spaces);
  return visible.length > LETTERS ? `${visible.slice(0, LETTERS)}…` : visible;
}

/** A share of tokens, in per cent. */
const share = (density) => `${significant(100 * density)}\u202f%`;

const significant = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : NONE);

/**
 * Fills `root` with the browser of `source`:
 * - `dictionaries`: [{ run, type, site, tokens, of, features: { feature, density, max, near, tokens, explanation }[] }]; where a dictionary comes
 *   without features, `rows(dictionary)` is a promise of them
 * - `card(dictionary, feature)`: a promise of a card, or of null where there is none
 * - `search(dictionary, text)`: a promise of { features, up_to }: those with an example that holds the text, and the last feature that
 *   was looked at, or null where all were
 * Returns `open(run, site, feature)`.
 */
function featureBrowser(root, source) {
  /** Counts what was typed: an answer to an earlier search comes too late. */
  let typed = 0;
  const state = { dictionary: source.dictionaries[0], order: [], chosen: -1, found: null, asked: 0, opened: 0 };
  const name = (dictionary) => `${dictionary.run} · ${dictionary.site}`;
  const pick = element("select", { "aria-label": "Dictionary" }, source.dictionaries.map((dictionary, place) => element("option", { value: place }, name(dictionary))));
  const sorts = [
    ["density", "most active first", (a, b) => b.density - a.density],
    ["max", "greatest activation first", (a, b) => b.max - a.max],
    ["rare", "rarest first", (a, b) => a.density - b.density],
    ["near", "most like a feature of another run", (a, b) => (b.near ?? -2) - (a.near ?? -2)],
    ["far", "least like a feature of another run", (a, b) => (a.near ?? 2) - (b.near ?? 2)],
    ["feature", "by number", (a, b) => a.feature - b.feature],
  ];
  const sort = element("select", { "aria-label": "Order" }, sorts.map(([key, label]) => element("option", { value: key }, label)));
  const dense = element("select", { "aria-label": "Density" }, [[0.01, "active on at most 1 %"], [0.1, "on at most 10 %"], [1, "of any density"]].map(([value, label]) => element("option", { value }, label)));
  const search = element("input", { type: "search", placeholder: "number, token or text", "aria-label": "Search features", spellcheck: "false" });
  const count = element("span", { class: "count", role: "status" });
  const rows = element("div", { class: "rows" });
  const list = element("div", { class: "list", role: "listbox", tabindex: 0, "aria-label": "Features" }, rows);
  const card = element("div", { class: "card", "aria-live": "polite" });
  root.replaceChildren(
    element("div", { class: "picks" }, [pick, sort, dense, search, count]),
    element("div", { class: "halves" }, [element("div", { class: "left" }, [element("div", { class: "head", "aria-hidden": "true" }, ["feature", "active on", "tokens of its highest activations"].map((head) => element("span", {}, head))), list]), card]),
  );

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(state.order.length, first + Math.ceil(list.clientHeight / ROW) + 8);
    rows.style.height = `${state.order.length * ROW}px`;
    rows.replaceChildren(
      ...state.order.slice(first, last).map((row, offset) => {
        const place = first + offset;
        const tokens = row.tokens.map((token) => element("bdi", { class: "token" }, shownToken(token)));
        const node = element(
          "div",
          { class: "row", role: "option", id: `row-${place}`, "aria-selected": String(place === state.chosen), "aria-posinset": place + 1, "aria-setsize": state.order.length },
          [element("span", { class: "n" }, String(row.feature)), element("span", { class: "n" }, share(row.density)), element("span", { class: "tokens" }, tokens)],
        );
        node.style.top = `${place * ROW}px`;
        node.addEventListener("click", () => choose(place));
        return node;
      }),
    );
    if (state.chosen >= 0) list.setAttribute("aria-activedescendant", `row-${state.chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  /** Orders and searches anew; stays with the feature that is shown where it is still in the list. */
  function arrange() {
    const before = state.order[state.chosen]?.feature;
    const wanted = search.value.trim();
    const lower = search.value.toLowerCase();
    // The feature of this number, whatever its density; those with such a token or explanation; those with such a text.
    const rank = (row) => {
      if (wanted && String(row.feature) === wanted) return 0;
      if (row.density > Number(dense.value)) return 3;
      if (!wanted || [...row.tokens, row.explanation ?? ""].some((text) => text.toLowerCase().includes(lower))) return 1;
      return state.found?.features.has(row.feature) ? 2 : 3;
    };
    const by = sorts.find(([key]) => key === sort.value)[2];
    const ranked = state.dictionary.features.map((row) => ({ row, rank: rank(row) })).filter(({ rank }) => rank < 3);
    ranked.sort((a, b) => a.rank - b.rank || by(a.row, b.row) || a.row.feature - b.row.feature);
    state.order = ranked.map(({ row }) => row);
    state.chosen = state.order.findIndex((row) => row.feature === before);
    const { features, of } = state.dictionary;
    count.textContent = `${state.order.length.toLocaleString("en")} of ${features.length.toLocaleString("en")} features here; the dictionary has ${of.toLocaleString("en")}`;
    if (state.found && state.found.up_to !== null) count.textContent += `; text was looked for up to feature ${state.found.up_to}`;
    list.scrollTop = state.chosen < 0 ? 0 : Math.max(0, state.chosen * ROW - list.clientHeight / 2);
    draw();
  }

  /** Shows what is found first, unless what is shown is among it. */
  function chooseFirst() {
    if (state.chosen >= 0) return;
    if (state.order.length > 0) {
      choose(0);
      return;
    }
    state.asked += 1;
    const denser = search.value.trim() ? "" : " Denser ones are there by another choice above.";
    const none = search.value.trim() && dense.value !== "1" ? "No feature here of this density is so called, or has such a token or text." : "No feature here is so called, or has such a token or text.";
    card.replaceChildren(element("p", {}, search.value.trim() ? none : `No feature is active on so few tokens.${denser}`));
  }

  async function choose(place) {
    const row = state.order[place];
    if (!row) return;
    state.chosen = place;
    const top = place * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
    const asked = ++state.asked;
    const { dictionary } = state;
    let found;
    try {
      found = await source.card(dictionary, row.feature);
    } catch (error) {
      found = { error: String(error.message ?? error) };
    }
    // A later choice may have been answered before.
    if (asked !== state.asked) return;
    card.replaceChildren(...(found && !found.error ? cardOf(found, dictionary, open) : [element("p", {}, found?.error ?? "There is no card of this feature here.")]));
    card.scrollTop = 0;
    root.dispatchEvent(new CustomEvent("feature", { detail: { dictionary, feature: row.feature, greatest: row.max } }));
  }

  /** Goes to a dictionary; whether it could, and no later wish has come in between. */
  async function turnTo(dictionary) {
    const opened = ++state.opened;
    if (dictionary.features.length === 0 && source.rows) {
      count.textContent = "reading…";
      try {
        dictionary.features = await source.rows(dictionary);
      } catch (error) {
        if (opened !== state.opened) return false;
        card.replaceChildren(element("p", {}, String(error.message ?? error)));
        pick.value = source.dictionaries.indexOf(state.dictionary);
        arrange();
        return false;
      }
    }
    if (opened !== state.opened) return false;
    pick.value = source.dictionaries.indexOf(dictionary);
    state.dictionary = dictionary;
    state.chosen = -1;
    state.found = null;
    return true;
  }

  /** Shows a feature of a run at a site, whatever was searched for; false where it is not in the list. */
  async function open(run, site, feature) {
    const dictionary = source.dictionaries.find((dictionary) => dictionary.run === run && dictionary.site === site);
    if (!dictionary || !(await turnTo(dictionary))) return false;
    search.value = "";
    state.found = null;
    typed += 1;
    if (dictionary.features.some((row) => row.feature === feature && row.density > Number(dense.value))) dense.value = 1;
    arrange();
    const place = state.order.findIndex((row) => row.feature === feature);
    if (place < 0) {
      state.asked += 1;
      draw();
      card.replaceChildren(element("p", {}, `Feature ${feature} of ${run} has no card here: it was not active on these tokens, or is not among those on this page.`));
      return false;
    }
    await choose(place);
    return true;
  }

  list.addEventListener("scroll", draw);
  new ResizeObserver(draw).observe(list);
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(Math.min(Math.max(state.chosen + step, 0), state.order.length - 1));
  });
  const first = async (dictionary) => {
    if (!(await turnTo(dictionary))) return;
    arrange();
    chooseFirst();
    lookFor(0);
  };
  pick.addEventListener("change", () => first(source.dictionaries[pick.value]));
  for (const select of [sort, dense]) {
    select.addEventListener("change", () => {
      arrange();
      state.chosen = -1;
      chooseFirst();
    });
  }
  search.addEventListener("input", async () => {
    state.found = null;
    arrange();
    chooseFirst();
    await lookFor(250);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    list.focus();
  });

  /** Searches the examples for what is in the box, unless something else is typed or opened meanwhile. */
  async function lookFor(pause) {
    const turn = ++typed;
    const { dictionary } = state;
    const text = search.value;
    if (text.trim().length < 2) return;
    await new Promise((done) => setTimeout(done, pause));
    if (turn !== typed) return;
    let found;
    try {
      found = await source.search(dictionary, text);
    } catch (error) {
      if (turn === typed) count.textContent = String(error.message ?? error);
      return;
    }
    if (turn !== typed || dictionary !== state.dictionary) return;
    state.found = { ...found, features: new Set(found.features) };
    arrange();
    chooseFirst();
  }
  first(source.dictionaries[0]);
  return open;
}

/** The elements of a card. */
function cardOf(card, dictionary, open) {
  const facts = [
    ["Active on", `${card.active.toLocaleString("en")} of ${dictionary.tokens.toLocaleString("en")} tokens, ${share(card.density)}`],
    ["Activation", `mean ${significant(card.mean)}, greatest ${significant(card.max)}`],
    ["Decoder norm", card.decoder_norm === null ? NONE : significant(card.decoder_norm)],
    ["Encoder bias", significant(card.encoder_bias)],
  ];
  const pairs = element("dl", { class: "facts" }, facts.map(([key, value]) => element("div", {}, [element("dt", {}, key), element("dd", {}, value)])));
  const lens = (title, tokens) =>
    element("div", {}, [
      element("h4", {}, title),
      element("ol", { class: "lens" }, tokens.map(([text, logit]) => element("li", {}, [element("bdi", { class: "token", title: text.length > LETTERS ? text : null }, shownToken(text)), element("span", { class: "n" }, `${logit > 0 ? "+" : ""}${significant(logit)}`)]))),
    ]);
  const link = (run, feature, words) => {
    const button = element("button", { type: "button", class: "plain" }, words);
    button.addEventListener("click", () => open(run, dictionary.site, feature));
    return button;
  };
  const near = card.near.map((near) => link(near.run ?? dictionary.run, near.feature, `${near.feature}${near.run ? ` of ${near.run}` : ""} · ${significant(near.cosine)}`));
  const partners = card.partners.map((partner) => link(dictionary.run, partner.feature, `${partner.feature} · ×${significant(partner.lift)}`));
  const nodes = [
    element("h3", {}, `Feature ${card.feature}`),
    pairs,
    histogram(card),
  ];
  if (card.explanation) {
    const [text, judge] = card.explanation;
    nodes.splice(1, 0, element("p", { class: "explanation" }, [element("bdi", {}, text), element("small", {}, ` ${judge}`)]));
  }
  let last;
  const showExample = (example) => {
    const title = example.interval === null ? "Highest activations" : `Activations from ${significant((card.max * example.interval) / 5)} to ${significant((card.max * (example.interval + 1)) / 5)}`;
    if (title !== last) nodes.push(element("h4", {}, title));
    last = title;
    nodes.push(exampleOf(example, card));
  };
  // What people look for first; the rest of the examples comes last.
  card.examples.filter((example) => example.interval === null).slice(0, FIRST_EXAMPLES).forEach(showExample);
  const rest = card.examples.filter((example, place) => example.interval !== null || place >= FIRST_EXAMPLES);
  if (card.highest.length > 0) {
    nodes.push(element("div", { class: "lenses" }, [lens("Makes likelier, directly", card.highest), lens("Makes less likely", card.lowest)]));
  }
  if (near.length > 0) nodes.push(element("h4", {}, "Nearest dictionary elements, with cosines"), element("div", { class: "links" }, near));
  if (partners.length > 0) nodes.push(element("h4", {}, "Active together with, times as often as by chance"), element("div", { class: "links" }, partners));
  if (rest[0]?.interval === null) last = "";
  rest.forEach(showExample);
  return nodes;
}

/** A window of text, its tokens the stronger coloured the more active the feature is. */
function exampleOf(example, card) {
  const tokens = example.tokens.map((text, place) => {
    const activation = example.activations[place];
    const is = activation > 0;
    const node = element("bdi", { class: is ? "token active" : "token", title: is ? `${significant(activation)}${text.length > LETTERS ? `\n${text}` : ""}` : null }, shownToken(text));
    if (is) node.style.setProperty("--share", `${Math.round(15 + 75 * Math.min(1, activation / card.max))}%`);
    if (place === example.position) node.classList.add("peak");
    return node;
  });
  return element("p", { class: "example" }, [element("span", { class: "n", title: example.source }, significant(example.peak)), element("span", { class: "text" }, tokens)]);
}

/** How often the feature has which activation; heights are logarithms of counts. */
function histogram(card) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(...card.histogram);
  const words = `Histogram of ${card.active} activations from 0 to ${significant(card.max)}, heights are logarithms of counts`;
  const shown = card.histogram.slice(0, Math.ceil(card.max / card.histogram_width));
  for (const [key, value] of [["viewBox", `0 0 ${10 * shown.length} 40`], ["class", "histogram"], ["role", "img"], ["aria-label", words], ["preserveAspectRatio", "none"]]) svg.setAttribute(key, value);
  shown.forEach((n, place) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = n > 0 ? Math.max(1.5, (38 * Math.log1p(n)) / Math.log1p(most)) : 0;
    for (const [key, value] of [["x", 10 * place + 0.5], ["y", 40 - height], ["width", 9], ["height", height]]) bar.setAttribute(key, value);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `${n} tokens, ${significant(place * card.histogram_width)} to ${significant((place + 1) * card.histogram_width)}`;
    bar.append(title);
    svg.append(bar);
  });
  return element("figure", { class: "counts" }, [svg, element("figcaption", {}, [element("span", {}, "0"), element("span", {}, "tokens by activation (logarithmic)"), element("span", {}, significant(card.max))])]);
}
