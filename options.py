"""Every option of a tree search, once: parser, presets, saves, summary and compare.py's ``mcts:cp=0.5`` follow.

An option is a field of a frozen dataclass, with its default, its wording for ``--help``, how it is read from text, and
what ``--preset tuned`` sets it to. ``--preset original``, the defaults, is the paper's search; docs/study.md says
what each is worth.
"""

import argparse
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Callable, ClassVar

from nasbench_dataset import InputError, command

PRESETS = ("original", "tuned")
BACKUPS = ("first-parent", "path")
LARGEST_CP = 1e6  # far beyond that, UCT is no finite number any more
MOST_ROLLOUTS, MOST_EPOCHS = 10_000, 10_000  # of an evaluation, of a fit; neither is broken off by a signal


def one_of(*names: str) -> Callable[[str], str]:
    """An argparse type: one of these words."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return text

    return parse


def yes_or_no(text: str) -> bool:
    """An argparse type: yes or no."""
    return one_of("yes", "no")(text) == "yes"


def option(default: Any, words: str, read: Callable[[str], Any], tuned: Any = None, metavar: str | None = None) -> Any:
    """A field of an options class; ``tuned`` is what that preset sets it to, where it sets it."""
    return field(default=default, metadata={"words": words, "read": read, "tuned": tuned, "metavar": metavar})


@dataclass(frozen=True)
class SearchOptions:
    """How the tree is searched. The defaults are the original's.

    Attributes
    ----------
    cp : float
        Exploration constant of UCT; 2 in the original.
    backup : str
        ``"first-parent"``: along the nodes from which each node was first created, as in the original;
        ``"path"``: along the way walked.
    close_exhausted : bool
        Never select again a visited finished cell, nor a state all of whose actions lead to such or to a limit.
    guide : int
        0: every rollout is sampled. N: once there are ``guide_from`` samples, a model of them (``guide.Guide``)
        predicts what finished cells are worth, those that rollouts lead to included, and every N episodes the most
        promising cell that it was shown is sampled.
    guide_from : int
        Unique samples, of random graphs, before its first fit.
    """

    model: ClassVar[str] = "a linear model"  # of the guide

    cp: float = option(2.0, "exploration constant of UCT", command.number(0, LARGEST_CP), 0.05)
    backup: str = option(
        "first-parent",
        "back up along the nodes that first created each node (first-parent), or along the path walked (path)",
        one_of(*BACKUPS),
        "path",
    )
    close_exhausted: bool = option(False, "never select again what can give no new cell", yes_or_no, True)
    guide: int = option(
        0,
        "predict what cells are worth by a model of the samples, and sample the most promising every N episodes;"
        " 0: sample every rollout",
        command.whole_number(0),
        5,
        metavar="N",
    )
    guide_from: int = option(
        100,
        "unique samples, of random graphs, before the model is fitted first",
        command.whole_number(2),
        10,
        metavar="SAMPLES",
    )

    def in_words(self) -> str:
        """The options for the banner."""
        words = [f"Cp {self.cp:g}"]
        if self.backup == "path":
            words.append("back-up along the path")
        if self.close_exhausted:
            words.append("exhausted states closed")
        if self.guide:
            words.append(f"every {self.guide} episodes {self.model} chooses a cell")
        return ", ".join(words)


@dataclass(frozen=True)
class MetaDNNOptions(SearchOptions):
    """How the tree is searched with the Meta-DNN. With a guide that is an ensemble of networks, and has its place.

    Attributes
    ----------
    rollouts : int
        Predicted rollouts of an evaluation, beside the true one.
    fit_every : int
        Unique samples from one fit to the next.
    epochs : int
        Passes over the samples in a fit.
    """

    model = "an ensemble of networks"

    rollouts: int = option(10, "predicted rollouts of an evaluation", command.whole_number(0, MOST_ROLLOUTS))
    fit_every: int = option(100, "unique samples from one fit to the next", command.whole_number(2))
    epochs: int = option(20, "passes over the samples in a fit", command.whole_number(1, MOST_EPOCHS))

    def in_words(self) -> str:
        if self.guide:
            return super().in_words()
        return f"{super().in_words()}, {self.rollouts} predicted rollouts, a fit every {self.fit_every} samples"


Options = type[SearchOptions]


def preset(options: Options, name: str) -> dict[str, Any]:
    """What a preset sets, by the names of the options."""
    if name not in PRESETS:
        raise KeyError(name)
    set_by_presets = [f for f in fields(options) if f.metadata["tuned"] is not None]
    return {f.name: f.metadata["tuned"] if name == "tuned" else f.default for f in set_by_presets}


def add_options(group: argparse._ArgumentGroup, options: Options) -> None:
    """The options of a command line, ``--preset`` first."""
    words = "sets the options after it where they are not given; tuned is ours"
    group.add_argument("--preset", choices=PRESETS, default="original", help=words)
    for f in fields(options):
        group.add_argument("--" + f.name.replace("_", "-"), default=argparse.SUPPRESS, **_reading(f), help=_help(f))


def _reading(f: Field) -> dict[str, Any]:
    if f.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": f.metadata["read"], "metavar": f.metadata["metavar"] or f.name.upper()}


def _help(f: Field) -> str:
    if f.metadata["tuned"] is None:
        return f"{f.metadata['words']} (default: {f.default})"
    return f"{f.metadata['words']} (original: {f.default}, tuned: {f.metadata['tuned']})"


def from_arguments(options: Options, arguments: argparse.Namespace) -> SearchOptions:
    """The options that a command line gives, and those that its preset sets."""
    given = {f.name: getattr(arguments, f.name) for f in fields(options) if hasattr(arguments, f.name)}
    return options(**{**preset(options, arguments.preset), **given})


def from_parts(options: Options, parts: list[str], whose: str) -> dict[str, Any]:
    """The options in ``["cp=0.5", "preset=tuned"]``, of the method called ``whose``; a later one counts.

    Raises
    ------
    InputError
        If there is no such option or value.
    """
    given: dict[str, Any] = {}
    readers = {f.name: f.metadata["read"] for f in fields(options)}
    for part in parts:
        name, _, value = part.partition("=")
        try:
            given |= preset(options, value) if name == "preset" else {name: readers[name](value)}
        except (KeyError, argparse.ArgumentTypeError) as error:
            known = f"its options: preset, {', '.join(readers)}, as in mcts:cp=0.5"
            raise InputError(f"{part!r} is no option of {whose} in --methods; {known}") from error
    return given


def to_dict(options: SearchOptions) -> dict[str, Any]:
    """The options as plain values, for saves and summaries."""
    return asdict(options)
