"""Finds low contrasts on a page, by WCAG 2.2 (1.4.3 and 1.4.11)."""

from typing import Any

__all__ = ("faint",)

_FAINT = """
const parts = (text) => { // "rgb(1 2 3)", "rgba(1, 2, 3, 0.4)", "color(srgb 0.1 0.2 0.3 / 0.4)"
  const [red, green, blue, alpha = 1] = (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  return [red * scale, green * scale, blue * scale, alpha];
};
const over = (front, back) => [0, 1, 2].map((at) => front[at] * front[3] + back[at] * (1 - front[3]));
const light = (colour) => colour.slice(0, 3)
  .map((one) => one / 255)
  .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
  .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
const contrast = (one, other) => {
  const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
const ancestors = (node) => (node ? [node, ...ancestors(node.parentElement)] : []);
const ground = (node) => ancestors(node).map((one) => parts(getComputedStyle(one).backgroundColor))
  .reduceRight((back, front) => over(front, back), [255, 255, 255]);
const found = new Set();
const look = (node, colour, back, least, what) => {
  const opacity = ancestors(node).reduce((all, one) => all * getComputedStyle(one).opacity, 1);
  const front = parts(colour);
  const is = contrast(over([...front.slice(0, 3), front[3] * opacity], back), back);
  if (is < least) found.add(`${is.toFixed(2)} ${what} ${node.tagName} .${node.className}`);
};
for (const node of document.querySelectorAll("body *")) {
  if (!node.getClientRects().length || node.matches(":disabled, :disabled *, script, style")) continue;
  const style = getComputedStyle(node);
  const hasText = [...node.childNodes].some((one) => one.nodeType === Node.TEXT_NODE && one.textContent.trim());
  if (hasText) look(node, style.color, ground(node), 4.5, "text");
  if (!node.matches("input:not([type=checkbox], [type=radio]), textarea, select")) continue;
  const shadow = getComputedStyle(node, "::placeholder");
  const hint = shadow.color.replace(/rgb\\((.*)\\)/, `rgba($1, ${shadow.opacity})`);
  if (node.placeholder) look(node, hint, ground(node), 4.5, "placeholder");
  if (parts(style.borderTopColor)[3]) look(node, style.borderTopColor, ground(node), 3, "edge");
}
return [...found];
"""


def faint(driver: Any) -> list[str]:
    """The texts below 4.5 : 1 and the borders of inputs below 3 : 1 on the current page."""
    seen: list[str] = driver.execute_script(_FAINT)
    return seen
