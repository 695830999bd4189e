"""The settings of a Django project that keeps its sessions in the database, as by default."""

import os
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict


def database(url):
    """What Django wants to know of the database at `sqlite:PATH` or `postgres://…`."""
    if urlsplit(url).scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.removeprefix("sqlite:")}
    options = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": options.pop("dbname"),
        # The rest goes to libpq as it is, such as a folder of sockets as the host.
        "OPTIONS": options,
    }


DATABASES = {"default": database(os.environ["DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.sessions"]
SECRET_KEY = "the sessions are signed with this, and nobody relies on it"
# Not UTC, so that a time that was stored as local time would be noticed.
TIME_ZONE = "Asia/Tokyo"
USE_TZ = True
