"""Suites to trials: one precedence of settings, and an error for everything that has no effect."""

import itertools

import pytest

from harness import config, grid, protocol
from harness.errors import UserError
from harness.grid import expand, select
from harness.suite import load_suite, parse_only

SUITE = """
protocol: plain
methods: [er]
datasets: [digits]
num_tasks: [5]
seeds: [0]
"""

GLYPHS = "[{name: glyphs100, label: g20, set: {classes: 20, per_class: 10}}]"


@pytest.fixture(autouse=True)
def configs(tmp_path, monkeypatch):
    """A folder of configuration files of our own, in place of the project's."""
    folder = tmp_path / "configs"
    for module in (config, grid, protocol):
        monkeypatch.setattr(module, "CONFIGS", folder)
    protocol.protocol_names.cache_clear()
    write(folder / "protocol" / "plain.yaml", "evaluators: [classifier]")
    write(folder / "protocol" / "probing.yaml", "evaluators: [probe_ridge]\nprimary: probe_ridge")
    yield folder
    protocol.protocol_names.cache_clear()


@pytest.fixture
def suite(tmp_path):
    """Writes a suite, reads it with the given `--set`, and multiplies it out."""

    def make(text=SUITE, *assignments):
        return expand(load_suite(write(tmp_path / "mine.yaml", text), assignments))

    return make


@pytest.fixture
def one(suite):
    """The spec of the only trial of a suite."""

    def make(text=SUITE, *assignments):
        (trial,), skips = suite(text, *assignments)
        assert not skips
        return trial.spec

    return make


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def changed(**lines):
    """The suite with some of its lines replaced, or others added."""
    known = dict(line.split(": ", 1) for line in SUITE.strip().splitlines())
    return "".join(f"{key}: {value}\n" for key, value in (known | lines).items())


# One value a level, from weakest to strongest; each level writes 10 times its own number.
METHOD_LEVELS = ("yaml", "block", "set", "entry", "command")
PROTOCOL_LEVELS = ("protocol", *METHOD_LEVELS)


def subsets(levels):
    """None of the levels, each alone, every pair, all."""
    few = (itertools.combinations(levels, count) for count in (0, 1, 2))
    return [*itertools.chain(*few), levels]


def arrange(configs, present, *, key, inside):
    """Write a setting at the given levels; gives the suite and the assignments."""
    value = {level: float(10 * (1 + i)) for i, level in enumerate(PROTOCOL_LEVELS)}
    part = {level: f"{key}: {value[level]}" for level in PROTOCOL_LEVELS}
    nested = {level: f"{{{part[level]}}}" for level in part}
    in_file = {level: f"protocol: {nested[level]}" for level in part} if inside else part
    if "protocol" in present:
        write(
            configs / "protocol" / "plain.yaml", f"evaluators: [classifier]\n{part['protocol']}\n"
        )
    lines = []
    if "yaml" in present:
        lines.append(in_file["yaml"])
    if "block" in present:
        lines.append(f"datasets:\n  digits: {{{in_file['block']}}}")
    write(configs / "method" / "er.yaml", "\n".join(lines))
    keys = {}
    if "set" in present:
        keys["set"] = nested["set"]
    if "entry" in present:
        keys["methods"] = f"[{{name: er, set: {nested['entry']}}}]"
    assignments = [f"{key}={value['command']}"] if "command" in present else []
    wanted = max((value[level] for level in present), default=None)
    return changed(**keys), assignments, wanted


@pytest.mark.parametrize("present", subsets(METHOD_LEVELS))
def test_a_method_s_setting_comes_from_the_strongest_level(configs, one, present):
    text, assignments, wanted = arrange(configs, present, key="replay_weight", inside=False)
    found = one(text, *assignments).method.settings["replay_weight"]
    assert found == (1.0 if wanted is None else wanted)


@pytest.mark.parametrize("present", subsets(PROTOCOL_LEVELS))
def test_a_protocol_setting_comes_from_the_strongest_level(configs, one, present):
    text, assignments, wanted = arrange(configs, present, key="lr", inside=True)
    found = one(text, *assignments).protocol["lr"]
    assert found == (0.1 if wanted is None else wanted)


def test_a_block_for_another_data_set_has_no_effect(configs, one):
    write(configs / "method" / "er.yaml", "datasets: {cifar100: {replay_weight: 9.0}}")
    assert one().method.settings == {"replay_weight": 1.0}


def test_a_block_is_found_by_the_name_of_a_data_set_and_not_by_its_label(configs, one):
    write(configs / "method" / "er.yaml", "datasets: {digits: {replay_weight: 9.0}}")
    found = one(changed(datasets="[{name: digits, label: mine}]"))
    assert found.method.settings == {"replay_weight": 9.0}


@pytest.mark.parametrize("text", ["protocol:", "datasets:", "datasets:\n  digits:", ""])
def test_empty_blocks_of_a_method_s_file_are_no_settings(configs, one, text):
    write(configs / "method" / "er.yaml", text)
    assert one().method.settings == {"replay_weight": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replay_wieght: 2.0", r"er\.yaml: .*'replay_wieght'; did you mean 'replay_weight'"),
        ("replay_weight: much", r"er\.yaml: .*replay_weight: .*got \"much\""),
        ("protocol: {lrr: 0.1}", r"er\.yaml: protocol: unknown key 'lrr'; did you mean 'lr'"),
        ("protocol: 3", r"er\.yaml: protocol: expected a mapping"),
        ("datasets: [digits]", r"er\.yaml: datasets: expected a mapping"),
        ("datasets: {digits: {x: 1}}", r"er\.yaml: datasets: digits: .*unknown key 'x'"),
        ("datasets: {digits: {protocol: {lrr: 1}}}", r"er\.yaml: datasets: digits: .*'lrr'"),
    ],
)
def test_a_mistake_in_a_method_s_file_names_that_file(configs, suite, text, message):
    write(configs / "method" / "er.yaml", text)
    with pytest.raises(UserError, match=message):
        suite()


def test_a_mistake_in_a_protocol_s_file_names_that_file(configs, suite):
    write(configs / "protocol" / "plain.yaml", "evaluators: [classifier]\nbatchsize: 3")
    with pytest.raises(UserError, match=r"plain\.yaml: unknown key 'batchsize'; .*'batch_size'"):
        suite()


def test_set_gives_suite_keys_protocol_settings_and_method_settings(suite):
    trials, _ = suite(SUITE, "seeds=[3, 4]", "epochs=7", "replay_weight=0.25")
    assert [trial.spec.seed for trial in trials] == [3, 4]
    assert {trial.spec.protocol["epochs"] for trial in trials} == {7}
    assert {trial.spec.method.settings["replay_weight"] for trial in trials} == {0.25}


def test_a_suite_key_inside_set_means_the_key_itself(suite):
    trials, _ = suite(changed(set="{seeds: [3, 4], num_tasks: 2}"))
    assert [(t.spec.seed, t.spec.num_tasks) for t in trials] == [(3, 2), (4, 2)]


def test_a_bare_setting_applies_to_the_methods_that_have_it(suite):
    text = changed(methods="[er, finetune]")
    trials, _ = suite(text, "label_smoothing=0.1")
    assert [t.spec.method.settings for t in trials] == [
        {"replay_weight": 1.0},
        {"label_smoothing": 0.1, "outputs": "all"},
    ]


@pytest.mark.parametrize("name", ["er", "heavy"])
def test_a_dotted_setting_names_a_method_or_its_label(one, name):
    text = changed(methods="[{name: er, label: heavy}]")
    assert one(text, f"{name}.replay_weight=3").method.settings == {"replay_weight": 3.0}


def test_a_label_reaches_its_own_entry_alone(suite):
    text = changed(methods="[er, {name: er, label: heavy}]")
    trials, _ = suite(text, "heavy.replay_weight=3")
    assert [(t.label, t.spec.method.settings["replay_weight"]) for t in trials] == [
        ("er", 1.0),
        ("heavy", 3.0),
    ]


@pytest.mark.parametrize("name", ["glyphs100", "g20"])
def test_a_dotted_setting_names_a_data_set_or_its_label(one, name):
    spec = one(changed(datasets=GLYPHS), f"{name}.per_class=3")
    assert spec.dataset.settings["per_class"] == 3
    assert spec.dataset.settings["classes"] == 20


def test_settings_of_a_data_set_have_levels_as_well(one):
    entry = "[{name: glyphs100, set: {classes: 20, per_class: 5}}]"
    text = changed(datasets=entry, set="{glyphs100.per_class: 4, glyphs100.seed: 6}")
    found = one(text, "glyphs100.classes=10").dataset.settings
    assert found == {"classes": 10, "per_class": 5, "test_per_class": None, "seed": 6}


def test_parts_take_their_settings_by_a_dot(one):
    spec = one(SUITE, "backbone.hidden=[8]", "objective.temperature=0.2")
    assert spec.protocol["backbone"] == {"name": "mlp", "hidden": [8]}
    assert spec.protocol["objective"]["name"] == "simclr"
    assert spec.protocol["objective"]["temperature"] == 0.2


@pytest.mark.parametrize(
    "assignments",
    [("backbone=cnn", "backbone.widths=[4]"), ("backbone.widths=[4]", "backbone=cnn")],
)
def test_a_part_and_its_settings_may_come_in_any_order(one, assignments):
    assert one(SUITE, *assignments).protocol["backbone"] == {"name": "cnn", "widths": [4]}


def test_settings_of_a_part_join_those_of_weaker_levels(one):
    text = changed(set="{backbone: {name: resnet_small, width: 4}}")
    found = one(text, "backbone.blocks=[1, 1]").protocol["backbone"]
    assert found == {"name": "resnet_small", "width": 4, "blocks": [1, 1]}


def test_another_part_brings_its_own_settings(one):
    text = changed(set="{backbone: {name: mlp, hidden: [8]}}")
    found = one(text, "backbone=cnn").protocol["backbone"]
    assert found == {"name": "cnn", "widths": [24, 48, 96, 192]}


@pytest.mark.parametrize("value", ["3", "null", "[1]", "{hidden: 3}", "{name: [x]}", "mpl"])
def test_a_part_that_is_none_is_an_error(suite, value):
    with pytest.raises(UserError, match="backbone"):
        suite(SUITE, f"backbone={value}")


def test_every_setting_is_in_a_resolved_protocol(one):
    resolved = one().protocol
    assert resolved.keys() == config.fields(grid.ProtocolSettings)
    assert resolved["augmentation"] == {"name": "standard"}
    assert resolved["evaluators"] == [{"name": "classifier", "when": "each"}]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "--set: unknown setting 'epoch'; did you mean 'epochs'"),
        ("replay_wieght=3", "--set: unknown setting 'replay_wieght'; did you mean 'replay_weight'"),
        ("er.replay_wieght=3", "unknown key 'replay_wieght'; did you mean 'replay_weight'"),
        ("err.replay_weight=3", "--set: unknown setting 'err.replay_weight'; .*'er.replay_weight'"),
        ("label_smoothing=0.1", "--set: unknown setting 'label_smoothing'"),
        ("backbone.hiden=[8]", "unknown key 'hiden'; did you mean 'hidden'"),
        ("digits.per_class=3", "data set digits: unknown key 'per_class'"),
        ("protocol=plane", "unknown protocol 'plane'; did you mean 'plain'"),
        ("methods=[eer]", "unknown method 'eer'; did you mean 'er'"),
        ("datasets=[digit]", "unknown data set 'digit'; did you mean 'digits'"),
        ("distribution=odd", "distribution: .*'irregular'.*got \"odd\""),
        ("seeds=[-1]", "seeds: must be from 0"),
        ("seeds=[]", "seeds: at least one is needed"),
        ("methods=[]", "methods: at least one is needed"),
        ("methods=[{label: x}]", "an entry needs a name"),
        ("methods=[{name: er, lable: x}]", "unknown key 'lable'; did you mean 'label'"),
        ("methods=[{name: er, set: {x: 1}}]", "method er: unknown key 'x'"),
        ("resources={cpus: 1}", "resources: unknown key 'cpus'; did you mean 'cpu'"),
        ("resources={cpu: 0}", "cpu must be above 0"),
        ("class_order=random", "class_order: .*'seeded'"),
        ("primary=probe_knn", "primary: unknown evaluator 'probe_knn'; known: classifier"),
        ("evaluators=[clasifier]", "unknown evaluator 'clasifier'; did you mean 'classifier'"),
        ("evaluators=[classifier, classifier]", "classifier is listed twice"),
        ("evaluators=[{name: classifier, when: never}]", "when: unknown value 'never'"),
        ("evaluators=[{name: classifier, k: 3}]", "unknown key 'k'"),
        ("evaluators=[classifier, probe_linear]", "probe_linear needs a validation share"),
        ("split=validation", "split: validation needs validation above 0"),
        ("lr=-1", "lr must not be negative"),
        ("lr", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("lr=[", "--set lr=.*not valid YAML"),
        ("set={lr: 1}", "--set: unknown setting 'set'"),
    ],
)
def test_a_mistake_in_set_is_an_error_with_a_hint(suite, assignment, message):
    with pytest.raises(UserError, match=message):
        suite(SUITE, assignment)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"sedes": "[0]"}, r"mine\.yaml: unknown key 'sedes'; did you mean 'seeds'"),
        ({"name": "other"}, r"mine\.yaml: name: .*'mine'"),
        ({"set": "{epoch: 3}"}, r"mine\.yaml: set: unknown setting 'epoch'; .*'epochs'"),
        ({"set": "3"}, r"mine\.yaml: set"),
        ({"set": ""}, r"mine\.yaml: set"),
        ({"seeds": "[a]"}, r"mine\.yaml: seeds: .*got \"a\""),
        ({"data_root": "3"}, r"mine\.yaml: data_root"),
        ({"grids": "3"}, r"mine\.yaml: grids"),
        ({"grids": "[]"}, r"mine\.yaml: grids"),
    ],
)
def test_a_mistake_in_a_suite_names_file_and_key(suite, lines, message):
    with pytest.raises(UserError, match=message):
        suite(changed(**lines))


@pytest.mark.parametrize("key", ["protocol", "methods", "datasets", "num_tasks", "seeds"])
def test_a_key_that_every_grid_needs_is_asked_for(suite, key):
    lines = [line for line in SUITE.strip().splitlines() if not line.startswith(key)]
    with pytest.raises(UserError, match=f"missing key '{key}'"):
        suite("\n".join(lines))


def test_a_grid_is_the_product_in_the_order_of_the_file(suite):
    text = changed(
        methods="[finetune, er]",
        num_tasks="[2, 5]",
        distribution="[regular, irregular]",
        seeds="[1, 0]",
    )
    trials, skips = suite(text)
    assert not skips
    assert len(trials) == len({t.trial_id for t in trials}) == 16
    found = [
        (t.spec.method.name, t.spec.num_tasks, t.spec.distribution, t.spec.seed) for t in trials
    ]
    assert found[:5] == [
        ("finetune", 2, "regular", 1),
        ("finetune", 2, "regular", 0),
        ("finetune", 2, "irregular", 1),
        ("finetune", 2, "irregular", 0),
        ("finetune", 5, "regular", 1),
    ]


def test_a_trial_carries_the_names_that_its_suite_gives(suite):
    text = changed(
        methods="[{name: er, label: heavy, set: {replay_weight: 2.0, lr: 0.3}}]",
        datasets="[{name: digits, label: small}]",
        resources="{cpu: 3, gpu: 0.5}",
    )
    (trial,), _ = suite(text)
    assert (trial.suite, trial.label, trial.dataset_label) == ("mine", "heavy", "small")
    assert (trial.protocol_name, trial.primary) == ("plain", "classifier")
    assert (trial.resources.threads, trial.resources.gpu) == (3, 0.5)
    assert trial.spec.method.settings == {"replay_weight": 2.0}
    assert trial.spec.protocol["lr"] == 0.3
    assert trial.title == "heavy small/5 seed 0"


def test_entries_that_come_to_the_same_are_one_trial_under_both_labels(suite):
    text = changed(
        methods="[{name: er, label: first}, {name: er, label: second, set: {replay_weight: 1}}]",
        seeds="[0, 0]",
    )
    trials, _ = suite(text)
    assert [trial.label for trial in trials] == ["first", "second"]
    assert len({trial.trial_id for trial in trials}) == 1


GRIDS = """
datasets: [digits]
num_tasks: [5]
seeds: [0, 1]
set: {epochs: 2, lr: 0.5}
grids:
  - protocol: plain
    methods: [er]
    set: {lr: 0.25}
  - protocol: probing
    methods: [no_strategy]
    seeds: [7]
"""


def test_grids_inherit_the_top_level_and_join_its_set(suite):
    trials, _ = suite(GRIDS)
    found = [
        (t.spec.method.name, t.spec.seed, t.spec.protocol["epochs"], t.spec.protocol["lr"])
        for t in trials
    ]
    assert found == [("er", 0, 2, 0.25), ("er", 1, 2, 0.25), ("no_strategy", 7, 2, 0.5)]


def test_the_command_line_overrides_the_top_level_and_every_grid(suite):
    trials, _ = suite(GRIDS, "seeds=[9]", "lr=0.75", "er.replay_weight=2")
    assert [(t.spec.seed, t.spec.protocol["lr"]) for t in trials] == [(9, 0.75), (9, 0.75)]
    assert trials[0].spec.method.settings == {"replay_weight": 2.0}


def test_a_mistake_in_one_of_several_grids_says_in_which(suite):
    with pytest.raises(UserError, match="grid 2"):
        suite(GRIDS + "    set: {replay_weight: 2.0}\n")


def test_only_keeps_the_trials_that_all_its_filters_name(suite):
    text = changed(methods="[finetune, {name: er, label: heavy}]", seeds="[0, 1, 2]")
    trials, _ = suite(text)

    def kept(*filters):
        return [(t.label, t.spec.seed) for t in select(trials, parse_only(filters))]

    assert kept("method=er", "seed=0,2") == [("heavy", 0), ("heavy", 2)]
    assert kept("label=heavy", "seed=1") == [("heavy", 1)]
    assert kept("seed=0", "seed=1") == kept("seed=0, 1")
    assert len(kept("dataset=digits", "num_tasks=5", "distribution=regular")) == 6
    assert kept() == kept("method=finetune,er")


def test_only_knows_a_data_set_by_its_name_and_by_its_label(suite):
    trials, _ = suite(changed(datasets="[{name: digits, label: small}]"))
    assert select(trials, parse_only(["dataset=small"])) == trials
    assert select(trials, parse_only(["dataset=digits"])) == trials


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method=err", "unknown method 'err'; did you mean 'er'"),
        ("seed=3", "unknown seed '3'; known: 0"),
        ("methods=er", "unknown key 'methods'; did you mean 'method'"),
        ("method", "expected KEY="),
        ("method=", "expected KEY="),
    ],
)
def test_a_mistake_in_only_is_an_error_with_a_hint(suite, text, message):
    trials, _ = suite()
    with pytest.raises(UserError, match=message):
        select(trials, parse_only([text]))


def test_a_method_without_classifier_is_skipped_under_the_classifier_evaluator(suite):
    trials, skips = suite(changed(methods="[er, no_strategy]", seeds="[0, 1]"))
    assert [trial.label for trial in trials] == ["er", "er"]
    assert [skip.title for skip in skips] == [
        "no_strategy digits/5 seed 0",
        "no_strategy digits/5 seed 1",
    ]
    assert {skip.reason for skip in skips} == {
        "no_strategy has no classifier, which evaluator classifier needs"
    }


@pytest.mark.parametrize("where", ["key", "set", "entry", "command"])
def test_a_class_order_may_be_a_list(one, where):
    order = "[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]"
    text, assignments = {
        "key": (changed(class_order=order), []),
        "set": (changed(set=f"{{class_order: {order}}}"), []),
        "entry": (changed(methods=f"[{{name: er, set: {{class_order: {order}}}}}]"), []),
        "command": (SUITE, [f"class_order={order}"]),
    }[where]
    assert one(text, *assignments).protocol["class_order"] == list(range(9, -1, -1))


def test_a_class_order_obeys_the_precedence(configs, one):
    write(configs / "protocol" / "plain.yaml", "evaluators: [classifier]\nclass_order: seeded")
    assert one().protocol["class_order"] == "seeded"
    assert one(changed(class_order="natural")).protocol["class_order"] == "natural"
    entry = "[{name: er, set: {class_order: pycil1993}}]"
    text = changed(class_order="natural", methods=entry)
    assert one(text).protocol["class_order"] == "pycil1993"
    assert one(text, "class_order=seeded").protocol["class_order"] == "seeded"


@pytest.mark.parametrize(
    "order", ["[0, 1]", "[]", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 8]", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]
)
def test_a_list_that_is_no_order_of_the_classes_is_an_error(suite, order):
    with pytest.raises(UserError, match="digits: class order is no permutation"):
        suite(SUITE, f"class_order={order}")


@pytest.mark.parametrize(
    ("num_tasks", "message"),
    [
        ("[3]", "10 classes cannot be cut into 3 equal tasks; .* 2 and 5"),
        ("[20]", "10 classes cannot fill 20 tasks"),
        ("[0]", "num_tasks: must be at least 1"),
        ("[-5]", "num_tasks: must be at least 1"),
        ("[5, 4]", "10 classes cannot be cut into 4"),
        ("[2.5]", "num_tasks"),
    ],
)
def test_numbers_of_tasks_that_cannot_be_are_errors_before_anything_runs(suite, num_tasks, message):
    with pytest.raises(UserError, match=message):
        suite(changed(num_tasks=num_tasks))


def test_irregular_tasks_need_not_divide_the_classes(one):
    assert one(changed(num_tasks="[3]", distribution="irregular")).num_tasks == 3
    with pytest.raises(UserError, match="cannot fill"):
        one(changed(num_tasks="[11]", distribution="irregular"))


def test_the_number_of_classes_is_that_of_the_data_set_s_settings(suite, one):
    classes = "[{name: glyphs100, set: {classes: 12}}]"
    assert one(changed(datasets=classes, num_tasks="[6]")).num_tasks == 6
    with pytest.raises(UserError, match="12 classes cannot be cut into 5"):
        suite(changed(datasets=classes))


@pytest.mark.parametrize("value", ["{classes: 0}", "{classes: 101}", "{per_class: 0}"])
def test_settings_that_a_data_set_refuses_are_errors_that_name_it(suite, value):
    with pytest.raises(UserError, match=r"mine\.yaml.*"):
        suite(changed(datasets=f"[{{name: glyphs100, set: {value}}}]"))


def test_a_suite_s_resources_and_labels_do_not_change_its_trials(suite):
    plain, _ = suite()
    other, _ = suite(changed(methods="[{name: er, label: x}]", resources="{cpu: 2}"))
    assert plain[0].trial_id == other[0].trial_id


SHARED_GRIDS = """
datasets: [digits]
num_tasks: 5
seeds: [0]
set: {replay_weight: 0.5, er.lr: 0.05, lr: 0.2}
grids:
  - {protocol: plain, methods: [er, {name: finetune, set: {backbone.hidden: [7]}}]}
  - {protocol: probing, methods: [no_strategy]}
"""


def shared(tmp_path, text, *assignments):
    path = tmp_path / "shared.yaml"
    path.write_text(text)
    return {trial.label: trial.spec for trial in expand(load_suite(path, assignments))[0]}


def test_a_key_at_the_top_need_not_concern_every_grid(tmp_path):
    specs = shared(tmp_path, SHARED_GRIDS)
    assert specs["er"].method.settings["replay_weight"] == 0.5
    assert set(specs) == {"er", "finetune", "no_strategy"}


def test_a_key_at_the_top_that_concerns_no_grid_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"set: unknown setting 'omega'"):
        shared(tmp_path, SHARED_GRIDS.replace("replay_weight", "omega"))


def test_the_command_line_wins_over_a_suite_key_within_set(tmp_path):
    text = SHARED_GRIDS.replace("\nset: {", "\nset: {seeds: [5], ").replace("seeds: [0]\n", "")
    specs = shared(tmp_path, text)
    assert {spec.seed for spec in specs.values()} == {5}
    specs = shared(tmp_path, text, "seeds=[3]")
    assert {spec.seed for spec in specs.values()} == {3}


def test_a_label_wins_over_a_name_in_any_order(tmp_path):
    text = SHARED_GRIDS.replace("methods: [er,", "methods: [{name: er, label: half},")
    for order in (["half.lr=0.3", "er.lr=0.2"], ["er.lr=0.2", "half.lr=0.3"]):
        assert shared(tmp_path, text, *order)["half"].protocol["lr"] == 0.3


def test_a_method_that_needs_what_the_protocol_hides_is_skipped_with_a_reason(tmp_path):
    path = tmp_path / "shared.yaml"
    path.write_text(SHARED_GRIDS)
    trials, skips = expand(load_suite(path, ["hides=[labels]"]))
    assert [trial.label for trial in trials] == ["no_strategy"]
    assert [skip.reason for skip in skips] == [
        "er needs labels, which the protocol hides",
        "finetune needs labels, which the protocol hides",
    ]


def test_replay_that_would_never_replay_is_refused(tmp_path):
    text = SHARED_GRIDS.replace("[no_strategy]", "[no_strategy, replay]")
    assert "replay" in shared(tmp_path, text, "buffer_size=33", "replay_batch=32")
    with pytest.raises(UserError, match=r"method replay: buffer_size must be above replay_batch"):
        shared(tmp_path, text, "buffer_size=32", "replay_batch=32")


def test_a_protocol_setting_under_a_methods_name_is_that_methods_alone(tmp_path):
    specs = shared(tmp_path, SHARED_GRIDS)
    assert [specs[name].protocol["lr"] for name in specs] == [0.05, 0.2, 0.2]
    specs = shared(tmp_path, SHARED_GRIDS, "lr=0.3", "er.lr=0.01")
    assert [specs[name].protocol["lr"] for name in specs] == [0.01, 0.3, 0.3]


def test_an_entry_may_set_what_its_part_of_the_protocol_has(tmp_path):
    specs = shared(tmp_path, SHARED_GRIDS)
    assert specs["finetune"].protocol["backbone"] == {"name": "mlp", "hidden": [7]}
    assert specs["er"].protocol["backbone"] == {"name": "mlp", "hidden": [100, 100]}
