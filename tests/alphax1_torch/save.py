"""Save random networks whole, as AlphaX-1's authors did: `python save.py FOLDER`.

Runs by itself, since its modules are called `model` and `operations`, as ours are.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from model import NetworkCIFAR
from torch import nn

NORMAL = [  # every operation that keeps the size
    ("avg_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("max_pool_5x5", 0),
    ("skip_connect", 1),
    ("sep_conv_3x3", 2),
    ("sep_conv_5x5", 3),
    ("sep_conv_7x7", 1),
    ("conv_3x3", 4),
    ("conv_5x5", 0),
    ("skip_connect", 2),
]
REDUCE = [  # every operation at stride 2, and some between states of the cell
    ("avg_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("max_pool_5x5", 0),
    ("max_pool_2x2", 1),
    ("skip_connect", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_5x5", 0),
    ("sep_conv_7x7", 1),
    ("conv_3x3", 0),
    ("conv_5x5", 1),
    ("skip_connect", 2),
    ("avg_pool_3x3", 6),
]
GENOTYPE = {
    "normal": NORMAL,
    "normal_concat": range(2, 7),
    "reduce": REDUCE,
    "reduce_concat": [3, 4, 5, 6, 7],
}
DEAD_GENOTYPE = {**GENOTYPE, "reduce_concat": [3, 5, 6, 7]}  # nothing uses state 4

CHANNELS, CLASSES, LAYERS, IMAGES = 4, 7, 5, 3


def network(auxiliary=True, genotype=GENOTYPE):
    """A network with random weights and random running statistics."""
    torch.manual_seed(0)
    net = NetworkCIFAR(CHANNELS, CLASSES, LAYERS, auxiliary, genotype)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


def main(folder):
    net = network()
    images = torch.randn(IMAGES, 3, 32, 32)
    with torch.no_grad():
        logits, auxiliary = net(images)
    np.savez(
        folder / "expected.npz",
        images=images.permute(0, 2, 3, 1).numpy(),
        logits=logits.numpy(),
        auxiliary=auxiliary.numpy(),
    )
    torch.save(net, folder / "zip.pt")
    torch.save(net, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    bare = network(auxiliary=False, genotype=DEAD_GENOTYPE)
    torch.save(nn.DataParallel(bare), folder / "parallel.pt")
    torch.save(net.state_dict(), folder / "state_dict.pt")
    torch.save(net.cells[0], folder / "cell.pt")
    net.stem.extra = nn.Linear(2, 2)
    torch.save(net, folder / "left_over.pt")
    del net.stem.extra
    net.cells[0]._ops[0].count_include_pad = True
    torch.save(net, folder / "counted.pt")
    net.cells[0]._ops[0].count_include_pad = False
    net.cells[0]._ops[8] = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, bias=True)
    torch.save(net, folder / "biased.pt")
    net.cells[0]._ops[8] = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, bias=False))
    torch.save(net, folder / "foreign.pt")
    net.note = pickle.PickleBuffer  # a name outside the network
    torch.save(net, folder / "name.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
