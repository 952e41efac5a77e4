// Faults: what the page does to its own connection on request, so that one can watch how it recovers.

const MAX_HELD = 10_000; // frames; then the page reads again, so that its memory has a bound

/** The faults of the connections of this page. They outlive a connection. */
class Faults {
  delay = 0; // milliseconds, each way
  isReading = true;
}

/** Frames in order, each handled once it is due and the gate is open. */
class FrameQueue {
  constructor({ due, isOpen, handle }) {
    Object.assign(this, { due, isOpen, handle, items: [] });
  }

  push(text) {
    this.items.push({ text, due: performance.now() + this.due() });
    this.run();
  }

  /** Handles the frames that are due, and sets a timer for the next one. */
  run() {
    clearTimeout(this.timer);
    while (this.items.length && this.isOpen()) {
      const wait = this.items[0].due - performance.now();
      if (wait > 0) {
        this.timer = setTimeout(() => this.run(), wait);
        return;
      }
      this.handle(this.items.shift().text);
    }
  }

  clear() {
    clearTimeout(this.timer);
    this.items.length = 0;
  }
}

/** A WebSocket with the faults between it and its user. */
class Link {
  constructor(socket, faults, receive) {
    this.socket = socket;
    const due = () => faults.delay;
    const transmit = (text) => socket.readyState === WebSocket.OPEN && socket.send(text);
    this.outgoing = new FrameQueue({ due, isOpen: () => true, handle: transmit });
    this.incoming = new FrameQueue({ due, isOpen: () => faults.isReading, handle: receive });
  }

  /** Drops the frames on their way. They are lost, as with a connection that breaks. */
  clear() {
    this.outgoing.clear();
    this.incoming.clear();
  }
}
