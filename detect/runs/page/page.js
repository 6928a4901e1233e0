// The controls, what is exported, and the parts of the page.
function showNumbers() {
  const pictures = `${number.format(order.length)} of ${plural(total, "picture")}`;
  const boxes = ranked ? `${plural(boxesShown[0], "box", "boxes")}` : comparing ? boxesShown.map((count, r) => `${page.runs[r].short} ${number.format(count)}`).join(", ") : plural(boxesShown[0], page.kind === "classes" ? "answer" : "box", page.kind === "classes" ? "answers" : "boxes");
  const status = [pictures, boxes];
  if (objects) {
    let found = 0;
    for (let i = 0; i < objects.ranks.length; i++) found += covered(i);
    const share = objects.ranks.length ? ` (${(100 * found / objects.ranks.length).toFixed(1)} %)` : "";
    status.push(`${number.format(found)} of ${plural(objects.ranks.length, "object")} covered${share}`);
  }
  $("status").textContent = status.join(" · ");
  $("value-2").textContent = $("value").textContent = ranked ? number.format(state.threshold) : state.threshold.toFixed(state.threshold * 100 % 1 < 1e-6 ? 2 : 3);
  for (const one of [level, $("level-2")]) one.setAttribute("aria-valuetext", ranked ? `the first ${state.threshold} boxes` : `score ${state.threshold.toFixed(2)}`);
  $("empty").hidden = order.length > 0;
  for (const button of classButtons) {
    const label = button.label, counts = byClass.map(one => one[label]);
    const text = counts.map(one => number.format(one)).join(" | ");
    if (button.count.textContent === text) continue;
    button.count.textContent = text;
    button.bar.style.transform = `scaleX(${Math.max(...counts) / mostOfClass})`;
    button.classList.toggle("none", !counts.some(Boolean));
  }
  markChart();
}

// Which pictures are shown, and where. As long as one is open, its place and those of its neighbours stay.
function place(sliding) {
  if (viewer.open) return;
  const before = order;
  arrange(sliding);
  // At most steps the same pictures stay in the same order.
  if (before.length !== order.length || before.some((p, k) => p !== order[k])) layOut();
}

// Everything follows from the state; called at every step of the slider.
function update(sliding = false) {
  survey();
  place(sliding);
  render(true);
  showNumbers();
  updatePicture();
}

function updateAll() {
  surveyBest();
  if (ranked) drawCoverage(); else drawHistogram();
  update();
}

const level = $("level");
if (ranked) Object.assign(level, {min: 0, max: steps.length - 1, step: 1, value: steps.findLastIndex(n => n <= state.threshold)});
else Object.assign(level, {min: 0, max: 1, step: 0.01, value: state.threshold});
function setLevel(threshold) {
  state.threshold = threshold;
  for (const one of [level, $("level-2")]) one.value = ranked ? steps.findLastIndex(n => n <= threshold) : threshold;
  update(true);
}
for (const name of ["min", "max", "step", "value"]) $("level-2")[name] = level[name];
for (const one of [level, $("level-2")]) one.addEventListener("input", () => setLevel(ranked ? steps[one.value] : Number(one.value)));
$("chart").addEventListener("click", event => {
  const box = $("chart").getBoundingClientRect(), share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  setLevel(ranked ? steps[Math.round(share * (steps.length - 1))] : Math.floor(share * bins) / bins);
});

$("text").addEventListener("input", () => { state.text = $("text").value; filterNames(); updateAll(); });
$("show").addEventListener("change", () => { state.show = $("show").value; update(); });
$("sort").addEventListener("change", () => { state.sort = $("sort").value; update(); scrollTo(0, 0); });
$("reverse").addEventListener("click", () => {
  state.reversed = !state.reversed;
  $("reverse").setAttribute("aria-pressed", state.reversed);
  update();
});

// The classes, most frequent first as the page opens; a click shows one, more clicks more of them.
const classButtons = [];
let mostOfClass = 1;
const unsure = label => runs.every((_, r) => isHidden(label, r));
function makeClasses() {
  const sums = page.classes.map((_, label) => Math.max(...byClass.map(one => one[label])));
  const all = new Int32Array(page.classes.length);
  for (const {labels} of runs) if (labels) for (const label of labels) all[label]++;
  mostOfClass = Math.max(1, ...sums);
  const list = [...page.classes.keys()].filter(label => all[label])
    .sort((a, b) => unsure(a) - unsure(b) || sums[b] - sums[a] || all[b] - all[a]);
  for (const label of list) {
    const item = document.createElement("li"), button = document.createElement("button"), name = document.createElement("span"), count = document.createElement("span");
    const bar = document.createElement("i"), dot = document.createElement("i");
    bar.className = "share";
    dot.className = "dot";
    dot.style.background = page.colours[label];
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    name.className = "name";
    name.textContent = page.classes[label];
    name.title = page.classes[label] + (unsure(label) ? ": not shown unless chosen, as the model finds too little of it" : "");
    button.classList.toggle("unsure", unsure(label));
    count.className = "count";
    button.append(bar, dot, name, count);
    Object.assign(button, {label, count, bar});
    button.addEventListener("click", () => {
      if (!state.chosen.delete(label)) state.chosen.add(label);
      for (const one of classButtons) one.setAttribute("aria-pressed", state.chosen.has(one.label));
      $("all-classes").hidden = !state.chosen.size;
      updateAll();
    });
    item.append(button);
    $("classes").append(item);
    classButtons.push(button);
  }
}
$("all-classes")?.addEventListener("click", () => {
  state.chosen.clear();
  for (const one of classButtons) one.setAttribute("aria-pressed", "false");
  $("all-classes").hidden = true;
  updateAll();
  classButtons[0]?.focus();
});

// What is shown, as files. Numbers have the digits that detections.json has.
const digits = value => Number(value.toPrecision(9));
// A float32 by the shortest digits that are no other float32, up to nine.
function shortest(value) {
  for (let count = 1; count < 9; count++) {
    const short = Number(value.toPrecision(count));
    if (Math.fround(short) === value) return short;
  }
  return digits(value);
}

function cocoDocument(r = 0) {
  const images = [], annotations = [];
  const pictures = Array.from(order).sort((a, b) => a - b);
  for (const p of pictures) {
    images.push({id: p + 1, file_name: names[p], width: sizes[2 * p], height: sizes[2 * p + 1]});
    eachShown(r, p, i => {
      const [x1, y1, x2, y2] = corners(r, p, i);
      annotations.push({
        id: annotations.length + 1, image_id: p + 1, category_id: runs[r].labels[i] + 1,
        bbox: [x1, y1, x2 - x1, y2 - y1].map(digits), score: digits(runs[r].scores[i]), area: digits((x2 - x1) * (y2 - y1)), segmentation: [], iscrowd: 0,
      });
    });
  }
  const categories = page.classes.map((name, label) => ({id: label + 1, name}));
  return JSON.stringify({categories, annotations, images});
}

const quoted = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function csvDocument() {
  const boxed = page.kind !== "classes";
  const lines = [["file", ...(comparing ? ["run"] : []), "class", "score", ...(boxed ? ["x1", "y1", "x2", "y2"] : [])].join(",")];
  for (const p of order) runs.forEach((run, r) => eachShown(r, p, i => {
    const row = [quoted(names[p]), ...(comparing ? [quoted(page.runs[r].name)] : []), quoted(page.classes[run.labels[i]]), shortest(run.scores[i])];
    if (boxed) row.push(...corners(r, p, i).map(shortest));
    lines.push(row.join(","));
  }));
  return lines.join("\r\n") + "\r\n";
}

function save(text, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const word = text => /^[\w@%+=:,.\/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
// The command that draws what is chosen: the same settings, the pictures shown, the classes, the threshold. Many pictures
// are named by a list, which is saved too.
const LISTED = 20;
function command() {
  const everything = order.length === total;
  const pictures = everything ? page.command.images : order.length <= LISTED ? Array.from(order, p => page.folder + names[p]) : ["@shown.txt"];
  const only = state.chosen.size ? Array.from(state.chosen, label => page.classes[label]) : page.command.only;
  return ["inception-rcnn", "detect", ...pictures, ...page.command.options, ...only.flatMap(name => ["--only", name]), "--draw-score", String(digits(state.threshold)), "--output", "shown"].map(word).join(" ");
}
const listing = () => Array.from(order, p => `${page.folder}${names[p]}\n`).join("");

const exports_ = {
  coco: () => save(cocoDocument(), "shown.json", "application/json"),
  csv: () => save(csvDocument(), "shown.csv", "text/csv"),
  list: () => save(listing(), "shown.txt", "text/plain"),
};
for (const [id, act] of Object.entries(exports_)) $(id)?.addEventListener("click", act);
$("command")?.addEventListener("click", async () => {
  const text = $("command-text");
  text.hidden = false;
  text.value = command();
  text.select();
  let copied = true;
  try { await navigator.clipboard.writeText(text.value); } catch { copied = document.execCommand("copy"); }
  $("copied").textContent = (copied ? "Copied." : "Copy it from here.") + (order.length > LISTED && order.length < total ? " It needs the list of files, saved as shown.txt." : "");
});

// The parts of the page: #pictures, #run, #errors.
const parts = [...document.querySelectorAll(".part")];
function showPart() {
  const wanted = parts.find(part => `#${part.dataset.part}` === location.hash) ?? parts[0];
  for (const part of parts) part.hidden = part !== wanted;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${wanted.dataset.part}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (wanted === parts[0]) { layOut(); render(false); }
  scrollTo(0, 0);
}
addEventListener("hashchange", showPart);

let scrolling = false;
addEventListener("scroll", () => {
  if (scrolling) return;
  scrolling = true;
  requestAnimationFrame(() => { scrolling = false; if (!parts[0].hidden) render(false); });
}, {passive: true});
let lastWidth = innerWidth;
new ResizeObserver(() => { if (!parts[0].hidden && gallery.clientWidth !== lastWidth) { lastWidth = gallery.clientWidth; layOut(); render(false); } }).observe(gallery);
addEventListener("resize", () => { fit(); if (!parts[0].hidden) render(false); });
addEventListener("keydown", event => {
  if (event.key !== "/" || event.target.matches("input, textarea, select") || viewer.open) return;
  event.preventDefault();
  $("text").focus();
});

filterNames();
if (!ranked) { survey(); makeClasses(); }
if (innerWidth < 900) $("more").open = false;
showPart();
updateAll();
