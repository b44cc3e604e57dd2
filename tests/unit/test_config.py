"""Reading YAML into dataclasses: numbers by the rules of 1.2, and a hint for every mistake."""

from dataclasses import dataclass
from typing import Literal

import pytest

from harness.config import parse_yaml, plain, read_yaml, settings
from harness.errors import UserError
from methods.base import Training


@dataclass(frozen=True, slots=True)
class Settings:
    capacity: int = 500
    weight: float = 1.0
    widths: tuple[int, ...] = (1, 2)
    policy: Literal["reservoir", "fifo"] = "fifo"
    flip: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity}")


def read(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1.0e-4", 0.0001),
        ("-2e+2", -200.0),
        (".5", 0.5),
        ("3", 3),
        ("010", 10),
        ("off", "off"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("1:30", "1:30"),
        ("[0, 1]", [0, 1]),
        ("{cpu: 1, gpu: 0.5}", {"cpu": 1, "gpu": 0.5}),
    ],
)
def test_values_are_read_by_the_rules_of_yaml_1_2(text, value):
    found = parse_yaml(text, where="--set")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: 1\na: 2",
        "a: b: c",
        "a: *nobody",
        "\ta: 1",
        "a: !!python/object:os.system {}",
        "a: 2024-13-45",
        "a: !!int x",
        "a: 1\n---\nb: 2",
        "a: \x07",
    ],
)
def test_what_is_no_yaml_is_an_error_that_names_the_file(tmp_path, text):
    with pytest.raises(UserError, match=r"file\.yaml.*not valid YAML"):
        read(tmp_path, text)


def test_the_line_of_a_mistake_is_named(tmp_path):
    with pytest.raises(UserError, match="line 3"):
        read(tmp_path, "a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize(
    ("text", "kind"), [("[1]", "a list"), ("word", "text"), ("3", "a number"), ("1: 2", "words")]
)
def test_a_file_that_holds_no_mapping_of_words_is_refused(tmp_path, text, kind):
    with pytest.raises(UserError, match=rf"file\.yaml.*{kind}"):
        read(tmp_path, text)


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    assert read(tmp_path, "# nothing but a comment\n") == {}


def test_a_missing_file_is_an_error_with_its_neighbour(tmp_path):
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(UserError, match=r"no such file; did you mean .*quickstart\.yaml"):
        read_yaml(tmp_path / "quickstrat.yaml")


def test_a_folder_or_bytes_that_are_no_text_are_errors(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "b.yaml")


def test_settings_keep_defaults_and_turn_lists_into_tuples():
    assert settings(Settings, {}, where="f") == Settings()
    assert settings(Settings, {"widths": [3]}, where="f") == Settings(widths=(3,))


def test_a_whole_number_is_a_number_with_a_point_where_one_is_wanted():
    found = settings(Settings, {"weight": 2}, where="f").weight
    assert isinstance(found, float)
    assert found == 2.0


@pytest.mark.parametrize(
    "values",
    [
        {"capacity": "500"},
        {"capacity": 5.0},
        {"capacity": True},
        {"capacity": None},
        {"weight": "1"},
        {"weight": True},
        {"widths": 3},
        {"widths": ["3"]},
        {"widths": {"a": 1}},
        {"policy": "lifo"},
        {"flip": 1},
        {"flip": "true"},
    ],
)
def test_a_wrong_type_is_an_error_that_names_file_key_and_value(values):
    key = next(iter(values))
    with pytest.raises(UserError, match=rf"^f\.yaml: {key}: .*got"):
        settings(Settings, values, where="f.yaml")


@pytest.mark.parametrize(
    ("key", "hint"), [("capcity", "did you mean 'capacity'"), ("zzz", "known: capacity, flip")]
)
def test_an_unknown_key_is_an_error_with_a_hint(key, hint):
    with pytest.raises(UserError, match=rf"^f\.yaml: unknown key '{key}'; {hint}"):
        settings(Settings, {key: 1}, where="f.yaml")


def test_what_a_dataclass_itself_refuses_is_the_user_s_error():
    with pytest.raises(UserError, match=r"^f\.yaml: capacity must be at least 1, got 0$"):
        settings(Settings, {"capacity": 0}, where="f.yaml")


def test_what_json_cannot_say_is_the_user_s_error():
    with pytest.raises(UserError, match=r"^f\.yaml"):
        settings(Settings, {"capacity": parse_yaml("2024-01-01", where="")}, where="f.yaml")


def test_plain_settings_read_back_as_the_same():
    one = Settings(weight=0.5, widths=(4, 5), limit=3)
    assert settings(Settings, plain(one), where="f") == one
    assert plain(one)["widths"] == [4, 5]


@pytest.mark.parametrize(
    "values",
    [
        {"lr": -0.1},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"epochs": 0},
        {"batch_size": 0},
        {"buffer_size": -1},
        {"passes": 0},
        {"replay_batch": 0},
        {"optimizer": "adan"},
        {"schedule": "linear"},
    ],
)
def test_training_that_cannot_be_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        settings(Training, values, where="f")
