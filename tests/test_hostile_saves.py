"""Whatever is done to the files of a saved search: refused in one line, or as good as what a search saves."""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import EMBEDDED_TABLE
from damage import altered, damaged
from hypothesis import given, settings
from hypothesis import strategies as st

import MCTS_metaDNN
import meta_dnn
import search_command
from arch_generator import arch_generator
from checkpoint import Checkpoint
from nasbench_dataset import InputError
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer
from options import MetaDNNOptions, preset
from search import Search

FILES = "search", "nodes", "dangling_nodes", "predictions", "meta_dnn.npz"
FIELDS = "fits", "fit_due", "fitted_samples", "samples", "counter", "episodes", "outcome", "seconds", "settings", "rng"
OPTIONS = search_command.build_parser("", MetaDNNOptions).parse_args([*EMBEDDED_TABLE, "--max-nodes", "4", "--resume"])
quickly = settings(deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def new():
    """Makes new searches that share one small network, compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meta_dnn, "LAYERS", ((3, "relu", "RandomUniform"), (1, "sigmoid", "GlorotUniform")))
        network = meta_dnn.MetaDNN(3)
        patch.setattr(meta_dnn, "MetaDNN", lambda seed: network)
        fresh, table = network.to_save(), load(EMBEDDED)

        def make() -> Search:
            network.count = 0
            network.restore(fresh, [], [], 0)
            tuned = {**preset(MetaDNNOptions, "tuned"), "cp": 2.0, "guide": 0}  # closed nodes, parents last walked from
            options = MetaDNNOptions(**tuned, rollouts=3, fit_every=9, epochs=1)
            return Search(NetTrainer(table, arch_generator(4)), MCTS_metaDNN.MCTS_metaDNN, 3, options)

        yield make


@pytest.fixture(scope="module")
def saved(new):
    """What such a search saves in its midst, with two fits behind it."""
    search = new()
    assert search.run(samples=24) == "samples" and len(search.method.predictor.fits) == 2
    main, files = search.to_save()
    assert json.loads(files["predictions"])["value"] and json.loads(files["dangling_nodes"])["value"]
    return {**main, "outcome": None, "seconds": 1.5}, files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


def resume(folder, new) -> Search:
    """As the command does it: load, restore, go on, save, summarise."""
    with Checkpoint(folder) as saves:
        found = search_command.saved_search(saves, OPTIONS)
        options = argparse.Namespace(**vars(OPTIONS))
        options.out = folder
        search = new()
        saver = search_command.Saver(search, saves, options)
        saver.restore(*found)
        saver.finish(search.run(search.history.unique_samples + 12, patience=300).value)
        assert saves.problem == ""
        new().restore(*saves.load())
    return search


def refused_or_as_good(folder, new, main, files) -> None:
    for path in folder.iterdir():
        path.unlink()
    with Checkpoint(folder) as saves:
        saves.save(lambda: (main, files))
        assert saves.problem == ""
    before = {name: (folder / name).read_bytes() for name in FILES}
    try:
        resume(folder, new)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        assert before == {name: (folder / name).read_bytes() for name in FILES}
    assert not Path("EXECUTED").exists()


def test_what_is_untouched_goes_on(folder, new, saved):
    refused_or_as_good(folder, new, *saved)
    assert len(resume(folder, new).method.predictor.fits) > 2


@settings(quickly, max_examples=100)
@given(data=st.data())
def test_damage_on_the_disk_is_refused_and_left_alone(folder, new, saved, data):
    with Checkpoint(folder) as saves:
        saves.save(lambda: saved)
        path = folder / data.draw(st.sampled_from(FILES))
        whole = path.read_bytes()
        content = damaged(data, whole)
        path.write_bytes(content)
        if content == whole:
            return
        with pytest.raises(InputError, match="damaged"):
            saves.load()
        assert path.read_bytes() == content
        path.unlink()  # else the next save would take it for a file that is still to be tidied up


@settings(quickly, max_examples=40)
@given(data=st.data(), field=st.sampled_from(FIELDS))
def test_wrong_values_in_search_behind_a_right_seal(folder, new, saved, data, field):
    main, files = saved
    refused_or_as_good(folder, new, {**main, field: altered(data, main[field])}, files)


@settings(quickly, max_examples=40)
@given(data=st.data(), name=st.sampled_from(FILES[1:4]))
def test_wrong_values_in_the_tree_behind_a_right_seal(folder, new, saved, data, name):
    main, files = saved
    content = json.dumps(altered(data, json.loads(files[name]))).encode()
    refused_or_as_good(folder, new, main, {**files, name: content})


@pytest.mark.filterwarnings("ignore")  # of numbers that overflow, and of zipfile
@settings(quickly, max_examples=40)
@given(data=st.data())
def test_wrong_weights_behind_a_right_seal(folder, new, saved, data):
    """Damaged bytes, or other arrays: numbers of any size, another shape, another type."""
    main, files = saved
    content = files["meta_dnn.npz"]
    if data.draw(st.booleans()):
        content = damaged(data, content)
    else:
        arrays = dict(np.load(io.BytesIO(content)))
        name = data.draw(st.sampled_from(sorted(arrays)))
        number = data.draw(st.sampled_from([np.nan, np.inf, 3e38, -3e38, 1e20, -1.0, 0.0]))
        with np.errstate(all="ignore"):
            other = np.full_like(arrays[name], number)
        arrays[name] = data.draw(st.sampled_from([other, other, other[..., None], other.astype("f8"), np.array("x")]))
        file = io.BytesIO()
        np.savez(file, **arrays)
        content = file.getvalue()
    refused_or_as_good(folder, new, main, {**files, "meta_dnn.npz": content})


@pytest.mark.parametrize("files", [None, [], ["nodes"], "", "nodes", 0, {"nodes": None}, {"../x": ""}, {"x": []}])
def test_wrong_lists_of_files_behind_a_right_seal(tmp_path, files):
    from checkpoint import _digest, to_json

    main = {"format": "alphax-search", "version": 1, "files": files}
    (tmp_path / "search").write_bytes(to_json({**main, "sha256": _digest(to_json(main))}))
    with Checkpoint(tmp_path) as saves, pytest.raises(InputError, match="damaged"):
        saves.load()
