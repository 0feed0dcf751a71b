"""The network in PyTorch, under the class and attribute names of AlphaX-1's authors' file."""

import torch
from operations import FactorizedReduce, ReLUConvBN, operation
from torch import nn


class Cell(nn.Module):
    def __init__(self, edges, concat, before, last, channels, reduces, reduced_before):
        super().__init__()
        self.preprocess0 = (FactorizedReduce if reduced_before else ReLUConvBN)(before, channels)
        self.preprocess1 = ReLUConvBN(last, channels)
        self._steps = len(edges) // 2
        self._concat = concat
        self.multiplier = len(concat)
        self._indices = tuple(source for _, source in edges)
        self._ops = nn.ModuleList(
            operation(name, channels, 2 if reduces and source < 2 else 1) for name, source in edges
        )

    def forward(self, s0, s1):
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for step in range(self._steps):
            pair = (2 * step, 2 * step + 1)
            states.append(sum(self._ops[i](states[self._indices[i]]) for i in pair))
        return torch.cat([states[i] for i in self._concat], dim=1)


class AuxiliaryHeadCIFAR(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class NetworkCIFAR(nn.Module):
    def __init__(self, channels, classes, layers, auxiliary, genotype):
        super().__init__()
        self._layers, self._auxiliary, self.drop_path_prob = layers, auxiliary, 0.2
        before = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
        self.cells = nn.ModuleList()
        reduced_before = False
        for number in range(layers):
            reduces = number in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduces else 1
            kind = "reduce" if reduces else "normal"
            edges, concat = genotype[kind], genotype[f"{kind}_concat"]
            self.cells.append(Cell(edges, concat, before, last, channels, reduces, reduced_before))
            before, last, reduced_before = last, channels * len(concat), reduces
            if auxiliary and number == 2 * layers // 3:
                self.auxiliary_head = AuxiliaryHeadCIFAR(last, classes)
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x):
        """Both logits, in testing as well."""
        s0 = s1 = self.stem(x)
        auxiliary = None
        for number, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1)
            if self._auxiliary and number == 2 * self._layers // 3:
                auxiliary = self.auxiliary_head(s1)
        return self.classifier(self.global_pooling(s1).flatten(1)), auxiliary
