# mypy: disable-error-code="call-arg"
# of models that are made at run time
"""Laws of a recipe with a teacher behind an API: it distills from start to end, its key is in no
file, and its cost is told.
"""

import base64
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from domainfusion.cli.main import main
from domainfusion.cli.plan import plan_of
from domainfusion.models import APIModel, Limits
from domainfusion.models.api.endpoint import OPENAI_URL
from domainfusion.prompts import AGREEMENT_PROMPT, COHERENCE_PROMPT, JUDGE_PROMPT
from domainfusion.recipe import build_distiller, read_recipe, write_recipe
from domainfusion.recipe.sections import APISection
from domainfusion.reports import RunSummary
from models.api_settings import GROUPS, api_model
from models.faulty_server import Exchange, FaultyServer, completion, status

KEY = "sk-a-secret-of-some-length"
RECIPE = """\
domains: {{physiology: What bodies do, nutrition: What bodies eat}}
student: {student}
teachers:
  physiology:
    model: clinic-large
    base_url: {url}
    api_key_env: CLINIC_API_KEY
    system_prompt: You are a physiologist.
    max_retries: 0
    backoff_seconds: 0.001
    price_per_million_input_tokens: 1e6
    price_per_million_output_tokens: 1e6
    max_cost: 10_000.0
  nutrition: {expert}
generators:
  - type: curated
    examples:
      - {{query: "How do muscles work?", domain: physiology}}
      - {{query: "How do they rest?", domain: physiology}}
      - {{query: "What is in bread?", domain: nutrition}}
      - {{query: "What feeds a muscle?", domains: [physiology, nutrition]}}
responses: {{max_new_tokens: 8}}
trainer: {{type: integration, learning_rate: 1e-3, epochs: 1}}
evaluation: {{test_examples: test.jsonl, max_new_tokens: 8, resamples: 100}}
""".replace("10_000.0", "10000.0")
TEST = [
    {"query": "How do lungs work?", "domain": "physiology", "answers": {"physiology": "lungs"}},
    {"query": "What is in milk?", "domain": "nutrition", "answers": {"nutrition": "fat"}},
]
COST_OF_ALL = 5 * 15
"""The expert is asked three questions to train on and two to measure by, and the server counts 15
tokens each.
"""

MakeRecipe = Callable[..., Path]


@pytest.fixture
def make_recipe(tiny_llama: Path, make_adapter: Callable[..., Path], tmp_path: Path) -> MakeRecipe:
    """Writes the recipe for a server; further pairs replace text in it."""

    def make(url: str, *changes: tuple[str, str]) -> Path:
        text = RECIPE.format(student=tiny_llama, url=url, expert=make_adapter("nutrition", 1))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "test.jsonl").write_text(
            "".join(f"{json.dumps(example)}\n" for example in TEST)
        )
        (tmp_path / "recipe.yaml").write_text(text)
        return tmp_path / "recipe.yaml"

    return make


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLINIC_API_KEY", KEY)
    yield


def test_a_recipe_with_an_api_teacher_and_a_local_one_runs_from_start_to_end(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with FaultyServer() as server:
        recipe = make_recipe(server.url)
        assert (
            main(["distill", str(recipe), "--output-dir", str(run), "--no-check", "--verbose"]) == 0
        )
        asked = len(server.exchanges)
        assert {exchange.headers["authorization"] for exchange in server.exchanges} == {
            f"Bearer {KEY}"
        }
        assert {exchange.body["messages"][0]["content"] for exchange in server.exchanges} == {
            "You are a physiologist."
        }
        assert main(["evaluate", str(run)]) == main(["status", str(run)]) == 0
        assert len(server.exchanges) == asked == 5, "what is kept is not asked for again"
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert (
        run / "responses.sqlite" in files
        and run / "usage.json" in files
        and run / "run.log" in files
    )
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    usage = {model.name: model for model in RunSummary.read(run).usage}
    assert usage["clinic-large"].cost == COST_OF_ALL and usage["clinic-large"].roles == (
        "expert of physiology",
    )
    assert usage["nutrition"].cost is None and usage["nutrition"].calls == 4
    assert "cost 75.00" in shown.out
    assert (
        "## Calls and cost" in (run / "report.md").read_text()
        and "| 75.00 |" in (run / "report.md").read_text()
    )
    assert (run / "model" / "config.json").is_file()


def test_a_key_that_the_server_echoes_in_whatever_form_is_in_no_file_of_a_run(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentinel is looked for in what every file says, escapes and encodings undone."""
    escaped = "".join(f"\\u{ord(character):04x}" for character in KEY)
    in_base64 = base64.b64encode(f"me:{KEY}".encode()).decode()
    body = json.dumps(
        completion({"role": "assistant", "content": "CONTENT", "reasoning_content": "CONTENT"})
    )
    said = f"Muscles need {escaped}, %73k{escaped[12:]}, {KEY.encode().hex()} and {in_base64}."
    refused = json.dumps({"error": {"message": "TEXT"}}).replace(
        "TEXT", f"Context length: {escaped} {in_base64}"
    )

    def echo(exchange: Exchange) -> None:
        exchange.send(200, body.replace("CONTENT", said).encode())

    gap = {"How do they rest?": [lambda exchange: exchange.send(400, refused.encode())]}
    run = tmp_path / "run"
    with FaultyServer(gap, default=echo) as server:
        recipe = make_recipe(server.url, ("responses:", "on_teacher_failure: continue\nresponses:"))
        assert main(["distill", str(recipe), "--output-dir", str(run), "--verbose"]) == 0
        assert main(["report", str(run)]) == 0
    shown = capsys.readouterr()
    texts = [
        shown.out + shown.err,
        *(file.read_bytes().decode("latin-1") for file in run.rglob("*") if file.is_file()),
    ]
    assert any("Muscles need ***" in text for text in texts)
    for text in texts:
        assert KEY not in text and KEY.encode().hex() not in text and in_base64[8:-4] not in text
        assert KEY not in re.sub(
            r"\\+u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text
        )


def test_without_its_key_a_run_ends_before_it_begins(
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("CLINIC_API_KEY")
    recipe, run = make_recipe("http://127.0.0.1:9/v1"), tmp_path / "run"
    assert main(["distill", str(recipe), "--output-dir", str(run)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "Error: The environment variable with the API key is not set; received 'CLINIC_API_KEY'"
    )
    assert "export" in error and error.count("\n") == 1
    assert not run.exists()


def test_a_dry_run_needs_no_key_asks_nobody_and_estimates_no_less_than_the_run_costs(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CLINIC_API_KEY")
    with FaultyServer() as server:
        assert main(["distill", str(make_recipe(server.url)), "--dry-run"]) == 0
        assert server.exchanges == []
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Cost:")]
    assert float(line.split("about ")[1].split(" (")[0]) >= COST_OF_ALL
    assert "physiology" in line and "nutrition" not in line


def test_what_a_dry_run_says_of_a_judge_is_what_the_run_asks_it(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    def verdict(exchange: Exchange) -> None:
        exchange.send_json(
            completion(
                {
                    "role": "assistant",
                    "content": "3" if "hold together" in exchange.question else "same",
                }
            )
        )

    crossing = {
        "query": "What feeds lungs?",
        "domains": ["physiology", "nutrition"],
        "answers": {"physiology": "air", "nutrition": "fat"},
    }
    unreferenced = {"query": "What is in wine?", "domain": "nutrition"}
    with FaultyServer() as experts, FaultyServer(default=verdict) as judges:
        judge = f"{{model: judge-large, base_url: {judges.url}, api_key_env: CLINIC_API_KEY}}"
        settings = (
            f"resamples: 100, metric: judge, coherence: judge, judge: {judge}, agreement_judge:"
            f" {judge}"
        )
        recipe = make_recipe(experts.url, ("resamples: 100", settings))
        with (tmp_path / "test.jsonl").open("a") as stream:
            stream.writelines(f"{json.dumps(example)}\n" for example in (crossing, unreferenced))
        planned: Counter[str] = Counter()
        for call in plan_of(read_recipe(recipe)).calls:
            if call.model == "judge-large":
                planned[call.doing] += call.count
        assert main(["distill", str(recipe), "--output-dir", str(tmp_path / "run"), "--quiet"]) == 0
        asked = Counter(exchange.question.splitlines()[0] for exchange in judges.exchanges)
    prompts = {
        "judging": JUDGE_PROMPT,
        "judging coherence": COHERENCE_PROMPT,
        "judging agreement": AGREEMENT_PROMPT,
    }
    made = {doing: asked[prompt.splitlines()[0]] for doing, prompt in prompts.items()}
    # The ensemble's answer is one of the experts' word for word here, and an answer that was judged
    # is not judged again.
    assert planned == {**made, "judging": made["judging"] + 2}
    # Of the question across domains the ensemble's answer is judged too, and each part on its own
    # expert's answer.
    assert planned == {
        "judging": 2 * 4 * 3 + 2 * 3,
        "judging coherence": 1,
        "judging agreement": 2 * 3,
    }


def test_a_dry_run_says_whose_prices_it_lacks(
    make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = (
        "    price_per_million_input_tokens: 1e6\n    price_per_million_output_tokens: 1e6\n   "
        " max_cost: 10000.0\n"
    )
    assert (
        main(["distill", str(make_recipe("http://127.0.0.1:9/v1", (prices, ""))), "--dry-run"]) == 0
    )
    assert "Cost:      not known, as there are no prices of physiology" in capsys.readouterr().out


def test_a_run_that_reached_its_limit_continues_where_it_was_once_it_is_raised(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output-dir", str(tmp_path / "run")]
    with FaultyServer() as server:
        for _ in range(2):
            recipe = make_recipe(server.url, ("max_cost: 10000.0", "max_cost: 100.0"))
            assert main(["distill", str(recipe), *words, "--no-check"]) == 1
            assert "max_cost" in capsys.readouterr().err
            spent = len(server.exchanges) * 15
            assert 0 < spent <= 100
            assert main(["status", str(tmp_path / "run")]) == 0
            assert f"cost {spent:.2f}." in capsys.readouterr().out
        assert main(["distill", str(make_recipe(server.url)), *words, "--no-check"]) == 0
        assert len(server.exchanges) == 5
    assert sum(model.cost or 0 for model in RunSummary.read(tmp_path / "run").usage) == COST_OF_ALL


def test_a_run_continues_over_a_gap_where_recipe_or_command_say_so(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = {"How do they rest?": [status(400)] * 9, "How do lungs work?": [status(400)] * 9}
    with FaultyServer(gaps) as server:
        recipe, run = make_recipe(server.url), tmp_path / "run"
        assert main(["distill", str(recipe), "--output-dir", str(run)]) == 1
        assert "1 of 3 questions unanswered" in capsys.readouterr().err
        assert (
            main(
                [
                    "distill",
                    str(recipe),
                    "--output-dir",
                    str(run),
                    "--on-teacher-failure",
                    "continue",
                ]
            )
            == 0
        )
        assert read_recipe(run / "recipe.yaml").on_teacher_failure == "continue"
        report = (run / "report.md").read_text()
        assert (
            "The expert of physiology left 1 of 2 questions unanswered; these have no grade"
            in report
        )
        told = make_recipe(server.url, ("responses:", "on_teacher_failure: continue\nresponses:"))
        assert (
            main(
                [
                    "distill",
                    str(told),
                    "--output-dir",
                    str(tmp_path / "other"),
                    "--until",
                    "integrate",
                ]
            )
            == 0
        )
    rejected = [
        record
        for record in RunSummary.read(tmp_path / "other").records
        if record.verification == "rejected"
    ]
    assert [record.reason for record in rejected] == ["the expert of physiology did not answer"]


def test_what_stands_where_a_variable_belongs_is_never_shown(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (KEY, "aKeyOfLettersAlone"):
        recipe = make_recipe("http://127.0.0.1:9/v1", ("CLINIC_API_KEY", wrong))
        assert main(["distill", str(recipe), "--output-dir", str(tmp_path / "run")]) == 1
        shown = capsys.readouterr()
        assert wrong not in shown.out + shown.err and "variable" in shown.err


def test_every_setting_of_an_api_model_can_be_given_and_has_its_default() -> None:
    own = dict(inspect.signature(APIModel).parameters)
    defaults = {name: own[name].default for name in own.keys() - GROUPS.keys() - {"model"}}
    for group in GROUPS.values():
        defaults |= {each.name: each.default for each in fields(group)}
    assert APISection.model_fields.keys() == defaults.keys() | {"model"}
    section = APISection(model="m").model_dump()
    assert {name: section[name] for name in defaults} == defaults | {"base_url": None, "omit": []}
    assert defaults["base_url"] == OPENAI_URL and defaults["omit"] == ()
    assert len(own) <= 12


def test_a_recipe_with_every_setting_is_read_back_and_builds_the_same_model(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    settings = """\
    name: clinic
    include_reasoning: true
    omit: [temperature, seed]
    extra_body: {reasoning_effort: low}
    json_schema: {type: object}
    max_concurrency: 4
    requests_per_minute: 60
    tokens_per_minute: 5000
    timeout_seconds: 30
    price_per_million_cached_tokens: 1
    account: the clinic's
"""
    recipe = read_recipe(
        make_recipe(
            "http://localhost:9/v1", ("    max_retries: 0\n", f"    max_retries: 0\n{settings}")
        )
    )
    write_recipe(recipe, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == recipe
    built = build_distiller(recipe, output_dir=tmp_path / "run").teacher_models["physiology"]
    assert isinstance(built, APIModel) and built.name == "clinic"
    same = api_model(
        "clinic-large",
        base_url="http://localhost:9/v1",
        system_prompt="You are a physiologist.",
        include_reasoning=True,
        omit=("temperature", "seed"),
        extra_body={"reasoning_effort": "low"},
        json_schema={"type": "object"},
    )
    assert built.fingerprint == same.fingerprint
    assert built._limits == Limits(
        max_concurrency=4,
        requests_per_minute=60,
        tokens_per_minute=5_000,
        max_cost=built._limits.max_cost,
        account="the clinic's",
    )
    assert (built._retries.max_retries, built._retries.timeout_seconds) == (0, 30)
    assert built._account.name == "the clinic's"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "http://127.0.0.1:9/v1",
            "http://models.example.com/v1",
            ["teachers.physiology.base_url", "Plain http"],
        ),
        (
            "api_key_env: CLINIC_API_KEY",
            "api_key: x",
            ["teachers.physiology.api_key is not a key", "write api_key_env"],
        ),
        (
            "model: clinic-large",
            "path: x\n    model: clinic-large",
            ["teachers.physiology.path is not a key", "allowed: model, base_url"],
        ),
        (
            "    price_per_million_input_tokens: 1e6\n",
            "",
            ["teachers.physiology: One price is missing", "give both"],
        ),
        ("max_retries: 0", "max_retries: -1", ["max_retries is out of range", "from 0"]),
        ("max_retries: 0", "omit: [top_k]", ["teachers.physiology.omit names fields", "top_p"]),
        ("model: clinic-large\n    ", "", ["teachers.physiology has no model"]),
        (
            "learning_rate: 1e-3",
            "initialization: merge, learning_rate: 1e-3",
            ["only experts with weights", "'physiology'"],
        ),
    ],
)
def test_a_mistake_is_one_error_that_names_its_line(
    make_recipe: MakeRecipe,
    old: str,
    new: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = make_recipe("http://127.0.0.1:9/v1", (old, new))
    capsys.readouterr()  # what building the models of the fixtures said
    assert main(["distill", str(recipe), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {recipe}:") and error.count("\n") == 1
    assert all(word in error for word in words), error
