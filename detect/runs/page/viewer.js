// One picture at full size: its boxes with names, a table of them, its files.
const viewer = $("viewer"), stage = $("stage");
const SHOWN_BY_BROWSERS = /\.(avif|bmp|gif|jfif|jpe?g|png|webp)$/i;
let viewed = -1;  // position in `order`

function openPicture(k) {
  if (k < 0 || k >= order.length) return;
  viewed = k;
  if (!viewer.open) viewer.showModal();
  const p = order[k], slash = names[p].lastIndexOf("/");
  $("viewed-name").textContent = names[p].slice(slash + 1);
  $("viewed-where").textContent = [names[p].slice(0, slash + 1), `${sizes[2 * p]} × ${sizes[2 * p + 1]}`, `${number.format(k + 1)} of ${number.format(order.length)}`].filter(Boolean).join(" · ");
  $("note").textContent = "";
  stage.replaceChildren(...Array.from({length: panes}, (_, r) => makePane(r, p)));
  const links = [];
  if (original(p)) links.push(["Original file", original(p)]);
  page.runs.forEach((run, r) => { if (r < panes && drawn(r, p)) links.push([comparing ? `Drawn by ${run.name}` : "Drawn file", drawn(r, p)]); });
  $("files").replaceChildren(...links.map(([text, href]) => Object.assign(document.createElement("a"), {textContent: text, href, target: "_blank", rel: "noopener"})));
  $("previous").disabled = k === 0;
  $("next").disabled = k === order.length - 1;
  highlightBox("");
  updatePicture();
  fit();
}

// Puts the first of some files that the browser can show in the place of the thumbnail, and says which it is.
function showWhole(picture, p, [[src, note], ...others]) {
  if (!src) {
    if (order[viewed] === p) $("note").textContent = note;
    return;
  }
  const whole = new Image();
  whole.alt = "";
  whole.onerror = () => showWhole(picture, p, others);
  whole.onload = () => {
    // A browser that turns or scales it otherwise than it was read would show the boxes at wrong places.
    if (whole.naturalWidth !== sizes[2 * p] || whole.naturalHeight !== sizes[2 * p + 1]) return whole.onerror();
    picture.parentNode.classList.remove("blank");
    picture.replaceWith(whole);
    if (whole.isConnected) $("note").textContent = note;
  };
  whole.src = src;
}

function makePane(r, p) {
  const pane = document.createElement("figure"), frame = document.createElement("div"), picture = document.createElement("img");
  pane.className = "pane";
  frame.className = "frame";
  picture.alt = "";
  if (thumbnail(p)) picture.src = thumbnail(p); else frame.classList.add("blank");
  frame.append(picture);
  // The page may show files only, and not what is at a URL.
  const local = SHOWN_BY_BROWSERS.test(names[p]) && !/^https?:/.test(page.originals) && original(p);
  const files = [[local, ""], [drawn(r, p), "Shown is the drawn picture, boxes included: there is no original here that the browser can show."]];
  showWhole(picture, p, [...files.filter(([src]) => src), ["", "Shown is the thumbnail: there is no original here that the browser can show."]]);
  frame.append(svgElement("svg", {viewBox: `0 0 ${sizes[2 * p]} ${sizes[2 * p + 1]}`, preserveAspectRatio: "none", class: "boxes", "aria-hidden": "true"}));
  const labels = document.createElement("div");
  labels.className = "labels";
  labels.setAttribute("aria-hidden", "true");
  frame.append(labels);
  pane.append(frame);
  if (comparing) pane.append(Object.assign(document.createElement("figcaption"), {textContent: page.runs[r].name}));
  Object.assign(pane, {frame, labels, svg: frame.querySelector("svg")});
  return pane;
}

// The picture as large as the room for it; or, by the button, with one pixel of it on one of the screen.
function fit() {
  if (viewed < 0 || !viewer.open) return;
  const p = order[viewed], width = sizes[2 * p] || 4, height = sizes[2 * p + 1] || 3, whole = $("zoom").getAttribute("aria-pressed") === "true";
  const stacked = panes > 1 && stage.clientWidth < 700;
  const across = (stage.clientWidth - 24 - (stacked ? 0 : (panes - 1) * 16)) / (stacked ? 1 : panes), down = (stage.clientHeight - 24 - (panes > 1 ? 30 : 0)) / (stacked ? panes : 1);
  const scale = whole ? 1 / devicePixelRatio : Math.min(across / width, down / height);
  for (const pane of stage.children) {
    pane.frame.style.width = `${Math.max(1, width * scale)}px`;
    pane.frame.style.height = `${Math.max(1, height * scale)}px`;
  }
}

function updatePicture() {
  if (viewed < 0 || !viewer.open) return;
  const p = order[viewed];
  for (let r = 0; r < panes; r++) {
    const pane = stage.children[r];
    pane.labels.replaceChildren();
    if (page.kind === "classes") continue;
    if (ranked) { paintBoxes(pane.svg, boxPaths(0, p)); continue; }
    pane.svg.replaceChildren();
    eachShown(r, p, i => {
      const [x1, y1, x2, y2] = corners(r, p, i), colour = page.colours[runs[r].labels[i]], both = comparing && !isAlone(r, i);
      const group = svgElement("g", {"data-box": `${r}-${i}`, class: both ? "one both" : "one"});
      for (const name of ["halo", "box"]) group.append(svgElement("rect", {x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: name, stroke: colour}));
      pane.svg.prepend(group);
      const label = document.createElement("span");
      label.textContent = `${page.classes[runs[r].labels[i]]} ${runs[r].scores[i].toFixed(2)}`;
      label.dataset.box = `${r}-${i}`;
      label.style.left = `${100 * Math.max(0, x1) / sizes[2 * p]}%`;
      label.style.top = `${100 * Math.max(0, y1) / sizes[2 * p + 1]}%`;
      label.style.background = colour;
      // Above the box if there is room, else inside.
      if (y1 / sizes[2 * p + 1] * pane.frame.clientHeight >= 20) label.className = "above";
      if (both) label.classList.add("both");
      pane.labels.prepend(label);
    });
  }
  $("found").replaceChildren(...tableRows(p));
  $("found-none").hidden = $("found").rows.length > 0 || (ranked && !objects);
  $("found-table").hidden = $("found").rows.length === 0;
}

function tableRows(p) {
  const rows = [];
  const add = (box, colour, cells, extra = "") => {
    const row = document.createElement("tr");
    row.dataset.box = box;
    cells.forEach((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (!column) {
        cell.scope = "row";
        if (colour) cell.append(Object.assign(document.createElement("i"), {className: "dot"}));
        if (colour) cell.firstChild.style.background = colour;
      }
      cell.append(text);
      row.append(cell);
    });
    if (extra) row.className = extra;
    rows.push(row);
  };
  if (ranked) {
    if (objects) for (let i = objects.starts[p]; i < objects.starts[p + 1]; i++) {
      add("", covered(i) ? "var(--good)" : "var(--bad)", [objects.ranks[i] ? `box ${objects.ranks[i]}` : "none", covered(i) ? "covered" : "missed", corners(1, p, i).map(Math.round).join(" ")]);
    }
    return rows;
  }
  for (let r = 0; r < panes; r++) eachShown(r, p, i => {
    const {labels, scores} = runs[r];
    const cells = [page.classes[labels[i]], scores[i].toFixed(3)];
    if (comparing) cells.push(page.runs[r].short + (isAlone(r, i) ? " only" : ""));
    else if (page.kind === "run") cells.push(corners(r, p, i).map(value => value.toFixed(0)).join(" "));
    add(`${r}-${i}`, page.kind === "classes" ? "" : page.colours[labels[i]], cells, comparing && !isAlone(r, i) ? "both" : "");
  });
  return rows;
}

function highlightBox(box) {
  for (const element of viewer.querySelectorAll("[data-box]")) element.classList.toggle("lit", box !== "" && element.dataset.box === box);
  stage.classList.toggle("dimmed", box !== "");
}

// What appears below a pointer that rests was not pointed at.
let restsAt = "";
const pointedAt = event => `${event.clientX} ${event.clientY}`;
for (const kind of ["click", "pointermove"]) addEventListener(kind, event => { restsAt = pointedAt(event); }, true);
viewer.addEventListener("pointerover", event => {
  if (pointedAt(event) !== restsAt) highlightBox(event.target.closest("[data-box]")?.dataset.box ?? "");
});
viewer.addEventListener("close", () => {
  const p = order[viewed];
  viewed = -1;
  update();
  if (order.length) focusTile(order.indexOf(p));
});
viewer.addEventListener("keydown", event => {
  if (event.target.matches("input[type=range], input[type=search], select")) return;
  if (event.key === "ArrowLeft") openPicture(viewed - 1);
  else if (event.key === "ArrowRight") openPicture(viewed + 1);
  else if (event.key === "l") $("labels").click();
  else if (event.key === "z") $("zoom").click();
  else return;
  event.preventDefault();
});
$("previous").addEventListener("click", () => openPicture(viewed - 1));
$("next").addEventListener("click", () => openPicture(viewed + 1));
$("close").addEventListener("click", () => viewer.close());
for (const [id, act] of [["zoom", fit], ["labels", () => viewer.classList.toggle("unlabelled")]]) {
  $(id)?.addEventListener("click", () => {
    $(id).setAttribute("aria-pressed", $(id).getAttribute("aria-pressed") !== "true");
    act();
  });
}
