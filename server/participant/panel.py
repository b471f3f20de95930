"""A panel's participants for whom there is no place: the link back to the panel, on the page that says so."""

from __future__ import annotations

from flask import Flask, request

from server.recruiting.marketplace_entry import MarketplaceEntry
from server.recruiting.marketplaces.base import ArrivalError, ReturnLink


def install(app: Flask, entry: MarketplaceEntry | None) -> None:
    """Give the templates `full_link()`."""

    def full_link() -> ReturnLink:
        if entry is None:
            return ReturnLink()
        if request.method == "POST":  # the arrival is in the form that the consent page sent
            arrival = entry.vault.open(request.form.get("arrival", ""))
        else:
            try:
                arrival = entry.marketplace.arrive(request.args)
            except ArrivalError:
                arrival = None
        return entry.marketplace.make_full_link(arrival) if arrival else ReturnLink()

    app.jinja_env.globals["full_link"] = full_link
