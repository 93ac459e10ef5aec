// The cards of a scheduler's tasks and of a fleet's workers: of the whole recording, above what is told of one process.

const BESIDE = "(the worker itself)";

const firstTasks = (headings, rows, rowOf, options) => firstRows(headings, rows, narrow() ? 5 : 10, rowOf, options);

function fleetCard(fleet) {
  if (!fleet) return null;
  const hosts = new Set(fleet.workers.map((one) => one.host)).size;
  return card(`${plural(fleet.workers.length, "worker")} on ${plural(hosts, "host")}`, "", { id: "fleet" },
    element("p", { class: "summary" }, fleet.summary), fleet.advice ? element("p", { class: "advice" }, fleet.advice) : null);
}

function prefixesCard(tasks) {
  if (!tasks.length) return null;
  const names = ["tasks", "time", "held", "waited", "%", "longest wait", "in locks", "made wait"];
  const row = (one) => element("tr", {}, element("td", { class: "site", "data-label": "tasks named" }, element("div", {}, ...breakable(one.prefix || BESIDE)),
    one.worst ? element("small", {}, `${duration(one.worst_ns)} of that ${one.worst}`) : null),
    ...labelled(names, [one.prefix ? whole(one.tasks) : "", one.prefix ? duration(one.ns) : "", duration(one.held_ns), duration(one.waited_ns),
      one.prefix ? share(one.waited_ns, one.ns) : "", duration(one.wait_max_ns), one.prefix ? duration(one.blocked_ns) : "", duration(one.cost_ns)]));
  return card("What each kind of task lost", "waited for the GIL, and slept in locks; and for how long others waited while it held the GIL", { id: "tasks" },
    ...firstTasks(["tasks named", ...names], tasks, row, { class: "blame", label: "what each kind of task lost" }));
}

function taskBlameCard(blame) {
  if (!blame.length) return null;
  const names = ["lost", "times", "longest", "processes"];
  const side = (prefix, site, label, also) => element("td", { class: "site", "data-label": label }, element("div", {}, ...breakable(site ? place(site) || "?" : "its time was up, or to the end")),
    element("small", {}, site ? `${prefix || BESIDE}${also}` : ""));
  const row = (one) => element("tr", {}, side(one.prefix, one.victim, "who waited", one.cause === "gil" ? "" : `, ${BLOCK_TEXT[one.cause]}`),
    side(one.culprit_prefix, one.culprit, "for whom", ""), ...labelled(names, [duration(one.ns), whole(one.count), duration(one.max_ns), whole(one.processes)]));
  return card("Which tasks made which wait", "for the GIL, unless a lock is named", { id: "task-blame" },
    ...firstTasks(["who waited", ["for whom", "left"], ...names], blame, row, { class: "blame", label: "which tasks made which wait" }));
}

function workersCard(fleet, processes, show) {
  if (!fleet) return null;
  const names = ["pid", "tasks", "GIL held", "tasks waited", "of their time", "beside tasks", "clock within"];
  const row = (one) => {
    const at = processes.findIndex((each) => each.pid === one.pid);
    const name = at < 0 ? element("span", {}, one.worker) : element("button", { type: "button", class: "link", onclick: () => show(at) }, one.worker);
    return element("tr", at < 0 ? {} : { "data-at": at }, element("td", { class: "process" }, `${one.host} `, name),
      ...labelled(names, [String(one.own_pid), whole(one.tasks), share(one.held_ns, one.duration_ns), duration(one.waited_ns),
        share(one.waited_ns, one.task_ns), duration(one.own_waited_ns), duration(one.clock_error_ns)]));
  };
  const rows = [...fleet.workers].sort((a, b) => a.host.localeCompare(b.host) || b.waited_ns - a.waited_ns);
  return card("By host and worker", "", { id: "workers" }, ...firstTasks(["host and worker", ...names], rows, row, { label: "workers by host" }));
}

// What is told of the whole recording, above one process.
function tasksCards(data, show) {
  return [fleetCard(data.fleet), prefixesCard(data.tasks), taskBlameCard(data.task_blame), workersCard(data.fleet, data.processes, show)].filter(Boolean);
}
