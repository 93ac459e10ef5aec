// Cards and tables, which fold and unfold, are searched, and can be copied.

function card(title, about, options, ...children) {
  const head = title ? element("header", {}, element("h2", {}, title), about ? element("p", { class: "soft small" }, about) : null) : null;
  const made = element("section", { ...options, class: `card ${options.class || ""}` }, head, ...children);
  if (head && made.querySelector("table.copied")) head.append(element("div", { class: "buttons copy" }, copyButton("Copy", `Copy the table: ${title}`, () => tableText(made.querySelector("table.copied")))));
  return made;
}

// A table that scrolls by itself where it is too wide; headings are text, or text and a class.
function table(headings, rows, options = {}) {
  const head = headings.map((heading) => [heading].flat()).map(([text, kind]) => element("th", { scope: "col", class: kind }, text));
  const body = element("tbody", {}, ...rows);
  return { body, made: element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${options.label}` },
    element("table", { ...options, label: undefined, class: `copied ${options.class || ""}` }, element("thead", {}, element("tr", {}, ...head)), body)) };
}

// A table of which so many rows are there at `first`, and the rest once it is asked for.
function firstRows(headings, rows, first, rowOf, options) {
  const { body, made } = table(headings, rows.slice(0, first).map(rowOf), options);
  const rest = rows.slice(first);
  const more = rest.length ? element("button", { type: "button", style: { marginTop: "8px" }, onclick: () => {
    body.append(...rest.map(rowOf));
    more.remove();
  } }, `${whole(rest.length)} more`) : null;
  return [made, more];
}

// What is to be seen of a table, as a spreadsheet takes it: cells between tabs, rows in lines. Cells that would be taken
// for formulas begin with a mark that says they are text.
function tableText(made) {
  const cell = (one) => one.innerText.replace(/\s+/g, " ").trim().replace(/^[=+\-@](?=.*[^-.\d])/, "'$&");
  return [...made.rows].map((row) => [...row.cells].map(cell).join("\t")).join("\n");
}

function copyButton(text, label, textOf) {
  const made = element("button", { type: "button", "aria-label": label, title: label, onclick: async () => {
    made.textContent = (await copied(textOf())) ? "Copied" : "Not allowed";
    setTimeout(() => { made.textContent = text; }, 1500);
  } }, text);
  return made;
}

// Whether the browser let it be copied. Pages that were not loaded over HTTPS have no clipboard of the newer kind.
async function copied(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* The older way may be allowed. */ }
  }
  const area = element("textarea", { class: "aside" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

const cells = (texts) => texts.map((text) => element("td", {}, text));
// Cells that are told by the names of their columns where there is no room for these above.
const labelled = (names, texts) => texts.map((text, at) => element("td", { "data-label": names[at] }, text));

// Rows that come below `row` once its button is pressed, and go when it is pressed again.
function unfolding(row, text, below) {
  const button = element("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) for (const one of rows) one.remove();
    else row.after(...rows);
  } }, text);
  const rows = below();
  row.firstChild.append(button);
  return row;
}
