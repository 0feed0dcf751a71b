"""The methods that the tree search is compared with and that libraries bring: Optuna's and SMAC's.

They see a graph (``space.Graph``) as one choice per edge and per operation. A library is imported by the methods that
need it, and only when they run.
"""

import random
import tempfile

from method import Proposals
from nasbench_dataset import InputError
from space import FULL, PARTIAL, Graph, Space


def tpe(space: Space, rng: random.Random) -> Proposals:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna: one choice per edge and per operation."""
    study = _study(_optuna().samplers.TPESampler(seed=rng.getrandbits(32)))
    while True:
        trial = study.ask()
        study.tell(trial, (yield space.cell(_suggested(space, trial))))


def hyperband(space: Space, rng: random.Random) -> Proposals:
    """Hyperband (Li et al. 2018), by Optuna: random graphs, most of them trained for few epochs only."""
    return _multi_fidelity(space, _optuna().samplers.RandomSampler(seed=rng.getrandbits(32)))


def bohb(space: Space, rng: random.Random) -> Proposals:
    """BOHB (Falkner et al. 2018), by Optuna: Hyperband with graphs from a tree-structured Parzen estimator."""
    return _multi_fidelity(space, _optuna().samplers.TPESampler(seed=rng.getrandbits(32)))


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise InputError("this method needs Optuna; pip install -r requirements-compare.txt") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(sampler, **options):
    return _optuna().create_study(direction="maximize", sampler=sampler, **options)


def _suggested(space: Space, trial) -> Graph:
    edges = sum(trial.suggest_categorical(f"edge {bit}", (0, 1)) << bit for bit in range(space.edge_count))
    return tuple(trial.suggest_categorical(f"vertex {i}", (0, 1, 2)) for i in range(space.operation_count)), edges


def _multi_fidelity(space: Space, sampler) -> Proposals:
    if len(space.epochs) < len(PARTIAL):
        raise InputError(
            "Hyperband and BOHB need accuracies after 4, 12 and 36 epochs, which the table lacks under this metric;"
            " convert nasbench_full.tfrecord and use --metric valid"
        )
    optuna = _optuna()
    pruner = optuna.pruners.HyperbandPruner(min_resource=PARTIAL[0], max_resource=FULL, reduction_factor=3)
    study = _study(sampler, pruner=pruner)
    while True:
        trial = study.ask()
        cell = space.cell(_suggested(space, trial))
        for epochs in PARTIAL:
            trial.report((yield cell, epochs), epochs)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, (yield cell))


def smac(space: Space, rng: random.Random) -> Proposals:
    """SMAC (Hutter et al. 2011, Lindauer et al. 2022), by its library: a random forest over edges and operations."""
    try:
        from ConfigSpace import Categorical, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.runhistory.dataclasses import TrialValue
    except ImportError as error:
        raise InputError("this method needs SMAC; pip install -r requirements-compare.txt") from error
    seed = rng.getrandbits(31)
    choices = ConfigurationSpace(seed=seed)
    choices.add(Categorical(f"edge {bit}", (0, 1)) for bit in range(space.edge_count))
    choices.add(Categorical(f"vertex {i}", (0, 1, 2)) for i in range(space.operation_count))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(choices, deterministic=True, n_trials=10**6, seed=seed, output_directory=folder)
        quiet = {"overwrite": True, "logging_level": False}
        optimizer = HyperparameterOptimizationFacade(scenario, lambda config, seed: 0.0, **quiet)
        while True:
            question = optimizer.ask()
            values = dict(question.config)
            edges = sum(int(values[f"edge {bit}"]) << bit for bit in range(space.edge_count))
            operations = tuple(int(values[f"vertex {i}"]) for i in range(space.operation_count))
            optimizer.tell(question, TrialValue(cost=1 - (yield space.cell((operations, edges)))))
