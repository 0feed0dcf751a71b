"""Saving and resuming: bit for bit, after any kill, and nothing broken or hostile taken in."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import jsonpickle
import pytest
from conftest import ROOT as PROJECT
from conftest import EMBEDDED_TABLE, assert_refused, assert_refused_here, run, run_here
from damage import Killed, limit_operations
from kill import kill_rounds, outcome_of, seed_in, start

import checkpoint
from arch_generator import arch_generator
from checkpoint import Checkpoint
from MCTS import MCTS, main
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import EMBEDDED, Table, load
from net_training import NetTrainer
from options import MetaDNNOptions, SearchOptions
from search import Search


@pytest.fixture(scope="module")
def new():
    """Makes new searches, equal ones unless told otherwise."""
    whole = load(EMBEDDED)
    small = Table({name: values[: cells.cell_count(5)] for name, values in whole.columns.items()}, "", False)

    def make(
        max_nodes=5, metric="test", lookup="exact", seed=3, max_edges=9, table=small, target=None, **options
    ) -> Search:
        trainer = NetTrainer(table, arch_generator(max_nodes, max_edges), metric, lookup)
        return Search(trainer, MCTS, seed, SearchOptions(**options), target_accuracy=target)

    return make


@pytest.fixture(scope="module")
def saved(new):
    """What a small search saves."""
    search = new(4)
    search.run(samples=20)
    return search.to_save()


# --- bit for bit ------------------------------------------------------------------------------


TUNED = {"cp": 0.05, "backup": "path", "close_exhausted": True, "guide": 3}


CLOSING = {"cp": 0.05, "close_exhausted": True}


@pytest.mark.parametrize("options", [{}, TUNED, CLOSING], ids=["original", "tuned", "closing"])
@pytest.mark.parametrize("lookup", ["exact", "isomorphic"])
def test_a_search_restored_many_times_goes_as_an_uninterrupted_one(new, lookup, options, tmp_path):
    def make():
        return new(lookup=lookup, target=2.0, **options)  # out of reach

    whole, parts = make(), make()
    whole.run(samples=200)
    for samples in [1, 2, 3, *range(10, 200, 30), 200]:
        parts.run(samples=samples)
        again = make()
        with Checkpoint(tmp_path) as saves:
            saves.save(parts.to_save)
            assert saves.problem == ""
            again.restore(*saves.load())
        assert again.to_save() == parts.to_save()
        parts = again
    assert parts.to_save() == whole.to_save()
    assert parts.history.best_trace == whole.history.best_trace and parts.history.best == whole.history.best
    for state, node in whole.method.tree.items():
        other = parts.method.tree[state]
        assert (node.fresh, node.dead, node.closed) == (other.fresh, other.dead, other.closed)


def test_closed_nodes_that_are_not_exhausted_are_refused(new):
    search = new(4, lookup="isomorphic", target=2.0, **TUNED)
    search.run(patience=10)
    main, files = search.to_save()
    new(4, lookup="isomorphic", **TUNED).restore(main, files)
    nodes = json.loads(files["nodes"])
    for place, closed in enumerate(nodes["closed"]):
        state, node = list(search.method.tree.items())[place]
        exhausted = node.fresh == [] and all(child.closed for child in node.children)
        if closed and not state.finished or not closed and exhausted:
            continue  # closed is found out when a node is selected
        flags = [*nodes["closed"]]
        flags[place] = not closed
        with pytest.raises(InputError, match="damaged"):
            broken = json.dumps({**nodes, "closed": flags}).encode()
            new(4, lookup="isomorphic", **TUNED).restore(main, {**files, "nodes": broken})


def test_a_guide_that_cannot_be_so_is_refused(new):
    search = new(lookup="isomorphic", target=2.0, **TUNED)
    search.run(samples=200)
    main, files = search.to_save()
    good = json.loads(files["guide"])
    assert good["fitted_to"] >= 100 and len(good["shown"]) > 50
    new(lookup="isomorphic", **TUNED).restore(main, files)
    first, absent = good["shown"][0], cells.cell_count(5) - 1
    for broken in (
        *({**good, "fitted_to": n} for n in (0, 99, 201, -1, 150.0, True, None)),
        *({**good, "shown": [*good["shown"], extra]} for extra in (first, -1, absent + 1, str(first), None)),
        *({**good, "shown": shown} for shown in (None, {}, "1")),
        {"fitted_to": 50, "shown": []}, {"shown": good["shown"]}, {**good, "more": 1}, [], None,
    ):  # fmt: skip
        with pytest.raises(InputError, match="damaged"):
            new(lookup="isomorphic", **TUNED).restore(main, {**files, "guide": json.dumps(broken).encode()})
    with pytest.raises(InputError, match="damaged"):
        new(lookup="isomorphic", **TUNED).restore(main, {name: files[name] for name in ("nodes", "dangling_nodes")})


def test_the_meta_dnn_comes_back_with_its_weights_and_its_optimizer(small_table):
    from MCTS_metaDNN import MCTS_metaDNN

    def make(**options):
        options = {"fit_every": 12, "epochs": 2, **options}
        trainer = NetTrainer(small_table, arch_generator(4))
        return Search(trainer, MCTS_metaDNN, 3, MetaDNNOptions(**options))

    def content(search):
        main, files = search.to_save()
        return {**main, "fits": [fit[:2] for fit in main["fits"]]}, files

    whole, parts = make(), make()
    whole.run(samples=40)
    for samples in (5, 13, 30, 40):
        parts.run(samples=samples)
        again = make()
        again.restore(*parts.to_save())
        parts = again
    assert len(whole.method.predictor.fits) == 3
    assert content(parts) == content(whole)
    main, files = parts.to_save()
    with pytest.raises(InputError, match="its epochs is 2, not 3"):
        make(epochs=3).restore(main, files)
    weights = files["meta_dnn.npz"]
    flipped = weights[:-100] + bytes([weights[-100] ^ 255]) + weights[-99:]
    for broken in (b"", b"PK", weights[:1000], weights[:-9], flipped, b"\x80\x04cos\nsystem\n(S'false'\ntR."):
        with pytest.raises(InputError, match="damaged"):
            make().restore(main, {**files, "meta_dnn.npz": broken})


def test_nodes_are_jsonpickle_text(saved):
    _, files = saved
    for name in ("nodes", "dangling_nodes"):
        assert jsonpickle.decode(files[name].decode(), keys=True) == json.loads(files[name])


# --- kills ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(
    "kills, options",
    [(8, "--max-nodes 5"), (3, "--preset tuned --lookup isomorphic --max-nodes 7 --samples 100")],
)
def test_kills_at_random_moments(kills, options):
    options = [*options.split(), "--seed", "1", "--save-every", "0.02"]
    finished, resumable = kill_rounds(kills, "MCTS.py", options, seed=0)
    assert finished and resumable


SMALL = ((16, "relu", "RandomUniform"), (1, "sigmoid", "GlorotUniform"))  # layers of a Meta-DNN, quick to save

SMALL_META_DNN = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
import meta_dnn
meta_dnn.LAYERS = {SMALL}
import MCTS_metaDNN
MCTS_metaDNN.command.run(MCTS_metaDNN.main)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_killed_search_with_the_meta_dnn_goes_on(tmp_path):
    """Killed once it has saved a network that is fitted."""
    script, cut, whole = (tmp_path / name for name in ("small.py", "cut", "whole"))
    script.write_text(SMALL_META_DNN)
    options = "--seed 3 --max-nodes 5 --samples 130 --rollouts 4 --fit-every 40 --epochs 3 --save-every 0.1".split()
    with start(str(script), cut, options, resume=False) as process:
        while not (cut / "search").exists() or not json.loads((cut / "search").read_text())["fits"]:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and seed_in(cut) == 3
    for folder, resume in ((cut, True), (whole, False)):
        with start(str(script), folder, options, resume) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert outcome_of(cut) == outcome_of(whole)


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [Killed(), DISK_FULL], ids=["kill", "disk full"])
def test_a_save_that_fails_anywhere_leaves_the_old_or_the_new(tmp_path, monkeypatch, error):
    """Then the same once more while that is tidied up, and a save after it works."""
    old, new, last = [({"x": x}, {"nodes": x * 3, "weights.npz": x * 5}) for x in ("old", "new", "last")]
    old, new, last = [(main, {k: v.encode() for k, v in files.items()}) for main, files in (old, new, last)]
    seen = set()
    for first in range(8):
        for second in range(5):
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            with Checkpoint(folder) as saves:
                saves.save(lambda: old)
                for left in (first, second):
                    with monkeypatch.context() as patch:
                        limit_operations(patch, left, error)
                        try:
                            saves.save(lambda: new)
                        except Killed:
                            pass
                    got = Checkpoint.load(saves)
                    assert got in (old, new)
                seen.add(got[0]["x"])
                saves.save(lambda: last)
                assert saves.problem == "" and saves.load() == last
            assert not list(folder.glob("*.new"))
    assert seen == {"old", "new"}


def test_a_first_save_that_is_killed_is_none(tmp_path, monkeypatch):
    for left in range(3):
        with Checkpoint(tmp_path) as saves:
            with monkeypatch.context() as patch:
                limit_operations(patch, left, Killed())
                with pytest.raises(Killed):
                    saves.save(lambda: ({}, {"nodes": b"1", "dangling_nodes": b"2"}))
            assert saves.load() is None


def test_a_full_disk_is_told_and_the_search_goes_on(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_through", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    options = "--seed 0 --samples 300 --max-nodes 5 --save-every 0.02 --quiet --out".split()
    assert main([*options, str(tmp_path), *EMBEDDED_TABLE]) == 0
    output = capsys.readouterr()
    assert output.err == "warning: the search could not be saved: No space left on device\n"
    assert "the last save FAILED: No space left on device" in output.out
    assert json.loads((tmp_path / "summary.json").read_text())["unique_samples"] == 300


@pytest.mark.skipif(os.name == "nt", reason="limits of Unix")
def test_results_that_cannot_be_written_at_the_end(tmp_path):
    """The outcome is told, one line says what is wrong, and the search can be resumed from its last save."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    options = ["--max-nodes", "5", "--seed", "1", "--samples"]
    run_here(main, *options, 300, "--out", whole)
    run_here(main, *options, 200, "--out", cut)
    before = {path.name: path.read_bytes() for path in cut.iterdir()}
    command = [sys.executable, "MCTS.py", *EMBEDDED_TABLE, *options, "300", "--out", str(cut), "--resume", "--quiet"]
    limited = f"ulimit -f 0; exec {shlex.join(command)} 2>&1 | cat"  # no file may have a single block
    lines = subprocess.run(["bash", "-o", "pipefail", "-c", limited], cwd=PROJECT, capture_output=True, text=True)
    output = lines.stdout.splitlines()
    assert lines.returncode == 2 and lines.stderr == ""
    assert output[0] == "warning: the search could not be saved: File too large"
    assert output[1].startswith("samples: ") and output[2].startswith("best 0.9")
    advice = "make room there, or choose another folder"
    assert output[-1] == f"error: cannot write {cut / 'summary.json'}: File too large; {advice}"
    assert {path.name: path.read_bytes() for path in cut.iterdir()} == before
    assert run_here(main, *options, 300, "--out", cut, "--resume").returncode == 0
    assert outcome_of(cut) == outcome_of(whole)


# --- the command ------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(tmp_path, number):
    options = ["--seed", 1, "--samples", 2_500]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    command = [sys.executable, "MCTS.py", *EMBEDDED_TABLE, *map(str, options), "--out", str(cut)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert any("seed 1" in line for line in process.stdout)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert "saved 1 time in" in process.stdout.read()
    assert json.loads((cut / "search").read_text())["outcome"] == "interrupted"
    assert_refused(run("MCTS.py", "--out", cut), "unfinished search", "--resume", "another --out")
    assert_refused(run("MCTS.py", "--out", cut, "--resume", "--seed", 2), "its seed is 1, not 2")
    resumed = run("MCTS.py", "--out", cut, "--samples", 2_500, "--resume")
    assert resumed.returncode == 0 and "resumed  at" in resumed.stdout, resumed.stderr
    run_here(main, *options, "--out", whole)
    assert outcome_of(cut) == outcome_of(whole)
    assert run_here(main, "--out", cut, "--samples", 2_500, "--resume").returncode == 0  # it has ended already
    assert outcome_of(cut) == outcome_of(whole)
    assert run_here(main, "--out", cut, "--samples", 10, "--quiet").returncode == 0  # a finished one may go


def test_one_command_line_begins_and_resumes(tmp_path):
    """As a scheduler has it that restarts a killed job."""
    command = "--out", tmp_path / "new", "--resume", "--seed", 3, "--save-every", 0, "--samples"
    begun, again, further = (run_here(main, *command, samples) for samples in (50, 50, 100))
    assert begun.returncode == 0 and "no search is saved in" in begun.stdout and "50 unique samples" in begun.stdout
    assert again.returncode == 0 and "resumed  at 50 unique samples" in again.stdout
    assert further.returncode == 0 and "100 unique samples" in further.stdout
    whole = run_here(main, "--out", tmp_path / "whole", "--seed", 3, "--samples", 100)
    assert whole.returncode == 0
    assert outcome_of(tmp_path / "new")["search"]["samples"] == outcome_of(tmp_path / "whole")["search"]["samples"]


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize("broken_link", [False, True])
def test_a_tree_without_its_main_file_is_not_taken_for_nothing(tmp_path, saved, resume, broken_link, capsys):
    """That file may come back; a search that began would write over the rest."""
    with Checkpoint(tmp_path) as saves:
        saves.save(lambda: saved)
    (tmp_path / "search").unlink()
    if broken_link:
        (tmp_path / "search").symlink_to("nowhere")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*nodes")}
    assert_refused_here(capsys, main, ["--out", tmp_path, *resume], "damaged", "'search' in", "is missing")
    assert len(before) == 2 and before == {path.name: path.read_bytes() for path in tmp_path.glob("*nodes")}


def test_the_time_between_saves_is_a_number(tmp_path):
    assert_refused(run("MCTS.py", "--out", tmp_path, "--save-every", "nan"), "--save-every")


@pytest.mark.skipif(checkpoint.fcntl is None, reason="no locks here")
def test_two_searches_on_one_folder(tmp_path):
    with Checkpoint(tmp_path) as saves:
        saves.save(lambda: ({"outcome": None}, {}))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert_refused(run("MCTS.py", "--out", tmp_path, "--samples", 1), "another search", str(tmp_path))
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before == {name: content for name, content in after.items() if name != "result.txt"}


@pytest.mark.parametrize(
    "other, words",
    [
        ({"max_nodes": 5}, "its max_nodes is 4, not 5"),
        ({"max_edges": 8}, "its max_edges is 9, not 8"),
        ({"metric": "valid"}, "its metric is test, not valid"),
        ({"lookup": "isomorphic"}, "its lookup is exact, not isomorphic"),
        ({"seed": 4}, "its seed is 3, not 4"),
        ({"cp": 1.5}, "its cp is 2.0, not 1.5"),
        ({"backup": "path"}, "its backup is first-parent, not path"),
        ({"close_exhausted": True}, "its close_exhausted is False, not True"),
        ({"guide": 5}, "its guide is 0, not 5"),
    ],
)
def test_another_search_is_not_resumed(new, saved, other, words):
    with pytest.raises(InputError, match=words):
        new(**{"max_nodes": 4, **other}).restore(*saved)


def test_another_table_or_method_is_not_resumed(new, saved):
    values = load(EMBEDDED).columns["test"][: cells.cell_count(5)].copy()
    values[0] -= 1e-9
    with pytest.raises(InputError, match="its table is another one"):
        new(4, table=Table({"test": values}, "", False)).restore(*saved)
    search = new(4)
    search.method.name = "mcts-metadnn"
    with pytest.raises(InputError, match="its method is mcts, not mcts-metadnn"):
        search.restore(*saved)


COSTS = [lambda elapsed: 1.0, lambda elapsed: 0.01 * elapsed, lambda elapsed: 0.1 * elapsed**0.5]


@pytest.mark.parametrize("cost", COSTS)
def test_saving_takes_its_share(tmp_path, monkeypatch, cost):
    """Over an hour, for saves of one cost or of more and more: what the last one costs is kept in hand."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def slow():
        now[0] += cost(now[0])
        return {}, {}

    with Checkpoint(tmp_path) as saves:
        while now[0] < 3_600:
            now[0] += 0.5
            if saves.due:
                saves.save(slow)
            if now[0] > 60:
                assert saves.seconds + cost(now[0]) <= 0.05 * (now[0] + cost(now[0]))
    assert saves.seconds > 0.02 * 3_600


# --- broken and hostile -----------------------------------------------------------------------


def damages(content: bytes) -> list[bytes]:
    """Truncated at many lengths, a byte flipped at many places."""
    places = range(0, len(content), max(1, len(content) // 60))
    cut = [content[:i] for i in places]
    return cut + [content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :] for i in places]


@pytest.mark.parametrize("name", ["search", "nodes", "dangling_nodes"])
def test_damaged_files_are_refused_and_left_alone(tmp_path, saved, name):
    with Checkpoint(tmp_path) as saves:
        saves.save(lambda: saved)
        whole = (tmp_path / name).read_bytes()
        for content in damages(whole):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match="damaged"):
                saves.load()
            assert (tmp_path / name).read_bytes() == content
        (tmp_path / name).write_bytes(whole)
        assert saves.load() == saved
        (tmp_path / name).write_bytes(b"[]")
    for option in ([], ["--resume"]):
        assert_refused(run("MCTS.py", "--out", tmp_path, *option), "damaged", str(tmp_path))


HOSTILE = [
    b"", b"null", b"[]", b"{}", b"0", b'"x"', b"[" * 100_000, b'{"operations":' + b"9" * 5_000 + b"}", b"\xff\xfe",
    b'{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch EXECUTED"]}]}',
    b'{"py/repr": "os/os.system(\'touch EXECUTED\')"}',
    b"\x80\x04\x95\x00cos\nsystem\n(S'touch EXECUTED'\ntR.",
]  # fmt: skip


@pytest.mark.parametrize("name", ["nodes", "dangling_nodes"])
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_content_with_a_right_seal(tmp_path, monkeypatch, new, saved, name, content):
    monkeypatch.chdir(tmp_path)
    main, files = saved
    with pytest.raises(InputError, match="damaged") as refusal:
        new(4).restore(main, {**files, name: content})
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert not list(tmp_path.iterdir())


NOT_NUMBERS = [None, True, -1, 0.5, 10**400, float("nan"), "1", [], {}]


@pytest.mark.parametrize("column", ["operations", "edges", "finished", "parent", "n", "x_bar", "closed", "children"])
def test_wrong_values_in_nodes(new, saved, column):
    main, files = saved
    nodes = json.loads(files["nodes"])
    for value in [*NOT_NUMBERS, [0], [[0]], 1.5, 2**40]:
        for place in (0, 1, 7, -1):
            if value == nodes[column][place] and type(value) is type(nodes[column][place]):
                continue
            broken = [*nodes[column]]
            broken[place] = value
            harmless = column == "children" and not value or column == "x_bar" and value == 0.5
            if harmless or column == "operations" and value in ([], {}) and not nodes[column][place]:
                continue
            if column == "n" and type(value) is int and 1 <= value <= main["episodes"] + 1:
                continue
            with pytest.raises(InputError, match="damaged"):
                new(4).restore(main, {**files, "nodes": json.dumps({**nodes, column: broken}).encode()})
    for wrong in (None, {}, nodes[column][:-1], nodes[column] * 2):
        with pytest.raises(InputError, match="damaged"):
            new(4).restore(main, {**files, "nodes": json.dumps({**nodes, column: wrong}).encode()})


@pytest.mark.parametrize("name", ["samples", "counter", "episodes", "episode_of_last_sample", "rng", "settings"])
def test_wrong_values_in_search(new, saved, name):
    main, files = saved
    states = [3, [0] * 624, None], [3, [0] * 625, 0.5], [3, [-1] * 625, None]
    wrong = [*NOT_NUMBERS, [-1], [1, 1], [424_000], [True], *states]
    for value in wrong:
        with pytest.raises(InputError, match="damaged"):
            new(4).restore({**main, name: value}, files)
    with pytest.raises(InputError, match="damaged"):
        new(4).restore({key: value for key, value in main.items() if key != name}, files)
