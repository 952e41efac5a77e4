"""Data: the tasks of projects, in memory, with pages, filters, a search, and an action of their own."""

from typing import Annotated

from pydantic import BaseModel, Field

from wsaction import (
    AsyncAPIConsumer,
    MemoryQuerySet,
    ModelAPIActionHandler,
    QuerySet,
    ReadOnly,
    SimpleRouter,
    WriteOnly,
    WSAction,
    async_action,
    include,
    path,
)
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.pagination import PageNumberPagination


class Task(BaseModel):
    id: Annotated[int, ReadOnly]
    project_id: Annotated[int, ReadOnly]
    title: str = Field(min_length=1)
    notes: str | None = None
    done: bool = False
    pin: Annotated[str, WriteOnly] = ""


class TaskHandler(ModelAPIActionHandler[Task]):
    """The tasks of the project in the route."""

    queryset = MemoryQuerySet(Task, unique=[("project_id", "title")])
    serializer_class = Task
    pagination_class = PageNumberPagination(page_size=20)
    filter_backends = (FieldFilter, SearchFilter, OrderingFilter)
    filter_fields = {"done": ["exact"], "title": ["exact", "icontains"]}
    search_fields = ("title", "notes")
    ordering_fields = ("title", "done")
    ordering = "title"

    def get_queryset(self) -> QuerySet[Task]:
        return super().get_queryset().filter(project_id=self.kwargs["project_pk"])

    async def perform_create(self, values: dict[str, object]) -> Task:
        return await super().perform_create({**values, "project_id": self.kwargs["project_pk"]})

    @async_action(detail=True)
    async def finish(self) -> Task:
        """Marks a task as done."""
        return await self.perform_update(await self.get_object(), {"done": True})


router = SimpleRouter()
router.register("tasks", TaskHandler)  # tasks/ is "task-list", tasks/<pk>/ is "task-detail"


class Projects(AsyncAPIConsumer):
    """The consumer."""

    routepatterns = [path("projects/<int:project_pk>/", include(router.urls))]


app = WSAction([path("ws/", Projects.as_asgi())], title="Tasks")
