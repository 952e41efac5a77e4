"""A shared kanban board that shows what wsaction is for. `make run` serves it.

Read it in this order:

- `tables` and `models`: the database tables, and the fields that clients see and may write;
- `sign_in` and `permissions`: how users authenticate, and what they may do;
- `handlers`: live boards, columns, cards and comments behind their routes; `positions` keeps cards in order;
- `live`: the app with the socket; `app`: the whole site, with a page and an HTTP endpoint beside the socket; `sample`
  fills an empty database;
- `page/`: the code for the browser, in TypeScript. `app` serves it as JavaScript, with the client that is generated
  for `live`.
"""
