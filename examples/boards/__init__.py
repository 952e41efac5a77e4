"""A shared kanban board: what wsaction is for, in one example. `make run` serves it.

Read it in this order:

- `tables` and `models`: what is kept in the database, and what of it clients see and may write;
- `sign_in` and `permissions`: who somebody is, and what he may do;
- `handlers`: boards, columns, cards and comments, live, behind their routes; `positions` keeps cards in order;
- `live` puts them on a socket, `app` the socket beside a page and an HTTP endpoint, `sample` fills an empty database;
- `page/`: what runs in the browser, in TypeScript. `app` serves it as JavaScript, with the client that is generated for
  `live`.
"""
