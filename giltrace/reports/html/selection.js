// What the page is asked about: a stretch of time, a role or a thread, a text, the user's own code; and the link that
// says so.

// "1.5s..2s" is a stretch in ns, as for `giltrace report --window`; null if it is none.
function windowOf(text) {
  const found = /^([\d.]+)(ns|us|ms|s)\.\.([\d.]+)(ns|us|ms|s)$/.exec(text || "");
  const size = { ns: 1, us: 1e3, ms: 1e6, s: 1e9 };
  return found ? [Number(found[1]) * size[found[2]], Number(found[3]) * size[found[4]]] : null;
}

// A word of a command line.
const quoted = (word) => (/^[\w./:@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
// A name that is not to be taken for a pattern; a role is one.
const literal = (name) => name.replace(/[*?[]/g, "[$&]");

class Selection {
  constructor(data) {
    this.data = data;
    Object.assign(this, { process: 0, window: null, role: null, thread: null, find: "", own: false });
  }

  // The lanes of those who are asked about; null for everybody.
  who(process) {
    if (this.role === null && this.thread === null) return null;
    const lanes = process.thread_lanes.map((_, at) => at);
    return new Set(lanes.filter((at) => {
      const thread = process.threads[at];
      return this.role !== null ? thread.role === this.role : threadName(thread) === this.thread;
    }));
  }

  get narrowed() {
    return this.window !== null || this.role !== null || this.thread !== null;
  }

  link() {
    const parts = new URLSearchParams();
    const several = this.data.processes.length > 1;
    if (several && this.process) parts.set("process", this.data.processes[this.process].pid);
    for (const name of ["window", "role", "thread"]) if (this[name] !== null) parts.set(name === "window" ? "t" : name, this[name]);
    if (this.find) parts.set("find", this.find);
    if (this.own) parts.set("own", "1");
    return parts.toString();
  }

  read(hash) {
    const parts = new URLSearchParams(hash.replace(/^#/, ""));
    const at = this.data.processes.findIndex((process) => String(process.pid) === parts.get("process"));
    Object.assign(this, { process: Math.max(at, 0), window: windowOf(parts.get("t")) ? parts.get("t") : null, role: parts.get("role"),
      thread: parts.get("thread"), find: parts.get("find") || "", own: parts.get("own") === "1" });
    const process = this.data.processes[this.process];
    // A link to what this page has not.
    if (process && this.who(process) && !this.who(process).size) Object.assign(this, { role: null, thread: null });
  }

  // What says the same in a terminal, where there is a verdict of it, too.
  command() {
    const { processes, title, part } = this.data;
    if (part) return "";
    const words = ["giltrace", "report", quoted(title)];
    if (this.window !== null) words.push("--window", this.window);
    if (processes.length > 1) words.push("--process", String(processes[this.process].pid));
    if (this.role !== null) words.push("--role", quoted(this.role));
    if (this.thread !== null) words.push("--thread", quoted(literal(this.thread)));
    return words.join(" ");
  }
}

// The row of what is asked about; `changed` is called when something else is.
function controls(selection, changed) {
  const find = element("input", { type: "search", id: "find", placeholder: "thread, function or file", oninput: () => {
    selection.find = find.value;
    changed();
  } });
  const who = element("select", { id: "who", onchange: () => {
    const [kind, name] = [who.value.slice(0, 2), who.value.slice(2)];
    Object.assign(selection, { role: kind === "r:" ? name : null, thread: kind === "t:" ? name : null });
    changed();
  } });
  const own = element("input", { type: "checkbox", id: "own", onchange: () => {
    selection.own = own.checked;
    changed();
  } });
  const all = element("button", { type: "button", id: "everything", onclick: () => {
    Object.assign(selection, { window: null, role: null, thread: null, find: "" });
    changed();
  } }, "Everything");
  const link = copyButton("Copy link", "Copy link to this page as it is", () => location.href);
  const made = element("div", { class: "controls", role: "search", "aria-label": "What this page is asked about" },
    element("label", {}, "find ", find), element("label", {}, "threads ", who), element("label", {}, own, " own code only"), link, all);
  return {
    made,
    fill(process) {
      const lanes = process.thread_lanes.map((_, at) => process.threads[at]);
      const roles = lanes.map((one) => one.role).filter((role, at, all) => role && all.indexOf(role) < at);
      const group = (label, kind, names) => (names.length ? [element("optgroup", { label }, ...[...new Set(names)].map((name) => element("option", { value: kind + name }, name)))] : []);
      who.replaceChildren(element("option", { value: "" }, "all"), ...group("roles", "r:", roles), ...group("threads", "t:", lanes.map(threadName)));
    },
    show() {
      if (find.value !== selection.find) find.value = selection.find;
      who.value = selection.role !== null ? `r:${selection.role}` : selection.thread !== null ? `t:${selection.thread}` : "";
      own.checked = selection.own;
      all.hidden = !selection.narrowed && !selection.find;
    },
  };
}

// What is selected, in words; it stands where the verdict on the whole process does.
function selectionCard(selection, process, whole) {
  const { data } = selection;
  const where = [selection.window ? selection.window.replace("..", " to ").replace(/(\d)([a-z])/g, "$1 $2") : "", selection.role ?? selection.thread ?? ""].filter(Boolean).join(", ");
  const [worst] = process.findings;
  const waited = waitedOf(process);
  const [first] = process.blame;
  const lost = worst ? `${percent(worst.ns / Math.max(waited, 1))} of it lost to ${worst.cause}` : "";
  const most = first ? `Most of it: ${siteName(first.victim)} waited ${duration(first.ns)} for ${siteName(first.culprit)}.` : "";
  const lanes = whole.thread_lanes.length;
  const command = selection.command();
  const coarse = `Counted on the lanes, at a resolution of ${duration(data.tick_ns)}`
    + (whole.threads.length + whole.more_threads > lanes ? `, of the ${String(lanes)} threads that have one` : "") + ".";
  return card("", "", { id: "selected" }, element("div", { class: "verdict" }, element("div", {},
    element("span", { class: "badge" }, "Selected"),
    element("p", { class: "summary" }, `${where}: ${waited ? [`threads waited ${duration(waited)} for the GIL`, lost].filter(Boolean).join(", ") : "nobody waited for the GIL"}`),
    most ? element("p", { class: "advice" }, most) : null,
    element("p", { class: "soft small" }, coarse, command ? " The verdict on it, with the critical path and what-if: " : "", command ? element("code", {}, command) : ""))));
}
