// What the page knows of its pictures, and what is shown of them at a moment. Numbers are in typed arrays, one for all pictures.
const page = JSON.parse(document.getElementById("page").textContent);
const $ = id => document.getElementById(id);
const ranked = page.kind === "proposals";  // shown are the first so many boxes, not those from a score on
const comparing = page.kind === "comparison";

const kinds = {
  scores: Float32Array, labels: Uint16Array, partners: Float32Array, ranks: Uint32Array,
  boxes: page.fractions ? Uint16Array : Float32Array,
};

function decode(text, Kind) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Kind(bytes.buffer);
}

function joined(Kind, parts) {
  const whole = new Kind(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}

const names = [], thumbnails = [];
let sizes = [];
// For each run: where the boxes of each picture begin, and the columns of the boxes, best first in each picture.
const runs = page.runs.map(() => ({starts: [0]}));
for (const element of document.querySelectorAll("script.block")) {
  const block = JSON.parse(element.textContent);
  element.remove();
  for (const name of block.names) names.push(name);
  for (const one of block.thumbnails) thumbnails.push(one);
  sizes.push(Uint32Array.from(block.sizes));
  block.runs.forEach(({counts, ...columns}, r) => {
    const {starts} = runs[r];
    for (const count of counts) starts.push(starts[starts.length - 1] + count);
    for (const [name, text] of Object.entries(columns)) (runs[r][name] ??= []).push(decode(text, kinds[name]));
  });
}
sizes = joined(Uint32Array, sizes);
for (const run of runs) {
  run.starts = Uint32Array.from(run.starts);
  for (const name of Object.keys(kinds)) if (name === "boxes" || name in run) run[name] = joined(kinds[name], run[name] ?? []);
}
const rest = JSON.parse($("rest").textContent);
const total = names.length;
const longest = runs[0].starts.reduce((most, start, p) => p ? Math.max(most, start - runs[0].starts[p - 1]) : 0, 0);
// Of proposals the second "run" is the annotated objects; they are drawn in the same pane.
const panes = ranked ? 1 : runs.length;
const objects = ranked ? runs[1] : undefined;

const state = {
  threshold: ranked ? Math.min(100, longest) : page.threshold,
  chosen: new Set(),  // classes; none: all that are drawn
  text: "", show: "all", sort: $("sort").value, reversed: false,
};

// Results of `survey`: by picture and run how many boxes are shown, by class how many in the pictures with such names.
const shown = runs.map(() => new Int32Array(total));
const best = new Float32Array(total);
const alone = runs.map(() => new Float32Array(total));
const byClass = runs.map(() => new Int32Array(page.classes.length));
let missed = 0, order = new Uint32Array(0), boxesShown = [0, 0];

let named = new Uint8Array(total).fill(1);
const folded = [];  // names in lower case, once they are asked for

function filterNames() {
  const wanted = state.text.toLowerCase();
  if (wanted && !folded.length) for (const name of names) folded.push(name.toLowerCase());
  for (let p = 0; p < total; p++) named[p] = !wanted || folded[p].includes(wanted) ? 1 : 0;
}

// Classes of which a run's model finds too little are shown where they are chosen.
const isHidden = (label, r) => Boolean(page.hidden?.[r][label]);
const isChosen = (label, r) => state.chosen.size ? state.chosen.has(label) : !isHidden(label, r);
const classMask = r => Uint8Array.from(page.classes.keys(), label => isChosen(label, r) ? 1 : 0);

// The best score of the chosen classes, wherever the threshold is.
function surveyBest() {
  if (ranked) return;
  best.fill(0);
  for (const [r, {starts, scores, labels}] of runs.entries()) {
    const mask = classMask(r);
    for (let p = 0; p < total; p++) {
      let i = starts[p];
      while (i < starts[p + 1] && !mask[labels[i]]) i++;
      if (i < starts[p + 1] && scores[i] > best[p]) best[p] = scores[i];
    }
  }
}

// One pass over the boxes that are shown, which are sorted by falling score in each picture.
function survey() {
  if (ranked) return surveyRanks();
  const threshold = Math.fround(state.threshold);
  runs.forEach(({starts, scores, labels, partners}, r) => {
    const mask = classMask(r), counts = shown[r], classes = byClass[r].fill(0), difference = alone[r];
    for (let p = 0; p < total; p++) {
      let count = 0, apart = 0;
      for (let i = starts[p], end = starts[p + 1]; i < end && scores[i] >= threshold; i++) {
        const label = labels[i];
        classes[label] += named[p];
        if (mask[label]) { count++; if (partners && partners[i] < threshold) apart += scores[i] - partners[i]; }
      }
      counts[p] = count;
      difference[p] = apart;
    }
  });
}

function surveyRanks() {
  const limit = state.threshold;
  for (let p = 0; p < total; p++) shown[0][p] = Math.min(limit, runs[0].starts[p + 1] - runs[0].starts[p]);
  if (!objects) return;
  for (let p = 0; p < total; p++) {
    let count = 0;
    for (let i = objects.starts[p]; i < objects.starts[p + 1]; i++) count += covered(i) ? 0 : 1;
    shown[1][p] = count;  // objects that are missed
  }
}

const covered = i => objects.ranks[i] > 0 && objects.ranks[i] <= state.threshold;

function passes(p) {
  const counts = shown[0][p] + (panes > 1 ? shown[1][p] : 0);
  switch (state.show) {
    case "found": return counts > 0;
    case "nothing": return counts === 0;
    case "differ": return alone[0][p] + alone[1][p] > 0;
    case "first": return alone[0][p] > 0;
    case "second": return alone[1][p] > 0;
    case "missed": return shown[1][p] > 0;
    default: return true;
  }
}

let nameRanks;
const sortKeys = {
  run: p => total - p,
  name: p => {
    if (!nameRanks) {
      const {compare} = new Intl.Collator(undefined, {numeric: true});
      const sorted = Uint32Array.from(names.keys()).sort((a, b) => compare(names[a], names[b]));
      nameRanks = new Uint32Array(total);
      sorted.forEach((p, rank) => { nameRanks[p] = total - rank; });
    }
    return nameRanks[p];
  },
  score: p => Math.round(best[p] * 1e5),
  lowest: p => Math.round((1 - best[p]) * 1e5),
  weakest: p => shown[0][p] ? Math.round((1 - weakest(p)) * 1e5) + 1 : 0,
  count: p => shown[0][p] + (panes > 1 ? shown[1][p] : 0),
  difference: p => Math.round((alone[0][p] + alone[1][p]) * 1e4),
  missed: p => shown[1][p],
};

// The pictures that pass, by falling keys, which are whole numbers; equal ones stay in their order. Counting them is
// faster than comparing them, and is done at every step of the slider. While it moves, the keys are those from before:
// pictures that change places at each step are dear to paint, and nobody could follow them.
const lastKeys = new Int32Array(total);
function arrange(sliding) {
  const key = sortKeys[state.sort], keys = new Int32Array(total);
  let most = 0, count = 0;
  if (!sliding) for (let p = 0; p < total; p++) lastKeys[p] = key(p);
  for (let p = 0; p < total; p++) {
    if (!named[p] || !passes(p)) { keys[p] = -1; continue; }
    keys[p] = lastKeys[p];
    if (keys[p] > most) most = keys[p];
    count++;
  }
  const places = new Uint32Array(most + 2);
  for (let p = 0; p < total; p++) if (keys[p] >= 0) places[most - keys[p] + 1]++;
  for (let i = 1; i < places.length; i++) places[i] += places[i - 1];
  order = new Uint32Array(count);
  for (let p = 0; p < total; p++) if (keys[p] >= 0) order[places[most - keys[p]]++] = p;
  if (state.reversed) order.reverse();
  boxesShown = shown.map(counts => order.reduce((sum, p) => sum + counts[p], 0));
}

// Calls `take(i)` for every shown box of a picture in a run, best first.
function eachShown(r, p, take) {
  const {starts, scores, labels} = runs[r];
  if (ranked) {
    for (let i = starts[p]; i < starts[p] + shown[0][p]; i++) take(i);
    return;
  }
  const threshold = Math.fround(state.threshold);
  for (let i = starts[p]; i < starts[p + 1] && scores[i] >= threshold; i++) {
    if (isChosen(labels[i], r)) take(i);
  }
}

// The lowest score of the shown boxes of a picture in the first run.
function weakest(p) {
  let lowest = 0;
  eachShown(0, p, i => { lowest = runs[0].scores[i]; });
  return lowest;
}

// x1 y1 x2 y2 of a box in pixels.
function corners(r, p, i) {
  const box = Array.from(runs[r].boxes.subarray(4 * i, 4 * i + 4));
  return page.fractions ? box.map((value, side) => value / 65535 * sizes[2 * p + side % 2]) : box;
}

// Whether the other run shows no such box: its best one of the class with an IoU of 0.5 or more has a lower score.
const isAlone = (r, i) => runs[r].partners[i] < Math.fround(state.threshold);

// Addresses of files follow from the names of the pictures; others, as of names that are not Unicode, are listed.
const escaped = name => name.split("/").map(encodeURIComponent).join("/");
function original(p) {
  const part = rest.originals[p] ?? escaped(names[p]);
  return page.originals === null || part === "" ? "" : page.originals + part;
}
function drawn(r, p) {
  const base = page.runs[r].drawings, part = rest.drawn[r]?.[p] ?? escaped(names[p]) + (names[p].toLowerCase().endsWith(".jpg") ? "" : ".jpg");
  return base && part ? base + part : "";
}
const thumbnail = p => !thumbnails[p] ? "" : thumbnails[p] === 1 ? `${page.thumbnails}${String(Math.floor(p / 1000)).padStart(4, "0")}/${String(p).padStart(7, "0")}.jpg` : `data:image/jpeg;base64,${thumbnails[p]}`;

const number = new Intl.NumberFormat("en");
const plural = (count, noun, many = `${noun}s`) => `${number.format(count)} ${count === 1 ? noun : many}`;

// "3: 2 cat, 1 dog", most frequent first.
function summary(r, p) {
  const counts = new Map();
  eachShown(r, p, i => { const label = runs[r].labels[i]; counts.set(label, (counts.get(label) ?? 0) + 1); });
  return [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${page.classes[label]}`).join(", ");
}
