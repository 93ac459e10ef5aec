// The cards of the time without the GIL: where threads were, who made whom wait in locks, and what the end hung on.

// So many rows are there at first, each with this share of all at least.
const FIRST_PLACES = 8;
const LEAST_PLACE = 0.01;

// A table of `rows` of which the first that are worth to tell are there, and the rest once it is asked for.
function longTable(headings, rows, rowOf, options) {
  const total = sum(rows, "ns");
  const telling = rows.slice(0, FIRST_PLACES).filter((row) => row.ns >= LEAST_PLACE * total).length || 1;
  return firstRows(headings, rows, telling, rowOf, options);
}

function whereaboutsCard(process) {
  const rows = process.whereabouts.filter((row) => has(siteName(row.site), process.find) || has(doingText(row), process.find));
  if (!rows.length) return null;
  const { whereabouts_ns: total, more_whereabouts: more } = process;
  const row = (one) => element("tr", {}, siteCell(one.site, null, "where"), element("td", { class: "left", "data-label": "doing" }, doingText(one)),
    ...labelled(["time", "%"], [duration(one.ns), percent(one.ns / total)]));
  return card("Where threads were without the GIL", `all threads together; exact${more ? `; ${whole(more)} smaller rows left out` : ""}`, { id: "whereabouts" },
    ...longTable(["where", ["doing", "left"], "time", "%"], rows, row, { class: "blame", label: "where threads were without the GIL" }));
}

const wakerName = (row) => (row.waker === null ? "its time was up, or to the end" : row.waker.function ? siteName(row.waker) : `${row.waker.thread} ended`);

// What those did meanwhile that had the lock, or were to bring what was waited for; of that what is a tenth or more.
function meanwhileList(row) {
  const told = row.meanwhile.filter((one) => one.ns >= 0.1 * row.ns).map((one) => {
    const did = one.site.function ? `${DID_TEXT[one.doing]} ${place(one.site)}` : DID_TEXT[one.doing].replace(/ (up to|at)$/, "");
    return `${percent(Math.min(one.ns / Math.max(row.ns, 1), 1))} of that it ${did}`;
  });
  if (row.speedup_bound) told.push(`without this lock the whole would be at most ${row.speedup_bound.toFixed(2)} x as fast`);
  return told.map((text) => element("small", {}, ...breakable(text)));
}

function locksCard(process) {
  const rows = process.lock_blame.filter((row) => has(`${siteName(row.victim)} ${wakerName(row)} ${BLOCK_TEXT[row.cause]}`, process.find));
  if (!rows.length) return null;
  const names = ["blocked", "times", "longest"];
  const row = (one) => element("tr", {}, siteCell(one.victim, null, "who was blocked"),
    element("td", { class: "left", "data-label": "in or for" }, BLOCK_TEXT[one.cause] + (["lock", "object-lock"].includes(one.cause) && one.locks.length > 1 ? ` (${one.locks.length} of them)` : "")),
    element("td", { class: "site", "data-label": "until" }, element("div", {}, ...breakable(wakerName(one))), ...meanwhileList(one)),
    ...labelled(names, [duration(one.ns), whole(one.blocks), duration(one.max_ns)]));
  return card("Who made whom wait in locks", process.whole ? "and what those did meanwhile that had the lock" : "what those did meanwhile that had the lock, the report of this part tells", { id: "locks" },
    ...longTable(["who was blocked", ["in or for", "left"], ["until", "left"], ...names], rows, row, { class: "blame", label: "who made whom wait in locks" }));
}

function pathCard(process) {
  const { critical_path: path, duration_ns: wall } = process;
  if (!path.length) return null;
  const row = (one) => element("tr", {}, siteCell(one.site, null, "where"), element("td", { class: "left", "data-label": "doing" }, doingText(one)),
    ...labelled(["time", "%", "without"], [duration(one.ns), percent(one.ns / Math.max(wall, 1)), duration(Math.max(wall - one.ns, 0))]));
  return card("What the end hung on", `the end of the ${process.end_of}; without one of these the whole would take at least`, { id: "path" },
    ...longTable(["where", ["doing", "left"], "time", "%", "without"], path, row, { class: "blame", label: "what the end hung on" }));
}
