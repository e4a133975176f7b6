// The image that is asked about: an example, a file, or one that was pasted or dropped.

const SENT = ["image/png", "image/jpeg", "image/webp"];

/**
 * Reads a file. Formats that the server does not accept are converted to PNG.
 * @returns {Promise<{name: string, type: string, url: string}>}
 */
export async function readImage(file, name = file.name || "pasted.png") {
  if (SENT.includes(file.type)) return { name, type: file.type, url: await dataUrl(file) };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("The browser cannot read this file as an image: choose a PNG, JPEG or WebP file.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return { name: `${name.replace(/\.[^.]*$/, "")}.png`, type: "image/png", url: canvas.toDataURL("image/png") };
}

/** Reads an example image of the server. */
export async function readExample(name) {
  const response = await fetch(new URL(`demo/${name}`, document.baseURI));
  return readImage(await response.blob(), name);
}

/** First image of a paste or drop; null without one. */
export function imageOf(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}
