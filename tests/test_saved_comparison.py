"""``python visualize.py DIR --html`` of a comparison: which trials are read, what is told of them, what is refused."""

import json

import pytest
from conftest import EMBEDDED_TABLE, assert_refused, run
from made_up_comparison import RESULTS, SETTINGS, result_of, write_main, write_trials

import saved_comparison
import visualize
from comparison_page import caption, page_data
from nasbench_dataset import InputError
from saved_comparison import read_comparison


@pytest.fixture
def folder(tmp_path):
    write_trials(tmp_path, RESULTS)
    write_main(tmp_path, ["tuned", "random"])
    return tmp_path


def test_a_comparison_and_its_page(tmp_path):
    """The tables are those that the comparison itself has written."""
    options = "--max-nodes", 4, *EMBEDDED_TABLE, "--trials", 2, "--samples", 60, "--at", "20,50", "--quiet"
    assert run("compare.py", "--methods", "tuned,random", *options, "--out", tmp_path).returncode == 0
    result = run("visualize.py", tmp_path, "--html")
    assert result.returncode == 0 and result.stdout.strip() == str(tmp_path / "comparison.html"), result.stderr
    written = (tmp_path / "comparison.md").read_text()
    _, samples, accuracy = page_data(read_comparison(tmp_path))["tables"]
    for row in (samples["head"], *samples["rows"], accuracy["head"], *accuracy["rows"]):
        assert f"| {' | '.join(row)} |" in written
    assert_refused(run("visualize.py", tmp_path), "add --html")


def test_what_the_page_tells(folder):
    data = page_data(read_comparison(folder))
    tuned, random = data["methods"]
    assert tuned["trials"][0] == {"points": [[1, 0.5], [30, 0.9]], "end": 30}
    assert (tuned["mean"][-1], random["mean"][-1]) == ([40.0, 0.9], [40.0, 0.75])
    assert dict(map(tuple, random["mean"]))[10.0] == pytest.approx(0.55)  # .4 and .7
    overview, samples, _ = data["tables"]
    assert overview["rows"] == [
        ["tuned", "2", "0.9000000", "0.0000000", "25.0"], ["random", "2", "0.7500000", "0.0707107", "40.0"],
    ]  # fmt: skip
    assert samples["rows"][0][:4] == ["tuned", "2", "100%", "25 ± 7"]
    assert json.dumps(data, allow_nan=False)


def test_trials_of_other_comparisons_in_the_folder_are_left_aside(folder):
    others = [result_of("random", 0, [[1, 0.5, 0.5]], max_nodes=5), result_of("random", 2, [[1, 0.5, 0.5]])]
    write_trials(folder, [*others, result_of("evolution", 0, [[1, 0.5, 0.5]])])
    comparison = read_comparison(folder)
    assert {method: len(of) for method, of in comparison.groups.items()} == {"tuned": 2, "random": 2}
    assert comparison.others == 3 and "3 more in the folder" in " ".join(caption(comparison))


def test_a_comparison_that_was_interrupted_shows_what_is_there(folder):
    (folder / "comparison.json").unlink()
    write_trials(folder, [result_of("random", 0, [[1, 0.5, 0.5]], max_nodes=5)])
    comparison = read_comparison(folder)
    assert list(comparison.groups) == ["random", "tuned"] and comparison.others == 1
    assert "not come to its end" in " ".join(caption(comparison))
    assert len(page_data(comparison)["tables"]) == 1


def test_of_two_trials_with_one_name_the_later_counts(folder):
    """As where a preset was changed since."""
    again = result_of("tuned", 0, [[1, 0.5, 0.5], [35, 0.9, 0.9]], "found")
    again["trial"]["options"] = '{"cp": 1.0}'
    write_trials(folder, [*RESULTS, again])
    assert read_comparison(folder).groups["tuned"][0]["samples"] == 35


def test_trials_without_samples_and_unknown_test_accuracies(tmp_path):
    nothing = {**result_of("hyperband", 0, [], metric="valid"), "samples": 40}
    unknown = result_of("hyperband", 1, [[3, 0.5, None]], metric="valid")
    write_trials(tmp_path, [nothing, unknown])
    data = page_data(read_comparison(tmp_path))
    assert {y for _, y in data["methods"][0]["mean"]} == {None}
    assert data["tables"][0]["rows"] == [["hyperband", "2", "-", "-", "40.0"]]
    json.dumps(data, allow_nan=False)


BAD = [
    b"", b"[]", b"null", b"\xff", b"[" * 10**5, b"9" * 5_000, b'{"trial": {}}', b'{"trial": 3}',
    *(json.dumps({**RESULTS[0], **changes}).encode() for changes in (
        {"trace": [[1, 0.5, 1.5]]}, {"trace": [[1, float("nan"), 0.5]]}, {"samples": "\x1b[2J"}, {"outcome": "lost"},
        {"trial": {**RESULTS[0]["trial"], "seed": True}}, {"trial": {**RESULTS[0]["trial"], "method": 3}},
        {"trial": {**RESULTS[0]["trial"], "samples": 10**400}}, {"trial": {**RESULTS[0]["trial"], "more": 1}},
    )),
]  # fmt: skip


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_what_is_no_trial_is_left_out_and_told(folder, capsys, content):
    path = folder / "trials" / "\x1b[2Jbad.json"
    path.write_bytes(content)
    assert visualize.main([str(folder), "--html"]) == 0
    comparison = read_comparison(folder)
    assert sum(map(len, comparison.groups.values())) == 4
    words = " ".join(caption(comparison))
    assert "1 file of trials cannot be used" in words and words.isprintable() and len(words) < 1_000
    for path in (folder / "trials").iterdir():
        path.write_bytes(content)
    with pytest.raises(InputError, match="no trial of a comparison in") as refusal:
        read_comparison(folder)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": None}, {"settings": SETTINGS}, {"settings": {**SETTINGS, "trials": "2"}}, {"best_test": 1.5},
        {"settings": {**SETTINGS, "trials": 2, "patience": None}}, {"best_test": None}, {"methods": [{}]},
        {"methods": [{"method": "random", "at": {"x": 1}}]}, {"methods": [{"method": [], "at": {}}]},
        {"methods": [{"method": "random", "at": {"9" * 5_000: 1}}]}, {"methods": 3},
    ],
)  # fmt: skip
def test_a_damaged_summary_of_a_comparison_is_refused(folder, changes):
    write_main(folder, ["tuned"], **changes)
    with pytest.raises(InputError, match="comparison.json is damaged"):
        read_comparison(folder)


def test_too_much_is_refused(folder, monkeypatch):
    monkeypatch.setattr(saved_comparison, "LARGEST_IN_ALL", 1_000)
    with pytest.raises(InputError, match="MB, which are not read"):
        read_comparison(folder)
    monkeypatch.setattr(saved_comparison, "MOST_TRIALS", 3)
    with pytest.raises(InputError, match="has 4 trials; at most 3"):
        read_comparison(folder)
    with open(folder / "comparison.json", "ab") as file:
        file.truncate(300 << 20)  # takes no room on the disk
    with pytest.raises(InputError, match="cannot read the comparison"):
        read_comparison(folder)


def test_long_traces_and_many_trials_are_drawn_in_part(tmp_path):
    steps = [[i, i / 20_000, i / 20_000] for i in range(1, 10_001)]
    write_trials(tmp_path, [{**result_of("random", seed, steps), "samples": 10_000} for seed in range(2)])
    write_trials(tmp_path, [result_of("tuned", seed, [[1, 0.5, 0.5]]) for seed in range(120)])
    random, tuned = page_data(read_comparison(tmp_path))["methods"]
    assert len(random["trials"][0]["points"]) <= 300 and random["trials"][0]["points"][-1] == [10_000, 0.5]
    assert len(tuned["trials"]) == 100
