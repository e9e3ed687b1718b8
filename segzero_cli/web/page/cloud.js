// A point cloud that turns. Camera frame: x to the right, y down, z forward, in millimeters.

import { bytesOf, colorOf } from "./stage.js";

const TURN_PER_S = 0.35;
const REST_MS = 40;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.isHeld = false;
    canvas.addEventListener("pointerdown", (event) => {
      this.isHeld = true;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) this.turn(event.movementX * 0.01, event.movementY * 0.01);
    });
    canvas.addEventListener("keydown", (event) => {
      const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
      if (across === undefined) return;
      event.preventDefault();
      this.isHeld = true;
      this.turn(across * 0.1, down * 0.1);
    });
  }

  // Show an answer's cloud with its boxes and grasps.
  show(answer, palette) {
    const { points_mm, color, is_object } = answer.cloud;
    this.points = new Int16Array(bytesOf(points_mm).buffer);
    this.colors = bytesOf(color);
    this.isObject = bytesOf(is_object);
    this.lines = [];
    for (const [index, object] of answer.objects) {
      const { space } = object;
      if (!space?.size_m) continue;
      this.lines.push({ ends: space.box_lines_m, color: `rgb(${colorOf(palette, index, object)})`, width: 1.5 });
      if (space.grasp) this.lines.push({ ends: space.grasp.lines_m, color: "white", width: 3 });
    }
    this.middle = this.#middle();
    [this.yaw, this.pitch, this.isHeld] = [0.3, 0.15, false];
    clearInterval(this.timer);
    this.draw();
    if (!calm.matches) {
      let before = performance.now();
      this.timer = setInterval(() => {
        const now = performance.now();
        const isSeen = this.canvas.offsetParent && !document.hidden;
        if (!this.isHeld && isSeen) this.turn((TURN_PER_S * (now - before)) / 1000 * Math.cos(now / 4000), 0);
        before = now;
      }, REST_MS);
    }
  }

  hide() {
    clearInterval(this.timer);
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(1.4, Math.max(-1.4, this.pitch + pitch));
    this.draw();
  }

  // The middle of the objects, or of everything where there are none.
  #middle() {
    const axes = [[], [], []];
    const isAny = this.isObject.some((value) => value);
    for (let i = 0; i < this.isObject.length; i++) {
      if (isAny && !this.isObject[i]) continue;
      for (let axis = 0; axis < 3; axis++) axes[axis].push(this.points[3 * i + axis]);
    }
    return axes.map((values) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0);
  }

  // Turn a point [mm] around the middle and project it: x, y and distance in pixels of the canvas.
  #project(x, y, z, view) {
    [x, y, z] = [x - this.middle[0], y - this.middle[1], z - this.middle[2]];
    const across = x * view.cosYaw + z * view.sinYaw;
    const forward = z * view.cosYaw - x * view.sinYaw;
    const down = y * view.cosPitch - forward * view.sinPitch;
    const far = forward * view.cosPitch + y * view.sinPitch + view.distance;
    return [view.width / 2 + (view.focal * across) / far, view.height / 2 + (view.focal * down) / far, far];
  }

  draw() {
    const { canvas } = this;
    const scale = Math.min(2, devicePixelRatio);
    const width = Math.round(canvas.clientWidth * scale);
    const height = Math.round(canvas.clientHeight * scale);
    if (!width || !this.points) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const distance = Math.max(300, this.middle[2]);
    const view = {
      width, height, distance, focal: height * 1.05,
      cosYaw: Math.cos(this.yaw), sinYaw: Math.sin(this.yaw),
      cosPitch: Math.cos(this.pitch), sinPitch: Math.sin(this.pitch),
    };
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    this.#points(image, view, Math.round(2 * scale) + 1);
    context.putImageData(image, 0, 0);
    for (const { ends, color, width: thickness } of this.lines) {
      context.beginPath();
      for (let i = 0; i + 1 < ends.length; i += 2) {
        const [from, to] = [ends[i], ends[i + 1]].map((end) => this.#project(...end.map((v) => v * 1000), view));
        if (from[2] <= 0 || to[2] <= 0) continue;
        context.moveTo(from[0], from[1]);
        context.lineTo(to[0], to[1]);
      }
      context.lineWidth = thickness * scale;
      context.strokeStyle = color;
      context.stroke();
    }
  }

  // Write all points into an image, the nearest on top; objects brighter than what is around them.
  #points(image, view, size) {
    const nearest = new Float32Array(view.width * view.height).fill(Infinity);
    for (let i = 0; i < this.isObject.length; i++) {
      const [x, y, far] = this.#project(this.points[3 * i], this.points[3 * i + 1], this.points[3 * i + 2], view);
      if (far <= 50) continue;
      const shade = this.isObject[i] ? 1 : 0.55;
      for (let row = y | 0; row < (y | 0) + size; row++) {
        for (let column = x | 0; column < (x | 0) + size; column++) {
          if (row < 0 || column < 0 || row >= view.height || column >= view.width) continue;
          const at = row * view.width + column;
          if (far >= nearest[at]) continue;
          nearest[at] = far;
          for (let channel = 0; channel < 3; channel++) image.data[4 * at + channel] = this.colors[3 * i + channel] * shade;
          image.data[4 * at + 3] = 255;
        }
      }
    }
  }
}
