/** The sign-in form. */

import { h } from "./dom.js";
import { explain, signIn } from "./session.js";

const SAMPLES = [
  { name: "ada", is: "owns the board" },
  { name: "grace", is: "is a member" },
];

/** Shows the form, with the `reason` for it. Calls `done` once the user has signed in. */
export function showSignIn(view: HTMLElement, reason: string, done: () => void): void {
  const name = h("input", { id: "name", name: "name", autocomplete: "username", required: true, autocapitalize: "none" });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true });
  const problem = h("p", { class: "wrong", role: "alert" }, reason);
  const button = h("button", { class: "primary" }, "Sign in");
  const samples = SAMPLES.map((one) =>
    h(
      "button",
      {
        type: "button",
        class: "sample",
        onclick: () => {
          name.value = password.value = one.name;
          form.requestSubmit();
        },
      },
      h("b", {}, one.name),
      ` ${one.is}`,
    ),
  );
  const form = h(
    "form",
    {
      class: "panel",
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        problem.textContent = "";
        try {
          await signIn(name.value.trim(), password.value);
          done();
        } catch (error) {
          problem.textContent = explain(error);
          password.select();
        } finally {
          button.disabled = false;
        }
      },
    },
    h("h1", {}, "Sign in"),
    h("label", { for: "name" }, "Name"),
    name,
    h("label", { for: "password" }, "Password"),
    password,
    problem,
    button,
    h("p", { class: "hint" }, "Sample users (the password is the name):"),
    h("div", { class: "samples" }, ...samples),
  );
  view.replaceChildren(form);
  name.focus();
}
