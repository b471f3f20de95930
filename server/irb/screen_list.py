"""The screens: every page that a listener can see, and how to reach it.

A screen is one page in one state; `route` is its address, and `shown` says when or to whom it appears. `tour` goes
through all screens of the scratch study and takes a picture of each in every language, on a laptop and on a phone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from server.irb.scratch_study import ScratchStudy
from server.irb.screenshots import WINDOWS, Screenshooter, Width
from server.recruiting.marketplaces.registry import marketplace_class
from study.prescreen.registry import STEPS
from study.prescreen.steps import graded_steps, step_config
from study.questionnaire import check_answers

TAKE, OWN = "/take", "/a/…"
READY = "main[data-ready]"
PLAYED = "(number) => document.querySelectorAll('[data-player]')[number].matches('.done:not(.playing)')"
SEND_NOTHING = "const form = document.querySelector('form[data-send]'); form.noValidate = true; form.requestSubmit()"
CLIPS = 3
STRANGER = 9999  # a visitor who does not consent


@dataclass(frozen=True)
class Screen:
    """A page in a state."""

    title: str
    shown: str
    route: str


@dataclass(frozen=True)
class Picture:
    """A screen as a browser showed it: a PNG of `across` × `down` pixels."""

    screen: Screen
    language: str
    width: Width
    data: bytes
    across: int
    down: int


Go = Callable[[str], None]  # opens the page in a language

CONSENT = Screen("Information and consent", "to everyone who opens the link; nothing is stored yet", TAKE)
PREVIEW = Screen("Preview", "to a worker who previews the task before accepting it", TAKE)
INSTRUCTIONS = Screen("Instructions", "before the first trial", OWN)
TRIAL = Screen("A trial, before listening", "in every trial", OWN)
HEARD = Screen("A trial, after all three clips were heard", "in every trial; an answer is possible only now", OWN)
NO_SOUND = Screen("A trial whose sounds cannot be played", "in a browser that cannot play the clips", OWN)
CUT_OFF = Screen("A trial while the connection is lost", "while an answer cannot be sent", OWN)
QUESTIONS = Screen("Questions", "after the last trial", OWN)
WRONG = Screen("Questions, with answers missing", "to participants who skipped a required question", OWN)
TEXT = Screen("The consent text, to print", "to participants who press “Print or save this text”", "/consent/…")
ACCESS = Screen("Accessibility", "to participants who press “Accessibility”, which is on every page", "/accessibility")
WITHDRAW = Screen("Erase my answers, by code", "to participants who return later", "/withdraw")
ASKED = Screen(
    "Erase my answers?", "to participants who press “Erase my answers”, at the end or later", f"{OWN}/withdraw"
)
ERASED = Screen("The end: answers erased", "to participants who erased their answers", OWN)
LATER = Screen(
    "Continue later", "to participants who press “Continue later”, which is on every page of a run", f"{OWN}/later"
)
WAITING = Screen(
    "One moment, please", "to a worker whose place the marketplace must show first, and cannot show at once", TAKE
)
LEAVE = Screen(
    "Leave the study?", "to participants who press “Leave the study”, which is on every page of a run", f"{OWN}/leave"
)
TECHNICAL = Screen(
    "No sound?", "to participants who press “No sound?”, which is on every page with sounds", f"{OWN}/technical"
)
DONE = Screen("The end: finished", "to participants who answered everything", OWN)
SCREENED_OUT = Screen("The end: listening check not passed", "to participants who failed every attempt at a check", OWN)
WITHDRAWN = Screen("The end: left the study", "to participants who left before the end", OWN)
UNHEARD = Screen("The end: no sound", "to participants who could not play the sounds", OWN)
EXPIRED = Screen("The end: place expired", "to participants who were away for too long and lost their place", OWN)
TAKEN = Screen("Already taken part", "to people who come a second time", TAKE)
FULL = Screen("No place at the moment", "to people who come while all places are taken", TAKE)
COMPLETE = Screen("The study is complete", "to people who come after the last place was filled", TAKE)
PAUSED = Screen("The study is paused", "to people who come while recruiting is paused", TAKE)
CLOSED = Screen("The study has ended", "to people who come after the study was closed", TAKE)
OWED = Screen("An outstanding payment", "to a worker for whom a task was created to pay them", TAKE)
REFUSED = Screen(
    "An error: the form cannot be accepted", "for example on a page that was open for more than a day", TAKE
)
NOTHING = Screen("An error: no such page", "to people who mistype an address", "any other")
BROKEN = Screen("An error: server error", "while the server has a fault", "any")


def check_screens(kind: str) -> tuple[Screen, Screen, Screen]:
    """The screens of a step of the prescreen: its first sound, a later one, and the first of a later attempt."""
    step = STEPS[kind]
    title = f"Listening check: {step.title[0].lower()}{step.title[1:]}" if step.graded else step.title
    return (
        Screen(title, "after consent", OWN),
        Screen(f"{title}, a later sound", "after the first sound", OWN),
        Screen(f"{title}, another attempt", "to participants who did not pass the first attempt", OWN),
    )


@dataclass
class ScreenTour:
    """A tour of the scratch study, with the pictures taken so far."""

    scratch: ScratchStudy
    camera: Screenshooter
    pictures: list[Picture] = field(default_factory=list)
    people: int = 0

    @property
    def languages(self) -> list[str]:
        return self.scratch.study.config.study.languages

    def show(self, screen: Screen, go: Go) -> None:
        """Take pictures of a screen in every language and width."""
        for language in self.languages:
            go(language)
            for width in WINDOWS:
                self.pictures.append(Picture(screen, language, width, *self.camera.shoot(width)))

    # ------------------------------------------------------------------ ways to a page

    def open(self, address: str) -> None:
        self.camera.page.goto(address)
        self.camera.page.wait_for_selector(READY)

    def first_page(self, person: int, *, place: int = 1, preview: bool = False, **more: str) -> Go:
        """Go to the first page as that person."""
        return lambda language: self.open(
            self.scratch.entry_address(person, place=place, preview=preview, **more, lang=language)
        )

    def own(self, token: str, ending: str = "", script: str = "", wait: str = "") -> Go:
        """Go to a listener's own page, run `script` there and wait for the element `wait`."""

        def go(language: str) -> None:
            self.scratch.set_language(token, language)
            self.open(f"{self.scratch.address}/a/{token}{ending}")
            if script:
                self.camera.page.evaluate(script)
            if wait:
                self.camera.page.wait_for_selector(wait)

        return go

    def press(self, go: Go, script: str = "") -> Go:
        """Go to a page, run `script` and press its primary button."""

        def pressed(language: str) -> None:
            go(language)
            if script:
                self.camera.page.evaluate(script)
            with self.camera.page.expect_navigation():
                self.camera.page.click("main button.primary")
            self.camera.page.wait_for_selector(READY)

        return pressed

    def heard(self, token: str) -> Go:
        """Go to a trial, play its clips to their end and choose an answer."""

        def go(language: str) -> None:
            self.own(token)(language)
            for number in range(CLIPS):
                self.camera.page.locator("[data-player] .play").nth(number).click()
                self.camera.page.wait_for_function(PLAYED, arg=number)
            self.camera.page.locator("input[name=choice]").first.check(force=True)

        return go

    def consent(self) -> str:
        """Consent as a new person, whom the marketplace lists; return their token."""
        self.people += 1
        self.scratch.list_submission(self.people)
        self.press(self.first_page(self.people))(self.languages[0])
        return self.camera.page.url.rpartition("/")[2]


def tour(scratch: ScratchStudy, camera: Screenshooter) -> list[Picture]:
    """Take pictures of every screen of a study, in the order in which a listener may see them."""
    walk = ScreenTour(scratch, camera)
    if marketplace_class(scratch.study.config).capabilities.has_preview:
        walk.show(PREVIEW, walk.first_page(STRANGER, preview=True))
    walk.show(CONSENT, walk.first_page(STRANGER))
    walk.show(TEXT, lambda language: walk.open(f"{scratch.address}/consent?lang={language}"))
    walk.show(ACCESS, lambda language: walk.open(f"{scratch.address}/accessibility?lang={language}"))
    walk.show(WITHDRAW, lambda language: walk.open(f"{scratch.address}/withdraw?lang={language}"))
    stale = walk.press(walk.first_page(STRANGER), "document.querySelector('main [name=entry]').value = 'old'")
    walk.show(REFUSED, stale)
    walk.show(NOTHING, lambda language: walk.open(f"{scratch.address}/nothing?lang={language}"))
    _fail_the_checks(walk)
    _leave_early(walk)
    token = _take_the_last_place(walk)
    _take_the_study(walk, token)
    _come_too_late(walk, token)
    order = {screen: number for number, screen in enumerate(_in_order(scratch))}
    return sorted(
        walk.pictures, key=lambda one: (order[one.screen], scratch.study.config.study.languages.index(one.language))
    )


def _fail_the_checks(walk: ScreenTour) -> None:
    """A listener fails each check once, and the last required one in every attempt."""
    scratch, config = walk.scratch, walk.scratch.study.config
    must = [kind for kind in graded_steps(config) if step_config(config, kind).required]
    if not config.prescreen.steps:
        return
    token = walk.consent()
    while item := scratch.item(token):
        if (item.attempt, item.item) == (2, 1):
            walk.show(check_screens(item.kind)[2], walk.own(token))
        fatal = item.kind in must[-1:]
        again = step_config(config, item.kind).attempts > item.attempt
        scratch.answer_item(token, item, right=not fatal and (item.attempt > 1 or not again))
    if scratch.step(token) == "screened_out":
        walk.show(SCREENED_OUT, walk.own(token))


def _leave_early(walk: ScreenTour) -> None:
    token = walk.consent()
    walk.scratch.leave(token)
    walk.show(WITHDRAWN, walk.own(token))
    if not walk.scratch.study.config.recruiter.has_arrivals:
        walk.show(TAKEN, walk.press(walk.first_page(walk.people)))
    token = walk.consent()
    walk.scratch.end_unheard(token)
    walk.show(UNHEARD, walk.own(token))
    walk.show(ASKED, walk.own(token, "/withdraw"))
    walk.scratch.erase(token)
    walk.show(ERASED, walk.own(token))


def _take_the_last_place(walk: ScreenTour) -> str:
    """A listener is away for too long and loses the last place to another, whose token is returned."""
    slow = walk.consent()
    walk.scratch.fill_other_places()
    walk.scratch.expire_lease()
    token = walk.consent()
    walk.show(EXPIRED, walk.own(slow))
    walk.show(FULL, walk.first_page(STRANGER))
    return token


def _take_the_study(walk: ScreenTour, token: str) -> None:
    scratch = walk.scratch
    while item := scratch.item(token):
        if item.attempt == 1 and item.item <= 2:
            walk.show(check_screens(item.kind)[item.item - 1], walk.own(token))
        scratch.answer_item(token, item)
    walk.show(INSTRUCTIONS, walk.own(token))
    scratch.begin_listening(token)
    walk.show(TRIAL, walk.own(token))
    walk.show(HEARD, walk.heard(token))
    walk.show(NO_SOUND, walk.own(token, script="showNotice('problem')"))
    walk.show(CUT_OFF, walk.own(token, script="showNotice('connection')"))
    walk.show(LEAVE, walk.own(token, "/leave"))
    if marketplace_class(scratch.study.config).capabilities.lists_submissions:
        walk.show(WAITING, walk.press(walk.first_page(walk.people, place=2)))
    else:
        walk.show(LATER, walk.own(token, "/later"))
    walk.show(TECHNICAL, walk.own(token, "/technical"))
    scratch.answer_trials(token)
    walk.show(QUESTIONS, walk.own(token))
    if check_answers(scratch.study.config.questions, {})[1]:
        walk.show(WRONG, walk.own(token, script=SEND_NOTHING, wait=".wrong"))
    scratch.finish(token)
    walk.show(DONE, walk.own(token))


def _come_too_late(walk: ScreenTour, token: str) -> None:
    scratch, visitor = walk.scratch, walk.first_page(STRANGER)
    if scratch.study.config.recruiter.has_arrivals:
        scratch.submit(token)
        walk.show(TAKEN, walk.first_page(walk.people, place=2))
        if not marketplace_class(scratch.study.config).capabilities.pays_by_hand:
            walk.show(OWED, walk.first_page(STRANGER, owed="1"))
    walk.show(COMPLETE, visitor)
    scratch.break_down()
    walk.show(BROKEN, visitor)
    scratch.stop()
    walk.show(PAUSED, visitor)
    scratch.close()
    walk.show(CLOSED, visitor)


def _in_order(scratch: ScratchStudy) -> list[Screen]:
    """All screens in the order of the packet: the normal course, the other ends, and errors."""
    checks = [screen for kind in scratch.study.config.prescreen.steps for screen in check_screens(kind)]
    return [
        PREVIEW, CONSENT, *checks, INSTRUCTIONS, TRIAL, HEARD, QUESTIONS, WRONG, DONE,
        LATER, WAITING, LEAVE, WITHDRAWN, ASKED, ERASED, WITHDRAW, TEXT, ACCESS,
        SCREENED_OUT, TECHNICAL, UNHEARD, NO_SOUND, CUT_OFF, EXPIRED,
        TAKEN, FULL, COMPLETE, PAUSED, CLOSED, OWED, REFUSED, NOTHING, BROKEN,
    ]  # fmt: skip
