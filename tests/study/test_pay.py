"""[pay]: the currency, and the earlier names of the amounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from embeddings.errors import RootnoteError
from study.config import StudyConfig, load_study
from study.config_sections import AMOUNTS, PayConfig
from tests.commands import run

HEAD = '[study]\nname = "T"\n[corpus]\naudio = "music"\n'
PROLIFIC = '[recruiter]\nkind = "prolific"\n[recruiter.prolific]\n'


def config(tmp_path: Path, toml: str) -> StudyConfig:
    (tmp_path / "study.toml").write_text(HEAD + toml)
    return load_study(tmp_path).config


@pytest.mark.parametrize("currency", ["USD", "GBP", "EUR"])
def test_every_amount_is_in_the_currency(tmp_path: Path, currency: str) -> None:
    found = config(tmp_path, f'[pay]\ncurrency = "{currency}"\nreward = 1.17\nscreened_out = 0.14\nbudget = 100\n')
    assert (found.currency, found.pay.reward, found.pay.unheard) == (currency, 1.17, 1.17)


def test_the_earlier_names_mean_dollars(tmp_path: Path) -> None:
    earlier = "".join(f"{name}_usd = 2\n" for name in AMOUNTS[:-2]) + "floor_usd_per_hour = 12\nbudget_usd = 9\n"
    current = "".join(f"{name} = 2\n" for name in AMOUNTS[:-2]) + "floor_per_hour = 12\nbudget = 9\n"
    one, other = config(tmp_path, "[pay]\n" + earlier), config(tmp_path, "[pay]\n" + current)
    assert one.pay == other.pay and one.currency == "USD"
    assert one.pay.model_dump() == other.pay.model_dump(), "frozen plans and launches compare equal"
    assert set(one.pay.model_dump()) >= {"reward_usd", "floor_usd_per_hour"}, "by the names they were stored with"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[pay]\nreward = 1\nscreened_out_usd = 1\n", "[pay] has both reward and screened_out_usd"),
        ('[pay]\ncurrency = "GBP"\nreward_usd = 1\n', "reward_usd is in US dollars and currency is GBP"),
        ('[pay]\ncurrency = "CHF"\n', "pay.currency"),
        ("[pay]\nreward = -1\n", "'pay.reward'"),
        ("[pay]\nreward = 1.505\n", "1.505 is not a whole number of cents"),
        ("[pay]\nrewrd = 1\n", "did you mean 'reward'"),
        ('[pay]\ncurrency = "EUR"\n' + PROLIFIC, "pay.currency is EUR, and Prolific pays in USD or GBP"),
        ('[pay]\ncurrency = "GBP"\n[recruiter]\nkind = "mturk"\n', "and Mechanical Turk pays in USD"),
        ('[pay]\ncurrency = "USD"\n' + PROLIFIC + 'currency = "GBP"\n', "recruiter.prolific.currency is GBP"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(RootnoteError) as caught:
        config(tmp_path, toml)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_prolific_has_one_currency(tmp_path: Path) -> None:
    both = config(tmp_path, '[pay]\ncurrency = "GBP"\nreward = 1.17\n' + PROLIFIC)
    assert (both.currency, both.recruiter.settings.currency) == ("GBP", "GBP")
    earlier = config(tmp_path, "[pay]\nreward_usd = 1.17\n" + PROLIFIC + 'currency = "GBP"\n')
    assert (earlier.currency, earlier.pay.reward) == ("GBP", 1.17), "as documented by earlier versions"


def test_check_shows_the_currency(tmp_path: Path) -> None:
    config(tmp_path, '[pay]\ncurrency = "GBP"\nreward = 0.5\n')
    printed = run("study", "check", tmp_path).stdout
    assert "4 minutes for £0.50: £7.50 per hour" in printed
    assert "pay of £7.50 per hour is below" in printed and "$" not in printed


def test_check_compares_the_currency_of_the_consent_text(tmp_path: Path) -> None:
    config(tmp_path, '[pay]\ncurrency = "GBP"\n')
    for text, warned in (("You are paid £1.50.", False), ("You are paid $1.50.", True), ("You get 2 EUR.", True)):
        (tmp_path / "consent.md").write_text(text)
        printed = run("study", "check", tmp_path).stdout
        assert ("consent.md mentions" in printed and "the study pays in GBP" in printed) == warned, text


def test_nothing_is_paid() -> None:
    assert PayConfig(reward=0, screened_out=0).most == 0 < PayConfig(reward=0).most
