"""The twin of a script that has a progress bar, a thread of its own, or the time of day in its log."""

import json

import pytest

LOOP = """
import sys, time, torch
torch.manual_seed(int(sys.argv[1]))
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(model.parameters())
steps = range(30)
{before}
for step in steps:
    loss = model(torch.randn(8, 3)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    {within}
print(loss.item())
torch.save(model.state_dict(), "last.pt")
"""
THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
BAR = "from tqdm import tqdm; steps = tqdm(steps)"
NAMED_BAR = "from tqdm.auto import trange; steps = trange(30, desc='steps')"
CLOCK = "open('train.log', 'a').write(f'{time.time_ns()}\\n')"


def twin(commands, folder, before="", within="pass"):
    (folder / "train.py").write_text(LOOP.format(before=before, within=within))
    return commands(folder, "twin", "--at", 10, "--json", "--", "train.py", "{seed}")


@pytest.mark.parametrize("bar", [BAR, pytest.param(NAMED_BAR, marks=pytest.mark.long)])
def test_a_progress_bar_starts_no_thread_and_is_forked(bar, commands, tmp_path):
    said = twin(commands, tmp_path, bar)
    assert said.code == 0, said.err
    assert json.loads(said.out)["why_not_fork"] == ""


def test_a_process_with_a_thread_is_run_again_and_this_is_said(commands, tmp_path):
    said = twin(commands, tmp_path, THREAD)
    assert said.code == 0, said.err
    assert "it runs threads" in json.loads(said.out)["why_not_fork"]


@pytest.mark.long
def test_a_fault_of_a_twin_that_is_run_again_is_seen(commands, tmp_path):
    """The script prints whether bygones is loaded."""
    within = (
        "print(len([n for n in sys.modules if n == 'bygones.training.treatment']) and step > 9)"
    )
    said = twin(commands, tmp_path, THREAD, within)
    assert said.code == 4
    assert "does not run as it does without bygones" in said.err


def test_what_two_bare_runs_do_not_agree_in_is_left_out_and_named(commands, tmp_path):
    said = twin(commands, tmp_path, within=CLOCK)
    found = json.loads(said.out)
    assert said.code == 0
    assert (found["varying"], found["files"]) == (["train.log"], 1)
