"""The operations in PyTorch, under the class and attribute names of AlphaX-1's authors' file."""

import torch
from torch import nn


def conv(inside, outside, size, stride=1, groups=1):
    return nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)


class ReLUConvBN(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.op = nn.Sequential(nn.ReLU(), conv(inside, outside, 1), nn.BatchNorm2d(outside))

    def forward(self, x):
        return self.op(x)


class SepConv(nn.Module):
    def __init__(self, channels, size, stride):
        super().__init__()
        layers = []
        for step in (stride, 1):
            layers += [
                nn.ReLU(),
                conv(channels, channels, size, step, groups=channels),
                conv(channels, channels, 1),
                nn.BatchNorm2d(channels),
            ]
        self.op = nn.Sequential(*layers)

    def forward(self, x):
        return self.op(x)


class Identity(nn.Module):
    def forward(self, x):
        return x


class FactorizedReduce(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1 = conv(inside, outside // 2, 1, 2)
        self.conv_2 = conv(inside, outside // 2, 1, 2)
        self.bn = nn.BatchNorm2d(outside)

    def forward(self, x):
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def operation(name, channels, stride):
    if name == "skip_connect":
        return Identity() if stride == 1 else FactorizedReduce(channels, channels)
    kind, size = name.rsplit("_", 1)
    size = int(size[0])
    if kind == "sep_conv":
        return SepConv(channels, size, stride)
    if kind == "conv":
        return conv(channels, channels, size, stride)
    if kind == "avg_pool":
        return nn.AvgPool2d(size, stride=stride, padding=1, count_include_pad=False)
    return nn.MaxPool2d(size, stride=stride, padding=0 if size == 2 else size // 2)
