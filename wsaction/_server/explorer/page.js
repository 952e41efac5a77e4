// Page: the connection, and what holds the tree, the form and the lists together.

const setting = (name) => document.querySelector(`meta[name="wsaction:${name}"]`).content;
const ROOT = new URL(setting("root"), location.href);
const TABS = ["calls", "events", "recovery"];
const NARROW = matchMedia("(max-width: 1080px)"); // the lists are below the form

class Explorer {
  constructor(contract) {
    this.contract = contract;
    this.actions = Object.entries(contract.operations)
      .filter(([, operation]) => operation.action === "receive")
      .map(([id, operation]) => this.actionOf(id, operation));
    this.channels = Object.entries(contract.channels).filter(([, channel]) => channel["x-wsaction"]);
    this.memories = new Map(); // by channel
    this.socket = new Socket(this);
    this.signIn = new SignIn(this);
    this.callsView = new CallsView(byId("calls"), { load: (call) => this.load(call), cancel: (call) => this.socket.cancel(call), signIn: this.signIn });
    this.eventsView = new EventsView(byId("events"), { seen: () => this.unread(), unsubscribe: (route) => this.sendAction("unsubscribe", route) });
    this.recoveryView = new RecoveryView(byId("recovery"), this.socket);
    this.tree = new Tree(this);
    byId("title").textContent = contract.info.title;
    byId("version").textContent = contract.info.version;
    document.title = `${contract.info.title} · Explorer`;
    byId("connect").addEventListener("click", () => (this.socket.stayConnected ? this.socket.disconnect() : this.connect()));
    for (const name of TABS) {
      byId(`tab-${name}`).addEventListener("click", () => this.showTab(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => this.moveTab(event, name));
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
    if (!this.memories.has(name)) this.memories.set(name, new Memory());
    this.memory = this.memories.get(name);
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
    this.tree.draw();
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
      this.tree.close();
    } catch (mistake) {
      this.showMistake(mistake);
    }
  }

  /** Shows a mistake in the address of the connection. */
  showMistake(mistake) {
    if (!(mistake instanceof Mistake)) throw mistake;
    this.tree.openDrawer();
    clearProblems(byId("where"));
    showProblem(mistake.node, mistake.message);
    mistake.node.focus();
  }

  state(name, text) {
    const needsSignIn = this.contract["x-wsaction"].authentication.first_frame && !this.socket?.credential;
    const shown = name === "open" && needsSignIn ? `${text}; sign in first` : text;
    if (byId("connection").dataset.state !== name) byId("said").textContent = shown; // screen readers must not hear each second of a countdown
    byId("connection").dataset.state = name;
    byId("state").textContent = shown;
    byId("signin").textContent = this.socket?.credential ? "Signed in" : "Sign in";
    byId("connect").textContent = this.socket?.stayConnected ? "Disconnect" : "Connect";
    document.querySelectorAll(".send").forEach((button) => (button.disabled = name !== "open"));
    this.recoveryView?.show();
  }

  closed(code, reason) {
    this.event({ event: "closed", route: "", data: { code, reason: reason || CLOSE_CODES[code] || "" }, ours: true });
    if (code === 4401) this.signIn.ask();
  }

  changed(call) {
    this.callsView.show(call);
    if (call.status !== "running") this.memory.learn(call);
    this.form?.show(call);
  }

  event(message) {
    this.eventsView.add(message);
    this.recoveryView.show();
  }

  note(text) {
    this.recoveryView.note(text);
  }

  heldChanged() {
    this.recoveryView.show();
  }

  subscribed() {
    this.eventsView?.subscribed([...this.socket.subscriptions.keys()]);
    this.recoveryView?.show();
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

  // the form
  openHash() {
    const mine = this.actions.filter((one) => one.channel === this.channel);
    const wanted = this.actions.find((one) => `#${one.id}` === decodeURIComponent(location.hash));
    if (wanted && wanted.channel !== this.channel) return this.chooseChannel(wanted.channel);
    const shown = wanted ?? mine.find((one) => !one.facts.action.startsWith("$")) ?? mine[0];
    if (shown && shown !== this.form?.one) this.open(shown, wanted !== undefined);
  }

  open(one, isByUser) {
    const { description } = this.contract.info;
    const intro = !isByUser && description ? element("div", { class: "intro" }, markdown(description)) : null;
    this.form = new ActionForm(this, one, intro);
    byId("form").replaceChildren(...this.form.nodes);
    this.tree.mark(one);
    this.tree.close();
    if (isByUser) byId("form").focus({ preventScroll: true });
    byId("form").scrollTop = 0;
    if (NARROW.matches) scrollTo(0, 0);
  }

  /** Loads the frame of a call into the form. */
  load({ frame }) {
    const fits = ({ payload }) => new RegExp(payload.properties.route?.pattern ?? "").test(frame.route ?? "");
    const one = this.actions.find((each) => each.channel === this.channel && each.facts.action === frame.action && fits(each));
    if (one && one !== this.form.one) {
      this.open(one, true);
      history.replaceState(null, "", `#${one.id}`);
    }
    this.form.load(frame);
  }

  // the lists
  showTab(name, focus = false) {
    for (const one of TABS) {
      byId(one).hidden = one !== name;
      byId(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      byId(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    if (name === "events") Object.assign(byId("unread"), { hidden: true, textContent: "" });
    if (focus) byId(`tab-${name}`).focus();
  }

  moveTab(event, name) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) this.showTab(TABS.at((TABS.indexOf(name) + step) % TABS.length), true);
  }

  /** Scrolls to the lists where they are below the form. */
  showList() {
    if (NARROW.matches) byId("lists").scrollIntoView({ block: "start" });
  }

  shortcut(event) {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.form.submit();
    } else if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      this.tree.find();
    }
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
