"""Audio: sounds under random names, sent to a listener while they are due."""

from __future__ import annotations

import io
import re

from flask import abort, redirect, request, send_file
from werkzeug.wrappers import Response as WebResponse

from server.assignments import audio as sounds
from server.participant.visit import Visit, blueprint, pass_visit
from study.stimuli.storage import mimetype
from study.trial_plan import Stimulus

SOUND_NAME = re.compile(r"[\w-]{43}", re.ASCII)  # server.identity.tokens.random_token


@blueprint.get("/audio/volume")
@pass_visit
def volume(visit: Visit) -> WebResponse:
    """The sound that listeners set their volume with: the same for everyone."""
    return _send(visit.context.volume_wav, "audio/wav")


@blueprint.get("/audio/<name>")
@pass_visit
def audio(visit: Visit, name: str) -> WebResponse:
    """The sound behind a random name, while it is due."""
    sound = sounds.find_sound(visit.session, visit.experiment, name) if SOUND_NAME.fullmatch(name) else None
    if sound is None:
        abort(404)
    visit.release_connection()  # storage may be slow
    response = _send(sound.wav, "audio/wav") if sound.stimulus is None else _send_stimulus(visit, sound.stimulus)
    if sound.undelivered is not None and request.method == "GET":
        _record_delivery(visit, sound.undelivered, response)
    return response


def _send_stimulus(visit: Visit, stimulus: Stimulus) -> WebResponse:
    storage = visit.experiment.storage
    address = storage.address(stimulus)
    return redirect(address, 303) if address else _send(storage.read(stimulus), mimetype(stimulus))


def _send(data: bytes, kind: str) -> WebResponse:
    # From memory: a file sent by its path would reveal its name, date and checksum in the headers.
    return send_file(io.BytesIO(data), mimetype=kind, conditional=True, etag=False, max_age=None)


def _record_delivery(visit: Visit, delivery: int, response: WebResponse) -> None:
    """Record which bytes of a clip a reply contains; a redirect to a bucket counts as all, because nothing reports it.

    A range counts as what it is: the last byte alone is not the whole sound.
    """
    if response.status_code in (200, 303):
        with visit.single_write() as session:
            sounds.mark_fetched(session, visit.experiment, delivery)
    elif response.status_code == 206:
        sent = response.content_range
        assert sent.start is not None and sent.stop is not None and sent.length is not None
        with visit.separate_write() as session:
            sounds.note_part(session, visit.experiment, delivery, range(sent.start, sent.stop), sent.length)
