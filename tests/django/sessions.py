"""Sessions made and read by Django itself.

    sessions.py create --database URL --count N --file FILE
    sessions.py verify --database URL --file FILE

`create` makes Django's tables and N sessions, about half of them expired, and writes into FILE
what `verify` needs. `verify` exits 1, with the reason, unless Django loads every session that
was not expired with the data that it was made with, and no other is in the table.
"""

import argparse
import json
import os
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import django
from django.core.management import call_command

# How many sessions are saved one by one, as a web application does it. The others are written
# many to a statement, by the model instances that `save` would write.
SAVED_ONE_BY_ONE = 200

DAY = timedelta(days=1)

# Each way in which an application sets a session's expiry, so that it is in the past and so that
# it is not. None leaves it at Django's default, two weeks from now.
#
# The past ones are some seconds away from now at least: the table may keep whole seconds.
EXPIRED = [
    lambda now, i: -60 - i,
    lambda now, i: -DAY * (1 + i % 400),
    lambda now, i: now - timedelta(hours=1, microseconds=i),
    # SQLite has no fraction in the text for this one.
    lambda now, i: now.replace(microsecond=0) - DAY,
    # In a zone where it is many hours later by the clock, and one where it is earlier.
    lambda now, i: (now - timedelta(minutes=5)).astimezone(ZoneInfo("Pacific/Kiritimati")),
    lambda now, i: (now - timedelta(minutes=5)).astimezone(ZoneInfo("Pacific/Pago_Pago")),
]
ALIVE = [
    lambda now, i: None,
    # Until the browser is closed; the table then has the default.
    lambda now, i: 0,
    lambda now, i: 3600 + i,
    lambda now, i: DAY * (1 + i % 400),
    lambda now, i: now.replace(microsecond=0) + DAY,
    lambda now, i: (now + timedelta(hours=1)).astimezone(ZoneInfo("Pacific/Kiritimati")),
    lambda now, i: (now + timedelta(hours=1)).astimezone(ZoneInfo("Pacific/Pago_Pago")),
    lambda now, i: datetime.max.replace(tzinfo=timezone.utc) - DAY,
]

TEXTS = ["plain", "Zażółć gęślą jaźń", "日本語のセッション", "🛏️ 🔑", "it's \"quoted\" \\ and\nbroken", ""]


def create(count, file):
    """Makes the tables and the sessions."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session

    call_command("migrate", verbosity=0)
    now = datetime.now(timezone.utc)
    made = {"alive": {}, "expired": []}
    instances = []
    for i in range(count):
        alive = i % 2 == 0
        expiries = ALIVE if alive else EXPIRED
        session = SessionStore()
        session["user"] = {"id": i, "name": TEXTS[i % len(TEXTS)]}
        session["cart"] = [{"item": n, "price": n / 3} for n in range(i % 5)]
        session["flag"] = None
        session.set_expiry(expiries[i // 2 % len(expiries)](now, i))
        if i < SAVED_ONE_BY_ONE:
            session.save(must_create=True)
        else:
            instances.append(session.create_model_instance(dict(session.items())))
        if alive:
            made["alive"][session.session_key] = dict(session.items())
        else:
            made["expired"].append(session.session_key)
    Session.objects.bulk_create(instances, batch_size=500)
    with open(file, "w", encoding="utf-8") as f:
        json.dump(made, f)


def verify(file):
    """The reason why the table does not hold exactly the sessions that are alive, or None."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session

    with open(file, encoding="utf-8") as f:
        made = json.load(f)
    expired = Session.objects.filter(expire_date__lt=datetime.now(timezone.utc)).count()
    if expired:
        return f"{expired} of {len(made['expired'])} expired sessions are still in the table"
    for key, data in made["alive"].items():
        session = SessionStore(key)
        loaded = session.load()
        if session.session_key != key:
            return f"Django does not load the session {key}, which has not expired: {data}"
        if loaded != data:
            return f"the session {key} was {data} and is now {loaded}"
    keys = Session.objects.values_list("session_key", flat=True)
    others = set(keys).difference(made["alive"])
    if others:
        return f"there are sessions that should not be: {sorted(others)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ["create", "verify"]:
        command = commands.add_parser(name)
        command.add_argument("--database", required=True, metavar="URL")
        command.add_argument("--file", required=True)
        if name == "create":
            command.add_argument("--count", type=int, required=True)
    args = parser.parse_args()
    os.environ["DATABASE_URL"] = args.database
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    django.setup()
    if args.command == "create":
        create(args.count, args.file)
        return 0
    reason = verify(args.file)
    if reason is None:
        return 0
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
