// The field of the image: examples, files, paste and drop.

import { byId, make } from "./dom.js";
import { imageOf, readExample, readImage } from "./picture.js";

const EXAMPLES = [
  ["scene-1.png", "Three shapes with letters"],
  ["scene-2.png", "Shapes with letters on stripes"],
  ["scene-3.png", "Many shapes with letters"],
  ["photo-scene.webp", "Shapes with letters on a photograph of a cat"],
];

export class ImageField {
  /** @param {(message: string) => void} complain called with the reason why an image cannot be used */
  constructor(complain) {
    this.complain = complain;
    this.image = null;
    byId("examples").append(...EXAMPLES.map(([name, title]) => this.exampleButton(name, title)));
    byId("file").addEventListener("change", ({ target }) => target.files[0] && this.use(() => readImage(target.files[0])));
    document.addEventListener("paste", (event) => this.take(event.clipboardData, event));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => this.take(event.dataTransfer, event));
  }

  /** Shows the example of a link. An image of the user stays unless the link names an example. */
  async useExample(name) {
    const isExample = EXAMPLES.some(([example]) => example === name);
    if (!this.image || isExample) await this.use(() => readExample(isExample ? name : EXAMPLES[0][0]));
  }

  async use(read) {
    try {
      this.image = await read();
    } catch (error) {
      this.complain(error.message);
      return;
    }
    byId("chosen").src = this.image.url;
    byId("chosen-name").textContent = this.image.name;
    for (const button of byId("examples").children) {
      button.setAttribute("aria-pressed", String(button.dataset.name === this.image.name));
    }
  }

  take(transfer, event) {
    const file = imageOf(transfer);
    if (event.type === "drop" || file) event.preventDefault();
    if (file) this.use(() => readImage(file));
  }

  exampleButton(name, title) {
    const picture = make("img", { src: `demo/${name}`, alt: title });
    const button = make("button", { type: "button", "aria-pressed": "false" }, picture);
    button.dataset.name = name;
    button.addEventListener("click", () => this.use(() => readExample(name)));
    return button;
  }
}
