// The chart above the slider, as wide as the slider's track: a histogram of the scores or, of proposals, the coverage.
const bins = 50;
const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Number of boxes of the first so many, in steps that each make a difference.
const steps = [];
if (ranked) for (let i = 0; i <= 200; i++) {
  const step = Math.round(longest ** (i / 200));
  if (step !== steps[steps.length - 1]) steps.push(step);
}

function drawHistogram() {
  const chart = $("chart");
  const counts = runs.map(({starts, scores, labels}, r) => {
    const mask = classMask(r);
    const histogram = new Float64Array(bins);
    for (let p = 0; p < total; p++) {
      if (named[p]) for (let i = starts[p]; i < starts[p + 1]; i++) if (mask[labels[i]]) histogram[Math.min(bins - 1, Math.floor(scores[i] * bins))]++;
    }
    return histogram;
  });
  // Weak boxes are so many that the others would be invisible without the root.
  const most = Math.sqrt(Math.max(1, ...counts.flatMap(one => [...one])));
  chart.replaceChildren();
  counts[0].forEach((count, bin) => {
    const height = count ? Math.max(1.5, 40 * Math.sqrt(count) / most) : 0;
    const title = svgElement("title", {});
    title.textContent = `${(bin / bins).toFixed(2)} to ${((bin + 1) / bins).toFixed(2)}: ${counts.map(one => number.format(one[bin])).join(" and ")}`;
    const bar = svgElement("rect", {x: bin * 4 + 0.5, y: 40 - height, width: 3, height, class: "bar", "data-from": bin / bins});
    bar.append(title);
    chart.append(bar);
  });
  if (comparing) {
    const points = [...counts[1]].map((count, bin) => `${bin * 4 + 2},${(40 - 40 * Math.sqrt(count) / most).toFixed(1)}`);
    chart.append(svgElement("polyline", {points: points.join(" "), class: "second"}));
  }
}

function drawCoverage() {
  const chart = $("chart");
  chart.replaceChildren();
  if (!objects || !objects.ranks.length) return;
  const first = new Int32Array(longest + 1);
  for (const rank of objects.ranks) if (rank && rank <= longest) first[rank]++;
  for (let n = 1; n <= longest; n++) first[n] += first[n - 1];
  const points = steps.map((n, i) => `${(200 * i / Math.max(1, steps.length - 1)).toFixed(1)},${(40 - 39 * first[n] / objects.ranks.length).toFixed(1)}`);
  chart.append(svgElement("polyline", {points: points.join(" "), class: "curve"}));
  chart.append(svgElement("line", {y1: 0, y2: 40, class: "mark", id: "mark"}));
}

function markChart() {
  if (ranked) {
    const at = 200 * $("level").value / Math.max(1, steps.length - 1);
    for (const side of ["x1", "x2"]) $("mark")?.setAttribute(side, at);
  } else {
    for (const bar of $("chart").querySelectorAll(".bar")) bar.classList.toggle("below", Number(bar.dataset.from) + 1 / bins <= state.threshold);
  }
}
