"use strict";
// The forward pass of an exported network. A value is {shape, data}: the shape [C, H, W] or [N] without the
// batch, the data a Float32Array in that order. An operation is what mnist_cnn/export/html.py writes:
// {kind, name, output, inputs, shape, weights, settings}, its weights as [offset, length].

/** Return a network of the page's data with its weights as arrays. */
function loadNetwork(saved) {
  // Numbers of 32 bits in base64, little-endian as every browser's machine.
  const bytes = Uint8Array.from(atob(saved.weights), (character) => character.charCodeAt(0));
  const all = new Float32Array(bytes.buffer);
  const operations = saved.operations.map((operation) => {
    const weights = {};
    for (const [name, [offset, length]] of Object.entries(operation.weights)) {
      weights[name] = all.subarray(offset, offset + length);
    }
    return { ...operation, weights };
  });
  return { ...saved, operations, weights: undefined };
}

/** Return the input of a network: 28x28 bytes padded with zeros, in each channel, and normalized. */
function networkInput({ about }, bytes) {
  const { in_channels: channels, image_size: size } = about;
  const margin = Math.floor((size - SIZE) / 2);
  const data = new Float32Array(channels * size * size);
  for (let channel = 0; channel < channels; channel++) {
    const mean = about.mean[channel] ?? about.mean; // one number for each channel, or one for all
    const std = about.std[channel] ?? about.std;
    data.fill(-mean / std, channel * size * size, (channel + 1) * size * size);
    for (let row = 0; row < SIZE; row++) {
      const start = (channel * size + margin + row) * size + margin;
      for (let column = 0; column < SIZE; column++) {
        data[start + column] = (bytes[row * SIZE + column] / 255 - mean) / std;
      }
    }
  }
  return { shape: [channels, size, size], data };
}

/** Return the values of all operations by their output names, for one image. */
function forward(network, input) {
  const values = new Map([[network.input, input]]);
  for (const operation of network.operations) {
    const inputs = operation.inputs.map((name) => values.get(name));
    const data = OPERATIONS[operation.kind](operation, ...inputs);
    values.set(operation.output, { shape: operation.shape, data });
  }
  return values;
}

/** Return the probabilities that are proportional to the exponentials of `values`. */
function softmax(values) {
  const largest = Math.max(...values);
  const powers = Array.from(values, (value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

// By their names in ATen. A view or reshape has the same numbers, and dropout is off.
const OPERATIONS = {
  conv2d: convolve,
  linear,
  batch_norm: batchNorm,
  // The padding is never the largest, and counts as zeros in a mean.
  max_pool2d: (operation, x) => pool(operation, x, slidingWindow(operation, x), (largest) => largest),
  avg_pool2d: (operation, x) => {
    const [height, width] = operation.settings.kernel_size;
    return pool(operation, x, slidingWindow(operation, x), (largest, sum) => sum / (height * width));
  },
  adaptive_avg_pool2d: (operation, x) =>
    pool(operation, x, evenWindow(operation, x), (largest, sum, count) => sum / count),
  relu: (operation, x) => x.data.map((value) => Math.max(value, 0)),
  tanh: (operation, x) => x.data.map(Math.tanh),
  sigmoid: (operation, x) => x.data.map((value) => 1 / (1 + Math.exp(-value))),
  add: (operation, x, y) => x.data.map((value, i) => value + y.data[i]),
  flatten: (operation, x) => x.data,
  view: (operation, x) => x.data,
  reshape: (operation, x) => x.data,
  dropout: (operation, x) => x.data,
};

/**
 * Convolution: input (C, H, W), weight (N, C, P, Q) -> (N, I, J), as a product of two matrices: the kernels
 * (N, C·P·Q) and the windows (C·P·Q, I·J). The innermost loop runs over neighbours in memory.
 */
function convolve(operation, x) {
  const { weight, bias } = operation.weights;
  const [kernels, height, width] = operation.shape;
  const area = height * width;
  const windows = unfold(operation, x);
  const taps = windows.length / area;
  const output = new Float32Array(kernels * area);
  for (let kernel = 0; kernel < kernels; kernel++) {
    const sums = output.subarray(kernel * area, (kernel + 1) * area);
    if (bias) {
      sums.fill(bias[kernel]);
    }
    for (let tap = 0; tap < taps; tap++) {
      const factor = weight[kernel * taps + tap];
      const from = tap * area;
      for (let i = 0; i < area; i++) {
        sums[i] += factor * windows[from + i];
      }
    }
  }
  return output;
}

/** Return what each element of a kernel meets at each output: (C·P·Q, I·J), zeros for the padding. */
function unfold(operation, x) {
  const { kernel_size: kernel, stride, padding } = operation.settings;
  const [channels, height, width] = x.shape;
  const [, rows, columns] = operation.shape;
  const windows = new Float32Array(channels * kernel[0] * kernel[1] * rows * columns);
  let at = 0;
  for (let channel = 0; channel < channels; channel++) {
    for (let p = 0; p < kernel[0]; p++) {
      for (let q = 0; q < kernel[1]; q++) {
        for (let i = 0; i < rows; i++) {
          const row = i * stride[0] + p - padding[0];
          if (row < 0 || row >= height) {
            at += columns;
            continue;
          }
          const start = (channel * height + row) * width;
          for (let j = 0; j < columns; j++, at++) {
            const column = j * stride[1] + q - padding[1];
            if (column >= 0 && column < width) {
              windows[at] = x.data[start + column];
            }
          }
        }
      }
    }
  }
  return windows;
}

/** Linear layer: input (D,), weight (M, D) -> (M,). */
function linear(operation, x) {
  const { weight, bias } = operation.weights;
  const inputs = x.data.length;
  const output = new Float32Array(operation.shape[0]);
  for (let m = 0; m < output.length; m++) {
    const from = m * inputs;
    let sum = bias ? bias[m] : 0;
    for (let d = 0; d < inputs; d++) {
      sum += weight[from + d] * x.data[d];
    }
    output[m] = sum;
  }
  return output;
}

/** Batch normalization in evaluation: (x - mean) / sqrt(variance + eps) · weight + bias in each channel. */
function batchNorm(operation, x) {
  const { weight, bias, running_mean: mean, running_var: variance } = operation.weights;
  const [channels] = operation.shape;
  const area = x.data.length / channels;
  const output = new Float32Array(x.data.length);
  for (let channel = 0; channel < channels; channel++) {
    const scale = (weight ? weight[channel] : 1) / Math.sqrt(variance[channel] + operation.settings.eps);
    const shift = (bias ? bias[channel] : 0) - mean[channel] * scale;
    for (let i = channel * area; i < (channel + 1) * area; i++) {
      output[i] = x.data[i] * scale + shift;
    }
  }
  return output;
}

/** Return a function of an output's index and axis that gives the range of the inputs that it covers. */
function slidingWindow(operation, x) {
  const { kernel_size: kernel, padding } = operation.settings;
  const stride = operation.settings.stride.length ? operation.settings.stride : kernel;
  return (index, axis) => {
    const start = index * stride[axis] - padding[axis];
    return [Math.max(start, 0), Math.min(start + kernel[axis], x.shape[1 + axis])];
  };
}

/** Return the same for pooling to a given size, with windows that are as even as possible. */
function evenWindow(operation, x) {
  return (index, axis) => {
    const [given, wanted] = [x.shape[1 + axis], operation.shape[1 + axis]];
    return [Math.floor((index * given) / wanted), Math.ceil(((index + 1) * given) / wanted)];
  };
}

/** Pooling: input (C, H, W) -> (C, I, J), each output `finish(largest, sum, count)` of its window. */
function pool(operation, x, window, finish) {
  const [channels, height, width] = x.shape;
  const [, rows, columns] = operation.shape;
  const down = Array.from({ length: rows }, (_, index) => window(index, 0));
  const across = Array.from({ length: columns }, (_, index) => window(index, 1));
  const output = new Float32Array(channels * rows * columns);
  let at = 0;
  for (let channel = 0; channel < channels; channel++) {
    for (const [top, bottom] of down) {
      for (const [left, right] of across) {
        let largest = -Infinity;
        let sum = 0;
        for (let row = top; row < bottom; row++) {
          const start = (channel * height + row) * width;
          for (let i = start + left; i < start + right; i++) {
            const value = x.data[i];
            largest = value > largest ? value : largest;
            sum += value;
          }
        }
        output[at++] = finish(largest, sum, (bottom - top) * (right - left));
      }
    }
  }
  return output;
}
