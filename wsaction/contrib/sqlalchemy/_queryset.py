"""`SQLAlchemyQuerySet`: the rows of a mapped class, or of a ``select()``, as the objects of generic handlers.

SQLModel's classes are mapped classes too.

On SQLite, units of work that write queue within the process, so that none fails because the database is locked. If
several processes write, give the engine a long busy timeout:
``create_async_engine(url, connect_args={"timeout": 30})``.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from inspect import Parameter, signature
from typing import Any, Generic, TypeVar, overload

try:
    from sqlalchemy import FromClause, Join, Select, Table, bindparam, func, inspect, select
    from sqlalchemy.exc import NoInspectionAvailable, UnboundExecutionError
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import LoaderCriteriaOption, Mapper, Session, make_transient_to_detached, selectinload
    from sqlalchemy.orm.attributes import set_committed_value
except ImportError as exc:
    raise ImportError('SQLAlchemyQuerySet needs SQLAlchemy: pip install "wsaction[sqlalchemy]"') from exc

from wsaction._protocol.awaited import awaited
from wsaction.contrib.sqlalchemy._clauses import MappedFields, clause, ordering
from wsaction.contrib.sqlalchemy._columns import refuse_container
from wsaction.contrib.sqlalchemy._session import CurrentSession, flush
from wsaction.exceptions import Conflict, ImproperlyConfigured, InvalidParameters, NotFound
from wsaction.querysets._base import NarrowingQuerySet
from wsaction.querysets._lookups import Condition, UnknownClass, name_of

M = TypeVar("M")

_KEY_PARAMETER = "wsaction_key"
_EAGER = ("joined", "selectin", "subquery", "immediate")  # loader strategies that load a relationship with its object


class SQLAlchemyQuerySet(NarrowingQuerySet[M], Generic[M]):
    """The rows of a mapped class, or of a ``select()`` of one class, as its objects.

    ``source`` is the class, or a select such as ``select(Card).options(selectinload(Card.author)).where(...)``, whose
    options say which related objects are loaded. ``sessionmaker`` is an ``async_sessionmaker``; each unit of work has
    one session (see `wsaction.transactions`), which does not expire objects on commit.

    Raises `ImproperlyConfigured` for any other source or sessionmaker, for a select with LIMIT or OFFSET, and for a
    primary key of several columns.

    >>> cards = SQLAlchemyQuerySet(Card, async_sessionmaker(create_async_engine("sqlite+aiosqlite:///cards.db")))
    >>> await cards.filter(author__name="Ada").order_by("-created").first()
    """

    @overload
    def __init__(self, source: type[M], sessionmaker: async_sessionmaker[Any]) -> None: ...

    @overload
    def __init__(self, source: Select[tuple[M]], sessionmaker: async_sessionmaker[Any]) -> None: ...  # SQLAlchemy 2.0

    @overload
    def __init__(self, source: Select[M], sessionmaker: async_sessionmaker[Any]) -> None: ...  # SQLAlchemy 2.1

    def __init__(self, source: Any, sessionmaker: async_sessionmaker[Any]) -> None:
        if not isinstance(sessionmaker, async_sessionmaker):
            raise ImproperlyConfigured(
                f"SQLAlchemyQuerySet takes an async_sessionmaker, as in async_sessionmaker(engine), "
                f"not {sessionmaker!r}"
            )
        self._from_select = isinstance(source, Select)
        self.model, mapper = _mapped(source)
        self._select: Select[Any] = source if isinstance(source, Select) else select(self.model)
        self._sessionmaker = sessionmaker
        self._mapper = mapper
        self._fields: MappedFields = MappedFields(mapper, partial(_dialect, sessionmaker, mapper))
        if self._fields.pk is None:
            keys = ", ".join(column.name for column in mapper.primary_key)
            raise ImproperlyConfigured(
                f"{self.model.__name__} has the primary key ({keys}), and a queryset needs a key of one column; "
                "add such a column, and a unique constraint for these"
            )
        self.pk: str = self._fields.pk
        # made once, because most requests use them
        has_key = self._key == bindparam(_KEY_PARAMETER)
        self._key_query = self._select.where(has_key)
        self._unfiltered_key_query = _without_where(self._select).where(has_key)
        self._default_query = self._select.order_by(*ordering(self._ordering(), self.model, self._fields)[0])
        self._count_query = self._select.with_only_columns(func.count(), maintain_column_froms=True)
        self._columns = _loaded_columns(mapper)
        self._select_narrows = self._from_select and _narrows(self._select, self.model)
        self._session_events: Any = sessionmaker().sync_session.dispatch
        self._kinds: dict[str, MappedFields] = {}  # by the name of the class; filled at first use
        self._loads_related = self._from_select or any(relation.lazy in _EAGER for relation in mapper.relationships)

    # ---------------------------------------------------------------------------------------------- the session
    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """The session of the current unit of work, for statements that lookups cannot express.

        No other task uses the session within the block. Changes are committed or rolled back with the unit; outside of
        a unit, the block is a unit of its own. Put statements that may fail in ``async with session.begin_nested()``.

        ``session.commit()`` raises ``RuntimeError`` if the unit has changed something before. The unit's end raises it
        after a ``session.rollback()`` that dropped changes, and on PostgreSQL after an error of a statement was caught.

        >>> async with cards.session() as session:
        ...     await session.execute(update(Card).values(done=True))
        """
        async with self._current_session(writing=True, block=True) as unit_session:
            with unit_session.lend():
                yield unit_session.session

    def _current_session(self, *, writing: bool, block: bool = False) -> CurrentSession:
        return CurrentSession(self._sessionmaker, self._mapper, writing=writing, block=block)

    # ---------------------------------------------------------------------------------------------- reading
    def get_ordering(self) -> tuple[str, ...] | None:
        """As for every queryset; also None if the select has an order of its own."""
        is_selects = self._from_select and not self._order and not self._select.compare(self._select.order_by(None))
        return None if is_selects else super().get_ordering()

    @awaited
    async def count(self) -> int:
        if self._from_select or self._start or self._stop is not None:
            counted = select(func.count()).select_from(self._slice(self._select_keys()).subquery())
        else:
            counted = self._filtered(self._count_query)
        async with self._current_session(writing=False) as unit_session:
            return await unit_session.session.scalar(counted) or 0

    async def _fetch(self) -> list[M]:
        rows = self._slice(self._filtered(self._sorted() if self._order else self._default_query))
        async with self._current_session(writing=False) as unit_session:
            return await unit_session.session.run_sync(_fetch_all, rows, self._loads_related)

    async def _at(self, key: Any) -> M | None:
        if self._where:
            return await super()._at(key)
        async with self._current_session(writing=False) as unit_session:
            row: M | None = await unit_session.session.run_sync(_fetch_one, self._key_query, {_KEY_PARAMETER: key})
            return row

    @property
    def _key(self) -> Any:
        return getattr(self.model, self.pk)

    def _sorted(self) -> Select[Any]:
        rows = self._select.order_by(None)
        columns, joins = ordering(self._ordering(), self.model, self._fields)
        for target in joins:
            rows = rows.outerjoin(target)
        return rows.order_by(*columns)

    def _filtered(self, rows: Select[Any]) -> Select[Any]:
        if not self._where:
            return rows
        return rows.where(*(clause(condition, self.model, self._fields) for condition in self._where))

    def _select_keys(self) -> Select[Any]:
        return self._filtered(self._select).with_only_columns(self._key).order_by(None)

    def _slice(self, rows: Select[Any]) -> Select[Any]:
        if self._start:
            rows = rows.offset(self._start)
        return rows if self._stop is None else rows.limit(max(self._stop - self._start, 0))

    # ---------------------------------------------------------------------------------------------- as values
    def values_of(self, obj: M) -> dict[str, Any]:
        """The values of the columns that are loaded. Raises ``ValueError`` if a commit has expired them."""
        state = inspect(obj)
        known = state.dict
        columns = state.mapper.column_attrs.keys()
        if expired := state.expired_attributes & set(columns) - known.keys() if state.expired else None:
            raise ValueError(
                f"the values of this {type(obj).__name__} have expired ({', '.join(sorted(expired))}), because its "
                "session was committed; keep queryset.values_of(obj) before the change, or give the sessionmaker "
                "expire_on_commit=False"
            )
        return {name: known[name] for name in columns if name in known}

    def object_of(self, values: Mapping[str, Any], kind: str | None = None) -> M:
        fields = self._fields_of(kind)
        obj: M = _make_detached(fields.mapper, self._coerce_values(values, kind), {})
        return obj

    async def restore(self, values: Mapping[str, Any], kind: str, row: M | None = None) -> M:
        fields = self._fields_of(kind)
        relations, known = fields.mapper.relationships, self._coerce_values(values, kind)
        now: Mapping[str, Any] = {} if row is None else inspect(row).dict
        related: dict[str, Any] = {}
        missing: dict[str, Any] = {}
        for name, key in fields.foreign_keys():
            loads = name in now if row is not None else self._from_select or relations[name].lazy in _EAGER
            if key not in known or not loads:
                continue
            if known[key] is None:
                related[name] = None
            elif name in now and now.get(key) == known[key]:
                related[name] = now[name]
            else:
                missing[name] = known[key]
        if missing:
            async with self._current_session(writing=False) as unit_session:
                for name, key in missing.items():
                    options = _loader_options(relations[name].mapper, now.get(name))
                    found = await unit_session.session.get(relations[name].mapper.class_, key, options=options)
                    if found is not None:  # else it is gone, which does not mean that it was null before
                        related[name] = found
        obj: M = _make_detached(fields.mapper, known, related)
        return obj

    def _fields_of(self, kind: str | None) -> MappedFields:
        if kind is None:
            return self._fields
        if kind not in self._kinds:
            for mapper in self._mapper.self_and_descendants:
                known = self._fields if mapper is self._mapper else MappedFields(mapper, self._fields.find_dialect)
                self._kinds[name_of(mapper.class_)] = known
        if kind not in self._kinds:
            raise UnknownClass(f"{self!r} has no class {kind}")
        return self._kinds[kind]

    def _verdict(self, known: Mapping[str, Any], condition: Condition) -> bool | None:
        return self._fields.verdict(known, condition)

    def decide(self, values: Mapping[str, Any], kind: str | None = None) -> bool | None:
        """As for every queryset, but None instead of True if the select or the sessions may leave rows out."""
        decided = super().decide(values, kind)
        return None if decided and self._may_leave_out else decided

    @property
    def is_narrowed(self) -> bool:
        return self._may_leave_out or super().is_narrowed

    @property
    def _may_leave_out(self) -> bool:
        # a listener may add conditions to any query
        return self._select_narrows or bool(self._session_events.do_orm_execute)

    def key_of(self, obj: M) -> Any:
        state = inspect(obj)
        return state.identity[0] if state.identity else getattr(obj, self.pk)

    async def loaded(self, obj: M, names: Collection[str]) -> M | None:
        state = inspect(obj)
        if (key := self.key_of(obj)) is None:
            raise ValueError(f"this {type(obj).__name__} has no key yet; flush its session first")
        expired = state.expired_attributes and state.expired_attributes & set(state.mapper.column_attrs.keys())
        unread = set(names) & {*state.mapper.column_attrs.keys(), *state.mapper.relationships.keys()}
        if not expired and unread <= state.dict.keys():
            return obj
        async with self._current_session(writing=False) as unit_session:
            # unfiltered: events are also published for objects that the select leaves out
            query = self._unfiltered_key_query
            row: M | None = await unit_session.session.run_sync(_fetch_one, query, {_KEY_PARAMETER: key})
            return row

    # ---------------------------------------------------------------------------------------------- writing
    @awaited
    async def create(self, values: Mapping[str, Any]) -> M:
        prepared = self._prepare(values)
        async with self._current_session(writing=True) as unit_session:
            obj = self._construct(prepared)

            async def add() -> None:
                unit_session.session.add(obj)

            await flush(unit_session, add, self._mapper)
            return await self._reload(unit_session.session, obj)

    @awaited
    async def update(self, obj: M, values: Mapping[str, Any]) -> M:
        prepared = self._prepare(values)
        async with self._current_session(writing=True) as unit_session:
            row = await self._get_for_update(unit_session.session, obj)
            if prepared.get(self.pk, getattr(row, self.pk)) != getattr(row, self.pk):
                raise Conflict(f"The {self.pk} of a {self.model.__name__} cannot change.", {"fields": [self.pk]})

            async def change() -> None:
                for name, value in prepared.items():
                    setattr(row, name, value)

            await flush(unit_session, change, self._mapper)
            return await self._reload(unit_session.session, row)

    @awaited
    async def delete(self, obj: M) -> None:
        async with self._current_session(writing=True) as unit_session:
            row = await self._get_for_update(unit_session.session, obj, locked=True)
            await flush(unit_session, lambda: unit_session.session.delete(row), self._mapper)

    def check_storable(self, name: str, annotation: Any) -> None:
        """Raises `FieldError` if a field's column cannot hold values of this type, such as a list in a text column."""
        if name in self._mapper.column_attrs:
            refuse_container(
                f"{self.model.__name__}.{name}", self._mapper.column_attrs[name].columns[0].type, annotation
            )

    def _construct(self, prepared: Mapping[str, Any]) -> M:
        """A new object. Values that the constructor does not take (a dataclass's ``init=False``) are set afterwards."""
        keywords = _constructor_keywords(self._mapper)
        if keywords is None:
            return self.model(**prepared)
        obj = self.model(**{name: value for name, value in prepared.items() if name in keywords})
        for name in prepared.keys() - keywords:
            setattr(obj, name, prepared[name])
        return obj

    def _prepare(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values as their columns store them, by field name. Raises `FieldError`, `InvalidParameters`."""
        prepared: dict[str, Any] = {}
        errors: list[dict[str, Any]] = []
        for name, value in self.named(values).items():
            try:
                prepared[name] = self._fields.prepare(name, value)
            except ValueError as exc:
                errors.append({"type": "value_error", "msg": f"Value error, {exc}", "loc": ["data", name]})
        if errors:
            raise InvalidParameters(errors)
        return prepared

    async def _get_for_update(self, session: AsyncSession, obj: M, *, locked: bool = False) -> M:
        """The object in the unit's session. Its row is locked until the unit ends if the queryset has conditions.

        Raises `NotFound` if the queryset does not contain the object.
        """
        self._refuse_sliced("be changed")
        narrowed = bool(self._where) or self._from_select
        if obj in session and not (narrowed or locked):
            return obj
        rows = select(self.model).where(self._key == self.key_of(obj))
        if narrowed:
            # uncorrelated, because SQLAlchemy would take a subclass's tables from the outer query
            keys = self._select_keys().correlate(None)
            rows = rows.where(self._key.in_(keys))
        if tables := _always_there(self._mapper):
            rows = rows.with_for_update(of=tables)
        row: M | None = await session.run_sync(_fetch_one, rows, {})
        if row is None:
            raise NotFound
        return row

    async def _reload(self, session: AsyncSession, row: M) -> M:
        """The written object, with the values that the database made and the related objects that the select loads.

        It is read without the select's conditions, because a written object need not meet them.
        """
        related: set[str] = set()
        if self._loads_related:
            related = inspect(row).dict.keys() & self._mapper.relationships.keys()
            session.expire(row)
            parameters = {_KEY_PARAMETER: self.key_of(row)}
            if await session.run_sync(_fetch_one, self._unfiltered_key_query, parameters) is not None:
                return row
        state = inspect(row)
        names = (state.unloaded & self._columns) | related
        if state.expired_attributes:  # values that the database made, also in a subclass's columns
            names |= state.expired_attributes & _loaded_columns(state.mapper)
        if names:
            await session.refresh(row, names)
        return row


def _mapped(source: Any) -> tuple[Any, Mapper[Any]]:
    """The class of a source and its mapper. Raises `ImproperlyConfigured`."""
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
            f"SQLAlchemyQuerySet takes a mapped class, or a select() of one class as in select(Card), not {source!r}"
        )
    if isinstance(source, Select) and source._has_row_limiting_clause:
        raise ImproperlyConfigured(
            f"SQLAlchemyQuerySet takes a select() without LIMIT and OFFSET: each {entity.__name__} that they leave out "
            "could still be found by its key; slice the queryset, as in queryset.order_by('-sold')[:10]"
        )
    return entity, mapper


@lru_cache(1_024)
def _loaded_columns(mapper: Mapper[Any]) -> frozenset[str]:
    """The names of a class's columns that are loaded with its objects (not deferred)."""
    return frozenset(attribute.key for attribute in mapper.column_attrs if not attribute.deferred)


@lru_cache(1_024)
def _constructor_keywords(mapper: Mapper[Any]) -> frozenset[str] | None:
    """The keywords that a class's constructor takes; None if it takes any."""
    parameters = signature(mapper.class_.__init__).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters if parameter.kind is not Parameter.POSITIONAL_ONLY)


@lru_cache(1_024)
def _always_there(mapper: Mapper[Any]) -> tuple[Table, ...]:
    """The tables that have a row for every object of a class; an outer-joined subclass table may have none.

    PostgreSQL can lock only these.
    """
    return tuple(table for source in select(mapper).get_final_froms() for table in _inner_tables(source))


def _inner_tables(source: FromClause) -> Iterator[Table]:
    if isinstance(source, Table):
        yield source
    elif isinstance(source, Join) and not source.full:
        yield from _inner_tables(source.left)
        if not source.isouter:
            yield from _inner_tables(source.right)


def _without_where(rows: Select[Any]) -> Select[Any]:
    """A select without its WHERE, with the same joins and options. SQLAlchemy has no public method for this."""
    other = rows.where()
    other._where_criteria = ()
    return other


def _narrows(rows: Select[Any], model: Any) -> bool:
    """Whether a select may leave out rows of its class."""
    if any(isinstance(option, LoaderCriteriaOption) for option in rows._with_options):
        return True
    plain = rows.order_by(None)  # an order and other options leave no rows out
    plain._with_options = ()
    return not plain.compare(select(model))


def _make_detached(mapper: Mapper[Any], values: Mapping[str, Any], related: Mapping[str, Any]) -> Any:
    """A detached object with these attributes. Reading any other raises, as for an object whose session is closed."""
    mapper.relationships  # noqa: B018  # configures the mapper
    obj = mapper.class_manager.new_instance()
    for name, value in (*values.items(), *related.items()):
        set_committed_value(obj, name, value)
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    if any(inspect(obj).dict.get(key) is None for key in keys):
        raise ValueError(f"the values of a {mapper.class_.__name__} must include its key, {' and '.join(keys)}")
    make_transient_to_detached(obj)
    return obj


def _loader_options(mapper: Mapper[Any], sample: Any, above: tuple[Any, ...] = ()) -> list[Any]:
    """Loader options that load the same related objects that ``sample`` has loaded."""
    if isinstance(sample, list | set | tuple):
        sample = next(iter(sample), None)
    if sample is None or any(parent is sample for parent in above):
        return []
    loaded = inspect(sample).dict
    options = []
    for name in set(mapper.relationships.keys()) & loaded.keys():
        option = selectinload(getattr(mapper.class_, name))
        below = _loader_options(mapper.relationships[name].mapper, loaded[name], (*above, sample))
        options.append(option.options(*below))
    return options


def _fetch_one(session: Session, rows: Select[Any], parameters: Mapping[str, Any]) -> Any:
    return session.scalars(rows, parameters).unique().one_or_none()


def _fetch_all(session: Session, rows: Select[Any], loads_related: bool) -> list[Any]:
    found = session.scalars(rows)
    return list(found.unique() if loads_related else found)  # a joined collection repeats its object


def _dialect(sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> str:
    """The name of the database's dialect; "" if the sessionmaker is not bound yet."""
    try:
        bind = sessionmaker().sync_session.get_bind(mapper)
    except UnboundExecutionError:
        return ""
    return str(bind.dialect.name)
