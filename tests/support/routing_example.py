"""The routing example, as users of rest_framework_channels would write it: without annotations."""

from pydantic import BaseModel

from wsaction import generics
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.permissions import IsAuthenticated
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path, re_path


class TestModel(BaseModel):
    id: int
    title: str


class TestSerializer(BaseModel):  # what clients see of it
    title: str


class ChildActionHandler(generics.RetrieveAPIActionHandler):
    serializer_class = TestSerializer
    queryset = MemoryQuerySet(TestModel, rows=[TestModel(id=1, title="first")])
    permission_classes = (IsAuthenticated,)

    @async_action  # no parentheses needed; sync functions welcome
    def recieve_path(self, *args, **kwargs):
        return {"path": "handled"}, 200

    @async_action
    def recieve_repath(self, *args, **kwargs):
        return {"repath": "handled"}, 200


class ParentConsumer(AsyncAPIConsumer):
    routepatterns = [
        path("test_child_route", ChildActionHandler.as_aaah()),
        re_path(r"test_child_route/(?P<pk>[-\w]+)/$", ChildActionHandler.as_aaah()),
    ]
