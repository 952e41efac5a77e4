// Sign-in: the dialog for a credential, and the tokens that replies hold.

const TOKEN_NAME = /^((access|auth|id|session|bearer)?_?token|access|jwt)$/i; // no refresh tokens: they do not sign in
const TOKEN_DEPTH = 3;

/** The token in the data of a reply, such as `{"token": "…"}` or `{"tokens": {"access": "…"}}`, or null. */
function tokenIn(data, depth = TOKEN_DEPTH) {
  if (data === null || typeof data !== "object" || Array.isArray(data) || !depth) return null;
  for (const [name, value] of Object.entries(data)) {
    if (TOKEN_NAME.test(name) && typeof value === "string" && value) return value;
  }
  return Object.values(data).map((value) => tokenIn(value, depth - 1)).find(Boolean) ?? null;
}

class SignIn {
  constructor(page) {
    this.page = page;
    this.ways = page.contract["x-wsaction"].authentication;
    this.schemes = Object.entries(page.contract.components.securitySchemes ?? {});
    byId("signin").hidden = !this.schemes.length;
    byId("signin").addEventListener("click", () => this.ask());
  }

  get socket() {
    return this.page.socket;
  }

  /** The token of a reply, if the app takes tokens. */
  offered(call) {
    const takesToken = this.ways.auth_frame || this.ways.bearer;
    return takesToken && call.reply && call.reply.status < 300 ? tokenIn(call.reply.data) : null;
  }

  /** Signs in with a token of a reply. */
  useToken(token) {
    return this.present({ way: this.ways.auth_frame ? "frame" : "bearer", value: token });
  }

  ask() {
    const dialog = byId("dialog");
    if (dialog.open || !this.schemes.length) return;
    const value = element("textarea", {
      id: "credential", rows: "3", class: "code", autocomplete: "off", spellcheck: "false", enterkeyhint: "go",
      placeholder: "A token, or JSON for $auth", "aria-describedby": "credential-hint", onkeydown: submitByEnter,
    });
    const choices = [
      this.ways.bearer && ["bearer", "Bearer token, sent as a subprotocol of the handshake"],
      this.ways.auth_frame && ["frame", "In an $auth frame"],
      ["cookie", "By the cookies of this site"],
    ].filter(Boolean);
    const radios = choices.map(([way, label], at) => element("label", { class: "radio" }, element("input", { type: "radio", name: "way", value: way, checked: at === 0 }), label));
    const way = () => dialog.querySelector("input[name=way]:checked").value;
    const token = labelled("Token", value);
    token.append(element("p", { class: "hint", id: "credential-hint" }, "Enter signs in, Shift+Enter starts a new line."));
    const chosen = () => (token.hidden = way() === "cookie"); // the browser sends the cookies
    const submit = (event) => {
      event.preventDefault();
      dialog.close();
      this.present({ way: way(), value: way() === "frame" ? jsonOrText(value.value) : value.value.trim() });
    };
    dialog.replaceChildren(element(
      "form", { onsubmit: submit, onchange: chosen },
      element("h2", { id: "dialog-title" }, "Sign in"),
      this.schemes.map(([name, scheme]) => element("p", { class: "hint" }, element("b", {}, name), inline(scheme.description ? `: ${scheme.description}` : ""))),
      element("div", { role: "radiogroup", "aria-label": "Way to sign in", class: "radios" }, radios), token,
      element("p", { class: "hint" }, "The credential is kept only in this page, until you close it."),
      element("div", { class: "buttons" }, element("button", { type: "submit", class: "primary" }, "Sign in"),
        element("button", { type: "button", class: "quiet", onclick: () => (dialog.close(), this.present(null)) }, "Sign out"),
        element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close")),
    ));
    dialog.showModal();
    chosen();
    value.focus();
  }

  /** Signs in with a credential, or out with null: by `$auth` on the open connection, or by connecting again. */
  async present(credential) {
    this.socket.credential = credential?.way === "cookie" ? null : credential;
    if (credential?.way !== "frame" || !this.socket.isOpen) return this.page.connect();
    const reply = await this.socket.ask({ action: "$auth", data: credential.value });
    if (reply && reply.status !== 200) this.socket.credential = null; // else every new connection would send it
    if (this.socket.isOpen) this.page.state("open", "Connected"); // no "sign in first" any more
    toast(reply?.status === 200 ? "Signed in" : `Not signed in: ${reply?.errors[0]?.msg ?? "the connection closed"}`);
  }
}

function submitByEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}

function jsonOrText(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text.trim();
  }
}
