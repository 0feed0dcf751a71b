"""The store of trainings in the folder of a search: read without a trace, and only what belongs to that search."""

import os

import pytest
from drawn_runs import finished  # noqa: F401 (a fixture)
from trained_runs import as_trained, made_up

import saved_run
import saved_trainings
from nasbench_dataset import InputError
from saved_trainings import read_trainings
from training_store import TrainingStore


@pytest.fixture
def folder(finished, tmp_path):  # noqa: F811
    as_trained(finished, tmp_path / "run", ["too slow", "\x1b[2J\n" + "x" * 5_000])
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def do_not_wait(monkeypatch):
    monkeypatch.setattr(saved_run, "WAITS", (0.0, 0.0))


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_samples_and_failures_are_found_and_the_folder_stays_as_it_is(folder):
    run, before = saved_run.read_run(folder), content(folder)
    found = read_trainings(run, folder)
    assert content(folder) == before
    assert found.keys() == {*run.samples, *run.failed} and len(run.failed) == 2
    assert found[run.samples[0]].place == 1 and not found[run.samples[0]].failed
    slow, long = (found[index] for index in run.failed)
    assert (slow.outcome, slow.reason, slow.accuracy) == ("out of time", "too slow", None) and slow.failed
    assert long.reason.isprintable() and len(long.reason) == saved_trainings.REASON


def test_what_is_not_in_the_main_file_yet_is_read_too(folder):
    """As after a kill, or while the search runs: the last trainings are in the write-ahead log only."""
    run = saved_run.read_run(folder)
    run.samples.append(200)
    with TrainingStore(folder / "trainings.sqlite") as store:
        store.put(made_up(200, 0.75))
        assert (folder / "trainings.sqlite-wal").stat().st_size > 0
        before = content(folder)
        assert read_trainings(run, folder)[200].accuracy == 0.75
        assert content(folder) == before


def test_trainings_of_another_recipe_data_or_seed_are_not_those_of_the_search(folder):
    run = saved_run.read_run(folder)
    run.fingerprint = "0" * 64
    assert read_trainings(run, folder) == {}


def test_a_store_is_looked_for_in_the_folder_only(folder, tmp_path):
    run = saved_run.read_run(folder)
    os.rename(folder / "trainings.sqlite", tmp_path / "elsewhere.sqlite")
    assert read_trainings(run, folder) == {}
    (folder / "trainings.sqlite").symlink_to(tmp_path / "elsewhere.sqlite")
    assert read_trainings(run, folder) == {}
    os.rename(tmp_path / "elsewhere.sqlite", folder / "other.sqlite")
    assert read_trainings(run, folder) == {}
    run.store = "other.sqlite"
    assert len(read_trainings(run, folder)) == len(run.samples) + 2
    for name in ("..", "", "."):
        run.store = name
        assert read_trainings(run, folder) == {}


def test_a_damaged_or_foreign_store_is_refused_in_one_line_that_names_it(folder):
    run, path = saved_run.read_run(folder), folder / "trainings.sqlite"
    whole = path.read_bytes()
    for bad in (b"", b"no database" * 500, whole[:5_000], whole.replace(b"too slow", b"too fast")):
        path.write_bytes(bad)
        try:
            assert read_trainings(run, folder) == {} and bad == b""
        except InputError as refusal:
            assert str(path) in str(refusal) and "\n" not in str(refusal)
            assert str(refusal).count("/") < 2 * str(path).count("/") + 3
        else:
            assert bad == b""


@pytest.mark.parametrize("name", ["trainings.sqlite", "trainings.sqlite-wal"])
def test_a_huge_store_is_refused_unread(folder, name):
    run = saved_run.read_run(folder)
    with open(folder / name, "ab") as file:
        file.truncate(300 << 20)  # takes no room on the disk
    with pytest.raises(InputError, match=f"{name} has 300 MB; no more than 256 MB"):
        read_trainings(run, folder)


def test_a_store_that_changes_all_the_time_is_told(folder, monkeypatch):
    run, path = saved_run.read_run(folder), folder / "trainings.sqlite"

    def copy_and_touch(source, target, **options):
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))

    monkeypatch.setattr(saved_trainings.shutil, "copyfile", copy_and_touch)
    with pytest.raises(InputError, match="written to all the time"):
        read_trainings(run, folder)
