"""The client's half of a secure sum: what it refuses, and that it never reveals both secrets."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from federation.secure_sums.parties import GRID, NAMES, REQUEST, Parties, part, summand
from hanse.federation.interfaces.aggregator import RefusalError
from hanse.federation.secure_sums.bitmap import bitmap
from hanse.federation.secure_sums.client_half import NO_SHARE
from hanse.federation.secure_sums.grid import Grid
from hanse.federation.secure_sums.plan import Plan
from hanse.federation.secure_sums.statements import sign_survivors
from hanse.security import mask_streams
from hanse.security.round_keys import b_seed
from hanse.security.secret_sharing import rebuild


def others(name: str) -> list[str]:
    return [other for other in NAMES if other != name]


@pytest.mark.parametrize(
    "terms",
    [
        {"request": b"\x02" * 32},
        {"job": "another job or base model"},
        {"round": 2},
        {"plan": Plan(5, 3, 4)},
        {"grid": Grid(5, 32, 2.0, 1.0)},
    ],
    ids=lambda terms: next(iter(terms)),
)
def test_silos_that_were_sent_different_things_take_part_in_no_sum(
    terms: dict[str, object],
) -> None:
    parties = Parties()
    parties.parts["c"] = part("c", **terms)
    for name in NAMES:
        with pytest.raises(RefusalError, match=r"not signed by . for the same job, base model"):
            parties.parts[name].share(parties.keys(name))


def test_keys_that_somebody_else_signed_or_nobody_are_refused() -> None:
    parties, changed = Parties(), Parties()
    keys = parties.keys("a")
    keys["b"] = keys["b"].clone()
    keys["b"][40] ^= 1  # a bit of the public keys
    with pytest.raises(RefusalError, match="the keys that came for b are not signed by b"):
        parties.parts["a"].share(keys)
    with pytest.raises(RefusalError, match="the keys that came for c are not signed by c"):
        changed.parts["b"].share({**changed.keys("b"), "c": changed.keys("b")["d"]})
    stranger = {**changed.keys("d"), "mallory": changed.keys("d")["a"]}
    with pytest.raises(RefusalError, match="the keys that came for mallory are not signed"):
        changed.parts["d"].share(stranger)


@pytest.mark.parametrize("place", [1, 3, 6])
def test_a_silo_with_another_index_than_in_the_job_is_refused(place: int) -> None:
    """A list of survivors would name other silos in the next try, and tell their difference."""
    parties = Parties()
    parties.parts["b"].index = place
    with pytest.raises(RefusalError, match=f"keys of b with the index {place}, which it does not"):
        parties.parts["a"].share(parties.keys("a"))


def test_a_silo_does_not_take_the_place_of_another_on_a_ring() -> None:
    """A client knows its neighbours alone, and lists of survivors have indices."""
    ring = Plan(clients=5, threshold=2, neighbours=2)
    parties = Parties({name: part(name, plan=ring) for name in NAMES})
    own, keys = parties.parts["a"], parties.keys("a")
    parties.parts["e"].index = parties.parts["b"].index
    keys = {"c": keys["c"], "e": parties.keys("a")["e"]}
    with pytest.raises(RefusalError, match="keys of e with the index 2, which it does not have"):
        own.share(keys)


def test_each_step_is_answered_once_and_in_order() -> None:
    parties = Parties()
    own = parties.parts["a"]
    with pytest.raises(RefusalError, match="asked for survivors where shares comes next"):
        own.sign(b"\x1f")
    parties.shared()
    with pytest.raises(RefusalError, match="asked for shares where train comes next"):
        own.share(parties.keys("a"))
    parties.masked()
    with pytest.raises(RefusalError, match="asked for train where survivors comes next"):
        own.mask(summand(0.75))  # two masked summands would tell their difference
    signatures = parties.signed()
    with pytest.raises(RefusalError, match="asked for survivors where unmask comes next"):
        own.sign(b"\x0f")
    others_signed = {name: signatures[name] for name in others("a")}
    own.reveal(others_signed)
    with pytest.raises(RefusalError, match="asked for unmask where a new round comes next"):
        own.reveal(others_signed)


def test_a_share_of_one_secret_is_revealed_and_never_both() -> None:
    parties = Parties().shared()
    parties.masked()
    survivors = [name for name in NAMES if name != "c"]
    signatures = parties.signed(survivors)
    revealed = {
        name: parties.parts[name].reveal({n: signatures[n] for n in survivors if n != name})
        for name in survivors
    }
    index = {name: place for place, name in enumerate(NAMES, start=1)}
    for owner in NAMES:
        shares = {index[n]: own[owner] for n, own in revealed.items()}
        keys = parties.parts[owner].keys
        assert rebuild(shares, 4) == (keys.private_mask_key if owner == "c" else keys.b)
        for name, share in ((n, own[owner]) for n, own in revealed.items() if n != owner):
            box = parties.boxes[owner][name]
            opened = parties.parts[name].keys.open(
                box, keys.public, f"shares\0{1}\0{owner}\0{name}".encode()
            )
            assert share in (opened[:33], opened[33:])


def test_lists_of_survivors_must_be_the_same_at_enough_silos() -> None:
    parties = Parties().shared()
    parties.masked()
    # The server tells a and b that c has dropped out, and the others that it has not.
    without_c = bitmap([1, 2, 4, 5], 5)
    signatures = {
        name: torch.tensor(list(parties.parts[name].sign(bits)), dtype=torch.uint8)
        for name, bits in (("a", without_c), ("b", without_c), ("d", b"\x1f"), ("e", b"\x1f"))
    }
    with pytest.raises(RefusalError, match="a reveals nothing: d did not sign the same list"):
        parties.parts["a"].reveal({name: signatures[name] for name in ("b", "d", "e")})
    with pytest.raises(RefusalError, match=r"b sees 2 silos sign the list .* at least 4"):
        parties.parts["b"].reveal({"a": signatures["a"]})


def test_fewer_silos_than_the_threshold_or_the_own_least_cohort_are_refused() -> None:
    parties = Parties()
    parties.parts["a"] = part("a", least=5)
    few = {name: parties.keys("b")[name] for name in ("a", "c")}
    with pytest.raises(RefusalError, match=r"b sees 3 silos advertise keys, .* at least 4"):
        parties.parts["b"].share(few)
    parties = Parties()
    parties.parts["a"] = part("a", least=5)
    parties.shared()
    with pytest.raises(RefusalError, match=r"at least 5 \(policy.min_cohort of its silo.yaml\)"):
        parties.parts["a"].admit(parties.received("a", ("b", "c", "d")), REQUEST)
    parties.parts["a"].admit(parties.received("a"), REQUEST)
    parties.parts["a"].mask(summand())
    with pytest.raises(RefusalError, match="a sees 4 silos send their masked updates"):
        parties.parts["a"].sign(bitmap([1, 2, 3, 4], 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.bool])
def test_numbers_in_place_of_bytes_are_refused(dtype: torch.dtype) -> None:
    parties, numbers = Parties(), {"b": torch.zeros(164, dtype=dtype)}
    own = parties.parts["a"]
    with pytest.raises(RefusalError, match=r"sent numbers of .* where bytes are due"):
        own.share(numbers)
    parties = Parties().shared()
    own = parties.parts["a"]
    with pytest.raises(RefusalError, match=r"sent numbers of .* where bytes are due"):
        own.admit({**parties.received("a"), **numbers}, REQUEST)
    parties.masked()
    signatures = parties.signed()
    with pytest.raises(RefusalError, match=r"sent numbers of .* where bytes are due"):
        own.reveal({**{name: signatures[name] for name in others("a")}, **numbers})


def test_a_name_that_no_encoding_can_write_is_refused() -> None:
    parties = Parties()
    with pytest.raises(RefusalError, match="are not signed by"):
        parties.parts["a"].share({"\ud800": parties.keys("a")["b"]})


def test_another_model_than_the_signed_one_is_not_trained() -> None:
    parties = Parties().shared()
    with pytest.raises(RefusalError, match="another model to train than it has signed for"):
        parties.parts["a"].admit(parties.received("a"), b"\x02" * 32)


def test_a_list_without_the_silo_itself_is_refused() -> None:
    parties = Parties().shared()
    parties.masked()
    with pytest.raises(RefusalError, match="a is not among the survivors"):
        parties.parts["a"].sign(bitmap([2, 3, 4, 5], 5))


def test_a_damaged_box_costs_its_share_alone() -> None:
    parties = Parties().shared()
    damaged = bytearray(parties.boxes["b"]["a"])
    damaged[5] ^= 1
    parties.boxes["b"]["a"] = bytes(damaged)
    parties.masked()
    signatures = parties.signed()
    revealed = parties.parts["a"].reveal({name: signatures[name] for name in others("a")})
    assert [name for name, share in revealed.items() if share == NO_SHARE] == ["b"]


def test_masked_summands_add_up_once_own_masks_are_removed() -> None:
    parties = Parties().shared()
    masked = parties.masked()
    total = sum((m["x"].long() for m in masked.values()), torch.zeros(3).long())
    assert not torch.equal(total, torch.zeros(3).long())
    own = GRID.zeros(summand())
    for client in parties.parts.values():
        flat = [array.reshape(-1) for array in own.values()]
        mask_streams.add(flat, b_seed(client.keys.b, b"own mask"), 1)
    difference = (total - torch.from_numpy(own["x"].astype("int64"))) % 2**32
    assert difference.tolist() == [5 * round(0.25 / GRID.step)] * 3


def test_a_part_holds_secrets_and_is_not_copied() -> None:
    own = part("a")
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            copied(own)
    assert own.keys.b.hex() not in repr(own) and str(own.keys.b) not in repr(own)


def test_more_holders_of_shares_than_planned_are_refused() -> None:
    """Two groups of them could each open another one of the silo's two secrets."""
    few = Plan(clients=3, threshold=3, neighbours=2)
    parties = Parties({name: part(name, plan=few) for name in NAMES})
    with pytest.raises(RefusalError, match="keys of 4 other silos, where 2 of 3 are due"):
        parties.parts["a"].share(parties.keys("a"))


def test_survivors_that_a_silo_does_not_know_are_refused() -> None:
    for bits in (b"\x3f", b"\x1f\x00"):
        parties = Parties().shared()
        parties.masked()
        with pytest.raises(RefusalError, match="survivors that it does not know"):
            parties.parts["a"].sign(bits)
    parties = Parties().shared()
    for name, own in parties.parts.items():
        own.admit(parties.received(name, ("a", "b", "c", "d")), REQUEST)
        own.mask(summand())
    with pytest.raises(RefusalError, match="survivors that it does not know"):
        parties.parts["a"].sign(b"\x1f")  # the server names e, whose shares it never passed on


def test_signatures_of_silos_that_dropped_out_do_not_count() -> None:
    parties = Parties().shared()
    parties.masked()
    survivors = ("a", "b", "c", "d")
    signatures = parties.signed(survivors)
    keys = parties.parts["e"]
    keys.survivors = b"\x0f"
    forged = torch.tensor(
        list(sign_survivors(keys.identity, keys.terms, keys.keys.public, b"\x0f")),
        dtype=torch.uint8,
    )
    with pytest.raises(RefusalError, match="a reveals nothing: e did not sign"):
        parties.parts["a"].reveal({"b": signatures["b"], "c": signatures["c"], "e": forged})


def test_fewer_silos_than_the_job_combines_are_refused() -> None:
    parties = Parties()
    own = parties.parts["a"] = part("a", quorum=5)
    parties.shared()
    parties.masked()
    with pytest.raises(RefusalError, match="a was told that 4 silos sent their masked updates"):
        own.sign(bitmap([1, 2, 3, 4], 5))


def test_the_sum_that_is_opened_depends_on_all_that_may_differ() -> None:
    def opened(survivors: tuple[str, ...], **terms: object) -> str:
        parties = Parties({name: part(name, **terms) for name in NAMES}).shared()
        request = bytes(terms.get("request", REQUEST))  # type: ignore[call-overload]
        for name, own in parties.parts.items():
            own.admit(parties.received(name), request)
            own.mask(summand())
        parties.signed(survivors)
        return parties.parts["a"].opened

    whole = opened(NAMES)
    assert whole == opened(NAMES)  # with other keys
    others_ = {
        opened(NAMES[:4]),
        opened(NAMES, request=b"\x07" * 32),
        opened(NAMES, job="the same with another learning rate"),
        opened(NAMES, grid=replace(GRID, weight_bound=2.0)),
    }
    assert len(others_ | {whole}) == 5
