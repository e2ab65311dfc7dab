"use strict";
// A drawn digit in the form of MNIST's: the steps of to_mnist_form in mnist_cnn/preparation/digits.py, which
// describes them. An image is {height, width, data}, its data a Float32Array in rows.

const SIZE = 28;
const BOX = 20;
const CENTRE = 14.5;
const TIE = 1e-3;
const WORK = 80;
const SCALE = WORK / BOX;
const SUPPORT = 0.1;
const WINDOW = 17;
const FAINTEST = 0.3;
const RAMP = [0.25, 0.75];
const THINNEST = 2.0;
const THICKEST = 3.0;

/** Return an image of zeros. */
function newImage(height, width) {
  return { height, width, data: new Float32Array(height * width) };
}

/** Return a digit, an image in [0, 1] with 0 as the background, as 28x28 bytes; null if it has no ink. */
function toMnistForm(ink) {
  const largest = maximum(ink.data);
  if (!(largest > 0)) {
    return null;
  }
  let work = fit(crop(mapImage(ink, (value) => value / largest)), WORK);
  const peak = maximum(work.data);
  work = withEvenContrast(mapImage(work, (value) => value / peak));
  const width = strokeWidth(work);
  if (width < THINNEST * SCALE) {
    const radius = (THINNEST * SCALE - width) / (2 * (1 - THINNEST / BOX));
    work = dilate(pad(work, Math.floor(radius) + 1), radius);
  } else if (width > THICKEST * SCALE) {
    const radius = Math.min((width - THICKEST * SCALE) / (2 * (1 - THICKEST / BOX)), width / 4);
    const background = mapImage(pad(work, 1), (value) => 1 - value);
    work = mapImage(dilate(background, radius), (value) => 1 - value);
  }
  return centred(fit(crop(work), BOX));
}

/** Resize an image: area averages along a side that shrinks, linear interpolation along one that grows. */
function resize(image, height, width) {
  return resizeHeight(transpose(resizeHeight(transpose(image), width)), height);
}

/** Return an image with rows and columns exchanged. */
function transpose({ height, width, data }) {
  const result = newImage(width, height);
  for (let i = 0; i < data.length; i++) {
    result.data[(i % width) * height + Math.floor(i / width)] = data[i];
  }
  return result;
}

/** Resize an image to another number of rows, each of which is a weighted sum of the given rows. */
function resizeHeight(image, height) {
  const { width } = image;
  const scale = image.height / height;
  const result = newImage(height, width);
  const add = (row, given, weight) => {
    for (let column = 0; column < width; column++) {
      result.data[row * width + column] += weight * image.data[given * width + column];
    }
  };
  for (let row = 0; row < height; row++) {
    if (scale >= 1) {
      const [from, to] = [row * scale, (row + 1) * scale];
      for (let given = Math.floor(from); given < Math.min(to, image.height); given++) {
        add(row, given, (Math.min(given + 1, to) - Math.max(given, from)) / scale);
      }
    } else {
      const at = Math.min(Math.max((row + 0.5) * scale - 0.5, 0), image.height - 1);
      const before = Math.floor(at);
      add(row, before, 1 - (at - before));
      add(row, Math.min(before + 1, image.height - 1), at - before);
    }
  }
  return result;
}

/** Return the mean width of the strokes in pixels: 2 · area / total variation. */
function strokeWidth(image) {
  const { height, width, data } = pad(image, 1);
  let area = 0;
  let perimeter = 0;
  for (let row = 0; row + 1 < height; row++) {
    for (let column = 0; column + 1 < width; column++) {
      const at = row * width + column;
      area += data[at];
      perimeter += Math.hypot(data[at + 1] - data[at], data[at + width] - data[at]);
    }
  }
  return (2 * area) / perimeter;
}

/** Return the largest value within `radius` of each pixel; there is none outside of the image. */
function dilate(image, radius) {
  const reach = Math.floor(radius);
  const offsets = [];
  for (let down = -reach; down <= reach; down++) {
    for (let across = -reach; across <= reach; across++) {
      if (down * down + across * across <= radius * radius) {
        offsets.push([down, across]);
      }
    }
  }
  return largestAt(image, offsets);
}

/** Return the largest of the pixels at `offsets` ([down, across]) from each pixel, and itself. */
function largestAt(image, offsets) {
  const { height, width, data } = image;
  const result = newImage(height, width);
  result.data.set(data);
  for (const [down, across] of offsets) {
    const lastRow = Math.min(height, height - down);
    const lastColumn = Math.min(width, width - across);
    for (let row = Math.max(0, -down); row < lastRow; row++) {
      for (let column = Math.max(0, -across); column < lastColumn; column++) {
        const at = row * width + column;
        const value = data[at + down * width + across];
        if (value > result.data[at]) {
          result.data[at] = value;
        }
      }
    }
  }
  return result;
}

/** Divide each pixel by the largest one around it, and make what is then above 0.75 full ink. */
function withEvenContrast(image) {
  const reach = (WINDOW - 1) / 2;
  const line = Array.from({ length: WINDOW }, (_, index) => index - reach);
  const inRows = largestAt(image, line.map((across) => [0, across]));
  const local = largestAt(inRows, line.map((down) => [down, 0]));
  const [low, high] = RAMP;
  const result = newImage(image.height, image.width);
  for (let i = 0; i < result.data.length; i++) {
    const relative = image.data[i] / Math.max(local.data[i], FAINTEST);
    result.data[i] = Math.min(Math.max((relative - low) / (high - low), 0), 1);
  }
  return result;
}

/** Return the part of an image in the bounding box of its values of at least 0.1. */
function crop(image) {
  const { height, width, data } = image;
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      // The constant as float32, as are the pixels and as Python compares them.
      if (data[row * width + column] >= Math.fround(SUPPORT)) {
        top = Math.min(top, row);
        bottom = row;
        left = Math.min(left, column);
        right = Math.max(right, column);
      }
    }
  }
  return placed(image, -top, -left, bottom - top + 1, right - left + 1);
}

/** Return an image with `margin` pixels of zero on all sides. */
function pad(image, margin) {
  return placed(image, margin, margin, image.height + 2 * margin, image.width + 2 * margin);
}

/** Return an image of zeros with `image` in it at (top, left), without what is outside. */
function placed(image, top, left, height, width) {
  const result = newImage(height, width);
  for (let row = Math.max(0, top); row < Math.min(height, top + image.height); row++) {
    for (let column = Math.max(0, left); column < Math.min(width, left + image.width); column++) {
      result.data[row * width + column] = image.data[(row - top) * image.width + column - left];
    }
  }
  return result;
}

/** Resize an image so that its longer side has `side` pixels. */
function fit(image, side) {
  const longer = Math.max(image.height, image.width);
  const scaled = (length) => Math.max(1, Math.floor((side * length) / longer + 0.5));
  return resize(image, scaled(image.height), scaled(image.width));
}

/** Return 28x28 bytes with a digit whose centre of mass is as near to (14.5, 14.5) as whole pixels allow. */
function centred(box) {
  let [mass, massOfRows, massOfColumns] = [0, 0, 0];
  for (let i = 0; i < box.data.length; i++) {
    mass += box.data[i];
    massOfRows += box.data[i] * (Math.floor(i / box.width) + 0.5);
    massOfColumns += box.data[i] * ((i % box.width) + 0.5);
  }
  const start = (moment, length) =>
    Math.min(Math.max(Math.trunc(CENTRE - moment / mass + 0.5 - TIE), 0), SIZE - length);
  const top = start(massOfRows, box.height);
  const left = start(massOfColumns, box.width);
  const digit = placed(box, top, left, SIZE, SIZE);
  return Uint8Array.from(digit.data, (value) => Math.floor(value * 255 + 0.5));
}

/** Return the image of `change(value)` for each value. */
function mapImage(image, change) {
  return { ...image, data: image.data.map(change) };
}

/** Return the largest of some values that are not negative. */
function maximum(values) {
  return values.reduce((largest, value) => Math.max(largest, value), 0);
}
