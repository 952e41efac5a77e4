"""`SQLAlchemyQuerySet`: the rows of a mapped class, or of a ``select()``, as the objects of generic handlers.

Needs ``pip install "wsaction[sqlalchemy]"``. SQLModel's classes are mapped classes too.

On SQLite, units of work that write queue within the process, so that none is told that the database is locked; where
several processes write, give the engine a busy timeout that is long enough, as in
``create_async_engine(url, connect_args={"timeout": 30})``.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from inspect import Parameter, signature
from typing import Any, Generic, TypeVar

try:
    from sqlalchemy import FromClause, Join, Select, Table, bindparam, func, inspect, select
    from sqlalchemy.exc import NoInspectionAvailable, UnboundExecutionError
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import LoaderCriteriaOption, Mapper, Session, make_transient_to_detached, selectinload
    from sqlalchemy.orm.attributes import set_committed_value
except ImportError as exc:
    raise ImportError('SQLAlchemyQuerySet needs SQLAlchemy: pip install "wsaction[sqlalchemy]"') from exc

from wsaction.contrib.sqlalchemy._clauses import MappedFields, clause, ordering
from wsaction.contrib.sqlalchemy._columns import refuse_container
from wsaction.contrib.sqlalchemy._session import flush, session_under_way
from wsaction.exceptions import Conflict, ImproperlyConfigured, InvalidParameters, NotFound
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.querysets._lookups import Condition, UnknownKind, name_of

__all__ = ("SQLAlchemyQuerySet",)

M = TypeVar("M")

_KEY = "wsaction_key"
_NOTHING: Mapping[str, Any] = {}
_EAGER = ("joined", "selectin", "subquery", "immediate")  # how relationships are loaded with their object


class SQLAlchemyQuerySet(NarrowingQuerySet[M], Generic[M]):
    """The rows of a mapped class, or those of a ``select()`` of one, as its objects.

    ``source`` is the class, or ``select(Card).options(selectinload(Card.author)).where(...)``: what is loaded along
    with an object is the select's to say. ``sessionmaker`` is an ``async_sessionmaker``; each unit of work has one
    session of it (see `wsaction.transactions`), which never expires what it loaded. Raises `ImproperlyConfigured` for
    what is neither, for a select with a LIMIT or OFFSET, and for a primary key of several columns.

    >>> cards = SQLAlchemyQuerySet(Card, async_sessionmaker(create_async_engine("sqlite+aiosqlite:///cards.db")))
    >>> await cards.filter(author__name="Ada").order_by("-created").first()
    """

    def __init__(self, source: type[M] | Select[tuple[M]], sessionmaker: async_sessionmaker[Any]) -> None:
        if not isinstance(sessionmaker, async_sessionmaker):
            raise ImproperlyConfigured(
                f"SQLAlchemyQuerySet takes an async_sessionmaker, as in async_sessionmaker(engine), "
                f"not {sessionmaker!r}"
            )
        self._given_select = isinstance(source, Select)
        self.model, mapper = _mapped(source)
        self._select: Select[Any] = source if isinstance(source, Select) else select(self.model)
        self._sessionmaker, self._mapper = sessionmaker, mapper
        self._fields: MappedFields = MappedFields(mapper, partial(_dialect, sessionmaker, mapper))
        if self._fields.pk is None:
            keys = ", ".join(column.name for column in mapper.primary_key)
            raise ImproperlyConfigured(
                f"{self.model.__name__} has the primary key ({keys}), and a queryset needs one of one column; "
                "add such a column, and a unique constraint for these"
            )
        self.pk: str = self._fields.pk
        # made once: what is asked of all rows most of the time
        self._by_key = self._select.where(self._key == bindparam(_KEY))
        self._by_default = self._select.order_by(*ordering(self._ordering(), self.model, self._fields)[0])
        self._counted = self._select.with_only_columns(func.count(), maintain_column_froms=True)
        self._columns = _loaded_columns(mapper)
        self._unconditioned = _without_conditions(self._select)
        self._select_narrows = self._given_select and _narrows(self._select, self.model)
        self._session_events: Any = sessionmaker().sync_session.dispatch
        self._kinds: dict[str, MappedFields] = {}  # by the name of the class; filled at first use
        self._loads_more = self._given_select or any(one.lazy in _EAGER for one in mapper.relationships)

    # ---------------------------------------------------------------------------------------------- the session
    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """The unit of work's session, for what lookups cannot say; to oneself within the block.

        What is changed by it is kept or dropped with the unit. Outside of a unit the block is one. What may fail is
        tried in ``async with session.begin_nested()``: ``commit()`` raises ``RuntimeError`` where the unit has changed
        something before, and so does the unit's end after a ``rollback()``, or after a statement whose error was caught
        where the database (PostgreSQL) keeps nothing after one.
        """
        async with session_under_way(self._sessionmaker, self._mapper, writing=True, block=True) as held:
            with held.lend():
                yield held.session

    # ---------------------------------------------------------------------------------------------- reading
    def get_ordering(self) -> tuple[str, ...] | None:
        """None too where it is the select that says."""
        is_selects = self._given_select and not self._order and not self._select.compare(self._select.order_by(None))
        return None if is_selects else super().get_ordering()

    async def count(self) -> int:
        if self._given_select or self._start or self._stop is not None:
            rows = self._part(self._conditioned(self._select).with_only_columns(self._key).order_by(None))
            counted = select(func.count()).select_from(rows.subquery())
        else:
            counted = self._conditioned(self._counted)
        async with session_under_way(self._sessionmaker, self._mapper, writing=False) as held:
            return await held.session.scalar(counted) or 0

    async def _fetch(self) -> list[M]:
        rows = self._part(self._conditioned(self._ordered() if self._order else self._by_default))
        async with session_under_way(self._sessionmaker, self._mapper, writing=False) as held:
            return await held.session.run_sync(_all, rows, self._loads_more)

    async def _at(self, key: Any) -> M | None:
        if self._where:
            return await super()._at(key)
        async with session_under_way(self._sessionmaker, self._mapper, writing=False) as held:
            found: M | None = await held.session.run_sync(_one, self._by_key, {_KEY: key})
            return found

    @property
    def _key(self) -> Any:
        return getattr(self.model, self.pk)

    def _ordered(self) -> Select[Any]:
        rows = self._select.order_by(None)
        by, joins = ordering(self._ordering(), self.model, self._fields)
        for target in joins:
            rows = rows.outerjoin(target)
        return rows.order_by(*by)

    def _conditioned(self, rows: Select[Any]) -> Select[Any]:
        return rows.where(*(clause(asked, self.model, self._fields) for asked in self._where)) if self._where else rows

    def _part(self, rows: Select[Any]) -> Select[Any]:
        if self._start:
            rows = rows.offset(self._start)
        return rows if self._stop is None else rows.limit(max(self._stop - self._start, 0))

    # ---------------------------------------------------------------------------------------------- as values
    def values_of(self, obj: M) -> dict[str, Any]:
        """Those of its columns that are loaded. Raises ``ValueError`` where a commit has expired them."""
        state = inspect(obj)
        known = state.dict
        columns = state.mapper.column_attrs.keys()
        if lost := state.expired_attributes & set(columns) - known.keys() if state.expired else None:
            raise ValueError(
                f"the values of this {type(obj).__name__} have expired ({', '.join(sorted(lost))}), as its session was "
                "committed; keep queryset.values_of(obj) before the change, or give the sessionmaker "
                "expire_on_commit=False"
            )
        return {name: known[name] for name in columns if name in known}

    def object_of(self, values: Mapping[str, Any], kind: str | None = None) -> M:
        fields = self._fields_of(kind)
        made: M = _detached(fields.mapper, self._coerce_values(values, kind))
        return made

    async def restore(self, values: Mapping[str, Any], kind: str, row: M | None = None) -> M:
        fields = self._fields_of(kind)
        relations, known = fields.mapper.relationships, self._coerce_values(values, kind)
        now: Mapping[str, Any] = {} if row is None else inspect(row).dict
        related, wanted = dict[str, Any](), dict[str, Any]()
        for name, key in fields.foreign_keys():
            loads = name in now if row is not None else self._given_select or relations[name].lazy in _EAGER
            if key not in known or not loads:
                continue
            if known[key] is None:
                related[name] = None
            elif name in now and now.get(key) == known[key]:
                related[name] = now[name]
            else:
                wanted[name] = known[key]
        if wanted:
            async with session_under_way(self._sessionmaker, self._mapper, writing=False) as held:
                for name, key in wanted.items():
                    options = _loading(relations[name].mapper, now.get(name))
                    found = await held.session.get(relations[name].mapper.class_, key, options=options)
                    if found is not None:  # else it is gone, which is not the same as that there was none
                        related[name] = found
        made: M = _detached(fields.mapper, known, related)
        return made

    def _fields_of(self, kind: str | None) -> MappedFields:
        if kind is None:
            return self._fields
        if kind not in self._kinds:
            for mapper in self._mapper.self_and_descendants:
                known = self._fields if mapper is self._mapper else MappedFields(mapper, self._fields._find_dialect)
                self._kinds[name_of(mapper.class_)] = known
        if kind not in self._kinds:
            raise UnknownKind(f"{self!r} knows no {kind}")
        return self._kinds[kind]

    def _verdict(self, known: Mapping[str, Any], asked: Condition) -> bool | None:
        return self._fields.verdict(known, asked)

    def decide(self, values: Mapping[str, Any], kind: str | None = None) -> bool | None:
        """None too where its select leaves rows out, or its sessions may, unless another condition says no."""
        decided = super().decide(values, kind)
        return None if decided and self._may_leave_out else decided

    @property
    def is_narrowed(self) -> bool:
        return self._may_leave_out or super().is_narrowed

    @property
    def _may_leave_out(self) -> bool:
        return self._select_narrows or bool(self._session_events.do_orm_execute)  # which may add to all conditions

    def key_of(self, obj: M) -> Any:
        return _identity(obj, self.pk)

    async def loaded(self, obj: M, names: Collection[str]) -> M | None:
        state = inspect(obj)
        if (key := self.key_of(obj)) is None:
            raise ValueError(f"this {type(obj).__name__} has no key yet; flush its session first")
        lost = state.expired_attributes and state.expired_attributes & set(state.mapper.column_attrs.keys())
        unread = set(names) & {*state.mapper.column_attrs.keys(), *state.mapper.relationships.keys()}
        if not lost and unread <= state.dict.keys():
            return obj
        rows = self._unconditioned.where(self._key == bindparam(_KEY))  # it need not be among these to be told of
        async with session_under_way(self._sessionmaker, self._mapper, writing=False) as held:
            found: M | None = await held.session.run_sync(_one, rows, {_KEY: key})
            return found

    # ---------------------------------------------------------------------------------------------- writing
    async def create(self, values: Mapping[str, Any]) -> M:
        given = self._stored(values)
        async with session_under_way(self._sessionmaker, self._mapper, writing=True) as held:
            made = self._made(given)

            async def add() -> None:
                held.session.add(made)

            await flush(held, add, self._mapper)
            return await self._complete(held.session, made)

    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        given = self._stored(values)
        async with session_under_way(self._sessionmaker, self._mapper, writing=True) as held:
            row = await self._own(held.session, obj)
            if given.get(self.pk, getattr(row, self.pk)) != getattr(row, self.pk):
                raise Conflict(f"The {self.pk} of a {self.model.__name__} does not change.", {"fields": [self.pk]})

            async def change() -> None:
                for name, value in given.items():
                    setattr(row, name, value)

            await flush(held, change, self._mapper)
            return await self._complete(held.session, row)

    async def delete(self, obj: M) -> None:
        async with session_under_way(self._sessionmaker, self._mapper, writing=True) as held:
            row = await self._own(held.session, obj, locked=True)
            await flush(held, lambda: held.session.delete(row), self._mapper)

    def check_storable(self, name: str, annotation: Any) -> None:
        """Raises `FieldError` for a field whose column cannot hold values of this type: a list in a column of text."""
        if name in self._mapper.column_attrs:
            refuse_container(
                f"{self.model.__name__}.{name}", self._mapper.column_attrs[name].columns[0].type, annotation
            )

    def _made(self, given: Mapping[str, Any]) -> M:
        """A new object; what its constructor does not take, a dataclass's ``init=False``, is set on it."""
        taken = _constructor(self._mapper)
        if taken is None:
            return self.model(**given)
        made = self.model(**{name: value for name, value in given.items() if name in taken})
        for name in given.keys() - taken:
            setattr(made, name, given[name])
        return made

    def _stored(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values to be written, by their fields' names; raises `FieldError`, `InvalidParameters`."""
        given, errors = dict[str, Any](), list[dict[str, Any]]()
        for name, value in self.named(values).items():
            try:
                given[name] = self._fields.stored(name, value)
            except ValueError as exc:
                errors.append({"type": "value_error", "msg": f"Value error, {exc}", "loc": ["data", name]})
        if errors:
            raise InvalidParameters(errors)
        return given

    async def _own(self, session: AsyncSession, obj: M, *, locked: bool = False) -> M:
        """The object as the unit's session has it, locked until its end where the queryset is narrowed.

        Raises `NotFound` where the queryset does not have it.
        """
        self._refuse_sliced("be changed")
        narrowed = bool(self._where) or self._given_select
        if obj in session and not (narrowed or locked):
            return obj
        rows = select(self.model).where(self._key == _identity(obj, self.pk))
        if narrowed:
            keys = self._conditioned(self._select).with_only_columns(self._key).order_by(None)
            rows = rows.where(self._key.in_(keys.correlate(None)))  # else a subclass's tables are the outer ones
        if tables := _always_there(self._mapper):
            rows = rows.with_for_update(of=tables)
        row = (await session.scalars(rows)).unique().one_or_none()
        if row is None:
            raise NotFound
        return row

    async def _complete(self, session: AsyncSession, row: M) -> M:
        """The object after it was written, with all that the database made of it and the select loads with it.

        An object need not be one of the select's to be written and shown, so that its conditions are left out.
        """
        related: set[str] = set()
        if self._loads_more:
            related = inspect(row).dict.keys() & self._mapper.relationships.keys()
            session.expire(row)
            loaded = self._unconditioned.where(self._key == bindparam(_KEY))
            if (await session.scalars(loaded, {_KEY: _identity(row, self.pk)})).unique().one_or_none() is not None:
                return row
        state = inspect(row)
        names = (state.unloaded & self._columns) | related
        if state.expired_attributes:  # what the database has made of it, a subclass's columns too
            names |= state.expired_attributes & _loaded_columns(state.mapper)
        if names:
            await session.refresh(row, names)
        return row


def _mapped(source: Any) -> tuple[Any, Mapper[Any]]:
    """The one class whose objects a source has, and how it is mapped."""
    entity = source
    if isinstance(source, Select):
        described = source.column_descriptions
        entity = described[0]["expr"] if len(described) == 1 else None
    try:
        mapper = inspect(entity)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise ImproperlyConfigured(
            f"SQLAlchemyQuerySet takes a mapped class, or a select() of one alone as in select(Card), not {source!r}"
        )
    if isinstance(source, Select) and source._has_row_limiting_clause:
        raise ImproperlyConfigured(
            f"SQLAlchemyQuerySet takes a select() without LIMIT and OFFSET: each {entity.__name__} that they leave out "
            "would be found by its key all the same; slice the queryset, as in queryset.order_by('-sold')[:10]"
        )
    return entity, mapper


@lru_cache(1_024)
def _loaded_columns(mapper: Mapper[Any]) -> frozenset[str]:
    """The attributes of a class that are columns and loaded with its objects."""
    return frozenset(attribute.key for attribute in mapper.column_attrs if not attribute.deferred)


@lru_cache(1_024)
def _constructor(mapper: Mapper[Any]) -> frozenset[str] | None:
    """The keywords that a class's constructor takes; None for any."""
    parameters = signature(mapper.class_.__init__).parameters.values()
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
        return None
    return frozenset(one.name for one in parameters if one.kind is not Parameter.POSITIONAL_ONLY)


@lru_cache(1_024)
def _always_there(mapper: Mapper[Any]) -> tuple[Table, ...]:
    """The tables that have a row for each object of a class, and no null in its place: a subclass's, outer joined, may
    have none. These alone can be locked, in PostgreSQL."""
    return tuple(table for one in select(mapper).get_final_froms() for table in _inner_tables(one))


def _inner_tables(source: FromClause) -> Iterator[Table]:
    if isinstance(source, Table):
        yield source
    elif isinstance(source, Join) and not source.full:
        yield from _inner_tables(source.left)
        if not source.isouter:
            yield from _inner_tables(source.right)


def _without_conditions(rows: Select[Any]) -> Select[Any]:
    """A select with the same joins and options; SQLAlchemy has no name for this."""
    other = rows.where()
    other._where_criteria = ()
    return other


def _narrows(rows: Select[Any], model: Any) -> bool:
    """Whether a select may leave out rows of its class."""
    criteria = any(isinstance(one, LoaderCriteriaOption) for one in rows._with_options)
    return criteria or not _all_rows(rows).compare(select(model))


def _all_rows(rows: Select[Any]) -> Select[Any]:
    """A select without what leaves none of its rows out: its order and its options."""
    other = rows.order_by(None)
    other._with_options = ()
    return other


def _detached(mapper: Mapper[Any], values: Mapping[str, Any], related: Mapping[str, Any] = _NOTHING) -> Any:
    """An object with these attributes: reading any other raises, as of an object whose session is closed."""
    mapper.relationships  # noqa: B018  # configures the mapper
    made = mapper.class_manager.new_instance()
    for name, value in (*values.items(), *related.items()):
        set_committed_value(made, name, value)
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    if any(inspect(made).dict.get(key) is None for key in keys):
        raise ValueError(f"the values of a {mapper.class_.__name__} have its key, {' and '.join(keys)}")
    make_transient_to_detached(made)
    return made


def _loading(mapper: Mapper[Any], sample: Any, above: tuple[Any, ...] = ()) -> list[Any]:
    """Loader options that load with an object of a class what is loaded with a sample."""
    if isinstance(sample, list | set | tuple):
        sample = next(iter(sample), None)
    if sample is None or any(one is sample for one in above):
        return []
    loaded, options = inspect(sample).dict, []
    for name in set(mapper.relationships.keys()) & loaded.keys():
        option = selectinload(getattr(mapper.class_, name))
        below = _loading(mapper.relationships[name].mapper, loaded[name], (*above, sample))
        options.append(option.options(*below))
    return options


def _one(session: Session, rows: Select[Any], parameters: Mapping[str, Any]) -> Any:
    return session.scalars(rows, parameters).unique().one_or_none()


def _all(session: Session, rows: Select[Any], loads_more: bool) -> list[Any]:
    found = session.scalars(rows)
    return list(found.unique() if loads_more else found)  # joined collections repeat their object


def _dialect(sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> str:
    """The database's name; "" where the sessions are bound to one later."""
    try:
        bind = sessionmaker().sync_session.get_bind(mapper)
    except UnboundExecutionError:
        return ""
    name: str = bind.dialect.name
    return name


def _identity(obj: Any, pk: str) -> Any:
    state = inspect(obj)
    return state.identity[0] if state.identity else getattr(obj, pk)
