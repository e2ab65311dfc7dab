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

/** Return a digit, an image in [0, 1] with 0 as the background, as 28x28 bytes; null where it has no ink. */
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
  const columns = lineWeights(image.width, width);
  const narrow = newImage(image.height, width);
  for (let row = 0; row < image.height; row++) {
    for (let column = 0; column < width; column++) {
      const { start, weights } = columns[column];
      const from = row * image.width + start;
      let sum = 0;
      for (let i = 0; i < weights.length; i++) {
        sum += weights[i] * image.data[from + i];
      }
      narrow.data[row * width + column] = sum;
    }
  }
  const rows = lineWeights(image.height, height);
  const result = newImage(height, width);
  for (let row = 0; row < height; row++) {
    const { start, weights } = rows[row];
    for (let i = 0; i < weights.length; i++) {
      for (let column = 0; column < width; column++) {
        result.data[row * width + column] += weights[i] * narrow.data[(start + i) * width + column];
      }
    }
  }
  return result;
}

/** Return for each pixel of a resized line the first of the given pixels that it needs, and their weights. */
function lineWeights(given, wanted) {
  const scale = given / wanted;
  const line = [];
  for (let pixel = 0; pixel < wanted; pixel++) {
    const weights = [];
    let start;
    if (scale >= 1) {
      const from = pixel * scale;
      const to = from + scale;
      start = Math.floor(from);
      for (let i = start; i < Math.min(to, given); i++) {
        weights.push((Math.min(i + 1, to) - Math.max(i, from)) / scale);
      }
    } else {
      const at = Math.min(Math.max((pixel + 0.5) * scale - 0.5, 0), given - 1);
      start = Math.floor(at);
      weights.push(1 - (at - start));
      if (start + 1 < given) {
        weights.push(at - start);
      }
    }
    line.push({ start, weights });
  }
  return line;
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
  const { height, width, data } = image;
  const result = newImage(height, width);
  result.data.set(data);
  for (let down = -reach; down <= reach; down++) {
    for (let across = -reach; across <= reach; across++) {
      if (down * down + across * across > radius * radius) {
        continue;
      }
      const lastRow = Math.min(height, height - down);
      const firstColumn = Math.max(0, -across);
      const lastColumn = Math.min(width, width - across);
      for (let row = Math.max(0, -down); row < lastRow; row++) {
        const shift = (row + down) * width + across;
        for (let column = firstColumn; column < lastColumn; column++) {
          const value = data[shift + column];
          const at = row * width + column;
          if (value > result.data[at]) {
            result.data[at] = value;
          }
        }
      }
    }
  }
  return result;
}

/** Divide each pixel by the largest one around it, and make what is then above 0.75 full ink. */
function withEvenContrast(image) {
  const local = largestAround(image, (WINDOW - 1) / 2);
  const [low, high] = RAMP;
  const result = newImage(image.height, image.width);
  for (let i = 0; i < result.data.length; i++) {
    const relative = image.data[i] / Math.max(local.data[i], FAINTEST);
    result.data[i] = Math.min(Math.max((relative - low) / (high - low), 0), 1);
  }
  return result;
}

/** Return the largest value in the square around each pixel, `reach` pixels to each side. */
function largestAround(image, reach) {
  const { height, width, data } = image;
  const inRows = newImage(height, width);
  const result = newImage(height, width);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = row * width + Math.max(0, column - reach);
      const to = row * width + Math.min(width - 1, column + reach);
      inRows.data[row * width + column] = maximum(data.subarray(from, to + 1));
    }
  }
  for (let row = 0; row < height; row++) {
    const last = Math.min(height - 1, row + reach);
    for (let other = Math.max(0, row - reach); other <= last; other++) {
      for (let column = 0; column < width; column++) {
        const at = row * width + column;
        result.data[at] = Math.max(result.data[at], inRows.data[other * width + column]);
      }
    }
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
  const part = newImage(bottom - top + 1, right - left + 1);
  for (let row = 0; row < part.height; row++) {
    const from = (top + row) * width + left;
    part.data.set(data.subarray(from, from + part.width), row * part.width);
  }
  return part;
}

/** Resize an image so that its longer side has `side` pixels. */
function fit(image, side) {
  const longer = Math.max(image.height, image.width);
  const scaled = (length) => Math.max(1, Math.floor((side * length) / longer + 0.5));
  return resize(image, scaled(image.height), scaled(image.width));
}

/** Return an image with `margin` pixels of zero on all sides. */
function pad(image, margin) {
  const padded = newImage(image.height + 2 * margin, image.width + 2 * margin);
  for (let row = 0; row < image.height; row++) {
    const line = image.data.subarray(row * image.width, (row + 1) * image.width);
    padded.data.set(line, (row + margin) * padded.width + margin);
  }
  return padded;
}

/** Return 28x28 bytes with a digit whose centre of mass is as near to (14.5, 14.5) as whole pixels allow. */
function centred(box) {
  let [mass, massOfRows, massOfColumns] = [0, 0, 0];
  for (let row = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++) {
      const value = box.data[row * box.width + column];
      mass += value;
      massOfRows += value * (row + 0.5);
      massOfColumns += value * (column + 0.5);
    }
  }
  const start = (moment, length) =>
    Math.min(Math.max(Math.trunc(CENTRE - moment / mass + 0.5 - TIE), 0), SIZE - length);
  const top = start(massOfRows, box.height);
  const left = start(massOfColumns, box.width);
  const bytes = new Uint8Array(SIZE * SIZE);
  for (let row = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++) {
      const value = box.data[row * box.width + column];
      bytes[(top + row) * SIZE + left + column] = Math.floor(value * 255 + 0.5);
    }
  }
  return bytes;
}

/** Return the image of `change(value)` for each value. */
function mapImage(image, change) {
  return { ...image, data: image.data.map(change) };
}

/** Return the largest of some values that are not negative. */
function maximum(values) {
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    if (values[i] > largest) {
      largest = values[i];
    }
  }
  return largest;
}
