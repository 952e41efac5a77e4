"""Django, set up as far as the consumers on it need."""

import django
from django.conf import settings


def set_up() -> None:
    """To be called before anything of Django REST framework is imported; does nothing the second time."""
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
