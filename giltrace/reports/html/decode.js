// The lanes as they come in the page: columns of lengths, values and stacks, deflated and in base64.

async function unpacked(lane) {
  const squeezed = Uint8Array.from(atob(lane.columns), (letter) => letter.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const ends = new Uint32Array(bytes, 0, lane.count);
  for (let at = 1; at < lane.count; at++) ends[at] += ends[at - 1];
  return {
    ends, values: new Uint16Array(bytes, 4 * lane.count, lane.count), stacks: new Uint16Array(bytes, 6 * lane.count, lane.count),
  };
}

async function unpackAll(data) {
  for (const process of data.processes) {
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

// What a lane shows from `from` to `to`, by value, or by value and stack: largest share first.
function sharesIn(lane, from, to, byStack = false) {
  const sums = new Map();
  for (let at = stretchAt(lane, from); at < lane.ends.length; at++) {
    const start = at ? lane.ends[at - 1] : 0;
    if (start >= to) break;
    const key = lane.values[at] + (byStack ? lane.stacks[at] * 0x10000 : 0);
    sums.set(key, (sums.get(key) || 0) + Math.min(lane.ends[at], to) - Math.max(start, from));
  }
  return [...sums].sort((one, other) => other[1] - one[1])
    .map(([key, inside]) => ({ value: key % 0x10000, stack: Math.floor(key / 0x10000), share: inside / (to - from) }));
}

// The frames of a stack, innermost first; a number below 2 is no stack.
function framesOf(process, stack) {
  if (stack === 1) return ["(a stack that is rare and left out)"];
  return stack ? process.stacks[stack - 2].map((at) => (at < 0 ? "(outer frames left out)" : process.frames[at])) : [];
}
