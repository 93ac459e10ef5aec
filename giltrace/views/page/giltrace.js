"use strict";
// Added to the Perfetto UI that `giltrace view` serves. It tells the server that the page is there, and puts the rows of
// a trace in an order that the trace itself cannot ask for: the UI numbers the rows of all threads on end, and what has
// a number above 10 comes below a thread's states, above 50 below all processes.

// Unlike a timer, a connection is not slowed in the background.
new EventSource("alive");

const GROUP = /^Cut$|^GIL( \d+)? \(pid \d+\)/;
const OF_A_THREAD = /^GIL of /;
// What the UI makes of any trace with context switches, and has nothing of the GIL in it.
const ASIDE = ["Ftrace Events", "Scheduler", "System"];

function toFront(parent, nodes) {
  for (const node of nodes.reverse()) parent.addChildFirst(node);
}

function arrange(trace) {
  const top = trace.workspace.tracks;
  const groups = top.children.filter((node) => GROUP.test(node.name));
  if (!groups.length) return;
  toFront(top, groups);
  for (const process of top.children) {
    for (const thread of process.children) {
      if (thread.headless) toFront(thread, thread.children.filter((row) => OF_A_THREAD.test(row.name)));
    }
  }
  for (const node of top.children.filter((node) => ASIDE.includes(node.name))) node.remove();
}

// Without any of this the trace is there all the same: a UI that is made otherwise shows it in its own order.
const waiting = setInterval(() => {
  const app = window.app;
  if (!app?.trace) return;
  clearInterval(waiting);
  if (app.isLoadingTrace) app.trace.onTraceReady.addListener(() => arrange(app.trace));
  else {
    arrange(app.trace);
    app.raf.scheduleFullRedraw();
  }
}, 20);
