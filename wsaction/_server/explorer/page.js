// Page: the tree of routes and actions, the form of an action, and sending its frame.

const setting = (name) => document.querySelector(`meta[name="wsaction:${name}"]`).content;
const ROOT = new URL(setting("root"), location.href);

class Explorer {
  constructor(contract) {
    this.contract = contract;
    this.actions = Object.entries(contract.operations)
      .filter(([, operation]) => operation.action === "receive")
      .map(([id, operation]) => this.actionOf(id, operation));
    this.channels = Object.entries(contract.channels).filter(([, channel]) => channel["x-wsaction"]);
    this.socket = new Socket(this);
    this.callsView = new CallsView(byId("calls"), { load: (call) => this.load(call), cancel: (call) => this.socket.cancel(call) });
    this.eventsView = new EventsView(byId("events"), { seen: () => this.unread(), unsubscribe: (route) => this.sendAction("unsubscribe", route) });
    byId("title").textContent = contract.info.title;
    byId("version").textContent = contract.info.version;
    document.title = `${contract.info.title} · Explorer`;
    byId("connect").addEventListener("click", () => (this.socket.stayConnected ? this.socket.disconnect() : this.connect()));
    byId("signin").hidden = !Object.keys(contract.components.securitySchemes ?? {}).length;
    byId("signin").addEventListener("click", () => this.askForCredential());
    byId("filter").addEventListener("input", () => this.drawTree());
    byId("tree").addEventListener("keydown", (event) => this.moveFocus(event));
    byId("filter").addEventListener("keydown", (event) => this.moveFocus(event));
    byId("menu").addEventListener("click", () => this.showMenu(!document.body.classList.contains("menu")));
    for (const tab of [byId("tab-calls"), byId("tab-events")]) {
      tab.addEventListener("click", () => this.showTab(tab.id.slice(4)));
      tab.addEventListener("keydown", (event) => event.key.startsWith("Arrow") && this.showTab(tab.id === "tab-calls" ? "events" : "calls", true));
    }
    addEventListener("keydown", (event) => this.shortcut(event));
    addEventListener("hashchange", () => this.openHash());
    this.chooseChannel(this.actions.find((one) => `#${one.id}` === location.hash)?.channel ?? this.channels[0]?.[0]);
  }

  actionOf(id, operation) {
    const channel = operation.channel.$ref.split("/").pop();
    const message = follow(this.contract, operation.messages[0].$ref);
    return { id, channel, operation, facts: operation["x-wsaction"], payload: message.payload };
  }

  // the connection
  chooseChannel(name) {
    this.channel = name;
    if (name === undefined) {
      byId("form").append(element("p", { class: "empty" }, "This app has no connections to explore."));
      return;
    }
    const channel = this.contract.channels[name];
    const select = element("select", { "aria-label": "Connection", onchange: (event) => this.changeChannel(event.target.value) },
      this.channels.map(([one, { address, title }]) => element("option", { value: one, selected: one === name }, `${address ?? title}`)));
    const parameters = Object.entries(channel["x-wsaction"].parameters ?? {});
    this.connectionFields = parameters.map(([one, { schema }]) => makeField(this.contract, one, schema, true, () => {}));
    const address = channel.address === null ? element("input", { id: "address", "aria-label": "Path of the connection", placeholder: "/path/" }) : null;
    const form = element("form", { class: "where", onsubmit: (event) => (event.preventDefault(), this.connect()) },
      this.channels.length > 1 ? select : element("code", { class: "address" }, channel.address ?? channel.title),
      address, this.connectionFields.map((field) => field.node),
      parameters.length || address ? element("button", { type: "submit" }, "Connect") : null);
    byId("where").replaceChildren(form);
    this.socket.disconnect();
    this.drawTree();
    this.openHash();
    if (!parameters.length && !address) this.connect();
  }

  changeChannel(name) {
    history.replaceState(null, "", location.pathname + location.search); // the action in the hash belongs to another connection
    this.chooseChannel(name);
  }

  address() {
    const { address } = this.contract.channels[this.channel];
    const values = readFields(this.connectionFields);
    const path = address === null ? byId("address").value : fillTemplate(address, values, encodeURIComponent);
    const url = new URL(path.replace(/^\//, ""), ROOT);
    url.protocol = url.protocol.replace("http", "ws");
    return url.href;
  }

  connect() {
    try {
      this.socket.connect(this.address());
    } catch (mistake) {
      this.showMistake(mistake);
    }
  }

  state(name, text) {
    const needsSignIn = this.contract["x-wsaction"].authentication.first_frame && !this.socket?.credential;
    const shown = name === "open" && needsSignIn ? `${text}; sign in first` : text;
    if (byId("connection").dataset.state !== name) byId("said").textContent = shown; // screen readers must not hear each second of a countdown
    byId("connection").dataset.state = name;
    byId("state").textContent = shown;
    this.nameSignIn();
    byId("connect").textContent = this.socket?.stayConnected ? "Disconnect" : "Connect";
    document.querySelectorAll(".send").forEach((button) => (button.disabled = name !== "open"));
  }

  closed(code, reason) {
    this.event({ event: "closed", route: "", data: { code, reason: reason || CLOSE_CODES[code] || "" }, ours: true });
    if (code === 4401 && !byId("signin").hidden) this.askForCredential();
  }

  changed(call) {
    this.callsView.show(call);
    if (call === this.latest && call.status !== "running") this.showOutcome(call);
  }

  showOutcome(call) {
    byId("outcome")?.replaceChildren(`${call.frame.action}: ${MEANINGS[call.status] ?? call.status}, ${Math.round(call.ms)} ms`);
  }

  event(message) {
    this.eventsView.add(message);
  }

  subscribed() {
    this.eventsView.subscribed([...this.socket.subscriptions.keys()]);
  }

  unread() {
    if (!byId("events").hidden) return;
    const badge = byId("unread");
    badge.hidden = false;
    badge.textContent = String(Number(badge.textContent || 0) + 1);
  }

  sendAction(action, route) {
    if (!this.socket.isOpen) return toast("Not connected");
    const frame = { action, ...(route ? { route } : {}), request_id: this.socket.nextId() };
    this.socket.send(JSON.stringify(frame), frame);
    this.showTab("events");
  }

  // the tree
  drawTree() {
    const channel = this.contract.channels[this.channel];
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matchesFilter = (one) => words.every((word) => `${one.facts.route} ${one.facts.action} ${one.operation.summary ?? ""}`.toLowerCase().includes(word));
    const all = this.actions.filter((one) => one.channel === this.channel && matchesFilter(one));
    const own = all.filter((one) => !one.facts.action.startsWith("$"));
    const routes = channel["x-wsaction"].routes;
    const groups = routes.map((route) => [route, own.filter((one) => one.facts.route === route.route)]);
    groups.push([{ route: null }, all.filter((one) => one.facts.action.startsWith("$"))]);
    byId("tree").replaceChildren(...groups.filter(([, actions]) => actions.length).map(([route, actions]) => this.group(route, actions)));
    if (!all.length) byId("tree").append(element("p", { class: "empty" }, "No action matches."));
  }

  group(route, actions) {
    const name = route.route === null ? "Protocol" : route.route || "(the empty route)";
    const subscribe = route.actions?.includes("subscribe") && !route.parameters
      ? element("button", { type: "button", class: "quiet small", onclick: () => this.sendAction("subscribe", route.route) }, "Subscribe") : null;
    return element(
      "section", {},
      element("h2", { title: route.handler ?? "" }, element("code", {}, name), subscribe),
      element("ul", {}, actions.map((one) => element("li", {}, this.link(one)))),
    );
  }

  link(one) {
    return element(
      "a", { href: `#${one.id}`, title: one.operation.summary ?? "", "aria-current": this.current?.id === one.id ? "page" : null },
      element("span", {}, one.facts.action), one.facts.streams ? element("span", { class: "tag" }, "stream") : null,
    );
  }

  /** Moves the focus through the actions by the arrow keys. */
  moveFocus(event) {
    if (!["ArrowDown", "ArrowUp"].includes(event.key)) return;
    const links = [...byId("tree").querySelectorAll("a")];
    const at = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    (links[at] ?? (at < 0 ? byId("filter") : links.at(-1)))?.focus();
  }

  openHash() {
    const mine = this.actions.filter((one) => one.channel === this.channel);
    const wanted = this.actions.find((one) => `#${one.id}` === decodeURIComponent(location.hash));
    if (wanted && wanted.channel !== this.channel) return this.chooseChannel(wanted.channel);
    const shown = wanted ?? mine.find((one) => !one.facts.action.startsWith("$")) ?? mine[0];
    if (shown && shown !== this.current) this.open(shown, wanted !== undefined);
  }

  // the form
  open(one, byUser) {
    this.current = one;
    this.latest = null;
    const { operation, facts, payload } = one;
    const route = this.contract.channels[one.channel]["x-wsaction"].routes.find((each) => each.route === facts.route);
    const changed = () => this.preview();
    this.forms = route?.forms;
    this.routeFields = Object.entries(route?.parameters ?? {}).map(([name, { schema, required }]) => makeField(this.contract, name, schema, required, changed));
    this.free = route?.is_regex ? element("input", { id: "free", oninput: changed, placeholder: facts.route, autocomplete: "off" }) : null;
    this.query = element("input", { id: "query", oninput: changed, placeholder: (facts.query ?? ["page"]).map((name) => `${name}=…`).join("&"), autocomplete: "off", spellcheck: "false" });
    const own = Object.entries(payload.properties).filter(([name]) => !["action", "route", "request_id"].includes(name));
    this.fields = own.map(([name, schema]) => makeField(this.contract, name, schema, payload.required.includes(name), changed));
    this.text = element("textarea", { id: "frame", class: "code", rows: "6", spellcheck: "false", oninput: () => this.setHandmade(true), placeholder: "The frame appears here when the form is complete." });
    this.problem = element("p", { class: "problem", id: "problem", role: "alert", hidden: true });
    byId("form").replaceChildren(
      this.heading(one, route),
      element("form", { onsubmit: (event) => (event.preventDefault(), this.submit()), novalidate: true },
        this.fieldset("Route", [...this.routeFields.map((field) => field.node), this.free && labelled("Route", this.free)]),
        this.fieldset("Parameters", this.fields.map((field) => field.node)),
        facts.action.startsWith("$") ? null : element("details", { class: "query" }, element("summary", {}, "Query of the route"), labelled("Query", this.query)),
        element("details", { class: "frame", open: innerWidth > 700 },
          element("summary", {}, "Frame"), this.text,
          element("div", { class: "buttons" },
            element("span", { class: "faint" }, "Copy as"),
            this.copyButton("Frame", () => this.text.value),
            this.copyButton("Python", () => pythonSnippet(this.address(), this.buildFrame(), facts)),
            this.copyButton("TypeScript", () => this.asTypeScript()),
            this.reset = element("button", { type: "button", class: "quiet small", hidden: true, onclick: () => this.setHandmade(false) }, "Back to the form"))),
        element("div", { class: "buttons sticky" }, // stays in sight, so that errors are seen below a long form
          this.problem,
          element("button", { type: "submit", class: "send primary", disabled: !this.socket.isOpen, title: "Ctrl+Enter" }, "Send"),
          element("span", { id: "outcome", class: "faint", role: "status" }))),
      this.replySchemas(one),
    );
    this.setHandmade(false);
    document.querySelectorAll("#tree a").forEach((link) => {
      if (link.hash === `#${one.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    this.showMenu(false);
    if (byUser) byId("form").focus({ preventScroll: true });
    byId("form").scrollTop = 0;
  }

  heading({ operation, facts }, route) {
    const tags = [
      facts.streams && "stream", facts.silent && "silent", facts.ordered === false && !facts.streams && "unordered",
      facts.timeout && `at most ${facts.timeout} s`, ...(facts.permissions ?? []), ...(facts.throttles ?? []),
    ].filter(Boolean);
    return element(
      "div", { class: "heading" },
      element("p", { class: "faint" }, element("code", {}, facts.route || "the empty route"), route?.handler ? ` · ${route.handler}` : ""),
      element("h2", {}, facts.action),
      operation.summary ? element("p", { class: "summary" }, prose(operation.summary)) : null,
      operation.description ? element("p", { class: "description" }, prose(operation.description)) : null,
      tags.length ? element("p", { class: "tags" }, tags.map((tag) => element("span", { class: "tag" }, tag))) : null,
    );
  }

  fieldset(name, nodes) {
    const shown = nodes.filter(Boolean);
    return shown.length ? element("fieldset", {}, element("legend", {}, name), shown) : null;
  }

  /** The schemas of the replies. */
  replySchemas({ operation }) {
    const replies = operation.reply.messages
      .map(({ $ref }) => follow(this.contract, $ref))
      .filter((message) => message.payload?.properties?.data)
      .map(({ payload: { properties } }) => [properties.status.const === 206 ? "Each item" : "Reply", properties.data]);
    return element("details", { class: "about" }, element("summary", {}, "Replies"),
      replies.map(([name, schema]) => element("div", {}, element("h3", {}, name), asCode(this.inlined(schema)))));
  }

  /** A schema with its references replaced, four levels deep. */
  inlined(schema, depth = 0) {
    if (schema === null || typeof schema !== "object") return schema;
    if (Array.isArray(schema)) return schema.map((one) => this.inlined(one, depth));
    if (schema.$ref) return depth > 3 ? { $ref: schema.$ref } : this.inlined(follow(this.contract, schema.$ref) ?? schema, depth + 1);
    return Object.fromEntries(Object.entries(schema).map(([name, one]) => [name, this.inlined(one, depth)]));
  }

  copyButton(what, make) {
    const click = () => {
      try {
        copy(make(), what);
      } catch (mistake) {
        this.showMistake(mistake);
      }
    };
    return element("button", { type: "button", class: "quiet small", onclick: click, "aria-label": `Copy as ${what}` }, what);
  }

  /** The frame from the form or the text field. Throws a Mistake if the input is invalid. */
  buildFrame() {
    if (this.handmade) return parsedFrame(this.text);
    const { facts } = this.current;
    const values = this.captures();
    const path = this.free ? this.free.value : fillTemplate(this.routeTemplate(values), values, String);
    const query = this.query.value.replace(/^\?/, "");
    const route = query ? `${path}?${query}` : path;
    return { action: facts.action, ...(route ? { route } : {}), ...readFields(this.fields) };
  }

  /** The values for the braces of the route. */
  captures() {
    if (this.free) return { route: this.free.value };
    return Object.fromEntries(this.routeFields.filter((field) => field.present()).map((field) => [field.name, field.read()]));
  }

  /** The form of the route that has exactly the given captures. */
  routeTemplate(values) {
    const names = this.routeFields.map((field) => field.name);
    const fits = (form) => names.every((name) => form.includes(`{${name}}`) === name in values);
    return this.forms?.find(fits) ?? this.current.facts.route;
  }

  /** The frame as a program with the generated client. A frame written by hand uses `$call` or `$stream`. */
  asTypeScript() {
    const { facts, payload } = this.current;
    const captures = this.handmade ? null : this.captures();
    return typescriptSnippet(this.address(), this.buildFrame(), facts, payload, captures);
  }

  preview() {
    if (this.handmade) return;
    try {
      this.text.value = JSON.stringify(this.buildFrame(), null, 2);
      this.problem.hidden = true;
    } catch (mistake) {
      if (!(mistake instanceof Mistake)) throw mistake; // the form is not complete yet, which is no error
    }
    this.text.rows = Math.min(16, this.text.value.split("\n").length + 1);
  }

  setHandmade(handmade) {
    this.handmade = handmade;
    this.reset.hidden = !handmade;
    this.preview();
  }

  submit() {
    if (!this.socket.isOpen) return toast("Not connected");
    try {
      const frame = this.buildFrame();
      if (frame.action === "$auth") return this.present({ way: "frame", value: frame.data });
      if (!("request_id" in frame)) frame.request_id = this.socket.nextId();
      this.problem.hidden = true;
      this.latest = this.socket.send(JSON.stringify(frame), frame);
      this.showTab("calls");
      if (innerWidth <= 1080) document.querySelector("aside").scrollIntoView({ block: "start" }); // on a narrow screen, the calls are below the form
    } catch (mistake) {
      this.showMistake(mistake);
    }
  }

  showMistake(mistake) {
    if (!(mistake instanceof Mistake)) throw mistake;
    if (mistake.node?.closest("#where")) toast(mistake.message);
    else {
      this.problem.textContent = mistake.message;
      this.problem.hidden = false;
      mistake.node?.setAttribute("aria-describedby", "problem");
    }
    mistake.node?.setAttribute("aria-invalid", "true");
    mistake.node?.addEventListener("input", () => this.clearMistake(mistake.node), { once: true });
    mistake.node?.focus();
  }

  clearMistake(node) {
    node.removeAttribute("aria-invalid");
    node.removeAttribute("aria-describedby");
  }

  /** Loads the frame of a call into the form. */
  load({ frame }) {
    const one = this.actions.find((each) => each.channel === this.channel && each.facts.action === frame.action && matches(each, frame.route ?? ""));
    if (one && one !== this.current) {
      this.open(one, true);
      history.replaceState(null, "", `#${one.id}`);
    }
    const { request_id, ...again } = frame;
    this.setHandmade(true);
    this.text.value = JSON.stringify(again, null, 2);
    this.text.closest("details").open = true;
    this.text.focus();
  }

  // signing in
  askForCredential() {
    const { authentication: ways } = this.contract["x-wsaction"];
    const dialog = byId("dialog");
    if (dialog.open) return;
    const schemes = Object.entries(this.contract.components.securitySchemes ?? {});
    const value = element("textarea", { id: "credential", rows: "3", class: "code", autocomplete: "off", spellcheck: "false", placeholder: "A token, or JSON for $auth" });
    const choices = [
      ways.bearer && ["bearer", "Bearer token, sent as a subprotocol of the handshake"],
      ways.auth_frame && ["frame", "In an $auth frame"],
      ["cookie", "By the cookies of this site"],
    ].filter(Boolean);
    const radios = choices.map(([way, label], at) => element("label", { class: "radio" }, element("input", { type: "radio", name: "way", value: way, checked: at === 0 }), label));
    const way = () => dialog.querySelector("input[name=way]:checked").value;
    const token = labelled("Token", value);
    const chosen = () => (token.hidden = way() === "cookie"); // the browser sends the cookies
    const submit = (event) => {
      event.preventDefault();
      dialog.close();
      this.present({ way: way(), value: way() === "frame" ? jsonOrText(value.value) : value.value.trim() });
    };
    dialog.replaceChildren(element(
      "form", { onsubmit: submit, onchange: chosen },
      element("h2", { id: "dialog-title" }, "Sign in"),
      schemes.map(([name, scheme]) => element("p", { class: "hint" }, element("b", {}, name), prose(scheme.description ? `: ${scheme.description}` : ""))),
      radios, token,
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
    if (credential?.way !== "frame" || !this.socket.isOpen) return this.connect();
    const reply = await this.socket.ask({ action: "$auth", data: credential.value });
    if (reply && reply.status !== 200) this.socket.credential = null; // else every new connection would send it
    this.nameSignIn();
    toast(reply?.status === 200 ? "Signed in" : `Not signed in: ${reply?.errors[0]?.msg ?? "the connection closed"}`);
  }

  nameSignIn() {
    byId("signin").textContent = this.socket?.credential ? "Signed in" : "Sign in";
  }

  // the page
  showTab(name, focus = false) {
    for (const one of ["calls", "events"]) {
      byId(one).hidden = one !== name;
      byId(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      byId(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    if (name === "events") Object.assign(byId("unread"), { hidden: true, textContent: "" });
    if (focus) byId(`tab-${name}`).focus();
  }

  showMenu(open) {
    document.body.classList.toggle("menu", open);
    byId("menu").setAttribute("aria-expanded", String(open));
  }

  shortcut(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      this.showMenu(true);
      byId("filter").focus();
    } else if (event.key === "Escape") this.showMenu(false);
  }
}

/** A template with its braces replaced by values. */
function fillTemplate(template, values, write) {
  return template.replace(/\{(\w+)\}/g, (all, name) => (name in values ? write(String(values[name])) : all));
}

function matches({ payload }, route) {
  const { pattern } = payload.properties.route ?? {};
  return pattern === undefined || new RegExp(pattern).test(route);
}

function labelled(text, control) {
  return element("div", { class: "field" }, element("label", { for: control.id }, text), control);
}

function parsedFrame(area) {
  let frame;
  try {
    frame = JSON.parse(area.value);
  } catch (error) {
    throw new Mistake(`The frame is invalid JSON: ${error.message}`, area);
  }
  if (frame === null || typeof frame !== "object" || Array.isArray(frame)) throw new Mistake("A frame must be a JSON object.", area);
  return frame;
}

function jsonOrText(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text.trim();
  }
}

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function changeTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const theme = dark === "dark" ? "light" : "dark";
  useTheme(theme);
  localStorage.setItem("wsaction:theme", theme);
}

async function start() {
  useTheme(localStorage.getItem("wsaction:theme"));
  byId("theme").addEventListener("click", changeTheme);
  try {
    const answer = await fetch(new URL(setting("asyncapi"), location.href));
    if (!answer.ok) throw new Error(`the server answered HTTP ${answer.status}`);
    window.explorer = new Explorer(await answer.json());
  } catch (error) {
    byId("failure").hidden = false;
    byId("failure").textContent = `The AsyncAPI document cannot be loaded: ${error.message}.`;
    console.error(error);
  }
}

start();
