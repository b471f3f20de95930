"""All routes of the study's pages; importing this module registers them on one blueprint."""

from __future__ import annotations

from server.participant import arrival_views, audio_views, views
from server.participant.visit import blueprint

__all__ = ["arrival_views", "audio_views", "blueprint", "views"]
