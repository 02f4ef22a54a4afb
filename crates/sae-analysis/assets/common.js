// What all pages share: elements, numbers, the theme.

const NONE = "–";

/** An element; attributes `onclick` and the like are listeners. Text only ever becomes text nodes. */
function element(name, attributes, children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...[children ?? []].flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byText = (a, b) => a.localeCompare(b, "en", { numeric: true });

const number = (value) => String(Number(value.toPrecision(4)));

// ---- theme: the system's until the reader says otherwise

const dark = matchMedia("(prefers-color-scheme: dark)");

function themeButton() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
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
  if (before === "dark" || before === "light") root.dataset.theme = before;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    name();
  });
  dark.addEventListener("change", name);
  name();
}
