"use strict";
// Completes the addresses on the page of `GET /`: only the browser knows the public host, behind any proxy.
const root = new URL(document.querySelector("a.button").dataset.root, location.href);
for (const node of document.querySelectorAll("[data-path]")) {
  node.textContent = root.origin.replace("http", "ws") + root.pathname + node.dataset.path;
}
