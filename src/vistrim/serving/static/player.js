// A slider with a button that moves it.

const PAUSE = 350;

export class Player {
  /**
   * @param {object} parts the `slider`, its `output` and `button`
   * @param {(value: number) => string} describe text of a position
   * @param {() => void} changed called for each new position
   */
  constructor({ slider, output, button }, describe, changed) {
    Object.assign(this, { slider, output, button, describe, changed, timer: null });
    slider.addEventListener("input", () => this.show());
    button.addEventListener("click", () => (this.timer === null ? this.play() : this.pause()));
  }

  get value() {
    return Number(this.slider.value);
  }

  setMax(max) {
    this.slider.max = max;
    this.slider.disabled = this.button.disabled = max === 0;
    this.show();
  }

  set(value) {
    this.slider.value = value;
    this.show();
  }

  show() {
    const text = this.describe(this.value);
    this.output.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.changed();
  }

  play() {
    if (this.value >= Number(this.slider.max)) this.set(0);
    this.button.setAttribute("aria-pressed", "true");
    this.timer = setInterval(() => {
      this.set(this.value + 1);
      if (this.value >= Number(this.slider.max)) this.pause();
    }, PAUSE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.setAttribute("aria-pressed", "false");
  }
}
