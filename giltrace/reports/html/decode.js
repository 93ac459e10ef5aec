// The lanes as they come in the page: columns of lengths, values, stacks and mixes of causes, deflated and in base64.

async function unpacked(lane) {
  const squeezed = Uint8Array.from(atob(lane.columns), (letter) => letter.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const ends = new Uint32Array(bytes, 0, lane.count);
  for (let at = 1; at < lane.count; at++) ends[at] += ends[at - 1];
  const small = (at) => new Uint16Array(bytes, at * lane.count, lane.count);
  return { ends, values: small(4), stacks: small(6), mixes: small(8) };
}

async function unpackAll(data) {
  for (const process of data.processes) {
    process.library = new Set(process.library_frames);
    for (const kind of ["gil_lanes", "thread_lanes"]) process[kind] = await Promise.all(process[kind].map(unpacked));
  }
}

// The first stretch that ends after `time`.
function stretchAt(lane, time) {
  let low = 0;
  let high = lane.ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.ends[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Calls `visit` with the number, begin and end of each stretch of a lane, as far as it lies between `from` and `to`.
function eachStretch(lane, from, to, visit) {
  const { ends } = lane;
  for (let at = stretchAt(lane, from); at < ends.length; at++) {
    const start = at ? ends[at - 1] : 0;
    if (start >= to) break;
    visit(at, Math.max(start, from), Math.min(ends[at], to));
  }
}

// So many looks at a lane tell how what it shows is shared out, if there are more stretches than that.
const MOST_LOOKS = 64;

// As `eachStretch`, but of many stretches only those are visited that are there at instants spread evenly, each with its
// part of the time: what is asked for so must not take longer for each thread that waits, however often others took turns.
function eachLook(lane, from, to, visit) {
  if (stretchAt(lane, to) - stretchAt(lane, from) <= MOST_LOOKS) {
    eachStretch(lane, from, to, visit);
    return;
  }
  const part = (to - from) / MOST_LOOKS;
  for (let look = 0; look < MOST_LOOKS; look++) {
    // Not in step with anything: turns may be as regular as the looks.
    const start = from + look * part;
    visit(stretchAt(lane, start + ((look * 0.618034) % 1) * part), start, start + part);
  }
}

// What lanes show from `from` to `to` on average, by value, or by value and stack: largest share first.
function sharesIn(lanes, from, to, byStack = false) {
  const sums = new Map();
  for (const lane of lanes) {
    eachStretch(lane, from, to, (at, start, end) => {
      const key = lane.values[at] + (byStack ? lane.stacks[at] * 0x10000 : 0);
      sums.set(key, (sums.get(key) || 0) + end - start);
    });
  }
  return [...sums].sort((one, other) => other[1] - one[1])
    .map(([key, inside]) => ({ value: key % 0x10000, stack: Math.floor(key / 0x10000), share: inside / (to - from) / lanes.length }));
}

// The first and the last of the stretches around `at` that show the same value: a hold is cut where another line was seen.
function sameValue(lane, at) {
  let [first, last] = [at, at];
  while (first > 0 && lane.values[first - 1] === lane.values[at]) first--;
  while (last < lane.ends.length - 1 && lane.values[last + 1] === lane.values[at]) last++;
  return [first, last];
}

// Stacks are numbered from here on; below, none is known, or it is one of those left out.
const FIRST_STACK = 2;

// The frames of a stack, innermost first.
function framesOf(process, stack) {
  if (stack === 1) return ["(a stack that is rare and left out)"];
  return stack ? process.stacks[stack - FIRST_STACK].map((at) => (at < 0 ? "(frames left out)" : frame(...process.frames[at]))) : [];
}
