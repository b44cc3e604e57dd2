"""The accuracy of the softmax head, told apart from that of another classifier."""

import pytest
import torch

from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import split_classes
from harness.evaluators import classifier, classifier_softmax
from harness.measure import Checkpoint, Cost
from methods.base import Method


class TwoHeads(Method):
    """Scores and logits of an image are looked up by its class, which its one pixel spells."""

    predicts = True

    def __init__(self, scores, logits):
        self.scores, self.logits = torch.tensor(scores), logits and torch.tensor(logits)

    def predict(self, x, task=None):
        del task
        return self.scores[x.flatten().long()]

    def class_logits(self, x):
        return super().class_logits(x) if self.logits is None else self.logits[x.flatten().long()]

    def embed(self, x):
        return x.flatten(1).float()

    def observe(self, batch):
        del batch
        return {}

    def memory(self):
        return {}

    def parameters(self):
        return 0

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def measured(evaluator, method, after_task):
    y = torch.arange(4).repeat(5)
    split = Split(y.to(torch.uint8).view(-1, 1, 1, 1), y)
    dataset = Dataset("hand-made", split, split, tuple("abcd"), Traits((0.5,), (0.5,)))
    tasks = split_classes(
        dataset, num_tasks=2, distribution="regular", order="natural", validation=0.0, seed=0
    )
    checkpoint = Checkpoint(
        method, tasks, after_task, split="test", seed=0, cost=lambda: Cost(0.0, 0.0, None, 0)
    )
    found = list(evaluator.build(evaluator.Config()).evaluate(checkpoint))
    return {(m.metric, m.on_task): (m.value, m.n) for m in found}


RIGHT = [[9.0, 0.0, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 9.0]]
LOGITS = [  # tasks are (0 1), (2 3)
    [3.0, 1.0, 0.0, 0.0],  # 0: always right
    [3.0, 1.0, 0.0, 0.0],  # 1: never right
    [5.0, 0.0, 4.0, 0.0],  # 2: right among its task alone
    [0.0, 0.0, 0.0, 1.0],  # 3: always right
]


@pytest.mark.parametrize(
    ("after_task", "class_il"), [(-1, {}), (0, {0: 0.5}), (1, {0: 0.5, 1: 0.5})]
)
def test_the_logits_are_measured_not_the_scores(after_task, class_il):
    method = TwoHeads(RIGHT, LOGITS)
    wanted = {("accuracy_task_il", 0): (0.5, 10), ("accuracy_task_il", 1): (1.0, 10)}
    wanted |= {("accuracy", task): (value, 10) for task, value in class_il.items()}
    assert measured(classifier_softmax, method, after_task) == wanted
    perfect = dict.fromkeys(wanted, (1.0, 10))
    assert measured(classifier, method, after_task) == perfect


def test_without_logits_of_their_own_both_say_the_same():
    method = TwoHeads(LOGITS, None)
    for after_task in (-1, 0, 1):
        found = measured(classifier_softmax, method, after_task)
        assert found == measured(classifier, method, after_task)
        assert ("accuracy", 0) in found or after_task == -1


def test_the_same_numbers_twice():
    method = TwoHeads(RIGHT, LOGITS)
    first, second = (measured(classifier_softmax, method, 1) for _ in range(2))
    assert first == second
