"""What people are told of the loop, and through which channels: chat, mail, webhooks, by Apprise's URLs.

What is to be told is read from the journal, and what has been told is written there: a watch that was killed tells the
rest when it starts again. A message can come twice (killed between sending and writing), none is lost to a channel that
is away: it is sent again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.console import say
from cluster.errors import UserError

from .journal import (
    AWAITS,
    BEGUN,
    DECISION,
    DONE,
    FAILED,
    PROMOTION,
    RETRAIN,
    ROLLBACK,
    TRIAL,
    VERDICT,
    Entry,
    Journal,
)
from .judges.canary import PROMOTE
from .policy import RETRAIN as START

NOTICE, VARIABLE = "notice", "REHONE_NOTIFY"
NEWS = timedelta(days=1)
"""What is older is not told any more: channels that are set up today do not get the past."""


@dataclass(frozen=True)
class Message:
    """`key` is the journal's id of what is told; `kind` is Apprise's: info, success, warning or failure."""

    key: str
    at: datetime
    kind: str
    title: str
    body: str


Send = Callable[[Message], bool]


def channels(urls: str) -> Send:
    """Sends through every channel of Apprise URLs, parted by spaces; False when one of them failed.

    Raises UserError for what is no such URL. Never repeats one: they hold tokens.
    """
    from apprise import Apprise

    ours = Apprise()
    for number, url in enumerate(urls.split(), 1):
        if not ours.add(url):
            raise UserError(
                f"channel {number} is no Apprise URL",
                where=VARIABLE,
                mend="https://github.com/caronc/apprise lists them",
            )

    def send(message: Message) -> bool:
        return bool(ours.notify(title=message.title, body=message.body, notify_type=message.kind))

    return send


def tell(journal: Journal, model: str, send: Send, now: datetime) -> int:
    """Send what is new in a model's journal; gives how many messages went out."""
    entries, sent = journal.entries(model), 0
    told = {entry.key for entry in entries if entry.kind == NOTICE}
    for message in messages(entries):
        if message.key in told or now - message.at > NEWS:
            continue
        if not send(message):
            say(f"watch: a channel of {VARIABLE} did not take {message.title!r}; trying again at the next look")
            break
        journal.write(model, NOTICE, DONE, message.key, {"title": message.title})
        sent += 1
    return sent


def messages(entries: Sequence[Entry]) -> Iterator[Message]:
    """Of a model's journal, oldest first: alarms that begin, retrainings, how they end, what becomes of versions."""
    alarm, verdicts = False, {entry.key: "; ".join(entry.body["reasons"]) for entry in entries if entry.kind == VERDICT}
    for entry in entries:
        body = entry.body
        if entry.kind == DECISION:
            if body["action"] == START:
                yield _message(entry, "warning", "retraining", "; ".join(body["reasons"]))
            elif body["alarm"] and not alarm:
                yield _message(entry, "warning", f"alarm, {body['action']}", "; ".join(body["reasons"]))
            alarm = body["alarm"]
        elif entry.kind == RETRAIN and entry.state == FAILED:
            status = f"job {body['submission_id']} ended as {body['status']}"
            yield _message(entry, "failure", "the retraining failed", f"{status}; `rehone jobs logs` has its output")
        else:
            yield from _of_version(entry, verdicts)


def _of_version(entry: Entry, verdicts: Mapping[str, str]) -> Iterator[Message]:
    """What became of it. One that passed is told of when it is known what follows: it serves, is tried, or waits."""
    body = entry.body
    if entry.kind == VERDICT and not body["promote"]:
        yield _message(entry, "info", f"version {entry.key} refused", "; ".join(body["reasons"]))
    elif entry.kind == AWAITS:
        said = f"{body['why']}; `rehone promote {entry.model} {entry.key}` lets it serve"
        yield _message(entry, "warning", f"version {entry.key} passed the gate and waits", said)
    elif entry.kind == TRIAL and entry.state == BEGUN:
        title = f"version {entry.key} passed the gate and goes on trial"
        yield _message(entry, "success", title, verdicts.get(entry.key, ""))
    elif entry.kind == TRIAL and entry.state == DONE:
        promoted = body["action"] == PROMOTE
        title = f"version {entry.key} {'promoted' if promoted else 'dropped'} after its trial"
        yield _message(entry, "success" if promoted else "warning", title, "; ".join(body["reasons"]))
    elif entry.kind == PROMOTION and entry.state == DONE and not entry.key.endswith("-trial"):
        why = f"by {body['by']}" if "by" in body else verdicts.get(str(body["version"]), "")
        yield _message(entry, "success", f"version {body['version']} promoted", why)
    elif entry.kind == ROLLBACK and entry.state == DONE:
        yield _message(entry, "warning", f"rolled back to version {body['version']}", "it answers from here on")


def _message(entry: Entry, kind: str, title: str, body: str) -> Message:
    return Message(entry.id, entry.at, kind, f"{entry.model}: {title}", body)
