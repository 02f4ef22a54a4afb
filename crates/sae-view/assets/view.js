// `sae view`: the browser of features over the server's dictionaries, and a prompt to try.

/** What the server answers, as JSON; its words where it refuses. */
async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

const byId = (id) => document.getElementById(id);
/** Less than what edits change where they change anything: what is left of a rounding. */
const NOTHING = 1e-6;
const percent = (share) => (share >= 0.001 ? `${(100 * share).toFixed(1)} %` : `${significant(100 * share)} %`);

/** The features of a dictionary, read once. */
async function rowsOf(dictionary) {
  if (dictionary.features.length === 0) dictionary.features = await ask(`rows?dictionary=${dictionary.dictionary}`);
  return dictionary.features;
}

function promptBox(about, open) {
  const runs = [...new Set(about.dictionaries.map((dictionary) => dictionary.run))];
  const edits = [];
  /** The run whose answer is shown. */
  let answered = null;
  /** Of the run that is tried, the tokens of every feature, by site. */
  const tokens = new Map();
  byId("run").replaceChildren(...runs.map((run) => element("option", { value: run }, run)));
  byId("prompt").hidden = false;

  function drawEdits() {
    const own = edits.filter((edit) => edit.run === byId("run").value);
    byId("edits").replaceChildren(
      ...own.map((edit) => {
        const how = element("select", { "aria-label": "Change" }, [["ablate", "leave out"], ["scale", "multiply by"], ["set", "set to"]].map(([value, label]) => element("option", { value }, label)));
        how.value = edit.how;
        const value = element("input", { type: "number", step: "any", "aria-label": "By how much", value: edit.value });
        value.hidden = edit.how === "ablate";
        how.addEventListener("change", () => {
          edit.how = how.value;
          value.hidden = edit.how === "ablate";
        });
        // An empty field is no number, and the server says so.
        value.addEventListener("input", () => (edit.value = value.value === "" ? null : Number(value.value)));
        const gone = element("button", { type: "button", class: "plain" }, "Take back");
        gone.addEventListener("click", () => {
          edits.splice(edits.indexOf(edit), 1);
          drawEdits();
        });
        return element("div", { class: "edit" }, [element("span", {}, `Feature ${edit.feature} at ${edit.site}:`), how, value, gone]);
      }),
    );
  }

  /** Another run: what was found belongs to the one before. */
  function turnTo(run) {
    byId("run").value = run;
    if (answered !== null && answered !== run) {
      answered = null;
      byId("answer").replaceChildren();
      byId("said").textContent = byId("text").value ? `Try it again, with the dictionaries of ${run}.` : "";
    }
    drawEdits();
  }

  function addEdit(dictionary, feature, greatest) {
    turnTo(dictionary.run);
    const is = (edit) => edit.run === dictionary.run && edit.site === dictionary.site && edit.feature === feature;
    if (!edits.some(is)) edits.push({ run: dictionary.run, site: dictionary.site, feature, how: "ablate", value: greatest });
    drawEdits();
    byId("prompt").scrollIntoView({ block: "start" });
    byId("said").textContent = byId("text").value ? "Try it again to see what the edit changes." : "Write a text, then try it.";
  }

  async function tryIt() {
    if (byId("try").disabled) return;
    if (byId("text").value === "" && !byId("bos").checked) {
      byId("said").textContent = "Write a text first.";
      return;
    }
    const run = byId("run").value;
    const own = edits.filter((edit) => edit.run === run);
    const change = (edit) => ({ ablate: { scale: 0 }, scale: { scale: edit.value }, set: { set: edit.value } })[edit.how];
    byId("try").disabled = true;
    byId("said").textContent = "The model is at it…";
    try {
      const question = { run, text: byId("text").value, bos: byId("bos").checked, edits: own.map((edit) => ({ site: edit.site, feature: edit.feature, ...change(edit) })) };
      const answer = await ask("prompt", question);
      // What their tokens are tells more than a number.
      for (const dictionary of about.dictionaries.filter((own) => own.run === run)) {
        tokens.set(dictionary.site, new Map((await rowsOf(dictionary)).map((row) => [row.feature, row.tokens])));
      }
      // Another run was turned to meanwhile.
      if (byId("run").value !== run) return;
      byId("said").textContent = answer.was_cut ? "The beginning was left out: the text is longer than the context." : "";
      drawAnswer(answer, run);
    } catch (error) {
      byId("said").textContent = String(error.message ?? error);
    } finally {
      byId("try").disabled = false;
    }
  }

  function drawAnswer(answer, run) {
    answered = run;
    const found = element("div", { class: "found", "aria-live": "polite" });
    const buttons = answer.tokens.map((token, place) => {
      const button = element("button", { type: "button", "aria-pressed": "false" }, element("bdi", {}, shownToken(token.text) || "∅"));
      button.addEventListener("click", () => pick(place));
      return button;
    });
    const pick = (place) => {
      buttons.forEach((button, own) => button.setAttribute("aria-pressed", String(own === place)));
      found.replaceChildren(...foundOf(answer.tokens[place], run));
    };
    byId("answer").replaceChildren(element("div", { class: "prompt-tokens", role: "group", "aria-label": "Tokens of the prompt" }, buttons), found);
    pick(answer.tokens.length - 1);
  }

  const likely = (title, note, tokens) =>
    element("div", {}, [
      element("h3", {}, [title, element("small", {}, note)]),
      element("ol", { class: "likely" }, tokens.map(([text, probability]) => {
        const node = element("li", {}, [element("bdi", { class: "token", title: text.length > LETTERS ? text : null }, shownToken(text)), element("span", { class: "n" }, percent(probability))]);
        node.style.setProperty("--share", `${100 * probability}%`);
        return node;
      })),
    ]);

  function foundOf(token, run) {
    const kl = (value, what) => `KL ${significant(value)} nats from ${what}`;
    const nodes = [likely("Original model, next", "", token.original), likely("Dictionaries spliced in", kl(token.kl_spliced, "the original"), token.spliced)];
    if (token.kl_edited !== null) {
      const note = `${kl(token.kl_edited, "the original")}, ${significant(token.kl_of_edits)} from the spliced`;
      nodes.push(likely("… and edited", note, token.edited));
      const changes = token.changes.map(([text, before, after]) =>
        element("li", {}, [element("bdi", { class: "token" }, shownToken(text)), element("span", { class: `n ${after > before ? "rise" : "fall"}` }, `${percent(before)} → ${percent(after)}`)]),
      );
      const changed = token.changes.some(([, before, after]) => Math.abs(after - before) > NOTHING);
      const shown = changed ? element("ol", { class: "likely" }, changes) : element("p", {}, "Nothing: the edits change no probability here. A feature that is left out or multiplied has to be active on this token or one before it.");
      nodes.push(element("div", {}, [element("h3", {}, ["What the edits change most", element("small", {}, changed ? "probability before → after" : "")]), shown]));
    }
    for (const active of token.active) {
      const greatest = active.features[0]?.[1] ?? 1;
      const features = active.features.map(([feature, activation]) => {
        const show = element("button", { type: "button" }, String(feature));
        show.setAttribute("aria-label", `Show feature ${feature}`);
        show.addEventListener("click", () => {
          open(run, active.site, feature);
          byId("features").scrollIntoView({ block: "start" });
        });
        const edit = element("button", { type: "button", title: `Edit feature ${feature}`, "aria-label": `Edit feature ${feature}` }, "edit");
        edit.addEventListener("click", () => addEdit({ run, site: active.site }, feature, activation));
        const words = (tokens.get(active.site)?.get(feature) ?? []).map((token) => element("bdi", { class: "token" }, shownToken(token)));
        const node = element("li", {}, [show, element("span", { class: "words" }, words), element("span", { class: "n" }, [significant(activation), " ", edit])]);
        node.style.setProperty("--share", `${(100 * activation) / greatest}%`);
        return node;
      });
      const rest = active.n > features.length ? `, the strongest of ${active.n}` : "";
      nodes.push(element("div", {}, [element("h3", {}, ["Active features ", element("small", {}, `at ${active.site}${rest}`)]), element("ol", { class: "likely" }, features)]));
    }
    return nodes;
  }

  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    tryIt();
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    tryIt();
  });
  byId("run").addEventListener("change", () => turnTo(byId("run").value));
  return { addEdit, turnTo };
}

async function start() {
  themeButton();
  const about = await ask("about");
  document.title = `${about.name} – SAE features`;
  byId("name").textContent = about.name;
  byId("report").hidden = !about.has_report;
  const root = document.querySelector(".browser");
  const open = featureBrowser(root, {
    dictionaries: about.dictionaries,
    rows: rowsOf,
    card: (dictionary, feature) => ask(`card?dictionary=${dictionary.dictionary}&feature=${feature}`),
    search: (dictionary, text) => ask(`search?dictionary=${dictionary.dictionary}`, text),
  });
  if (!about.has_model) return;
  const { addEdit, turnTo } = promptBox(about, open);
  // The prompt goes with the dictionary that is looked at.
  let looked = about.dictionaries[0].run;
  root.addEventListener("feature", ({ detail: { dictionary, feature, greatest } }) => {
    if (dictionary.run !== looked) turnTo(dictionary.run);
    looked = dictionary.run;
    const edit = element("button", { type: "button", class: "plain" }, "Edit it in a prompt");
    edit.addEventListener("click", () => addEdit(dictionary, feature, greatest));
    root.querySelector(".card h3")?.after(edit);
  });
}

start().catch((error) => {
  byId("error").hidden = false;
  byId("error").textContent = String(error.message ?? error);
});
