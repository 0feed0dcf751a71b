"""Whatever the files of a saved search hold: refused in one line, or a search that goes on."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import meta_dnn
from arch_generator import arch_generator
from checkpoint import Checkpoint
from MCTS import MCTS, PRESETS
from MCTS_metaDNN import MCTS_metaDNN
from nasbench_dataset import InputError
from net_training import NetTrainer

QUICK = settings(
    derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBERS = st.one_of(
    st.integers(-2, 100), st.integers(), st.floats(), st.sampled_from([2**21, 2**53, 10**400, -0.0, 1e308, True, False, None])
)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def saves(small_table, monkeypatch):
    """For each kind of search: how to make one, and what a small one saves."""
    monkeypatch.setattr(meta_dnn, "LAYERS", ((8, "relu", "RandomUniform"), (1, "sigmoid", "GlorotUniform")))

    def original():
        return MCTS(NetTrainer(small_table, arch_generator(4)), 3)

    def tuned():
        options = {**PRESETS["tuned"], "fresh_after": 5}
        return MCTS(NetTrainer(small_table, arch_generator(4), lookup="isomorphic"), 3, **options)

    def assisted():
        return MCTS_metaDNN(NetTrainer(small_table, arch_generator(4)), 3, fit_every=8, epochs=1)

    def saved(make):
        search = make()
        search.search(samples=20)
        return search.saved()

    return [(make, saved(make)) for make in (original, tuned, assisted)]


def changed(data: st.DataObject, value: object) -> object:
    """The same JSON value with another one at some place."""
    if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 5)):
        places = sorted(value) if isinstance(value, dict) else range(len(value))
        place = data.draw(st.sampled_from(places))
        copy = value.copy()
        copy[place] = changed(data, value[place])
        return copy
    return data.draw(VALUES)


def refused_or_goes_on(search: MCTS, main: dict, files: dict[str, bytes]) -> None:
    """Nothing but an InputError of one short line may come of it, now or later."""
    try:
        search.restore(main, files)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 400
        return
    search.search(samples=search.trainer.unique_samples + 2, patience=300)
    again, _ = search.saved()
    json.dumps(again, allow_nan=False)
    json.dumps(search.details(), allow_nan=False)


@QUICK
@given(data=st.data())
def test_other_values_behind_a_right_seal(saves, data):
    make, (main, files) = data.draw(st.sampled_from(saves))
    name = data.draw(st.sampled_from(["search", *(name for name in files if not name.endswith(".npz"))]))
    if name == "search":
        content = changed(data, json.loads(json.dumps(main)))
        if isinstance(content, dict):  # what else it could be is refused before, by the seal
            refused_or_goes_on(make(), content, files)
    else:
        content = changed(data, json.loads(files[name]))
        refused_or_goes_on(make(), main, {**files, name: json.dumps(content).encode()})


@QUICK
@given(data=st.data())
def test_other_bytes_behind_a_right_seal(saves, data):
    make, (main, files) = data.draw(st.sampled_from(saves))
    name = data.draw(st.sampled_from(sorted(files)))
    refused_or_goes_on(make(), main, {**files, name: damaged(data, files[name])})


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Cut, with other bytes at some place, or with more bytes there."""
    place = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.binary(min_size=1, max_size=6))
    kind = data.draw(st.sampled_from(["cut", "replaced", "inserted"]))
    if kind == "cut":
        return content[:place]
    return content[:place] + other + content[place + (len(other) if kind == "replaced" else 0) :]


@QUICK
@given(data=st.data())
def test_other_bytes_on_disk(saves, tmp_path, data):
    _, saved = data.draw(st.sampled_from(saves))
    with Checkpoint(tmp_path) as folder:
        folder.save(lambda: saved)
        name = data.draw(st.sampled_from(["search", *saved[1]]))
        whole = (tmp_path / name).read_bytes()
        content = damaged(data, whole)
        (tmp_path / name).write_bytes(content)
        if content == whole:
            return
        with pytest.raises(InputError, match="damaged") as refusal:
            folder.load()
        assert str(refusal.value).isprintable() and (tmp_path / name).read_bytes() == content
