// The gallery: rows of pictures of one height each, as wide as the window. Only the tiles near the window exist.
const GAP = 12, CAPTION = 26, SPLIT = 4;
const gallery = $("gallery");
const tiles = new Map();  // by picture
const spare = new Map();  // those that were shown last, which are often wanted again
const SPARE = 300;
let rows = [];  // {top, height, from, to}: positions in `order`
let places = new Float32Array(0), widths = new Float32Array(0);
let current = 0;  // position in `order` that the keyboard is at
// What browsers can lay out as one page; pictures behind it are reached by filters.
const TALLEST = 12e6;

const aspect = p => Math.min(3.2, Math.max(0.45, sizes[2 * p] / Math.max(1, sizes[2 * p + 1]) || 4 / 3));

function layOut() {
  const width = gallery.clientWidth, target = innerWidth < 700 ? 128 : comparing ? 176 : 190;
  rows = [];
  places = new Float32Array(order.length);
  widths = new Float32Array(order.length);
  let top = 0, from = 0, aspects = 0, splits = 0;
  for (let k = 0; k < order.length && top < TALLEST; k++) {
    aspects += panes * aspect(order[k]);
    splits += (panes - 1) * SPLIT;
    const free = width - (k - from) * GAP - splits, full = free / aspects <= target;
    if (!full && k < order.length - 1) continue;
    const height = full ? free / aspects : target;
    let x = 0;
    for (let j = from; j <= k; j++) {
      places[j] = x;
      widths[j] = Math.min(width, panes * aspect(order[j]) * height + (panes - 1) * SPLIT);
      x += widths[j] + GAP;
    }
    rows.push({top, height, from, to: k + 1});
    top += height + CAPTION + GAP;
    from = k + 1;
    aspects = splits = 0;
  }
  gallery.style.height = `${Math.max(0, top - GAP)}px`;
  $("cut").hidden = from >= order.length;
  if (from < order.length) $("cut").textContent = `${number.format(order.length - from)} more pictures do not fit here; a filter or the other order brings them up.`;
  current = Math.min(current, Math.max(0, order.length - 1));
}

const rowAt = top => {
  let low = 0, high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle].top <= top) low = middle; else high = middle - 1;
  }
  return low;
};
const rowOf = k => {
  let low = 0, high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle].from <= k) low = middle; else high = middle - 1;
  }
  return low;
};

function makeTile(p) {
  const tile = document.createElement("li"), open = document.createElement("button"), caption = document.createElement("p");
  tile.className = "tile";
  open.type = "button";
  open.className = "open";
  tile.picture = p;
  tile.panes = [];
  for (let r = 0; r < panes; r++) {
    const frame = document.createElement("span"), picture = document.createElement("img");
    const boxes = svgElement("svg", {viewBox: `0 0 ${sizes[2 * p]} ${sizes[2 * p + 1]}`, preserveAspectRatio: "none", class: "boxes", "aria-hidden": "true"});
    frame.className = "frame";
    picture.alt = "";
    picture.decoding = "async";
    const source = thumbnail(p);
    if (source) picture.src = source; else frame.classList.add("blank");
    frame.append(picture, boxes);
    open.append(frame);
    tile.panes.push({frame, boxes});
  }
  const name = document.createElement("span"), count = document.createElement("span");
  name.className = "name";
  name.textContent = names[p].slice(names[p].lastIndexOf("/") + 1);
  name.title = names[p];
  count.className = "count";
  caption.append(name, count);
  tile.append(open, caption);
  Object.assign(tile, {open, count});
  return tile;
}

// Paths of all boxes of a picture in a run, one for each colour, so that a step of the slider changes few elements.
function boxPaths(r, p) {
  const paths = new Map();
  const add = (key, [x1, y1, x2, y2]) => paths.set(key, `${paths.get(key) ?? ""}M${x1} ${y1}H${x2}V${y2}H${x1}Z`);
  eachShown(r, p, i => {
    const box = corners(r, p, i).map(value => Math.round(value * 10) / 10);
    const faint = comparing && !isAlone(r, i);
    if (!ranked) add(faint ? "shade" : "halo", box);
    add(ranked ? "proposal" : faint ? "both" : runs[r].labels[i], box);
  });
  if (objects) for (let i = objects.starts[p]; i < objects.starts[p + 1]; i++) {
    const box = corners(1, p, i).map(Math.round);
    add("halo", box);
    add(covered(i) ? "covered" : "missed", box);
  }
  return paths;
}

function paintBoxes(svg, paths) {
  const existing = svg.childNodes;
  let k = 0;
  for (const [key, data] of paths) {
    const path = existing[k] ?? svg.appendChild(svgElement("path", {}));
    if (path.data !== data) path.setAttribute("d", path.data = data);
    if (path.key !== key) {
      path.key = key;
      path.setAttribute("class", typeof key === "number" ? "box" : key);
      if (typeof key === "number") path.setAttribute("stroke", page.colours[key]); else path.removeAttribute("stroke");
    }
    k++;
  }
  while (existing.length > k) existing[k].remove();
}

function captionOf(p) {
  if (ranked) return objects ? `${objects.starts[p + 1] - objects.starts[p] - shown[1][p]} of ${objects.starts[p + 1] - objects.starts[p]}` : number.format(shown[0][p]);
  if (comparing) return `${shown[0][p]} | ${shown[1][p]}`;
  if (page.kind === "classes") return shown[0][p] ? `${page.classes[runs[0].labels[runs[0].starts[p]]]} ${runs[0].scores[runs[0].starts[p]].toFixed(2)}` : "–";
  if (!shown[0][p]) return "–";
  // The score that the order is by.
  const score = {score: p => best[p], lowest: p => best[p], weakest}[state.sort];
  return number.format(shown[0][p]) + (score ? ` · ${score(p).toFixed(2)}` : "");
}

function spoken(p) {
  if (ranked) return `${names[p]}: ${objects ? `${captionOf(p)} objects covered by ` : ""}the first ${shown[0][p]} boxes`;
  const parts = runs.map((_, r) => (comparing ? `${page.runs[r].name}: ` : "") + (summary(r, p) || "nothing"));
  return `${names[p]}: ${parts.join("; ")}`;
}

function updateTile(tile) {
  const p = tile.picture;
  // Boxes are sorted by score: as many of the same classes are the same, and as much apart are apart.
  const content = [...shown, ...alone].map(one => one[p]).concat([...state.chosen], state.sort).join(" ");
  if (tile.content === content) return;
  tile.content = content;
  if (page.kind !== "classes") tile.panes.forEach(({boxes}, r) => paintBoxes(boxes, boxPaths(r, p)));
  const caption = captionOf(p);
  if (tile.count.textContent !== caption) tile.count.textContent = caption;
}

// When the slider rests, the order and the tiles around the window follow, and what a screen reader says of all. The time
// counts from the frame after, so that a slow one is no rest.
let resting;
function renderAround() {
  clearTimeout(resting);
  requestAnimationFrame(() => {
    clearTimeout(resting);
    resting = setTimeout(() => {
      if (!gallery.offsetParent) return;
      place(false);
      render(false);
      for (const [p, {open}] of tiles) open.setAttribute("aria-label", spoken(p));
    }, 150);
  });
}

function placeTile(tile, k, row) {
  const key = `${places[k]} ${row.top} ${widths[k]} ${row.height}`;
  tile.position = k;
  tile.open.tabIndex = k === current ? 0 : -1;
  if (tile.key === key) return;
  tile.key = key;
  tile.style.transform = `translate(${places[k]}px, ${row.top}px)`;
  tile.style.width = `${widths[k]}px`;
  tile.open.style.height = `${row.height}px`;
  // The picture in its own shape inside its pane, so that the boxes lie over it.
  const p = tile.picture, across = (widths[k] - (panes - 1) * SPLIT) / panes, shape = sizes[2 * p] / sizes[2 * p + 1] || 4 / 3;
  for (const {frame} of tile.panes) {
    frame.style.width = `${Math.min(across, row.height * shape)}px`;
    frame.style.height = `${Math.min(row.height, across / shape)}px`;
  }
}

// Makes the tiles in the window and near it, removes the others. At a step of the slider, `all` are painted again, and
// are those in the window only.
function render(all) {
  const above = scrollY - gallery.offsetTop, margin = all ? 0 : innerHeight / 2;
  const wanted = [];
  if (rows.length) {
    const last = rowAt(above + innerHeight + margin);
    for (let r = rowAt(above - margin); r <= last; r++) for (let k = rows[r].from; k < rows[r].to; k++) wanted.push([k, rows[r]]);
  }
  const focused = document.activeElement?.closest?.(".tile");
  if (focused && order[focused.position] === focused.picture && !wanted.some(([k]) => k === focused.position)) {
    const one = [focused.position, rows[rowOf(focused.position)]];
    if (one[0] < (wanted[0]?.[0] ?? Infinity)) wanted.unshift(one); else wanted.push(one);
  }
  const kept = new Set(wanted.map(([k]) => order[k]));
  for (const [p, tile] of tiles) if (!kept.has(p)) { tile.remove(); tiles.delete(p); spare.set(p, tile); }
  for (const p of spare.keys()) { if (spare.size <= SPARE) break; spare.delete(p); }
  let next = gallery.firstChild;
  for (const [k, row] of wanted) {
    const p = order[k];
    let tile = tiles.get(p);
    const made = !tile;
    if (made) { tiles.set(p, tile = spare.get(p) ?? makeTile(p)); spare.delete(p); }
    if (tile === next) next = next.nextSibling; else gallery.insertBefore(tile, next);
    placeTile(tile, k, row);
    if (!all || made) {
      tile.setAttribute("aria-posinset", k + 1);
      tile.setAttribute("aria-setsize", order.length);
    }
    if (made) tile.open.setAttribute("aria-label", spoken(p));
    if (made || all) updateTile(tile);
  }
  if (all) renderAround();
}

function focusTile(k) {
  current = Math.max(0, Math.min(order.length - 1, k));
  const row = rows[rowOf(current)], top = row.top + gallery.offsetTop, margin = $("controls").offsetHeight * (innerWidth < 900) + 70;
  if (top - margin < scrollY) scrollTo(0, top - margin);
  else if (top + row.height + CAPTION + 12 > scrollY + innerHeight) scrollTo(0, top + row.height + CAPTION + 12 - innerHeight);
  render(false);
  tiles.get(order[current]).open.focus({preventScroll: true});
}

// The tile in the row above or below that lies nearest.
function verticalNeighbour(k, step) {
  const row = rows[rowOf(k) + step];
  if (!row) return k;
  const middle = places[k] + widths[k] / 2;
  let nearest = row.from;
  for (let j = row.from; j < row.to; j++) if (Math.abs(places[j] + widths[j] / 2 - middle) < Math.abs(places[nearest] + widths[nearest] / 2 - middle)) nearest = j;
  return nearest;
}

gallery.addEventListener("keydown", event => {
  const tile = event.target.closest(".tile");
  if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
  const k = tile.position;
  const to = {ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: rows[rows.length - 1].to - 1}[event.key]
    ?? (event.key === "ArrowUp" ? verticalNeighbour(k, -1) : event.key === "ArrowDown" ? verticalNeighbour(k, 1) : undefined);
  if (to === undefined) return;
  event.preventDefault();
  focusTile(to);
});
gallery.addEventListener("focusin", event => {
  const tile = event.target.closest(".tile");
  if (tile && tile.position !== current) {
    tiles.get(order[current])?.open.setAttribute("tabindex", -1);
    current = tile.position;
    tile.open.tabIndex = 0;
  }
});
gallery.addEventListener("click", event => {
  const tile = event.target.closest(".tile");
  if (tile) openPicture(tile.position);
});
