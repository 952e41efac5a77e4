"""The Django settings that the consumers need."""

import django
from django.conf import settings


def set_up() -> None:
    """Sets up Django. Must be called before Django REST framework is imported; a second call does nothing."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "channels", "rest_framework"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        SECRET_KEY="nothing is signed here",
        USE_TZ=True,
    )
    django.setup()
