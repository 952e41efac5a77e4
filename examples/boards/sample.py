"""Sample data for an empty database: three users, and a board that two of them share."""

from examples.boards.positions import STEP
from examples.boards.sign_in import hash_password
from examples.boards.tables import BOARDS, CARDS, COLUMNS, COMMENTS, USERS
from wsaction.transactions import unit_of_work

PEOPLE = ("ada", "grace", "linus")  # the password of each is their name; linus is not on a board yet

BOARD = {
    "Ideas": [
        ("Invite linus", "The owner of the board, ada, invites and removes members."),
        ("Change a card by HTTP", "PATCH /api/boards/1/cards/1, as in the README. All pages show the change at once."),
        ("Look at the other side", "Try all routes and actions of this app at /docs"),
    ],
    "In progress": [
        ("Open this page twice", "Once as ada and once as grace. Each sees what the other does."),
        ("Move me without a mouse", "Tab to a card, and press Alt and an arrow key."),
    ],
    "Done": [("Stop the server and start it again", "The page shows it, reconnects, and misses nothing.")],
}


async def fill() -> None:
    """Fills the database, unless it already has users."""
    async with unit_of_work():
        if await USERS.exists():
            return
        people = [await USERS.create({"name": name, "password": hash_password(name)}) for name in PEOPLE]
        ada, grace, _ = people
        board = await BOARDS.create({"title": "First steps", "owner_id": ada.id, "members": [ada, grace]})
        await BOARDS.create({"title": "Ada's own", "owner_id": ada.id, "members": [ada]})
        for title, cards in BOARD.items():
            column = await COLUMNS.create({"board_id": board.id, "title": title})
            for number, (todo, notes) in enumerate(cards, 1):
                where = {"board_id": board.id, "column_id": column.id, "position": STEP * number}
                await CARDS.create({**where, "title": todo, "notes": notes})
        card = await CARDS.get(title="Open this page twice")
        about = {"board_id": board.id, "card_id": card.id, "author_id": grace.id}
        await COMMENTS.create({**about, "text": "A second browser window will do."})
        await CARDS.update(card, {"comment_count": 1})
