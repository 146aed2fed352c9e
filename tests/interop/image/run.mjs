export async function run({ input, connect }) {
  const data = Uint8Array.from({ length: input.byte_cycle * input.times }, (_, index) => index % input.byte_cycle);
  const parts = [
    { type: "text", text: input.prompt },
    { type: "image", data, mimeType: input.mime_type },
  ];
  return JSON.parse(await connect("mirror").generate([{ role: "user", parts }])).messages[0];
}
