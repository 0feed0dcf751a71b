"""Monte Carlo Tree Search assisted by the Meta-DNN (AlphaX; Wang et al., AAAI-20, sections 3.2 and 3.3).

    python MCTS_metaDNN.py             as MCTS.py, with its options and three more (--help)

What differs from MCTS.py is what a state is worth, half of which is predicted, and that the predictor is
fitted now and then to all that was sampled. With a guide (``--preset tuned``) it is not: then the guide has an ensemble
of networks for its model, and the paper's network is not used.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # it is not there under PYTHONSAFEPATH

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import keras_backend
from arch_generator import State
from guide import Model
from MCTS import MCTS
from method import Announce, Nothing, Question, silently
from nasbench_dataset import InputError, command
from options import MetaDNNOptions
from saved_tree import Saved
from search_command import build_parser, run_command
from space import Space

try:
    import meta_dnn
    from predictor import Predictor
except (ImportError, InputError) as error:
    if __name__ != "__main__":
        raise
    command.fail(error if isinstance(error, InputError) else f"{error}; pip install -r requirements.txt")


class MCTS_metaDNN(MCTS):  # noqa: N801 (the original's name)
    """The search with predicted rollouts, or with a guide that has networks.

    Parameters
    ----------
    space, seed, options, announce : Space, int, MetaDNNOptions, callable
        As in ``MCTS``.

    Attributes
    ----------
    predictor : Predictor or None
        None with a guide.
    """

    name = "mcts-metadnn"

    def __init__(
        self, space: Space, seed: int, options: MetaDNNOptions = MetaDNNOptions(), announce: Announce = silently
    ):
        super().__init__(space, seed, options, announce)
        self.predictor = None if options.guide else Predictor(space, seed, options)

    def new_model(self, seed: int) -> Model:
        if not self.options.guide:
            return super().new_model(seed)
        from network_model import NetworkModel  # which needs JAX, whatever Keras computes with

        return NetworkModel(seed)

    def ask(self) -> Question | Nothing:
        if self.predictor and self.predictor.due:
            self.announce("fitting")
            self.predictor.fit()
            self.announce("searching")
        return super().ask()

    def value(self, state: State, accuracy: float) -> float:
        """Of an unfinished state: the mean of its true rollout and of what predicted ones are worth."""
        if state.finished or not self.predictor:
            return accuracy
        rollouts = [self.rollout(state) for _ in range(self.options.rollouts)]
        if not rollouts or None in rollouts:
            return accuracy
        return (accuracy + sum(self.predictor.worth(rollouts)) / len(rollouts)) / 2

    def learn(self, index: int, accuracy: float) -> None:
        super().learn(index, accuracy)
        if self.predictor:
            self.predictor.tell(index, accuracy)

    def to_save(self) -> Saved:
        main, files = super().to_save()
        if not self.predictor:
            return main, files
        own, own_files = self.predictor.to_save()
        return {**main, **own}, {**files, **own_files}

    def restore(self, main: dict, files: dict[str, bytes], samples: dict[int, float]) -> None:
        super().restore(main, files, samples)
        if self.predictor:
            self.predictor.restore(main, files)

    def settings(self) -> dict:
        return {"backend": meta_dnn.keras.backend.backend()}

    def status(self) -> str:
        return self.predictor.status() if self.predictor else ""

    def details(self) -> dict:
        if not self.predictor:
            return {"share_of_networks": self.guide.model.share}
        return {"fits": self.predictor.fits, "collapses": self.predictor.collapses}

    def closing_lines(self) -> list[str]:
        if self.predictor:
            return self.predictor.closing_lines()
        return [f"of what the networks predict {self.guide.model.share:.0%} counts, by the last fit"]


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS_metaDNN.py``; returns the exit status."""
    parser = build_parser("Monte Carlo Tree Search over NAS-Bench-101 cells, assisted by a Meta-DNN.", MetaDNNOptions)
    options = parser.parse_args(argv)
    keras_backend.check()
    if not options.quiet:
        print(f"device   {meta_dnn.device()}")
    return run_command(options, MCTS_metaDNN, MetaDNNOptions)


if __name__ == "__main__":
    command.run(main)
