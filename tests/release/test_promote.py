"""The gate, the aliases, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from qartsr.config.schema import PromoteConfig
from qartsr.errors import QartsrError
from qartsr.release import Check, Promotion, Receipt, Rollback, promote, rollback
from qartsr.release.promote import _checks
from qartsr.release.registry import Registry, Version
from qartsr.remote import Mlflow, open_store
from tests.release.conftest import BITS, GATE, Ship, aliases

pytestmark = pytest.mark.services


def _overwrite(receipt: Receipt, folder: Path) -> None:
    (folder / "other").write_bytes(b"other bytes")
    open_store().upload(folder / "other", "qartsr", receipt.uri.removeprefix("s3://qartsr/"))


def test_the_first_champion(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    ship(psnr=30.0, fp=30.25)
    done = promote(profile, BITS, GATE)
    assert (done.version, done.before) == (1, 0)
    assert aliases(client, name) == {"champion": 1}
    assert str(done) == (
        f"{name} version 1 is champion (PSNR is 0.25 dB below FP, allowed are 0.50 dB; RGB PSNR is 0.50 dB below FP, "
        "allowed are 1.00 dB; RGB PSNR to FP's output is 40.00 dB, needed are 30.00 dB; hash verified in storage); "
        "there was no champion before."
    )
    tags = client.get_model_version(name, "1").tags
    assert tags["promotion_gate"].startswith("PSNR is 0.25 dB below FP, allowed are 0.50 dB; RGB PSNR is 0.50 dB below")
    assert tags["promoted_by"] and tags["promoted_at"].endswith("+00:00")


def test_the_one_before_is_remembered(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    for version in (1, 2, 3):
        ship()
        assert promote(profile, BITS, GATE).before == version - 1
    assert aliases(client, name) == {"champion": 3, "previous": 2}


def test_twice_is_once(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    ship()
    ship()
    promote(profile, BITS, GATE, version=1)
    promote(profile, BITS, GATE)
    before = aliases(client, name), client.get_model_version(name, "2").tags
    again = promote(profile, BITS, GATE)
    assert again == Promotion(name, 2, 2, again.checks)
    assert str(again) == f"{name} version 2 is champion already; nothing was changed."
    assert (aliases(client, name), client.get_model_version(name, "2").tags) == before


def test_a_chosen_version(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    ship()
    ship()
    assert promote(profile, BITS, GATE, version=1).version == 1
    with pytest.raises(QartsrError, match=f"{name}: has no version 7; choose among 1, 2"):
        promote(profile, BITS, GATE, version=7)


def test_the_gate_names_the_number(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    ship()
    promote(profile, BITS, GATE)
    for version, (psnr, loss) in enumerate([(29.0, "1.25"), (math.nan, "nan"), (-math.inf, "inf")], start=2):
        ship(psnr=psnr, fp=30.25)
        with pytest.raises(QartsrError) as refusal:
            promote(profile, BITS, GATE)
        assert str(refusal.value) == (
            f"{name} version {version}: is not promoted: its PSNR is {loss} dB below FP, allowed are 0.50 dB; "
            "train a better one, or raise promote.max_psnr_loss.w4a4 in params.yaml."
        )
    assert aliases(client, name) == {"champion": 1}


def test_the_very_limit_passes(ship: Ship, profile: str) -> None:
    ship(psnr=30.0, fp=30.5)
    assert promote(profile, BITS, GATE).checks[0] == Check("max_psnr_loss", 0.5, 0.5)


def test_other_bytes_in_storage(ship: Ship, profile: str, name: str, client: MlflowClient, tmp_path: Path) -> None:
    ship()
    promote(profile, BITS, GATE)
    _overwrite(ship(), tmp_path)
    with pytest.raises(QartsrError, match=r"version 2: its bytes in storage have SHA-256 .*…, registered is .*…"):
        promote(profile, BITS, GATE)
    assert aliases(client, name) == {"champion": 1}


def test_no_bytes_in_storage(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    receipt = ship()
    open_store()._client.delete_object(Bucket="qartsr", Key=receipt.uri.removeprefix("s3://qartsr/"))
    with pytest.raises(QartsrError, match="its bytes in storage are not there; publish the package again"):
        promote(profile, BITS, GATE)
    assert aliases(client, name) == {}


def test_back_and_forth(ship: Ship, profile: str, name: str, client: MlflowClient) -> None:
    for _ in range(2):
        ship()
        promote(profile, BITS, GATE)
    done = rollback(profile, BITS)
    assert done == Rollback(name, 1, 2)
    assert str(done) == f"{name} version 1 is champion again; version 2 is previous."
    assert aliases(client, name) == {"champion": 1, "previous": 2}
    assert client.get_model_version(name, "2").tags["rolled_back_by"]
    assert rollback(profile, BITS) == Rollback(name, 2, 1)


def test_nothing_to_go_back_to(ship: Ship, profile: str, name: str) -> None:
    sentence = f"{name}: has no previous champion to go back to; promote another version instead"
    with pytest.raises(QartsrError, match=sentence):
        rollback(profile, BITS)
    ship()
    promote(profile, BITS, GATE)
    with pytest.raises(QartsrError, match=sentence):
        rollback(profile, BITS)


def test_no_way_back_to_other_bytes(ship: Ship, profile: str, name: str, client: MlflowClient, tmp_path: Path) -> None:
    first = ship()
    promote(profile, BITS, GATE)
    ship()
    promote(profile, BITS, GATE)
    _overwrite(first, tmp_path)
    with pytest.raises(QartsrError, match="version 1: its bytes in storage have SHA-256"):
        rollback(profile, BITS)
    assert aliases(client, name) == {"champion": 2, "previous": 1}


class _KilledError(BaseException):
    """Nothing that a promotion could catch."""


@pytest.fixture()
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object], int], bool]:
    """Does what it is given, killed after so many writes to the registry; whether it came to that."""
    call = Mlflow._json

    def run(act: Callable[[], object], writes: int) -> bool:
        def counted(server: Mlflow, method: str, *words: Any) -> dict[str, Any]:
            nonlocal writes
            answer = call(server, method, *words)
            writes -= method != "GET"
            if not writes and method != "GET":
                raise _KilledError
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(Mlflow, "_json", counted)
            try:
                act()
            except _KilledError:
                return True
        return False

    return run


def _stand(client: MlflowClient, name: str, **numbers: int) -> None:
    """These aliases and no others; what was promoted or rolled back before said so."""
    for alias in {**aliases(client, name), **numbers}:
        if alias in numbers:
            client.set_registered_model_alias(name, alias, str(numbers[alias]))
        else:
            client.delete_registered_model_alias(name, alias)
    for version, tag in ((3, "promotion_gate"), (2, "rolled_back_at")):
        client.set_model_version_tag(name, str(version), tag, "before")


def _said(client: MlflowClient, name: str, version: int, tag: str) -> bool:
    return client.get_model_version(name, str(version)).tags.get(tag, "before") != "before"


@pytest.mark.long
def test_a_promotion_that_was_killed_is_completed(
    ship: Ship, profile: str, name: str, client: MlflowClient, killed: Callable[..., bool]
) -> None:
    """After any write; a rollback instead of it goes back, or says what happened."""
    for _ in range(3):
        ship()
    writes, ways = 0, set[str]()
    while True:
        writes += 1
        _stand(client, name, champion=2, previous=1, leaving=1)
        if not killed(lambda: promote(profile, BITS, GATE), writes):
            break
        halfway = aliases(client, name)
        promote(profile, BITS, GATE)
        assert aliases(client, name) == {"champion": 3, "previous": 2}
        assert _said(client, name, 3, "promotion_gate")
        _stand(client, name, **halfway)
        try:
            back = rollback(profile, BITS)
            assert aliases(client, name) == {"champion": back.version, "previous": back.before}
            ways.add(str(back).partition(" version ")[2])
        except QartsrError as error:
            ways.add(str(error).partition("promotion leaves ")[2])
    assert writes == 8
    assert ways == {
        "1 is champion again; version 2 is previous.",
        "2 is champion again; version 3 is previous.",
        "that was ended halfway; promote again, or promote by its number the version to go back to.",
    }


@pytest.mark.long
def test_a_rollback_that_was_killed_is_completed(
    ship: Ship, profile: str, name: str, client: MlflowClient, killed: Callable[..., bool]
) -> None:
    """After any write, the last of which completes it; a promotion instead of it goes before it."""
    for _ in range(3):
        ship()
    writes = 0
    while True:
        writes += 1
        _stand(client, name, champion=2, previous=1)
        if not killed(lambda: rollback(profile, BITS), writes):
            break
        halfway = aliases(client, name)
        if "leaving" in halfway:
            assert rollback(profile, BITS) == Rollback(name, 1, 2)
        assert aliases(client, name) == {"champion": 1, "previous": 2} and _said(client, name, 2, "rolled_back_at")
        _stand(client, name, **halfway)
        assert promote(profile, BITS, GATE, version=3).before == halfway["champion"]
        assert aliases(client, name) == {"champion": 3, "previous": halfway["champion"]}
    assert writes == 7


def test_nothing_published(servers: dict[str, str], profile: str, name: str) -> None:
    with pytest.raises(QartsrError, match=f"{name}: has no version in the registry; run the publish stage first"):
        promote(profile, BITS, GATE)


def test_no_limit_for_the_bits(ship: Ship, profile: str) -> None:
    ship()
    for rule in PromoteConfig.model_fields:
        with pytest.raises(QartsrError, match=f"promote.{rule}: has no limit for w4a4; add w4a4 to it"):
            promote(profile, BITS, GATE.model_copy(update={rule: {"w2a2": 1.0}}))


def test_a_version_registered_by_hand(profile: str, name: str, client: MlflowClient) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://qartsr/anything", tags={"fp_psnr": "much"})
    with pytest.raises(QartsrError, match="version 1: tag 'fp_psnr' is not a number"):
        promote(profile, BITS, GATE)
    client.create_model_version(name, "s3://qartsr/anything", tags={"fp_psnr": "30", "psnr": "30"})
    with pytest.raises(QartsrError, match="version 2: has no tag 'fp_psnr_rgb'; register it with the publish stage"):
        promote(profile, BITS, GATE)
    client.create_model_version(name, "s3://qartsr/anything")
    with pytest.raises(QartsrError, match="version 3: has no tag 'fp_psnr'; register it with the publish stage"):
        promote(profile, BITS, GATE)


def test_of_equal_bytes_the_version_is_taken_that_stays(
    ship: Ship, profile: str, name: str, client: MlflowClient
) -> None:
    """Somebody publishes the same bytes and is about to delete the later version."""
    ship()
    first = client.get_model_version(name, "1")
    client.create_model_version(name, first.source, tags=first.tags)
    assert promote(profile, BITS, GATE).version == 1


def test_a_champion_that_cannot_be_set_costs_no_previous(
    ship: Ship, profile: str, name: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        ship()
    promote(profile, BITS, GATE, version=1)
    set_alias = Registry.set_alias

    def refuse(registry: Registry, version: Version, alias: str) -> None:
        if alias == "champion":
            raise QartsrError("is gone", str(version), "look")
        set_alias(registry, version, alias)

    for before in ({"champion": 1}, {"champion": 2, "previous": 1}):
        with monkeypatch.context() as patch, pytest.raises(QartsrError, match="is gone"):
            patch.setattr(Registry, "set_alias", refuse)
            promote(profile, BITS, GATE, version=3)
        assert aliases(client, name) == before
        promote(profile, BITS, GATE, version=2)


def test_somebody_who_promotes_at_the_same_time_is_noticed(
    ship: Ship, profile: str, name: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship()
    ship()
    set_alias = Registry.set_alias

    def and_another(registry: Registry, version: Version, alias: str) -> None:
        set_alias(registry, version, alias)
        client.set_registered_model_alias(name, alias, "2")

    monkeypatch.setattr(Registry, "set_alias", and_another)
    with pytest.raises(QartsrError, match="somebody else made it version 2"):
        promote(profile, BITS, GATE, version=1)


def test_flicker_has_a_limit_where_one_is_set() -> None:
    tags = {"psnr": "30", "psnr_rgb": "29", "psnr_rgb_to_fp": "40", "ewarp_tvl1": "1.5"}
    full = {"fp_psnr": "30", "fp_psnr_rgb": "29", "fp_ewarp_tvl1": "1.0"}
    version = Version("qartsr-video-w4a4", 1, "", "READY", tags | full)
    limited = GATE.model_copy(update={"max_flicker": {BITS: 1.25}})
    assert len(_checks(version, GATE, BITS)) == 3
    *others, flicker = _checks(version, limited, BITS)
    assert all(check.passed for check in others) and not flicker.passed
    assert str(flicker) == "warping error is 1.50 times FP's, allowed are 1.25 times"
    still = replace(version, tags=tags | full | {"fp_ewarp_tvl1": "0"})
    assert not _checks(still, limited, BITS)[-1].passed


@pytest.mark.parametrize(("tag", "value"), [("sha256", ""), ("psnr", "inf"), ("fp_psnr", "-inf"), ("psnr", "nan")])
def test_tags_that_would_pass_any_gate(
    tag: str, value: str, ship: Ship, profile: str, name: str, client: MlflowClient
) -> None:
    ship()
    client.set_model_version_tag(name, "1", tag, value)
    with pytest.raises(QartsrError, match=r"is not promoted|is not a SHA-256"):
        promote(profile, BITS, GATE)
    assert aliases(client, name) == {}
