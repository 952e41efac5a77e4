// Form: the form of an action, the frame that it makes, and the outcome of what was sent.

class ActionForm {
  constructor(page, one, intro) {
    const { operation, facts, payload } = one;
    Object.assign(this, { page, one, route: facts.route, call: null, outcomeText: "", waiting: 0 });
    const place = page.contract.channels[one.channel]["x-wsaction"].routes.find((each) => each.route === facts.route);
    const changed = () => this.preview();
    const field = (name, schema, required) => makeField(page.contract, name, schema, required, changed);
    this.templates = place?.forms;
    this.routeFields = Object.entries(place?.parameters ?? {}).map(([name, { schema, required }]) => field(name, schema, required));
    this.free = place?.is_regex ? element("input", { id: "free", oninput: changed, placeholder: facts.route, autocomplete: "off" }) : null;
    this.query = element("input", { id: "query", oninput: changed, placeholder: (facts.query ?? ["page"]).map((name) => `${name}=…`).join("&"), autocomplete: "off", spellcheck: "false" });
    const own = Object.entries(payload.properties).filter(([name]) => !["action", "route", "request_id"].includes(name));
    this.fields = own.map(([name, schema]) => field(name, schema, payload.required.includes(name)));
    this.text = element("textarea", { id: "frame", class: "code", rows: "6", spellcheck: "false", "aria-label": "Frame", oninput: () => this.setHandmade(true), placeholder: "The frame appears here when the form is complete." });
    this.inputs = element("fieldset", { class: "inputs" },
      this.group("Route", [...this.routeFields.map((each) => each.node), this.free && labelled("Route", this.free)]),
      this.group("Parameters", this.fields.map((each) => each.node)),
      facts.action.startsWith("$") ? null : element("details", { class: "query" }, element("summary", {}, "Query of the route"), labelled("Query", this.query)));
    this.form = element("form", { onsubmit: (event) => (event.preventDefault(), this.submit()), novalidate: true },
      this.inputs, this.frameEditor(), this.bar());
    this.nodes = [intro, this.heading(place), this.form, replySchemas(page.contract, operation)].filter(Boolean);
    page.memory.restore(this);
    this.suggestKeys();
    this.setHandmade(false);
  }

  heading(place) {
    const { operation, facts } = this.one;
    const tags = [
      facts.silent && "silent", facts.ordered === false && !facts.streams && "unordered",
      facts.timeout && `at most ${facts.timeout} s`, ...(facts.permissions ?? []), ...(facts.throttles ?? []),
    ].filter(Boolean);
    const { summary = "", description = "" } = operation;
    const [first, ...rest] = markdown(description);
    const isRepeated = description.startsWith(summary); // the summary is the first line of the docstring
    const about = markdown(place?.description ?? "");
    const handler = about.length ? element("details", { class: "handler" }, element("summary", {}, place.handler), about) : null;
    return element(
      "div", { class: "heading" },
      element("p", { class: "faint" }, element("code", {}, facts.route || "the empty route"), !handler && place?.handler ? ` · ${place.handler}` : ""),
      element("h2", {}, facts.action, " ", kindTags(this.one)),
      summary && !(isRepeated && first) ? element("p", { class: "summary" }, inline(summary)) : null,
      first ? element("div", { class: `description ${isRepeated ? "begins" : ""}` }, first, rest) : null,
      tags.length ? element("p", { class: "tags" }, tags.map((tag) => element("span", { class: "tag" }, tag))) : null,
      handler,
    );
  }

  group(name, nodes) {
    const shown = nodes.filter(Boolean);
    return shown.length ? element("fieldset", {}, element("legend", {}, name), shown) : null;
  }

  frameEditor() {
    return element("details", { class: "frame", open: !PHONE.matches },
      element("summary", {}, "Frame"), this.text,
      element("div", { class: "buttons" },
        element("span", { class: "faint" }, "Copy as"),
        this.copyButton("Frame", () => this.text.value),
        this.copyButton("Python", () => pythonSnippet(this.page.address(), this.buildFrame(), this.one.facts)),
        this.copyButton("TypeScript", () => this.asTypeScript())));
  }

  /** The bar stays in sight below a long form: what is sent, what is wrong, and the outcome. */
  bar() {
    const isDestructive = this.one.facts.destructive;
    this.override = element("p", { class: "notice", role: "status", hidden: true },
      element("span", {}, "You edited the frame: it is sent instead of the form."),
      element("button", { type: "button", class: "quiet small", onclick: () => this.setHandmade(false) }, "Back to the form"));
    this.problem = element("p", { class: "problem general", role: "alert", hidden: true });
    this.outcome = element("span", { id: "outcome", class: "faint", role: "status" });
    this.toCalls = element("button", { type: "button", class: "quiet small narrow", hidden: true, onclick: () => this.page.showList() }, "All calls");
    this.latest = element("section", { id: "latest", class: "narrow", "aria-label": "Latest reply", hidden: true, tabindex: "0" });
    const send = element("button", {
      type: "submit", class: `send primary ${isDestructive ? "danger" : ""}`, disabled: !this.page.socket.isOpen, title: "Ctrl+Enter",
      onmousedown: (event) => event.preventDefault(), // the focus stays in the field, and a phone's keyboard open
    }, isDestructive ? "Send (destructive)" : "Send");
    return element("div", { class: "sticky" }, this.override, this.problem, element("div", { class: "buttons" }, send, this.outcome, this.toCalls), this.latest);
  }

  copyButton(what, make) {
    const click = () => this.attempt(() => copy(make(), what));
    return element("button", { type: "button", class: "quiet small", onclick: click, "aria-label": `Copy as ${what}` }, what);
  }

  /** Fills in or suggests the keys of objects that replies have shown: `pk` of `cards/{pk}/` after `list` at `cards/`. */
  suggestKeys() {
    const field = this.routeFields.at(-1);
    if (!field?.present()) return;
    const keys = this.page.memory.keysFor(this.route, field.name, this.captures());
    const node = field.locate([]);
    if (!keys.length || !node.matches("input")) return;
    const list = element("datalist", { id: `${node.id}-keys` }, keys.map((key) => element("option", { value: String(key) })));
    field.node.append(list);
    node.setAttribute("list", list.id);
    if (!node.value && !this.one.facts.destructive) node.value = String(keys[0]); // no object is chosen for destruction
  }

  // the frame
  /** The frame from the form or the text field. Throws a Mistake if the input is invalid. */
  buildFrame() {
    if (this.isHandmade) return parsedFrame(this.text);
    const { facts } = this.one;
    const values = Object.fromEntries(this.routeFields.filter((field) => field.present()).map((field) => [field.name, field.read()]));
    const path = this.free ? this.free.value : fillTemplate(this.template(values), values, String);
    const query = this.query.value.replace(/^\?/, "");
    const route = query ? `${path}?${query}` : path;
    return { action: facts.action, ...(route ? { route } : {}), ...readFields(this.fields) };
  }

  /** The values for the braces of the route, as far as they are filled in. */
  captures() {
    if (this.free) return { route: this.free.value };
    return withoutUndefined(this.routeFields.map((field) => [field.name, field.draft()]));
  }

  /** The form of the route that has exactly the given captures. */
  template(values) {
    const names = this.routeFields.map((field) => field.name);
    const fits = (template) => names.every((name) => template.includes(`{${name}}`) === name in values);
    return this.templates?.find(fits) ?? this.route;
  }

  /** The frame as a program with the generated client. A frame written by hand uses `$call` or `$stream`. */
  asTypeScript() {
    const { facts, payload } = this.one;
    const frame = this.buildFrame();
    return typescriptSnippet(this.page.address(), frame, facts, payload, this.isHandmade ? null : this.captures());
  }

  preview() {
    if (!this.isHandmade) {
      this.page.memory.keep(this);
      try {
        this.text.value = JSON.stringify(this.buildFrame(), null, 2);
        this.problem.hidden = true;
      } catch (mistake) {
        if (!(mistake instanceof Mistake)) throw mistake; // the form is not complete yet, which is no error
      }
    }
    this.text.rows = Math.min(16, this.text.value.split("\n").length + 1);
    this.markOld();
  }

  /** Whether the frame was edited by hand: then it is what is sent, and the form is disabled. */
  setHandmade(isHandmade) {
    this.isHandmade = this.inputs.disabled = isHandmade;
    this.override.hidden = !isHandmade;
    clearProblems(this.form);
    this.problem.hidden = true;
    this.preview();
  }

  /** Shows a frame of an earlier call, to be edited. */
  load({ request_id, ...frame }) {
    this.text.value = JSON.stringify(frame, null, 2);
    this.setHandmade(true);
    this.text.closest("details").open = true;
    this.text.focus();
  }

  // sending
  submit() {
    const { socket } = this.page;
    if (!socket.isOpen) return toast("Not connected");
    clearProblems(this.form);
    this.problem.hidden = true;
    this.attempt(() => {
      const frame = this.buildFrame();
      if (frame.action === "$auth") return this.page.signIn.present({ way: "frame", value: frame.data });
      if (!("request_id" in frame)) frame.request_id = socket.nextId();
      this.call = socket.send(JSON.stringify(frame), frame);
      this.call.isFromForm = true;
      this.page.showTab("calls");
      this.show(this.call);
    });
  }

  /** Runs a function, and shows its Mistake at the field. */
  attempt(task) {
    try {
      task();
    } catch (mistake) {
      if (!(mistake instanceof Mistake)) throw mistake;
      if (mistake.node?.closest("#where")) return this.page.showMistake(mistake);
      this.showProblems([[mistake.node, mistake.message]]);
    }
  }

  /** Shows messages at their nodes, or above the button if they have none, and focuses the first of the nodes. */
  showProblems(problems) {
    clearProblems(this.form);
    const general = problems.filter(([node]) => !node).map(([, message]) => message);
    this.problem.textContent = general.join(" ");
    this.problem.hidden = !general.length;
    const nodes = problems.map(([node]) => node).filter(Boolean);
    for (const [node, message] of problems) if (node) showProblem(node, message);
    nodes.sort((one, other) => (one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
    nodes[0]?.closest("details")?.setAttribute("open", "");
    nodes[0]?.focus();
  }

  // the outcome
  /** Shows what became of the call that this form sent last, in the next animation frame. */
  show(call) {
    if (call !== this.call || this.waiting) return;
    this.waiting = requestAnimationFrame(() => ((this.waiting = 0), this.draw(this.call)));
  }

  draw(call) {
    const time = call.ms === undefined ? "" : `, ${Math.round(call.ms)} ms`;
    const items = call.count ? `, ${call.count} items` : "";
    this.outcomeText = `${call.frame.action ?? "?"}: ${MEANINGS[call.status] ?? call.status}${items}${time}`;
    this.latest.replaceChildren(...this.page.callsView.answer(call), ...(call.count ? [asCode(call.items.at(-1))] : []));
    if (this.page.signIn.offered(call)) this.latest.append(this.page.callsView.tokenButton(call));
    this.latest.hidden = !this.latest.childNodes.length;
    this.toCalls.hidden = false;
    this.markOld();
    const errors = call.reply?.errors ?? [];
    if (this.page.form === this && errors.some((error) => error.loc?.length) && !this.isHandmade && this.says(call)) {
      this.showProblems(errors.map((error) => [this.locate(error.loc ?? []), error.msg ?? error.type]));
      this.latest.hidden = true; // the errors stand at their fields
    }
  }

  /** The control that the `loc` of an error names, or the nearest one around it. */
  locate([name, ...rest]) {
    const field = [...this.routeFields, ...this.fields].find((one) => one.name === name);
    if (field) return field.locate(rest);
    return name === "route" && this.form.contains(this.query) ? this.query : null; // `["route", "page"]`: of the query
  }

  /** Whether the form still says what a call has sent. */
  says(call) {
    try {
      const { request_id, ...frame } = this.buildFrame();
      const { request_id: sentId, ...sent } = call.frame;
      return JSON.stringify(frame) === JSON.stringify(sent);
    } catch (mistake) {
      if (!(mistake instanceof Mistake)) throw mistake;
      return false;
    }
  }

  /** Marks the reply as old once the form says something else. */
  markOld() {
    const isOld = this.call !== null && !this.says(this.call);
    if (this.call) this.outcome.replaceChildren(...(isOld ? [element("span", { class: "tag old" }, "old"), " "] : []), this.outcomeText);
    this.latest.classList.toggle("old", isOld);
    this.page.callsView.setCurrent(isOld ? null : this.call);
  }
}

/** The schemas of the replies of an action. */
function replySchemas(contract, operation) {
  const replies = operation.reply.messages
    .map(({ $ref }) => follow(contract, $ref))
    .filter((message) => message.payload?.properties?.data)
    .map(({ payload: { properties } }) => [properties.status.const === 206 ? "Each item" : "Reply", properties.data]);
  return element("details", { class: "about" }, element("summary", {}, "Replies"),
    replies.map(([name, schema]) => element("div", {}, element("h3", {}, name), asCode(inlined(contract, schema)))));
}

/** A template with its braces replaced by values. */
function fillTemplate(template, values, write) {
  return template.replace(/\{(\w+)\}/g, (all, name) => (name in values ? write(String(values[name])) : all));
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
