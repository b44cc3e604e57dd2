"""The skeleton that all gradient methods share."""

import torch
from torch import nn

from methods.learners import evaluating


def test_after_evaluation_every_module_is_in_the_mode_it_was_in():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    net.train()
    net[1][0].eval()  # a method may keep a part of its network frozen
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == [True, True, True, False, True]


def test_the_mode_comes_back_after_an_error():
    net = nn.Linear(1, 1)
    try:
        with evaluating(net):
            net(torch.zeros(2))
    except RuntimeError:
        pass
    assert net.training
