/** Live lists: what a route's list holds, kept as it is on the server for as long as somebody looks. */
/**
 * The rows of a list by their ids: its snapshot, and every change after it. A lost connection is the client's affair: it
 * comes back with what was missed, or, where the server cannot say that, with a new snapshot.
 */
export class LiveList {
    changed;
    refused;
    heard;
    rows = new Map();
    #subscription;
    #isClosed = false;
    /** `changed` is called after each change, `refused` where it ends, `heard` with the events that are no change. */
    constructor(changed, refused, heard = () => undefined) {
        this.changed = changed;
        this.refused = refused;
        this.heard = heard;
    }
    /** Begins, with what subscribes; resolves once the snapshot is there. */
    async open(subscribing) {
        const subscription = await subscribing;
        this.#subscription = subscription;
        if (this.#isClosed)
            return void subscription.close();
        this.#load(subscription.snapshot);
        void this.#follow(subscription);
    }
    close() {
        this.#isClosed = true;
        void this.#subscription?.close();
    }
    /** Shows a row otherwise than the server has it, until the server says something of it. */
    set(item) {
        this.rows.set(item.id, item);
        this.changed();
    }
    async #follow(subscription) {
        try {
            for await (const event of subscription)
                this.#apply(event);
        }
        catch (error) {
            if (!this.#isClosed)
                this.refused(error);
        }
    }
    #apply(event) {
        const told = event;
        if (told.event === "$resync")
            return this.#load(told.snapshot);
        else if (told.event === "created" || told.event === "updated")
            this.rows.set(told.data.id, told.data);
        else if (told.event === "deleted")
            this.rows.delete(told.data.pk);
        else
            return this.heard(event);
        this.changed();
    }
    #load(items) {
        this.rows.clear();
        for (const item of items)
            this.rows.set(item.id, item);
        this.changed();
    }
}
