"use strict";
// The page: drawing on the paper, and what each network makes of it.

const TEXTS = {
  en: {
    title: "Draw a digit",
    introduction: "The network runs in your browser as you draw. Nothing is sent anywhere.",
    hint: "Draw here with the mouse or a finger",
    paper: "Paper to draw a digit on",
    undo: "Undo",
    clear: "Clear",
    seen: "What the network sees",
    preparation: "28 × 28 pixels: cropped, scaled and centred like the digits of MNIST.",
    parameters: (count) => `${count} parameters`,
    training: (data, epochs) => `${data}, ${epochs === 1 ? "1 epoch" : `${epochs} epochs`}`,
    accuracy: (percent) => `test accuracy ${percent}`,
    probabilities: "Probability of each class",
    outputs: "Output for each class",
    maps: "Feature maps, layer by layer",
    colours: "Orange is positive, blue is negative; the largest value of a layer has the full colour.",
    result: (network, name, score) => `${network}: ${name}, ${score}`,
    empty: "The paper is empty.",
    kinds: {
      conv2d: "Convolution",
      linear: "Linear",
      batch_norm: "Batch normalization",
      max_pool2d: "Max pooling",
      avg_pool2d: "Average pooling",
      adaptive_avg_pool2d: "Average pooling",
      relu: "ReLU",
      tanh: "Tanh",
      sigmoid: "Sigmoid",
      add: "Sum",
    },
  },
  zh: {
    title: "写一个数字",
    introduction: "边写边识别：网络就在您的浏览器中运行，不会发送任何数据。",
    hint: "用鼠标或手指在这里书写",
    paper: "书写数字的画布",
    undo: "撤销",
    clear: "清除",
    seen: "网络看到的图像",
    preparation: "28 × 28 像素：按 MNIST 的方式裁剪、缩放，并按质心居中。",
    parameters: (count) => `${count} 个参数`,
    training: (data, epochs) => `${data}，${epochs} 轮训练`,
    accuracy: (percent) => `测试准确率 ${percent}`,
    probabilities: "各类别的概率",
    outputs: "各类别的输出",
    maps: "逐层特征图",
    colours: "同一层内：橙色为正，蓝色为负，绝对值最大者颜色最深。",
    result: (network, name, score) => `${network}：${name}，${score}`,
    empty: "画布是空的。",
    kinds: {
      conv2d: "卷积",
      linear: "全连接",
      batch_norm: "批归一化",
      max_pool2d: "最大池化",
      avg_pool2d: "平均池化",
      adaptive_avg_pool2d: "平均池化",
      relu: "ReLU",
      tanh: "Tanh",
      sigmoid: "Sigmoid",
      add: "相加",
    },
  },
};

const LANGUAGE = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
const TEXT = TEXTS[LANGUAGE];
const PEN_WIDTH = 20; // of a paper of 280x280
const MAP_WIDTH = 36; // pixels, about
const MOST_MAPS = 16; // in a row

const paper = document.getElementById("paper");
const pen = paper.getContext("2d", { willReadFrequently: true });
const strokes = []; // each a list of points {x, y}, in pixels of the paper
let drawing = null; // the pointer that draws, while it does
let updateIsPlanned = false;

translate();
const panels = JSON.parse(document.getElementById("networks").textContent).map(loadNetwork).map(addPanel);
listen();
redraw();

/** Write the texts of the page in the language of the browser. */
function translate() {
  document.documentElement.lang = LANGUAGE;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.prepend(TEXT[element.dataset.text], " ");
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", TEXT[element.dataset.label]);
  }
}

/** Return a new element with children. Texts may come from a checkpoint: they are never taken as HTML. */
function newElement(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Add what is shown of a network to the page, and return its elements that change. */
function addPanel(network, _, networks) {
  const { about } = network;
  const isOnly = networks.filter(({ name }) => name === network.name).length === 1;
  const title = isOnly ? network.name : `${network.name}, ${network.run}`;

  const list = newElement("ul");
  const rows = about.classes.map((name) => {
    const filled = newElement("span");
    const value = newElement("span", "value");
    const bar = newElement("span", "bar", filled);
    const row = newElement("li", "", newElement("span", "class", name), bar, value);
    list.append(row);
    return { row, filled, value };
  });
  const heading = about.gives_probabilities ? TEXT.probabilities : TEXT.outputs;
  const outputs = newElement("section", "outputs", newElement("h3", "", heading), list);

  const maps = newElement("section", "maps", newElement("h3", "", TEXT.maps), newElement("p", "", TEXT.colours));
  const layers = network.operations
    .filter(({ kind, output }) => kind in TEXT.kinds && output !== network.output)
    .map(({ kind, name, output, shape }) => {
      const canvas = newElement("canvas");
      const size = newElement("span", "", shape.join(" × "));
      const caption = newElement("figcaption", "", `${TEXT.kinds[kind]} ${name}`.trim(), " ", size);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", caption.textContent);
      maps.append(newElement("figure", "", caption, canvas));
      return { canvas, output, shape };
    });

  const panel = newElement(
    "article",
    "network",
    newElement("h2", "", title),
    newElement("p", "run", isOnly ? network.run : ""),
    newElement("p", "facts", facts(network)),
    newElement("div", "parts", outputs, maps),
  );
  document.getElementById("panels").append(panel);
  return { network, title, panel, rows, layers };
}

/** Return what is known of a network in one line. */
function facts({ about }) {
  const accuracy = about.metrics["test/acc"] ?? null;
  return [
    TEXT.parameters(about.parameters.toLocaleString(LANGUAGE)),
    TEXT.training(about.data, about.epochs),
    ...(accuracy === null ? [] : [TEXT.accuracy(percent(accuracy, 2))]),
  ].join(" · ");
}

/** Take strokes of mouse, pen and finger, the buttons and the keys, and changes between light and dark. */
function listen() {
  paper.addEventListener("pointerdown", (event) => {
    if (drawing === null && event.button === 0) {
      drawing = event.pointerId;
      paper.setPointerCapture(event.pointerId);
      strokes.push([pointOf(event)]);
      redraw();
    }
  });
  paper.addEventListener("pointermove", (event) => {
    if (event.pointerId === drawing) {
      // The browser joins the moves between two frames into one event, which would cut corners.
      const moves = event.getCoalescedEvents?.() ?? [];
      strokes.at(-1).push(...(moves.length ? moves : [event]).map(pointOf));
      redraw();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    paper.addEventListener(end, (event) => {
      if (event.pointerId === drawing) {
        drawing = null;
        redraw();
      }
    });
  }
  // After a quick stroke the browser would take the next tap on a button for the end of a gesture.
  for (const type of ["touchstart", "touchmove", "touchend"]) {
    paper.addEventListener(type, (event) => event.preventDefault(), { passive: false });
  }
  document.getElementById("undo").addEventListener("click", undo);
  document.getElementById("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const modified = event.ctrlKey || event.metaKey;
    if (key === "z" && !event.altKey) {
      event.preventDefault();
      undo();
    } else if (key === "escape" || (key === "c" && !modified && !event.altKey)) {
      clear();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
}

/** Return the place of a pointer on the paper, in its pixels, whatever size it is shown at. */
function pointOf(event) {
  const box = paper.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) / box.width) * paper.width,
    y: ((event.clientY - box.top) / box.height) * paper.height,
  };
}

/** Remove the last stroke. */
function undo() {
  drawing = null;
  strokes.pop();
  redraw();
}

/** Remove all strokes. */
function clear() {
  drawing = null;
  strokes.length = 0;
  redraw();
}

/** Draw all strokes, and plan to compute the networks before the next frame. */
function redraw() {
  pen.clearRect(0, 0, paper.width, paper.height);
  pen.strokeStyle = colour("--text");
  pen.lineWidth = PEN_WIDTH;
  pen.lineCap = pen.lineJoin = "round";
  for (const points of strokes) {
    pen.beginPath();
    pen.moveTo(points[0].x, points[0].y);
    for (const point of points) {
      pen.lineTo(point.x, point.y); // a dot, if there is only one
    }
    pen.stroke();
  }
  if (!updateIsPlanned) {
    updateIsPlanned = true;
    requestAnimationFrame(update);
  }
}

/** Compute the networks and show what they give. */
function update() {
  updateIsPlanned = false;
  const bytes = toMnistForm(readInk());
  const results = panels.map((panel) => ({ panel, values: bytes && compute(panel.network, bytes) }));

  showSeen(bytes);
  for (const { panel, values } of results) {
    showOutputs(panel, values);
    showMaps(panel, values);
  }
  document.getElementById("hint").hidden = strokes.length > 0;
  if (drawing === null) {
    document.getElementById("result").textContent = describe(results);
  }
}

/** Return the ink on the paper as an image in [0, 1]: how opaque it is, whatever its colour. */
function readInk() {
  const ink = newImage(paper.height, paper.width);
  const { data } = pen.getImageData(0, 0, paper.width, paper.height);
  for (let i = 0; i < ink.data.length; i++) {
    ink.data[i] = data[4 * i + 3] / 255;
  }
  return ink;
}

/** Return all values of a network, and its scores: probabilities if it was trained for them. */
function compute(network, bytes) {
  const values = forward(network, networkInput(network, bytes));
  const outputs = values.get(network.output).data;
  return { values, scores: network.about.gives_probabilities ? softmax(outputs) : Array.from(outputs) };
}

/** Show the 28x28 bytes that the networks take. */
function showSeen(bytes) {
  const context = document.getElementById("seen").getContext("2d");
  const image = context.createImageData(SIZE, SIZE);
  for (let i = 0; i < SIZE * SIZE; i++) {
    image.data.fill(bytes ? bytes[i] : 0, 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Show the scores of a network as bars. */
function showOutputs({ network, rows }, result) {
  const best = result ? result.scores.indexOf(Math.max(...result.scores)) : -1;
  rows.forEach(({ row, filled, value }, index) => {
    const score = result ? result.scores[index] : 0;
    filled.style.width = `${100 * Math.min(Math.max(score, 0), 1)}%`;
    value.textContent = result ? scoreText(network, score) : "";
    row.classList.toggle("best", index === best);
  });
}

/** Return a score as text: a percentage, or the number if it is not a probability. */
function scoreText(network, score) {
  return network.about.gives_probabilities ? percent(score, 1) : score.toFixed(2);
}

/** Return a fraction as a percentage. */
function percent(fraction, digits) {
  return `${(100 * fraction).toFixed(digits)}%`;
}

/** Show the values of each layer, one map next to the other. */
function showMaps({ panel, layers }, result) {
  const columns = Math.min(Math.round(panel.clientWidth / MAP_WIDTH), MOST_MAPS);
  const colours = ["--surface", "--accent", "--negative"].map(colour).map(toRgb);
  for (const { canvas, output, shape } of layers) {
    const data = result ? result.values.get(output).data : new Float32Array(shape.reduce((a, b) => a * b));
    drawMaps(canvas, data, shape, columns, colours);
  }
}

/**
 * Draw the maps (C, H, W) of a layer in a grid, one pixel a value. Values (N,) are maps of one pixel. There
 * are at most `most` maps in a row, twice as many of a large layer, and four times as many single values.
 */
function drawMaps(canvas, data, [maps, height = 1, width = 1], most, [zero, positive, negative]) {
  const gap = height * width > 1 ? 1 : 0;
  const factor = gap === 0 ? 4 : maps > 128 ? 2 : 1;
  const columns = Math.ceil(maps / Math.ceil(maps / (factor * most))); // as many in each row
  const context = canvas.getContext("2d");
  const image = context.createImageData(
    columns * (width + gap) - gap,
    Math.ceil(maps / columns) * (height + gap) - gap,
  );
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width; // makes the browser lay out the page again
    canvas.height = image.height;
  }
  const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  for (let i = 0; i < data.length; i++) {
    const map = Math.floor(i / (height * width));
    const row = Math.floor(map / columns) * (height + gap) + (Math.floor(i / width) % height);
    const column = (map % columns) * (width + gap) + (i % width);
    const at = 4 * (row * image.width + column);
    const strength = Math.abs(data[i]) / largest;
    const full = data[i] > 0 ? positive : negative;
    for (let part = 0; part < 3; part++) {
      image.data[at + part] = zero[part] + strength * (full[part] - zero[part]);
    }
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Return a colour of the style sheet, as #rrggbb. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return #rrggbb as three numbers. */
function toRgb(text) {
  return [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
}

/** Return what the networks recognize as a sentence for screen readers. */
function describe(results) {
  const sentences = results.map(({ panel: { network, title }, values: result }) => {
    if (!result) {
      return TEXT.empty;
    }
    const best = result.scores.indexOf(Math.max(...result.scores));
    return TEXT.result(title, network.about.classes[best], scoreText(network, result.scores[best]));
  });
  return [...new Set(sentences)].join("\n");
}
