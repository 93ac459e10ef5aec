// What a selection shows, in the shapes in which a report tells of a whole process: counted on the lanes, and so as fine
// as these are.

// Calls `visit` for each wait of the lanes `chosen` that lies between `from` and `to` (ticks), as far as it does: with
// the lane's number, the wait's place in it, begin and end.
function eachWait(process, from, to, chosen, visit) {
  for (const number of chosen) {
    const lane = process.thread_lanes[number];
    eachStretch(lane, from, to, (at, start, end) => {
      if (lane.values[at] % 16 === WAITING) visit(number, at, start, end);
    });
  }
}

// Sites by role and stack: each is made once, and has a number.
class Places {
  constructor(process) {
    this.process = process;
    this.stacks = process.stacks.length + FIRST_STACK;
    this.roles = new Map();
    this.ofRole = process.threads.map((thread) => {
      if (!this.roles.has(thread.role)) this.roles.set(thread.role, this.roles.size);
      return this.roles.get(thread.role);
    });
    this.names = [...this.roles.keys(), "a thread without a lane"];
    this.known = new Map();
    this.numbers = new Map();
    this.sites = [];
  }

  role(thread) {
    return thread < this.ofRole.length ? this.ofRole[thread] : this.names.length - 1;
  }

  // The number of the site where a thread is.
  of(thread, stack) {
    const key = this.role(thread) * this.stacks + stack;
    let found = this.known.get(key);
    if (found === undefined) {
      const site = this.site(this.names[this.role(thread)], stack);
      const name = JSON.stringify(site);
      found = this.numbers.get(name);
      if (found === undefined) {
        found = this.sites.push(site) - 1;
        this.numbers.set(name, found);
      }
      this.known.set(key, found);
    }
    return found;
  }

  site(thread, stack) {
    const { frames, stacks, own, own_stacks: giltrace } = this.process;
    const at = stack - FIRST_STACK;
    if (at < 0 || !stacks[at].length) return { thread, function: "", file: "", line: 0, own: false, own_function: "", own_file: "", own_line: 0 };
    const [name, path, line] = frames[stacks[at][0]];
    const [ownName, ownPath, ownLine] = own[at] < 0 ? ["", "", 0] : frames[own[at]];
    return { thread, function: name, file: path, line, own: giltrace.includes(at), own_function: ownName, own_file: ownPath, own_line: ownLine };
  }
}

// Who made whom wait, and what the waits were lost to: `pairs` and `causes`, both by what they cost.
function blameOf(data, process, from, to, chosen) {
  const places = new Places(process);
  const pairs = new Map();
  const causes = data.causes.map((cause) => ({ cause, ns: 0, by: new Map() }));
  let wait = 0;
  eachWait(process, from, to, chosen, (number, at, start, end) => {
    const lane = process.thread_lanes[number];
    const victim = places.of(number, lane.stacks[at]);
    wait++;
    const holder = process.gil_lanes[lane.values[at] >> 4];
    let worst = null;
    if (holder) {
      eachLook(holder, start, end, (held, since, until) => {
        if (holder.values[held] === FREE) return;
        const key = victim * 0x1000000 + places.of(holder.values[held], holder.stacks[held]);
        let pair = pairs.get(key);
        if (!pair) pairs.set(key, pair = { victim, culprit: key % 0x1000000, ns: 0, waits: 0, max_ns: 0, wait: 0, inWait: 0, stacks: [lane.stacks[at], holder.stacks[held]] });
        if (pair.wait !== wait) Object.assign(pair, { wait, waits: pair.waits + 1, inWait: 0 });
        const ns = (until - since) * data.tick_ns;
        pair.ns += ns;
        pair.inWait += ns;
        pair.max_ns = Math.max(pair.max_ns, pair.inWait);
        if (!worst || worst.wait !== wait || pair.inWait > worst.inWait) worst = pair;
      });
    }
    const parts = lane.mixes[at] ? process.mixes[lane.mixes[at] - 1] : [];
    const all = parts.reduce((total, part) => total + part, 0);
    parts.forEach((part, cause) => {
      if (!part) return;
      const ns = ((end - start) * data.tick_ns * part) / all;
      const by = worst || { victim, culprit: null };
      const key = by.victim * 0x1000000 + (by.culprit === null ? 0xffffff : by.culprit);
      causes[cause].ns += ns;
      const sum = causes[cause].by.get(key) || { victim: by.victim, culprit: by.culprit, ns: 0 };
      causes[cause].by.set(key, sum);
      sum.ns += ns;
    });
  });
  const largest = (one, other) => other.ns - one.ns;
  const site = (at) => (at === null ? null : places.sites[at]);
  return {
    pairs: [...pairs.values()].sort(largest).map(({ victim, culprit, ns, waits, max_ns, stacks }, at) => ({
      victim: site(victim), culprit: site(culprit), ns, waits, max_ns,
      victim_stack: at < 50 ? framesOf(process, stacks[0]) : [], culprit_stack: at < 50 ? framesOf(process, stacks[1]) : [],
    })),
    // As in the report, what is less than a hundredth is left out.
    causes: causes.filter((one) => one.ns > 0.01 * sum(causes, "ns")).sort(largest).map(({ cause, ns, by }) => {
      const [most] = [...by.values()].sort(largest);
      return { cause, ns, victim: site(most.victim), culprit: site(most.culprit) };
    }),
  };
}

// What a thread did without the GIL, by the value of its lane; null for all else.
function doingOf(process, value) {
  const state = value % 16;
  if (state === IN_LOCK) return { doing: "lock", cause: BLOCK_CAUSES[value >> 4] };
  // Without a GIL, who runs has nothing to give up.
  if (state < OFF_RUNNING || state > IN_LOCK || (state === OFF_RUNNING && process.free_threaded)) return null;
  return { doing: { "off-running": "native", "off-runnable": "no-core", "off-blocked": "asleep", off: "off" }[STATES[state]], cause: state === OFF_BLOCKED ? ASLEEP_CAUSES[value >> 4] : "" };
}

// A site without the calls that its own line led to.
const lineOf = (site) => (site.own_function ? { ...site, function: site.own_function, file: site.own_file, line: site.own_line } : site);

// Where threads were without the GIL, and who was blocked by whom in locks: `whereabouts` and `lock_blame`.
function withoutOf(data, process, from, to, chosen) {
  const places = new Places(process);
  const [found, pairs] = [new Map(), new Map()];
  const sumOf = (rows, key, first) => rows.get(key) || rows.set(key, first()).get(key);
  // Other threads are a library's own, and do as that wants.
  for (const number of chosen.filter((one) => process.python_lanes.includes(one))) {
    const lane = process.thread_lanes[number];
    let before = -1;
    eachStretch(lane, from, to, (at, start, end) => {
      const told = doingOf(process, lane.values[at]);
      if (!told) return;
      const ns = (end - start) * data.tick_ns;
      const site = places.of(number, lane.stacks[at]);
      sumOf(found, `${site} ${lane.values[at]}`, () => ({ site, ...told, ns: 0 })).ns += ns;
      if (told.doing !== "lock") return;
      const wake = lane.mixes[at];
      const pair = sumOf(pairs, `${site} ${lane.values[at]} ${wake}`, () => ({ site, cause: told.cause, wake, ns: 0, blocks: 0, max_ns: 0, last: 0 }));
      // A block is cut where its thread was ready without a core.
      const goesOn = before === at - 1 && pair.last > 0;
      Object.assign(pair, { ns: pair.ns + ns, blocks: pair.blocks + (goesOn ? 0 : 1), last: (goesOn ? pair.last : 0) + ns });
      pair.max_ns = Math.max(pair.max_ns, pair.last);
      before = at;
    });
  }
  return { whereabouts: added([...found.values()].map((one) => ({ ...one, site: lineOf(places.sites[one.site]) })), (one) => [one.site, one.doing, one.cause]),
    whereabouts_ns: sum([...found.values()], "ns"), more_whereabouts: 0,
    lock_blame: added([...pairs.values()].map(({ site, cause, wake, ns, blocks, max_ns }) => ({
      victim: lineOf(places.sites[site]), waker: wake ? { ...process.wakes[wake - 1], by: undefined } : null, cause, ns, blocks, max_ns, locks: [], meanwhile: [], speedup_bound: 0,
    })), (one) => [one.victim, one.waker, one.cause]) };
}

// Rows that `keyOf` calls the same as one, largest first.
function added(rows, keyOf) {
  const found = new Map();
  for (const row of rows) {
    const key = JSON.stringify(keyOf(row));
    const known = found.get(key);
    if (!known) found.set(key, { ...row });
    else Object.assign(known, { ns: known.ns + row.ns, blocks: known.blocks + row.blocks, max_ns: Math.max(known.max_ns, row.max_ns) });
  }
  return [...found.values()].sort((one, other) => other.ns - one.ns);
}

// Rows of `blame` that `nameOf` calls the same, as one.
function merged(blame, siteOf, nameOf) {
  const rows = new Map();
  for (const row of blame) {
    const [victim, culprit] = [siteOf(row.victim), siteOf(row.culprit)];
    const key = JSON.stringify([nameOf(victim), nameOf(culprit)]);
    const sum = rows.get(key);
    if (sum) Object.assign(sum, { ns: sum.ns + row.ns, waits: sum.waits + row.waits, max_ns: Math.max(sum.max_ns, row.max_ns) });
    else rows.set(key, { ...row, victim, culprit });
  }
  return [...rows.values()].sort((one, other) => other.ns - one.ns);
}

// A site without what its own line led to; where there is none, all that is known is that a library ran.
function ownSite(site) {
  if (!site.function) return site;
  if (!site.own_function) return { ...site, function: "(library code)", file: "", line: 0 };
  return { ...site, function: site.own_function, file: site.own_file, line: site.own_line };
}

function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)] : null;
}

function threadFigures(process, number, from, to, tick) {
  const lane = process.thread_lanes[number];
  const states = {};
  const waits = [];
  let [holds, holding, life] = [0, false, 0];
  eachStretch(lane, from, to, (at, start, end) => {
    // A block is a layer over the states, which are what the kernel and the GIL tell.
    const layer = lane.values[at] % 16;
    const state = layer === IN_LOCK ? STATES.indexOf(process.has_sched ? "off-blocked" : "off") : layer;
    if (state >= STATES.length) return;
    const ns = (end - start) * tick;
    life += ns;
    states[STATES[state]] = (states[STATES[state]] || 0) + ns;
    if (state < WAITING && !holding) holds++;
    holding = state < WAITING;
    if (state === WAITING) waits.push(ns);
  });
  waits.sort((one, other) => one - other);
  const of = (...names) => names.reduce((total, name) => total + (states[name] || 0), 0);
  return {
    ...process.threads[number], life_ns: life, holds, held_ns: of("holding-running", "holding-runnable", "holding-blocked"),
    waits: waits.length, waited_ns: of("waiting"), wait_p50_ns: quantile(waits, 0.5), wait_p99_ns: quantile(waits, 0.99),
    wait_max_ns: waits.length ? waits[waits.length - 1] : 0, forced: null, states_ns: states, cores: [], each: waits,
  };
}

// How long somebody waited: the union of stretches, given by their sorted begins and ends.
function unionLength(starts, ends) {
  let [total, open, since] = [0, 0, 0];
  for (let at = 0, done = 0; done < ends.length;) {
    if (at < starts.length && starts[at] <= ends[done]) {
      if (open++ === 0) since = starts[at];
      at++;
    } else {
      open--;
      if (open === 0) total += ends[done] - since;
      done++;
    }
  }
  return total;
}

function gilFigures(process, gil, from, to, chosen, tick) {
  const lane = process.gil_lanes[gil];
  const figures = { held_ns: 0, contended_ns: 0, handoffs: 0, switch_requests: null };
  let before = FREE;
  eachStretch(lane, from, to, (at, start, end) => {
    const holder = lane.values[at];
    if (holder === FREE) return;
    figures.held_ns += (end - start) * tick;
    if (before !== FREE && before !== holder) figures.handoffs++;
    before = holder;
  });
  const [starts, ends] = [[], []];
  eachWait(process, from, to, chosen, (number, at, start, end) => {
    if (process.thread_lanes[number].values[at] >> 4 !== gil) return;
    starts.push(start);
    ends.push(end);
  });
  figures.contended_ns = unionLength(Float64Array.from(starts).sort(), Float64Array.from(ends).sort()) * tick;
  return figures;
}

// Bars as those of the whole: equally wide on a logarithmic scale, five per decade.
function histogramOf(waits) {
  const bars = Array.from({ length: 60 }, (_, at) => ({ low: Math.round(10 ** (at / 5)), high: Math.round(10 ** ((at + 1) / 5)), waits: 0, ns: 0 }));
  for (const ns of waits) {
    const bar = bars[Math.min(Math.max(Math.floor(Math.log10(Math.max(ns, 1)) * 5 + 1e-9), 10), 59)];
    bar.waits++;
    bar.ns += ns;
  }
  const used = (bar) => bar.waits > 0;
  return bars.slice(Math.max(bars.findIndex(used), 0), bars.findLastIndex(used) + 1);
}

// What the threads whose lanes are `chosen` did between `from` and `to` (ticks): as a process of the report, without what
// lanes cannot tell (a verdict, the critical path, what-if, patterns).
function selected(data, process, from, to, chosen) {
  const tick = data.tick_ns;
  const found = new Map(chosen.map((number) => [number, threadFigures(process, number, from, to, tick)]));
  const rows = process.thread_rows.map((row) => {
    const threads = row.threads.filter((at) => found.has(at) && found.get(at).life_ns > 0);
    const all = threads.map((at) => found.get(at));
    const states = {};
    for (const one of all) for (const [state, ns] of Object.entries(one.states_ns)) states[state] = (states[state] || 0) + ns;
    return {
      ...row, threads, number: threads.length, states_ns: states, forced: null, cores: [],
      wait_max_ns: all.some((one) => one.waits) ? Math.max(...all.map((one) => one.wait_max_ns)) : null,
      ...Object.fromEntries(["life_ns", "holds", "held_ns", "waits", "waited_ns"].map((field) => [field, sum(all, field)])),
    };
  }).filter((row) => row.number);
  const { pairs, causes } = blameOf(data, process, from, to, chosen);
  const known = new Map(process.findings.map((one) => [one.cause, one]));
  return {
    ...process, duration_ns: (to - from) * tick,
    threads: process.threads.map((thread, at) => found.get(at) || thread), thread_rows: rows, more_threads: 0,
    gils: process.gil_lanes.map((_, gil) => gilFigures(process, gil, from, to, chosen, tick)),
    waited_ns: sum([...found.values()], "waited_ns"),
    longest_wait_ns: Math.max(0, ...[...found.values()].map((one) => one.wait_max_ns)),
    blame: pairs, blame_by_function: pairs, more_blame: 0,
    findings: causes.map((one) => ({ ...one, path_ns: null, since_ns: null, summary: (known.get(one.cause) || {}).summary, advice: (known.get(one.cause) || {}).advice })),
    histogram: histogramOf([...found.values()].flatMap((one) => one.each)),
    ...withoutOf(data, process, from, to, chosen), critical_path: [],
    what_if: null, wait_decomposition_ns: null, hogs: [], convoys: [], event_loops: [],
  };
}
