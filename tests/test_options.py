"""Options of the tree searches: a field, and everything follows."""

import json
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

import compare
from arch_generator import arch_generator
from driver import Driver
from MCTS import MCTS
from nasbench_dataset import InputError, command
from net_training import NetTrainer
from options import (
    LARGEST_CP,
    PRESETS,
    MetaDNNOptions,
    SearchOptions,
    add_options,
    from_arguments,
    from_parts,
    option,
    preset,
    to_dict,
    yes_or_no,
)
from space import Space

every_class = pytest.mark.parametrize("options", [SearchOptions, MetaDNNOptions])


@dataclass(frozen=True)
class Wider(SearchOptions):
    """Options that nothing in the project knows."""

    depth: int = option(7, "how deep it looks", command.whole_number(1), 3, metavar="LEVELS")
    be_greedy: bool = option(False, "whether it is greedy", yes_or_no)


def parser(options) -> command.Parser:
    made = command.Parser(prog="search")
    add_options(made.add_argument_group("how"), options)
    return made


def parsed(options, *arguments: str):
    return from_arguments(options, parser(options).parse_args([*arguments]))


def test_a_new_field_is_an_option_of_the_command_line():
    assert parsed(Wider) == Wider() and Wider().depth == 7
    assert parsed(Wider, "--depth", "5", "--be-greedy") == Wider(depth=5, be_greedy=True)
    assert parsed(Wider, "--no-be-greedy") == Wider()
    text = " ".join(parser(Wider).format_help().split())
    assert "--depth LEVELS how deep it looks (original: 7, tuned: 3)" in text
    assert "--be-greedy, --no-be-greedy whether it is greedy (default: False)" in text


def test_a_new_field_is_set_by_presets_where_it_says_so():
    assert preset(Wider, "original") == {**preset(SearchOptions, "original"), "depth": 7}
    assert preset(Wider, "tuned") == {**preset(SearchOptions, "tuned"), "depth": 3}
    assert parsed(Wider, "--preset", "tuned") == Wider(**preset(SearchOptions, "tuned"), depth=3)


def test_a_new_field_is_an_option_after_the_name_of_a_method(monkeypatch):
    assert from_parts(Wider, ["depth=5", "be_greedy=yes"], "wider") == {"depth": 5, "be_greedy": True}
    assert from_parts(Wider, ["preset=tuned"], "wider")["depth"] == 3
    monkeypatch.setitem(compare.TREE_SEARCHES, "mcts", Wider)
    assert compare.parse_method("mcts:depth=5") == ("mcts", {"depth": 5})
    with pytest.raises(InputError, match="preset, cp, .*, depth, be_greedy"):
        compare.parse_method("mcts:speed=1")


def test_a_new_field_is_saved():
    options = Wider(depth=5)
    assert to_dict(options) == {**to_dict(SearchOptions()), "depth": 5, "be_greedy": False}
    assert Wider(**json.loads(json.dumps(to_dict(options)))) == options


@every_class
def test_the_original_preset_is_the_default_and_the_tuned_one_sets_the_same_options(options):
    original, tuned = (preset(options, name) for name in PRESETS)
    assert options(**original) == options() == parsed(options) == parsed(options, "--preset", "original")
    assert tuned.keys() == original.keys() and all(tuned[name] != original[name] for name in original)
    assert parsed(options, "--preset", "tuned") == options(**tuned)
    with pytest.raises(KeyError):
        preset(options, "fast")


def test_what_is_given_beats_the_preset_in_any_order():
    tuned = preset(SearchOptions, "tuned")
    for arguments in (("--cp", "0.5", "--preset", "tuned"), ("--preset", "tuned", "--cp", "0.5")):
        assert parsed(SearchOptions, *arguments) == SearchOptions(**tuned | {"cp": 0.5})
    off = parsed(SearchOptions, "--preset", "tuned", "--no-close-exhausted", "--guide", "0", "--backup", "first-parent")
    assert off == SearchOptions(cp=tuned["cp"], guide_from=tuned["guide_from"])


def test_after_the_name_of_a_method_the_later_option_counts():
    assert from_parts(SearchOptions, ["cp=1", "cp=0.5"], "mcts") == {"cp": 0.5}
    assert from_parts(SearchOptions, ["preset=tuned", "cp=1"], "mcts")["cp"] == 1
    assert from_parts(SearchOptions, ["cp=1", "preset=tuned"], "mcts") == preset(SearchOptions, "tuned")


def test_a_method_with_options_is_made_with_them():
    space = Space(arch_generator(4))
    assert compare.new_method("mcts:cp=0.5", space, 0).options == SearchOptions(cp=0.5)
    assert compare.new_method("tuned", space, 0).options == SearchOptions(**preset(SearchOptions, "tuned"))


TUNED_NAMES = "cp", "backup", "close_exhausted", "guide", "guide_from"
WRONG = [
    ("cp", "high"), ("cp", "nan"), ("cp", "-1"), ("cp", "1e7"), ("cp", ""), ("backup", "both"), ("guide", "-1"),
    ("guide", "1.5"), ("guide_from", "1"), ("preset", "fast"), ("rollouts", "-1"), ("rollouts", "10001"),
    ("epochs", "0"), ("epochs", str(2**64)),
]  # fmt: skip


@pytest.mark.parametrize("name, value", WRONG)
def test_wrong_values_are_refused_in_one_line_that_names_the_option(name, value, capsys):
    with pytest.raises(SystemExit) as end:
        parsed(MetaDNNOptions, f"--{name.replace('_', '-')}={value}")
    words = capsys.readouterr().err
    assert end.value.code == 2 and words.count("\n") == 1 and f"--{name.replace('_', '-')}" in words
    with pytest.raises(InputError) as refused:
        from_parts(MetaDNNOptions, [f"{name}={value}"], "mcts")
    assert "\n" not in str(refused.value) and repr(f"{name}={value}") in str(refused.value)


@pytest.mark.parametrize("part", ["close_exhausted=maybe", "cp", "", "=", "speed=1", "close-exhausted=yes"])
def test_what_is_no_option_of_a_method_is_refused_in_one_line(part):
    with pytest.raises(InputError) as refused:
        from_parts(SearchOptions, [part], "mcts")
    assert "\n" not in str(refused.value) and "close_exhausted" in str(refused.value)


@pytest.mark.parametrize("cp", [0, LARGEST_CP])
def test_the_smallest_and_the_largest_cp_can_be_searched_with(cp, small_table):
    trainer = NetTrainer(small_table, arch_generator(4), lookup="isomorphic")
    options = parsed(SearchOptions, "--cp", str(cp), "--close-exhausted")
    assert options.cp == cp == from_parts(SearchOptions, [f"cp={cp}"], "mcts")["cp"]
    assert Driver(MCTS(trainer.space, 0, options), trainer).run() == "exhausted"


def test_with_the_meta_dnn_a_preset_sets_the_same():
    for options in (SearchOptions, MetaDNNOptions):
        assert (parsed(options, "--preset", "tuned").guide, parsed(options).guide) == (5, 0)
        assert from_parts(options, ["preset=tuned"], "it").keys() == {*TUNED_NAMES}
        assert "--guide" in parser(options).format_help()


def test_options_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SearchOptions().cp = 1.0


@every_class
def test_every_option_is_explained(options):
    words = options.__doc__ + SearchOptions.__doc__
    assert all(f"    {field.name} : " in words for field in fields(options))


def test_the_banner_says_what_differs():
    assert SearchOptions().in_words() == "Cp 2"
    words = SearchOptions(**preset(SearchOptions, "tuned")).in_words().split(", ")
    assert words[:3] == ["Cp 0.05", "back-up along the path", "exhausted states closed"]
    assert words[3:] == ["every 5 episodes a linear model chooses a cell"]
    words = MetaDNNOptions(guide=3).in_words()
    assert words == "Cp 2, every 3 episodes an ensemble of networks chooses a cell"
    assert MetaDNNOptions(fit_every=40).in_words() == "Cp 2, 10 predicted rollouts, a fit every 40 samples"
