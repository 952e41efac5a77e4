// ---------------------------------------------------------------------------------------- streams and subscriptions

/**
 * The items of a stream, in order. The request is sent at the first `next()`. If you leave the loop, the server cancels
 * the action. Throws what a call throws, and `Overflow` if over 16 times `buffer` characters wait for the consumer.
 */
export class Stream<Item> implements AsyncIterable<Item>, AsyncIterator<Item, undefined> {
  readonly #begin: (stream: StreamAsker) => () => void;
  readonly #maxSize: number;
  readonly #items = new Buffer<unknown>();
  #stop: (() => void) | undefined;
  #hasItems = false;

  /** @internal */
  constructor(begin: (stream: StreamAsker) => () => void, buffer: number) {
    this.#begin = begin;
    this.#maxSize = buffer * MAX_BUFFERS;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Item, undefined>> {
    if (this.#stop === undefined && !this.#items.ended) {
      this.#stop = (): void => undefined;
      this.#stop = this.#begin({
        reply: (reply) => this.#reply(reply),
        lost: (error) => this.#end(error),
        fail: (error) => this.#end(error),
      });
      if (this.#items.ended) this.#stop(); // it failed within `#begin`, before `#stop` was set
    }
    return this.#items.next() as Promise<IteratorResult<Item, undefined>>;
  }

  /** Ends the stream. If it is still running, the server cancels it. */
  return(): Promise<IteratorResult<Item, undefined>> {
    this.#items.clear();
    this.#end();
    return Promise.resolve({ value: undefined, done: true });
  }

  #reply(reply: Reply): void {
    if (reply.status === 206) {
      this.#hasItems = true;
      this.#items.put(reply.data, reply.size);
      if (this.#items.size > this.#maxSize) {
        this.#end(new Overflow(`over ${this.#maxSize} characters of this stream wait for their consumer`));
      }
    } else if (reply.status >= 400) this.#end(actionError(reply));
    else {
      if (!this.#hasItems && reply.data !== null) this.#items.put(reply.data, reply.size); // not a stream: one item
      this.#end();
    }
  }

  #end(error?: Error): void {
    this.#items.end(error);
    this.#stop?.();
  }
}

interface StreamAsker extends Asker {
  fail(error: Error): void;
}

