// Draws the visual tokens of a region over its image.

const SIZE = 480;
const KEPT = "#ff8a00", MERGED = "#00b7d8";
const DARK = "rgba(45, 48, 55, .82)", BRIGHT = "rgba(222, 225, 230, .82)";

/** Loads the image of a region, and finds out whether it is bright. */
export async function loadRegion(region) {
  const image = new Image();
  image.src = region.image;
  await image.decode();
  const probe = document.createElement("canvas");
  probe.width = probe.height = 8;
  const context = probe.getContext("2d");
  context.drawImage(image, 0, 0, 8, 8);
  const colors = context.getImageData(0, 0, 8, 8).data;
  const mean = colors.reduce((sum, value, i) => sum + (i % 4 < 3 ? value : 0), 0) / (3 * 64);
  return { ...region, bitmap: image, fog: mean > 100 ? DARK : BRIGHT };
}

/**
 * Assigns the tokens of a trace to the cells of regions.
 * A method that shrinks the image has fewer tokens than the regions: its own grids then cover the same images.
 * @returns {Array<object> | null} regions, or null if the tokens form no grids
 */
export function fit(regions, trace) {
  const known = regions.flatMap((region) => region.tokens).filter((token) => token !== null);
  if (known.length === trace.visualTokens) return regions;
  const grids = trace.groups.filter((group) => group.grid);
  if (grids.length !== regions.length || trace.groups.length !== grids.length) return null;
  return regions.map((region, i) => {
    const [rows, columns] = grids[i].grid;
    const tokens = Array(rows * columns).fill(null);
    grids[i].cells.forEach((cell, n) => (tokens[cell] = grids[i].tokens[n]));
    return { ...region, rows, columns, tokens };
  });
}

/** Draws a region: dropped tokens are covered, kept ones outlined. */
export function draw(canvas, region, held, merged) {
  const { rows, columns, tokens } = region;
  const cell = Math.max(4, Math.round(SIZE / Math.max(rows, columns)));
  canvas.width = columns * cell;
  canvas.height = rows * cell;
  const context = canvas.getContext("2d");
  context.drawImage(region.bitmap, 0, 0, canvas.width, canvas.height);
  const isKept = (row, column) => {
    const token = tokens[row * columns + column];
    return token === null || held.has(token);
  };
  const everyCell = (visit) => tokens.forEach((token, i) => visit(Math.floor(i / columns), i % columns, token));
  context.fillStyle = region.fog;
  everyCell((row, column) => {
    if (!isKept(row, column)) context.fillRect(column * cell, row * cell, cell, cell);
  });
  context.strokeStyle = KEPT;
  context.lineWidth = 2;
  context.beginPath();
  everyCell((row, column) => {
    const [x, y] = [column * cell, row * cell];
    if (column > 0 && isKept(row, column) !== isKept(row, column - 1)) line(context, x, y, x, y + cell);
    if (row > 0 && isKept(row, column) !== isKept(row - 1, column)) line(context, x, y, x + cell, y);
  });
  context.stroke();
  context.strokeStyle = MERGED;
  everyCell((row, column, token) => {
    if (merged.has(token) && held.has(token)) context.strokeRect(column * cell + 2, row * cell + 2, cell - 4, cell - 4);
  });
}

function line(context, x, y, toX, toY) {
  context.moveTo(x, y);
  context.lineTo(toX, toY);
}
