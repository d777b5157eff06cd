// From a file to upright RGB with sharp, as EMBEDDING.md says.
import sharp from "sharp";

export async function decode(file) {
  const { space } = await sharp(file).metadata();
  if (space === "cmyk") return cmyk(file);
  const { data, info } = await sharp(file)
    .rotate() // upright, by the EXIF orientation
    .toColourspace("srgb")
    .ensureAlpha()
    .raw({ depth: "uchar" })
    .toBuffer({ resolveWithObject: true });
  const out = new Uint8Array(info.width * info.height * 3);
  for (let i = 0, k = 0; i < data.length; i += 4)
    for (let c = 0; c < 3; c++) out[k++] = Math.round((data[i + c] * data[i + 3] + 255 * (255 - data[i + 3])) / 255);
  return { width: info.width, height: info.height, data: out };
}

/** Without a profile: (255 - C) (255 - K) / 255. A printing profile, which sharp would take, gives other colours. */
async function cmyk(file) {
  const { data, info } = await sharp(file).pipelineColourspace("cmyk").rotate().toColourspace("cmyk").raw().toBuffer({ resolveWithObject: true });
  const out = new Uint8Array(info.width * info.height * 3);
  for (let i = 0, k = 0; i < data.length; i += 4)
    for (let c = 0; c < 3; c++) out[k++] = Math.round(((255 - data[i + c]) * (255 - data[i + 3])) / 255);
  return { width: info.width, height: info.height, data: out };
}
