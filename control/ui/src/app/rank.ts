/**
 * How well an item of the palette matches a text, 0 (not) to 1: each word of the text has to be in it.
 * Words at the beginning of the item's count more than those within, and a name that begins with the
 * whole text the most. An item is a kind and a name, such as "node gateway-1".
 */
export function rank(item: string, text: string): number {
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const whole = item.toLowerCase();
  if (words.length === 0) return 1;
  if (!words.every((word) => whole.includes(word))) return 0;
  const name = whole.slice(whole.indexOf(" ") + 1);
  if (name.startsWith(words.join(" "))) return 1;
  const starts = words.every((word) => whole.split(/[^a-z0-9]+/).some((part) => part.startsWith(word)) || whole.includes(` ${word}`) || whole.includes(`/${word}`));
  return starts ? 0.8 : 0.4;
}
