// Draws an image with what was found in it.

const LINE_SHARE = 1 / 320; // of the longer side, as the library's own overlay

// The server chooses a color with the mask: the one that is farthest from the object's own.
export function colorOf(palette, index, object) {
  return object?.mask?.color ?? palette[index % palette.length];
}

const css = ([red, green, blue], alpha = 1) => `rgb(${red} ${green} ${blue} / ${alpha})`;

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

// Turn a mask's PNG into two canvases, its area and its outline, both in one color.
export async function maskLayers(mask, color, line) {
  const bitmap = await createImageBitmap(new Blob([bytesOf(mask.png)], { type: "image/png" }));
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const values = context.getImageData(0, 0, width, height).data;
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[4 * (y * width + x)] > 127;
  const area = new ImageData(width, height);
  const edge = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!inside(x, y)) continue;
      const at = 4 * (y * width + x);
      area.data.set([...color, 255], at);
      const isEdge = !inside(x - line, y) || !inside(x + line, y) || !inside(x, y - line) || !inside(x, y + line);
      if (isEdge) edge.data.set([...color, 255], at);
    }
  }
  return [area, edge].map((data) => {
    const layer = new OffscreenCanvas(width, height);
    layer.getContext("2d").putImageData(data, 0, 0);
    return layer;
  });
}

export const lineOf = (bitmap) => Math.max(1, Math.round(Math.max(bitmap.width, bitmap.height) * LINE_SHARE));

// Draw an answer into a canvas of the image's size; `lit` is the index of the object to show best.
export function draw(canvas, answer, palette, lit = null) {
  const { bitmap } = answer;
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const context = canvas.getContext("2d");
  const line = lineOf(bitmap);
  context.globalAlpha = 1;
  context.drawImage(bitmap, 0, 0);
  const shown = [...answer.objects].filter(([, object]) => object.isShown);
  for (const [index, object] of shown) {
    const isDim = lit !== null && lit !== index;
    if (object.layers) {
      const [x, y] = object.mask.offset_xy;
      context.globalAlpha = isDim ? 0.12 : lit === index ? 0.65 : 0.45;
      context.drawImage(object.layers[0], x, y);
      context.globalAlpha = isDim ? 0.3 : 1;
      context.drawImage(object.layers[1], x, y);
    }
    context.globalAlpha = isDim ? 0.3 : 1;
    drawPrompt(context, object, css(colorOf(palette, index, object)), line);
    drawSpace(context, object.space, css(colorOf(palette, index, object)), line);
  }
  for (const [index, object] of shown) {
    context.globalAlpha = lit !== null && lit !== index ? 0.3 : 1;
    drawNumber(context, object, index, colorOf(palette, index, object), line);
  }
  context.globalAlpha = 1;
}

function drawPrompt(context, { box_xyxy: [left, top, right, bottom], points, layers }, color, line) {
  context.lineWidth = line;
  context.strokeStyle = color;
  context.setLineDash(layers ? [] : [4 * line, 3 * line]); // dashed until the mask is there
  context.strokeRect(left, top, right - left, bottom - top);
  context.setLineDash([]);
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, 2 * line, 0, 2 * Math.PI);
    context.fillStyle = "white";
    context.fill();
    context.lineWidth = Math.max(1, line / 2);
    context.strokeStyle = "black";
    context.stroke();
  }
}

function drawSpace(context, space, color, line) {
  if (!space?.size_m) return;
  segments(context, space.box_lines_px, color, Math.max(1, line / 2));
  if (!space.grasp) return;
  segments(context, space.grasp.lines_px, "black", 2.5 * line);
  segments(context, space.grasp.lines_px, "white", 1.2 * line);
}

function segments(context, points, color, width) {
  if (!points) return;
  context.beginPath();
  for (let i = 0; i + 1 < points.length; i += 2) {
    context.moveTo(...points[i]);
    context.lineTo(...points[i + 1]);
  }
  context.lineCap = "round";
  context.lineWidth = width;
  context.strokeStyle = color;
  context.stroke();
}

// The object's number at its box's corner: outside of the box where there is room.
function drawNumber(context, { box_xyxy: [left, top] }, index, color, line) {
  const size = Math.max(11, 8 * line);
  context.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  const text = String(index + 1);
  const width = context.measureText(text).width + 0.7 * size;
  const height = 1.3 * size;
  const x = Math.min(Math.max(0, left - line / 2), context.canvas.width - width);
  const y = top - height >= 0 ? top - height : Math.min(Math.max(0, top), context.canvas.height - height);
  context.fillStyle = css(color);
  context.fillRect(x, y, width, height);
  const brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];
  context.fillStyle = brightness > 120 ? "black" : "white";
  context.textBaseline = "middle";
  context.fillText(text, x + 0.35 * size, y + height / 2 + 0.05 * size);
}
