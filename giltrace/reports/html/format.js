"use strict";
// Everything that people read: made as text, never as markup, since names come from the recorded program.

const STATES = ["holding-running", "holding-runnable", "holding-blocked", "waiting", "off-running", "off-runnable",
  "off-blocked", "off", "in-lock"];
const STATE_TEXT = {
  "holding-running": "holds the GIL, runs", "holding-runnable": "holds the GIL, has no core",
  "holding-blocked": "holds the GIL, sleeps", "waiting": "waits for the GIL", "off-running": "off the GIL, runs",
  "off-runnable": "off the GIL, has no core", "off-blocked": "off the GIL, sleeps", "off": "off the GIL",
  "in-lock": "blocked in a lock",
};
// What a block is for: in the order of their numbers, as reports call it and as people read it.
const BLOCK_TEXT = {
  "lock": "in a lock", "condition": "for a condition", "event": "for an event", "barrier": "at a barrier", "semaphore": "for a semaphore",
  "queue": "for a queue", "join": "for a thread's end", "start": "for a thread's start", "future": "for a future", "import-lock": "for an import",
  "logging-lock": "in logging's lock", "process-lock": "in a shared lock", "object-lock": "in an object's lock", "stop-the-world": "stopped by another",
  "other-lock": "in Python's own lock",
};
const BLOCK_CAUSES = Object.keys(BLOCK_TEXT);
// What threads did, as reports call it, and as it is told before the line where they did.
const DID_TEXT = {
  "python": "ran Python up to", "waiting": "waited for the GIL at", "lock": "was itself blocked at", "asleep": "was asleep or in I/O at",
  "native": "ran native code at", "no-core": "had no core at", "off": "was off the GIL at", "asleep-with-gil": "slept with the GIL at",
};
const DOING_TEXT = { "python": "ran Python", "waiting": "waited for the GIL", "asleep": "asleep or in I/O", "native": "in native code", "no-core": "ready, but no core", "off": "off the GIL", "asleep-with-gil": "slept with the GIL" };
// What they were asleep for, where that is told: numbered likewise, from 1 on.
const ASLEEP_TEXT = {
  "sleep": "in a sleep", "ready-io": "for I/O to be ready", "socket": "for a socket", "process-lock": "in a shared lock", "process-queue": "for a shared queue",
  "process-message": "for another process", "process-end": "for a process's end",
};
const ASLEEP_CAUSES = ["", ...Object.keys(ASLEEP_TEXT)];
const doingText = (row) => (row.doing === "asleep" && ASLEEP_TEXT[row.cause]) || (row.doing === "lock" ? BLOCK_TEXT[row.cause] : DOING_TEXT[row.doing]);

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "style") Object.assign(made.style, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(tag, options = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "style") Object.assign(made.style, value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function duration(ns) {
  if (ns === null || ns === undefined) return "-";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (Math.abs(ns) >= size * 0.9995) {
      const value = ns / size;
      return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit}`;
    }
  }
  return `${Math.round(ns)} ns`;
}

const percent = (share) => `${(share * 100).toFixed(1)}%`;
const whole = (number) => (number === null ? "-" : number.toLocaleString("en"));
// What people call a thread: by its id, if it has no name.
const threadName = (thread) => thread.name || `tid ${thread.tid}`;

// Whether a text has what is searched for.
const has = (text, find) => !find || text.toLowerCase().includes(find.toLowerCase());
const plural = (number, noun, several = `${noun}s`) => `${whole(number)} ${number === 1 ? noun : several}`;

// Names of figures end in their unit: _ns, _share, _ratio; the others are counts.
// What a figure of the evidence is part of, or how many times of what, where its name alone would say neither.
const PART_OF = {
  waited: "its life", off_gil: "the threads' lives", top_held: "the held time",
  overlap: "the time in which anything ran", collecting: "what was seen of these holds",
  asleep: "what they overstayed",
};

function figure(name, value) {
  const [, stem, unit] = /^(.*?)(?:_(ns|share|ratio))?$/.exec(name);
  const told = unit === "ns" ? duration(value) : unit === "share" ? `${percent(value)} of ${PART_OF[stem] || "the time"}`
    : unit === "ratio" ? `${value.toFixed(2)} ${stem === "off_running" ? "times as long as held" : ""}`.trim() : Number.isInteger(value) ? whole(value) : value.toFixed(2);
  return [stem.replaceAll("_", " "), told];
}

const file = (path) => path.slice(path.lastIndexOf("/") + 1);

const frame = (name, path, line) => (path ? `${name} (${file(path)}${line > 0 ? `:${line}` : ""})` : name);

// The user's own line, and in brackets what that led to in a library.
function place(site) {
  if (!site.function) return "";
  const leaf = frame(site.function, site.file, site.line);
  const own = site.own_function ? frame(site.own_function, site.own_file, site.own_line) : leaf;
  return (own === leaf ? own : `${own} [${leaf}]`) + (site.own ? " [giltrace]" : "");
}

// The function of the own line, without the line.
function functionName(site) {
  if (!site.function) return site.thread;
  const name = site.own_function ? frame(site.own_function, site.own_file, 0) : frame(site.function, site.file, 0);
  return `${site.thread}: ${name}${site.own ? " [giltrace]" : ""}`;
}

const siteName = (site) => (site.function ? `${site.thread}: ${place(site)}` : site.thread);

function ranges(cores) {
  const parts = [];
  for (const core of cores) {
    const last = parts[parts.length - 1];
    if (last && core === last[1] + 1) last[1] = core;
    else parts.push([core, core]);
  }
  return parts.map(([low, high]) => (low === high ? `${low}` : `${low}-${high}`)).join(",");
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// The name of a thread's colour; after eight threads they begin again.
const threadColour = (at) => `thread-${at % 8}`;

// Text that may be broken after the marks in names, so that it need not be broken inside of words; "(file.py:12)" stays
// in one piece but for its underscores.
function breakable(text) {
  return text.split(/(?<=_)(?=[^_])|(?<=[./])(?=[^()]*(?:\(|$))/).flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));
}

const tip = {
  show(event, title, lines) {
    const box = document.getElementById("tip");
    box.replaceChildren(element("b", {}, title), ...lines.filter(Boolean).map((line) => element("div", {}, line)));
    box.hidden = false;
    const x = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
    const below = event.clientY + 16;
    const y = below + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10 : below;
    box.style.left = `${Math.max(x, 4)}px`;
    box.style.top = `${Math.max(y, 4)}px`;
  },
  hide() {
    document.getElementById("tip").hidden = true;
  },
};

function tipped(made, title, ...lines) {
  made.addEventListener("pointermove", (event) => tip.show(event, title, lines));
  made.addEventListener("pointerleave", tip.hide);
  return made;
}
