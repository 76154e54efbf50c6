"""Moving all memory of one seed's run into another's: complete, or not, and then where."""

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "scripts"

NEEDED = {
    "accumulate_ema.py": {
        "weights",
        "moments",
        "streams/shuffling",
        "streams/torch",
        "ema.shadow",
        "order",
    },
    "char_lm.py": {"weights", "moments", "streams/torch", "windows"},
    "contrastive_queue.py": {"weights", "moments", "buffers", "encoder_k", "order"},
    "gan.py": {"weights", "moments", "batchnorm", "order"},
    "torchs_ema.py": {"weights", "moments", "batchnorm", "averages", "order"},
}

# A generator function keeps a tensor in a variable of its own, out of sight.
HIDDEN = """
import sys, torch
torch.manual_seed(int(sys.argv[1]))
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
def hidden():
    secret = torch.zeros(2)
    while True:
        seen = yield secret.clone()
        secret += seen
keeper = hidden()
next(keeper)
for step in range(30):
    outputs = model(torch.randn(8, 4))
    loss = outputs.square().mean()
    loss = loss + 0.01 * (outputs.mean(0) * keeper.send(outputs.detach().mean(0))).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


@pytest.mark.parametrize("name", NEEDED)
def test_the_inventory_of_an_example_is_complete(name, commands, tmp_path):
    said = commands(
        tmp_path,
        "sufficiency",
        "--at",
        6,
        "--until",
        14,
        "--json",
        "--",
        EXAMPLES / name,
        "--seed",
        "{seed}",
    )
    found = json.loads(said.out)
    assert said.code == 0
    assert found["sufficient"]
    assert set(found["needed"]) >= NEEDED[name]


def test_memory_out_of_sight_is_missed_and_said(commands, tmp_path):
    (tmp_path / "train.py").write_text(HIDDEN)
    said = commands(tmp_path, "sufficiency", "--at", 6, "--until", 14, "--", "train.py", "{seed}")
    assert said.code == 1
    assert "not complete" in said.out
    assert "its loss is another one than the donor's in step 6" in said.out


def test_what_real_workers_keep_is_missed_and_said(commands, tmp_path):
    script = EXAMPLES / "loader_workers.py"
    arguments = ("--at", 6, "--until", 10, "--", script, "--seed", "{seed}")
    said = commands(tmp_path, "sufficiency", *arguments)
    assert said.code == 1
    assert "shown other data" in said.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--at", 9, "--until", 4, "--", "train.py", "{seed}"), "before the last one compared"),
        (("--seeds", "0", "--", "train.py", "{seed}"), "two seeds"),
        (("--until", 900, "--", "train.py", "{seed}"), "before step 900"),
        (("--at", 3, "--until", 6, "--", "train.py", "0"), "does not reach train.py"),
        (("--", "nothing.py"), "no script"),
    ],
)
def test_a_question_that_means_nothing_is_refused(arguments, sentence, commands, tmp_path):
    (tmp_path / "train.py").write_text(HIDDEN)
    said = commands(tmp_path, "sufficiency", *arguments)
    assert said.code not in (0, 1, 70)
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_a_study_reports_whether_the_inventory_is_complete(commands, tmp_path):
    """Asked once: the store keeps the answer."""
    (tmp_path / "hidden.py").write_text(HIDDEN)
    study = ("script", "--fork-at", 6, "--horizons", "1,4", "--arm", "drop=reset:moments")
    asked = (*study, "--seeds", "0,1", "--sufficiency", "--", "hidden.py", "{seed}")
    said = commands(tmp_path, *asked)
    assert said.code == 0, said.err
    attributes = [
        json.loads(p.read_text()) for p in tmp_path.glob("bygones-store/records/*/*/*.json")
    ]
    (kept,) = [a["record"] for a in attributes if "sufficient" in a["record"]]
    assert kept["sufficient"] is False
    assert kept["at"] == 6
    said = commands(tmp_path, "report", "bygones-store")
    assert said.code == 0, said.err
    page = (tmp_path / "bygones-store-report" / "report.html").read_text()
    assert "The inventory of hidden.py {seed} is not complete" in page
    said = commands(tmp_path, "checklist", "bygones-store")
    assert "is not complete" in " ".join(said.out.split())
