"""Papers: what they show can be made by the suites they name, and stands beside what they print."""

import csv
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from stores import Trial, rows, write_suite, write_trial

from analysis.figures import names
from analysis.figures.panels import panels
from analysis.grid import Published
from analysis.literature import FOLDER, published
from analysis.load import read
from analysis.metrics import METRICS
from analysis.paper import PaperFigure, PaperTable, papers, shown
from analysis.scalars import SCALARS
from analysis.tables import csv as table_csv
from analysis.tables import latex, markdown
from harness.catalogue import listing
from harness.config import CONFIGS
from harness.grid import expand
from harness.suite import load_suite

ITEMS = [(paper, item) for paper in papers().values() for item in paper.items]
TABLES = [(paper, item) for paper, item in ITEMS if isinstance(item, PaperTable)]


def ids(value):
    return getattr(value, "name", getattr(value, "title", None))


@cache
def planned(suite):
    """What a suite makes, by label, data set, number of tasks."""
    trials, _ = expand(load_suite(CONFIGS / "suite" / f"{suite}.yaml"))
    return {(t.label, t.dataset_label, t.spec.num_tasks, t.protocol_name) for t in trials}


def test_list_names_every_paper():
    assert [name for name, _ in listing("papers")] == list(papers())
    assert all(line for _, line in listing("papers"))


@pytest.mark.parametrize(("paper", "item"), ITEMS, ids=ids)
def test_the_suite_of_an_item_makes_its_labels_under_a_protocol_of_the_paper(paper, item):
    made = planned(item.suite)
    beside = (
        {label for label, *_ in planned("braincl_table1")} if paper.name == "braincl" else set()
    )
    lines = {*item.labels, *getattr(item, "beside", ())}
    assert lines <= {label for label, *_ in made} | beside
    assert {protocol for *_, protocol in made} <= set(paper.protocols)
    if isinstance(item, PaperFigure):
        assert item.figure in names()
    else:
        assert all(metric in METRICS or metric in SCALARS for metric in item.metrics)


@pytest.mark.parametrize(("paper", "item"), TABLES, ids=ids)
def test_whatever_a_paper_prints_has_a_trial_that_makes_it(paper, item):
    printed = published(paper.name)
    made = {(label, dataset, tasks) for label, dataset, tasks, _ in planned(item.suite)}
    for line in printed[printed["source"] == item.source].to_dict("records"):
        assert line["label"] in item.labels
        assert line["metric"] in item.metrics
        assert (line["label"], line["dataset"], line["num_tasks"]) in made


def test_every_published_number_belongs_to_a_table():
    sources = {(paper.name, item.source) for paper, item in TABLES}
    for path in FOLDER.glob("*.csv"):
        with path.open() as file:
            found = {(path.stem, line["source"]) for line in csv.DictReader(file)}
        assert found <= sources, path.name


@pytest.mark.parametrize(
    ("paper", "label", "dataset", "tasks", "metric", "mean", "std"),
    [
        ("climb", "climb", "imagenet100", 20, "CA", 47.46, 1.76),
        ("climb", "minred", "cifar100", 50, "FA", 43.62, 1.44),
        ("edd", "edd", "cifar100", 10, "FA", 37.24, 0.29),
        ("edd", "ewc_online", "cifar10", 5, "FA", 19.49, 0.12),
        ("edd", "lambda_mem 0.1", "cifar100", 10, "FA", 28.5, 0.7),
        ("braincl", "braincl", "core50", 10, "FA_weighted", 78.4, np.nan),
        ("braincl", "exemplar_replay", "medmnist40", 10, "extra_MiB", 115, np.nan),
    ],
)
def test_published_numbers_under_our_names(paper, label, dataset, tasks, metric, mean, std):
    found = published(paper)
    place = (found["label"] == label) & (found["dataset"] == dataset)
    place &= (found["num_tasks"] == tasks) & (found["metric"] == metric)
    lines = found[place].drop_duplicates(["mean", "std"])
    assert lines[["mean", "std"]].to_numpy().tolist()[0] == pytest.approx([mean, std], nan_ok=True)


def test_a_name_that_the_mapping_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "new.csv").write_text(
        "source,benchmark,method,num_tasks,metric,mean,std,note\nx,split_cifar100,NEW,1,CA,1,1,\n"
    )
    (tmp_path / "names.toml").write_text((FOLDER / "names.toml").read_text())
    monkeypatch.setattr("analysis.literature.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"names.toml: no \[methods\] entry for NEW"):
        published("new")
    assert published("none").empty


def store(root, trials, value=0.5):
    for trial in trials:
        write_trial(root, trial, rows(trial, np.full((trial.num_tasks,) * 2, value)))
    write_suite(root, trials)
    return read(root)


def climb(label, seed=0, **more):
    given = {"dataset": "cifar100", "num_tasks": 20, "protocol": "online_ssl"}
    given |= {"primary": "probe_linear", "settings": {"protocol.objective": {"name": "simclr"}}}
    return Trial(label, seed, **{**given, **more})


def items(results, paper="climb"):
    return {item.title: item for item in shown(papers()[paper], results, list(panels(results)))}


MAIN = "Main table: continual and final accuracy, regular splits"


def test_a_published_value_and_the_difference_stand_below_ours(tmp_path):
    results = store(tmp_path, [climb("climb", 0), climb("climb", 1), climb("cla_e")])
    (table,) = items(results)[MAIN].tables
    cells = {(label, c.metric): cell for (label, c), cell in table.grid.cells.items()}
    assert cells["climb", "CA"].published == Published(41.33, 0.72, "")
    assert cells["climb", "CA"].difference() == "+8.67"
    assert "50.00 ± 0.00<br>paper 41.33 ± 0.72 (+8.67)" in markdown(table).replace("**", "")
    tex = latex(table)
    assert "\\quad published & 41.33 $\\pm$ 0.72 & 44.09 $\\pm$ 0.30 \\\\" in tex
    assert "\\quad difference & $+8.67$ & $+5.91$ \\\\" in tex
    (tmp_path / "t.csv").write_text(table_csv(table))
    long = pd.read_csv(tmp_path / "t.csv").set_index(["label", "metric"])
    assert long.loc[("climb", "FA"), "published_mean"] == pytest.approx(0.4409)


def test_trials_with_other_settings_are_shown_and_not_compared(tmp_path):
    other = climb("climb", settings={"protocol.objective": {"name": "simsiam"}})
    (table,) = items(store(tmp_path, [other]))[MAIN].tables
    assert all(cell.published is None for cell in table.grid.cells.values())
    assert "published" not in latex(table)


def test_lines_are_in_the_papers_order_and_others_stay_away(tmp_path):
    trials = [climb(name) for name in ("scale", "iid", "cla_e", "climb")]
    (table,) = items(store(tmp_path, trials))[MAIN].tables
    assert table.grid.labels == ["climb", "cla_e", "scale"]


def test_what_is_lacking_is_named_with_the_suite_that_makes_it(tmp_path):
    found = items(store(tmp_path, [climb("climb")]))
    first, second = found[MAIN].lacking
    assert "cifar100, 50 tasks" in first
    assert "imagenet100, 100 tasks" in first
    assert "cifar100, 20 tasks" not in first
    assert "`python run_benchmark.py run configs/suite/climb_regular.yaml` makes them" in first
    assert second.startswith("Not stored: cla_e, cla_r, osiris_r, minred, scale.")
    irregular = found["Irregular table: continual and final accuracy, irregular splits"]
    assert irregular.tables == []
    assert "configs/suite/climb_irregular.yaml` makes it" in irregular.lacking[0]


def test_what_a_paper_says_in_words_stands_in_words(tmp_path):
    settings = {"dataset": "cifar100", "num_tasks": 10, "protocol": "class_incremental_edd"}
    trial = Trial("edd", label="lambda_mem 50.0", **settings)
    found = items(store(tmp_path, [trial]), "edd")
    (table,) = found["Table A.4: the weight of memory alignment"].tables
    assert "<br>paper training failed" in markdown(table)
    assert found["Table A.5: the weight of orthogonality"].tables == []


def test_what_stands_beside_a_table_makes_none_alone(tmp_path):
    settings = {"dataset": "cifar100", "num_tasks": 10, "protocol": "class_incremental_edd"}
    title = "Table 2: what each part of EDD adds"
    alone = store(tmp_path / "alone", [Trial("lwf_mc", **settings)])
    assert items(alone, "edd")[title].tables == []
    both = [Trial("lwf_mc", **settings), Trial("edd", label="align", **settings)]
    (table,) = items(store(tmp_path / "both", both), "edd")[title].tables
    assert table.grid.labels == ["align", "lwf_mc"]


def test_what_is_odd_about_a_published_value_is_told(tmp_path):
    (table,) = items(store(tmp_path, [climb("cla_e", dataset="imagenet100", num_tasks=50)]))[
        MAIN
    ].tables
    assert "printed alike for 50 and 100 tasks: cla\\_e on imagenet100" in markdown(table)


def test_a_table_is_of_the_scenarios_that_it_is_about(tmp_path):
    plain = Trial("er", protocol="braincl", label="icarl")
    tailed = Trial("er", protocol="braincl", label="icarl", dataset="tail")
    more = [
        replace(line, condition="many", on_task=-1)
        for line in rows(tailed, np.full((3, 3), 0.2), evaluator="shots")
    ]
    for trial, extra in ((plain, []), (tailed, more)):
        write_trial(tmp_path, trial, rows(trial, np.full((3, 3), 0.5)) + extra)
    write_suite(tmp_path, [plain, tailed])
    found = items(read(tmp_path), "braincl")
    (table,) = found["Long-tail table: many, medium and few images a class"].tables
    assert [str(setting) for setting in table.grid.settings()] == ["tail, 3 tasks"]
